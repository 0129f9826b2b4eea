//! What support had endpoints do, and what came of it.

use sqlx::types::Json;
use tram_wire::diagnosis::{Step, Work};
use tram_wire::ids::{EndpointId, OrderId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::diagnosis::verdict::Verdict;
use crate::domain::diagnosis::{DiagnosisEnd, DiagnosisState};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row, with its endpoint's name and site.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Diagnosis {
    /// Id; also the order's.
    #[sqlx(try_from = "Uuid")]
    pub id: OrderId,
    /// Where.
    #[sqlx(try_from = "Uuid")]
    pub endpoint_id: EndpointId,
    /// Its name.
    pub endpoint_name: String,
    /// Its site.
    pub site_code: String,
    /// Its word in the catalogue.
    pub name: String,
    /// What it does.
    #[sqlx(json)]
    pub work: Work,
    /// Where it is.
    #[sqlx(try_from = "String")]
    pub state: DiagnosisState,
    /// Who asked for it: sign-in name.
    pub asked_by: String,
    /// Their name, as the officer sees it.
    pub asked_name: String,
    /// Why.
    pub reason: String,
    /// Who agreed.
    pub approved_by: Option<String>,
    /// Times, microseconds.
    pub asked_at: i64,
    /// When the state it is in runs out.
    pub due_at: i64,
    /// When it was signed and sent.
    pub sent_at: Option<i64>,
    /// When the endpoint began.
    pub began_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// How.
    pub outcome: Option<String>,
    /// Why it was refused.
    pub code: Option<String>,
    /// Who ended it, if somebody did.
    pub ended_by: Option<String>,
    /// Somebody does not want it any more.
    pub cancelled: bool,
    /// How far it is.
    pub progress: Option<String>,
    /// What the steps come to.
    #[sqlx(json(nullable))]
    pub verdict: Option<Verdict>,
}

/// What a step found, and what it wrote.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct StepRow {
    /// Its number.
    pub step: i64,
    /// What it found, once it is done.
    #[sqlx(json(nullable))]
    pub body: Option<Step>,
    /// What it wrote.
    pub text: String,
}

/// Which to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only those that wait for a second person.
    pub waiting: bool,
    /// Only of these.
    pub ids: Vec<Uuid>,
    /// Only of these sites.
    pub sites: Option<Vec<String>>,
    /// At most so many.
    pub limit: i64,
}

/// A new row.
#[derive(Clone, Copy, Debug)]
pub struct NewDiagnosis<'a> {
    /// Id.
    pub id: OrderId,
    /// Where.
    pub endpoint: EndpointId,
    /// What.
    pub work: &'a Work,
    /// Where it begins.
    pub state: DiagnosisState,
    /// Who asks: sign-in name.
    pub by: &'a str,
    /// Their name.
    pub name: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When the state runs out.
    pub due: Time,
}

const SELECT: &str = "SELECT d.id, d.endpoint_id, e.name AS endpoint_name, e.site_code, d.name, d.work, d.state, d.asked_by, d.asked_name, d.reason, \
     d.approved_by, d.asked_at, d.due_at, d.sent_at, d.began_at, d.ended_at, d.outcome, d.code, d.ended_by, d.cancelled, d.progress, d.verdict \
     FROM diagnoses d JOIN endpoints e ON e.id = d.endpoint_id";

impl Store {
    /// The newest that match, newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnoses(&self, f: &Filter) -> Result<Vec<Diagnosis>> {
        let mut sql = format!("{SELECT} WHERE (NOT $1 OR d.state = 'asked') AND ($2 OR d.endpoint_id = $3)");
        let mut next = 5;
        let mut among = |column: &str, n: usize| {
            let marks: Vec<String> = (next..next + n).map(|i| format!("${i}")).collect();
            next += n;
            // Nothing is in an empty list, and an empty list is no SQL.
            sql += &format!(" AND {column} IN ({})", if n == 0 { "NULL".to_owned() } else { marks.join(", ") });
        };
        if !f.ids.is_empty() {
            among("d.id", f.ids.len());
        }
        if let Some(sites) = &f.sites {
            among("e.site_code", sites.len());
        }
        sql += " ORDER BY d.asked_at DESC, d.id DESC LIMIT $4";
        let endpoint = f.endpoint.map_or(Uuid::nil(), |e| e.0);
        Ok(on_read!(self, c => {
            let mut q = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(f.waiting).bind(f.endpoint.is_none()).bind(endpoint).bind(f.limit);
            for id in &f.ids {
                q = q.bind(id);
            }
            for site in f.sites.iter().flatten() {
                q = q.bind(site);
            }
            q.fetch_all(c)
        })?)
    }

    /// One.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis(&self, id: OrderId) -> Result<Option<Diagnosis>> {
        let sql = format!("{SELECT} WHERE d.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }

    /// Its steps, in order.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis_steps(&self, id: OrderId) -> Result<Vec<StepRow>> {
        let sql = "SELECT step, body, text FROM diagnosis_steps WHERE diagnosis_id = $1 ORDER BY step";
        Ok(on_read!(self, c => sqlx::query_as(sql).bind(id.0).fetch_all(c))?)
    }

    /// All that are not over, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_diagnoses(&self) -> Result<Vec<Diagnosis>> {
        let sql = format!("{SELECT} WHERE d.state <> 'ended' ORDER BY d.asked_at, d.id");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?)
    }
}

impl Tx {
    /// How many of an endpoint were asked for since then, and how many of all are on their way or run.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis_counts(&mut self, endpoint: EndpointId, since: Time) -> Result<(i64, i64)> {
        let lock = "SELECT id FROM endpoints WHERE id = $1 FOR UPDATE";
        if self.is_postgres() {
            // Two who ask at once are counted one after the other. SQLite has one writer anyway.
            let _: Option<Uuid> = on_tx!(self, c => sqlx::query_scalar(lock).bind(endpoint.0).fetch_optional(c))?;
        }
        Ok(on_tx!(self, c => sqlx::query_as(
            "SELECT COALESCE(SUM(CASE WHEN asked_at > $2 THEN 1 ELSE 0 END), 0), \
             COALESCE(SUM(CASE WHEN state IN ('queued', 'sent', 'asking', 'running') THEN 1 ELSE 0 END), 0) \
             FROM diagnoses WHERE endpoint_id = $1 AND (asked_at > $2 OR state <> 'ended')")
            .bind(endpoint.0).bind(since.micros()).fetch_one(c))?)
    }

    /// Writes one down.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_diagnosis(&mut self, n: &NewDiagnosis<'_>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO diagnoses (id, endpoint_id, name, work, state, asked_by, asked_name, reason, asked_at, due_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .bind(n.id.0).bind(n.endpoint.0).bind(n.work.name()).bind(Json(n.work)).bind(n.state.as_str()).bind(n.by)
            .bind(n.name).bind(n.reason).bind(now.micros()).bind(n.due.micros()).execute(c))?;
        self.touch(Kind::Diagnosis, n.id.0);
        Ok(())
    }

    /// One, held against other writers.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn hold_diagnosis(&mut self, id: OrderId) -> Result<Option<Diagnosis>> {
        let lock = if self.is_postgres() { " FOR UPDATE OF d" } else { "" };
        let sql = format!("{SELECT} WHERE d.id = $1{lock}");
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }

    /// Brings one from one state to the next. `false`: it is not in `from` any more.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn move_diagnosis(
        &mut self,
        id: OrderId,
        from: DiagnosisState,
        to: DiagnosisState,
        due: Time,
        now: Time,
    ) -> Result<bool> {
        let at = match to {
            DiagnosisState::Sent => ", sent_at = $5",
            DiagnosisState::Running => ", began_at = $5",
            _ => "",
        };
        // SQLite and PostgreSQL both want every number used.
        let sql = format!("UPDATE diagnoses SET state = $3, due_at = $4{at} WHERE id = $1 AND state = $2 AND $5 = $5");
        let rows = exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.0).bind(from.as_str()).bind(to.as_str())
            .bind(due.micros()).bind(now.micros()).execute(c))?;
        self.touch(Kind::Diagnosis, id.0);
        Ok(rows == 1)
    }

    /// A second person agreed.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn approve_diagnosis(&mut self, id: OrderId, by: &str) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE diagnoses SET approved_by = $2 WHERE id = $1").bind(id.0).bind(by).execute(c))?;
        Ok(())
    }

    /// The endpoint is to be told that it is not wanted any more.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn cancel_diagnosis(&mut self, id: OrderId, by: &str, due: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE diagnoses SET cancelled = TRUE, ended_by = $2, due_at = $3 WHERE id = $1")
            .bind(id.0).bind(by).bind(due.micros()).execute(c))?;
        self.touch(Kind::Diagnosis, id.0);
        Ok(())
    }

    /// How far it is.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis_progress(&mut self, id: OrderId, text: &str) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE diagnoses SET progress = $2 WHERE id = $1").bind(id.0).bind(text).execute(c))?;
        self.touch(Kind::Diagnosis, id.0);
        Ok(())
    }

    /// What a step wrote, as long as it is below its cap.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis_text(&mut self, id: OrderId, step: u16, text: &str, cap: i64) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO diagnosis_steps (diagnosis_id, step, text) VALUES ($1, $2, $3) \
             ON CONFLICT (diagnosis_id, step) DO UPDATE SET text = diagnosis_steps.text || EXCLUDED.text \
             WHERE LENGTH(diagnosis_steps.text) + LENGTH(EXCLUDED.text) <= $4")
            .bind(id.0).bind(i64::from(step)).bind(text).bind(cap).execute(c))?;
        self.touch(Kind::Diagnosis, id.0);
        Ok(())
    }

    /// What a step found.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis_step(&mut self, id: OrderId, body: &Step) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO diagnosis_steps (diagnosis_id, step, body) VALUES ($1, $2, $3) \
             ON CONFLICT (diagnosis_id, step) DO UPDATE SET body = EXCLUDED.body")
            .bind(id.0).bind(i64::from(body.step)).bind(Json(body)).execute(c))?;
        self.touch(Kind::Diagnosis, id.0);
        Ok(())
    }

    /// What the steps found so far.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn diagnosis_found(&mut self, id: OrderId) -> Result<Vec<Step>> {
        let found: Vec<Json<Step>> = on_tx!(self, c => sqlx::query_scalar(
            "SELECT body FROM diagnosis_steps WHERE diagnosis_id = $1 AND body IS NOT NULL ORDER BY step").bind(id.0).fetch_all(c))?;
        Ok(found.into_iter().map(|j| j.0).collect())
    }

    /// Ends one. `false` if it was over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn end_diagnosis(
        &mut self,
        id: OrderId,
        outcome: DiagnosisEnd,
        code: Option<&str>,
        verdict: Option<&Verdict>,
        by: Option<&str>,
        now: Time,
    ) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE diagnoses SET state = 'ended', ended_at = $2, outcome = $3, code = $4, verdict = $5, progress = NULL, \
             ended_by = COALESCE($6, ended_by) WHERE id = $1 AND state <> 'ended'")
            .bind(id.0).bind(now.micros()).bind(outcome.as_str()).bind(code).bind(verdict.map(Json)).bind(by).execute(c))?;
        self.touch(Kind::Diagnosis, id.0);
        Ok(rows == 1)
    }

    /// Forgets what is older.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn prune_diagnoses(&mut self, before: Time) -> Result<u64> {
        exec_tx!(self, c => sqlx::query(
            "DELETE FROM diagnoses WHERE id IN (SELECT id FROM diagnoses WHERE asked_at < $1 AND state = 'ended' ORDER BY asked_at LIMIT 500)")
            .bind(before.micros()).execute(c))
        .map_err(Into::into)
    }
}
