//! What axum refuses before a handler sees it, told as every other error is: a problem with a code.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::Problem;

/// As much of a reason is told: it may repeat what was sent.
const TOLD: usize = 300;

/// Makes a problem of a refusal of the API that is none yet: a path, a query or a body that doesn't parse, a method that isn't there.
pub(super) async fn refused(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/api/");
    let answer = next.run(request).await;
    let status = answer.status();
    let code = match status {
        StatusCode::METHOD_NOT_ALLOWED => "X-405",
        StatusCode::PAYLOAD_TOO_LARGE => "X-413",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "X-415",
        StatusCode::UNPROCESSABLE_ENTITY => "X-422",
        _ => "X-400",
    };
    let kind = answer.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let bare = kind.is_empty() || kind.starts_with(b"text/plain");
    if !ours || !status.is_client_error() || !bare {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    // Our own answer, and in memory already.
    let reason = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let reason = String::from_utf8_lossy(&reason);
    // Without axum's introduction.
    let reason = reason.split_once(": ").map_or(&*reason, |(_, reason)| reason);
    let detail = match status {
        StatusCode::METHOD_NOT_ALLOWED => "this address has no such method".to_owned(),
        StatusCode::PAYLOAD_TOO_LARGE => "the body is too large".to_owned(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "send the body as application/json".to_owned(),
        _ => format!("the request is not what is asked for here: {}", reason.chars().take(TOLD).collect::<String>()),
    };
    let mut answer = Problem::new(status, code, detail).into_response();
    if let Some(allowed) = parts.headers.get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    answer
}
