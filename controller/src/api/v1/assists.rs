//! `/sessions/{id}/assists`: support looks at an officer's session beside them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tram_wire::ids::AssistId;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use super::sessions::Ticket;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, Visitor};
use crate::domain::assist::{AssistState, Consent, Control, Question};
use crate::domain::time::Time;
use crate::services::assists;
use crate::store;

/// One look of support at a session.
#[derive(Debug, Serialize, ToSchema)]
pub struct Assist {
    /// Id.
    pub id: Uuid,
    /// Where it is.
    pub state: AssistState,
    /// Who looks, or asks to.
    pub supporter: Supporter,
    /// Why.
    pub reason: String,
    /// What the officer says first.
    pub consent: Consent,
    /// Whether keys and mouse pass.
    pub control: Control,
    /// When it was asked for.
    pub asked_at: Time,
    /// When the state it is in runs out.
    pub due_at: Time,
    /// When the officer's time to answer for control runs out.
    pub control_due_at: Option<Time>,
    /// When somebody began to look.
    pub began_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why it ended: `refused`, `expired`, `unused`, `officer`, `supporter`, `staff`, `left`, `session_over`,
    /// `not_allowed`, `longest` or `gateway_lost`.
    pub end_reason: Option<String>,
    /// Who ended it.
    pub ended_by: Option<String>,
}

/// Who looks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Supporter {
    /// Sign-in name.
    pub username: String,
    /// Name.
    pub display_name: String,
}

/// Asks to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssistRequest {
    /// Why: one line of at most 200 characters, which the officer reads.
    pub reason: String,
}

/// The officer's answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssistAnswer {
    /// Which assist is meant: an answer for one is none for the next.
    pub assist: Uuid,
    /// What was asked.
    pub question: Question,
    /// Yes or no.
    pub allow: bool,
}

impl From<store::assists::Assist> for Assist {
    fn from(a: store::assists::Assist) -> Self {
        let time = Time::from_micros;
        Self {
            id: a.id.0,
            state: a.state,
            supporter: Supporter { username: a.username, display_name: a.display_name },
            reason: a.reason,
            consent: a.consent,
            control: a.control,
            asked_at: time(a.asked_at),
            due_at: time(a.due_at),
            control_due_at: a.control_due_at.map(time),
            began_at: a.began_at.map(time),
            ended_at: a.ended_at.map(time),
            end_reason: a.end_reason,
            ended_by: a.ended_by,
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_assists, ask_assist, end_assist))
        .routes(routes!(answer_assist))
        .routes(routes!(ask_control))
        .routes(routes!(assist_ticket))
}

/// The latest 20 assists of a session, newest first.
#[utoipa::path(get, path = "/sessions/{id}/assists", tag = "sessions", params(("id" = Uuid, Path)), responses((status = 200, body = Page<Assist>), (status = "4XX", body = Problem)))]
async fn list_assists(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<Page<Assist>>, ApiError> {
    let rows = assists::list(&api.app, &ctx, id.into()).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Assist::from).collect())))
}

/// Asks to look at a session, as its policy wants it: the officer is asked, told, or neither. Nobody is put out.
#[utoipa::path(post, path = "/sessions/{id}/assists", tag = "sessions", params(("id" = Uuid, Path)), request_body = AssistRequest, responses(
    (status = 200, body = Assist),
    (status = 409, body = Problem, description = "S-110 nobody works in it; S-111 somebody assists already"),
    (status = "4XX", body = Problem)))]
async fn ask_assist(
    State(api): State<Api>,
    Visitor(visit): Visitor,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<AssistRequest>,
) -> Result<Json<Assist>, ApiError> {
    Ok(Json(assists::ask(&api.app, &visit.ctx, &visit.token_hash, id.into(), &body.reason).await?.into()))
}

/// The officer of the session says yes or no, within 30 seconds; no answer is a no.
#[utoipa::path(post, path = "/sessions/{id}/assists/answer", tag = "sessions", params(("id" = Uuid, Path)), request_body = AssistAnswer, responses(
    (status = 200, body = Assist),
    (status = 409, body = Problem, description = "S-112 it is not asked any more"),
    (status = "4XX", body = Problem)))]
async fn answer_assist(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<AssistAnswer>,
) -> Result<Json<Assist>, ApiError> {
    let which = AssistId(body.assist);
    Ok(Json(assists::answer(&api.app, &ctx, id.into(), which, body.question, body.allow).await?.into()))
}

/// Who looks asks to use keyboard and mouse, too; the officer is asked again.
#[utoipa::path(post, path = "/sessions/{id}/assists/control", tag = "sessions", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Assist),
    (status = 409, body = Problem, description = "S-113 the caller's own assist is not under way"),
    (status = "4XX", body = Problem)))]
async fn ask_control(
    State(api): State<Api>,
    Visitor(visit): Visitor,
    Path(id): Path<Uuid>,
) -> Result<Json<Assist>, ApiError> {
    Ok(Json(assists::ask_control(&api.app, &visit.ctx, &visit.token_hash, id.into()).await?.into()))
}

/// A ticket for the second display, for the browser that asked; it opens nothing else.
#[utoipa::path(post, path = "/sessions/{id}/assists/ticket", tag = "sessions", params(("id" = Uuid, Path)), responses(
    (status = 200, body = Ticket),
    (status = 409, body = Problem, description = "S-113 not allowed, or not any more"),
    (status = "4XX", body = Problem)))]
async fn assist_ticket(
    State(api): State<Api>,
    Visitor(visit): Visitor,
    Path(id): Path<Uuid>,
) -> Result<Json<Ticket>, ApiError> {
    let ticket = assists::ticket(&api.app, &visit.ctx, &visit.token_hash, id.into()).await?;
    Ok(Json(Ticket::at(&api, &ticket, "assist").await?))
}

/// Stops the session's assist: by its officer at any moment, by who asked for it, or by others of support. Stopping
/// what is over does nothing.
#[utoipa::path(delete, path = "/sessions/{id}/assists", tag = "sessions", params(("id" = Uuid, Path)), responses((status = 204), (status = "4XX", body = Problem)))]
async fn end_assist(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<StatusCode, ApiError> {
    assists::end(&api.app, &ctx, id.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}
