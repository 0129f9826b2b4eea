//! `/updates`: releases of the endpoints' agent and how they spread. Publishing one is `tram-controller admin update publish`:
//! who may sign has no business at the console.

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
use crate::api::extract::{Signed, ValidJson};
use crate::domain::rings::{RingCounts, RolloutState, UpdateRing, UpdateStage};
use crate::domain::time::Time;
use crate::services::updates::{self, Counts, Wish};
use crate::store;

/// A release of the agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentRelease {
    /// Id.
    pub id: Uuid,
    /// Its name.
    pub version: String,
    /// Every release has a larger one.
    pub counter: i64,
    /// For which processors.
    pub arch: String,
    /// SHA-256 of its program.
    pub sha256: String,
    /// Its bytes.
    pub size: i64,
    /// How it is.
    pub state: RolloutState,
    /// Why.
    pub reason: Option<String>,
    /// The ring that is let in.
    pub ring: UpdateRing,
    /// Since when.
    pub ring_since: Time,
    /// The widest ring it was signed for.
    pub widest: UpdateRing,
    /// It is urgent: computers are spread over less time.
    pub hotfix: bool,
    /// Office hours don't matter.
    pub any_time: bool,
    /// Ids of the keys that signed it.
    pub signed_by: Vec<String>,
    /// Not taken up after that.
    pub expires_at: Time,
    /// Who published it.
    pub created_by: String,
    /// When.
    pub created_at: Time,
    /// Its rings, in order.
    pub rings: Vec<UpdateRingCounts>,
}

/// How the computers of a ring are.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpdateRingCounts {
    /// Which.
    pub ring: UpdateRing,
    /// It is let in.
    pub open: bool,
    /// Computers in it.
    pub total: i64,
    /// Those that run the release for good.
    pub committed: i64,
    /// Those that are at it.
    pub busy: i64,
    /// Those that failed since an operator last said to go on.
    pub failed: i64,
    /// Those that have not begun and were not heard for a day; they are not waited for.
    pub silent: i64,
}

/// A computer that something went wrong with.
#[derive(Debug, Serialize, ToSchema)]
pub struct UpdateFailure {
    /// It.
    pub endpoint_id: Uuid,
    /// What it calls itself.
    pub endpoint_name: String,
    /// Where it stands.
    pub site_code: String,
    /// Its ring.
    pub ring: UpdateRing,
    /// How far it is.
    pub stage: UpdateStage,
    /// Why, in one word, such as `crashed` or `disk_full`.
    pub code: String,
    /// The particulars.
    pub detail: String,
    /// How often it went back; three times, and it tries no more.
    pub strikes: i64,
    /// When.
    pub at: Time,
}

/// A release and the computers that something went wrong with.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentReleaseDetail {
    /// The release.
    #[serde(flatten)]
    pub release: AgentRelease,
    /// Computers that keep a copy for their office.
    pub copies: i64,
    /// Bytes that computers fetched from such copies, and not over their office's line.
    pub bytes_from_copies: i64,
    /// Computers, the newest failure first; 500 at most.
    pub failures: Vec<UpdateFailure>,
}

/// Why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateReason {
    /// For those who ask later.
    #[serde(default)]
    pub reason: String,
}

impl AgentRelease {
    fn new(r: store::updates::Release, counts: &Counts) -> Self {
        let rings = UpdateRing::ALL.iter().filter(|ring| **ring <= r.widest);
        let rings = rings.map(|ring| {
            let RingCounts { total, committed, failed, busy, silent } = counts.get(ring).copied().unwrap_or_default();
            UpdateRingCounts { ring: *ring, open: *ring <= r.ring, total, committed, busy, failed, silent }
        });
        Self {
            rings: rings.collect(),
            id: r.id,
            version: r.version,
            counter: r.counter,
            arch: r.arch,
            sha256: r.sha256,
            size: r.size,
            state: r.state,
            reason: Some(r.reason).filter(|t| !t.is_empty()),
            ring: r.ring,
            ring_since: Time::from_micros(r.ring_since),
            widest: r.widest,
            hotfix: r.hotfix,
            any_time: r.any_time,
            signed_by: r.signatures.0.into_iter().map(|s| s.key).collect(),
            expires_at: Time::from_micros(r.expires_at),
            created_by: r.created_by,
            created_at: Time::from_micros(r.created_at),
        }
    }
}

impl From<store::updates::Member> for UpdateFailure {
    fn from(m: store::updates::Member) -> Self {
        Self {
            endpoint_id: m.endpoint_id.0,
            endpoint_name: m.endpoint_name,
            site_code: m.site_code,
            ring: m.ring,
            stage: m.stage,
            code: m.code,
            detail: m.detail,
            strikes: m.strikes,
            at: Time::from_micros(m.changed_at),
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
}

/// Releases of the agent, the newest first.
#[utoipa::path(get, path = "/updates", tag = "updates", responses((status = 200, body = Page<AgentRelease>), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<AgentRelease>>, ApiError> {
    let all = updates::list(&api.app, &ctx).await?;
    Ok(Json(Page::whole(all.into_iter().map(|(r, counts)| AgentRelease::new(r, &counts)).collect())))
}

/// One release, and the computers that something went wrong with.
#[utoipa::path(get, path = "/updates/{id}", tag = "updates", params(("id" = Uuid, Path)), responses((status = 200, body = AgentReleaseDetail), (status = "4XX", body = Problem)))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<AgentReleaseDetail>, ApiError> {
    let k = updates::get(&api.app, &ctx, id).await?;
    Ok(Json(AgentReleaseDetail {
        release: AgentRelease::new(k.release, &k.counts),
        copies: k.copies,
        bytes_from_copies: k.from_peers,
        failures: k.failures.into_iter().map(UpdateFailure::from).collect(),
    }))
}

async fn wish(
    api: &Api,
    ctx: &crate::services::Ctx,
    id: Uuid,
    wish: Wish,
    why: &str,
) -> Result<Json<AgentRelease>, ApiError> {
    updates::wish(&api.app, ctx, id, wish, why).await?;
    let k = updates::get(&api.app, ctx, id).await?;
    Ok(Json(AgentRelease::new(k.release, &k.counts)))
}

/// Holds a release: no computer begins any more.
#[utoipa::path(post, path = "/updates/{id}/pause", tag = "updates", params(("id" = Uuid, Path)), request_body = UpdateReason, responses((status = 200, body = AgentRelease), (status = "4XX", body = Problem)))]
async fn pause(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<UpdateReason>,
) -> Result<Json<AgentRelease>, ApiError> {
    wish(&api, &ctx, id, Wish::Pause, &b.reason).await
}

/// Lets a release go on; failures so far are forgiven.
#[utoipa::path(post, path = "/updates/{id}/resume", tag = "updates", params(("id" = Uuid, Path)), request_body = UpdateReason, responses((status = 200, body = AgentRelease), (status = "4XX", body = Problem)))]
async fn resume(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<UpdateReason>,
) -> Result<Json<AgentRelease>, ApiError> {
    wish(&api, &ctx, id, Wish::Resume, &b.reason).await
}

/// Gives a release up for good. Who runs it goes on with it.
#[utoipa::path(post, path = "/updates/{id}/abort", tag = "updates", params(("id" = Uuid, Path)), request_body = UpdateReason, responses((status = 200, body = AgentRelease), (status = "4XX", body = Problem)))]
async fn abort(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<UpdateReason>,
) -> Result<Json<AgentRelease>, ApiError> {
    wish(&api, &ctx, id, Wish::Abort, &b.reason).await
}
