//! Takes each desktop from what is to what is wanted: claim, look, [`next_step`], act, write back.
//!
//! A worker holds a lease while it acts. If the process dies, the lease ends and another asks
//! [`next_step`] again; every act is idempotent, so nothing is made twice and nothing is forgotten.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use metrics::{counter, histogram};
use tokio::sync::Semaphore;
use tram_hypervisor::error::Class;
use tram_hypervisor::{DesktopSpec, Error, Hypervisor, Observed, Power, Stop};
use tram_wire::ids::HostId;

use super::World;
use crate::domain::desktop::{DesiredDesktop, DesktopState, FAILED_AFTER, Step, backoff, next_step};
use crate::domain::time::Time;
use crate::nudge::Kind;
use crate::store::desktops::{Claimed, Desktop};

/// How long a claim lasts. Longer than the longest single call to a host.
const LEASE: Duration = Duration::from_secs(60);
/// Desktops worked on at once by this process.
const WORKERS: usize = 16;
/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(5);
/// Steps one claim may take before it is handed back: enough for the whole way, no endless loop.
const STEPS: usize = 12;

/// Runs until stopped; then lets what is under way end.
pub async fn run(world: World) {
    let free = Arc::new(Semaphore::new(WORKERS));
    while !world.stop.is_cancelled() {
        let wait = match claim(&world, &free).await {
            Ok(0) => until_due(&world).await,
            Ok(_) => Duration::ZERO,
            Err(e) => {
                tracing::warn!(error = %format!("{e:#}"), "claiming desktops failed, will be repeated");
                Duration::from_secs(2)
            }
        };
        if wait > Duration::ZERO {
            tokio::select! {
                () = world.stop.cancelled() => break,
                () = world.app.store.bus().nudged(Kind::Desktop) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
    // Whatever is still under way ends within its deadline; its lease would end soon after anyway.
    let _ = tokio::time::timeout(Duration::from_secs(5), free.acquire_many(WORKERS as u32)).await;
}

/// Claims as many due desktops as there are free workers, and starts on them.
async fn claim(world: &World, free: &Arc<Semaphore>) -> Result<usize> {
    let Ok(first) = free.clone().acquire_owned().await else { return Ok(0) };
    let mut permits = vec![first];
    while let Ok(p) = free.clone().try_acquire_owned() {
        permits.push(p);
    }
    let now = world.app.clock.now();
    let mut tx = world.app.store.begin().await?;
    let claimed = tx.claim_desktops(world.worker, now, now.plus(LEASE), permits.len().try_into()?).await?;
    tx.commit().await?;
    let n = claimed.len();
    for (c, permit) in claimed.into_iter().zip(permits) {
        let world = world.clone();
        tokio::spawn(async move {
            work(&world, c).await;
            drop(permit);
            world.app.store.bus().nudge(Kind::Desktop);
        });
    }
    Ok(n)
}

async fn until_due(world: &World) -> Duration {
    match world.app.store.next_due().await {
        Ok(Some(at)) => Time::from_micros(at).since(world.app.clock.now()).clamp(Duration::from_millis(20), IDLE),
        _ => IDLE,
    }
}

/// One desktop, until it settles, has to wait, or fails.
async fn work(world: &World, mut c: Claimed) {
    let outcome = advance(world, &mut c).await;
    let now = world.app.clock.now();
    let d = &mut c.desktop;
    match outcome {
        Ok(Next::Gone) => return,
        Ok(Next::Wait(t)) => d.next_try_at = Some(now.plus(t).micros()),
        Ok(Next::Settled(state)) => settle(d, state, now),
        Err(e) => fail(d, &e, now),
    }
    if let Err(e) = write(world, d, true).await {
        // The lease ends by itself and another worker looks again.
        tracing::warn!(desktop = %d.name, error = %e, "a desktop's state could not be written");
    }
}

enum Next {
    Settled(DesktopState),
    Wait(Duration),
    Gone,
}

async fn advance(world: &World, c: &mut Claimed) -> Result<Next, Error> {
    let spec = spec(c);
    let Some(host) = backend(world, &c.desktop)? else { return forget(world, &c.desktop).await };
    let mut seen = look(&*host, &c.desktop).await?;
    for _ in 0..STEPS {
        let now = world.app.clock.now();
        let d = &mut c.desktop;
        match next_step(&d.wanted(), &seen, now) {
            Step::MakeDisk => {
                let state = if d.started_at.is_some() { DesktopState::Rebuilding } else { DesktopState::Creating };
                enter(world, d, state).await?;
                host.ensure_disk(&spec).await?;
                (seen.disk, seen.disk_generation) = (true, Some(spec.generation));
                // Whatever ran before ran on another disk.
                (d.started_at, d.boot_ms) = (None, None);
            }
            Step::Define => {
                host.ensure_defined(&spec).await?;
                seen.power = Some(Power::Off);
            }
            Step::Start => {
                if !take_boot_place(world, d, &*host).await? {
                    return Ok(Next::Wait(Duration::from_secs(2)));
                }
                host.ensure_running(d.id).await?;
                (d.started_at, d.boot_ms, d.stop_asked_at) = (Some(world.app.clock.now().micros()), None, None);
                enter(world, d, DesktopState::Booting).await?;
                seen = host.observe(d.id).await?;
            }
            Step::AwaitGuest(again) => {
                d.enter(DesktopState::Booting, now);
                return Ok(Next::Wait(again));
            }
            Step::Reset => {
                host.reset(d.id).await?;
                (d.reset_asked, d.started_at, d.boot_ms) = (false, Some(now.micros()), None);
                enter(world, d, DesktopState::Booting).await?;
                return Ok(Next::Wait(crate::domain::desktop::BOOT_POLL));
            }
            Step::AskToStop => {
                d.stop_asked_at = Some(now.micros());
                enter(world, d, DesktopState::Stopping).await?;
                host.ensure_stopped(d.id, Stop::Graceful).await?;
                seen = host.observe(d.id).await?;
            }
            Step::AwaitStop(again) => {
                d.enter(DesktopState::Stopping, now);
                return Ok(Next::Wait(again));
            }
            Step::CutPower => {
                host.ensure_stopped(d.id, Stop::Force).await?;
                d.stop_asked_at = None;
                seen = host.observe(d.id).await?;
            }
            Step::Remove => {
                enter(world, d, DesktopState::Deleting).await?;
                host.ensure_absent(d.id).await?;
                return forget(world, d).await;
            }
            Step::Settled(state) => {
                d.addresses.0 = std::mem::take(&mut seen.addresses);
                return Ok(Next::Settled(state));
            }
        }
    }
    Ok(Next::Wait(Duration::from_secs(1)))
}

/// What exists. Of a desktop that was only planned nothing can exist but leftovers of a killed try, and
/// those the first two steps accept as they are: no need to look.
async fn look(host: &dyn Hypervisor, d: &Desktop) -> Result<Observed, Error> {
    if d.state == DesktopState::Planned { Ok(Observed::default()) } else { host.observe(d.id).await }
}

/// The host's backend; `None` if the desktop never had a host (nothing to remove there).
fn backend(world: &World, d: &Desktop) -> Result<Option<Arc<dyn Hypervisor>>, Error> {
    let Some(id) = d.host_id else { return Ok(None) };
    match world.fleet.get(HostId(id)) {
        Some(h) => Ok(Some(h)),
        None => Err(Error::Unreachable("this host is not open yet".into())),
    }
}

async fn forget(world: &World, d: &Desktop) -> Result<Next, Error> {
    let now = world.app.clock.now();
    let done = async {
        let mut tx = world.app.store.begin().await?;
        tx.forget_desktop(world.worker, d, now).await?;
        tx.commit().await
    };
    done.await.map_err(store_fault)?;
    counter!("desktops_removed_total").increment(1);
    Ok(Next::Gone)
}

/// Boots are throttled: a host that starts all desktops at once starts none of them in time.
async fn take_boot_place(world: &World, d: &mut Desktop, host: &dyn Hypervisor) -> Result<bool, Error> {
    let now = world.app.clock.now();
    let limit = match world.app.store.host(HostId(d.host_id.unwrap_or_default())).await.map_err(store_fault)? {
        Some(h) => h.info.map_or(2, |i| boots_at_once(i.accel, i.cpus)),
        None => boots_at_once(host.host_info().await?.accel, 2),
    };
    let taken = async {
        let mut tx = world.app.store.begin().await?;
        let taken = tx.take_boot_place(world.worker, d, limit, now).await?;
        tx.commit().await.map(|()| taken)
    };
    let taken = taken.await.map_err(store_fault)?;
    if taken {
        d.enter(DesktopState::Starting, now);
    } else if d.state == DesktopState::Creating {
        d.enter(DesktopState::Defined, now);
    }
    Ok(taken)
}

/// Boots a host carries at once. A boot under software emulation takes a whole core.
fn boots_at_once(accel: tram_hypervisor::Accel, cpus: u32) -> i64 {
    match accel {
        tram_hypervisor::Accel::Tcg => i64::from(cpus).max(2),
        tram_hypervisor::Accel::Kvm => (i64::from(cpus) * 2).max(4),
        tram_hypervisor::Accel::None => 256,
    }
}

/// Shows a new state at once: the person who waits sees the real step.
async fn enter(world: &World, d: &mut Desktop, state: DesktopState) -> Result<(), Error> {
    if d.state == state {
        return Ok(());
    }
    d.enter(state, world.app.clock.now());
    write(world, d, false).await.map_err(store_fault)
}

async fn write(world: &World, d: &Desktop, release: bool) -> Result<(), crate::store::StoreError> {
    let mut tx = world.app.store.begin().await?;
    let ours = tx.write_desktop(world.worker, d, release, world.app.clock.now()).await?;
    tx.commit().await?;
    if !ours && !release {
        return Err(crate::store::StoreError::Unavailable("somebody wants something else of it by now".into()));
    }
    Ok(())
}

fn settle(d: &mut Desktop, state: DesktopState, now: Time) {
    if state == DesktopState::Running
        && d.boot_ms.is_none()
        && let Some(at) = d.started_at
    {
        let took = now.since(Time::from_micros(at));
        d.boot_ms = i64::try_from(took.as_millis()).ok();
        histogram!("desktop_boot_seconds").record(took.as_secs_f64());
    }
    d.enter(state, now);
    (d.attempts, d.next_try_at, d.error_code, d.error_text) = (0, None, None, None);
    d.stop_asked_at = None;
}

fn fail(d: &mut Desktop, e: &Error, now: Time) {
    counter!("desktop_step_failures_total", "code" => e.code()).increment(1);
    d.error_code = Some(e.code().into());
    d.error_text = Some(e.to_string());
    // A host that can't be reached is not this desktop's failure, nor is being waited for.
    let host_fault = matches!(e, Error::Unreachable(_) | Error::Overloaded);
    if !host_fault && e.class() != Class::Gone {
        d.attempts += 1;
    }
    if d.attempts >= FAILED_AFTER && d.desired != DesiredDesktop::Absent {
        d.enter(DesktopState::Failed, now);
    }
    let wait = match e.class() {
        Class::Gone => Duration::from_secs(1),
        Class::Retry if host_fault => Duration::from_secs(3),
        Class::Retry => backoff(d.attempts),
        Class::Permanent => Duration::from_secs(300),
    };
    d.next_try_at = Some(now.plus(wait).micros());
    tracing::warn!(desktop = %d.name, code = e.code(), error = %e, attempts = d.attempts, "a step failed");
}

fn store_fault(e: crate::store::StoreError) -> Error {
    Error::Refused(format!("the controller's database: {e}"))
}

fn spec(c: &Claimed) -> DesktopSpec {
    DesktopSpec {
        id: c.desktop.id,
        name: c.desktop.name.clone(),
        image_file: c.image_file.clone(),
        vcpus: u32::try_from(c.vcpus).unwrap_or(1),
        memory_mib: u64::try_from(c.memory_mib).unwrap_or(512),
        disk_gib: c.disk_gib.and_then(|g| u32::try_from(g).ok()),
        generation: c.desktop.disk_generation,
        guest: c.guest.into(),
    }
}
