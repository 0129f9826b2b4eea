//! Errors as people and programs read them: `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::again::Met;
use crate::domain::ticket::Place;
use crate::domain::time::Time;
use crate::services::{CONTENDED, Error};

/// A problem: what happened, what to do, and a short code to search for.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code tells them apart.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The HTTP status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Short code, such as `P-101`.
    pub code: &'static str,
    /// What happened and what to do.
    pub detail: String,
    /// Every fault of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemFault>,
    /// When to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Tries left before the account is locked (`A-101`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,
    /// Where the session is open (`S-106`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<OpenPlace>,
}

/// Where a session is open. Whose address it has is nobody's business.
#[derive(Debug, Serialize, ToSchema)]
pub struct OpenPlace {
    /// A browser or an endpoint.
    pub kind: Place,
    /// The endpoint's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Since when.
    pub since: Time,
}

/// One fault of an input.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemFault {
    /// Field name, or line number of a file.
    pub at: String,
    /// Short code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
}

/// The error type of every handler.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl<E: Into<Error>> From<E> for ApiError {
    fn from(e: E) -> Self {
        Self(e.into())
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match &self.0 {
            Error::NotFound(..) => StatusCode::NOT_FOUND,
            Error::Conflict(..) | Error::Elsewhere(_) => StatusCode::CONFLICT,
            Error::Invalid(..) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Unauthenticated(..) | Error::WrongPassword { .. } => StatusCode::UNAUTHORIZED,
            Error::Locked(..) => StatusCode::LOCKED,
            Error::Forbidden(..) => StatusCode::FORBIDDEN,
            Error::Capacity(..) => StatusCode::INSUFFICIENT_STORAGE,
            Error::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if let Error::Internal(source) = &self.0 {
            tracing::error!(error = %source, "request failed");
        }
        let mut problem = Problem::new(status, self.0.code(), self.0.to_string());
        match &self.0 {
            Error::Invalid(_, _, faults) => {
                problem.errors = faults
                    .iter()
                    .map(|f| ProblemFault { at: f.at.clone(), code: f.code, message: f.message.clone() })
                    .collect();
            }
            Error::Locked(_, _, until) => problem.until = Some(*until),
            Error::WrongPassword { remaining } => problem.remaining = Some(*remaining),
            Error::Elsewhere(e) => {
                let place = OpenPlace { kind: e.place, name: e.name.clone(), since: e.since };
                problem.elsewhere = Some(place);
            }
            _ => {}
        }
        let mut response = problem.into_response();
        if self.0.code() == CONTENDED {
            response.extensions_mut().insert(Met);
        }
        response
    }
}

impl Problem {
    /// A problem with nothing but a status, a code and a sentence.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            errors: vec![],
            until: None,
            remaining: None,
            elsewhere: None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
        }
        response
    }
}
