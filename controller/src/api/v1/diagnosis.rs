//! `/endpoints/{id}/diagnoses`, `/diagnoses` and the catalogue of what can be asked for.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tram_wire::diagnosis::{self as wire, Bundle, Fits};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson};
use crate::domain::access::Role;
use crate::domain::diagnosis::verdict::Blame;
use crate::domain::diagnosis::{DiagnosisEnd, DiagnosisState, may_agree};
use crate::domain::endpoint::Verdict;
use crate::domain::time::Time;
use crate::services::diagnosis::{self, Request};
use crate::services::{App, Ctx, Error};
use crate::store;

/// Something an endpoint can be asked to do.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiagnosisAction {
    /// Its word.
    pub name: &'static str,
    /// Several actions with one verdict.
    pub bundle: bool,
    /// `silent` reads; `active` changes something, and the officer is told; `disruptive` interrupts, and they are asked.
    pub class: &'static str,
    /// Seconds it may take.
    pub deadline_s: u16,
    /// `support` or `operator`.
    pub right: &'static str,
    /// A second person must agree.
    pub two_persons: bool,
    /// What there is to fill in.
    pub arguments: Vec<DiagnosisArgument>,
}

/// What there is to fill in.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiagnosisArgument {
    /// Its name.
    pub name: &'static str,
    /// `number`, `word`, `target` (`gateway`, `resolver`, `controller` or a host), `host`, `listed` (a host of the
    /// list of services) or `printer`.
    pub kind: &'static str,
    /// Least number.
    pub min: Option<u16>,
    /// Largest number.
    pub max: Option<u16>,
    /// The number if nothing is said.
    pub usual: Option<u16>,
    /// The words there are.
    pub words: Vec<&'static str>,
}

/// Something an endpoint was asked to do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Diagnosis {
    /// Id.
    pub id: Uuid,
    /// Where.
    pub endpoint: DiagnosedEndpoint,
    /// What: an action or a bundle.
    pub name: String,
    /// Its arguments.
    pub arguments: BTreeMap<String, String>,
    /// `silent`, `active` or `disruptive`.
    pub class: &'static str,
    /// Where it is.
    pub state: DiagnosisState,
    /// Who asked for it.
    pub asked_by: String,
    /// Why.
    pub reason: String,
    /// A second person has to agree.
    pub two_persons: bool,
    /// Who agreed.
    pub approved_by: Option<String>,
    /// When it was asked for.
    pub asked_at: Time,
    /// When the state it is in runs out.
    pub due_at: Time,
    /// When the endpoint began.
    pub began_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// How it ended.
    pub outcome: Option<DiagnosisEnd>,
    /// Why the endpoint refused it: `denied`, `replayed`, `declined`, `nobody_there` and others.
    pub code: Option<String>,
    /// Who ended it, if somebody did.
    pub ended_by: Option<String>,
    /// It is being stopped, or was.
    pub cancelled: bool,
    /// How far it is.
    pub progress: Option<String>,
    /// What the steps of a bundle come to.
    pub verdict: Option<DiagnosisVerdict>,
}

/// Where.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiagnosedEndpoint {
    /// Id.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Code of its site.
    pub site_code: String,
}

/// What the steps of a bundle come to.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiagnosisVerdict {
    /// Where the fault is.
    pub blame: Blame,
    /// Which rule held.
    pub code: String,
    /// The steps that speak for it.
    pub evidence: Vec<u16>,
}

/// One with its steps.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiagnosisDetail {
    /// What was asked for, and how it went.
    #[serde(flatten)]
    pub diagnosis: Diagnosis,
    /// The caller may agree to it.
    pub may_agree: bool,
    /// What its steps found.
    pub steps: Vec<DiagnosisStep>,
}

/// What a step found.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiagnosisStep {
    /// Its number.
    pub step: u16,
    /// What it did.
    pub action: String,
    /// To what: its arguments.
    pub arguments: BTreeMap<String, String>,
    /// How it looks; absent: it is not done.
    pub state: Option<Verdict>,
    /// In one word.
    pub text_code: Option<String>,
    /// The evidence.
    pub facts: BTreeMap<String, String>,
    /// Milliseconds it took.
    pub took_ms: Option<u32>,
    /// What it wrote.
    pub text: String,
    /// It wrote more than that.
    pub cut: bool,
}

/// Asks for one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiagnosisRequest {
    /// An action or a bundle of the catalogue.
    pub action: String,
    /// Its arguments; numbers that are left out are as usual.
    #[serde(default)]
    pub arguments: Map<String, Value>,
    /// Why: one line of at most 200 characters. May be left out for what only reads.
    #[serde(default)]
    pub reason: String,
}

/// Which to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DiagnosisFilter {
    /// Only of this endpoint.
    endpoint: Option<Uuid>,
    /// Only those that wait for a second person.
    #[serde(default)]
    waiting: bool,
}

fn class(c: wire::Class) -> &'static str {
    c.name()
}

fn right(r: wire::Right) -> &'static str {
    match r {
        wire::Right::Support => "support",
        wire::Right::Operator => "operator",
    }
}

impl From<&wire::Spec> for DiagnosisAction {
    fn from(s: &wire::Spec) -> Self {
        Self {
            name: s.name,
            bundle: false,
            class: class(s.class),
            deadline_s: s.deadline_s,
            right: right(s.right),
            two_persons: s.two_persons,
            arguments: s.arguments.iter().map(DiagnosisArgument::from).collect(),
        }
    }
}

impl From<Bundle> for DiagnosisAction {
    fn from(b: Bundle) -> Self {
        Self {
            name: b.name(),
            bundle: true,
            class: class(wire::Class::Silent),
            deadline_s: b.deadline_s(),
            right: right(wire::Right::Support),
            two_persons: false,
            arguments: Vec::new(),
        }
    }
}

impl From<&wire::Argument> for DiagnosisArgument {
    fn from(a: &wire::Argument) -> Self {
        let plain = |kind| Self { name: a.name, kind, min: None, max: None, usual: None, words: Vec::new() };
        match a.fits {
            Fits::Number { min, max, usual } => {
                Self { min: Some(min), max: Some(max), usual: Some(usual), ..plain("number") }
            }
            Fits::Word(words) => Self { words: words.to_vec(), ..plain("word") },
            Fits::Target => plain("target"),
            Fits::Host => plain("host"),
            Fits::Listed => plain("listed"),
            Fits::Printer => plain("printer"),
            Fits::Disk => plain("disk"),
            Fits::UsbPort => plain("usb_port"),
        }
    }
}

/// The arguments of an action, as texts.
fn arguments(action: &wire::Action) -> BTreeMap<String, String> {
    let Ok(Value::Object(all)) = serde_json::to_value(action) else { return BTreeMap::new() };
    let text = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    all.into_iter().filter(|(k, _)| k != "do").map(|(k, v)| (k, text(v))).collect()
}

impl From<store::diagnosis::Diagnosis> for Diagnosis {
    fn from(d: store::diagnosis::Diagnosis) -> Self {
        let time = Time::from_micros;
        let arguments = match &d.work {
            wire::Work::Action(a) => arguments(a),
            wire::Work::Bundle { .. } => BTreeMap::new(),
        };
        Self {
            id: d.id.0,
            endpoint: DiagnosedEndpoint { id: d.endpoint_id.0, name: d.endpoint_name, site_code: d.site_code },
            arguments,
            class: class(d.work.class()),
            two_persons: d.work.two_persons(),
            name: d.name,
            state: d.state,
            asked_by: d.asked_by,
            reason: d.reason,
            approved_by: d.approved_by,
            asked_at: time(d.asked_at),
            due_at: time(d.due_at),
            began_at: d.began_at.map(time),
            ended_at: d.ended_at.map(time),
            outcome: d.outcome.and_then(|o| o.parse().ok()),
            code: d.code,
            ended_by: d.ended_by,
            cancelled: d.cancelled,
            progress: d.progress,
            verdict: d.verdict.map(|v| DiagnosisVerdict { blame: v.blame, code: v.code, evidence: v.evidence }),
        }
    }
}

fn detail(ctx: &Ctx, d: store::diagnosis::Diagnosis, rows: Vec<store::diagnosis::StepRow>) -> DiagnosisDetail {
    let may_agree = d.state == DiagnosisState::Asked && may_agree(&ctx.caller, &d.work, &d.asked_by);
    let mut found: BTreeMap<i64, store::diagnosis::StepRow> = rows.into_iter().map(|r| (r.step, r)).collect();
    let step = |(n, action): (u16, wire::Action)| {
        let row = found.remove(&i64::from(n));
        let (body, text) = row.map_or((None, String::new()), |r| (r.body, r.text));
        DiagnosisStep {
            step: n,
            action: action.name().to_owned(),
            arguments: arguments(&action),
            state: body.as_ref().map(|b| b.state.into()),
            text_code: body.as_ref().map(|b| b.code.clone()),
            took_ms: body.as_ref().map(|b| b.took_ms),
            cut: body.as_ref().is_some_and(|b| b.cut),
            facts: body.map(|b| b.facts).unwrap_or_default(),
            text,
        }
    };
    let steps = (0..).zip(d.work.actions()).map(step).collect();
    DiagnosisDetail { may_agree, steps, diagnosis: d.into() }
}

/// Changed rows, for the live stream: without their texts, which who looks fetches.
///
/// # Errors
/// Those of the store.
pub async fn changed(app: &App, ids: &[Uuid]) -> Result<Vec<(Option<String>, Value)>, Error> {
    let rows = diagnosis::some(app, ids).await?;
    rows.into_iter()
        .map(|d| {
            let site = d.site_code.clone();
            let row = serde_json::to_value(Diagnosis::from(d)).map_err(|e| Error::Internal(Box::new(e)))?;
            Ok((Some(site), row))
        })
        .collect()
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(catalogue))
        .routes(routes!(list))
        .routes(routes!(ask))
        .routes(routes!(get_one))
        .routes(routes!(approve))
        .routes(routes!(deny))
        .routes(routes!(cancel))
}

/// What an office computer can be asked to do. There is nothing else: no shell, no script, no path.
#[utoipa::path(get, path = "/diagnosis-catalogue", tag = "diagnoses", responses((status = 200, body = Page<DiagnosisAction>), (status = "4XX", body = Problem)))]
async fn catalogue(Signed(ctx): Signed) -> Result<Json<Page<DiagnosisAction>>, ApiError> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let bundles = Bundle::ALL.into_iter().map(DiagnosisAction::from);
    Ok(Json(Page::whole(bundles.chain(wire::ACTIONS.iter().map(DiagnosisAction::from)).collect())))
}

/// The newest 50, of one office computer or of all in scope.
#[utoipa::path(get, path = "/diagnoses", tag = "diagnoses", params(DiagnosisFilter), responses((status = 200, body = Page<Diagnosis>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Query(f): Query<DiagnosisFilter>,
) -> Result<Json<Page<Diagnosis>>, ApiError> {
    let rows = diagnosis::list(&api.app, &ctx, f.endpoint.map(Into::into), f.waiting).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Diagnosis::from).collect())))
}

/// Asks an office computer to do something of the catalogue. Progress comes with `/events` (`diagnosis`).
#[utoipa::path(post, path = "/endpoints/{id}/diagnoses", tag = "endpoints", operation_id = "ask_diagnosis", params(("id" = Uuid, Path)), request_body = DiagnosisRequest, responses(
    (status = 200, body = Diagnosis),
    (status = 409, body = Problem, description = "Q-104 it is not linked; Q-106 asked too often; Q-107 it is busy; Q-110 somebody works and shares its line"),
    (status = "4XX", body = Problem)))]
async fn ask(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<DiagnosisRequest>,
) -> Result<Json<Diagnosis>, ApiError> {
    let request = Request { name: body.action, arguments: body.arguments, reason: body.reason };
    Ok(Json(diagnosis::ask(&api.app, &ctx, id.into(), &request).await?.into()))
}

/// One, with what its steps found so far.
#[utoipa::path(get, path = "/diagnoses/{id}", tag = "diagnoses", params(("id" = Uuid, Path)), responses((status = 200, body = DiagnosisDetail), (status = "4XX", body = Problem)))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<DiagnosisDetail>, ApiError> {
    let (d, steps) = diagnosis::get(&api.app, &ctx, id.into()).await?;
    Ok(Json(detail(&ctx, d, steps)))
}

/// Agrees, as another person than the one who asked.
#[utoipa::path(post, path = "/diagnoses/{id}/approve", tag = "diagnoses", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Diagnosis),
    (status = 403, body = Problem, description = "Q-108 who asked can't agree"),
    (status = 409, body = Problem, description = "Q-109 it does not wait any more"),
    (status = "4XX", body = Problem)))]
async fn approve(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<Diagnosis>, ApiError> {
    Ok(Json(diagnosis::approve(&api.app, &ctx, id.into()).await?.into()))
}

/// Does not agree.
#[utoipa::path(post, path = "/diagnoses/{id}/deny", tag = "diagnoses", params(("id" = Uuid, Path)), responses((status = 200, body = Diagnosis), (status = "4XX", body = Problem)))]
async fn deny(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<Json<Diagnosis>, ApiError> {
    Ok(Json(diagnosis::deny(&api.app, &ctx, id.into()).await?.into()))
}

/// Stops it, wherever it is; what runs at the computer is killed. Stopping what is over does nothing.
#[utoipa::path(post, path = "/diagnoses/{id}/cancel", tag = "diagnoses", params(("id" = Uuid, Path)), responses((status = 200, body = Diagnosis), (status = "4XX", body = Problem)))]
async fn cancel(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<Diagnosis>, ApiError> {
    Ok(Json(diagnosis::cancel(&api.app, &ctx, id.into()).await?.into()))
}
