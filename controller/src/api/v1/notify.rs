//! `/notify-rules`: who is told of incidents, and `/notify-log`: what was sent.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidJson};
use crate::domain::incident::{Cause, Severity};
use crate::domain::notify::{Channel, Occasion, When};
use crate::domain::time::Time;
use crate::services::notify::{self, NewRule};
use crate::store;

/// Who wants to be told of what.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyRuleBody {
    /// What people call it.
    pub name: String,
    /// Off: nothing is told.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The way.
    pub channel: Channel,
    /// Mail address, mobile number, or https address.
    pub target: String,
    /// The least that is told.
    pub severity: Severity,
    /// Only these causes; empty: all.
    #[serde(default)]
    pub causes: Vec<Cause>,
    /// Everything at or below this site; absent: everywhere.
    pub site_code: Option<String>,
    /// When.
    pub at_times: When,
    /// The end of an incident is told, too.
    #[serde(default = "yes")]
    pub ends: bool,
}

fn yes() -> bool {
    true
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotifyRule {
    /// Id.
    pub id: Uuid,
    /// What it says.
    #[serde(flatten)]
    pub rule: NotifyRuleBody,
}

/// A message that was sent, or is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct Notification {
    /// Id.
    pub id: Uuid,
    /// For which rule.
    pub rule: Uuid,
    /// Of which incident; absent: a try.
    pub incident: Option<Uuid>,
    /// What of it.
    pub occasion: Occasion,
    /// When it was made.
    pub created_at: Time,
    /// When it is tried next; absent when it went out or was given up.
    pub due_at: Option<Time>,
    /// How often it was tried.
    pub attempts: i64,
    /// When it went out.
    pub sent_at: Option<Time>,
    /// What was said when it did not.
    pub error: Option<String>,
}

impl From<NotifyRuleBody> for NewRule {
    fn from(b: NotifyRuleBody) -> Self {
        Self {
            name: b.name,
            enabled: b.enabled,
            channel: b.channel,
            target: b.target.trim().to_owned(),
            severity: b.severity,
            causes: b.causes,
            site_code: b.site_code.filter(|s| !s.is_empty()),
            at_times: b.at_times,
            ends: b.ends,
        }
    }
}

impl From<store::notify::Rule> for NotifyRule {
    fn from(r: store::notify::Rule) -> Self {
        Self {
            id: r.id,
            rule: NotifyRuleBody {
                name: r.name,
                enabled: r.enabled,
                channel: r.channel,
                target: r.target,
                severity: r.severity,
                causes: r.causes.0,
                site_code: r.site_code,
                at_times: r.at_times,
                ends: r.ends,
            },
        }
    }
}

impl From<store::notify::Outgoing> for Notification {
    fn from(o: store::notify::Outgoing) -> Self {
        Self {
            id: o.id,
            rule: o.rule_id,
            incident: o.incident_id,
            occasion: o.occasion,
            created_at: Time::from_micros(o.created_at),
            due_at: o.due_at.map(Time::from_micros),
            attempts: o.attempts,
            sent_at: o.sent_at.map(Time::from_micros),
            error: o.error,
        }
    }
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(change, delete))
        .routes(routes!(test))
        .routes(routes!(log))
}

/// All rules.
#[utoipa::path(get, path = "/notify-rules", tag = "notify", responses((status = 200, body = Page<NotifyRule>), (status = "4XX", body = Problem)))]
async fn list(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<NotifyRule>>, ApiError> {
    let rules = notify::rules(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rules.into_iter().map(NotifyRule::from).collect())))
}

/// Makes a rule.
#[utoipa::path(post, path = "/notify-rules", tag = "notify", request_body = NotifyRuleBody, responses((status = 201, body = NotifyRule), (status = "4XX", body = Problem)))]
async fn create(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidJson(body): ValidJson<NotifyRuleBody>,
) -> Result<(StatusCode, Json<NotifyRule>), ApiError> {
    let rule = notify::put_rule(&api.app, &ctx, None, body.into()).await?;
    Ok((StatusCode::CREATED, Json(rule.into())))
}

/// Changes a rule, as a whole.
#[utoipa::path(put, path = "/notify-rules/{id}", tag = "notify", params(("id" = Uuid, Path)), request_body = NotifyRuleBody, responses((status = 200, body = NotifyRule), (status = "4XX", body = Problem)))]
async fn change(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
    ValidJson(body): ValidJson<NotifyRuleBody>,
) -> Result<Json<NotifyRule>, ApiError> {
    Ok(Json(notify::put_rule(&api.app, &ctx, Some(id), body.into()).await?.into()))
}

/// Forgets a rule, and what is on its way by it.
#[utoipa::path(delete, path = "/notify-rules/{id}", tag = "notify", params(("id" = Uuid, Path)), responses((status = 204), (status = "4XX", body = Problem)))]
async fn delete(State(api): State<Api>, Signed(ctx): Signed, Path(id): Path<Uuid>) -> Result<StatusCode, ApiError> {
    notify::drop_rule(&api.app, &ctx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends a message that only tries the way; the log shows how it fared.
#[utoipa::path(post, path = "/notify-rules/{id}/test", tag = "notify", params(("id" = Uuid, Path)), responses((status = 202, body = Uuid), (status = "4XX", body = Problem)))]
async fn test(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<Uuid>), ApiError> {
    Ok((StatusCode::ACCEPTED, Json(notify::test(&api.app, &ctx, id).await?)))
}

/// The latest messages, newest first.
#[utoipa::path(get, path = "/notify-log", tag = "notify", responses((status = 200, body = Page<Notification>), (status = "4XX", body = Problem)))]
async fn log(State(api): State<Api>, Signed(ctx): Signed) -> Result<Json<Page<Notification>>, ApiError> {
    let rows = notify::log(&api.app, &ctx).await?;
    Ok(Json(Page::whole(rows.into_iter().map(Notification::from).collect())))
}
