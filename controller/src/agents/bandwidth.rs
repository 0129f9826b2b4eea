//! Fills an endpoint's line for a moment because it was ordered: `tram_wire::bandwidth`.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode};
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use metrics::counter;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tram_wire::bandwidth::{Arrived, EACH_WAY, No, PATH, WITHIN};
use tram_wire::ids::OrderId;

use super::Agents;
use super::accept::json;
use crate::services::{App, Error, bandwidth, endpoints};

/// Lines that are filled at once: the data centre's own is not there for this.
const AT_ONCE: usize = 4;
/// Orders remembered: each is measured once each way.
const REMEMBERED: usize = 1024;
/// How long they are: longer than any order runs.
const KEPT: Duration = Duration::from_secs(600);
/// Between two looks whether somebody began to work.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes at once.
const PIECE: usize = 16 * 1024;

/// What the measurements share.
#[derive(Clone)]
pub(super) struct Lines {
    room: Arc<Semaphore>,
    /// What was measured already: up, or down.
    done: Arc<Mutex<HashMap<(OrderId, bool), Instant>>>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_ONCE)), done: Arc::default() }
    }
}

impl Lines {
    /// Whether this way is measured for the first time.
    fn first(&self, order: OrderId, up: bool, now: Instant) -> bool {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if done.len() >= REMEMBERED {
            done.retain(|_, at| now.duration_since(*at) < KEPT);
        }
        done.len() < REMEMBERED && done.insert((order, up), now).is_none()
    }
}

pub(super) async fn answer(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    request: Request<Incoming>,
) -> Response<Body> {
    let up = match *request.method() {
        Method::GET => false,
        Method::POST => true,
        _ => return no(StatusCode::METHOD_NOT_ALLOWED, "not_ordered"),
    };
    match admit(agents, certificate, request.uri().path(), up).await {
        Ok(way) if up => take(way, request).await,
        Ok(way) => give(way),
        Err(response) => response,
    }
}

/// A line that is filled now.
struct Way {
    app: Arc<App>,
    site: String,
    begun: Instant,
    looked: Instant,
    bytes: u64,
    _room: OwnedSemaphorePermit,
}

impl Way {
    fn until(&self) -> Instant {
        self.begun + WITHIN
    }

    /// There is more to measure: neither the bytes nor the time are over, and nobody began to work.
    async fn goes_on(&mut self) -> bool {
        let now = Instant::now();
        if self.bytes >= EACH_WAY || now >= self.until() {
            return false;
        }
        if now >= self.looked + LOOK {
            self.looked = now;
            return bandwidth::quiet(&self.app, &self.site).await.is_ok();
        }
        true
    }
}

async fn admit(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    path: &str,
    up: bool,
) -> Result<Way, Response<Body>> {
    let not_ordered = || no(StatusCode::NOT_FOUND, "not_ordered");
    let certificate = certificate.ok_or_else(not_ordered)?;
    let endpoint = agents.ca.check(certificate, agents.app.clock.now()).map_err(|_| not_ordered())?;
    endpoints::standing(&agents.app, endpoint).await.map_err(|_| not_ordered())?;
    let order: OrderId = path.strip_prefix(PATH).and_then(|id| id.parse().ok()).ok_or_else(not_ordered)?;
    let site = bandwidth::ordered(&agents.app, endpoint, order).await.map_err(|e| match e {
        Error::Conflict(..) => no(StatusCode::CONFLICT, "session_open"),
        _ => not_ordered(),
    })?;
    let busy = || no(StatusCode::SERVICE_UNAVAILABLE, "busy");
    let room = agents.lines.room.clone().try_acquire_owned().map_err(|_| busy())?;
    let now = Instant::now();
    if !agents.lines.first(order, up, now) {
        return Err(not_ordered());
    }
    Ok(Way { app: agents.app.clone(), site, begun: now, looked: now, bytes: 0, _room: room })
}

fn no(status: StatusCode, code: &str) -> Response<Body> {
    json(status, &No { code: code.to_owned() })
}

/// Sends bytes.
fn give(way: Way) -> Response<Body> {
    let more = |mut way: Way| async move {
        if !way.goes_on().await {
            return None;
        }
        way.bytes += PIECE as u64;
        counter!("bandwidth_bytes_total", "way" => "down").increment(PIECE as u64);
        Some((Ok::<_, io::Error>(Bytes::from_static(&[0; PIECE])), way))
    };
    Response::new(Body::from_stream(stream::unfold(way, more)))
}

/// Takes bytes, and says how many came.
async fn take(mut way: Way, request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let (mut first, mut last) = (None, way.begun);
    while way.goes_on().await {
        let Ok(Some(Ok(frame))) = timeout_at(way.until(), body.frame()).await else { break };
        let Some(data) = frame.data_ref() else { continue };
        last = Instant::now();
        // The first piece tells when it began, not how fast it goes.
        if first.is_some() {
            way.bytes += data.len() as u64;
        }
        first = first.or(Some(last));
        counter!("bandwidth_bytes_total", "way" => "up").increment(data.len() as u64);
    }
    let took = last - first.unwrap_or(last);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    json(StatusCode::OK, &Arrived { bytes: way.bytes, took_us })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_way_is_measured_once_for_an_order() {
        let (lines, begun) = (Lines::default(), Instant::now());
        let order = |n| OrderId(Uuid::from_u128(n));
        assert!(lines.first(order(1), true, begun) && lines.first(order(1), false, begun));
        assert!(!lines.first(order(1), true, begun));
        // A flood of orders does not make it forget.
        let more = (2..3000).filter(|n| lines.first(order(*n), true, begun)).count();
        assert_eq!(more, REMEMBERED - 2);
        assert!(!lines.first(order(1), true, begun) && !lines.first(order(5000), true, begun));
        assert!(lines.first(order(5000), true, begun + KEPT));
    }
}
