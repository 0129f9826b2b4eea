//! Copies of endpoints: who showed an identity, who shows it in quarantine, and what was decided.

use serde_json::Value;
use sqlx::types::Json;
use tram_wire::ids::EndpointId;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::copies::{Claim, Known, Suspicion};
use crate::domain::endpoint::EndpointState;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// How an endpoint stands, as far as it matters to who links.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Presence, or that it is withdrawn.
    pub state: EndpointState,
    /// Several computers show its identity.
    pub quarantined: bool,
    /// Who showed it last.
    pub known: Option<Known>,
}

/// A computer that shows a quarantined identity.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Copy {
    /// What tells it from the others.
    pub copy: String,
    /// What it says of itself.
    #[sqlx(json)]
    pub claim: Claim,
    /// When it was first seen so, microseconds.
    pub first_at: i64,
    /// When last.
    pub last_at: i64,
    /// Reports kept apart.
    pub reports: i64,
    /// The endpoint it is instead.
    pub became: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct StandingRow {
    state: String,
    quarantined_at: Option<i64>,
    #[sqlx(json(nullable))]
    known: Option<Known>,
}

const COPY: &str = "SELECT copy, claim, first_at, last_at, reports, became FROM endpoint_copies WHERE endpoint_id = $1";

impl Store {
    /// How an endpoint stands.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_standing(&self, id: EndpointId) -> Result<Option<Standing>> {
        let row: Option<StandingRow> = on_read!(self, c => sqlx::query_as(
            "SELECT e.state, e.quarantined_at, k.known FROM endpoints e LEFT JOIN endpoint_known k ON k.endpoint_id = e.id \
             WHERE e.id = $1")
            .bind(id.0).fetch_optional(c))?;
        Ok(row.map(|r| Standing {
            state: r.state.parse().unwrap_or(EndpointState::Revoked),
            quarantined: r.quarantined_at.is_some(),
            known: r.known,
        }))
    }

    /// Computers that show an identity, the first seen first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_copies(&self, id: EndpointId) -> Result<Vec<Copy>> {
        let sql = format!("{COPY} ORDER BY first_at, copy");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).fetch_all(c))?)
    }

    /// One of them.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_copy(&self, id: EndpointId, copy: &str) -> Result<Option<Copy>> {
        let sql = format!("{COPY} AND copy = $2");
        Ok(
            on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).bind(copy).fetch_optional(c))?,
        )
    }

    /// Endpoints whose quarantine began, ended or was decided about since then, and when.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_settled_since(&self, since: Time) -> Result<Vec<(EndpointId, Time)>> {
        let rows: Vec<(Uuid, i64)> = on_read!(self, c => sqlx::query_as("SELECT id, settled_at FROM endpoints WHERE settled_at >= $1")
            .bind(since.micros()).fetch_all(c))?;
        Ok(rows.into_iter().map(|(id, at)| (EndpointId(id), Time::from_micros(at))).collect())
    }

    /// Endpoints in quarantine about which something was decided since then, also that it began.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_quarantined_since(&self, since: Time) -> Result<Vec<EndpointId>> {
        let ids: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar(
            "SELECT id FROM endpoints WHERE settled_at >= $1 AND quarantined_at IS NOT NULL")
            .bind(since.micros()).fetch_all(c))?;
        Ok(ids.into_iter().map(EndpointId).collect())
    }

    /// How many identities are in quarantine.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_quarantined(&self) -> Result<i64> {
        Ok(on_read!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM endpoints WHERE quarantined_at IS NOT NULL AND state <> 'revoked'").fetch_one(c))?)
    }
}

impl Tx {
    /// Remembers who shows an identity. Nothing if there is no such endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_endpoint_known(&mut self, id: EndpointId, known: &Known) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO endpoint_known (endpoint_id, known) SELECT id, $2 FROM endpoints WHERE id = $1 \
             ON CONFLICT (endpoint_id) DO UPDATE SET known = excluded.known")
            .bind(id.0).bind(Json(known)).execute(c))?;
        Ok(())
    }

    /// Forgets who showed it: the next one is the one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_endpoint_known(&mut self, id: EndpointId) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM endpoint_known WHERE endpoint_id = $1").bind(id.0).execute(c))?;
        Ok(())
    }

    /// Puts an identity into quarantine. `false` if it is there already, or withdrawn.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn quarantine_endpoint(&mut self, id: EndpointId, why: &Suspicion, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE endpoints SET quarantined_at = $2, suspicion = $3, settled_at = $2 \
             WHERE id = $1 AND quarantined_at IS NULL AND state <> 'revoked'")
            .bind(id.0).bind(now.micros()).bind(Json(why)).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(rows == 1)
    }

    /// Something was decided; `lift`: the quarantine is over. `false` if there is none.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn settle_endpoint(&mut self, id: EndpointId, lift: bool, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE endpoints SET settled_at = $2, quarantined_at = CASE WHEN $3 THEN NULL ELSE quarantined_at END, \
             suspicion = CASE WHEN $3 THEN NULL ELSE suspicion END WHERE id = $1 AND quarantined_at IS NOT NULL")
            .bind(id.0).bind(now.micros()).bind(lift).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(rows == 1)
    }

    /// A computer shows a quarantined identity. `instead` is the name it had before it could be told from others.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_endpoint_copy(
        &mut self,
        id: EndpointId,
        claim: &Claim,
        instead: Option<&str>,
        now: Time,
    ) -> Result<()> {
        if let Some(old) = instead {
            exec_tx!(self, c => sqlx::query(
                "DELETE FROM endpoint_copies WHERE endpoint_id = $1 AND copy = $2 AND became IS NULL")
                .bind(id.0).bind(old).execute(c))?;
        }
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO endpoint_copies (endpoint_id, copy, claim, first_at, last_at, reports) VALUES ($1, $2, $3, $4, $4, 0) \
             ON CONFLICT (endpoint_id, copy) DO UPDATE SET claim = excluded.claim, last_at = excluded.last_at")
            .bind(id.0).bind(claim.key()).bind(Json(claim)).bind(now.micros()).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(())
    }

    /// A copy was heard, perhaps with a report.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_copy_heard(
        &mut self,
        id: EndpointId,
        copy: &str,
        report: Option<&Value>,
        now: Time,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE endpoint_copies SET last_at = $3, reports = reports + CASE WHEN $4 IS NULL THEN 0 ELSE 1 END, \
             report = COALESCE($4, report) WHERE endpoint_id = $1 AND copy = $2")
            .bind(id.0).bind(copy).bind(now.micros()).bind(report.map(Json)).execute(c))?;
        Ok(())
    }

    /// A copy is an endpoint of its own. `false` if that was said before, or there is no such copy.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_copy_became(&mut self, id: EndpointId, copy: &str, new: EndpointId) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE endpoint_copies SET became = $3 WHERE endpoint_id = $1 AND copy = $2 AND became IS NULL")
            .bind(id.0).bind(copy).bind(new.0).execute(c))?;
        Ok(rows == 1)
    }

    /// Copies nobody decided about.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_endpoint_copies(&mut self, id: EndpointId) -> Result<Vec<Copy>> {
        let sql = format!("{COPY} AND became IS NULL ORDER BY last_at DESC");
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).fetch_all(c))?)
    }

    /// Forgets copies nobody decided about.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_endpoint_copies(&mut self, id: EndpointId) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM endpoint_copies WHERE endpoint_id = $1 AND became IS NULL")
            .bind(id.0).execute(c))?;
        Ok(())
    }
}
