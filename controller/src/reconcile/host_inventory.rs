//! Keeps a backend open for every host, writes down what the hosts say, and finds what differs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use metrics::gauge;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tram_hypervisor::{DesktopId, Error, Found, HostEvent, Hypervisor, Power};
use tram_wire::ids::HostId;

use super::World;
use super::driver::Reconciler;
use crate::domain::desktop::{DesiredDesktop, DesktopState};
use crate::nudge::Kind;
use crate::store::desktops::Desktop;
use crate::store::hosts::Host;

/// How often a host is looked at when it sends no events.
const PERIOD: Duration = Duration::from_secs(15);

/// The reconciler: which hosts are watched, by what address and policy.
#[derive(Default)]
pub struct HostInventory {
    open: HashMap<HostId, (String, CancellationToken)>,
    /// For displays only: nothing is looked at or written down.
    displays: Option<Reach>,
}

/// Hosts a process of its own gets displays from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All, as it stands on the controller's machine.
    All,
    /// Those with a node.
    Nodes,
}

impl HostInventory {
    /// Keeps backends open for displays, and leaves everything else to the controllers.
    #[must_use]
    pub fn for_displays(reach: Reach) -> Self {
        Self { displays: Some(reach), ..Self::default() }
    }
}

impl Reconciler for HostInventory {
    const NAME: &'static str = "host_inventory";
    const KIND: Kind = Kind::Host;
    const PERIOD: Duration = Duration::from_secs(5);

    async fn pass(&mut self, world: &World) -> Result<()> {
        let mut hosts = world.app.store.hosts().await?;
        if self.displays == Some(Reach::Nodes) {
            hosts.retain(|h| h.uri.starts_with("node://"));
        }
        let ids: HashSet<HostId> = hosts.iter().map(|h| h.id).collect();
        self.open.retain(|id, (_, stop)| {
            let keep = ids.contains(id);
            if !keep {
                stop.cancel();
                world.fleet.remove(*id);
            }
            keep
        });
        for host in hosts {
            // What would make it another backend: address or acceleration policy.
            let key = format!("{}|{}", host.uri, host.accel_policy);
            match self.open.get(&host.id) {
                Some((k, _)) if *k == key => continue,
                Some((_, stop)) => stop.cancel(),
                None => {}
            }
            let stop = world.stop.child_token();
            self.open.insert(host.id, (key, stop.clone()));
            match self.displays {
                Some(_) => open(world, &host),
                None => start(world, host, stop).await?,
            }
        }
        Ok(())
    }
}

/// Opens a backend and says nothing of it: the controllers do.
fn open(world: &World, host: &Host) {
    match tram_hypervisor::open(&host.uri, (world.open)(host)) {
        Ok(backend) => world.fleet.put(host.id, backend),
        Err(e) => tracing::warn!(host = %host.name, error = %e, "no displays can be had of a host"),
    }
}

async fn start(world: &World, host: Host, stop: CancellationToken) -> Result<()> {
    match tram_hypervisor::open(&host.uri, (world.open)(&host)) {
        Ok(backend) => {
            world.fleet.put(host.id, backend.clone());
            let world = world.clone();
            tokio::spawn(async move { watch(&world, &host, backend, &stop).await });
        }
        Err(e) => lost(world, &host, &e).await?,
    }
    Ok(())
}

/// Listens to one host and looks at it, until stopped.
async fn watch(world: &World, host: &Host, backend: Arc<dyn Hypervisor>, stop: &CancellationToken) {
    let mut events = backend.events();
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => survey(world, host, &*backend).await,
            event = events.recv() => match event {
                Ok(HostEvent::Desktop(id)) => poke(world, &[id]).await,
                Ok(HostEvent::Lost) => lost(world, host, &Error::Unreachable("the connection was lost; reconnecting".into())).await,
                // Whatever happened in between was not told: look at all of it.
                Ok(HostEvent::Resync) | Err(RecvError::Lagged(_)) => resync(world, host, &*backend).await,
                Err(RecvError::Closed) => return,
            },
        };
        if let Err(e) = done {
            tracing::warn!(host = %host.name, error = %format!("{e:#}"), "looking at a host failed, will be repeated");
        }
    }
}

async fn resync(world: &World, host: &Host, backend: &dyn Hypervisor) -> Result<()> {
    let mut tx = world.app.store.begin().await?;
    tx.poke_host(host.id, world.app.clock.now()).await?;
    tx.commit().await?;
    survey(world, host, backend).await
}

/// Capacity, versions, and everything on the host that carries our mark.
async fn survey(world: &World, host: &Host, backend: &dyn Hypervisor) -> Result<()> {
    let looked = async { Ok::<_, Error>((backend.host_info().await?, backend.inventory().await?)) }.await;
    let (info, found) = match looked {
        Ok(both) => both,
        Err(e) => return lost(world, host, &e).await,
    };
    let rows = world.app.store.desktops_on(host.id).await?;
    let known: HashSet<DesktopId> = rows.iter().map(|d| d.id).collect();
    let strangers: Vec<DesktopId> = found.iter().map(|f| f.id).filter(|id| !known.contains(id)).collect();
    let unknown = clear_left_over(world, backend, &strangers).await?;
    let was_up = world.app.store.host(host.id).await?.is_some_and(|h| h.state == crate::domain::host::HostState::Up);
    let mut tx = world.app.store.begin().await?;
    tx.host_seen(host.id, &info, unknown, world.app.clock.now()).await?;
    tx.commit().await?;
    if !was_up {
        // Pools may have waited for room.
        world.app.store.bus().nudge(Kind::Pool);
    }
    gauge!("host_memory_free_mib", "host" => host.name.clone()).set(info.memory_free_mib.unwrap_or(0) as f64);
    gauge!("host_disk_free_mib", "host" => host.name.clone()).set(info.disk_free_mib as f64);
    poke(world, &differing(&rows, &found)).await
}

/// Removes what the database knows to have been removed. Whatever it has never heard of (a database
/// restored from a backup, say) is counted and left alone: destroying it is a person's decision.
async fn clear_left_over(world: &World, backend: &dyn Hypervisor, strangers: &[DesktopId]) -> Result<i64> {
    // A row may have moved to another host, or been made since the list was read.
    let mut unknown = 0;
    let removed = world.app.store.removed(strangers).await?;
    for id in strangers {
        if removed.contains(id) {
            tracing::warn!(desktop = %id, "clearing what was left of a removed desktop");
            backend.ensure_absent(*id).await?;
        } else if world.app.store.desktop(*id).await?.is_none() {
            unknown += 1;
        }
    }
    Ok(unknown)
}

/// Settled desktops that are not what their rows say.
fn differing(rows: &[Desktop], found: &[Found]) -> Vec<DesktopId> {
    let found: HashMap<DesktopId, &Found> = found.iter().map(|f| (f.id, f)).collect();
    let differs = |d: &&Desktop| {
        let seen = found.get(&d.id);
        let power = seen.and_then(|f| f.observed.power);
        d.next_try_at.is_none()
            && match d.state {
                DesktopState::Running => power != Some(Power::Running),
                DesktopState::Stopped | DesktopState::Defined => {
                    power != Some(Power::Off) && power != Some(Power::Crashed) || d.desired == DesiredDesktop::Running
                }
                _ => true,
            }
    };
    rows.iter().filter(differs).map(|d| d.id).collect()
}

async fn poke(world: &World, ids: &[DesktopId]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut tx = world.app.store.begin().await?;
    for id in ids {
        tx.poke(*id, world.app.clock.now()).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn lost(world: &World, host: &Host, e: &Error) -> Result<()> {
    let mut tx = world.app.store.begin().await?;
    tx.host_lost(host.id, &format!("{e} ({})", e.code())).await?;
    tx.commit().await?;
    Ok(())
}
