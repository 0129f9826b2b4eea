//! Rows of the agent, against the known ones in the same two minutes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tram_wire::packed;

use self::ours::{Built, Pc};
use self::rivals::Rival;
use self::usage::Usage;
use self::wire::Count;
use super::Row;
use crate::device::Console;
use crate::world::World;

mod metered;
mod ours;
mod peripheral;
mod rivals;
mod usage;
mod wire;

pub(super) use usage::cpu;

/// The first report and all that begins has passed.
const WARM_UP: Duration = Duration::from_secs(45);
const WINDOW: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(1);
/// Keyframes of an hour, and questions of the updater.
const KEYFRAMES: f64 = 3.0;
const QUESTIONS: f64 = 1.0 / 3.0;
/// Name, unit, goal, and the most that reaches it.
type Goal = (&'static str, &'static str, &'static str, f64);
const PSS: Goal = ("agent.pss", "MiB", "<= 10 MB with updater", 9.5);
const RSS: Goal = ("agent.rss", "MiB", "<= 10 MB with updater", 9.5);
const CPU: Goal = ("agent.cpu", "s/min", "<= 0.015 with updater", 0.015);
const BINARY: Goal = ("agent.binary", "MB", "<= 6 MB", 6.0);
const THREADS: Goal = ("agent.threads", "", "<= 3 with updater", 3.0);
const WAN: Goal = ("agent.wan_kb_h", "kB/h", "<= 40 kB/h", 40.0);
const METERED: Goal = ("agent.wan_metered_kb_h", "kB/h", "<= 10 kB/h", 10.0);
const DISK: Goal = ("agent.disk_mb_day", "MB/day", "<= 20 MB/day", 20.0);
const FIRST: Goal = ("agent.first_report_ms", "ms", "<= 100 ms", 100.0);
const DOCTOR: Goal = ("doctor.s", "s", "< 5 s", 5.0);
const PING: Goal = ("diagnosis.ping_s", "s", "< 3 s", 3.0);
const PLUGGED: Goal = ("peripheral.event_s", "s", "<= 2 s", 2.0);
const ROWS: [Goal; 10] = [PSS, RSS, CPU, BINARY, THREADS, WAN, DISK, FIRST, DOCTOR, PING];

/// The rows whose names are wanted.
pub fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let goals: Vec<_> = ROWS.into_iter().filter(|(n, ..)| wanted(n)).collect();
    let mut rows = Vec::new();
    if !goals.is_empty() {
        match measure() {
            Ok(all) => rows.extend(all.into_iter().filter(|r| wanted(r.row))),
            Err(e) => rows.extend(goals.iter().map(|(n, unit, goal, _)| Row::failed(n, unit, goal, &e))),
        }
    }
    if wanted(PLUGGED.0) {
        rows.push(alone(PLUGGED, peripheral::seconds));
    }
    if wanted(METERED.0) && rows.is_empty() {
        rows.push(alone(METERED, metered::kb_h));
    } else if wanted(METERED.0) {
        // It takes longer than all the others together.
        println!("{} takes a good hour and is measured when it alone is asked for: make bench ONLY=metered", METERED.0);
    }
    rows
}

fn alone(goal: Goal, measured: fn(&Built) -> Result<(f64, String)>) -> Row {
    match Built::new().and_then(|built| measured(&built)) {
        Ok((ours, how)) => own(goal, ours, how),
        Err(e) => Row::failed(goal.0, goal.1, goal.2, &e),
    }
}

fn own((row, unit, goal, most): Goal, ours: f64, how: String) -> Row {
    Row { row, ours: Some(ours), anchor: None, anchor_name: how, ratio: None, unit, goal, ok: ours <= most }
}

/// Somebody who is measured.
struct Party<'a> {
    name: String,
    processes: Vec<u32>,
    lines: Vec<&'a Count>,
    program: u64,
    parts: u64,
    used: Used,
}

/// What somebody used.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    pss: f64,
    rss: f64,
    cpu_min: f64,
    /// At rest, and the most that were seen.
    threads: (usize, usize),
    kb_h: f64,
    /// Of it without headers.
    payload_kb_h: f64,
    mb_day: f64,
}

fn measure() -> Result<Vec<Row>> {
    let built = Built::new()?;
    let mut world = World::new()?;
    world.start()?;
    let folder = world.path().to_owned();
    // The first one probes for its office, the second is what most computers are: that is the one which is measured.
    let mut prober = Pc::enrolled(&world, &built, &folder.join("prober"))?;
    prober.start_agent()?;
    prober.settled("its office's prober", |p| p["prober"] == true)?;
    let mut pc = Pc::enrolled(&world, &built, &folder.join("pc"))?;
    let (first_ms, wait_ms) = pc.first_report_ms()?;
    let question = pc.start_updater()?;
    pc.start_agent()?;
    pc.settled("at work", |p| p["prober"] == false)?;
    let (rivals, missing) = rivals::all(&folder);
    std::thread::sleep(WARM_UP);
    let size = |p: &std::path::Path| Ok::<_, anyhow::Error>(std::fs::metadata(p)?.len());
    let (program, parts) = (size(&built.agent)?, size(&built.updater)?);
    let us = |name: &str, pc: &Pc| Party::new(name, pc.processes(), (program, parts));
    let mut all = vec![
        us("tram-agent, tram-updater", &pc),
        us("tram-agent of its office's prober, its packets counted if they are TCP", &prober),
    ];
    all[0].lines = vec![&pc.line, &pc.updates];
    all[1].lines = vec![&prober.line];
    all[1].parts = 0;
    for Rival { name, how, process, wire, program, parts, .. } in &rivals {
        let mut party = Party::new(&format!("{name}, {how}"), vec![process.0.id()], (*program, *parts));
        party.lines = vec![wire];
        all.push(party);
    }
    watch(&mut all)?;
    table(&all);
    missing.iter().for_each(|(name, why)| println!("not measured: {name}: {why}"));
    let per_hour = hourly(&pc, question);
    let mut rows = compared(&all, &missing, per_hour);
    let first = format!(
        "from exec until the controller has it, the middle of nine; of it {wait_ms:.0} until it connects, which it does at \
         a random moment so that offices do not come all at once"
    );
    rows.push(own(FIRST, first_ms, first));
    rows.push(own(DOCTOR, doctor(&pc)?, String::new()));
    rows.push(own(PING, ping_bundle(&world)?, "from the click to the verdict; the middle of five".into()));
    Ok(rows)
}

impl Party<'_> {
    fn new(name: &str, processes: Vec<u32>, (program, parts): (u64, u64)) -> Self {
        Self { name: name.to_owned(), processes, lines: Vec::new(), program, parts, used: Used::default() }
    }

    fn bytes(&self) -> (u64, u64) {
        (self.lines.iter().map(|l| l.bytes()).sum(), self.lines.iter().map(|l| l.payload()).sum())
    }
}

/// Measures all of them in the same time. A rival that ends meanwhile ends the measurement: it must not win.
fn watch(all: &mut [Party<'_>]) -> Result<()> {
    let look = |all: &[Party<'_>]| {
        let one = |p: &Party<'_>| Ok((Usage::of(&p.processes).context(p.name.clone())?, p.bytes()));
        all.iter().map(one).collect::<Result<Vec<_>>>()
    };
    let (begun, before) = (Instant::now(), look(all)?);
    let mut threads = vec![Vec::new(); all.len()];
    while begun.elapsed() < WINDOW {
        std::thread::sleep(LOOK);
        for (seen, p) in threads.iter_mut().zip(all.iter()) {
            seen.push(usage::threads(&p.processes)?);
        }
    }
    let (after, minutes) = (look(all)?, begun.elapsed().as_secs_f64() / 60.0);
    for (at, p) in all.iter_mut().enumerate() {
        let ((u0, bytes0), (u1, bytes1)) = (before[at], after[at]);
        let seen = &mut threads[at];
        seen.sort_unstable();
        p.used = Used {
            pss: u1.pss,
            rss: u1.rss,
            cpu_min: (u1.cpu - u0.cpu) / minutes,
            threads: (seen[seen.len() / 2], seen.last().copied().unwrap_or_default()),
            kb_h: (bytes1.0 - bytes0.0) as f64 / minutes * 60.0 / 1e3,
            payload_kb_h: (bytes1.1 - bytes0.1) as f64 / minutes * 60.0 / 1e3,
            mb_day: (u1.written - u0.written) / minutes * 1440.0 / 1e6,
        };
    }
    Ok(())
}

fn table(all: &[Party<'_>]) {
    println!(
        "{:<66} {:>7} {:>7} {:>9} {:>11} {:>7} {:>7} {:>9} {:>8}",
        "two minutes", "Pss MiB", "RSS MiB", "CPU s/min", "threads", "MB", "+ parts", "kB/h", "MB/day"
    );
    for p in all {
        let (u, mb) = (&p.used, |n: u64| n as f64 / 1e6);
        let threads = format!("{} to {}", u.threads.0, u.threads.1);
        println!(
            "{:<66} {:>7.2} {:>7.2} {:>9.4} {threads:>11} {:>7.2} {:>7.2} {:>9.1} {:>8.1}",
            p.name,
            u.pss,
            u.rss,
            u.cpu_min,
            mb(p.program),
            mb(p.parts),
            u.kb_h,
            u.mb_day
        );
    }
}

/// kB that an hour has and two minutes have not, and how that is made up.
fn hourly(pc: &Pc, question: u64) -> (f64, String) {
    /// TLS around a message, and the answer in its beat's packet: a keyframe that repeats what was told has no packets of its
    /// own, but for a second one if it does not fit the first.
    const AROUND: f64 = 110.0;
    let ledger = std::fs::read_to_string(pc.state().join("ledger.jsonl")).unwrap_or_default();
    let keyframe = ledger.lines().filter(|l| l.contains("key\\\":true") || l.contains("\"key\":true"));
    let packed = |l: &str| packed::pack_with(l, packed::DICTIONARY).map_or(l.len(), |p| p.len());
    let keyframe = keyframe.map(packed).max().unwrap_or(0) as f64 + AROUND;
    let (keyframes, questions) = (KEYFRAMES * keyframe / 1e3, QUESTIONS * question as f64 / 1e3);
    (
        keyframes + questions,
        format!(", 3 keyframes {keyframes:.1}, a third of a question of the updater {questions:.1}"),
    )
}

/// Rows with the best of the rivals beside ours.
fn compared(all: &[Party<'_>], missing: &[(&str, String)], (more_kb_h, of_it): (f64, String)) -> Vec<Row> {
    let (ours, prober) = (&all[0], &all[1]);
    let row = |(row, unit, goal, most): Goal, mine: f64, of: &dyn Fn(&Party<'_>) -> f64, how: String| {
        let best = all[2..].iter().map(|p| (of(p), &p.name)).min_by(|a, b| a.0.total_cmp(&b.0));
        let anchor = best.as_ref().map(|b| b.0);
        let without: String = missing.iter().map(|(name, _)| format!("; without {name}")).collect();
        let best = best.map_or("no rival".to_owned(), |(_, name)| format!("the best of all: {name}"));
        Row {
            row,
            ours: Some(mine),
            anchor,
            anchor_name: format!("{best}{without}{how}"),
            ratio: anchor.filter(|a| *a > 0.0).map(|a| mine / a),
            unit,
            goal,
            ok: mine <= most,
        }
    };
    let (u, p) = (ours.used, prober.used);
    let mb = |n: u64| n as f64 / 1e6;
    vec![
        row(PSS, u.pss, &|r| r.used.pss, String::new()),
        row(RSS, u.rss, &|r| r.used.rss, String::new()),
        row(CPU, u.cpu_min, &|r| r.used.cpu_min, format!("; our prober {:.4}", p.cpu_min)),
        row(BINARY, mb(ours.program), &|r| mb(r.program), format!("; our updater {:.2}", mb(ours.parts))),
        row(
            THREADS,
            u.threads.0 as f64,
            &|r| r.used.threads.0 as f64,
            format!("; ours at most {} for a moment", u.threads.1),
        ),
        row(
            WAN,
            u.kb_h + more_kb_h,
            &|r| r.used.kb_h,
            format!("; beats and what changed {:.1}, {:.1} without headers{of_it}", u.kb_h, u.payload_kb_h),
        ),
        row(DISK, u.mb_day, &|r| r.used.mb_day, String::new()),
    ]
}

fn doctor(pc: &Pc) -> Result<f64> {
    let begun = Instant::now();
    let mut doctor = Command::new(pc.program());
    doctor.args(["doctor", "--json", "--state"]).arg(pc.state()).stdin(Stdio::null()).stdout(Stdio::null());
    let ended = doctor.stderr(Stdio::null()).status()?;
    ensure!(ended.code().is_some_and(|c| c <= 2), "doctor: {ended}");
    Ok(begun.elapsed().as_secs_f64())
}

/// From support's click to the verdict on the line: the median of five.
fn ping_bundle(world: &World) -> Result<f64> {
    let console = Console::sign_in(world, "support")?;
    let all = world.json(&["admin", "endpoint", "list", "--json"])?;
    let endpoint = all[0]["id"].as_str().context("id")?.to_owned();
    let mut took = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let body = serde_json::json!({"action": "line"});
        let (status, asked) = console.post(&format!("/api/v1/endpoints/{endpoint}/diagnoses"), &body)?;
        ensure!(status == 200, "{asked}");
        let path = format!("/api/v1/diagnoses/{}", asked["id"].as_str().context("id")?);
        loop {
            let (_, d) = console.get(&path)?;
            if d["state"] == "ended" {
                ensure!(d["outcome"] == "done" && d["verdict"].is_object(), "{d}");
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        took.push(begun.elapsed().as_secs_f64());
    }
    Ok(super::median(took))
}
