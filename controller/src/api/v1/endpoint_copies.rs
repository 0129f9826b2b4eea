//! Copies of an endpoint: who shows its identity, side by side, and what is decided.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::endpoints::{Endpoint, with_history};
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::copies::Claim;
use crate::domain::time::Time;
use crate::services::{App, Error, copies};
use crate::store::copies::Copy;
use crate::store::endpoints::Endpoint as Row;

/// Computers that show one identity.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointCopies {
    /// What told: `sessions`, `hardware`, `counter`.
    pub signals: Vec<String>,
    /// The computers, the first seen first.
    pub computers: Vec<EndpointCopy>,
}

/// A computer that shows an identity that others show, too.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointCopy {
    /// What tells it from the others; name it to decide about it.
    pub copy: String,
    /// What it calls itself.
    pub hostname: String,
    /// Address it comes from.
    pub address: String,
    /// Version of its agent.
    pub agent_version: String,
    /// The board's serial number.
    pub board: Option<String>,
    /// Serial numbers of its disks.
    pub disks: Vec<String>,
    /// Permanent addresses of its network cards.
    pub macs: Vec<String>,
    /// Changes with each start of the computer.
    pub boot_id: String,
    /// How often it has connected, by its own count.
    pub connects: u64,
    /// When it was first seen so.
    pub first_seen_at: Time,
    /// When last.
    pub last_seen_at: Time,
    /// Reports kept apart.
    pub reports: i64,
    /// The endpoint it is instead, once that was decided.
    pub became: Option<Uuid>,
}

impl From<Copy> for EndpointCopy {
    fn from(c: Copy) -> Self {
        let Claim { hostname, agent_version, address, boot_id, connects, instance } = c.claim;
        Self {
            copy: c.copy,
            hostname,
            address,
            agent_version,
            board: instance.marks.board,
            disks: instance.marks.disks,
            macs: instance.marks.macs,
            boot_id,
            connects,
            first_seen_at: Time::from_micros(c.first_at),
            last_seen_at: Time::from_micros(c.last_at),
            reports: c.reports,
            became: c.became,
        }
    }
}

impl EndpointCopies {
    /// Those of an endpoint in quarantine.
    pub(super) async fn of(app: &App, e: &Row) -> Result<Option<Self>, Error> {
        let Some(why) = e.suspicion.as_ref().filter(|_| e.quarantined_at.is_some()) else { return Ok(None) };
        let computers = copies::of(app, e).await?.into_iter().map(EndpointCopy::from).collect();
        Ok(Some(Self { signals: why.signals.clone(), computers }))
    }
}

/// Which computer is another one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMachineRequest {
    /// The copy.
    pub copy: String,
    /// For the audit and for colleagues.
    pub reason: String,
}

/// Which computer it was all along.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SameMachineRequest {
    /// The computer the identity belongs to; absent: whichever comes next.
    #[serde(default)]
    pub copy: Option<String>,
    /// For the audit and for colleagues.
    pub reason: String,
}

/// What became of a copy.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewMachine {
    /// The endpoint it is now.
    pub new_id: Uuid,
    /// The endpoint it was taken for.
    pub endpoint: Endpoint,
}

/// This resource's routes.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(new_machine)).routes(routes!(same_machine))
}

/// Says that a copy is another computer: it gets an identity of its own by itself.
#[utoipa::path(post, path = "/endpoints/{id}/new-machine", tag = "endpoints", params(("id" = Uuid, Path)), request_body = NewMachineRequest, responses((status = 200, body = NewMachine), (status = "4XX", body = Problem)))]
async fn new_machine(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<NewMachineRequest>,
) -> Result<Json<NewMachine>, ApiError> {
    let (row, events, new) = copies::new_machine(&api.app, &ctx, id.into(), &body.copy, &body.reason).await?;
    let copies = EndpointCopies::of(&api.app, &row).await?;
    let endpoint = Endpoint { copies, ..with_history((row, events)) };
    Ok(Json(NewMachine { new_id: new.0, endpoint }))
}

/// Says that it is one computer after all: the quarantine is over.
#[utoipa::path(post, path = "/endpoints/{id}/same-machine", tag = "endpoints", params(("id" = Uuid, Path)), request_body = SameMachineRequest, responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)))]
async fn same_machine(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<SameMachineRequest>,
) -> Result<Json<Endpoint>, ApiError> {
    let found = copies::same_machine(&api.app, &ctx, id.into(), body.copy.as_deref(), &body.reason).await?;
    Ok(Json(with_history(found)))
}
