//! Floor 4: the agents' side: a listener of its own, a task an endpoint, one batched writer.
//!
//! ```text
//! accept ── TLS, client certificate, hyper ──► enrol (POST) ──► services::endpoints::enrol
//!                                         ├──► desk (POST, GET) ─► services::desk
//!                                         ├──► updates (POST, GET) ─► services::updates
//!                                         ├──► tunnel ──► the gateway, by the composition root
//!                                         └──► conn (WebSocket, poll or signed) ──► registry (who is here, last heard)
//!                                                          └──────► ingest (one writer, batches)
//! ```
//! Beats touch memory only; [`ingest`] writes who was heard every few seconds in one statement.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::identity::ca::{CaError, DeviceCa};
use crate::services::{App, Error, endpoints, leases};

mod accept;
mod apart;
mod asks;
mod bandwidth;
mod conn;
mod desk;
mod ingest;
mod limit;
mod orders;
mod poll;
mod registry;
mod signed;
mod tls;
mod tunnel;
mod updates;

pub use registry::Registry;
pub use tunnel::{Arrival, Carrier};

/// What the parts share.
#[derive(Clone)]
pub struct Agents {
    /// Shared: each of thousands of links holds it.
    app: Arc<App>,
    ca: Arc<DeviceCa>,
    registry: Registry,
    ingest: ingest::Sender,
    orders: orders::Sender,
    stop: CancellationToken,
    greetings: Arc<tokio::sync::Semaphore>,
    limits: limit::Limits,
    /// Links that are carried by requests.
    polls: poll::Polls,
    /// What proves requests where TLS is opened on the way.
    signing: Arc<signed::Signing>,
    lines: bandwidth::Lines,
    /// Who carries tunnels; without one there are none.
    carrier: Option<Carrier>,
    programs: updates::Programs,
    /// Nothing but tunnels is served.
    only_tunnels: bool,
}

/// Handshakes and greetings at once; more are told to come back later.
const GREETINGS: usize = 512;

/// Serves agents until stopped.
///
/// # Errors
/// If the device CA can't be used, or its listener certificate can't be made.
pub async fn serve(
    app: App,
    listener: TcpListener,
    carrier: Option<Carrier>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let registry = Registry::default();
    let (ingest, writer) = ingest::channel(app.clone(), registry.clone());
    let ca = endpoints::open_ca(&app, app.clock.now())?;
    let (orders, heard) = orders::channel();
    let (agents, config) = prepare(&app, ca, registry.clone(), (ingest, orders), carrier, &stop)?;
    let writing = tokio::spawn(writer.run(stop.clone()));
    if let Err(e) = leases::publish(&app).await {
        tracing::warn!(error = %e, "the key of leases could not be made known yet");
    }
    tokio::select! {
        () = registry::watch_revocations(&app, &registry) => {}
        () = asks::watch(&app, &registry) => {}
        () = orders::watch(&app, &registry) => {}
        () = heard.run(&app) => {}
        () = accept::run(agents, listener, config) => {}
    }
    // What was heard in the last seconds is written before the process ends.
    let _ = writing.await;
    Ok(())
}

/// Serves tunnels and nothing else, until stopped: what a gateway of its own does.
///
/// # Errors
/// As [`serve`].
pub async fn serve_tunnels(
    app: App,
    listener: TcpListener,
    carrier: Carrier,
    stop: CancellationToken,
) -> Result<(), Error> {
    let registry = Registry::default();
    let (ingest, _) = ingest::channel(app.clone(), registry.clone());
    let ca = endpoints::open_ca_to_serve(&app, app.clock.now())?;
    let (orders, _) = orders::channel();
    let (agents, config) = prepare(&app, ca, registry, (ingest, orders), Some(carrier), &stop)?;
    accept::run(Agents { only_tunnels: true, ..agents }, listener, config).await;
    Ok(())
}

fn prepare(
    app: &App,
    ca: DeviceCa,
    registry: Registry,
    (ingest, orders): (ingest::Sender, orders::Sender),
    carrier: Option<Carrier>,
    stop: &CancellationToken,
) -> Result<(Agents, Arc<rustls::ServerConfig>), Error> {
    let fault = |e: CaError| Error::Internal(Box::new(e));
    let (chain, key) = ca.listener(app.clock.now()).map_err(fault)?;
    let signing = signed::Signing::new(ca.fingerprint(), &chain, &key).map_err(fault)?;
    let config = tls::config(chain, key).map_err(fault)?;
    let agents = Agents {
        app: Arc::new(app.clone()),
        ca: Arc::new(ca),
        registry,
        ingest,
        orders,
        stop: stop.clone(),
        greetings: Arc::new(tokio::sync::Semaphore::new(GREETINGS)),
        limits: limit::Limits::default(),
        polls: poll::Polls::default(),
        signing: Arc::new(signing),
        lines: bandwidth::Lines::default(),
        carrier,
        programs: updates::Programs::default(),
        only_tunnels: false,
    };
    Ok((agents, config))
}
