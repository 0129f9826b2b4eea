//! Tickets: what opens a display once, within seconds. Only their hashes are kept.

use tram_wire::ids::{DesktopId, SessionId, UserId};
use uuid::Uuid;

use super::{Result, Tx, exec_tx, on_tx};
use crate::domain::policy::SessionPolicy;
use crate::domain::ticket::{Binding, Place, Protocol, Protocols};

/// What a redeemed ticket opens.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Redeemed {
    /// The session.
    #[sqlx(try_from = "Uuid")]
    pub session_id: SessionId,
    /// Whose.
    #[sqlx(try_from = "Uuid")]
    pub user_id: UserId,
    /// The desktop.
    #[sqlx(try_from = "Uuid")]
    pub desktop_id: DesktopId,
    /// How old the ticket was, microseconds.
    pub age: i64,
    /// What it opens.
    #[sqlx(try_from = "String")]
    pub protocols: Protocols,
    /// Where the viewer is.
    #[sqlx(try_from = "String")]
    pub place: Place,
    /// What the session may do.
    #[sqlx(json)]
    pub policy: SessionPolicy,
}

/// A ticket as the audit tells of it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Fate {
    /// The session it was for.
    #[sqlx(try_from = "Uuid")]
    pub session_id: SessionId,
    /// It was redeemed before.
    pub redeemed: bool,
    /// It was taken back.
    pub revoked: bool,
    /// It is too old.
    pub expired: bool,
}

impl Tx {
    /// Writes a ticket down; the session's earlier ones are void. Expiry is by the database's clock.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_ticket(
        &mut self,
        hash: &[u8; 32],
        session: SessionId,
        user: UserId,
        desktop: DesktopId,
        binding: &Binding,
        life: std::time::Duration,
    ) -> Result<()> {
        self.revoke_tickets(session).await?;
        let life = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
        let sql = format!(
            "INSERT INTO tickets (hash, session_id, user_id, desktop_id, binding_kind, binding, endpoint_id, protocols, issued_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {0}, {0} + $9)",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&hash[..]).bind(session.0).bind(user.0)
            .bind(desktop.0).bind(binding.place().as_str()).bind(&binding.hash()[..]).bind(binding.endpoint().map(|e| e.0))
            .bind(binding.protocols().to_string()).bind(life).execute(c))?;
        Ok(())
    }

    /// Voids a session's tickets that were not redeemed yet.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn revoke_tickets(&mut self, session: SessionId) -> Result<()> {
        let sql = format!(
            "UPDATE tickets SET revoked_at = {} WHERE session_id = $1 AND redeemed_at IS NULL AND revoked_at IS NULL",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(session.0).execute(c))?;
        Ok(())
    }

    /// Redeems a ticket: this one statement is the whole decision. No row, no display, whatever the reason.
    /// `proved` is what the viewer proved, `wanted` the protocol it speaks, if that is known already.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn redeem_ticket(
        &mut self,
        hash: &[u8; 32],
        proved: &Binding,
        wanted: Option<Protocol>,
    ) -> Result<Option<Redeemed>> {
        let sql = format!(
            "UPDATE tickets SET redeemed_at = {0} WHERE hash = $1 AND redeemed_at IS NULL AND revoked_at IS NULL AND expires_at > {0} \
             AND binding_kind = $2 AND binding = $3 AND (endpoint_id IS NULL AND $4 IS NULL OR endpoint_id = $4) \
             AND ($5 IS NULL OR ',' || protocols || ',' LIKE '%,' || $5 || ',%') \
             AND (EXISTS (SELECT 1 FROM web_sessions w WHERE w.token_hash = tickets.binding AND w.user_id = tickets.user_id) \
                 OR EXISTS (SELECT 1 FROM endpoints e WHERE e.id = tickets.endpoint_id AND e.revoked_at IS NULL \
                     AND e.quarantined_at IS NULL)) \
             AND EXISTS (SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id JOIN desktops d ON d.id = s.desktop_id \
                 WHERE s.id = tickets.session_id AND s.state <> 'ended' AND NOT u.disabled AND d.id = tickets.desktop_id \
                 AND d.assigned_user = tickets.user_id) \
             RETURNING session_id, user_id, desktop_id, redeemed_at - issued_at AS age, protocols, binding_kind AS place, \
                 (SELECT s.policy FROM sessions s WHERE s.id = tickets.session_id) AS policy",
            self.db_now()
        );
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&hash[..]).bind(proved.place().as_str())
            .bind(&proved.hash()[..]).bind(proved.endpoint().map(|e| e.0)).bind(wanted.map(Protocol::as_str)).fetch_optional(c))?)
    }

    /// What became of a ticket that was refused; `None` if it never was one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn ticket_fate(&mut self, hash: &[u8; 32]) -> Result<Option<Fate>> {
        let sql = format!(
            "SELECT session_id, redeemed_at IS NOT NULL AS redeemed, revoked_at IS NOT NULL AS revoked, expires_at <= {} AS expired FROM tickets WHERE hash = $1",
            self.db_now()
        );
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&hash[..]).fetch_optional(c))?)
    }

    /// Removes tickets that expired longer than this ago.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_tickets(&mut self, kept: std::time::Duration) -> Result<u64> {
        let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let sql = format!("DELETE FROM tickets WHERE expires_at < {} - $1", self.db_now());
        Ok(exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(kept).execute(c))?)
    }
}
