//! `gateway`: carries connections in a process of its own, so that a controller may end without anybody noticing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::server::{carrier, opener, spawn_until, stopped};
use super::{app, clock, listener};
use crate::agents;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::identity::{ca, nodes, tls};
use crate::nudge::Bus;
use crate::reconcile::host_inventory::{HostInventory, Reach};
use crate::reconcile::{World, driver};
use crate::services::gateways::Me;
use crate::services::{App, endpoints};
use crate::store::{ServerLock, Store, StoreError, listen};
use crate::telemetry;

/// From here on the log asks for new certificates at each start.
const ENDS_SOON: Duration = Duration::from_secs(90 * 86_400);
/// Between two looks whether everything it needs is there.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What `--help` says.
pub(super) const ABOUT: &str =
    "Run a gateway of its own: it carries browsers' WebSockets and endpoints' tunnels, and nothing else. \
Sessions it carries do not notice when the controller ends or the database is lost.

It uses the same configuration file and data folder as the controller (on another machine, what `admin gateway issue` \
made there), and waits until a controller of the same release has made the database ready.

  [gateway]
  name = \"gw-1\"                                   one for each gateway; default: the machine's name
  listen = \"0.0.0.0:9443\"                         browsers; also /healthz, /readyz and /metrics
  agent_listen = \"0.0.0.0:9444\"                   endpoints' tunnels
  public_url = \"https://tram.example:9443\"        where browsers reach it
  agent_url = \"https://tram.example:9444\"         where endpoints reach it
  local_hosts = true                              false on another machine than the controller's: only hosts with a node
  embedded = true                                 false: `server` carries nothing itself

Each key may be given as TRAM_GATEWAY_<KEY>. SIGTERM sends everybody elsewhere and ends it.";

pub(super) async fn run(config: Config) -> Result<()> {
    let own = &config.gateway;
    let _lock = ServerLock::gateway(&config.data, &own.name)?;
    let tls = tls::server_config(&config.tls)
        .context("TLS is not set up; make a certificate with `tram-controller admin init-tls --names NAME,ADDRESS`")?;
    let metrics = telemetry::metrics()?;
    let web = listener::bind(own.listen, "gateway.listen").await?;
    let agent_side = listener::bind(own.agent_listen, "gateway.agent_listen").await?;
    let Some(app) = ready(&config).await? else { return Ok(()) };

    let stop = CancellationToken::new();
    let fleet = Fleet::default();
    let open = opener(&config, &app)?;
    let world = World { app: app.clone(), fleet: fleet.clone(), worker: Uuid::now_v7(), open, stop: stop.clone() };
    let mut hosts = HostInventory::for_displays(if own.local_hosts { Reach::All } else { Reach::Nodes });
    // Before it is known: whoever is sent here gets a display.
    driver::Reconciler::pass(&mut hosts, &world).await?;
    let me = Me {
        name: own.name.clone(),
        web_url: own.public_url.clone(),
        agent_url: own.agent_url.clone(),
        embedded: false,
        local_hosts: own.local_hosts,
    };
    watch_pass(&app)?;
    let gateway = Gateway::known(app.clone(), fleet, config.sessions.clone(), me);
    let mut tasks = JoinSet::new();
    tasks.spawn(world.app.store.clone().keep_warm(stop.clone()));
    tasks.spawn(driver::run(world, hosts));
    spawn_until(&mut tasks, &stop, {
        let store = app.store.clone();
        async move { listen::forward(&store).await }
    });
    spawn_until(&mut tasks, &stop, {
        let app = app.clone();
        async move { clock::follow(&app).await }
    });
    tasks.spawn(listener::serve(web, tls, router(&gateway, metrics), stop.clone()));
    tasks.spawn({
        let (app, stop, carrier) = (app.clone(), stop.clone(), carrier(&gateway));
        async move {
            if let Err(e) = agents::serve_tunnels(app, agent_side, carrier, stop).await {
                tracing::error!(error = %e, "tunnels can't be served");
            }
        }
    });
    gateway.enter().await?;
    spawn_until(&mut tasks, &stop, {
        let gateway = gateway.clone();
        async move { gateway.watch().await }
    });
    tracing::info!(name = own.name, address = %own.listen, url = %own.public_url, tunnels = %own.agent_listen, "carrying");

    stopped().await?;
    tracing::info!(connections = gateway.connections(), "stopping");
    gateway.drain().await;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    app.store.close().await;
    Ok(())
}

/// On a machine with a pass: says when it ends, and that it does soon.
fn watch_pass(app: &App) -> Result<()> {
    let now = app.clock.now();
    let Some(until) = endpoints::open_ca_to_serve(app, now)?.serves_until() else { return Ok(()) };
    gauge!("gateway_certificate_not_after_seconds").set(until.micros() as f64 / 1e6);
    if until.since(now) < ENDS_SOON {
        tracing::warn!(%until, "this gateway's certificates end soon; make new ones with `admin gateway issue` on a controller");
    }
    Ok(())
}

/// Waits for a database of this release and the installation's authorities. `None`: it is to end.
async fn ready(config: &Config) -> Result<Option<App>> {
    let mut told = String::new();
    loop {
        let missing = match try_open(config).await? {
            Ok(app) => return Ok(Some(app)),
            Err(missing) => missing,
        };
        if missing != told {
            tracing::warn!(missing, "waiting");
            told = missing;
        }
        tokio::select! {
            done = stopped() => return done.map(|()| None),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What is missing is an error that passes; a later database is one that does not.
async fn try_open(config: &Config) -> Result<Result<App, String>> {
    let data = &config.data;
    for (there, file) in
        [(ca::made(data) || ca::passed(data), ca::FILE), (nodes::made(data) || nodes::passed(data), nodes::FILE)]
    {
        if !there {
            return Ok(Err(format!(
                "{}/{file}: a controller makes it at its first start; for another machine, `admin gateway issue` makes what it needs",
                data.display()
            )));
        }
    }
    let store = match Store::open_to_serve(&config.database_url, Bus::default()).await {
        Ok(store) => store,
        Err(StoreError::Unavailable(why)) => return Ok(Err(format!("the database: {why}"))),
        Err(e) => return Err(e).context("opening the database"),
    };
    match store.is_current().await {
        Ok(true) => {
            store.warm().await?;
            Ok(Ok(app(config, store).await?))
        }
        Ok(false) => Ok(Err("the database is not of this release yet; start a controller of it".into())),
        Err(StoreError::Unavailable(why)) => Ok(Err(format!("the database: {why}"))),
        Err(e) => Err(e.into()),
    }
}

/// Displays, and what watches over this process.
fn router(gateway: &Gateway, metrics: PrometheusHandle) -> Router {
    let metrics = Arc::new(metrics);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(gateway.clone())
        .route("/metrics", get(move || async move { metrics.render() }))
        .merge(gateway.router())
}

/// Whether a load balancer may send somebody here, and why not.
async fn readiness(State(gateway): State<Gateway>) -> impl IntoResponse {
    let (closed, away) = (gateway.closed(), gateway.away());
    let status = if closed || away { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (
        status,
        Json(
            json!({"connections": gateway.connections(), "closed": closed, "database_away": away, "late": gateway.late()}),
        ),
    )
}
