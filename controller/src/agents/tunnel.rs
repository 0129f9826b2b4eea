//! `GET /agent/v1/tunnel`: proves the endpoint and hands its connection on, to whoever carries tunnels.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use metrics::counter;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tram_wire::TUNNEL_UPGRADE;
use tram_wire::ids::EndpointId;

use super::Agents;
use super::accept::status;
use crate::domain::endpoint::EndpointState;
use crate::store::StoreError;

/// A connection of an endpoint that wants to be a tunnel.
pub struct Arrival {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// SHA-256 of the certificate it showed.
    pub certificate: [u8; 32],
    /// Where it calls from.
    pub peer: SocketAddr,
    /// TLS 1.3, right after the upgrade.
    pub line: TlsStream<TcpStream>,
}

/// Who takes them. The composition root joins the agents' listener and the gateway, which stand on one floor.
pub type Carrier = Arc<dyn Fn(Arrival) + Send + Sync>;

/// `certificate` is `None` also for TLS below 1.3.
pub(super) async fn enter(
    agents: Agents,
    certificate: Option<CertificateDer<'static>>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let Some(carrier) = agents.carrier.clone() else { return status(StatusCode::NOT_FOUND) };
    let wanted = request.headers().get(header::UPGRADE).is_some_and(|u| u == TUNNEL_UPGRADE);
    if !wanted {
        return status(StatusCode::UPGRADE_REQUIRED);
    }
    let Some((endpoint, certificate)) = prove(&agents, certificate).await else {
        counter!("agent_refusals_total", "reason" => "tunnel").increment(1);
        return status(StatusCode::FORBIDDEN);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Some(line) = line(upgrade).await {
            carrier(Arrival { endpoint, certificate, peer, line });
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(TUNNEL_UPGRADE));
    response
}

/// The endpoint, if its certificate is good and nobody withdrew it.
async fn prove(agents: &Agents, certificate: Option<CertificateDer<'static>>) -> Option<(EndpointId, [u8; 32])> {
    let certificate = certificate?;
    let id = agents.ca.check(&certificate, agents.app.clock.now()).ok()?;
    let stands = match agents.app.store.endpoint(id).await {
        Ok(row) => row.is_some_and(|r| r.state != EndpointState::Revoked && r.quarantined_at.is_none()),
        // Without the database nothing new is opened to anybody, but a line that was cut may come back: that takes the
        // secret of a tunnel that is here. Who is withdrawn meanwhile is cut once the database answers.
        Err(StoreError::Unavailable(_)) => true,
        Err(_) => false,
    };
    stands.then(|| (id, Sha256::digest(&certificate).into()))
}

/// The bare connection. An agent says nothing before it was answered, so nothing was read ahead.
async fn line(upgrade: OnUpgrade) -> Option<TlsStream<TcpStream>> {
    let parts = upgrade.await.ok()?.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
    let line = parts.io.into_inner();
    if !parts.read_buf.is_empty() {
        return None;
    }
    if let Err(e) = tram_tunnel::prepare(line.get_ref().0) {
        tracing::warn!(error = %e, "a tunnel's socket could not be set up");
    }
    Some(line)
}
