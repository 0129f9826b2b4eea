//! `/desktops`: virtual desktops.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use super::pools::{SiteRef, Trouble};
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::desktop::{DesiredDesktop, DesktopState, progress};
use crate::domain::time::Time;
use crate::services::desktops::{self, Listing};
use crate::services::{Ctx, Error};
use crate::store::desktops::{Filter, Want};

/// A virtual desktop.
#[derive(Debug, Serialize, ToSchema)]
pub struct Desktop {
    /// Id, also the UUID of its domain.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// Its pool.
    pub pool: NameRef,
    /// The site it serves.
    pub site: SiteRef,
    /// Where it lives.
    pub host: Option<NameRef>,
    /// Where it is on its way.
    pub state: DesktopState,
    /// What is wanted of it.
    pub desired: DesiredDesktop,
    /// What is being done right now; the state's word.
    pub step: DesktopState,
    /// Since when.
    pub step_started_at: Time,
    /// 0 to 1 while on its way.
    pub progress: Option<f64>,
    /// Seconds left, estimated from recent boots.
    pub estimate_s: Option<u64>,
    /// The last failure.
    pub last_error: Option<Trouble>,
    /// Failures in a row.
    pub attempts: i64,
    /// When it is tried again.
    pub next_try_at: Option<Time>,
    /// Who has it.
    pub assigned_to: Option<UserRef>,
    /// Addresses its guest reported.
    pub addresses: Vec<String>,
    /// Counts the changes of what is wanted.
    pub generation: i64,
    /// Last change.
    pub updated_at: Time,
}

/// Something with a name.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NameRef {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
}

/// A person.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UserRef {
    /// Id.
    pub id: Uuid,
    /// Sign-in name.
    pub username: String,
}

/// A listing as it is sent.
pub(crate) fn rows(l: Listing, now: Time) -> Vec<Desktop> {
    let Listing { desktops, pools, hosts, usual_boot, .. } = l;
    let row = |d: crate::store::desktops::Desktop| {
        let pool = pools.get(&d.pool_id);
        let since = Time::from_micros(d.state_since);
        let on_its_way = d.next_try_at.is_some() || d.desired == DesiredDesktop::Running;
        let left = progress(d.state, now.since(since), usual_boot).filter(|_| on_its_way);
        Desktop {
            id: d.id.0,
            name: d.name,
            pool: NameRef { id: d.pool_id.0, name: pool.map(|p| p.name.clone()).unwrap_or_default() },
            site: SiteRef {
                code: pool.map(|p| p.site_code.clone()).unwrap_or_default(),
                name: pool.and_then(|p| p.site_name.clone()).unwrap_or_default(),
                district: pool.and_then(|p| p.district_name.clone()),
            },
            host: d.host_id.map(|id| NameRef { id, name: hosts.get(&id).map(|h| h.name.clone()).unwrap_or_default() }),
            state: d.state,
            desired: d.desired,
            step: d.state,
            step_started_at: since,
            progress: left.map(|(p, _)| p),
            estimate_s: left.map(|(_, s)| s),
            last_error: d.error_code.map(|code| Trouble { code, text: d.error_text.unwrap_or_default() }),
            attempts: d.attempts,
            next_try_at: d.next_try_at.map(Time::from_micros),
            assigned_to: d.assigned_user.map(|id| UserRef { id, username: d.assigned_name.unwrap_or_default() }),
            addresses: d.addresses.0,
            generation: d.generation,
            updated_at: Time::from_micros(d.updated_at),
        }
    };
    desktops.into_iter().map(row).collect()
}

/// Which desktops to list.
#[derive(Debug, Deserialize, IntoParams)]
pub struct ListQuery {
    /// Only of this pool.
    pool_id: Option<Uuid>,
    /// Only on this host.
    host_id: Option<Uuid>,
    /// Only in this state.
    state: Option<DesktopState>,
    /// Only names containing this.
    q: Option<String>,
    /// At most so many, 1 to 5000; 100 if absent.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// How to stop.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// `true`: cut the power.
    #[serde(default)]
    pub force: bool,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(reset))
        .routes(routes!(rebuild))
        .routes(routes!(screenshot))
}

/// Desktops in scope, by name.
#[utoipa::path(get, path = "/desktops", tag = "desktops", params(ListQuery), responses((status = 200, body = Page<Desktop>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Query(q): Query<ListQuery>,
) -> Result<Json<Page<Desktop>>, ApiError> {
    let limit = q.limit.unwrap_or(100).clamp(1, 5000);
    let filter = Filter {
        pool: q.pool_id.map(Into::into),
        host: q.host_id.map(Into::into),
        state: q.state,
        text: q.q.filter(|t| !t.is_empty()),
        ids: None,
        pools: None,
        after: q.cursor,
        limit,
    };
    let listing = desktops::list(&api.app, &ctx, &filter).await?;
    let total = listing.total;
    let items = rows(listing, ctx.now);
    let full = i64::try_from(items.len()).is_ok_and(|n| n >= limit);
    let next = items.last().filter(|_| full).map(|d| d.name.clone());
    Ok(Json(Page { items, total, next }))
}

/// One desktop.
#[utoipa::path(get, path = "/desktops/{id}", tag = "desktops", params(("id" = Uuid, Path)), responses((status = 200, body = Desktop), (status = "4XX", body = Problem)))]
async fn get_one(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Desktop>, ApiError> {
    one(desktops::get(&api.app, &ctx, id.into()).await?, &ctx)
}

/// Wants it up.
#[utoipa::path(post, path = "/desktops/{id}/start", tag = "desktops", params(("id" = Uuid, Path)), responses((status = 202, body = Desktop), (status = "4XX", body = Problem)))]
async fn start(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Accepted {
    want(&api, &ctx, id, Want::Start).await
}

/// Wants it off.
#[utoipa::path(post, path = "/desktops/{id}/stop", tag = "desktops", params(("id" = Uuid, Path)), request_body = Option<StopRequest>, responses((status = 202, body = Desktop), (status = "4XX", body = Problem)))]
async fn stop(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    body: Option<Json<StopRequest>>,
) -> Accepted {
    want(&api, &ctx, id, Want::Stop { force: body.is_some_and(|b| b.force) }).await
}

/// Resets it as if by the reset button.
#[utoipa::path(post, path = "/desktops/{id}/reset", tag = "desktops", params(("id" = Uuid, Path)), responses((status = 202, body = Desktop), (status = "4XX", body = Problem)))]
async fn reset(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Accepted {
    want(&api, &ctx, id, Want::Reset).await
}

/// Throws its disk away and makes it anew from the pool's image.
#[utoipa::path(post, path = "/desktops/{id}/rebuild", tag = "desktops", params(("id" = Uuid, Path)), responses((status = 202, body = Desktop), (status = "4XX", body = Problem)))]
async fn rebuild(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Accepted {
    want(&api, &ctx, id, Want::Rebuild).await
}

/// A picture of its screen, now.
#[utoipa::path(get, path = "/desktops/{id}/screenshot", tag = "desktops", params(("id" = Uuid, Path)), responses((status = 200, content_type = "image/png"), (status = "4XX", body = Problem)))]
async fn screenshot(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<impl IntoResponse, ApiError> {
    let host = desktops::look(&api.app, &ctx, id.into()).await?;
    let unavailable = |e: String| Error::Unavailable("D-107", format!("its screen can't be seen now: {e}"));
    let backend = api.fleet.get(host).ok_or_else(|| unavailable("its host is not reachable".into()))?;
    let png = backend.screenshot(id.into()).await.map_err(|e| unavailable(e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")], png))
}

type Accepted = Result<(StatusCode, Json<Desktop>), ApiError>;

async fn want(api: &Api, ctx: &Ctx, id: Uuid, what: Want) -> Accepted {
    let Json(d) = one(desktops::want(&api.app, ctx, id.into(), what).await?, ctx)?;
    Ok((StatusCode::ACCEPTED, Json(d)))
}

fn one(listing: Listing, ctx: &Ctx) -> Result<Json<Desktop>, ApiError> {
    let row = rows(listing, ctx.now).pop();
    Ok(Json(row.ok_or_else(|| Error::NotFound("D-404", "there is no such desktop".into()))?))
}
