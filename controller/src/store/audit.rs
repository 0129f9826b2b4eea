//! The audit: one row for every change anybody made.

use serde_json::Value;
use sqlx::types::Json;

use super::{Result, Store, Tx, exec_tx, like_literal, on_read};
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

/// A row that was written.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct AuditRow {
    /// Rises with every row.
    pub id: i64,
    /// When, microseconds.
    pub at: i64,
    /// Who, by sign-in name.
    pub actor: String,
    /// Their role.
    pub role: String,
    /// What, as `resource.verb`.
    pub action: String,
    /// To what.
    pub target: String,
    /// The particulars.
    pub detail: Json<Value>,
    /// Address the request came from.
    pub ip: String,
    /// `ok`, or the code of the refusal.
    pub result: String,
}

/// Which rows a list wants.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Part of the actor, action, target, address or result.
    pub text: String,
    /// Only rows older than this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

macro_rules! matching {
    () => {
        " FROM audit WHERE ($1 = '%%' OR LOWER(actor) LIKE $1 ESCAPE '\\' OR action LIKE $1 ESCAPE '\\' \
         OR LOWER(target) LIKE $1 ESCAPE '\\' OR ip LIKE $1 ESCAPE '\\' OR LOWER(result) LIKE $1 ESCAPE '\\') "
    };
}

impl Store {
    /// One page of the audit, newest first, and how many rows match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn audit_rows(&self, filter: &AuditFilter) -> Result<(Vec<AuditRow>, i64)> {
        let text = format!("%{}%", like_literal(&filter.text.trim().to_lowercase()));
        let before = filter.before.unwrap_or(i64::MAX);
        let rows = on_read!(self, c => sqlx::query_as(concat!(
            "SELECT id, at, actor, role, action, target, detail, ip, result", matching!(), "AND id < $2 ORDER BY id DESC LIMIT $3"))
            .bind(&text).bind(before).bind(filter.limit).fetch_all(c))?;
        let total =
            on_read!(self, c => sqlx::query_scalar(concat!("SELECT COUNT(*)", matching!())).bind(&text).fetch_one(c))?;
        Ok((rows, total))
    }
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
