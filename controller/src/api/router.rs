//! All routes, and what applies to each of them.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use axum::{Json, Router};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{Api, again, console, events, refused, v1};
use crate::services::App;

/// Largest request body: a site CSV of a whole country fits.
pub(super) const BODY_LIMIT: usize = 8 << 20;

/// Nothing is ever loaded from another address; displays come from gateways, which stand at the controller's own name
/// (other ports) or below its cookie's domain.
fn csp(app: &App) -> HeaderValue {
    let host = app.public_url.split("://").nth(1).unwrap_or_default();
    let host = if host.starts_with('[') { "" } else { host.split(':').next().unwrap_or_default() };
    let mut gateways = String::new();
    if !host.is_empty() {
        gateways.push_str(&format!(" wss://{host}:*"));
    }
    if !app.cookie_domain.is_empty() {
        gateways.push_str(&format!(" wss://{0}:* wss://*.{0}:*", app.cookie_domain));
    }
    let all = format!(
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; connect-src 'self'{gateways}; \
         font-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    );
    HeaderValue::try_from(all).unwrap_or_else(|_| HeaderValue::from_static("default-src 'self'"))
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Tram controller",
    description = "Virtual desktops for public offices: hosts, images, pools, desktops, sessions, endpoints and sites."
))]
struct Doc;

fn v1_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Doc::openapi()).nest(
        "/api/v1",
        OpenApiRouter::new()
            .merge(v1::login::routes())
            .merge(v1::overview::routes())
            .merge(v1::hosts::routes())
            .merge(v1::gateways::routes())
            .merge(v1::updates::routes())
            .merge(v1::images::routes())
            .merge(v1::pools::routes())
            .merge(v1::desktops::routes())
            .merge(v1::sessions::routes())
            .merge(v1::assists::routes())
            .merge(v1::endpoints::routes())
            .merge(v1::enrolments::routes())
            .merge(v1::incidents::routes())
            .merge(v1::calls::routes())
            .merge(v1::time_travel::routes())
            .merge(v1::sla::routes())
            .merge(v1::runbooks::routes())
            .merge(v1::health::routes())
            .merge(v1::diagnosis::routes())
            .merge(v1::notify::routes())
            .merge(v1::sites::routes())
            .merge(v1::support::routes())
            .merge(v1::users::routes())
            .merge(v1::audit::routes())
            .merge(events::routes()),
    )
}

/// The OpenAPI 3.1 document of this version.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    with_own_ids(v1_routes().to_openapi())
}

/// Prefixes each operation's id, a handler's name, with its resource: ids must be unique in a document.
fn with_own_ids(mut doc: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for item in doc.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let resource = operation.tags.iter().flatten().next();
            if let (Some(resource), Some(id)) = (resource, &operation.operation_id) {
                operation.operation_id = Some(format!("{resource}_{id}").replace('-', "_"));
            }
        }
    }
    doc
}

/// Everything browsers and scripts reach. `gateway` is merged as it is.
pub fn router(api: Api, gateway: Router) -> Router {
    let (routes, doc) = v1_routes().split_for_parts();
    let doc = with_own_ids(doc);
    let csp = csp(&api.app);
    let fixed = |name: &'static str, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    routes
        .route("/api/v1/openapi.json", get(move || async move { Json(doc) }))
        .fallback(console::serve)
        .route("/", get(|| async { Redirect::temporary("/console/") }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|State(api): State<Api>| async move { api.metrics.render() }))
        .layer(from_fn(again::again))
        .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
        .layer(from_fn(refused::refused))
        .layer(CompressionLayer::new().compress_when(console::Compressible))
        .with_state(api)
        .merge(gateway)
        .layer(SetResponseHeaderLayer::if_not_present(header::CONTENT_SECURITY_POLICY, csp))
        .layer(fixed("x-content-type-options", "nosniff"))
        .layer(fixed("referrer-policy", "no-referrer"))
        .layer(fixed("x-frame-options", "DENY"))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        ))
        .layer(CatchPanicLayer::new())
}

async fn ready(State(api): State<Api>) -> impl IntoResponse {
    match api.app.store.ping().await {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")),
    }
}
