//! Sessions of officers.

use sqlx::types::Json;
use tram_wire::ids::{DesktopId, SessionId, UserId};
use uuid::Uuid;

use super::leases::LeasesOf;
use super::{Db, Result, Store, Tx, TxInner, exec_tx, on_read, on_tx};
use crate::domain::access::Scope;
use crate::domain::desktop::DesktopState;
use crate::domain::experience::Experience;
use crate::domain::policy::SessionPolicy;
use crate::domain::session::{EndReason, Limit, SessionState};
use crate::domain::ticket::Binding;
use crate::domain::time::Time;
use crate::nudge::Kind;

mod row;

pub use self::row::{Candidate, Filter, Session};

const SELECT: &str = "SELECT s.id, s.user_id, u.username, u.disabled AS user_disabled, s.desktop_id, s.desktop_name, s.site_code, s.state, \
    s.end_reason, s.created_at, s.last_active_at, s.first_frame_at, s.disconnected_at, s.ended_at, s.resumes, s.bytes_up, s.bytes_down, \
    s.epoch, s.client_ip, d.state AS desktop_state, d.desired AS desktop_desired, d.state_since AS desktop_since, d.assigned_user, \
    d.host_id, p.persistent, p.start_desktops, s.queued_at, s.assigned_at, s.policy, s.holder_kind, s.holder, e.name AS holder_name, \
    s.present_at, s.closing_at, s.ended_by, s.end_note, s.experience, s.leased_at, s.shows_assists, s.gateway_id, g.name AS gateway_name \
    FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN desktops d ON d.id = s.desktop_id LEFT JOIN pools p ON p.id = d.pool_id \
    LEFT JOIN endpoints e ON e.id = s.holder_endpoint LEFT JOIN gateways g ON g.id = s.gateway_id";

/// `column IN (the codes bound as $n)`, for any number of codes.
pub(super) fn codes(postgres: bool, column: &str, n: u32) -> String {
    let each = if postgres { "SELECT jsonb_array_elements_text" } else { "SELECT value FROM json_each" };
    format!("{column} IN ({each}(${n}))")
}

/// The scope as it is bound: `None` for every site.
pub(super) fn scope_list(scope: &Scope) -> Option<Json<Vec<String>>> {
    match scope {
        Scope::All => None,
        Scope::Sites(codes) => Some(Json(codes.clone())),
    }
}

impl Store {
    /// The database's own time.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn time(&self) -> Result<Time> {
        let sql = format!("SELECT {}", self.db_now());
        let micros: i64 = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(c))?;
        Ok(Time::from_micros(micros))
    }

    /// See [`Tx::db_now`].
    pub(super) fn db_now(&self) -> &'static str {
        db_now(matches!(self.db, Db::Postgres(_)))
    }

    /// Sessions, newest first, and how many match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn sessions(&self, f: &Filter) -> Result<(Vec<Session>, i64)> {
        let postgres = matches!(self.db, Db::Postgres(_));
        let mut clause = format!(
            "($1 = 0 OR s.state <> 'ended') AND ($2 IS NULL OR s.user_id = $2) AND ($3 IS NULL OR {})",
            codes(postgres, "s.site_code", 3)
        );
        if let Some(ids) = &f.ids {
            // Typed ids, not text: nothing in them can end the literal.
            let list: Vec<String> = ids.iter().map(|i| uuid_literal(postgres, i.0)).collect();
            clause
                .push_str(&format!(" AND s.id IN ({})", if list.is_empty() { "NULL".into() } else { list.join(",") }));
        }
        let cursor = f.before.map(|b| format!(" AND s.id < {}", uuid_literal(postgres, b.0))).unwrap_or_default();
        let rows_sql = format!("{SELECT} WHERE {clause}{cursor} ORDER BY s.id DESC LIMIT $4");
        let count_sql = format!("SELECT COUNT(*) FROM sessions s WHERE {clause}");
        let (live, user, scope) = (i64::from(f.live), f.user.map(|u| u.0), scope_list(&f.scope));
        let rows: Vec<Session> = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(rows_sql))
            .bind(live).bind(user).bind(&scope).bind(f.limit).fetch_all(c))?;
        let fetched = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let total = if f.before.is_none() && fetched < f.limit {
            fetched
        } else {
            on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(count_sql))
                .bind(live).bind(user).bind(&scope).fetch_one(c))?
        };
        Ok((rows, total))
    }

    /// One session.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session(&self, id: SessionId) -> Result<Option<Session>> {
        let sql = format!("{SELECT} WHERE s.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }

    /// Sessions with a viewer, and without one, of these sites.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_counts(&self, scope: &Scope) -> Result<(i64, i64)> {
        let live = self.sessions(&Filter { scope: scope.clone(), ..Filter::live() }).await?.0;
        let count = |wanted| i64::try_from(live.iter().filter(|s| s.state == wanted).count()).unwrap_or(i64::MAX);
        Ok((count(SessionState::Active), count(SessionState::Disconnected)))
    }
}

/// See [`Tx::db_now`].
pub(super) fn db_now(postgres: bool) -> &'static str {
    match postgres {
        false => "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
        true => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    }
}

fn uuid_literal(postgres: bool, id: Uuid) -> String {
    if postgres { format!("'{id}'::uuid") } else { format!("x'{}'", id.simple()) }
}

impl Tx {
    /// The database's own time, microseconds, as an SQL expression: tickets and gateways' signs of life
    /// are judged by it, so that a controller with a wrong clock changes nothing.
    pub(super) fn db_now(&self) -> &'static str {
        db_now(matches!(self.inner, TxInner::Postgres(_)))
    }

    /// Makes this user's other transactions of this kind wait; whether the user may act. `None`: no such user.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn lock_user(&mut self, id: UserId) -> Result<Option<bool>> {
        // SQLite's one writer waits anyway.
        let lock = if self.is_postgres() { " FOR NO KEY UPDATE" } else { "" };
        let sql = format!("SELECT disabled FROM users WHERE id = $1{lock}");
        let disabled: Option<bool> =
            on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?;
        Ok(disabled.map(|d| !d))
    }

    /// The user's live session, if there is one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn live_session_of(&mut self, user: UserId) -> Result<Option<Session>> {
        let sql = format!("{SELECT} WHERE s.user_id = $1 AND s.state <> 'ended'");
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(user.0).fetch_optional(c))?)
    }

    /// A session, held against other writers until the end of the transaction.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn hold_session(&mut self, id: SessionId) -> Result<Option<Session>> {
        let lock = if self.is_postgres() { " FOR NO KEY UPDATE OF s" } else { "" };
        let sql = format!("{SELECT} WHERE s.id = $1{lock}");
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }

    /// A desktop that was kept for this user.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn kept_desktop(&mut self, user: UserId, scope: &Scope) -> Result<Option<Candidate>> {
        self.candidate("d.assigned_user = $1 AND p.persistent", user, scope, " FOR NO KEY UPDATE OF d").await
    }

    /// The free desktop that is ready soonest. Desktops that another transaction is giving away are passed
    /// over; with `wait` they are waited for instead, so that nobody is told *all taken* by mistake.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn free_desktop(&mut self, user: UserId, scope: &Scope, wait: bool) -> Result<Option<Candidate>> {
        let lock = if wait { " FOR NO KEY UPDATE OF d" } else { " FOR NO KEY UPDATE OF d SKIP LOCKED" };
        let free = "d.assigned_user IS NULL AND d.state NOT IN ('failed', 'deleting') AND $1 IS NOT NULL \
             AND EXISTS (SELECT 1 FROM hosts h WHERE h.id = d.host_id AND h.state <> 'down') \
             AND NOT EXISTS (SELECT 1 FROM sessions o WHERE o.desktop_id = d.id AND o.state <> 'ended')";
        self.candidate(free, user, scope, lock).await
    }

    async fn candidate(&mut self, which: &str, user: UserId, scope: &Scope, lock: &str) -> Result<Option<Candidate>> {
        let postgres = self.is_postgres();
        let lock = if postgres { lock } else { "" };
        let sql = format!(
            "SELECT d.id, d.name, d.pool_id, p.site_code, d.state, d.desired, p.persistent, p.policy FROM desktops d JOIN pools p ON p.id = d.pool_id \
             WHERE {which} AND d.desired <> 'absent' AND p.desired = 'present' AND ($2 IS NULL OR {}) \
             ORDER BY CASE WHEN EXISTS (SELECT 1 FROM hosts h WHERE h.id = d.host_id AND h.draining) THEN 1 ELSE 0 END, \
             CASE d.state WHEN 'running' THEN 0 WHEN 'booting' THEN 1 WHEN 'starting' THEN 2 WHEN 'stopped' THEN 3 \
             WHEN 'defined' THEN 4 WHEN 'creating' THEN 5 ELSE 6 END, d.state_since, d.name LIMIT 1{lock}",
            codes(postgres, "p.site_code", 2)
        );
        Ok(
            on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(user.0).bind(scope_list(scope)).fetch_optional(c))?,
        )
    }

    /// Desktops of these sites in all: to say *none for your site* or *all taken*.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn desktops_in(&mut self, scope: &Scope) -> Result<i64> {
        let postgres = self.is_postgres();
        let sql = format!(
            "SELECT COUNT(*) FROM desktops d JOIN pools p ON p.id = d.pool_id WHERE d.desired <> 'absent' AND p.desired = 'present' AND ($1 IS NULL OR {})",
            codes(postgres, "p.site_code", 1)
        );
        Ok(on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(scope_list(scope)).fetch_one(c))?)
    }

    /// Gives a desktop to a user. `false` if somebody has it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn assign_desktop(&mut self, id: DesktopId, user: UserId, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET assigned_user = $2, updated_at = $3 WHERE id = $1 AND (assigned_user IS NULL OR assigned_user = $2)")
            .bind(id.0).bind(user.0).bind(now.micros()).execute(c))?;
        self.touch(Kind::Desktop, id.0);
        Ok(rows == 1)
    }

    /// Takes a desktop from its user.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn unassign_desktop(&mut self, id: DesktopId, user: UserId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET assigned_user = NULL, updated_at = $3 WHERE id = $1 AND assigned_user = $2")
            .bind(id.0).bind(user.0).bind(now.micros()).execute(c))?;
        self.touch(Kind::Desktop, id.0);
        Ok(())
    }

    /// Opens a session on a desktop. `since`: when its officer asked first, if that was earlier.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the user or the desktop has a live one.
    #[expect(clippy::too_many_arguments, reason = "what a new row is made of; one caller")]
    pub async fn open_session(
        &mut self,
        id: SessionId,
        user: UserId,
        desktop: &Candidate,
        policy: &SessionPolicy,
        since: Option<i64>,
        ip: &str,
        now: Time,
    ) -> Result<()> {
        let state = if desktop.state == DesktopState::Running { SessionState::Ready } else { SessionState::Starting };
        let sql = format!(
            "INSERT INTO sessions (id, user_id, desktop_id, desktop_name, site_code, state, created_at, last_active_at, resumes, \
             bytes_up, bytes_down, epoch, client_ip, assigned_at, policy, queued_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, 0, 0, 0, 0, $8, $7, $9, COALESCE($10, {}))",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.0).bind(user.0).bind(desktop.id.0).bind(&desktop.name)
            .bind(&desktop.site_code).bind(state.as_str()).bind(now.micros()).bind(ip).bind(Json(policy)).bind(since).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(())
    }

    /// What tells a place from another: an endpoint's id; of a browser its first sign-in, which later ones follow.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn place_key(&mut self, b: &Binding) -> Result<Vec<u8>> {
        if let Some(endpoint) = b.endpoint() {
            return Ok(endpoint.0.as_bytes().to_vec());
        }
        let found: Option<Option<Vec<u8>>> = on_tx!(self, c => sqlx::query_scalar(
            "SELECT browser FROM web_sessions WHERE token_hash = $1").bind(&b.hash()[..]).fetch_optional(c))?;
        Ok(found.flatten().unwrap_or_else(|| b.hash().to_vec()))
    }

    /// The session's viewer is at this place from now on.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn hold_at(&mut self, id: SessionId, b: &Binding) -> Result<()> {
        // In one statement what `place_key` says: an endpoint's id is no hash of a token.
        let key = b.endpoint().map_or_else(|| b.hash().to_vec(), |e| e.0.as_bytes().to_vec());
        exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET holder_kind = $2, holder_endpoint = $4, \
             holder = COALESCE((SELECT w.browser FROM web_sessions w WHERE w.token_hash = $3), $3) WHERE id = $1")
            .bind(id.0).bind(b.place().as_str()).bind(key).bind(b.endpoint().map(|e| e.0)).execute(c))?;
        self.revoke_leases(LeasesOf::OtherPlaces(id, b.endpoint()), "moved").await?;
        Ok(())
    }

    /// Ends a session and takes back its tickets. `false` if it was over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn end_session(&mut self, id: SessionId, reason: EndReason, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET state = 'ended', ended_at = $2, end_reason = $3, gateway_id = NULL WHERE id = $1 AND state <> 'ended'")
            .bind(id.0).bind(now.micros()).bind(reason.as_str()).execute(c))?;
        if rows == 1 {
            self.revoke_tickets(id).await?;
            self.revoke_leases(LeasesOf::OtherPlaces(id, None), "ended").await?;
            self.touch(Kind::Session, id.0);
        }
        Ok(rows == 1)
    }

    /// Sessions whose desktop came up while they waited for it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn ready_sessions(&mut self) -> Result<usize> {
        let ids: Vec<Uuid> = on_tx!(self, c => sqlx::query_scalar(
            "UPDATE sessions SET state = 'ready' WHERE state = 'starting' AND EXISTS \
             (SELECT 1 FROM desktops d WHERE d.id = sessions.desktop_id AND d.state = 'running') RETURNING id").fetch_all(c))?;
        ids.iter().for_each(|id| self.touch(Kind::Session, *id));
        Ok(ids.len())
    }

    /// A viewer is connected by this gateway; the connection's epoch. `None` if the session is over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn attach_session(&mut self, id: SessionId, gateway: Uuid, ip: &str, now: Time) -> Result<Option<i64>> {
        let epoch: Option<i64> = on_tx!(self, c => sqlx::query_scalar(
            "UPDATE sessions SET state = 'active', resumes = resumes + CASE WHEN epoch > 0 THEN 1 ELSE 0 END, epoch = epoch + 1, \
             gateway_id = $2, client_ip = $3, last_active_at = $4, disconnected_at = NULL, closing_at = NULL, closing_why = NULL, shows_assists = FALSE WHERE id = $1 AND state <> 'ended' RETURNING epoch")
            .bind(id.0).bind(gateway).bind(ip).bind(now.micros()).fetch_optional(c))?;
        self.touch(Kind::Session, id.0);
        Ok(epoch)
    }

    /// Whether the screen this connection ends at shows that support looks.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_shows_assists(&mut self, id: SessionId, epoch: i64, shows: bool) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE sessions SET shows_assists = $3 WHERE id = $1 AND epoch = $2 AND state = 'active'")
            .bind(id.0).bind(epoch).bind(shows).execute(c))?;
        Ok(())
    }

    /// A viewer went away; what it sent and got is added even if a newer one has taken over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn detach_session(&mut self, id: SessionId, epoch: i64, up: i64, down: i64, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET bytes_up = bytes_up + $3, bytes_down = bytes_down + $4, \
             state = CASE WHEN epoch = $2 AND state = 'active' THEN 'disconnected' ELSE state END, \
             disconnected_at = CASE WHEN epoch = $2 AND state = 'active' THEN $5 ELSE disconnected_at END, \
             gateway_id = CASE WHEN epoch = $2 AND state = 'active' THEN NULL ELSE gateway_id END, \
             last_active_at = CASE WHEN epoch = $2 AND state = 'active' THEN $5 ELSE last_active_at END WHERE id = $1")
            .bind(id.0).bind(epoch).bind(up).bind(down).bind(now.micros()).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(())
    }

    /// A viewer got its first picture.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn first_frame(&mut self, id: SessionId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE sessions SET first_frame_at = $2 WHERE id = $1 AND first_frame_at IS NULL")
            .bind(id.0).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// When the viewer of this epoch will be disconnected, or that it will not be.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_closing(&mut self, id: SessionId, epoch: i64, at: Option<Time>) -> Result<()> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET closing_at = $3, closing_why = $4 WHERE id = $1 AND epoch = $2 AND state = 'active'")
            .bind(id.0).bind(epoch).bind(at.map(Time::micros)).bind(at.map(|_| Limit::Idle.as_str())).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Session, id.0);
        }
        Ok(())
    }

    /// The officer says that they are still there.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_present(&mut self, id: SessionId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE sessions SET present_at = $2 WHERE id = $1 AND state <> 'ended'")
            .bind(id.0).bind(now.micros()).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(())
    }

    /// Who ended a session, and what they tell its officer.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_ended_by(&mut self, id: SessionId, who: &str, note: Option<&str>) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE sessions SET ended_by = $2, end_note = $3 WHERE id = $1")
            .bind(id.0).bind(who).bind(note).execute(c))?;
        Ok(())
    }

    /// How the connection of this epoch feels. The session's site, if it is the latest.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_experience(&mut self, id: SessionId, epoch: i64, e: &Experience) -> Result<Option<String>> {
        Ok(
            on_tx!(self, c => sqlx::query_scalar("UPDATE sessions SET experience = $3 WHERE id = $1 AND epoch = $2 RETURNING site_code")
            .bind(id.0).bind(epoch).bind(Json(e)).fetch_optional(c))?,
        )
    }
}
