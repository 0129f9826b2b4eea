//! `/endpoints` and `/endpoint-tokens`: office computers that run the agent.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tram_wire::check::Finding;
use tram_wire::heartbeat;
use tram_wire::ids::EndpointId;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use super::endpoint_copies::{self, EndpointCopies};
use super::pools::SiteRef;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::Signed;
use crate::domain::approval::Approval;
use crate::domain::day::Day;
use crate::domain::endpoint::{EndpointState, LinkWay, Verdict, reasons};
use crate::domain::site::Level;
use crate::domain::time::Time;
use crate::services::{App, Ctx, Error, endpoints, sites};
use crate::store::endpoints::{self as rows, Filter};

/// Most rows of one page.
const MAX_PAGE: i64 = 5000;

/// An office computer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Endpoint {
    /// Id, also the subject of its certificate.
    pub id: Uuid,
    /// What it calls itself.
    pub name: String,
    /// Where it stands.
    pub site: SiteRef,
    /// Whether it is heard.
    pub state: EndpointState,
    /// How it is; `unknown` while it isn't heard.
    pub verdict: Verdict,
    /// Why, worst first.
    pub verdict_reasons: Vec<Reason>,
    /// When it was last heard.
    pub last_seen_at: Option<Time>,
    /// When it enrolled.
    pub enrolled_at: Time,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// When its certificate ends.
    pub cert_not_after: Time,
    /// Where its private key is: `tpm` or `file`; absent: its agent says nothing of it.
    pub key: Option<String>,
    /// What it is made of.
    pub hardware: Option<Hardware>,
    /// How it feels.
    pub vitals: Option<Vitals>,
    /// How its network is.
    pub network: Option<Network>,
    /// What carries its link, or did the last time: `poll` where no WebSocket gets through, `signed` where somebody opens TLS on the way.
    pub link: LinkWay,
    /// Its line is paid by the byte: it says less, and a live view must be confirmed.
    pub metered: bool,
    /// What is said of that of it alone; null: as its site.
    pub metered_here: Option<bool>,
    /// Since when several computers are taken to show its identity; reports are kept apart meanwhile.
    pub quarantined_at: Option<Time>,
    /// Who they are; only when one endpoint is asked for, and only while that isn't settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<EndpointCopies>,
    /// What happened to it, newest first; only when one endpoint is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Vec<Event>>,
}

/// Why a verdict is what it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reason {
    /// Which check.
    pub check: String,
    /// How bad.
    pub state: Verdict,
    /// Which sentence says it.
    pub text_code: String,
    /// The blanks of the sentence.
    pub params: BTreeMap<String, String>,
}

/// What an endpoint is made of.
#[derive(Debug, Serialize, ToSchema)]
pub struct Hardware {
    /// Maker.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware version.
    pub firmware: Option<String>,
    /// Processor.
    pub cpu_model: Option<String>,
    /// Logical processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// Disks.
    pub disks: Vec<Disk>,
}

/// A disk.
#[derive(Debug, Serialize, ToSchema)]
pub struct Disk {
    /// Kernel name.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Size.
    pub size_gib: u64,
}

/// How an endpoint feels.
#[derive(Debug, Serialize, ToSchema)]
pub struct Vitals {
    /// Processor use, 0 to 100.
    pub cpu_percent: f32,
    /// Memory in use.
    pub memory_used_mib: u64,
    /// Memory.
    pub memory_total_mib: u64,
    /// One-minute load average.
    pub load1: f32,
    /// Sensors.
    pub temperatures: Vec<Temperature>,
    /// Local file systems.
    pub volumes: Vec<Volume>,
    /// Since boot.
    pub uptime_s: u64,
}

/// A temperature sensor.
#[derive(Debug, Serialize, ToSchema)]
pub struct Temperature {
    /// Which.
    pub label: String,
    /// Degrees Celsius.
    pub celsius: f32,
}

/// A local file system.
#[derive(Debug, Serialize, ToSchema)]
pub struct Volume {
    /// Where it is mounted.
    pub mount: String,
    /// Size.
    pub total_mib: u64,
    /// Free.
    pub free_mib: u64,
    /// Mounted read-only.
    pub read_only: bool,
}

/// How an endpoint's network is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Network {
    /// Interfaces.
    pub interfaces: Vec<Interface>,
    /// Its router.
    pub gateway: Option<String>,
    /// Round trip to its router.
    pub gateway_rtt_ms: Option<f32>,
    /// Time of a DNS answer.
    pub dns_ms: Option<f32>,
    /// Round trip to the controller.
    pub controller_rtt_ms: Option<f32>,
    /// Its clock less the controller's.
    pub skew_ms: Option<i64>,
}

/// A network interface.
#[derive(Debug, Serialize, ToSchema)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    pub mac: Option<String>,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Whether it has a link.
    pub up: bool,
    /// Link speed, Mbit/s.
    pub speed_mbps: Option<u32>,
    /// `full` or `half`.
    pub duplex: Option<String>,
    /// Receive and transmit errors since boot.
    pub errors: u64,
}

/// Something that happened to an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// When.
    pub at: Time,
    /// What, in one word.
    pub kind: String,
    /// The particulars.
    pub detail: String,
}

/// An enrolment token that still works.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Id.
    pub id: Uuid,
    /// Where its endpoints will stand.
    pub site: SiteRef,
    /// Endpoints it was made for.
    pub count: i64,
    /// Endpoints it may still enrol.
    pub uses_left: i64,
    /// How it lets computers in.
    pub approval: Approval,
    /// Serial numbers it still expects.
    pub serials: Vec<String>,
    /// What it is for.
    pub note: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Time,
    /// Until when it works.
    pub expires_at: Time,
}

/// A wish for an enrolment token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// Where its endpoints will stand.
    pub site_code: String,
    /// How many endpoints it may enrol; 1 if absent.
    #[serde(default = "one")]
    pub count: i64,
    /// How long it works; 72 hours if absent.
    #[serde(default = "three_days")]
    pub ttl_hours: i64,
    /// What it is for.
    #[serde(default)]
    pub note: Option<String>,
    /// How it lets computers in; `auto` if absent.
    #[serde(default)]
    pub approval: Approval,
    /// Serial numbers it expects, for the approval `serial`: of the computer, its board, a disk or a network card.
    #[serde(default)]
    pub serials: Vec<String>,
}

fn one() -> i64 {
    1
}

fn three_days() -> i64 {
    72
}

/// An enrolment token, shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenCreated {
    /// Give it to `tram-agent enrol`.
    pub token: String,
    /// Where its endpoints will stand.
    pub site: SiteRef,
    /// Where agents reach the controller.
    pub address: String,
    /// What the QR code says: address and token, for `tram-agent enrol --code`.
    pub code: String,
    /// The QR code: a line of `#` and `.` for each row, without the light frame.
    pub qr: Vec<String>,
    /// Until when it works.
    pub expires_at: Time,
}

/// Why an endpoint is withdrawn.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// For the audit and for colleagues.
    pub reason: String,
}

/// Which endpoints to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EndpointQuery {
    /// Only of this site, or of sites directly below it.
    site: Option<String>,
    /// Only in this state.
    state: Option<EndpointState>,
    /// Only those whose worst check is this; `unknown` has those that aren't heard.
    verdict: Option<Verdict>,
    /// Only names or site codes containing this.
    q: Option<String>,
    /// At most so many, up to 5000.
    limit: Option<i64>,
    /// Where the last page ended.
    cursor: Option<Uuid>,
}

pub(super) fn site(code: String, name: Option<String>, district: Option<String>) -> SiteRef {
    SiteRef { name: name.unwrap_or_else(|| code.clone()), code, district }
}

/// What was kept is what an endpoint said, in whichever version it said it: read what can be read.
fn read<T: serde::de::DeserializeOwned>(value: Option<Value>) -> Option<T> {
    serde_json::from_value(value?).ok()
}

impl From<rows::Endpoint> for Endpoint {
    fn from(e: rows::Endpoint) -> Self {
        let findings: Vec<Finding> = read(Some(e.findings)).unwrap_or_default();
        let heard = e.state == EndpointState::Online;
        let said = |field: &str| e.hello.get(field).and_then(Value::as_str).map(str::to_owned);
        Self {
            id: e.id.0,
            agent_version: said("agent_version"),
            os: said("os"),
            key: said("key").filter(|k| ["tpm", "file"].contains(&k.as_str())),
            name: e.name,
            site: site(e.site_code, e.site_name, e.district_name),
            state: e.state,
            verdict: if heard { e.verdict } else { Verdict::Unknown },
            verdict_reasons: if heard {
                reasons(&findings).into_iter().map(Reason::from).collect()
            } else {
                Vec::new()
            },
            last_seen_at: e.last_seen_at.map(Time::from_micros),
            enrolled_at: Time::from_micros(e.enrolled_at),
            cert_not_after: Time::from_micros(e.cert_not_after),
            hardware: read(e.hardware).map(|h: heartbeat::Hardware| h.into()),
            vitals: read(e.vitals).map(|v: heartbeat::Vitals| v.into()),
            network: read(e.network)
                .map(|n: heartbeat::Network| Network { skew_ms: e.skew_ms.or(n.skew_ms), ..n.into() }),
            link: e.linked_by,
            metered: e.metered,
            metered_here: e.metered_here,
            quarantined_at: e.quarantined_at.map(Time::from_micros),
            copies: None,
            history: None,
        }
    }
}

impl From<&Finding> for Reason {
    fn from(f: &Finding) -> Self {
        Self { check: f.check.clone(), state: f.state.into(), text_code: f.code.clone(), params: f.params.clone() }
    }
}

impl From<heartbeat::Hardware> for Hardware {
    fn from(h: heartbeat::Hardware) -> Self {
        let disk = |d: heartbeat::Disk| Disk { name: d.name, model: d.model, size_gib: d.size_mib.div_ceil(1024) };
        Self {
            vendor: h.vendor,
            model: h.model,
            serial: h.serial,
            firmware: h.firmware,
            cpu_model: h.cpu_model,
            cpus: h.cpus,
            memory_mib: h.memory_mib,
            disks: h.disks.into_iter().map(disk).collect(),
        }
    }
}

impl From<heartbeat::Vitals> for Vitals {
    fn from(v: heartbeat::Vitals) -> Self {
        let sensor = |t: heartbeat::Temperature| Temperature { label: t.sensor, celsius: t.celsius };
        let volume = |v: heartbeat::Volume| Volume {
            mount: v.mount,
            total_mib: v.total_mib,
            free_mib: v.free_mib,
            read_only: v.read_only,
        };
        Self {
            cpu_percent: v.cpu_percent,
            memory_used_mib: v.memory_used_mib,
            memory_total_mib: v.memory_total_mib,
            load1: v.load1,
            temperatures: v.temperatures.into_iter().map(sensor).collect(),
            volumes: v.volumes.into_iter().map(volume).collect(),
            uptime_s: v.uptime_s,
        }
    }
}

impl From<heartbeat::Network> for Network {
    fn from(n: heartbeat::Network) -> Self {
        let interface = |i: heartbeat::Interface| Interface {
            name: i.name,
            mac: i.mac,
            addresses: i.addresses,
            up: i.up,
            speed_mbps: i.speed_mbit,
            duplex: i.duplex,
            errors: i.errors,
        };
        Self {
            interfaces: n.interfaces.into_iter().map(interface).collect(),
            gateway: n.gateway,
            gateway_rtt_ms: n.gateway_rtt_ms,
            dns_ms: n.dns_ms,
            controller_rtt_ms: n.controller_rtt_ms,
            skew_ms: n.skew_ms,
        }
    }
}

impl From<rows::Token> for Token {
    fn from(t: rows::Token) -> Self {
        Self {
            id: t.id,
            site: site(t.site_code, t.site_name, t.district_name),
            count: t.uses,
            uses_left: t.uses_left,
            approval: t.approval,
            serials: t.serials,
            note: t.note,
            created_by: t.created_by,
            created_at: Time::from_micros(t.created_at),
            expires_at: Time::from_micros(t.expires_at),
        }
    }
}

pub(super) fn with_history((row, events): (rows::Endpoint, Vec<rows::Event>)) -> Endpoint {
    let event = |e: rows::Event| Event { at: Time::from_micros(e.at), kind: e.kind, detail: e.detail };
    Endpoint { history: Some(events.into_iter().map(event).collect()), ..row.into() }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one))
        .routes(routes!(revoke))
        .routes(routes!(set_metered))
        .merge(endpoint_copies::routes())
        .routes(routes!(list_tokens, create_token))
}

/// Changed rows for `/events`, each with the code of its site.
pub(crate) async fn changed(app: &App, _: &Ctx, ids: &[Uuid]) -> Result<Vec<(Option<String>, Value)>, Error> {
    let mut out = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(row) = app.store.endpoint(EndpointId(*id)).await? {
            let code = row.site_code.clone();
            let value = serde_json::to_value(Endpoint::from(row)).map_err(|e| Error::Internal(Box::new(e)))?;
            out.push((Some(code), value));
        }
    }
    Ok(out)
}

/// Office computers, by name.
#[utoipa::path(get, path = "/endpoints", tag = "endpoints", params(EndpointQuery), responses((status = 200, body = Page<Endpoint>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Query(q): Query<EndpointQuery>,
) -> Result<Json<Page<Endpoint>>, ApiError> {
    let limit = q.limit.unwrap_or(1000).clamp(1, MAX_PAGE);
    let text = q.q.map(|t| t.chars().take(100).collect());
    let after = q.cursor.map(EndpointId);
    let filter = Filter { site: q.site, state: q.state, verdict: q.verdict, text, after, limit, sites: None };
    let (rows, total) = endpoints::list(&api.app, &ctx, &filter).await?;
    let full = i64::try_from(rows.len()).is_ok_and(|n| n == limit);
    let next = rows.last().filter(|_| full).map(|e| e.id.to_string());
    Ok(Json(Page { items: rows.into_iter().map(Endpoint::from).collect(), total, next }))
}

/// One office computer, with its history.
#[utoipa::path(get, path = "/endpoints/{id}", tag = "endpoints", params(("id" = Uuid, Path)), responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<Endpoint>, ApiError> {
    let found = endpoints::get(&api.app, &ctx, id.into()).await?;
    let copies = EndpointCopies::of(&api.app, &found.0).await?;
    Ok(Json(Endpoint { copies, ..with_history(found) }))
}

/// Whether the line of a computer is paid by the byte.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointMetered {
    /// It is, or is not, whatever is said of its site; null: as its site.
    pub metered: Option<bool>,
}

/// Says whether the line of an office computer is paid by the byte; it is told within seconds.
#[utoipa::path(put, path = "/endpoints/{id}/metered", tag = "endpoints", params(("id" = Uuid, Path)), request_body = EndpointMetered, responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)))]
async fn set_metered(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<EndpointMetered>,
) -> Result<Json<Endpoint>, ApiError> {
    Ok(Json(with_history(endpoints::set_metered(&api.app, &ctx, id.into(), body.metered).await?)))
}

/// Withdraws an office computer for good; its link is cut within two seconds.
#[utoipa::path(post, path = "/endpoints/{id}/revoke", tag = "endpoints", params(("id" = Uuid, Path)), request_body = RevokeRequest, responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)))]
async fn revoke(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    Json(body): Json<RevokeRequest>,
) -> Result<Json<Endpoint>, ApiError> {
    Ok(Json(with_history(endpoints::revoke(&api.app, &ctx, id.into(), &body.reason).await?)))
}

/// Enrolment tokens that still work.
#[utoipa::path(get, path = "/endpoint-tokens", tag = "endpoints", responses((status = 200, body = Page<Token>), (status = "4XX", body = Problem)))]
async fn list_tokens(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<Token>>, ApiError> {
    let tokens = endpoints::tokens(&api.app, &ctx).await?;
    Ok(Json(Page::whole(tokens.into_iter().map(Token::from).collect())))
}

/// Makes an enrolment token.
#[utoipa::path(post, path = "/endpoint-tokens", tag = "endpoints", request_body = TokenCreate, responses((status = 200, body = TokenCreated), (status = "4XX", body = Problem)))]
async fn create_token(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Json(body): Json<TokenCreate>,
) -> Result<Json<TokenCreated>, ApiError> {
    let request = endpoints::TokenRequest {
        site_code: body.site_code,
        count: body.count,
        ttl_hours: body.ttl_hours,
        note: body.note.unwrap_or_default(),
        approval: body.approval,
        serials: body.serials,
    };
    let (token, expires_at) = endpoints::create_token(&api.app, &ctx, &request).await?;
    let stands = sites::get(&api.app, &ctx, &request.site_code, Day::of(ctx.now)).await?;
    let (code, qr) = endpoints::enrol_code(&api.app, &token)?;
    let district = stands.parent.filter(|(_, _, level)| *level == Level::District).map(|(_, name, _)| name);
    let site = site(request.site_code, Some(stands.site.name), district);
    Ok(Json(TokenCreated { token, site, address: api.app.agent_url.clone(), code, qr: qr.rows(), expires_at }))
}
