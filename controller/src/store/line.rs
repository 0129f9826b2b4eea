//! The waiting line: sessions without a desktop yet, in the order they came.

use sqlx::types::Json;
use tram_wire::ids::{SessionId, UserId};
use uuid::Uuid;

use super::sessions::{Candidate, codes, scope_list};
use super::{Db, Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::access::Scope;
use crate::domain::desktop::DesktopState;
use crate::domain::line::{Cause, Place};
use crate::domain::policy::SessionPolicy;
use crate::domain::session::SessionState;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One lock for everybody who serves the line: two at once could let the later of two officers go first.
const LINE_LOCK: i64 = 0x7472_616d_6c69_6e65;

const LINE: &str = "SELECT id, queue_scope FROM sessions WHERE state = 'waiting' ORDER BY queued_at, id";

type Row = (Uuid, Option<Json<Vec<String>>>);

fn place((id, scope): Row) -> Place {
    Place { id: id.into(), scope: scope.map_or(Scope::All, |Json(codes)| Scope::Sites(codes)) }
}

impl Store {
    /// Everybody in the line, in order.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn line(&self) -> Result<Vec<Place>> {
        let rows: Vec<Row> = on_read!(self, c => sqlx::query_as(LINE).fetch_all(c))?;
        Ok(rows.into_iter().map(place).collect())
    }

    /// Sessions of these sites that gave their desktop back since then.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn freed_since(&self, scope: &Scope, since: Time) -> Result<i64> {
        let sql = format!(
            "SELECT COUNT(*) FROM sessions WHERE ended_at >= $1 AND epoch > 0 AND ($2 IS NULL OR {})",
            codes(matches!(self.db, Db::Postgres(_)), "site_code", 2)
        );
        Ok(
            on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(since.micros()).bind(scope_list(scope)).fetch_one(c))?,
        )
    }

    /// Why nobody of this scope can be served.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn line_cause(&self, scope: &Scope) -> Result<Cause> {
        let sql = format!(
            "SELECT COUNT(*) FROM desktops d JOIN pools p ON p.id = d.pool_id WHERE d.desired <> 'absent' AND p.desired = 'present' \
             AND d.assigned_user IS NULL AND ($1 IS NULL OR {})",
            codes(matches!(self.db, Db::Postgres(_)), "p.site_code", 1)
        );
        let unused: i64 =
            on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(scope_list(scope)).fetch_one(c))?;
        Ok(if unused > 0 { Cause::OutOfOrder } else { Cause::Busy })
    }
}

impl Tx {
    /// Makes everybody else who serves the line wait until this transaction ends.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn lock_line(&mut self) -> Result<()> {
        // SQLite's one writer waits anyway.
        if self.is_postgres() {
            exec_tx!(self, c => sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LINE_LOCK).execute(c))?;
        }
        Ok(())
    }

    /// Everybody in the line, in order.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn line(&mut self) -> Result<Vec<Place>> {
        let rows: Vec<Row> = on_tx!(self, c => sqlx::query_as(LINE).fetch_all(c))?;
        Ok(rows.into_iter().map(place).collect())
    }

    /// Puts somebody at the end of the line, or where they stood before (`since`, by the database's clock).
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if they have a live session.
    pub async fn queue_session(
        &mut self,
        id: SessionId,
        user: UserId,
        scope: &Scope,
        since: Option<i64>,
        ip: &str,
        now: Time,
    ) -> Result<()> {
        let site = match scope {
            Scope::Sites(codes) => codes.first().map_or("", String::as_str),
            Scope::All => "",
        };
        let sql = format!(
            "INSERT INTO sessions (id, user_id, desktop_name, site_code, state, created_at, last_active_at, resumes, bytes_up, bytes_down, \
             epoch, client_ip, queued_at, queue_scope) VALUES ($1, $2, '', $3, 'waiting', $4, $4, 0, 0, 0, 0, $5, COALESCE($6, {}), $7)",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.0).bind(user.0).bind(site).bind(now.micros()).bind(ip)
            .bind(since).bind(scope_list(scope)).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(())
    }

    /// Somebody in the line is still there.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn still_waiting(&mut self, id: SessionId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE sessions SET last_active_at = $2 WHERE id = $1 AND state = 'waiting'")
            .bind(id.0).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Gives the one who waits a desktop. `false` if they left meanwhile.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the desktop has a live session.
    pub async fn serve_session(
        &mut self,
        id: SessionId,
        desktop: &Candidate,
        policy: &SessionPolicy,
        now: Time,
    ) -> Result<bool> {
        let state = if desktop.state == DesktopState::Running { SessionState::Ready } else { SessionState::Starting };
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET state = $2, desktop_id = $3, desktop_name = $4, site_code = $5, assigned_at = $6, last_active_at = $6, \
             policy = $7 WHERE id = $1 AND state = 'waiting'")
            .bind(id.0).bind(state.as_str()).bind(desktop.id.0).bind(&desktop.name).bind(&desktop.site_code).bind(now.micros())
            .bind(Json(policy)).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(rows == 1)
    }

    /// Takes this user out of the line; the session that waited, if there was one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn leave_line(&mut self, user: UserId, now: Time) -> Result<Option<SessionId>> {
        let id: Option<Uuid> = on_tx!(self, c => sqlx::query_scalar(
            "UPDATE sessions SET state = 'ended', ended_at = $2, end_reason = 'left' WHERE user_id = $1 AND state = 'waiting' RETURNING id")
            .bind(user.0).bind(now.micros()).fetch_optional(c))?;
        if let Some(id) = id {
            self.touch(Kind::Session, id);
        }
        Ok(id.map(SessionId))
    }
}
