//! `/gateways`: the processes that carry display traffic.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::gateway::GatewayState;
use crate::domain::time::Time;
use crate::services::gateways;
use crate::store;

/// A gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct Gateway {
    /// The process.
    pub id: Uuid,
    /// Name given by the operator.
    pub name: String,
    /// Where it is.
    pub state: GatewayState,
    /// Where browsers reach it.
    pub web_url: String,
    /// Where endpoints reach it; absent: where they reach their controller.
    pub agent_url: Option<String>,
    /// Its release.
    pub version: String,
    /// It is part of a controller's process, and ends with it.
    pub embedded: bool,
    /// It reaches hosts that only the controller's own machine reaches.
    pub local_hosts: bool,
    /// Sessions it carries.
    pub sessions: i64,
    /// Connections it carries, those of support included.
    pub connections: i64,
    /// An operator wants it empty.
    pub draining: bool,
    /// When its process started.
    pub started_at: Time,
    /// When it was heard last.
    pub seen_at: Time,
    /// For how many seconds it has been silent, by the database's clock.
    pub silent_s: u64,
    /// When it was stopped.
    pub stopped_at: Option<Time>,
}

impl From<store::gateways::Gateway> for Gateway {
    fn from(g: store::gateways::Gateway) -> Self {
        Self {
            id: g.id,
            state: g.state(),
            silent_s: g.silent().as_secs(),
            name: g.name,
            web_url: g.web_url,
            agent_url: Some(g.agent_url).filter(|a| !a.is_empty()),
            version: g.version,
            embedded: g.embedded,
            local_hosts: g.local_hosts,
            sessions: g.sessions,
            connections: g.connections,
            draining: g.draining,
            started_at: Time::from_micros(g.started_at),
            seen_at: Time::from_micros(g.seen_at),
            stopped_at: g.stopped_at.map(Time::from_micros),
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(drain)).routes(routes!(undrain))
}

/// All gateways; one that is gone is shown for a day.
#[utoipa::path(get, path = "/gateways", tag = "gateways", responses((status = 200, body = Page<Gateway>), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<Gateway>>, ApiError> {
    let rows = gateways::list(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Gateway::from).collect())))
}

/// Empties a gateway: it takes nothing new, and its sessions go on at another one.
#[utoipa::path(post, path = "/gateways/{id}/drain", tag = "gateways", params(("id" = Uuid, Path)), responses((status = 200, body = Gateway), (status = "4XX", body = Problem)))]
async fn drain(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Gateway>, ApiError> {
    Ok(Json(gateways::drain(&api.app, &ctx, id, true).await?.into()))
}

/// Lets a gateway take connections again.
#[utoipa::path(post, path = "/gateways/{id}/undrain", tag = "gateways", params(("id" = Uuid, Path)), responses((status = 200, body = Gateway), (status = "4XX", body = Problem)))]
async fn undrain(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Gateway>, ApiError> {
    Ok(Json(gateways::drain(&api.app, &ctx, id, false).await?.into()))
}
