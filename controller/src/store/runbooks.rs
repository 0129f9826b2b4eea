//! Uses of runbooks and what was answered.

use sqlx::types::Json;
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::runbook::{RunState, Runbook};
use crate::domain::time::Time;

/// One use.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Run {
    /// Id.
    pub id: Uuid,
    /// Name of the runbook.
    pub runbook: String,
    /// It, as it was when this began.
    pub book: Json<Runbook>,
    /// For this incident.
    pub incident_id: Option<Uuid>,
    /// For this call.
    pub call_id: Option<Uuid>,
    /// The computer it is about, if it is about one.
    pub endpoint_id: Option<Uuid>,
    /// The site it is about.
    pub site_code: String,
    /// Checks of the computer that failed when it began.
    pub failed: Json<Vec<String>>,
    /// How far it is.
    #[sqlx(try_from = "String")]
    pub state: RunState,
    /// Who began it.
    pub started_by: String,
    /// When, microseconds.
    pub started_at: i64,
    /// When the last question was answered.
    pub answered_at: Option<i64>,
    /// When it was over: fixed, or given up.
    pub over_at: Option<i64>,
}

/// One answer.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Given {
    /// Of this use.
    pub run_id: Uuid,
    /// The step's name.
    pub step: String,
    /// The answer's name; empty where it is in words.
    pub answer: String,
    /// What else was said.
    pub note: String,
    /// Who wrote it down.
    pub actor: String,
    /// When, microseconds.
    pub at: i64,
}

const COLUMNS: &str = "id, runbook, book, incident_id, call_id, endpoint_id, site_code, failed, state, started_by, started_at, \
    answered_at, over_at";

impl Store {
    /// Uses for an incident or a call, the newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn runbook_runs(&self, incident: Option<IncidentId>, call: Option<Uuid>) -> Result<Vec<Run>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM runbook_runs WHERE ($1 IS NULL OR incident_id = $1) AND ($2 IS NULL OR call_id = $2) \
             ORDER BY started_at DESC, id LIMIT 200"
        );
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone()))
            .bind(incident.map(|i| i.0)).bind(call).fetch_all(c))?)
    }

    /// One use.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn runbook_run(&self, id: Uuid) -> Result<Option<Run>> {
        let sql = format!("SELECT {COLUMNS} FROM runbook_runs WHERE id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id).fetch_optional(c))?)
    }

    /// Uses whose questions were all answered since this time, and that have not helped yet.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn answered_runs(&self, since: Time) -> Result<Vec<Run>> {
        let sql =
            format!("SELECT {COLUMNS} FROM runbook_runs WHERE state = 'answered' AND answered_at > $1 ORDER BY id");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(since.micros()).fetch_all(c))?)
    }

    /// Answers of a use, in order.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn runbook_answers(&self, run: Uuid) -> Result<Vec<Given>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT run_id, step, answer, note, actor, at FROM runbook_answers WHERE run_id = $1 ORDER BY n")
            .bind(run).fetch_all(c))?)
    }

    /// How often each runbook came to which end: name, state, number.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn runbook_counts(&self) -> Result<Vec<(String, String, i64)>> {
        Ok(
            on_read!(self, c => sqlx::query_as("SELECT runbook, state, COUNT(*) FROM runbook_runs GROUP BY runbook, state")
            .fetch_all(c))?,
        )
    }
}

impl Tx {
    /// Begins a use.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_run(&mut self, r: &Run) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO runbook_runs (id, runbook, version, book, incident_id, call_id, endpoint_id, site_code, failed, state, \
             started_by, started_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)")
            .bind(r.id).bind(&r.runbook).bind(i64::from(r.book.0.version)).bind(&r.book).bind(r.incident_id).bind(r.call_id)
            .bind(r.endpoint_id).bind(&r.site_code).bind(&r.failed).bind(r.state.as_str()).bind(&r.started_by)
            .bind(r.started_at).execute(c))?;
        Ok(())
    }

    /// Answers so far, as this transaction sees them: step and answer.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn answers_of_run(&mut self, run: Uuid) -> Result<Vec<(String, String)>> {
        Ok(on_tx!(self, c => sqlx::query_as("SELECT step, answer FROM runbook_answers WHERE run_id = $1 ORDER BY n")
            .bind(run).fetch_all(c))?)
    }

    /// Keeps the n-th answer.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if somebody else answered at the same time.
    pub async fn add_answer(&mut self, n: i64, g: &Given) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO runbook_answers (run_id, n, step, answer, note, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(g.run_id).bind(n).bind(&g.step).bind(&g.answer).bind(&g.note).bind(&g.actor).bind(g.at).execute(c))?;
        Ok(())
    }

    /// Moves a use on. `false` if it is not in that state.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn move_run(&mut self, id: Uuid, from: RunState, to: RunState, now: Time) -> Result<bool> {
        let answered = (to == RunState::Answered).then_some(now.micros());
        let over = matches!(to, RunState::Fixed | RunState::Left).then_some(now.micros());
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE runbook_runs SET state = $3, answered_at = COALESCE($4, answered_at), over_at = $5 WHERE id = $1 AND state = $2")
            .bind(id).bind(from.as_str()).bind(to.as_str()).bind(answered).bind(over).execute(c))?;
        Ok(rows == 1)
    }
}

impl Run {
    /// The computer it is about.
    #[must_use]
    pub fn endpoint(&self) -> Option<EndpointId> {
        self.endpoint_id.map(EndpointId)
    }
}
