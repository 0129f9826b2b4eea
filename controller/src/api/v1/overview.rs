//! `/overview`: counts for the first page.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::desktop::DesktopState;
use crate::services::overview;

/// Counts for the first page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// Hosts.
    pub hosts: HostCount,
    /// Pools.
    pub pools: Count,
    /// Desktops.
    pub desktops: DesktopCount,
    /// Endpoints.
    pub endpoints: EndpointCount,
    /// Sessions.
    pub sessions: SessionCount,
}

/// How many.
#[derive(Debug, Serialize, ToSchema)]
pub struct Count {
    /// All.
    pub total: i64,
}

/// Hosts, counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostCount {
    /// All.
    pub total: i64,
    /// Of these, up.
    pub up: i64,
}

/// Desktops, counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct DesktopCount {
    /// All.
    pub total: i64,
    /// By state.
    pub by_state: BTreeMap<DesktopState, i64>,
}

/// Endpoints, counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointCount {
    /// All enrolled.
    pub total: i64,
    /// Heard of lately.
    pub online: i64,
    /// Not heard of lately.
    pub silent: i64,
}

/// Sessions, counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionCount {
    /// Somebody is connected.
    pub active: i64,
    /// Kept, nobody connected.
    pub disconnected: i64,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_one))
}

/// Counts of everything the caller may see.
#[utoipa::path(get, path = "/overview", tag = "overview", responses((status = 200, body = Overview), (status = "4XX", body = Problem)))]
async fn get_one(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Overview>, ApiError> {
    let o = overview::get(&api.app, &ctx).await?;
    Ok(Json(Overview {
        hosts: HostCount { total: o.hosts.0, up: o.hosts.1 },
        pools: Count { total: o.pools },
        desktops: DesktopCount { total: o.desktops.values().sum(), by_state: o.desktops },
        endpoints: EndpointCount { total: o.endpoints.0, online: o.endpoints.1, silent: o.endpoints.2 },
        sessions: SessionCount { active: o.sessions.0, disconnected: o.sessions.1 },
    }))
}
