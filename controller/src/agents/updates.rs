//! What updaters of endpoints ask: what to run, and the program itself. Both proved by the device certificate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use metrics::counter;
use rustls::pki_types::CertificateDer;
use tram_wire::update::{Ask, RELEASE_PATH, UPDATE_PATH, is_sha256};

use super::Agents;
use super::accept::{json, read, status};
use super::limit::Kind;
use crate::services::{Error, endpoints, updates};
use crate::store::endpoints::Endpoint;

/// The program that is fetched now, by its SHA-256: many fetch the same one.
pub(super) type Programs = Arc<Mutex<Option<(String, Bytes)>>>;

/// Whether this is for here.
pub(super) fn is_for(method: &Method, path: &str) -> bool {
    (method, path) == (&Method::POST, UPDATE_PATH) || (method == Method::GET && path.starts_with(RELEASE_PATH))
}

pub(super) async fn answer(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let at = match admit(agents, certificate, peer).await {
        Ok(at) => at,
        Err(code) => return status(code),
    };
    let path = request.uri().path();
    let response = match path.strip_prefix(RELEASE_PATH) {
        Some(sha256) => {
            let range = request.headers().get(header::RANGE).and_then(|v| v.to_str().ok());
            program(agents, sha256, range).await
        }
        None => tell(agents, &at, request).await,
    };
    response.unwrap_or_else(|e| {
        if let Error::Internal(source) = &e {
            tracing::error!(error = %source, "an updater's request failed");
        }
        status(match e {
            Error::NotFound(..) => StatusCode::NOT_FOUND,
            Error::Invalid(..) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        })
    })
}

async fn admit(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    peer: SocketAddr,
) -> Result<Endpoint, StatusCode> {
    let certificate = certificate.ok_or(StatusCode::FORBIDDEN)?;
    let id = agents.ca.check(certificate, agents.app.clock.now()).map_err(|_| StatusCode::FORBIDDEN)?;
    if agents.limits.take(id, Kind::Other, tokio::time::Instant::now()).is_err() {
        tracing::debug!(%peer, "an updater asks too often");
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    endpoints::standing(&agents.app, id).await.map_err(|_| StatusCode::FORBIDDEN)
}

async fn tell(agents: &Agents, at: &Endpoint, request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let Some(ask) = read::<Ask>(request).await else { return Ok(status(StatusCode::BAD_REQUEST)) };
    counter!("update_asks_total").increment(1);
    Ok(json(StatusCode::OK, &updates::answer(&agents.app, at, &ask, agents.app.clock.now()).await?))
}

async fn program(agents: &Agents, sha256: &str, range: Option<&str>) -> Result<Response<Body>, Error> {
    if !is_sha256(sha256) {
        return Ok(status(StatusCode::NOT_FOUND));
    }
    let known = agents.programs.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let bytes = match known.filter(|(sum, _)| sum == sha256) {
        Some((_, bytes)) => bytes,
        None => {
            let bytes = Bytes::from(updates::program(&agents.app, sha256).await?);
            *agents.programs.lock().unwrap_or_else(PoisonError::into_inner) = Some((sha256.to_owned(), bytes.clone()));
            bytes
        }
    };
    let from =
        range.map(|r| r.strip_prefix("bytes=").and_then(|r| r.strip_suffix('-')).and_then(|n| n.parse::<usize>().ok()));
    let (code, part, said) = match from {
        None => (StatusCode::OK, bytes, None),
        Some(Some(from)) if from < bytes.len() => {
            let said = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            (StatusCode::PARTIAL_CONTENT, bytes.slice(from..), Some(said))
        }
        Some(_) => return Ok(status(StatusCode::RANGE_NOT_SATISFIABLE)),
    };
    counter!("update_bytes_total").increment(part.len() as u64);
    let mut response = Response::new(Body::from(part));
    *response.status_mut() = code;
    if let Some(said) = said.and_then(|s| s.parse().ok()) {
        response.headers_mut().insert(header::CONTENT_RANGE, said);
    }
    Ok(response)
}
