//! Tokens that take a session up again from the same endpoint, at any gateway. Only their hashes are kept.

use tram_wire::ids::{EndpointId, SessionId};

use super::{Result, Tx, exec_tx, on_tx};
use crate::domain::policy::SessionPolicy;
use crate::domain::ticket::Protocols;

/// What a token opens.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Return {
    /// The session's epoch when its endpoint connected: a higher one says that somebody took over.
    pub epoch: i64,
    /// What its streams may carry.
    #[sqlx(try_from = "String")]
    pub protocols: Protocols,
    /// What the session may do.
    #[sqlx(json)]
    pub policy: SessionPolicy,
}

impl Tx {
    /// Writes a session's token down, in place of an earlier one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_return(
        &mut self,
        session: SessionId,
        hash: &[u8; 32],
        endpoint: EndpointId,
        protocols: Protocols,
        epoch: i64,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO session_returns (session_id, token_hash, endpoint_id, protocols, epoch) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (session_id) DO UPDATE SET token_hash = excluded.token_hash, endpoint_id = excluded.endpoint_id, \
             protocols = excluded.protocols, epoch = excluded.epoch")
            .bind(session.0).bind(&hash[..]).bind(endpoint.0).bind(protocols.to_string()).bind(epoch).execute(c))?;
        Ok(())
    }

    /// The same token goes on after its endpoint connected again.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn keep_return(&mut self, session: SessionId, epoch: i64) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE session_returns SET epoch = $2 WHERE session_id = $1")
            .bind(session.0).bind(epoch).execute(c))?;
        Ok(())
    }

    /// What this endpoint's token opens; `None` for whatever is wrong with it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn find_return(
        &mut self,
        session: SessionId,
        hash: &[u8; 32],
        endpoint: EndpointId,
    ) -> Result<Option<Return>> {
        Ok(on_tx!(self, c => sqlx::query_as(
            "SELECT r.epoch, r.protocols, s.policy FROM session_returns r JOIN endpoints e ON e.id = r.endpoint_id \
             JOIN sessions s ON s.id = r.session_id \
             WHERE r.session_id = $1 AND r.token_hash = $2 AND r.endpoint_id = $3 AND e.revoked_at IS NULL \
             AND e.quarantined_at IS NULL")
            .bind(session.0).bind(&hash[..]).bind(endpoint.0).fetch_optional(c))?)
    }
}
