//! `server`: everything in one process.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tram_hypervisor::node::Access;
use tram_hypervisor::{AccelPolicy, OpenOptions, Owner};
use uuid::Uuid;

use super::{clock, listener, lock, open_to_serve};
use crate::agents;
use crate::api::{Api, events::Hub, router};
use crate::config::{self, Config};
use crate::domain::host::AccelSetting;
use crate::domain::incident::Thresholds;
use crate::fleet::Fleet;
use crate::gateway::Gateway;
use crate::gateway::tunnel::Caller;
use crate::identity::{ca, nodes as node_ca, tls};
use crate::reconcile::endpoint_presence::EndpointPresence;
use crate::reconcile::host_inventory::HostInventory;
use crate::reconcile::incident_judge::IncidentJudge;
use crate::reconcile::notify_outbox::NotifyOutbox;
use crate::reconcile::pool_size::PoolSize;
use crate::reconcile::session_reaper::SessionReaper;
use crate::reconcile::site_prober::SiteProber;
use crate::reconcile::update_rings::UpdateRings;
use crate::reconcile::{World, desktop_lifecycle, driver};
use crate::services::gateways::Me;
use crate::services::incidents::Lookout;
use crate::services::{App, endpoints, nodes};
use crate::store::{Db, listen};
use crate::telemetry;

/// Longest a call to a host may take.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(40);

pub(super) async fn run(config: Config) -> Result<()> {
    if ca::passed(&config.data) && !ca::made(&config.data) {
        let folder = config.data.display();
        bail!("{folder} is the folder of a gateway; a controller needs the installation's {}", ca::FILE);
    }
    let _lock = lock(&config)?;
    let tls = tls::server_config(&config.tls)
        .context("TLS is not set up; make a certificate with `tram-controller admin init-tls --names NAME,ADDRESS`")?;
    let app = open_to_serve(&config).await?;
    if matches!(app.store.db(), Db::Sqlite { .. }) {
        // The lock says that our former self is dead: its leases and connections are void. Gateways of their own
        // hold no leases, and their connections go on.
        let mut tx = app.store.begin().await?;
        tx.release_all_leases().await?;
        tx.forget_embedded_gateways().await?;
        tx.commit().await?;
    }
    app.store.warm().await?;
    let metrics = telemetry::metrics()?;
    let web = listener::bind(config.listen, "server.listen").await?;
    let agent_side = listener::bind(config.agent_listen, "server.agent_listen").await?;

    let stop = CancellationToken::new();
    let fleet = Fleet::default();
    let world = World {
        app: app.clone(),
        fleet: fleet.clone(),
        worker: Uuid::now_v7(),
        open: opener(&config, &app)?,
        stop: stop.clone(),
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(app.store.clone().keep_warm(stop.clone()));
    tasks.spawn(driver::run(world.clone(), HostInventory::default()));
    tasks.spawn(driver::run(world.clone(), PoolSize));
    tasks.spawn(desktop_lifecycle::run(world.clone()));
    tasks.spawn(driver::run(world.clone(), SessionReaper::default()));
    tasks.spawn(driver::run(world.clone(), SiteProber));
    tasks.spawn(driver::run(world.clone(), UpdateRings));
    tasks.spawn(driver::run(world.clone(), EndpointPresence { since: app.clock.now() }));
    tasks.spawn(driver::run(world.clone(), incident_judge(&config, &app)));
    let outbox = NotifyOutbox { ways: config.notify.clone(), hours: config.health.hours.clone() };
    tasks.spawn(driver::run(world.clone(), outbox));
    // Before anything is promised: a damaged device CA is a reason not to start.
    endpoints::open_ca(&app, app.clock.now())?;
    let gateway = embedded(&config, &app, &fleet).await?;
    tasks.spawn({
        let (app, stop, carrier) = (app.clone(), stop.clone(), gateway.as_ref().map(carrier));
        async move {
            if let Err(e) = agents::serve(app, agent_side, carrier, stop).await {
                tracing::error!(error = %e, "agents can't be served");
            }
        }
    });
    let hub = Arc::new(Hub::default());
    spawn_until(&mut tasks, &stop, {
        let (hub, app) = (hub.clone(), app.clone());
        async move { hub.run(&app).await }
    });
    spawn_until(&mut tasks, &stop, {
        let store = app.store.clone();
        async move { listen::forward(&store).await }
    });
    spawn_until(&mut tasks, &stop, {
        let app = app.clone();
        async move { clock::follow(&app).await }
    });
    if let Some(gateway) = gateway.clone() {
        spawn_until(&mut tasks, &stop, async move { gateway.watch().await });
    }
    let displays = gateway.as_ref().map(Gateway::router).unwrap_or_default();
    let api = Api { app: app.clone(), fleet, events: hub, metrics };
    tasks.spawn(listener::serve(web, tls, router::router(api, displays), stop.clone()));
    tracing::info!(address = %config.listen, url = %config.public_url, database = app.store.engine(), "listening");

    stopped().await?;
    tracing::info!("stopping");
    if let Some(gateway) = &gateway {
        gateway.drain().await;
    }
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    app.store.close().await;
    Ok(())
}

fn incident_judge(config: &Config, app: &App) -> IncidentJudge {
    let lookout =
        Lookout { since: app.clock.now(), hours: config.health.hours.clone(), thresholds: Thresholds::default() };
    IncidentJudge { lookout, uplinks: config.health.uplinks.clone(), every: app.pace.look }
}

/// The gateway inside this process, unless it was switched off.
async fn embedded(config: &Config, app: &App, fleet: &Fleet) -> Result<Option<Gateway>> {
    if !config.gateway.embedded {
        return Ok(None);
    }
    let me = Me {
        // No gateway of its own has such a name, nor another controller of this machine.
        name: format!("server@{}-{}", config::host_name(), config.listen.port()),
        web_url: config.public_url.clone(),
        agent_url: String::new(),
        embedded: true,
        local_hosts: true,
    };
    let gateway = Gateway::known(app.clone(), fleet.clone(), config.sessions.clone(), me);
    gateway.enter().await?;
    Ok(Some(gateway))
}

/// Joins the agents' listener, which proves endpoints, and the gateway, which carries them.
pub(super) fn carrier(gateway: &Gateway) -> agents::Carrier {
    let gateway = gateway.clone();
    Arc::new(move |a: agents::Arrival| {
        let gateway = gateway.clone();
        let caller = Caller { endpoint: a.endpoint, certificate: a.certificate, peer: a.peer };
        tokio::spawn(async move { gateway.tunnel(caller, a.line).await });
    })
}

/// Runs a task that knows no end of its own.
pub(super) fn spawn_until(
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! { () = stop.cancelled() => {}, () = work => {} }
    });
}

pub(super) type Opener = Arc<dyn Fn(&crate::store::hosts::Host) -> OpenOptions + Send + Sync>;

/// How backends are opened: as this installation, with a certificate for nodes.
pub(super) fn opener(config: &Config, app: &App) -> Result<Opener> {
    let now = app.clock.now();
    let access = match !node_ca::made(&config.data) && node_ca::passed(&config.data) {
        // A gateway's machine: it has no authority, so nodes ask a controller for their next certificate.
        true => Access { tls: node_ca::with_pass(&config.data, now)?, signer: None },
        false => Access {
            tls: nodes::open_ca(app, now)?.controller(now)?,
            signer: Some(Arc::new(nodes::Renewals(app.clone()))),
        },
    };
    let owner = Owner {
        installation: app.installation,
        image_dir: config.image_dir.clone(),
        disk_dir: config.disk_dir.clone(),
    };
    Ok(Arc::new(move |host| OpenOptions {
        owner: owner.clone(),
        tls: Some(access.clone()),
        accel: match host.accel_policy {
            AccelSetting::Auto => AccelPolicy::Auto,
            AccelSetting::Kvm => AccelPolicy::Kvm,
            AccelSetting::Tcg => AccelPolicy::Tcg,
        },
        deadline: DEADLINE,
    }))
}

/// Waits for SIGTERM or Ctrl-C.
pub(super) async fn stopped() -> Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        done = tokio::signal::ctrl_c() => done?,
    }
    Ok(())
}
