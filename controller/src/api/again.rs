//! A change that met another one is repeated before its sender hears of it.
//!
//! PostgreSQL breaks off one of two transactions that wait for each other (a deadlock). A handler calls one use
//! case, and that writes in one transaction: nothing was written, so the whole request can be made again.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;

use super::extract::unread;
use super::router::BODY_LIMIT;
use crate::services::TRIES;

/// Marks the answer of a use case that met another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met;

/// Makes a change again while its answer is marked [`Met`], at most [`TRIES`] times.
pub(super) async fn again(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body: Bytes = match to_bytes(body, BODY_LIMIT).await {
        Ok(body) => body,
        Err(e) => {
            return unread(if too_long(&e) { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST })
                .into_response();
        }
    };
    let fresh = || Request::from_parts(parts.clone(), Body::from(body.clone()));
    for _ in 0..TRIES {
        let answer = next.clone().run(fresh()).await;
        if answer.extensions().get::<Met>().is_none() {
            return answer;
        }
        tracing::debug!(path = parts.uri.path(), "met another transaction, made again");
    }
    next.run(fresh()).await
}

/// Was the body longer than the limit, and not only broken off?
fn too_long(e: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(e);
    while let Some(e) = cause {
        if e.is::<LengthLimitError>() {
            return true;
        }
        cause = e.source();
    }
    false
}
