//! `/hosts`: hypervisor hosts.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::host::{AccelSetting, HostState};
use crate::domain::time::Time;
use crate::services::hosts;
use crate::store;

/// A hypervisor host.
#[derive(Debug, Serialize, ToSchema)]
pub struct Host {
    /// Id.
    pub id: Uuid,
    /// Name given by the operator.
    pub name: String,
    /// How it is reached.
    pub uri: String,
    /// What we know of it.
    pub state: HostState,
    /// Why it is not up; empty otherwise.
    pub state_reason: String,
    /// Name it gives itself.
    pub hostname: Option<String>,
    /// Logical processors.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Free memory in MiB.
    pub memory_free_mib: Option<u64>,
    /// Size of the disk folder's file system in MiB.
    pub disk_mib: Option<u64>,
    /// Free space there in MiB.
    pub disk_free_mib: Option<u64>,
    /// libvirt's version.
    pub libvirt_version: Option<String>,
    /// QEMU's version.
    pub hypervisor_version: Option<String>,
    /// What desktops run on: `kvm`, `tcg` or `none`.
    pub accel: Option<String>,
    /// Why, in one sentence.
    pub accel_reason: Option<String>,
    /// Code of the reason, for translation.
    pub accel_code: Option<String>,
    /// What the operator allows.
    pub accel_policy: AccelSetting,
    /// Desktops placed there.
    pub desktops: HostDesktops,
    /// Objects there that carry our mark but are not in this database: left alone, shown for a person to judge.
    pub unknown_desktops: i64,
    /// When it last answered.
    pub seen_at: Option<Time>,
}

/// Desktops of a host, counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostDesktops {
    /// All.
    pub total: i64,
    /// Running or booting.
    pub running: i64,
}

impl From<store::hosts::Host> for Host {
    fn from(h: store::hosts::Host) -> Self {
        let info = h.info.map(|i| i.0);
        let i = info.as_ref();
        Self {
            id: h.id.0,
            name: h.name,
            uri: h.uri,
            state: h.state,
            state_reason: h.state_reason,
            hostname: i.map(|i| i.hostname.clone()),
            cpus: i.map(|i| i.cpus),
            memory_mib: i.map(|i| i.memory_mib),
            memory_free_mib: i.and_then(|i| i.memory_free_mib),
            disk_mib: i.map(|i| i.disk_mib),
            disk_free_mib: i.map(|i| i.disk_free_mib),
            libvirt_version: i.map(|i| i.libvirt_version.clone()),
            hypervisor_version: i.map(|i| i.hypervisor_version.clone()),
            accel: i.map(|i| format!("{:?}", i.accel).to_lowercase()),
            accel_reason: i.map(|i| i.accel_reason.clone()),
            accel_code: i.map(|i| i.accel_code.clone()),
            accel_policy: h.accel_policy,
            desktops: HostDesktops { total: h.desktops, running: h.running },
            unknown_desktops: h.unknown_desktops,
            seen_at: h.seen_at.map(Time::from_micros),
        }
    }
}

/// What may be changed of a host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    /// `false`: nothing new is placed there.
    pub enabled: Option<bool>,
    /// Which acceleration is allowed.
    pub accel_policy: Option<AccelSetting>,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get_one, change))
}

/// All hypervisor hosts.
#[utoipa::path(get, path = "/hosts", tag = "hosts", responses((status = 200, body = Page<Host>), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<Host>>, ApiError> {
    let rows = hosts::list(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Host::from).collect())))
}

/// One hypervisor host.
#[utoipa::path(get, path = "/hosts/{id}", tag = "hosts", params(("id" = Uuid, Path)), responses((status = 200, body = Host), (status = "4XX", body = Problem)))]
async fn get_one(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Host>, ApiError> {
    Ok(Json(hosts::get(&api.app, &ctx, id.into()).await?.into()))
}

/// Switches a host off or on, or changes its acceleration policy.
#[utoipa::path(patch, path = "/hosts/{id}", tag = "hosts", params(("id" = Uuid, Path)), request_body = HostChange, responses((status = 200, body = Host), (status = "4XX", body = Problem)))]
async fn change(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<HostChange>,
) -> Result<Json<Host>, ApiError> {
    Ok(Json(hosts::change(&api.app, &ctx, id.into(), body.enabled, body.accel_policy).await?.into()))
}
