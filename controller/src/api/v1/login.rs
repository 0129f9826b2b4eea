//! Login.

use utoipa_axum::router::OpenApiRouter;

use crate::api::Api;

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
}
