//! Accepts connections of agents: TLS, then one of two paths.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use rustls::pki_types::CertificateDer;
use rustls::{ProtocolVersion, ServerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tram_wire::enrol::{EnrolRequest, Renew};
use tram_wire::frame::MAX_FRAME;
use tram_wire::poll::POLL_PATH;
use tram_wire::refusal::Refusal;
use tram_wire::signed::SIGNED_PATH;
use tram_wire::{ENROL_PATH, LINK_PATH, RENEW_PATH, TIME_PATH, TUNNEL_PATH};

use super::{Agents, bandwidth, conn, desk, poll, signed, tunnel, updates};
use crate::domain::endpoint::LinkWay;
use crate::services::{endpoints, enrolments};

/// Handshakes must end within this time; thin lines are slow, attackers slower.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// A body must arrive within this time.
const REQUEST: Duration = Duration::from_secs(20);
/// A head must, and so long may a connection stay without one: who links by requests says something with every beat.
const BETWEEN: Duration = Duration::from_secs(75);

pub(super) async fn run(agents: Agents, listener: TcpListener, config: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (socket, peer) = tokio::select! {
            () = agents.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(a) => a,
                Err(e) => {
                    // Out of file descriptors, usually: waiting beats spinning.
                    tracing::warn!(error = %e, "accepting an agent failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, agents) = (acceptor.clone(), agents.clone());
        tokio::spawn(async move {
            // The wait is the queue: a storm after a restart is worked off at the pace the cores allow.
            let Ok(Ok(greeting)) = tokio::time::timeout(HANDSHAKE, agents.greetings.clone().acquire_owned()).await
            else {
                counter!("agent_refusals_total", "reason" => "overload").increment(1);
                return;
            };
            let _ = socket.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => {
                    drop(greeting);
                    connection(agents, stream, peer).await;
                }
                Ok(Err(_)) | Err(_) => counter!("agent_refusals_total", "reason" => "tls").increment(1),
            }
        });
    }
}

async fn connection(agents: Agents, stream: tokio_rustls::server::TlsStream<TcpStream>, peer: SocketAddr) {
    let tls = stream.get_ref().1;
    let certificate = tls.peer_certificates().and_then(|c| c.first()).map(|c| c.clone().into_owned());
    let modern = tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let service = service_fn(move |request: Request<Incoming>| {
        let (agents, certificate) = (agents.clone(), certificate.clone());
        async move {
            if (request.method(), request.uri().path()) == (&Method::GET, TUNNEL_PATH) {
                return Ok::<_, Infallible>(tunnel::enter(agents, certificate.filter(|_| modern), peer, request).await);
            }
            if agents.only_tunnels {
                return Ok(status(StatusCode::NOT_FOUND));
            }
            Ok(answer(agents, certificate, peer, request).await)
        }
    });
    // One small buffer while the request is read; the WebSocket brings its own.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(BETWEEN)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(e) = serving.await {
        tracing::debug!(%peer, error = %e, "an agent's connection ended");
    }
}

async fn answer(
    agents: Agents,
    certificate: Option<CertificateDer<'static>>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, ENROL_PATH) => enrol(&agents, peer, request).await,
        (&Method::POST, RENEW_PATH) => renew(&agents, certificate.as_ref(), peer, request).await,
        (&Method::GET, TIME_PATH) => {
            json(StatusCode::OK, &serde_json::json!({"server_ms": agents.app.clock.now().micros() / 1000}))
        }
        (&Method::GET, LINK_PATH) => link(agents, certificate, peer, request),
        (&Method::POST, path) if path.starts_with(POLL_PATH) => poll::answer(agents, certificate, peer, request).await,
        (&Method::POST, path) if path.starts_with(SIGNED_PATH) => signed::answer(agents, peer, request).await,
        (method, path) if updates::is_for(method, path) => {
            updates::answer(&agents, certificate.as_ref(), peer, request).await
        }
        (_, path) if path.starts_with(tram_wire::bandwidth::PATH) => {
            bandwidth::answer(&agents, certificate.as_ref(), request).await
        }
        (method, path) => match desk::Ask::of(method, path) {
            Some(ask) => desk::answer(&agents, certificate.as_ref(), peer, ask, request).await,
            None => status(StatusCode::NOT_FOUND),
        },
    }
}

async fn enrol(agents: &Agents, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let done = match read::<EnrolRequest>(request).await {
        Some(r) => {
            let ctx = endpoints::as_agent(peer.ip().to_canonical().to_string(), agents.app.clock.now());
            enrolments::enrol(&agents.app, &ctx, &agents.ca, &r).await
        }
        None => Err(Refusal::Malformed { detail: "not an enrolment request, or too large".to_owned() }),
    };
    match done {
        Ok(response) => {
            counter!("agent_enrolments_total").increment(1);
            json(StatusCode::OK, &response)
        }
        // Not a refusal: it waits, and asks again.
        Err(waits @ Refusal::Pending { .. }) => json(StatusCode::ACCEPTED, &waits),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    counter!("agent_refusals_total", "reason" => refusal.code()).increment(1);
    let code = match refusal {
        Refusal::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Malformed { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    json(code, refusal)
}

/// A certificate that has ended, or will soon, and somebody who has its key. Nothing else is done for them here.
async fn renew(
    agents: &Agents,
    certificate: Option<&CertificateDer<'static>>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let done = async {
        let certificate = certificate.ok_or(Refusal::Unknown)?;
        let now = agents.app.clock.now();
        let (id, end) = agents.ca.check_ended(certificate, now)?;
        let malformed = || Refusal::Malformed { detail: "not a renewal, or too large".to_owned() };
        let asked = read::<Renew>(request).await.ok_or_else(malformed)?;
        let ctx = endpoints::as_agent(peer.ip().to_canonical().to_string(), now);
        endpoints::renew_ended(&agents.app, &ctx, &agents.ca, id, end, &asked.csr_pem).await
    };
    match done.await {
        Ok(issued) => {
            counter!("agent_late_renewals_total").increment(1);
            json(StatusCode::OK, &issued)
        }
        Err(refusal) => refused(&refusal),
    }
}

/// The body, if it is JSON of this shape, in time and not too large.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Option<T> {
    let body = to_bytes(Body::new(request.into_body()), MAX_FRAME);
    let bytes = tokio::time::timeout(REQUEST, body).await.ok()?.ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn link(
    agents: Agents,
    certificate: Option<CertificateDer<'static>>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let headers = request.headers();
    let is = |name, value: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.to_ascii_lowercase().contains(value))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(|k| derive_accept_key(k.as_bytes()));
    let (Some(accept), true, true) = (key, is(header::UPGRADE, "websocket"), is(header::CONNECTION, "upgrade")) else {
        return status(StatusCode::UPGRADE_REQUIRED);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => conn::run(agents, certificate, peer, LinkWay::Socket, Box::new(TokioIo::new(io))).await,
            Err(e) => tracing::debug!(%peer, error = %e, "an upgrade failed"),
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let to = response.headers_mut();
    to.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    to.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    if let Ok(value) = accept.parse() {
        to.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    response
}

pub(super) fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

pub(super) fn json(code: StatusCode, body: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = code;
            let kind = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}
