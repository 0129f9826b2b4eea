//! Hypervisor hosts: adding, switching off, looking at.

use serde_json::json;
use tram_wire::ids::HostId;
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::host::AccelSetting;
use crate::domain::name;
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
    name::check(host_name).map_err(|m| Error::field("name", "H-201", m))?;
    if uri.len() > 500 || !uri.contains(":///") && !uri.contains("://") || uri.chars().any(char::is_control) {
        return Err(Error::field(
            "uri",
            "H-202",
            "the address must be a libvirt URI such as qemu:///system, or node://HOST for a host with a node",
        ));
    }
    let mut tx = app.store.begin().await?;
    let id = tx.put_host(HostId(Uuid::now_v7()), host_name, uri, accel, ctx.now).await?;
    audit(&mut tx, ctx, "host.put", host_name, json!({"uri": uri, "accel": accel})).await?;
    tx.commit().await?;
    Ok(id)
}

/// Switches a host off for new desktops, on again, or changes its acceleration policy.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn change(
    app: &App,
    ctx: &Ctx,
    id: HostId,
    enabled: Option<bool>,
    accel: Option<AccelSetting>,
) -> Result<Host> {
    ctx.require(&[Role::Operator])?;
    let mut tx = app.store.begin().await?;
    if !tx.set_host(id, enabled, accel).await? {
        return Err(not_found());
    }
    audit(&mut tx, ctx, "host.change", &id.to_string(), json!({"enabled": enabled, "accel": accel})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

fn not_found() -> Error {
    Error::NotFound("H-404", "there is no such host".into())
}
