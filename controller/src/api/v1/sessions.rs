//! `/connect` and `/sessions`: an officer's way to a desktop.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use super::assists::Assist;
use super::sites::SiteLine;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, Visitor};
use crate::domain::desktop::DesktopState;
use crate::domain::experience::{self, Measured, Owner, Sample, Segment, Unit};
use crate::domain::line::Cause;
use crate::domain::policy::SessionPolicy;
use crate::domain::session::{Limit, SessionState};
use crate::domain::ticket::Binding;
use crate::domain::time::Time;
use crate::services::{App, Ctx, Error, broker, gateways};
use crate::store::samples::Point;
use crate::store::sessions::Filter;

/// One officer's use of one desktop, over any number of connections.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// Id.
    pub id: Uuid,
    /// Where it is.
    pub state: SessionState,
    /// Whose it is.
    pub user: SessionUser,
    /// The desktop; its name stays when it is gone.
    pub desktop: SessionDesktop,
    /// Code of the site.
    pub site_code: String,
    /// What the desktop is doing while one waits for it.
    pub step: Option<SessionStep>,
    /// Where it stands in line while no desktop is free.
    pub queue: Option<SessionQueue>,
    /// When it was opened.
    pub created_at: Time,
    /// Last sign of a viewer.
    pub last_active_at: Time,
    /// First picture a viewer got.
    pub first_frame_at: Option<Time>,
    /// Since when no viewer is connected.
    pub disconnected_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why it ended: `user`, `staff`, `expired` or `desktop_gone`.
    pub end_reason: Option<String>,
    /// Who ended it, if not its officer.
    pub ended_by: Option<String>,
    /// What they told the officer.
    pub end_note: Option<String>,
    /// What it may do and for how long.
    pub policy: SessionPolicy,
    /// The limit that is near.
    pub closing: Option<SessionClosing>,
    /// Support that looks at it, or asks to.
    pub assist: Option<Assist>,
    /// How it felt at its last connection.
    pub experience: SessionExperience,
    /// Connections after the first.
    pub resumes: i64,
    /// When it was last entered by a lease while the database was away.
    pub leased_at: Option<Time>,
    /// Bytes from viewers, of finished connections.
    pub bytes_up: i64,
    /// Bytes to viewers, of finished connections.
    pub bytes_down: i64,
    /// Address of the viewer.
    pub client_ip: String,
    /// Name of the gateway that carries it, while one does.
    pub gateway: Option<String>,
}

/// Whose session it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionUser {
    /// Id.
    pub id: Uuid,
    /// Sign-in name.
    pub username: String,
}

/// A session's desktop.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionDesktop {
    /// Id; absent once the desktop is gone.
    pub id: Option<Uuid>,
    /// Name.
    pub name: String,
    /// State; absent once the desktop is gone.
    pub state: Option<DesktopState>,
}

/// What one waits for.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionStep {
    /// The desktop's state, for translation.
    pub code: DesktopState,
    /// Since when.
    pub started_at: Time,
    /// Seconds left, as far as known.
    pub estimate_s: Option<u64>,
    /// Part of the way that is done, 0 to 1.
    pub progress: Option<f64>,
}

/// A limit that is near.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionClosing {
    /// Which.
    pub why: Limit,
    /// When it is reached.
    pub at: Time,
}

/// How a session feels: the segments that were measured, and which is to blame.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionExperience {
    /// On the officer's way.
    pub segments: Vec<SessionSegment>,
    /// The one furthest over what is felt; absent if all is well.
    pub guilty: Option<Segment>,
}

/// One segment.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionSegment {
    /// Which.
    pub name: Segment,
    /// In its unit.
    pub value: u64,
    /// More than this is felt.
    pub limit: u64,
    /// What it is measured in.
    pub unit: Unit,
    /// Whose it is.
    pub owner: Owner,
}

impl From<Vec<Measured>> for SessionExperience {
    fn from(all: Vec<Measured>) -> Self {
        let guilty = experience::guilty(&all);
        let row = |m: Measured| SessionSegment {
            name: m.segment,
            value: m.value,
            limit: m.limit,
            unit: m.segment.unit(),
            owner: m.owner,
        };
        Self { guilty, segments: all.into_iter().map(row).collect() }
    }
}

/// The course of a session: the line it is used over, and how it felt point by point.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionCourse {
    /// Code of the site whose line it is used over: the endpoint's, in a browser the officer's.
    pub line_site: Option<String>,
    /// That line, and how all its sessions use it.
    pub line: Option<SiteLine>,
    /// Oldest first, one in 30 s, of the last hour it was used.
    pub points: Vec<SessionPoint>,
}

/// What a session was like since the point before.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionPoint {
    /// When.
    pub at: Time,
    /// Which connection of the session: another one than at the point before is a resume.
    pub connection: i64,
    /// Round trip to the viewer, smoothed, milliseconds.
    pub rtt_ms: Option<u64>,
    /// Of a thousand segments to the viewer, those that had to be sent again.
    pub lost_permille: Option<u64>,
    /// Pictures a minute; absent where they can't be told apart (SPICE).
    pub pictures_min: Option<u64>,
    /// From an input to the next picture, of nineteen in twenty, milliseconds.
    pub reply_ms: Option<u64>,
    /// Towards the viewer, kbit/s.
    pub kbit: u64,
    /// Times the viewer took nothing for more than a second.
    pub stalls: u64,
}

impl From<Point> for SessionPoint {
    fn from(p: Point) -> Self {
        let Sample { rtt_ms, lost_permille, pictures_min, reply_ms, kbit, stalls } = p.sample;
        let at = Time::from_micros(p.at);
        Self { at, connection: p.epoch, rtt_ms, lost_permille, pictures_min, reply_ms, kbit, stalls }
    }
}

/// A place in the waiting line.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionQueue {
    /// From 1.
    pub position: usize,
    /// How many wait for the same desktops.
    pub length: usize,
    /// Why there is a line.
    pub cause: Cause,
    /// Since when.
    pub since: Time,
    /// Seconds until a desktop is up; absent while too little was measured to say.
    pub estimate_s: Option<u64>,
}

/// What else to do when connecting.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectRequest {
    /// Move the session here if it is open at another place.
    pub take_over: bool,
}

/// Opens the session's display once.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ticket {
    /// For `Sec-WebSocket-Protocol: binary, <ticket>`. Never put it into an address: those are logged.
    pub ticket: String,
    /// Where to.
    pub url: String,
    /// Seconds it may be redeemed.
    pub expires_in: u64,
}

/// A session, and the way in if its desktop runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Connected {
    /// The session.
    pub session: Session,
    /// Absent while the desktop is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
}

/// Which sessions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SessionQuery {
    /// Only those that are not over.
    #[serde(default)]
    pub live: bool,
    /// At most so many, up to 5000.
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub cursor: Option<Uuid>,
}

impl From<broker::View> for Session {
    fn from(v: broker::View) -> Self {
        let (s, time) = (v.session, Time::from_micros);
        Self {
            id: s.id.0,
            state: v.state,
            user: SessionUser { id: s.user_id.0, username: s.username.clone() },
            desktop: SessionDesktop { id: s.desktop_id, name: s.desktop_name.clone(), state: s.desktop_state() },
            step: v.step.map(|s| SessionStep {
                code: s.code,
                started_at: s.started_at,
                estimate_s: s.estimate_s,
                progress: s.progress,
            }),
            experience: s.segments().into(),
            queue: v.queue.map(|q| SessionQueue {
                position: q.position,
                length: q.length,
                cause: q.cause,
                since: q.since,
                estimate_s: q.estimate_s,
            }),
            site_code: s.site_code,
            created_at: time(s.created_at),
            last_active_at: time(s.last_active_at),
            first_frame_at: s.first_frame_at.map(time),
            disconnected_at: s.disconnected_at.map(time),
            ended_at: s.ended_at.map(time),
            end_reason: s.end_reason,
            ended_by: s.ended_by,
            end_note: s.end_note,
            policy: s.policy,
            closing: v.closing.map(|(why, at)| SessionClosing { why, at }),
            assist: v.assist.map(Assist::from),
            resumes: s.resumes,
            leased_at: s.leased_at.map(time),
            bytes_up: s.bytes_up,
            bytes_down: s.bytes_down,
            client_ip: s.client_ip,
            gateway: s.gateway_name.filter(|name| !name.is_empty()),
        }
    }
}

impl Ticket {
    /// For this door of the gateway that fits best.
    pub(super) async fn at(api: &Api, t: &broker::Ticket, door: &str) -> Result<Self, Error> {
        let places = gateways::place(&api.app, &t.to).await?;
        // https becomes wss, http (tests, a proxy's inner side) ws.
        let base = places.web.first().unwrap_or(&api.app.public_url).replacen("http", "ws", 1);
        Ok(Self {
            ticket: t.secret.reveal().to_owned(),
            url: format!("{base}/gateway/v1/{door}"),
            expires_in: t.expires_in.as_secs(),
        })
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(connect))
        .routes(routes!(list))
        .routes(routes!(get_one, end))
        .routes(routes!(ticket))
        .routes(routes!(present))
        .routes(routes!(course))
}

/// Gives the officer a desktop: the one they have, else the one that is ready soonest, else a place in line.
/// A line is kept for who asks again within a minute.
#[utoipa::path(post, path = "/connect", tag = "sessions", request_body = ConnectRequest, responses(
    (status = 200, body = Connected),
    (status = 409, body = Problem, description = "S-106 open at another place, with `elsewhere`; ask again with `take_over`"),
    (status = "4XX", body = Problem),
    (status = 503, body = Problem, description = "G-504 no gateway carries connections"),
    (status = 507, body = Problem, description = "S-101 no desktop for the site")))]
async fn connect(
    State(api): State<Api>,
    Visitor(visit): Visitor,
    ValidJson(body): ValidJson<ConnectRequest>,
) -> Result<Json<Connected>, ApiError> {
    let here = Binding::Browser(visit.token_hash);
    let (view, ticket) = match body.take_over {
        false => broker::connect(&api.app, &visit.ctx, &here).await?,
        true => broker::take_over(&api.app, &visit.ctx, &here).await?,
    };
    let ticket = match &ticket {
        Some(t) => Some(Ticket::at(&api, t, "vnc").await?),
        None => None,
    };
    Ok(Json(Connected { session: view.into(), ticket }))
}

/// Sessions, newest first: an officer's own, or all of the caller's sites.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(SessionQuery), responses((status = 200, body = Page<Session>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Query(q): Query<SessionQuery>,
) -> Result<Json<Page<Session>>, ApiError> {
    let limit = q.limit.unwrap_or(200);
    if !(1..=5000).contains(&limit) {
        return Err(Error::field("limit", "X-422", "limit is from 1 to 5000").into());
    }
    let filter = Filter { live: q.live, before: q.cursor.map(Into::into), limit, ..Filter::all() };
    let (rows, total) = broker::list(&api.app, &ctx, filter).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|n| n == limit);
    let next = rows.last().filter(|_| full).map(|v| v.session.id.to_string());
    Ok(Json(Page { items: rows.into_iter().map(Session::from).collect(), total, next }))
}

/// One session.
#[utoipa::path(get, path = "/sessions/{id}", tag = "sessions", params(("id" = Uuid, Path)), responses((status = 200, body = Session), (status = "4XX", body = Problem)))]
async fn get_one(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Session>, ApiError> {
    Ok(Json(broker::get(&api.app, &ctx, id.into()).await?.into()))
}

/// How a session felt, point by point, for support.
#[utoipa::path(get, path = "/sessions/{id}/course", tag = "sessions", params(("id" = Uuid, Path)), responses((status = 200, body = SessionCourse), (status = "4XX", body = Problem)))]
async fn course(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<SessionCourse>, ApiError> {
    let (line, points) = broker::course(&api.app, &ctx, id.into()).await?;
    Ok(Json(SessionCourse {
        line: line.as_ref().map(|l| SiteLine::of(l, &api.app.policy.limits)),
        line_site: line.map(|l| l.site_code),
        points: points.into_iter().map(SessionPoint::from).collect(),
    }))
}

/// A fresh ticket for a display; the session's earlier one is void.
#[utoipa::path(post, path = "/sessions/{id}/ticket", tag = "sessions", params(("id" = Uuid, Path)), responses((status = 200, body = Ticket), (status = "4XX", body = Problem)))]
async fn ticket(
    State(api): State<Api>,
    Visitor(visit): Visitor,
    Path(id): Path<Uuid>,
) -> Result<Json<Ticket>, ApiError> {
    // Bound to this sign-in: the ticket works in this browser only.
    let ticket = broker::ticket(&api.app, &visit.ctx, id.into(), &Binding::Browser(visit.token_hash)).await?;
    Ok(Json(Ticket::at(&api, &ticket, "vnc").await?))
}

/// The officer of the session says that they are still there: the idle limit counts anew.
#[utoipa::path(post, path = "/sessions/{id}/present", tag = "sessions", params(("id" = Uuid, Path)), responses((status = 204), (status = "4XX", body = Problem)))]
async fn present(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<StatusCode, ApiError> {
    broker::present(&api.app, &ctx, id.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why a session is ended.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EndQuery {
    /// What to tell the officer, one line of at most 200 characters.
    pub reason: Option<String>,
}

/// Ends a session: the officer's own, or by support and operators. Ending one that is over does nothing.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions", params(("id" = Uuid, Path), EndQuery), responses((status = 204), (status = "4XX", body = Problem)))]
async fn end(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Query(q): Query<EndQuery>,
) -> Result<StatusCode, ApiError> {
    broker::end_because(&api.app, &ctx, id.into(), q.reason.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changed rows for `/events`, each with the code of its site.
pub(crate) async fn changed(
    app: &App,
    ctx: &Ctx,
    ids: &[Uuid],
) -> Result<Vec<(Option<String>, serde_json::Value)>, Error> {
    let ids = ids.iter().copied().map(Into::into).collect();
    let (rows, _) = broker::list(app, ctx, Filter { ids: Some(ids), ..Filter::all() }).await?;
    let row = |v: broker::View| {
        let site = v.session.site_code.clone();
        let json = serde_json::to_value(Session::from(v)).map_err(|e| Error::Internal(Box::new(e)))?;
        Ok((Some(site), json))
    };
    rows.into_iter().map(row).collect()
}
