//! Desktops: looking at them and wanting something of them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tram_wire::ids::{DesktopId, HostId, PoolId};
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::{Role, Scope};
use crate::store::desktops::{Desktop, Filter, Want};
use crate::store::hosts::Host;
use crate::store::pools::Pool;

/// Boot time assumed before the first boot was measured: a small Debian under software emulation.
pub const FIRST_GUESS: Duration = Duration::from_secs(45);

/// Desktops with what they refer to.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The rows, by name.
    pub desktops: Vec<Desktop>,
    /// How many match in all.
    pub total: i64,
    /// Their pools.
    pub pools: HashMap<PoolId, Pool>,
    /// All hosts.
    pub hosts: HashMap<Uuid, Host>,
    /// How long a boot usually takes.
    pub usual_boot: Duration,
}

/// Desktops in scope.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, filter: &Filter) -> Result<Listing> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let pools: HashMap<PoolId, Pool> = app.store.pools().await?.into_iter().map(|p| (p.id, p)).collect();
    let mut filter = filter.clone();
    if let scope @ Scope::Sites(_) = ctx.caller.scope() {
        filter.pools = Some(pools.values().filter(|p| scope.covers(&p.site_code)).map(|p| p.id).collect());
    }
    let (desktops, total) = app.store.desktops(&filter).await?;
    let hosts = app.store.hosts().await?.into_iter().map(|h| (h.id.0, h)).collect();
    Ok(Listing { desktops, total, pools, hosts, usual_boot: usual_boot(app).await? })
}

/// One desktop.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn get(app: &App, ctx: &Ctx, id: DesktopId) -> Result<Listing> {
    let found = list(app, ctx, &Filter { ids: Some(vec![id]), limit: 1, ..Filter::default() }).await?;
    if found.desktops.is_empty() { Err(not_found()) } else { Ok(found) }
}

/// Records what is wanted of a desktop.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`]; [`Error::Conflict`] if it is on its way out.
pub async fn want(app: &App, ctx: &Ctx, id: DesktopId, what: Want) -> Result<Listing> {
    ctx.require(&[Role::Operator])?;
    let before = get(app, ctx, id).await?;
    let name = before.desktops[0].name.clone();
    let mut tx = app.store.begin().await?;
    if !tx.want_desktop(id, what, ctx.now).await? {
        return Err(Error::Conflict("D-105", "this desktop is being removed".into()));
    }
    let (action, detail) = match what {
        Want::Start => ("desktop.start", json!({})),
        Want::Stop { force } => ("desktop.stop", json!({"force": force})),
        Want::Reset => ("desktop.reset", json!({})),
        Want::Rebuild => ("desktop.rebuild", json!({})),
    };
    audit(&mut tx, ctx, action, &name, detail).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

/// Where a desktop lives, for a picture of its screen. Looking at one is audited.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] if it has no host yet.
pub async fn look(app: &App, ctx: &Ctx, id: DesktopId) -> Result<HostId> {
    ctx.require(&[Role::Operator])?;
    let found = get(app, ctx, id).await?;
    let d = &found.desktops[0];
    let host = d.host_id.ok_or_else(|| Error::Conflict("D-106", "this desktop has no host yet".into()))?;
    let mut tx = app.store.begin().await?;
    audit(&mut tx, ctx, "desktop.screenshot", &d.name, json!({"assigned_to": d.assigned_name})).await?;
    tx.commit().await?;
    Ok(HostId(host))
}

/// The id of the desktop with this name.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn by_name(app: &App, ctx: &Ctx, name: &str) -> Result<DesktopId> {
    let filter = Filter { text: Some(name.to_owned()), limit: 5000, ..Filter::default() };
    let found = list(app, ctx, &filter).await?;
    found.desktops.iter().find(|d| d.name == name).map(|d| d.id).ok_or_else(not_found)
}

/// How long a boot usually takes here.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn usual_boot(app: &App) -> Result<Duration> {
    let ms = app.store.usual_boot_ms().await?;
    Ok(ms.and_then(|m| u64::try_from(m).ok()).map_or(FIRST_GUESS, Duration::from_millis))
}

fn not_found() -> Error {
    Error::NotFound("D-404", "there is no such desktop".into())
}
