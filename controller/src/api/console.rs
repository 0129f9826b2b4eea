//! The web console, built by `make console` and carried inside the binary.

use axum::body::Body;
use axum::http::{Response, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse};
use rust_embed::RustEmbed;
use tower_http::compression::predicate::{DefaultPredicate, Predicate};

#[derive(RustEmbed)]
#[folder = "console/dist"]
#[allow_missing = true]
struct Dist;

/// What is worth compressing: not events, which must leave at once.
#[derive(Clone)]
pub struct Compressible;

impl Predicate for Compressible {
    fn should_compress<B: axum::body::HttpBody>(&self, response: &Response<B>) -> bool {
        DefaultPredicate::new().should_compress(response)
    }
}

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Tram</title><h1>The console is not built</h1><p>Run <code>make console</code>, then build the controller again. The API works: <a href=/api/v1/openapi.json>openapi.json</a>.";

/// Serves a file of the console; unknown paths below `/console/` are its own pages.
pub async fn serve(uri: Uri) -> Response<Body> {
    let Some(path) = uri.path().strip_prefix("/console/") else {
        return (StatusCode::NOT_FOUND, "There is no such page.\n").into_response();
    };
    let (path, file) = match Dist::get(path) {
        Some(f) => (path, f),
        None if path.starts_with("assets/") => return StatusCode::NOT_FOUND.into_response(),
        None => match Dist::get("index.html") {
            Some(f) => ("index.html", f),
            None => return Html(NOT_BUILT).into_response(),
        },
    };
    // Built assets carry a hash in their names; the page that names them must always be fresh.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    (
        [(header::CONTENT_TYPE, file.metadata.mimetype().to_owned()), (header::CACHE_CONTROL, cache.to_owned())],
        file.data,
    )
        .into_response()
}
