//! Hypervisor hosts: adding, switching off, looking at.

use serde_json::json;
use tram_wire::ids::HostId;
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::host::{AccelSetting, Usage};
use crate::domain::name;
use crate::store::StoreError;
use crate::store::hosts::Host;

/// All hosts.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx) -> Result<Vec<Host>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    Ok(app.store.hosts().await?)
}

/// One host.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn get(app: &App, ctx: &Ctx, id: HostId) -> Result<Host> {
    ctx.require(&[Role::Operator, Role::Support])?;
    app.store.host(id).await?.ok_or_else(not_found)
}

/// Adds a host, or changes the address of the one with that name. Connecting is the reconciler's work.
///
/// # Errors
/// [`Error::Invalid`] for a bad name or address.
pub async fn put(app: &App, ctx: &Ctx, host_name: &str, uri: &str, accel: AccelSetting) -> Result<HostId> {
    ctx.require(&[Role::Operator])?;
    check(host_name, uri)?;
    let mut tx = app.store.begin().await?;
    let id = tx.put_host(HostId(Uuid::now_v7()), host_name, uri, accel, ctx.now).await?;
    audit(&mut tx, ctx, "host.put", host_name, json!({"uri": uri, "accel": accel})).await?;
    tx.commit().await?;
    Ok(id)
}

/// Adds a host under a new name. Connecting is the reconciler's work.
///
/// # Errors
/// [`Error::Invalid`] for a bad name or address, [`Error::Conflict`] for a name that is taken.
pub async fn create(app: &App, ctx: &Ctx, host_name: &str, uri: &str, accel: AccelSetting) -> Result<Host> {
    ctx.require(&[Role::Operator])?;
    check(host_name, uri)?;
    let id = HostId(Uuid::now_v7());
    let mut tx = app.store.begin().await?;
    tx.add_host(id, host_name, uri, accel, ctx.now).await.map_err(|e| match e {
        StoreError::Duplicate(_) => Error::Conflict("H-409", "a host has this name already; choose another".into()),
        other => other.into(),
    })?;
    audit(&mut tx, ctx, "host.put", host_name, json!({"uri": uri, "accel": accel})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

/// Forgets a host that carries no desktop. What else is on it stays there.
///
/// # Errors
/// [`Error::Conflict`] while it carries one; [`Error::NotFound`], [`Error::Forbidden`].
pub async fn remove(app: &App, ctx: &Ctx, id: HostId) -> Result<()> {
    ctx.require(&[Role::Operator])?;
    let host = get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    if !tx.forget_host(id).await? {
        return Err(Error::Conflict(
            "H-410",
            "the host still carries desktops; empty it first, and remove or move by hand what is kept for somebody"
                .into(),
        ));
    }
    audit(&mut tx, ctx, "host.remove", &host.name, json!({"uri": host.uri})).await?;
    tx.commit().await?;
    Ok(())
}

fn check(host_name: &str, uri: &str) -> Result<()> {
    name::check(host_name).map_err(|m| Error::field("name", "H-201", m))?;
    if uri.len() > 500 || !uri.contains("://") || uri.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Error::field(
            "uri",
            "H-202",
            "the address must be a libvirt URI such as qemu:///system, or node://HOST for a host with a node",
        ));
    }
    Ok(())
}

/// Switches a host off for new desktops, empties it, switches it on again, or changes its acceleration policy.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn change(
    app: &App,
    ctx: &Ctx,
    id: HostId,
    usage: Option<Usage>,
    accel: Option<AccelSetting>,
) -> Result<Host> {
    ctx.require(&[Role::Operator])?;
    let mut tx = app.store.begin().await?;
    if !tx.set_host(id, usage, accel).await? {
        return Err(not_found());
    }
    audit(&mut tx, ctx, "host.change", &id.to_string(), json!({"enabled": usage.map(|u| u == Usage::Open), "drain": usage.map(|u| u == Usage::Drained), "accel": accel})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

fn not_found() -> Error {
    Error::NotFound("H-404", "there is no such host".into())
}
