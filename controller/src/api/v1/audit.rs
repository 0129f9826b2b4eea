//! `/audit`: who did what, when, from where.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidQuery};
use crate::domain::time::Time;
use crate::services::audit;
use crate::store;
use crate::store::audit::AuditFilter;

/// One act.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditRow {
    /// When.
    pub at: Time,
    /// Who, by sign-in name.
    pub actor: String,
    /// Their role then; empty for a sign-in that failed.
    pub role: String,
    /// What, as `resource.verb`.
    pub action: String,
    /// To what.
    pub target: String,
    /// The particulars.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
    /// Address the request came from; empty for the controller itself and its command line.
    pub ip: String,
    /// `ok`, or the code of the refusal.
    pub result: String,
}

impl From<store::audit::AuditRow> for AuditRow {
    fn from(r: store::audit::AuditRow) -> Self {
        Self {
            at: Time::from_micros(r.at),
            actor: r.actor,
            role: r.role,
            action: r.action,
            target: r.target,
            detail: r.detail.0,
            ip: r.ip,
            result: r.result,
        }
    }
}

/// Which rows.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Part of the actor, action, target, address or result.
    #[serde(default)]
    q: String,
    /// At most so many, up to 5000.
    limit: Option<i64>,
    /// `next` of the page before.
    cursor: Option<i64>,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// The audit, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery), responses(
    (status = 200, body = Page<AuditRow>), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(query): ValidQuery<AuditQuery>,
) -> Result<Json<Page<AuditRow>>, ApiError> {
    let limit = super::limit(query.limit);
    let filter = AuditFilter { text: query.q, before: query.cursor, limit };
    let (rows, total) = audit::list(&api.app, &ctx, &filter).await?;
    let next = super::next(&rows, limit, |r| r.id.to_string());
    Ok(Json(Page { items: rows.into_iter().map(AuditRow::from).collect(), total, next }))
}
