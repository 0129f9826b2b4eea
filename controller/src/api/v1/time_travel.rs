//! `/time-travel`: what was known at a moment, and what came to be known of it later.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tram_wire::check::{CheckState, Finding};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::incidents::Incident;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidQuery};
use crate::domain::day::Day;
use crate::domain::incident::{Cause, Confidence, Evidence, Severity};
use crate::domain::then::{Presence, Truth};
use crate::domain::time::Time;
use crate::services::time_travel::{self, Place};
use crate::services::{Error, time_travel::ComputerThen};
use crate::store::then::Judged;

/// Where and when somebody looks back.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ThenQuery {
    /// The moment; absent: now.
    at: Option<Time>,
    /// A site.
    site: Option<String>,
    /// Or a computer.
    endpoint: Option<Uuid>,
    /// Or an incident: the first of its sites.
    incident: Option<Uuid>,
}

/// A moment, as it was known then and as it is known now.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThenMoment {
    /// When.
    pub at: Time,
    /// The site.
    pub site: String,
    /// Its computers.
    pub computers: Vec<ThenComputer>,
    /// Its incidents.
    pub incidents: Vec<ThenIncident>,
    /// Moments half a day around at which something became known, in order.
    pub stops: Vec<ThenStop>,
}

/// A computer at that moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThenComputer {
    /// Which.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// As it was known then.
    pub then: Presence,
    /// Since when.
    pub since: Option<Time>,
    /// As is known now.
    pub truth: Truth,
    /// When that became known, if it was later.
    pub learnt_at: Option<Time>,
    /// What its checks complained of, as known then.
    pub findings_then: Vec<ThenFinding>,
    /// The same as known now.
    pub findings_now: Vec<ThenFinding>,
}

/// What a check complained of.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ThenFinding {
    /// Which check.
    pub check: String,
    /// `warn` or `crit`.
    pub state: String,
    /// Which sentence.
    pub code: String,
    /// Its blanks.
    pub params: std::collections::BTreeMap<String, String>,
}

/// An incident at that moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThenIncident {
    /// As it is now.
    pub incident: Incident,
    /// How it was judged then; absent: nobody knew of it yet.
    pub then: Option<ThenJudgement>,
    /// How it is judged now.
    pub now: Option<ThenJudgement>,
}

/// A judgement.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThenJudgement {
    /// From then on.
    pub at: Time,
    /// Why.
    pub cause: Cause,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// What spoke for it.
    pub evidence: Vec<Evidence>,
    /// What would have changed it.
    pub doubts: Vec<Evidence>,
}

/// A moment at which something became known.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThenStop {
    /// When.
    pub at: Time,
    /// What: `endpoint.` and an event, or `incident.` and a cause or `over`.
    pub what: String,
}

impl From<Finding> for ThenFinding {
    fn from(f: Finding) -> Self {
        let state = if f.state == CheckState::Crit { "crit" } else { "warn" };
        Self { check: f.check, state: state.to_owned(), code: f.code, params: f.params }
    }
}

impl From<ComputerThen> for ThenComputer {
    fn from(c: ComputerThen) -> Self {
        Self {
            id: c.id.0,
            name: c.name,
            then: c.then,
            since: c.since,
            truth: c.truth,
            learnt_at: c.learnt_at,
            findings_then: c.findings_then.into_iter().map(Into::into).collect(),
            findings_now: c.findings_now.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Judged> for ThenJudgement {
    fn from(j: Judged) -> Self {
        Self {
            at: Time::from_micros(j.at),
            cause: j.cause,
            severity: j.severity,
            confidence: j.confidence,
            evidence: j.evidence.0,
            doubts: j.doubts.0,
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(look))
}

/// Looks back at a site, a computer or an incident.
#[utoipa::path(get, path = "/time-travel", tag = "time_travel", params(ThenQuery), responses((status = 200, body = ThenMoment), (status = "4XX", body = Problem)))]
async fn look(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(q): ValidQuery<ThenQuery>,
) -> Result<Json<ThenMoment>, ApiError> {
    let place = match (q.site, q.endpoint, q.incident) {
        (Some(code), None, None) => Place::Site(code),
        (None, Some(id), None) => Place::Endpoint(id.into()),
        (None, None, Some(id)) => Place::Incident(id.into()),
        _ => return Err(Error::field("site", "I-108", "name a site, a computer or an incident").into()),
    };
    let m = time_travel::look(&api.app, &ctx, &place, q.at.unwrap_or(ctx.now)).await?;
    let known = api.app.store.site_refs(Day::of(ctx.now)).await.map_err(Error::from)?;
    let incidents = m.incidents.into_iter().map(|i| ThenIncident {
        incident: Incident::new(i.incident, &known),
        then: i.then.map(Into::into),
        now: i.now.map(Into::into),
    });
    Ok(Json(ThenMoment {
        at: m.at,
        site: m.site,
        incidents: incidents.collect(),
        computers: m.computers.into_iter().map(Into::into).collect(),
        stops: m.stops.into_iter().map(|(at, what)| ThenStop { at, what }).collect(),
    }))
}
