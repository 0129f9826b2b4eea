//! `/pools`: sets of alike desktops.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson};
use crate::domain::desktop::DesktopState;
use crate::domain::policy::PoolPolicy;
use crate::domain::pool::DesiredPool;
use crate::domain::time::Time;
use crate::services::pools::{self, PoolView, Request};

/// A site as it is shown beside something else: always with its district, because names repeat.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SiteRef {
    /// Official code.
    pub code: String,
    /// Name; the code if it is unknown.
    pub name: String,
    /// District.
    pub district: Option<String>,
}

/// The image of a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageRef {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// What holds something up.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Trouble {
    /// Short code.
    pub code: String,
    /// What it is and what to do.
    pub text: String,
}

/// A pool of desktops.
#[derive(Debug, Serialize, ToSchema)]
pub struct Pool {
    /// Id.
    pub id: Uuid,
    /// Unique name.
    pub name: String,
    /// The site it serves.
    pub site: SiteRef,
    /// The image its desktops are made from.
    pub image: ImageRef,
    /// Desktops wanted.
    pub size: i64,
    /// Virtual processors of each.
    pub vcpus: i64,
    /// Memory of each, MiB.
    pub memory_mib: i64,
    /// Disk of each, GiB; the image's own size if absent.
    pub disk_gib: Option<i64>,
    /// Desktops keep their disks after a session.
    pub persistent: bool,
    /// Desktops are started as soon as they exist.
    pub start: bool,
    /// Whether it should exist.
    pub desired: DesiredPool,
    /// Desktops that are what they should be.
    pub ready: i64,
    /// Of these, running.
    pub running: i64,
    /// Failed desktops.
    pub failed: i64,
    /// Desktops by state.
    pub counts: BTreeMap<DesktopState, i64>,
    /// Counts its changes.
    pub generation: i64,
    /// When it was made.
    pub created_at: Time,
    /// What holds it up.
    pub problem: Option<Trouble>,
    /// Its own policy for sessions; what it leaves out is as configured.
    pub policy: PoolPolicy,
}

impl From<PoolView> for Pool {
    fn from(v: PoolView) -> Self {
        let p = v.pool;
        let of = |s: DesktopState| v.counts.get(&s).copied().unwrap_or(0);
        let running = of(DesktopState::Running);
        Self {
            id: p.id.0,
            site: SiteRef {
                name: p.site_name.unwrap_or_else(|| p.site_code.clone()),
                code: p.site_code,
                district: p.district_name,
            },
            name: p.name,
            image: ImageRef { id: p.image_id.0, name: p.image_name, version: p.image_version },
            size: p.size,
            vcpus: p.vcpus,
            memory_mib: p.memory_mib,
            disk_gib: p.disk_gib,
            persistent: p.persistent,
            start: p.start_desktops,
            desired: p.desired,
            ready: running + of(DesktopState::Defined) + of(DesktopState::Stopped),
            running,
            failed: of(DesktopState::Failed),
            counts: v.counts,
            generation: p.generation,
            created_at: Time::from_micros(p.created_at),
            policy: p.policy,
            problem: p.problem_code.map(|code| Trouble { code, text: p.problem_text.unwrap_or_default() }),
        }
    }
}

/// A pool to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPool {
    /// 1 to 40 of `a-z 0-9 -`.
    pub name: String,
    /// Code of the site it serves.
    pub site_code: String,
    /// Image for its desktops.
    pub image_id: Uuid,
    /// Desktops wanted, 0 to 2000.
    pub size: i64,
    /// Virtual processors of each; 2 if absent.
    pub vcpus: Option<i64>,
    /// Memory of each in MiB; 2048 if absent.
    pub memory_mib: Option<i64>,
    /// Disk of each in GiB.
    pub disk_gib: Option<i64>,
    /// Keep disks after a session; `false` if absent.
    pub persistent: Option<bool>,
    /// Start desktops as soon as they exist; `true` if absent.
    pub start: Option<bool>,
}

/// What may be changed of a pool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolChange {
    /// Desktops wanted, 0 to 2000.
    pub size: i64,
}

/// Whether desktops in use may be cut.
#[derive(Debug, Default, Deserialize, IntoParams)]
pub struct Force {
    /// `true`: also if sessions are cut by it.
    #[serde(default)]
    pub force: bool,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get_one, change, delete))
        .routes(routes!(set_policy))
}

/// All pools in scope.
#[utoipa::path(get, path = "/pools", tag = "pools", responses((status = 200, body = Page<Pool>), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<Pool>>, ApiError> {
    let rows = pools::list(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Pool::from).collect())))
}

/// One pool.
#[utoipa::path(get, path = "/pools/{id}", tag = "pools", params(("id" = Uuid, Path)), responses((status = 200, body = Pool), (status = "4XX", body = Problem)))]
async fn get_one(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Pool>, ApiError> {
    Ok(Json(pools::get(&api.app, &ctx, id.into()).await?.into()))
}

/// Asks for a pool. Its desktops are made afterwards; `/events` tells how far it is.
#[utoipa::path(post, path = "/pools", tag = "pools", request_body = NewPool, responses((status = 202, body = Pool), (status = "4XX", body = Problem)))]
async fn create(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Json(b): Json<NewPool>,
) -> Result<(StatusCode, Json<Pool>), ApiError> {
    let request = Request {
        name: b.name,
        site_code: b.site_code,
        image_id: b.image_id.into(),
        size: b.size,
        vcpus: b.vcpus.unwrap_or(2),
        memory_mib: b.memory_mib.unwrap_or(2048),
        disk_gib: b.disk_gib,
        persistent: b.persistent.unwrap_or(false),
        start: b.start.unwrap_or(true),
    };
    Ok((StatusCode::ACCEPTED, Json(pools::create(&api.app, &ctx, request).await?.into())))
}

/// Asks for another number of desktops.
#[utoipa::path(patch, path = "/pools/{id}", tag = "pools", params(("id" = Uuid, Path), Force), request_body = PoolChange, responses((status = 202, body = Pool), (status = "4XX", body = Problem)))]
async fn change(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Query(f): Query<Force>,
    Json(body): Json<PoolChange>,
) -> Result<(StatusCode, Json<Pool>), ApiError> {
    let pool = pools::resize(&api.app, &ctx, id.into(), body.size, f.force).await?;
    Ok((StatusCode::ACCEPTED, Json(pool.into())))
}

/// Sets the pool's own policy, whole; it holds for sessions that begin from now on.
#[utoipa::path(put, path = "/pools/{id}/policy", tag = "pools", params(("id" = Uuid, Path)), request_body = PoolPolicy, responses(
    (status = 200, body = Pool),
    (status = "4XX", body = Problem, description = "P-112 in `errors`: out of range")))]
async fn set_policy(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<PoolPolicy>,
) -> Result<Json<Pool>, ApiError> {
    Ok(Json(pools::set_policy(&api.app, &ctx, id.into(), body).await?.into()))
}

/// Asks for a pool and its desktops to be removed.
#[utoipa::path(delete, path = "/pools/{id}", tag = "pools", params(("id" = Uuid, Path), Force), responses((status = 202, body = Pool), (status = "4XX", body = Problem)))]
async fn delete(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Query(f): Query<Force>,
) -> Result<(StatusCode, Json<Pool>), ApiError> {
    Ok((StatusCode::ACCEPTED, Json(pools::delete(&api.app, &ctx, id.into(), f.force).await?.into())))
}
