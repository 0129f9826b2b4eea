//! `/endpoints/{id}/health`, its history and live view, and `/probes`: what probers probe.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tram_wire::plan::Service;
use tram_wire::report as wire;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::endpoint::Verdict;
use crate::domain::health::{KEEP_SAMPLES, Kept, Latest, Probed, Sample};
use crate::domain::time::Time;
use crate::services::health;
use crate::store::health::{ProbeService, Turn};

/// How an endpoint is, as it reported itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndpointHealth {
    /// When the newest record was made; absent: this agent sends no health reports.
    pub at: Option<Time>,
    /// Gauges by name, such as `cpu` or `disk:/`.
    pub gauges: BTreeMap<String, f32>,
    /// What 19 of 20 round trips from its office to the data centre usually stay below, milliseconds; absent: not
    /// measured for half a day yet.
    pub usual_ms: Option<f32>,
    /// What it is made of and what is plugged in, by section.
    pub inventory: BTreeMap<String, Vec<HealthItem>>,
    /// The newest of each probe.
    pub probes: Vec<HealthProbe>,
    /// What its checks say, and since when.
    pub checks: Vec<HealthCheck>,
    /// What its checks changed, newest first.
    pub transitions: Vec<HealthTransition>,
}

/// A thing that is part of an endpoint or plugged into it.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthItem {
    /// Tells it from its like there.
    pub id: String,
    /// What it is.
    pub kind: String,
    /// What people call it.
    pub name: Option<String>,
    /// What is known of it.
    pub facts: BTreeMap<String, String>,
}

/// How a probe went.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthProbe {
    /// Which.
    pub name: String,
    /// How it was made.
    pub kind: String,
    /// When.
    pub at: Time,
    /// How it went.
    pub state: Verdict,
    /// The phase that failed.
    pub failed: Option<String>,
    /// Why, in one word.
    pub error: Option<String>,
    /// Name to address, milliseconds.
    pub resolve_ms: Option<f32>,
    /// TCP handshake.
    pub connect_ms: Option<f32>,
    /// TLS handshake.
    pub tls_ms: Option<f32>,
    /// To the first byte of the answer.
    pub first_byte_ms: Option<f32>,
    /// Median round trip of a burst.
    pub p50_ms: Option<f32>,
    /// 95th percentile of it.
    pub p95_ms: Option<f32>,
    /// Its jitter.
    pub jitter_ms: Option<f32>,
    /// Its loss.
    pub loss_percent: Option<f32>,
    /// What else was learnt.
    pub facts: BTreeMap<String, String>,
}

/// What a check says.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthCheck {
    /// Which.
    pub check: String,
    /// How bad.
    pub state: Verdict,
    /// Which sentence says it.
    pub text_code: String,
    /// The evidence: the blanks of the sentence.
    pub params: BTreeMap<String, String>,
    /// Since when.
    pub since: Time,
}

/// A check changed its mind.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthTransition {
    /// When.
    pub at: Time,
    /// When we heard of it: later, if the line was down.
    pub arrived_at: Time,
    /// Which check.
    pub check: String,
    /// What it said before, if known.
    pub from: Option<String>,
    /// What it says since.
    pub to: String,
    /// Which sentence says it.
    pub text_code: String,
    /// The blanks of the sentence.
    pub params: BTreeMap<String, String>,
}

/// One record of an endpoint's history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthPoint {
    /// When it was made.
    pub at: Time,
    /// The gauges are complete; else those that moved.
    pub key: bool,
    /// Gauges; `null`: it can't be read any more.
    pub gauges: BTreeMap<String, Option<f32>>,
    /// Probes that were made.
    pub probes: Vec<HealthProbe>,
    /// What the agent said of itself, by code.
    pub notes: Vec<String>,
    /// Records that will never come: not reported is not zero.
    pub missing: Option<u32>,
}

/// Which part of the history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct HistorySpan {
    /// From then on; three days ago if absent.
    from: Option<Time>,
    /// Before then; now if absent.
    to: Option<Time>,
}

/// Until when an endpoint reports every second.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveView {
    /// Until then.
    pub until: Time,
}

/// A service that one endpoint of each site probes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbedService {
    /// Id; the controller gives it.
    #[serde(default, skip_deserializing)]
    pub id: Uuid,
    /// Its name in results.
    pub name: String,
    /// `tcp`, `tls`, `http`, `https`, `dns` or `captive`.
    pub kind: String,
    /// Host, or the name to resolve.
    pub host: String,
    /// Port; 0: the kind's own.
    #[serde(default)]
    pub port: u16,
    /// Path of a request.
    #[serde(default)]
    pub path: Option<String>,
    /// What must come back: a status, or addresses separated by commas.
    #[serde(default)]
    pub expect: Option<String>,
    /// Seconds between probes.
    #[serde(default = "five_minutes")]
    pub every_s: u32,
    /// Milliseconds a probe may take.
    #[serde(default = "five_seconds")]
    pub budget_ms: u32,
}

fn five_minutes() -> u32 {
    300
}

fn five_seconds() -> u32 {
    5000
}

impl From<(Option<Latest>, Vec<Turn>, Option<i64>)> for EndpointHealth {
    fn from((latest, turns, usual): (Option<Latest>, Vec<Turn>, Option<i64>)) -> Self {
        let at = latest.as_ref().map(|l| l.at);
        let l = latest.unwrap_or_default();
        let items = |items: Vec<wire::Item>| items.into_iter().map(HealthItem::from).collect();
        Self {
            at,
            gauges: l.gauges,
            #[allow(clippy::cast_precision_loss)] // milliseconds for people
            usual_ms: usual.map(|us| us as f32 / 1000.0),
            inventory: l.inventory.into_iter().map(|(section, list)| (section, items(list))).collect(),
            probes: l.probes.into_values().map(HealthProbe::from).collect(),
            checks: l.checks.into_iter().map(HealthCheck::from).collect(),
            transitions: turns.into_iter().map(HealthTransition::from).collect(),
        }
    }
}

impl From<wire::Item> for HealthItem {
    fn from(i: wire::Item) -> Self {
        Self { id: i.id, kind: i.kind, name: i.name, facts: i.facts }
    }
}

impl From<Probed> for HealthProbe {
    fn from(Probed { at, probe: p }: Probed) -> Self {
        #[allow(clippy::cast_precision_loss)] // milliseconds for people
        let ms = |us: u32| us as f32 / 1000.0;
        let trips = p.trips.as_ref();
        Self {
            name: p.name,
            kind: p.kind,
            at,
            state: p.state.into(),
            failed: p.failed.map(|f| phase(f).to_owned()),
            error: p.error,
            resolve_ms: p.resolve_us.map(ms),
            connect_ms: p.connect_us.map(ms),
            tls_ms: p.tls_us.map(ms),
            first_byte_ms: p.first_byte_us.map(ms),
            p50_ms: trips.map(|t| ms(t.p50_us)),
            p95_ms: trips.map(|t| ms(t.p95_us)),
            jitter_ms: trips.map(|t| ms(t.jitter_us)),
            loss_percent: trips.map(|t| f32::from(t.lost) * 100.0 / f32::from(t.sent.max(1))),
            facts: p.facts,
        }
    }
}

fn phase(p: wire::Phase) -> &'static str {
    match p {
        wire::Phase::Resolve => "resolve",
        wire::Phase::Connect => "connect",
        wire::Phase::Tls => "tls",
        wire::Phase::FirstByte => "first_byte",
        wire::Phase::Expect => "expect",
        wire::Phase::Other => "other",
    }
}

impl From<Kept> for HealthCheck {
    fn from(k: Kept) -> Self {
        Self { check: k.check, state: k.state.into(), text_code: k.code, params: k.params, since: k.since }
    }
}

impl From<Turn> for HealthTransition {
    fn from(t: Turn) -> Self {
        Self {
            at: Time::from_micros(t.at),
            arrived_at: Time::from_micros(t.arrived_at),
            check: t.check_id,
            from: t.from_state,
            to: t.to_state,
            text_code: t.code,
            params: t.params,
        }
    }
}

impl From<(Time, Sample)> for HealthPoint {
    fn from((at, s): (Time, Sample)) -> Self {
        Self {
            at,
            key: s.key,
            gauges: s.gauges,
            probes: s.probes.into_iter().map(|probe| Probed { at, probe }.into()).collect(),
            notes: s.notes.into_iter().map(|n| n.code).collect(),
            missing: s.gap.map(|g| g.count),
        }
    }
}

impl From<ProbeService> for ProbedService {
    fn from(ProbeService { id, service: s }: ProbeService) -> Self {
        Self {
            id,
            name: s.name,
            kind: s.kind,
            host: s.host,
            port: s.port,
            path: s.path,
            expect: s.expect,
            every_s: s.every_s,
            budget_ms: s.budget_ms,
        }
    }
}

impl From<ProbedService> for Service {
    fn from(s: ProbedService) -> Self {
        Self {
            name: s.name,
            kind: s.kind,
            host: s.host,
            port: s.port,
            path: s.path,
            expect: s.expect,
            every_s: s.every_s,
            budget_ms: s.budget_ms,
            ..Self::default()
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(get_health))
        .routes(routes!(get_samples))
        .routes(routes!(look))
        .routes(routes!(list_services, add_service))
        .routes(routes!(remove_service))
}

/// How an office computer is: gauges, inventory, peripherals, probes, checks with their evidence.
#[utoipa::path(get, path = "/endpoints/{id}/health", tag = "endpoints", params(("id" = Uuid, Path)), responses((status = 200, body = EndpointHealth), (status = "4XX", body = Problem)))]
async fn get_health(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<EndpointHealth>, ApiError> {
    Ok(Json(health::get(&api.app, &ctx, id.into()).await?.into()))
}

/// Its records of a span of time, oldest first; of a longer one the newest 2000.
#[utoipa::path(get, path = "/endpoints/{id}/samples", tag = "endpoints", params(("id" = Uuid, Path), HistorySpan), responses((status = 200, body = Page<HealthPoint>), (status = "4XX", body = Problem)))]
async fn get_samples(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Query(span): Query<HistorySpan>,
) -> Result<Json<Page<HealthPoint>>, ApiError> {
    let to = span.to.unwrap_or(ctx.now);
    let from = span.from.unwrap_or_else(|| to.minus(KEEP_SAMPLES));
    let points = health::samples(&api.app, &ctx, id.into(), from, to).await?;
    Ok(Json(Page::whole(points.into_iter().map(HealthPoint::from).collect())))
}

/// How to look.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LiveQuery {
    /// Also where the line is paid by the byte.
    #[serde(default)]
    worth_it: bool,
}

/// Asks it to report every second for five minutes; it falls back by itself. E-220 where the line is paid by the byte and
/// nobody said that it is worth it.
#[utoipa::path(post, path = "/endpoints/{id}/live", tag = "endpoints", params(("id" = Uuid, Path), LiveQuery), responses((status = 200, body = LiveView), (status = "4XX", body = Problem)))]
async fn look(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Query(query): Query<LiveQuery>,
) -> Result<Json<LiveView>, ApiError> {
    Ok(Json(LiveView { until: health::look_at(&api.app, &ctx, id.into(), query.worth_it).await? }))
}

/// Services that one endpoint of each site probes.
#[utoipa::path(get, path = "/probes", tag = "endpoints", responses((status = 200, body = Page<ProbedService>), (status = "4XX", body = Problem)))]
async fn list_services(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<ProbedService>>, ApiError> {
    let services = health::services(&api.app, &ctx).await?;
    Ok(Json(Page::whole(services.into_iter().map(ProbedService::from).collect())))
}

/// Adds a service to probe.
#[utoipa::path(post, path = "/probes", tag = "endpoints", request_body = ProbedService, responses((status = 200, body = ProbedService), (status = "4XX", body = Problem)))]
async fn add_service(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Json(body): Json<ProbedService>,
) -> Result<Json<ProbedService>, ApiError> {
    Ok(Json(health::add_service(&api.app, &ctx, body.into()).await?.into()))
}

/// Stops probing a service.
#[utoipa::path(delete, path = "/probes/{id}", tag = "endpoints", params(("id" = Uuid, Path)), responses((status = 204), (status = "4XX", body = Problem)))]
async fn remove_service(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    health::remove_service(&api.app, &ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
