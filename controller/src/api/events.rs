//! `/events`: live changes, one stream a console.

use utoipa_axum::router::OpenApiRouter;

use super::Api;

/// Reads changed rows once and hands them to every open console.
#[derive(Default)]
pub struct Hub;

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
}
