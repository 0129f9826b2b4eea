//! `/support`: whom people call. For everybody, since most call who can't sign in.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::Api;

/// The helpdesk.
#[derive(Debug, Serialize, ToSchema)]
pub struct Support {
    /// Its telephone number; empty: none is configured.
    pub phone: String,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_one))
}

/// Whom to call.
#[utoipa::path(get, path = "/support", tag = "support", responses((status = 200, body = Support)))]
async fn get_one(State(api): State<Api>) -> Json<Support> {
    Json(Support { phone: api.app.support_phone.clone() })
}
