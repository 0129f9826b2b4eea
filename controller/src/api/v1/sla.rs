//! `/sites/{code}/sla`: what a carrier owes for a line.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{Signed, ValidQuery};
use crate::services::sla::{self, SlaReport};

/// Which month.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SlaQuery {
    /// Such as `2026-11`.
    #[serde(default)]
    month: String,
}

/// Which month, and in which form.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SlaExportQuery {
    /// Such as `2026-11`.
    #[serde(default)]
    month: String,
    /// `csv`, or `json`: signed.
    #[serde(default)]
    format: String,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(report)).routes(routes!(export))
}

/// Outages of a site's line in a month.
#[utoipa::path(get, path = "/sites/{code}/sla", tag = "sla", params(("code" = String, Path), SlaQuery), responses((status = 200, body = SlaReport), (status = "4XX", body = Problem)))]
async fn report(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(code): Path<String>,
    ValidQuery(q): ValidQuery<SlaQuery>,
) -> Result<Json<SlaReport>, ApiError> {
    Ok(Json(sla::report(&api.app, &ctx, &code, &q.month).await?))
}

/// The same as a file: a table, or JSON with a signature that `tram-controller sla verify` checks.
#[utoipa::path(get, path = "/sites/{code}/sla/export", tag = "sla", params(("code" = String, Path), SlaExportQuery), responses((status = 200, body = String, content_type = "text/csv"), (status = "4XX", body = Problem)))]
async fn export(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(code): Path<String>,
    ValidQuery(q): ValidQuery<SlaExportQuery>,
) -> Result<Response, ApiError> {
    let named = |kind: &str| format!("attachment; filename=\"sla-{code}-{}.{kind}\"", q.month);
    if q.format == "csv" {
        let table = sla::csv(&sla::report(&api.app, &ctx, &code, &q.month).await?);
        let headers =
            [(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, named("csv"))];
        return Ok((headers, table).into_response());
    }
    let signed = sla::export(&api.app, &ctx, &code, &q.month).await?;
    Ok(([(header::CONTENT_DISPOSITION, named("json"))], Json(signed)).into_response())
}
