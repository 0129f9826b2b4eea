//! `/runbooks`: what to ask on the telephone, and what was answered.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson, ValidQuery};
use crate::domain::runbook::{RunState, Runbook};
use crate::domain::time::Time;
use crate::services::Error;
use crate::services::runbooks::{self, Subject};
use crate::store;

/// A runbook that may be used, and how it fared.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunbookInfo {
    /// It.
    #[serde(flatten)]
    pub runbook: Runbook,
    /// Its file in the installation's folder; absent: part of the program.
    pub file: Option<String>,
    /// Id of the key that signed it; absent: part of the program.
    pub key: Option<String>,
    /// How often it was used.
    pub used: i64,
    /// How often what failed was good again afterwards.
    pub fixed: i64,
}

/// A file that is not used.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunbookRefused {
    /// Its name.
    pub file: String,
    /// Why: `R-401` not signed, `R-402` by a key that is not configured, `R-403` altered, `R-404` with faults, `R-405` unreadable.
    pub code: String,
    /// The particulars.
    pub message: String,
}

/// All runbooks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Runbooks {
    /// Those that may be used, by name.
    pub items: Vec<RunbookInfo>,
    /// Files that are refused.
    pub refused: Vec<RunbookRefused>,
}

/// A use of a runbook.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunbookRun {
    /// Id.
    pub id: Uuid,
    /// The runbook as it was when this began.
    pub runbook: Runbook,
    /// How far it is. `answered`: all is answered, and what failed still fails.
    pub state: RunState,
    /// The question whose turn it is; absent: none.
    pub turn: Option<String>,
    /// Checks of the computer that failed when it began.
    pub failed: Vec<String>,
    /// What was answered, in order.
    pub answers: Vec<RunbookGiven>,
    /// Who began it.
    pub started_by: String,
    /// When.
    pub started_at: Time,
    /// When it was over: fixed, or given up.
    pub over_at: Option<Time>,
}

/// One answer that was written down.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunbookGiven {
    /// The step's name.
    pub step: String,
    /// The answer's name; empty where it is in words.
    pub answer: String,
    /// What else was said.
    pub note: String,
    /// Who wrote it down.
    pub actor: String,
    /// When.
    pub at: Time,
}

/// Whose runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    /// Of this incident.
    incident: Option<Uuid>,
    /// Or of this call.
    call: Option<Uuid>,
}

/// A runbook to use.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// Its name.
    pub runbook: String,
    /// For this incident.
    #[serde(default)]
    pub incident: Option<Uuid>,
    /// Or for this call.
    #[serde(default)]
    pub call: Option<Uuid>,
}

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAnswer {
    /// The step whose turn it is.
    pub step: String,
    /// The answer's name, where there are some to choose from.
    #[serde(default)]
    pub answer: String,
    /// What else was said; all of it where there is nothing to choose from.
    #[serde(default)]
    pub note: String,
}

impl RunbookRun {
    fn new(run: store::runbooks::Run, given: Vec<store::runbooks::Given>) -> Self {
        let so_far: Vec<_> = given.iter().map(|g| (g.step.clone(), g.answer.clone())).collect();
        let turn = run.book.0.next(&so_far).ok().flatten().map(|s| s.id.clone());
        Self {
            id: run.id,
            turn: turn.filter(|_| run.state == RunState::Running),
            runbook: run.book.0,
            state: run.state,
            failed: run.failed.0,
            answers: given
                .into_iter()
                .map(|g| RunbookGiven {
                    step: g.step,
                    answer: g.answer,
                    note: g.note,
                    actor: g.actor,
                    at: Time::from_micros(g.at),
                })
                .collect(),
            started_by: run.started_by,
            started_at: Time::from_micros(run.started_at),
            over_at: run.over_at.map(Time::from_micros),
        }
    }

    async fn read(api: &Api, run: store::runbooks::Run) -> Result<Json<Self>, ApiError> {
        let given = api.app.store.runbook_answers(run.id).await.map_err(Error::from)?;
        Ok(Json(Self::new(run, given)))
    }
}

fn subject(incident: Option<Uuid>, call: Option<Uuid>) -> Result<Subject, Error> {
    match (incident, call) {
        (Some(id), None) => Ok(Subject::Incident(id.into())),
        (None, Some(id)) => Ok(Subject::Call(id)),
        _ => Err(Error::field("incident", "R-104", "name an incident or a call, and not both")),
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(runs, start))
        .routes(routes!(answer))
        .routes(routes!(leave))
}

/// Runbooks that may be used, and files that are refused.
#[utoipa::path(get, path = "/runbooks", tag = "runbooks", responses((status = 200, body = Runbooks), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Runbooks>, ApiError> {
    let (books, refused, counts) = runbooks::list(&api.app, &ctx).await?;
    let named = |s: String| Some(s).filter(|s| !s.is_empty());
    let items = books.into_iter().map(|b| {
        let (used, fixed) = counts.get(&b.runbook.id).copied().unwrap_or_default();
        RunbookInfo { runbook: b.runbook, file: named(b.file), key: named(b.key), used, fixed }
    });
    let refused =
        refused.into_iter().map(|r| RunbookRefused { file: r.file, code: r.code.to_owned(), message: r.message });
    Ok(Json(Runbooks { items: items.collect(), refused: refused.collect() }))
}

/// Uses for an incident or a call, the newest first.
#[utoipa::path(get, path = "/runbook-runs", tag = "runbooks", params(RunQuery), responses((status = 200, body = Page<RunbookRun>), (status = "4XX", body = Problem)))]
async fn runs(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(q): ValidQuery<RunQuery>,
) -> Result<Json<Page<RunbookRun>>, ApiError> {
    ctx.require(&[crate::domain::access::Role::Operator, crate::domain::access::Role::Support])?;
    let runs = runbooks::runs(&api.app, &ctx, subject(q.incident, q.call)?).await?;
    Ok(Json(Page::whole(runs.into_iter().map(|(run, given)| RunbookRun::new(run, given)).collect())))
}

/// Begins to use a runbook.
#[utoipa::path(post, path = "/runbook-runs", tag = "runbooks", request_body = NewRun, responses((status = 201, body = RunbookRun), (status = "4XX", body = Problem)))]
async fn start(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(b): ValidJson<NewRun>,
) -> Result<(StatusCode, Json<RunbookRun>), ApiError> {
    ctx.require(&[crate::domain::access::Role::Operator, crate::domain::access::Role::Support])?;
    let run = runbooks::start(&api.app, &ctx, &b.runbook, subject(b.incident, b.call)?).await?;
    Ok((StatusCode::CREATED, Json(RunbookRun::new(run, Vec::new()))))
}

/// Writes down what was answered.
#[utoipa::path(post, path = "/runbook-runs/{id}/answers", tag = "runbooks", params(("id" = Uuid, Path)), request_body = NewAnswer, responses((status = 200, body = RunbookRun), (status = "4XX", body = Problem)))]
async fn answer(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(b): ValidJson<NewAnswer>,
) -> Result<Json<RunbookRun>, ApiError> {
    RunbookRun::read(&api, runbooks::answer(&api.app, &ctx, id, &b.step, &b.answer, &b.note).await?).await
}

/// Gives a use up.
#[utoipa::path(post, path = "/runbook-runs/{id}/leave", tag = "runbooks", params(("id" = Uuid, Path)), responses((status = 200, body = RunbookRun), (status = "4XX", body = Problem)))]
async fn leave(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<Json<RunbookRun>, ApiError> {
    RunbookRun::read(&api, runbooks::leave(&api.app, &ctx, id).await?).await
}
