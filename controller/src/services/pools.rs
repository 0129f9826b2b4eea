//! Pools: asking for desktops. What is asked for is recorded here; `reconcile::pool_size` makes it so.

use serde_json::json;
use tram_wire::ids::{ImageId, PoolId};
use uuid::Uuid;

use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::Role;
use crate::domain::image::ImageState;
use crate::domain::policy::PoolPolicy;
use crate::domain::pool::{DesiredPool, MAX_SIZE};
use crate::domain::{access::Scope, name};
use crate::store::StoreError;
use crate::store::pools::{Counts, NewPool, Pool};

/// A pool and its desktops, counted.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// The row.
    pub pool: Pool,
    /// Desktops by state.
    pub counts: Counts,
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Unique name.
    pub name: String,
    /// The site it serves.
    pub site_code: String,
    /// The image.
    pub image_id: ImageId,
    /// Desktops wanted.
    pub size: i64,
    /// Virtual processors of each.
    pub vcpus: i64,
    /// Memory of each, MiB.
    pub memory_mib: i64,
    /// Disk of each, GiB.
    pub disk_gib: Option<i64>,
    /// Keep disks after a session.
    pub persistent: bool,
    /// Start desktops as soon as they exist.
    pub start: bool,
}

/// All pools in scope.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx) -> Result<Vec<PoolView>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let mut counts = app.store.pool_counts().await?;
    let scope = ctx.caller.scope();
    let pools = app.store.pools().await?.into_iter().filter(|p| scope.covers(&p.site_code));
    Ok(pools.map(|pool| PoolView { counts: counts.remove(&pool.id).unwrap_or_default(), pool }).collect())
}

/// One pool.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn get(app: &App, ctx: &Ctx, id: PoolId) -> Result<PoolView> {
    list(app, ctx).await?.into_iter().find(|p| p.pool.id == id).ok_or_else(not_found)
}

/// Asks for a new pool.
///
/// # Errors
/// [`Error::Invalid`] with every fault; [`Error::Conflict`] if the name is taken.
pub async fn create(app: &App, ctx: &Ctx, r: Request) -> Result<PoolView> {
    ctx.require(&[Role::Operator])?;
    let mut faults = faults(&r);
    let fault = |at: &str, code, message: &str| Fault { at: at.into(), code, message: message.into() };
    match app.store.image(r.image_id).await? {
        Some(i) if i.state == ImageState::Ready => {
            let smallest = (i.virtual_size_bytes + (1 << 30) - 1) >> 30;
            if r.disk_gib.is_some_and(|g| g < smallest) {
                faults.push(fault("disk_gib", "P-107", &format!("the image needs a disk of at least {smallest} GiB")));
            }
        }
        Some(_) => faults.push(fault("image_id", "P-106", "this image is not ready for new pools; choose another")),
        None => faults.push(fault("image_id", "P-106", "there is no such image")),
    }
    if !app.store.site_is_current(&r.site_code).await?
        || ctx.caller.scope() != Scope::All && !ctx.caller.scope().covers(&r.site_code)
    {
        faults.push(fault("site_code", "P-108", "there is no such site today; search for it by name"));
    }
    if !faults.is_empty() {
        return Err(Error::Invalid("P-100", "the pool was not made; correct what is marked".into(), faults));
    }
    let new = NewPool {
        id: PoolId(Uuid::now_v7()),
        name: r.name,
        site_code: r.site_code,
        image_id: r.image_id,
        size: r.size,
        vcpus: r.vcpus,
        memory_mib: r.memory_mib,
        disk_gib: r.disk_gib,
        persistent: r.persistent,
        start_desktops: r.start,
    };
    let mut tx = app.store.begin().await?;
    tx.add_pool(&new, ctx.now).await.map_err(|e| match e {
        StoreError::Duplicate(_) => {
            Error::Conflict("P-103", format!("a pool named {} exists already; choose another name", new.name))
        }
        other => other.into(),
    })?;
    audit(&mut tx, ctx, "pool.create", &new.name, json!({"id": new.id, "site": new.site_code, "size": new.size}))
        .await?;
    tx.commit().await?;
    get(app, ctx, new.id).await
}

/// Asks for another number of desktops.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotFound`]; [`Error::Conflict`] if fewer were left than are in use and
/// `force` is not set.
pub async fn resize(app: &App, ctx: &Ctx, id: PoolId, size: i64, force: bool) -> Result<PoolView> {
    ctx.require(&[Role::Operator])?;
    let before = get(app, ctx, id).await?;
    if !(0..=MAX_SIZE).contains(&size) {
        return Err(Error::field("size", "P-102", format!("a pool has 0 to {MAX_SIZE} desktops")));
    }
    let used = app.store.pool_assigned(id).await?;
    if size < used && !force {
        return Err(in_use(used));
    }
    let mut tx = app.store.begin().await?;
    if !tx.resize_pool(id, size, ctx.now).await? {
        return Err(Error::Conflict("P-105", "this pool is being deleted".into()));
    }
    audit(&mut tx, ctx, "pool.resize", &before.pool.name, json!({"from": before.pool.size, "to": size})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

/// Sets a pool's own policy: it holds for sessions that begin from now on.
///
/// # Errors
/// [`Error::Invalid`] with every fault, [`Error::NotFound`], [`Error::Conflict`].
pub async fn set_policy(app: &App, ctx: &Ctx, id: PoolId, policy: PoolPolicy) -> Result<PoolView> {
    ctx.require(&[Role::Operator])?;
    let before = get(app, ctx, id).await?;
    let wrong = policy.faults().into_iter();
    let faults: Vec<_> = wrong.map(|(at, message)| Fault { at: at.into(), code: "P-112", message }).collect();
    if !faults.is_empty() {
        return Err(Error::Invalid("P-113", "the policy was not set; correct what is marked".into(), faults));
    }
    let mut tx = app.store.begin().await?;
    if !tx.set_pool_policy(id, &policy, ctx.now).await? {
        return Err(Error::Conflict("P-105", "this pool is being deleted".into()));
    }
    audit(&mut tx, ctx, "pool.policy", &before.pool.name, json!({"from": before.pool.policy, "to": policy})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

/// Asks for a pool and all its desktops to be removed.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] if desktops are in use and `force` is not set.
pub async fn delete(app: &App, ctx: &Ctx, id: PoolId, force: bool) -> Result<PoolView> {
    ctx.require(&[Role::Operator])?;
    let before = get(app, ctx, id).await?;
    let used = app.store.pool_assigned(id).await?;
    if used > 0 && !force {
        return Err(in_use(used));
    }
    let mut tx = app.store.begin().await?;
    tx.drop_pool(id, ctx.now).await?;
    audit(&mut tx, ctx, "pool.delete", &before.pool.name, json!({"size": before.pool.size, "force": force})).await?;
    tx.commit().await?;
    let mut pool = before;
    pool.pool.desired = DesiredPool::Absent;
    Ok(pool)
}

fn faults(r: &Request) -> Vec<Fault> {
    let mut out = Vec::new();
    let mut check = |ok: bool, at: &str, code, message: String| {
        if !ok {
            out.push(Fault { at: at.into(), code, message });
        }
    };
    if let Err(m) = name::check(&r.name) {
        check(false, "name", "P-101", m);
    }
    check((0..=MAX_SIZE).contains(&r.size), "size", "P-102", format!("a pool has 0 to {MAX_SIZE} desktops"));
    check((1..=64).contains(&r.vcpus), "vcpus", "P-109", "a desktop has 1 to 64 processors".into());
    check(
        (128..=1_048_576).contains(&r.memory_mib),
        "memory_mib",
        "P-110",
        "a desktop has 128 MiB to 1 TiB of memory".into(),
    );
    check(r.disk_gib.is_none_or(|g| (1..=2048).contains(&g)), "disk_gib", "P-111", "a disk has 1 to 2048 GiB".into());
    out
}

fn in_use(used: i64) -> Error {
    Error::Conflict(
        "P-104",
        format!("{used} of its desktops are in use; end those sessions first, or confirm that they are to be cut"),
    )
}

fn not_found() -> Error {
    Error::NotFound("P-404", "there is no such pool".into())
}
