//! Endpoints.

use utoipa_axum::router::OpenApiRouter;

use crate::api::Api;

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
}

/// Changed rows for `/events`, each with the code of its site.
pub(crate) async fn changed(
    _app: &crate::services::App,
    _ctx: &crate::services::Ctx,
    _ids: &[uuid::Uuid],
) -> Result<Vec<(Option<String>, serde_json::Value)>, crate::services::Error> {
    Ok(Vec::new())
}
