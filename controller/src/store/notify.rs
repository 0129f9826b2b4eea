//! Rules of who is told, and messages on their way.

use sqlx::types::Json;
use tram_wire::ids::IncidentId;
use uuid::Uuid;

use super::{Result, Store, Tx, TxInner, exec_tx, on_read, on_tx};
use crate::domain::incident::{Cause, Severity};
use crate::domain::notify::{Channel, Occasion, When};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// Who wants to be told.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Rule {
    /// Id.
    pub id: Uuid,
    /// What people call it; no two have one name.
    pub name: String,
    /// Off: nothing is told.
    pub enabled: bool,
    /// The way.
    #[sqlx(try_from = "String")]
    pub channel: Channel,
    /// Where it leads.
    pub target: String,
    /// The least that is told.
    #[sqlx(try_from = "String")]
    pub severity: Severity,
    /// Only these causes; empty: all.
    pub causes: Json<Vec<Cause>>,
    /// Everything below this site; `None`: everywhere.
    pub site_code: Option<String>,
    /// When.
    #[sqlx(try_from = "String")]
    pub at_times: When,
    /// The end is told, too.
    pub ends: bool,
}

/// A message on its way, or that was.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Outgoing {
    /// Id.
    pub id: Uuid,
    /// For whom.
    pub rule_id: Uuid,
    /// Of what; `None`: a try.
    pub incident_id: Option<Uuid>,
    /// Tells two of one occasion apart; of a call, its id.
    pub detail: String,
    /// What of it.
    #[sqlx(try_from = "String")]
    pub occasion: Occasion,
    /// When it was put here, microseconds.
    pub created_at: i64,
    /// When it is tried next.
    pub due_at: Option<i64>,
    /// How often it was tried.
    pub attempts: i64,
    /// When it went out.
    pub sent_at: Option<i64>,
    /// What was said when it did not.
    pub error: Option<String>,
}

const RULE: &str = "id, name, enabled, channel, target, severity, causes, site_code, at_times, ends";
const OUT: &str = "id, rule_id, incident_id, detail, occasion, created_at, due_at, attempts, sent_at, error";

impl Store {
    /// All rules by name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn notify_rules(&self) -> Result<Vec<Rule>> {
        let sql = format!("SELECT {RULE} FROM notify_rules ORDER BY name");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).fetch_all(c))?)
    }

    /// The newest messages, newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn notify_log(&self, limit: i64) -> Result<Vec<Outgoing>> {
        let sql = format!("SELECT {OUT} FROM notify_outbox ORDER BY created_at DESC, id DESC LIMIT $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(limit).fetch_all(c))?)
    }

    /// Open incidents whose party should have answered before this time.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn overdue_incidents(&self, now: Time) -> Result<Vec<IncidentId>> {
        let ids: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar(
            "SELECT id FROM incidents WHERE state = 'open' AND answer_by < $1 ORDER BY id").bind(now.micros()).fetch_all(c))?;
        Ok(ids.into_iter().map(Into::into).collect())
    }
}

impl Tx {
    /// Keeps a rule, new or changed.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if another one has its name.
    pub async fn put_notify_rule(&mut self, r: &Rule, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO notify_rules (id, name, enabled, channel, target, severity, causes, site_code, at_times, ends, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             enabled = excluded.enabled, channel = excluded.channel, target = excluded.target, severity = excluded.severity, \
             causes = excluded.causes, site_code = excluded.site_code, at_times = excluded.at_times, ends = excluded.ends")
            .bind(r.id).bind(&r.name).bind(r.enabled).bind(r.channel.as_str()).bind(&r.target).bind(r.severity.as_str())
            .bind(&r.causes).bind(&r.site_code).bind(r.at_times.as_str()).bind(r.ends).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Forgets a rule and what is on its way by it. `false` if there is none.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn drop_notify_rule(&mut self, id: Uuid) -> Result<bool> {
        Ok(exec_tx!(self, c => sqlx::query("DELETE FROM notify_rules WHERE id = $1").bind(id).execute(c))? == 1)
    }

    /// Puts a message on its way, once for each rule, incident and occasion.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn post(
        &mut self,
        rule: Uuid,
        incident: Option<IncidentId>,
        occasion: Occasion,
        detail: &str,
        due: Time,
        now: Time,
    ) -> Result<Uuid> {
        let id = Uuid::now_v7();
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO notify_outbox (id, rule_id, incident_id, occasion, detail, created_at, due_at, attempts) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING")
            .bind(id).bind(rule).bind(incident.map(|i| i.0)).bind(occasion.as_str()).bind(detail).bind(now.micros())
            .bind(due.micros()).execute(c))?;
        self.touch(Kind::Notify, id);
        Ok(id)
    }

    /// Takes a message that is due; nobody else gets it before `until`.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn claim_outgoing(&mut self, now: Time, until: Time) -> Result<Option<Outgoing>> {
        let lock = if matches!(self.inner, TxInner::Postgres(_)) { " FOR UPDATE SKIP LOCKED" } else { "" };
        let sql = format!(
            "UPDATE notify_outbox SET due_at = $2, attempts = attempts + 1 WHERE id = \
             (SELECT id FROM notify_outbox WHERE due_at <= $1 ORDER BY due_at, id LIMIT 1{lock}) RETURNING {OUT}"
        );
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone()))
            .bind(now.micros()).bind(until.micros()).fetch_optional(c))?)
    }

    /// Writes down how a message fared: sent, to be tried again, or given up.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn outgoing_done(
        &mut self,
        id: Uuid,
        sent: Option<Time>,
        again: Option<Time>,
        error: Option<&str>,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE notify_outbox SET sent_at = $2, due_at = $3, error = $4 WHERE id = $1")
            .bind(id).bind(sent.map(Time::micros)).bind(again.map(Time::micros)).bind(error).execute(c))?;
        Ok(())
    }
}
