//! Gateways: what they say of themselves, where connections are sent, and emptying one.

use serde_json::json;
use tram_wire::ids::{HostId, SessionId};
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit, endpoints, nodes};
use crate::domain::access::Role;
use crate::domain::gateway::{Candidate, GatewayState, rank};
use crate::domain::name;
use crate::domain::time::Time;
use crate::store::gateways::Gateway;
pub use crate::store::gateways::Me;

/// A gateway begins: it takes its name over from a process that is gone.
///
/// # Errors
/// Only those of the store.
pub async fn enter(app: &App, id: Uuid, me: &Me) -> Result<()> {
    let mut tx = app.store.begin().await?;
    let draining = tx.take_gateway_name(&me.name, id).await?;
    tx.gateway_beat(id, me, 0, draining).await?;
    tx.touch(crate::nudge::Kind::Gateway, id);
    Ok(tx.commit().await?)
}

/// What a gateway says of its work at each sign of life.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections it carries, assists included.
    pub connections: usize,
    /// What it did by leases without the database and has not written down yet: connections and events.
    pub untold: usize,
}

/// A gateway lives and carries so much; whether it is to be empty.
///
/// # Errors
/// Only those of the store.
pub async fn beat(app: &App, id: Uuid, me: &Me, load: Load) -> Result<bool> {
    let mut tx = app.store.begin().await?;
    let draining = tx.gateway_beat(id, me, count(load.connections), false).await?;
    tx.gateway_untold(id, count(load.untold)).await?;
    tx.commit().await?;
    Ok(draining)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A gateway nobody is sent to lives; said while it carries connections or has something to tell.
///
/// # Errors
/// Only those of the store.
pub async fn alive(app: &App, id: Uuid, untold: usize) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.gateway_alive(id).await?;
    tx.gateway_untold(id, count(untold)).await?;
    Ok(tx.commit().await?)
}

/// A gateway is about to stop: nothing new is sent to it.
///
/// # Errors
/// Only those of the store.
pub async fn leave(app: &App, id: Uuid) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.gateway_stopped(id).await?;
    Ok(tx.commit().await?)
}

/// The connection of this epoch lives at this gateway although its session was taken for disconnected, as after the
/// database was away. `false` if somebody else connected since, or the session is over.
///
/// # Errors
/// Only those of the store.
pub async fn reclaim(app: &App, id: SessionId, epoch: i64, gateway: Uuid) -> Result<bool> {
    let mut tx = app.store.begin().await?;
    tx.gateway_alive(gateway).await?;
    let done = tx.reclaim_session(id, epoch, gateway).await?;
    tx.commit().await?;
    Ok(done)
}

/// All gateways.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx) -> Result<Vec<Gateway>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    Ok(app.store.gateways().await?)
}

/// One gateway.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn get(app: &App, ctx: &Ctx, id: Uuid) -> Result<Gateway> {
    list(app, ctx).await?.into_iter().find(|g| g.id == id).ok_or_else(not_found)
}

/// The newest process of a name.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn by_name(app: &App, ctx: &Ctx, name: &str) -> Result<Gateway> {
    list(app, ctx).await?.into_iter().find(|g| g.name == name).ok_or_else(not_found)
}

/// Empties a gateway, or lets it take connections again. Its sessions go on at another one; the wish stays with its
/// name over restarts.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn drain(app: &App, ctx: &Ctx, id: Uuid, draining: bool) -> Result<Gateway> {
    ctx.require(&[Role::Operator])?;
    let was = get(app, ctx, id).await?;
    if was.draining != draining {
        let mut tx = app.store.begin().await?;
        let name = tx.drain_gateway(id, draining).await?.ok_or_else(not_found)?;
        let action = if draining { "gateway.drain" } else { "gateway.undrain" };
        audit(&mut tx, ctx, action, &name, json!({"id": id, "sessions": was.sessions})).await?;
        tx.commit().await?;
    }
    get(app, ctx, id).await
}

/// What a gateway on another machine proves itself with, to be carried there.
#[derive(Debug)]
pub struct Passes {
    /// To endpoints; secret.
    pub endpoints: String,
    /// To nodes; secret.
    pub nodes: String,
    /// The last moment both are good.
    pub not_after: Time,
}

/// Issues a gateway on another machine its passes. Earlier ones stay good until their end.
///
/// # Errors
/// [`Error::Forbidden`]; [`Error::Invalid`] for a bad name; [`Error::Unavailable`] without the authorities.
pub async fn issue(app: &App, ctx: &Ctx, gateway: &str) -> Result<Passes> {
    ctx.require(&[Role::Operator])?;
    name::check(gateway).map_err(|m| Error::field("name", "G-201", m))?;
    let internal = |e| Error::Internal(Box::new(e));
    let (endpoints, not_after) = endpoints::open_ca(app, ctx.now)?.pass(ctx.now).map_err(internal)?;
    let nodes = nodes::open_ca(app, ctx.now)?.pass(ctx.now).map_err(internal)?;
    let mut tx = app.store.begin().await?;
    audit(&mut tx, ctx, "gateway.issue", gateway, json!({"until": not_after})).await?;
    tx.commit().await?;
    Ok(Passes { endpoints, nodes, not_after })
}

/// What a connection needs of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Whose.
    pub session: SessionId,
    /// Where its desktop is.
    pub host: Option<Uuid>,
    /// The gateway it is still counted at.
    pub left: Option<Uuid>,
}

/// Where a connection may go, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Addresses for browsers.
    pub web: Vec<String>,
    /// Addresses for endpoints. One they know as their controller's is not among them.
    pub agents: Vec<String>,
}

/// Gateways for a connection.
///
/// # Errors
/// [`Error::Unavailable`] G-504 if none carries.
pub async fn place(app: &App, to: &Target) -> Result<Places> {
    let all = app.store.gateways().await?;
    let local = match to.host {
        Some(id) if all.iter().any(|g| !g.local_hosts) => {
            app.store.host(HostId(id)).await?.is_some_and(|h| !h.uri.starts_with("node://"))
        }
        _ => false,
    };
    let candidate = |g: &Gateway| Candidate {
        id: g.id,
        state: g.state(),
        embedded: g.embedded,
        reaches: g.local_hosts || !local,
        load: g.connections.max(g.sessions),
    };
    let candidates: Vec<Candidate> = all.iter().map(candidate).collect();
    let ranked = rank(&candidates, to.session.0, to.left);
    if ranked.is_empty() {
        // This process's own gateway is there even before it was first heard of.
        let known = all.iter().any(|g| g.embedded && g.state() == GatewayState::Draining);
        return match app.embedded && !known {
            true => Ok(Places { web: vec![app.public_url.clone()], agents: Vec::new() }),
            false => Err(nobody()),
        };
    }
    let of = |address: fn(&Gateway) -> &String| {
        ranked.iter().map(|i| address(&all[*i])).filter(|a| !a.is_empty()).cloned().collect()
    };
    Ok(Places { web: of(|g| &g.web_url), agents: of(|g| &g.agent_url) })
}

fn nobody() -> Error {
    Error::Unavailable(
        "G-504",
        "no gateway carries connections now; the data centre starts one (`tram-controller gateway`) or ends its draining".into(),
    )
}

fn not_found() -> Error {
    Error::NotFound("G-404", "there is no such gateway".into())
}
