//! What a gateway asks of the broker for an endpoint's tunnel: coming back after a cut, and at another gateway.

use serde_json::json;
use tram_wire::ids::{DesktopId, EndpointId, SessionId};
use uuid::Uuid;

use super::{App, Result};
use crate::domain::access::Role;
use crate::domain::policy::SessionPolicy;
use crate::domain::session::{self, Cut};
use crate::domain::ticket::Protocols;
use crate::domain::time::Time;
use crate::identity::secret::{self, Secret};
use crate::store::Tx;
use crate::store::audit::Entry;
use crate::store::sessions::Session;

/// What a return token starts with.
pub const RETURN_PREFIX: &str = "vda1_";

/// A session an endpoint took up again.
#[derive(Debug)]
pub struct Returned {
    /// Its desktop.
    pub desktop: DesktopId,
    /// Which connection of the session it is.
    pub epoch: i64,
    /// What its streams may carry.
    pub protocols: Protocols,
    /// What the session may do.
    pub policy: SessionPolicy,
    /// For the next time; this one is void now.
    pub token: Secret,
}

/// Gives the endpoint of a session what takes it up again at any gateway, until somebody else connects.
///
/// # Errors
/// Only those of the store.
pub async fn promise(
    app: &App,
    id: SessionId,
    endpoint: EndpointId,
    protocols: Protocols,
    epoch: i64,
) -> Result<Secret> {
    let token = Secret::generate(RETURN_PREFIX);
    let mut tx = app.store.begin().await?;
    tx.put_return(id, &token.hashed(), endpoint, protocols, epoch).await?;
    tx.commit().await?;
    Ok(token)
}

/// The tunnel of `epoch` came back to its own gateway at `at`: its next epoch, or why it must not go on. Somebody who
/// took the session over meanwhile keeps it.
///
/// # Errors
/// Only those of the store.
pub async fn resumed(
    app: &App,
    id: SessionId,
    epoch: i64,
    gateway: Uuid,
    ip: &str,
    at: Time,
) -> Result<Result<i64, Cut>> {
    let mut tx = app.store.begin().await?;
    let next = match attach(&mut tx, id, epoch, (gateway, ip), "session.resume", at).await? {
        Ok((next, _)) => next,
        Err(cut) => return Ok(Err(cut)),
    };
    tx.keep_return(id, next).await?;
    tx.commit().await?;
    Ok(Ok(next))
}

/// An endpoint shows the token of a session it had at another gateway. `None` for whatever is wrong with it:
/// unknown, used, of another endpoint, or of a session that is over or was taken over.
///
/// # Errors
/// Only those of the store.
pub async fn again(
    app: &App,
    id: SessionId,
    token: &str,
    endpoint: EndpointId,
    gateway: Uuid,
    ip: &str,
) -> Result<Option<Returned>> {
    // No text has the hash of zeros.
    let hash = if secret::has_shape(RETURN_PREFIX, token) { secret::hash(token) } else { [0; 32] };
    let mut tx = app.store.begin().await?;
    // The session's row is held first: of two that come with one token, the second finds its epoch gone.
    tx.hold_session(id).await?;
    let Some(found) = tx.find_return(id, &hash, endpoint).await? else { return Ok(None) };
    let now = app.clock.now();
    let Ok((epoch, row)) = attach(&mut tx, id, found.epoch, (gateway, ip), "session.return", now).await? else {
        return Ok(None);
    };
    let Some(desktop) = row.desktop_id else { return Ok(None) };
    let token = Secret::generate(RETURN_PREFIX);
    tx.put_return(id, &token.hashed(), endpoint, found.protocols, epoch).await?;
    tx.commit().await?;
    Ok(Some(Returned { desktop: desktop.into(), epoch, protocols: found.protocols, policy: found.policy, token }))
}

pub(super) async fn attach(
    tx: &mut Tx,
    id: SessionId,
    epoch: i64,
    (gateway, ip): (Uuid, &str),
    action: &'static str,
    now: Time,
) -> Result<Result<(i64, Session), Cut>> {
    let row = tx.hold_session(id).await?;
    if let Some(cut) = session::verdict(epoch, row.as_ref().map(Session::standing).as_ref()) {
        return Ok(Err(cut));
    }
    let Some(row) = row else { return Ok(Err(Cut::Ended)) };
    tx.gateway_alive(gateway).await?;
    let Some(next) = tx.attach_session(id, gateway, ip, now).await? else { return Ok(Err(Cut::Ended)) };
    tx.audit(Entry {
        at: now,
        actor: &row.username,
        role: Role::Officer.as_str(),
        action,
        target: &id.to_string(),
        detail: json!({"desktop": row.desktop_name, "epoch": next}),
        ip,
        result: "ok",
    })
    .await?;
    Ok(Ok((next, row)))
}
