//! `/hosts`: hypervisor hosts.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson};
use crate::domain::host::{AccelSetting, HostState, Usage};
use crate::domain::time::Time;
use crate::services::{hosts, nodes};
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
    /// It is being emptied: what nobody uses moves to other hosts.
    pub draining: bool,
    /// Where a node serves it: the last moment the node's certificate is good. It renews itself long before.
    pub certificate_until: Option<Time>,
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
            draining: h.draining,
            certificate_until: i.and_then(|i| i.certificate_until).map(Time::from_micros),
        }
    }
}

/// What may be changed of a host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    /// `false`: nothing new is placed there. `true` also ends emptying it.
    pub enabled: Option<bool>,
    /// `true`: nothing new is placed there, and desktops that nobody uses or keeps are made anew on other hosts, a few at
    /// a time. `false`: no more of them.
    pub drain: Option<bool>,
    /// Which acceleration is allowed.
    pub accel_policy: Option<AccelSetting>,
}

impl HostChange {
    fn usage(&self) -> Option<Usage> {
        match (self.drain, self.enabled) {
            (Some(true), _) => Some(Usage::Drained),
            (_, Some(true)) => Some(Usage::Open),
            (_, Some(false)) | (Some(false), _) => Some(Usage::Closed),
            (None, None) => None,
        }
    }
}

/// A new host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHost {
    /// Name: lower-case letters, digits and hyphens.
    pub name: String,
    /// `qemu:///system` for the controller's own machine, `node://HOST[:PORT]` for a host with a node.
    pub uri: String,
    /// Which acceleration is allowed.
    #[serde(default = "auto")]
    pub accel_policy: AccelSetting,
}

fn auto() -> AccelSetting {
    AccelSetting::Auto
}

/// Whom node files are for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNode {
    /// Name of the host.
    pub name: String,
    /// Names and addresses controllers reach it by.
    pub names: Vec<String>,
}

/// What a node is started with. Kept nowhere: whoever loses it issues it anew.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeFiles {
    /// `node.toml`.
    pub settings: String,
    /// `node.pem`: key and certificate; secret.
    pub certificate: String,
    /// `ca.pem`.
    pub authority: String,
    /// The last moment the certificate is good; it renews itself before.
    pub not_after: Time,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get_one, change, delete))
        .routes(routes!(issue_node))
}

/// Adds a hypervisor host. It is connected to afterwards; its state tells how that went.
#[utoipa::path(post, path = "/hosts", tag = "hosts", request_body = NewHost, responses(
    (status = 201, body = Host),
    (status = 409, body = Problem, description = "H-409: the name is taken"),
    (status = "4XX", body = Problem, description = "H-201, H-202 in `errors`")))]
async fn create(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(body): ValidJson<NewHost>,
) -> Result<(StatusCode, Json<Host>), ApiError> {
    let made = hosts::create(&api.app, &ctx, body.name.trim(), body.uri.trim(), body.accel_policy).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Forgets a hypervisor host that carries no desktop.
#[utoipa::path(delete, path = "/hosts/{id}", tag = "hosts", params(("id" = Uuid, Path)), responses(
    (status = 204),
    (status = 409, body = Problem, description = "H-410: it carries desktops"),
    (status = "4XX", body = Problem)))]
async fn delete(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<StatusCode, ApiError> {
    hosts::remove(&api.app, &ctx, id.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Issues the settings and the certificate of a node, to be carried to its host. The answer is the only copy.
#[utoipa::path(post, path = "/hosts/nodes", tag = "hosts", request_body = NewNode, responses(
    (status = 200, body = NodeFiles),
    (status = "4XX", body = Problem, description = "H-201, H-203 in `errors`")))]
async fn issue_node(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(body): ValidJson<NewNode>,
) -> Result<Json<NodeFiles>, ApiError> {
    let nodes::Issued { settings, certificate, authority, not_after } =
        nodes::issue(&api.app, &ctx, body.name.trim(), &body.names).await?;
    Ok(Json(NodeFiles { settings, certificate, authority, not_after }))
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

/// Switches a host off or on, empties it, or changes its acceleration policy.
#[utoipa::path(patch, path = "/hosts/{id}", tag = "hosts", params(("id" = Uuid, Path)), request_body = HostChange, responses((status = 200, body = Host), (status = "4XX", body = Problem)))]
async fn change(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<HostChange>,
) -> Result<Json<Host>, ApiError> {
    Ok(Json(hosts::change(&api.app, &ctx, id.into(), body.usage(), body.accel_policy).await?.into()))
}
