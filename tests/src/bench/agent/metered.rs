//! A line that is paid by the byte, for a whole hour: what comes once an hour is in it once, and nothing is worked out.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::ours::{Built, Pc};
use crate::world::World;

const HOUR: Duration = Duration::from_secs(3600);
/// What follows a connection has passed.
const SETTLED: Duration = Duration::from_secs(60);

/// kB an hour of agent and updater, and how they divide. A part of an hour is scaled; it is for trying this.
///
/// # Errors
/// If a computer does not report.
pub fn kb_h(built: &Built) -> Result<(f64, String)> {
    let minutes = std::env::var("TRAM_BENCH_METERED_MINUTES").ok().and_then(|m| m.parse().ok());
    let length = minutes.map_or(HOUR, |m: u32| Duration::from_secs(60) * m);
    let mut world = World::new()?;
    world.cli(&["admin", "site", "metered", "00004", "true"])?;
    world.start()?;
    // The first one probes for its office; the second is what most computers are.
    let mut prober = Pc::enrolled(&world, built, &world.path().join("prober"))?;
    prober.start_agent()?;
    prober.settled("the prober of a metered office", |p| p["metered"] == true && p["prober"] == true)?;
    let mut pc = Pc::enrolled(&world, built, &world.path().join("pc"))?;
    pc.start_agent()?;
    pc.settled("metered", |p| p["metered"] == true && p["prober"] == false)?;
    pc.start_updater()?;
    std::thread::sleep(SETTLED);
    let now = || (pc.line.bytes(), pc.updates.bytes(), prober.line.bytes());
    let (begun, (agent0, updater0, prober0)) = (Instant::now(), now());
    std::thread::sleep(length);
    let (agent, updater, other) = now();
    let hours = begun.elapsed().as_secs_f64() / HOUR.as_secs_f64();
    let kb = |from: u64, to: u64| (to - from) as f64 / hours / 1e3;
    let (agent, updater, other) = (kb(agent0, agent), kb(updater0, updater), kb(prober0, other));
    let whole = if minutes.is_none() { "a whole hour".to_owned() } else { format!("{hours:.2} h, scaled") };
    let how =
        format!("{whole}: agent {agent:.1}, updater {updater:.1}; the office's prober {other:.1} beside its packets");
    Ok((agent + updater, how))
}
