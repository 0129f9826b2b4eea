//! `/enrolments`: computers that showed a token and wait for a person to approve them.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use super::endpoints::{Hardware, site};
use super::pools::SiteRef;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, ValidQuery};
use crate::domain::approval::{Approval, EnrolmentState};
use crate::domain::endpoint::EndpointState;
use crate::domain::time::Time;
use crate::services::enrolments;
use crate::store::enrolments as rows;

/// A computer that asked to become an endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct Enrolment {
    /// Id; also the endpoint's, once it has its certificate.
    pub id: Uuid,
    /// What it calls itself.
    pub name: String,
    /// Where it will stand.
    pub site: SiteRef,
    /// How far it is.
    pub state: EnrolmentState,
    /// Six digits that must stand on its screen, too.
    pub code: String,
    /// How its token lets computers in.
    pub approval: Approval,
    /// What the token is for.
    pub note: String,
    /// Who made the token.
    pub token_by: String,
    /// Address it comes from.
    pub address: String,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// What it says it is made of.
    pub hardware: Option<Hardware>,
    /// The board's serial number.
    pub board: Option<String>,
    /// Serial numbers of its disks.
    pub disks: Vec<String>,
    /// Permanent addresses of its network cards.
    pub macs: Vec<String>,
    /// Serial numbers its token expected when it asked.
    pub expected: Vec<String>,
    /// When it asked.
    pub asked_at: Time,
    /// When it last asked again.
    pub heard_at: Time,
    /// Until when it waits, or may come for its certificate.
    pub expires_at: Time,
    /// When somebody decided.
    pub decided_at: Option<Time>,
    /// Who.
    pub decided_by: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// When it came for its certificate.
    pub collected_at: Option<Time>,
    /// Endpoints of its site, those with one of its serial numbers first; only when one computer is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Vec<EnrolmentNeighbour>>,
}

/// An endpoint of the site, to compare the newcomer with.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrolmentNeighbour {
    /// Id.
    pub id: Uuid,
    /// What it calls itself.
    pub name: String,
    /// Whether it is heard.
    pub state: EndpointState,
    /// It has a serial number of the newcomer: perhaps that one is enrolled already.
    pub same_hardware: bool,
    /// What it is made of.
    pub hardware: Option<Hardware>,
    /// The board's serial number.
    pub board: Option<String>,
    /// Serial numbers of its disks.
    pub disks: Vec<String>,
    /// Permanent addresses of its network cards.
    pub macs: Vec<String>,
}

impl From<rows::Enrolment> for Enrolment {
    fn from(e: rows::Enrolment) -> Self {
        let said = |field: &str| e.hello.get(field).and_then(Value::as_str).map(str::to_owned);
        Self {
            id: e.id.0,
            agent_version: said("agent_version"),
            os: said("os"),
            name: e.name,
            site: site(e.site_code, e.site_name, e.district_name),
            state: e.state,
            code: e.digits,
            approval: e.approval,
            note: e.note,
            token_by: e.token_by,
            address: e.address,
            hardware: e.hardware.map(Hardware::from),
            board: e.marks.board,
            disks: e.marks.disks,
            macs: e.marks.macs,
            expected: e.expected,
            asked_at: Time::from_micros(e.asked_at),
            heard_at: Time::from_micros(e.heard_at),
            expires_at: Time::from_micros(e.expires_at),
            decided_at: e.decided_at.map(Time::from_micros),
            decided_by: e.decided_by,
            reason: e.reason,
            collected_at: e.collected_at.map(Time::from_micros),
            beside: None,
        }
    }
}

fn beside((row, others): (rows::Enrolment, Vec<rows::Neighbour>)) -> Enrolment {
    let neighbour = |n: rows::Neighbour| {
        let same_hardware = enrolments::is_same_hardware(&row, &n);
        let marks = n.known.map(|k| k.last.instance.marks).unwrap_or_default();
        EnrolmentNeighbour {
            id: n.id.0,
            name: n.name,
            state: n.state,
            same_hardware,
            hardware: n.hardware.map(Hardware::from),
            board: marks.board,
            disks: marks.disks,
            macs: marks.macs,
        }
    };
    let others = others.into_iter().map(neighbour).collect();
    Enrolment { beside: Some(others), ..row.into() }
}

/// Which computers.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentQuery {
    /// Those that were decided about, instead of those that wait.
    #[serde(default)]
    decided: bool,
}

/// An approval.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveEnrolment {
    /// The six digits that stand on the computer's screen: who approves has compared them.
    pub code: String,
}

/// A refusal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefuseEnrolment {
    /// Told on the computer's screen, and kept for the audit.
    pub reason: String,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get_one)).routes(routes!(approve)).routes(routes!(refuse))
}

/// Computers that wait for approval, the first first.
#[utoipa::path(get, path = "/enrolments", tag = "enrolments", params(EnrolmentQuery), responses((status = 200, body = Page<Enrolment>), (status = "4XX", body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(q): ValidQuery<EnrolmentQuery>,
) -> Result<Json<Page<Enrolment>>, ApiError> {
    let rows = enrolments::list(&api.app, &ctx, !q.decided).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Enrolment::from).collect())))
}

/// One computer that asked, with the endpoints of its site beside it.
#[utoipa::path(get, path = "/enrolments/{id}", tag = "enrolments", params(("id" = Uuid, Path)), responses((status = 200, body = Enrolment), (status = "4XX", body = Problem)))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<Enrolment>, ApiError> {
    Ok(Json(beside(enrolments::get(&api.app, &ctx, id.into()).await?)))
}

/// Approves a computer: it gets its certificate when it asks next.
#[utoipa::path(post, path = "/enrolments/{id}/approve", tag = "enrolments", params(("id" = Uuid, Path)), request_body = ApproveEnrolment, responses((status = 200, body = Enrolment), (status = "4XX", body = Problem)))]
async fn approve(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<ApproveEnrolment>,
) -> Result<Json<Enrolment>, ApiError> {
    Ok(Json(enrolments::approve(&api.app, &ctx, id.into(), &body.code).await?.into()))
}

/// Refuses a computer.
#[utoipa::path(post, path = "/enrolments/{id}/refuse", tag = "enrolments", params(("id" = Uuid, Path)), request_body = RefuseEnrolment, responses((status = 200, body = Enrolment), (status = "4XX", body = Problem)))]
async fn refuse(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<RefuseEnrolment>,
) -> Result<Json<Enrolment>, ApiError> {
    Ok(Json(enrolments::refuse(&api.app, &ctx, id.into(), &body.reason).await?.into()))
}
