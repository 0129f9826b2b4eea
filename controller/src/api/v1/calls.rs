//! `/calls`: officers who called support from their computer.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::incidents::{Incident, NewNote};
use super::{Page, SiteRef};
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, ValidQuery};
use crate::domain::call::CallState;
use crate::domain::day::Day;
use crate::domain::incident::Party;
use crate::domain::time::Time;
use crate::services::{App, Ctx, Error, calls};
use crate::store;
use crate::store::calls::Filter;

/// An officer's call for support.
#[derive(Debug, Serialize, ToSchema)]
pub struct Call {
    /// Id.
    pub id: Uuid,
    /// What the officer reads out: six digits.
    pub code: String,
    /// How far support is.
    pub state: CallState,
    /// The computer.
    pub endpoint: Uuid,
    /// What it calls itself.
    pub endpoint_name: String,
    /// Where it stood.
    pub site: SiteRef,
    /// The session the officer was in, by what the computer says.
    pub session: Option<Uuid>,
    /// When support knew of it.
    pub opened_at: Time,
    /// When it came; absent: opened by its code, and still on its way.
    pub arrived_at: Option<Time>,
    /// When it was made, by the computer's own clock.
    pub made_at: Option<Time>,
    /// Who looks after it.
    pub taken_by: Option<String>,
    /// Who has to act.
    pub party: Option<Party>,
    /// Until when that party should answer.
    pub answer_by: Option<Time>,
    /// When it was over.
    pub over_at: Option<Time>,
    /// The incident it belongs to.
    pub incident: Option<Uuid>,
}

/// A call with all there is to know of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallDetail {
    /// Itself.
    #[serde(flatten)]
    pub call: Call,
    /// How the computer was: `verdict`, `findings`, `cause`, `phase`, `shown`, `agent_version`.
    #[schema(value_type = Option<Object>)]
    pub snapshot: Option<Value>,
    /// What happened to it, oldest first.
    pub events: Vec<CallEvent>,
    /// Incidents it belongs to or may belong to.
    pub incidents: Vec<Incident>,
}

/// Something that happened to a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallEvent {
    /// When.
    pub at: Time,
    /// What: `arrived`, `expected`, `taken`, `handed_over`, `solved`, `closed`, `attached`, `detached`, `note`.
    pub kind: String,
    /// Who, by sign-in name; `desk` for the officer.
    pub actor: String,
    /// The particulars.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// What a code finds.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallsFound {
    /// Calls with this code, the newest first.
    pub calls: Vec<Call>,
    /// Computers that would show this code now, whose call has not arrived: their line is down.
    pub expected: Vec<CallExpected>,
}

/// A computer whose call is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct CallExpected {
    /// The computer.
    pub endpoint: Uuid,
    /// What it calls itself.
    pub endpoint_name: String,
    /// Where it stands.
    pub site: SiteRef,
    /// Whether it is heard now: then the call should be here, and another computer is more likely.
    pub heard: bool,
}

/// Which calls.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CallQuery {
    /// Only those that are over (`true`), or not.
    over: Option<bool>,
    /// Only of this site.
    site: Option<String>,
    /// Only of this computer.
    endpoint: Option<Uuid>,
    /// Only of this incident.
    incident: Option<Uuid>,
    /// At most so many, up to 5000.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
}

/// A code as it was typed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CallCode {
    /// Six digits; blanks and dashes between them are ignored.
    #[serde(default)]
    code: String,
}

/// A computer's call, opened before it arrives.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectCall {
    /// The computer.
    pub endpoint: Uuid,
    /// The code that was read out.
    pub code: String,
}

/// What is done with a call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "do", deny_unknown_fields)]
pub enum CallStep {
    /// The caller looks after it.
    Take,
    /// A party has to act.
    HandOver {
        /// Who.
        party: Party,
        /// Minutes until they should have answered, 1 to 20160.
        answer_minutes: u32,
        /// What they were told.
        #[serde(default)]
        text: String,
    },
    /// It works again.
    Solve {
        /// What it was.
        #[serde(default)]
        text: String,
    },
    /// Nothing more happens to it.
    Close {
        /// Why.
        #[serde(default)]
        text: String,
    },
}

/// Which incident a call belongs to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachCall {
    /// The incident; absent: none.
    pub incident: Option<Uuid>,
}

type Sites = HashMap<String, crate::domain::site::SiteRef>;

fn site(sites: &Sites, code: String) -> SiteRef {
    match sites.get(&code) {
        Some(s) => s.clone().into(),
        None => SiteRef { name: code.clone(), code, district: None },
    }
}

impl Call {
    fn new(c: store::calls::Call, sites: &Sites) -> Self {
        Self {
            id: c.id,
            code: c.code,
            state: c.state,
            endpoint: c.endpoint_id.0,
            endpoint_name: c.endpoint_name,
            site: site(sites, c.site_code),
            session: c.session_id,
            opened_at: Time::from_micros(c.opened_at),
            arrived_at: c.arrived_at.map(Time::from_micros),
            made_at: c.made_at.map(Time::from_micros),
            taken_by: c.taken_name.or(c.taken_by),
            party: c.party.and_then(|p| p.parse().ok()),
            answer_by: c.answer_by.map(Time::from_micros),
            over_at: c.over_at.map(Time::from_micros),
            incident: c.incident_id,
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(find))
        .routes(routes!(expect))
        .routes(routes!(get_one))
        .routes(routes!(step))
        .routes(routes!(attach))
        .routes(routes!(note))
}

async fn names(app: &App, ctx: &Ctx) -> Result<Sites, Error> {
    Ok(app.store.site_refs(Day::of(ctx.now)).await?)
}

/// Calls, the newest first.
#[utoipa::path(get, path = "/calls", tag = "calls", params(CallQuery), responses((status = 200, body = Page<Call>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(q): ValidQuery<CallQuery>,
) -> Result<Json<Page<Call>>, ApiError> {
    let limit = super::limit(q.limit);
    let filter = Filter {
        site: q.site,
        endpoint: q.endpoint.map(Into::into),
        incident: q.incident.map(Into::into),
        over: q.over,
        after: q.cursor,
        limit,
        ..Filter::default()
    };
    let (rows, total) = calls::list(&api.app, &ctx, &filter).await?;
    let known = names(&api.app, &ctx).await?;
    let next = super::next(&rows, limit, |r| r.id.to_string());
    Ok(Json(Page { items: rows.into_iter().map(|c| Call::new(c, &known)).collect(), total, next }))
}

/// What a code that an officer reads out finds.
#[utoipa::path(get, path = "/calls/find", tag = "calls", params(CallCode), responses((status = 200, body = CallsFound), (status = "4XX", body = Problem)))]
async fn find(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(q): ValidQuery<CallCode>,
) -> Result<Json<CallsFound>, ApiError> {
    let found = calls::find(&api.app, &ctx, &q.code).await?;
    let known = names(&api.app, &ctx).await?;
    let mut expected = Vec::new();
    for id in found.expected {
        let Some(e) = api.app.store.endpoint(id).await.map_err(Error::from)? else { continue };
        let heard = e.state == crate::domain::endpoint::EndpointState::Online;
        let site = site(&known, e.site_code);
        expected.push(CallExpected { endpoint: id.0, endpoint_name: e.name, site, heard });
    }
    // Who is not heard can't have sent it: that one is it.
    expected.sort_by_key(|e| e.heard);
    Ok(Json(CallsFound { calls: found.calls.into_iter().map(|c| Call::new(c, &known)).collect(), expected }))
}

/// Opens the call of a computer whose line is down, by the code that was read out.
#[utoipa::path(post, path = "/calls", tag = "calls", request_body = ExpectCall, responses((status = 201, body = Call), (status = "4XX", body = Problem)))]
async fn expect(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(b): ValidJson<ExpectCall>,
) -> Result<(StatusCode, Json<Call>), ApiError> {
    let call = calls::expect(&api.app, &ctx, b.endpoint.into(), &b.code).await?;
    Ok((StatusCode::CREATED, Json(Call::new(call, &names(&api.app, &ctx).await?))))
}

/// One call.
#[utoipa::path(get, path = "/calls/{id}", tag = "calls", params(("id" = Uuid, Path)), responses((status = 200, body = CallDetail), (status = "4XX", body = Problem)))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<CallDetail>, ApiError> {
    let (mut call, events, incidents) = calls::get(&api.app, &ctx, id).await?;
    let known = names(&api.app, &ctx).await?;
    let events = events.into_iter().map(|e| CallEvent {
        at: Time::from_micros(e.at),
        kind: e.kind,
        actor: e.actor,
        detail: e.detail.0,
    });
    Ok(Json(CallDetail {
        snapshot: call.snapshot.take(),
        call: Call::new(call, &known),
        events: events.collect(),
        incidents: incidents.into_iter().map(|i| Incident::new(i, &known)).collect(),
    }))
}

/// Moves a call on.
#[utoipa::path(post, path = "/calls/{id}/step", tag = "calls", params(("id" = Uuid, Path)), request_body = CallStep, responses((status = 200, body = Call), (status = "4XX", body = Problem)))]
async fn step(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<CallStep>,
) -> Result<Json<Call>, ApiError> {
    let (step, text) = match b {
        CallStep::Take => (calls::Step::Take, String::new()),
        CallStep::HandOver { party, answer_minutes, text } => (calls::Step::HandOver(party, answer_minutes), text),
        CallStep::Solve { text } => (calls::Step::Solve, text),
        CallStep::Close { text } => (calls::Step::Close, text),
    };
    let call = calls::step(&api.app, &ctx, id, &step, &text).await?;
    Ok(Json(Call::new(call, &names(&api.app, &ctx).await?)))
}

/// Says which incident a call belongs to.
#[utoipa::path(put, path = "/calls/{id}/incident", tag = "calls", params(("id" = Uuid, Path)), request_body = AttachCall, responses((status = 200, body = Call), (status = "4XX", body = Problem)))]
async fn attach(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<AttachCall>,
) -> Result<Json<Call>, ApiError> {
    let call = calls::attach(&api.app, &ctx, id, b.incident.map(Into::into)).await?;
    Ok(Json(Call::new(call, &names(&api.app, &ctx).await?)))
}

/// Writes a note beside it.
#[utoipa::path(post, path = "/calls/{id}/notes", tag = "calls", params(("id" = Uuid, Path)), request_body = NewNote, responses((status = 204), (status = "4XX", body = Problem)))]
async fn note(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<NewNote>,
) -> Result<StatusCode, ApiError> {
    calls::note(&api.app, &ctx, id, &body.text).await?;
    Ok(StatusCode::NO_CONTENT)
}
