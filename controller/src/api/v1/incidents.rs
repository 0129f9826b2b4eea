//! `/incidents`: what is wrong, why, and who has to act; and what is known of sites and days for judging it.

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

use super::{Page, SiteRef};
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, ValidQuery};
use crate::domain::day::Day;
use crate::domain::incident::{Cause, Confidence, Evidence, Party, Severity};
use crate::domain::time::Time;
use crate::services::{App, Ctx, Error, incidents};
use crate::store;
use crate::store::incidents::Filter;

/// Something that is wrong somewhere.
#[derive(Debug, Serialize, ToSchema)]
pub struct Incident {
    /// Id.
    pub id: Uuid,
    /// Why, as judged now.
    pub cause: Cause,
    /// Why, as judged when it was opened.
    pub first_cause: Cause,
    /// Of what: `centre`, or `carrier`, `region`, `site`, `endpoint`, `service`, `host`, `desktop` and its id after a colon.
    pub scope: String,
    /// The site it is about, if it is about one.
    pub site: Option<SiteRef>,
    /// What tells two of one scope and cause apart, such as the check or the service.
    pub detail: String,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// What speaks for it.
    pub evidence: Vec<Evidence>,
    /// What would change it.
    pub doubts: Vec<Evidence>,
    /// Computers it covers.
    pub endpoints: Vec<Uuid>,
    /// Who has to act.
    pub party: Party,
    /// It is not over.
    pub open: bool,
    /// It comes and goes.
    pub flapping: bool,
    /// Since when.
    pub opened_at: Time,
    /// Until when.
    pub over_at: Option<Time>,
    /// The incident that explains it.
    pub merged_into: Option<Uuid>,
    /// Who looks after it.
    pub acknowledged_by: Option<String>,
    /// Who handed it to its party.
    pub handed_by: Option<String>,
    /// Until when that party should answer.
    pub answer_by: Option<Time>,
}

/// An incident with all there is to know of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentDetail {
    /// Itself.
    #[serde(flatten)]
    pub incident: Incident,
    /// Sites it touches.
    pub sites: Vec<SiteRef>,
    /// What happened to it, oldest first.
    pub events: Vec<IncidentEvent>,
}

/// Something that happened to an incident.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentEvent {
    /// When.
    pub at: Time,
    /// What: `opened`, `grown`, `cause`, `flapping`, `over`, `merged`, `acknowledged`, `handed`, `note`.
    pub kind: String,
    /// Who, by sign-in name; `system` for the rules.
    pub actor: String,
    /// The particulars.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// Which incidents.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct IncidentQuery {
    /// Only open (`true`) or over ones.
    open: Option<bool>,
    /// Only with this cause.
    cause: Option<Cause>,
    /// Only those that touch this site.
    site: Option<String>,
    /// At most so many, up to 5000.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<Uuid>,
}

/// A note.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNote {
    /// What is to be remembered; at most 2000 characters.
    pub text: String,
}

/// Who is to act, and by when they should answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// Who.
    pub party: Party,
    /// Minutes until they should have answered, 1 to 20160.
    pub answer_minutes: u32,
    /// What they were told.
    #[serde(default)]
    pub text: String,
}

/// A site with open incidents.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteHealth {
    /// Code.
    pub site: String,
    /// The worst of them.
    pub severity: Severity,
    /// They themselves, oldest first.
    pub incidents: Vec<Uuid>,
}

/// What is known of a site besides its name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteFacts {
    /// Whose line it has.
    pub carrier: Option<String>,
    /// Work was announced until then: nothing is wrong that was expected.
    pub maintenance_until: Option<Time>,
    /// What for.
    #[serde(default)]
    pub maintenance_reason: String,
}

/// The same with its site.
#[derive(Debug, Serialize, ToSchema)]
pub struct KnownSite {
    /// Code.
    pub site: String,
    /// What is known.
    #[serde(flatten)]
    pub facts: SiteFacts,
}

/// A day that is not as its weekday.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalendarDay {
    /// The day.
    pub day: Day,
    /// People work on it although they usually don't; `false`: a holiday.
    pub working: bool,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

impl Incident {
    pub(super) fn new(i: store::incidents::Incident, sites: &HashMap<String, crate::domain::site::SiteRef>) -> Self {
        let site = i.scope.strip_prefix("site:").and_then(|code| sites.get(code)).cloned().map(SiteRef::from);
        Self {
            id: i.id.0,
            cause: i.cause,
            first_cause: i.first_cause,
            scope: i.scope,
            site,
            detail: i.detail,
            severity: i.severity,
            confidence: i.confidence,
            evidence: i.evidence.0,
            doubts: i.doubts.0,
            endpoints: i.endpoints.0.iter().map(|e| e.0).collect(),
            party: i.party,
            open: i.open,
            flapping: i.flapping,
            opened_at: Time::from_micros(i.opened_at),
            over_at: i.over_at.map(Time::from_micros),
            merged_into: i.merged_into,
            acknowledged_by: i.acknowledged_by,
            handed_by: i.handed_by,
            answer_by: i.answer_by.map(Time::from_micros),
        }
    }
}

impl From<store::incidents::SiteFacts> for SiteFacts {
    fn from(f: store::incidents::SiteFacts) -> Self {
        let maintenance_until = f.maintenance_until.map(Time::from_micros);
        Self { carrier: f.carrier, maintenance_until, maintenance_reason: f.maintenance_reason }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(by_site))
        .routes(routes!(get_one))
        .routes(routes!(acknowledge))
        .routes(routes!(note))
        .routes(routes!(hand_over))
        .routes(routes!(list_site_facts))
        .routes(routes!(set_site_facts))
        .routes(routes!(calendar, set_calendar))
}

async fn names(app: &App, ctx: &Ctx) -> Result<HashMap<String, crate::domain::site::SiteRef>, Error> {
    Ok(app.store.site_refs(Day::of(ctx.now)).await?)
}

/// Rows that changed, for live consoles: each once for every site it touches.
pub(crate) async fn changed(app: &App, ctx: &Ctx, ids: &[Uuid]) -> Result<Vec<(Option<String>, Value)>, Error> {
    let known = names(app, ctx).await?;
    let mut out = Vec::new();
    for id in ids {
        let Some(i) = app.store.incident((*id).into()).await? else { continue };
        let sites = app.store.incident_sites(i.id).await?;
        let row = serde_json::to_value(Incident::new(i, &known)).map_err(|e| Error::Internal(Box::new(e)))?;
        if sites.is_empty() {
            out.push((None, row));
            continue;
        }
        out.extend(sites.into_iter().map(|s| (Some(s), row.clone())));
    }
    Ok(out)
}

/// Incidents: those that are open first, the newest of each first.
#[utoipa::path(get, path = "/incidents", tag = "incidents", params(IncidentQuery), responses((status = 200, body = Page<Incident>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(q): ValidQuery<IncidentQuery>,
) -> Result<Json<Page<Incident>>, ApiError> {
    let limit = super::limit(q.limit);
    let filter =
        Filter { sites: None, site: q.site, open: q.open, cause: q.cause, after: q.cursor.map(Into::into), limit };
    let (rows, total) = incidents::list(&api.app, &ctx, &filter).await?;
    let known = names(&api.app, &ctx).await?;
    let next = super::next(&rows, limit, |r| r.id.to_string());
    Ok(Json(Page { items: rows.into_iter().map(|i| Incident::new(i, &known)).collect(), total, next }))
}

/// Sites with open incidents, for a map.
#[utoipa::path(get, path = "/incidents/by-site", tag = "incidents", responses((status = 200, body = Page<SiteHealth>), (status = "4XX", body = Problem)))]
async fn by_site(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<SiteHealth>>, ApiError> {
    let rows = incidents::by_site(&api.app, &ctx).await?;
    let items = rows.into_iter().map(|(site, (severity, ids))| SiteHealth {
        site,
        severity,
        incidents: ids.into_iter().map(|i| i.0).collect(),
    });
    Ok(Json(Page::whole(items.collect())))
}

/// One incident.
#[utoipa::path(get, path = "/incidents/{id}", tag = "incidents", params(("id" = Uuid, Path)), responses((status = 200, body = IncidentDetail), (status = "4XX", body = Problem)))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<IncidentDetail>, ApiError> {
    let (incident, sites, events) = incidents::get(&api.app, &ctx, id.into()).await?;
    let known = names(&api.app, &ctx).await?;
    let sites = sites.into_iter().map(|code| match known.get(&code) {
        Some(s) => s.clone().into(),
        None => SiteRef { name: code.clone(), code, district: None },
    });
    let events = events.into_iter().map(|e| IncidentEvent {
        at: Time::from_micros(e.at),
        kind: e.kind,
        actor: e.actor,
        detail: e.detail.0,
    });
    Ok(Json(IncidentDetail {
        incident: Incident::new(incident, &known),
        sites: sites.collect(),
        events: events.collect(),
    }))
}

/// Says that the caller looks after it.
#[utoipa::path(post, path = "/incidents/{id}/acknowledge", tag = "incidents", params(("id" = Uuid, Path)), responses((status = 200, body = Incident), (status = "4XX", body = Problem)))]
async fn acknowledge(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<Incident>, ApiError> {
    let incident = incidents::acknowledge(&api.app, &ctx, id.into()).await?;
    Ok(Json(Incident::new(incident, &names(&api.app, &ctx).await?)))
}

/// Writes a note beside it.
#[utoipa::path(post, path = "/incidents/{id}/notes", tag = "incidents", params(("id" = Uuid, Path)), request_body = NewNote, responses((status = 204), (status = "4XX", body = Problem)))]
async fn note(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<NewNote>,
) -> Result<StatusCode, ApiError> {
    incidents::note(&api.app, &ctx, id.into(), &body.text).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hands it to whoever has to act, with a clock.
#[utoipa::path(post, path = "/incidents/{id}/hand-over", tag = "incidents", params(("id" = Uuid, Path)), request_body = HandOver, responses((status = 200, body = Incident), (status = "4XX", body = Problem)))]
async fn hand_over(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<HandOver>,
) -> Result<Json<Incident>, ApiError> {
    let incident = incidents::hand_over(&api.app, &ctx, id.into(), b.party, b.answer_minutes, &b.text).await?;
    Ok(Json(Incident::new(incident, &names(&api.app, &ctx).await?)))
}

/// What is known of sites besides their names; sites of which nothing is known are left out.
#[utoipa::path(get, path = "/site-facts", tag = "incidents", responses((status = 200, body = Page<KnownSite>), (status = "4XX", body = Problem)))]
async fn list_site_facts(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<KnownSite>>, ApiError> {
    let rows = incidents::site_facts(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rows.into_iter().map(|f| KnownSite { site: f.site_code.clone(), facts: f.into() }).collect())))
}

/// Sets whose line a site has, and announces work on it.
#[utoipa::path(put, path = "/site-facts/{code}", tag = "incidents", params(("code" = String, Path)), request_body = SiteFacts, responses((status = 200, body = SiteFacts), (status = "4XX", body = Problem)))]
async fn set_site_facts(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(code): Path<String>,
    ValidJson(b): ValidJson<SiteFacts>,
) -> Result<Json<SiteFacts>, ApiError> {
    let facts = store::incidents::SiteFacts {
        site_code: code,
        carrier: b.carrier.map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()),
        maintenance_until: b.maintenance_until.map(Time::micros),
        maintenance_reason: b.maintenance_reason.trim().to_owned(),
    };
    Ok(Json(incidents::set_site_facts(&api.app, &ctx, facts).await?.into()))
}

/// Days that are not as their weekday: holidays, and made-up working days.
#[utoipa::path(get, path = "/calendar", tag = "incidents", responses((status = 200, body = Page<CalendarDay>), (status = "4XX", body = Problem)))]
async fn calendar(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<CalendarDay>>, ApiError> {
    Ok(Json(Page::whole(shown(incidents::calendar(&api.app, &ctx).await?))))
}

/// Sets all of them.
#[utoipa::path(put, path = "/calendar", tag = "incidents", request_body = Vec<CalendarDay>, responses((status = 200, body = Page<CalendarDay>), (status = "4XX", body = Problem)))]
async fn set_calendar(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(days): ValidJson<Vec<CalendarDay>>,
) -> Result<Json<Page<CalendarDay>>, ApiError> {
    let days = days.into_iter().map(|d| store::incidents::CalendarDay {
        day: d.day.to_string(),
        working: d.working,
        name: d.name.trim().to_owned(),
    });
    Ok(Json(Page::whole(shown(incidents::set_calendar(&api.app, &ctx, days.collect()).await?))))
}

fn shown(days: Vec<store::incidents::CalendarDay>) -> Vec<CalendarDay> {
    let day = |d: store::incidents::CalendarDay| {
        Some(CalendarDay { day: d.day.parse().ok()?, working: d.working, name: d.name })
    };
    days.into_iter().filter_map(day).collect()
}
