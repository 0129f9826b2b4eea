//! The audit: one row for every change anybody made.

use serde_json::Value;
use sqlx::types::Json;

use super::{Result, Tx, exec_tx};
use crate::domain::time::Time;

/// A new row.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// When.
    pub at: Time,
    /// Who, by sign-in name.
    pub actor: &'a str,
    /// Their role.
    pub role: &'a str,
    /// What, as `resource.verb`.
    pub action: &'a str,
    /// To what: an id or a name.
    pub target: &'a str,
    /// The particulars. Never a secret.
    pub detail: Value,
    /// Address the request came from; empty for the local administrator and the system.
    pub ip: &'a str,
    /// `ok`, or the code of the refusal.
    pub result: &'a str,
}

impl Tx {
    /// Writes an audit row in the same transaction as the change it tells of.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn audit(&mut self, e: Entry<'_>) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO audit (at, actor, role, action, target, detail, ip, result) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(e.at.micros()).bind(e.actor).bind(e.role).bind(e.action).bind(e.target)
            .bind(Json(e.detail)).bind(e.ip).bind(e.result).execute(c))?;
        Ok(())
    }
}
