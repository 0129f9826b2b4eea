//! Rows of many agents at once: thousands of real links (the agent's own machine, TLS and frames) in this process,
//! against a controller in its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tram_agent::config::Address;
use tram_agent::identity::{Identity, Request};
use tram_agent::link::machine::{Due, Heard, Machine};
use tram_agent::link::{Link, tls};
use tram_controller::clock::Clock;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::nudge::Bus;
use tram_controller::store::Store;
use tram_wire::check::CheckState;
use tram_wire::heartbeat::Beat;
use tram_wire::hello::Hello;
use tram_wire::ids::EndpointId;
use tram_wire::report::{CheckResult, Item, Record, Report};
use tram_wire::{AgentMessage, packed, version};
use uuid::Uuid;

use super::Row;
use super::agent::cpu;
use crate::world::World;

/// What the goals speak of.
const MANY: usize = 10_000;
/// Over how long they come the first time.
const ARRIVAL: Duration = Duration::from_secs(25);
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_secs(240);
const STEADY: Duration = Duration::from_secs(30);
/// Between two reports of what changed, and how long the controller is watched while they come.
const DELTA: Duration = Duration::from_secs(60);
const REPORTING: Duration = Duration::from_secs(120);
const ROWS: [(&str, &str, &str); 4] = [
    ("swarm.kib_per_agent", "KiB", "<= 32 KiB"),
    ("swarm.reconnect_10k_s", "s", "<= 60 s, peak/mean < 3"),
    ("silence.noticed_s", "s", "<= 80 s"),
    ("swarm.cpu_10k", "% core", "<= 50 % of a core"),
];

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let names: Vec<_> = ROWS.into_iter().filter(|(n, ..)| wanted(n)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    match measure().await {
        Ok(all) => all.into_iter().filter(|r| wanted(r.row)).collect(),
        Err(e) => names.into_iter().map(|(n, unit, goal)| Row::failed(n, unit, goal, &e)).collect(),
    }
}

/// What the members saw.
#[derive(Default)]
struct Seen {
    welcomes: Mutex<Vec<Instant>>,
    refused: AtomicUsize,
    kept: AtomicUsize,
    /// They report what changed, too.
    reports: AtomicBool,
}

fn own(row: usize, ours: f64, ok: bool, how: String) -> Row {
    let (row, unit, goal) = ROWS[row];
    Row { row, ours: Some(ours), anchor: None, anchor_name: how, ratio: None, unit, goal, ok }
}

async fn measure() -> Result<Vec<Row>> {
    let files = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?.0;
    // Fewer for a try; the goals are those of all.
    let wanted = std::env::var("TRAM_BENCH_AGENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(MANY);
    let many = wanted.min(usize::try_from(files)?.saturating_sub(1000));
    let mut world = tokio::task::block_in_place(World::new)?;
    let members = enrol(&world, many).await?;
    tokio::task::block_in_place(|| world.start())?;
    let pid = world.server_pid()?;
    let (rss0, seen) = (rss(pid)?, Arc::<Seen>::default());
    let to: Address = format!("https://{}", world.agents).parse()?;
    let mut swarm = JoinSet::new();
    for (n, (id, config)) in members.into_iter().enumerate() {
        let (to, seen) = (to.clone(), seen.clone());
        let wait = ARRIVAL * u32::try_from(n)? / u32::try_from(many)?;
        swarm.spawn(async move {
            tokio::time::sleep(wait).await;
            member(id, &to, config, &seen).await;
        });
    }
    until(&seen, many).await?;
    kept(&seen, many).await?;
    let (cpu0, began) = (cpu(pid)?, Instant::now());
    tokio::time::sleep(STEADY).await;
    let load = (cpu(pid)? - cpu0) / began.elapsed().as_secs_f64() * 100.0;
    let kib = (rss(pid)? - rss0) / many as f64;
    let memory = format!("{many} links, their reports kept; {load:.1} % of a core while they beat");

    let reporting = reporting(&seen, pid, many).await?;

    // The controller dies and is started again at once.
    seen.welcomes.lock().await.clear();
    let before = seen.refused.load(Ordering::Relaxed);
    tokio::task::block_in_place(|| world.kill9())?;
    tokio::task::block_in_place(|| world.start())?;
    let up = Instant::now();
    until(&seen, many).await?;
    let mut at: Vec<Duration> = seen.welcomes.lock().await.iter().map(|t| t.saturating_duration_since(up)).collect();
    at.sort_unstable();
    let took = at.last().context("nobody")?.as_secs_f64();
    let mut a_second: HashMap<u64, usize> = HashMap::new();
    at.iter().for_each(|t| *a_second.entry(t.as_secs()).or_default() += 1);
    let peak = a_second.values().copied().max().unwrap_or(0) as f64;
    let uneven = peak / (many as f64 / took.max(1.0));
    let refused = seen.refused.load(Ordering::Relaxed) - before;
    let back = format!("{many} links, most in a second {peak:.0}, peak/mean {uneven:.1}, refused {refused}");
    let rows = vec![
        own(0, kib, kib <= 32.0 && many == MANY, memory),
        own(1, took, took <= 60.0 && uneven < 3.0 && refused == 0 && many == MANY, back),
        reporting,
    ];

    // All lines end without a word.
    let store = Store::open(&world.database(), Bus::default()).await?;
    swarm.abort_all();
    while swarm.join_next().await.is_some() {}
    let (ended, limit) = (Instant::now(), Duration::from_secs(200));
    loop {
        let counts = store.endpoint_counts().await?;
        let silent: i64 = counts.iter().filter(|(_, state, _)| state == "silent").map(|(.., n)| n).sum();
        if usize::try_from(silent)? == many {
            break;
        }
        ensure!(ended.elapsed() < limit, "silence was not noticed: {counts:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // A beat may have been sent up to half a minute before the end.
    let noticed = ended.elapsed().as_secs_f64();
    let how = format!("the last of {many} that fell silent at once, after its end");
    Ok(rows.into_iter().chain([own(2, noticed, noticed <= 80.0, how)]).collect())
}

/// What a minute of reports and beats takes of the controller, as a share of a core.
async fn reporting(seen: &Seen, pid: u32, many: usize) -> Result<Row> {
    seen.reports.store(true, Ordering::Relaxed);
    // Each has its own second of the minute.
    tokio::time::sleep(DELTA).await;
    let (cpu0, kept0, began) = (cpu(pid)?, seen.kept.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(REPORTING).await;
    let took = began.elapsed().as_secs_f64();
    let (load, kept) = ((cpu(pid)? - cpu0) / took * 100.0, seen.kept.load(Ordering::Relaxed) - kept0);
    seen.reports.store(false, Ordering::Relaxed);
    let a_second = kept as f64 / took;
    // As many must have been kept as there are members, each minute.
    let all = kept as f64 >= 0.95 * many as f64 * took / DELTA.as_secs_f64();
    let how = format!(
        "{many} links, a beat each half minute, a packed delta each minute; {a_second:.0} reports a second kept"
    );
    Ok(own(3, load, load <= 50.0 && all && many == MANY, how))
}

/// Puts endpoints into the controller's database and makes their certificates.
async fn enrol(world: &World, many: usize) -> Result<Vec<(EndpointId, Arc<rustls::ClientConfig>)>> {
    let now = Clock::system().now();
    let ca = DeviceCa::open(world.path(), now)?;
    let store = Store::open(&world.database(), Bus::default()).await?;
    let mut tx = store.begin().await?;
    // One key for all: making keys is not what is measured.
    let request = Request::new()?;
    let mut members = Vec::new();
    for n in 0..many {
        let id = EndpointId(Uuid::now_v7());
        tx.add_endpoint(id, &format!("pc-{n}"), "00004", &json!({}), now.plus(Duration::from_secs(86_400)), now)
            .await?;
        let identity = Identity {
            controller: format!("https://{}", world.agents),
            endpoint_id: id,
            key_pem: request.key_pem(),
            issued: ca.sign(&request.csr_pem, id, now)?,
            connects: 0,
            copy: None,
        };
        members.push((id, tls::link(&identity)?));
    }
    tx.commit().await?;
    Ok(members)
}

async fn until(seen: &Seen, many: usize) -> Result<()> {
    let began = Instant::now();
    loop {
        let n = seen.welcomes.lock().await.len();
        if n >= many {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{n} of {many} came, {} were refused",
            seen.refused.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn kept(seen: &Seen, many: usize) -> Result<()> {
    let began = Instant::now();
    while seen.kept.load(Ordering::Relaxed) < many {
        ensure!(began.elapsed() < PATIENCE, "{} of {many} reports were kept", seen.kept.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// One endpoint, for as long as it is let.
async fn member(id: EndpointId, to: &Address, config: Arc<rustls::ClientConfig>, seen: &Seen) {
    let begun = Instant::now();
    let mut machine = Machine::new(Duration::ZERO, id.0.as_u128() as u64);
    let mut link: Option<Link> = None;
    let mut batch = 0;
    let (mut dictionary, mut delta) = (0, begun + DELTA.mul_f64(f64::from(id.0.as_u128() as u16) / 65_536.0));
    loop {
        if Instant::now() >= delta {
            delta += DELTA;
            if let Some(l) = link.as_mut().filter(|_| seen.reports.load(Ordering::Relaxed)) {
                batch += 1;
                let message = AgentMessage::Report(Box::new(changed(batch)));
                if l.send_packed(&message, dictionary).await.is_err() {
                    link = None;
                    machine.lost(begun.elapsed());
                }
            }
        }
        while let Some(due) = machine.due(begun.elapsed()) {
            let sent = match (due, &mut link) {
                (Due::Open, _) => {
                    match tokio::time::timeout(Duration::from_secs(20), Link::open(to, config.clone())).await {
                        Ok(Ok(open)) => {
                            link = Some(open);
                            machine.opened(begun.elapsed());
                            true
                        }
                        Ok(Err(_)) | Err(_) => false,
                    }
                }
                (Due::Drop(_), _) => {
                    link = None;
                    true
                }
                (Due::Hello, Some(l)) => l.send(&AgentMessage::Hello(hello(batch))).await.is_ok(),
                (Due::Beat { seq, rtt_us }, Some(l)) => l.beat(&Beat { seq, at_ms: wall(), rtt_us }).await.is_ok(),
                _ => true,
            };
            if !sent {
                link = None;
                machine.lost(begun.elapsed());
            }
        }
        let wake = delta.min(begun + machine.wake());
        let message = async {
            match &mut link {
                Some(l) => l.next().await,
                None => std::future::pending().await,
            }
        };
        let message = tokio::select! {
            message = message => message,
            () = tokio::time::sleep_until(wake) => continue,
        };
        let Ok(message) = message else {
            link = None;
            machine.lost(begun.elapsed());
            continue;
        };
        match machine.heard(begun.elapsed(), wall(), message) {
            Heard::Welcome => seen.welcomes.lock().await.push(Instant::now()),
            Heard::Refused(_) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                link = None;
            }
            Heard::Plan(plan) => {
                dictionary = plan.dictionary;
                batch += 1;
                let report = AgentMessage::Report(Box::new(keyframe(batch)));
                if let Some(l) = &mut link
                    && l.send_packed(&report, packed::DICTIONARY).await.is_err()
                {
                    link = None;
                    machine.lost(begun.elapsed());
                }
            }
            Heard::Kept(_) => _ = seen.kept.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }
}

fn wall() -> i64 {
    Clock::system().now().micros() / 1000
}

fn hello(connects: u64) -> Hello {
    Hello {
        versions: version::OURS,
        agent_version: "0.1.0".into(),
        at_ms: wall(),
        hostname: "mot-cua".into(),
        os: "Debian GNU/Linux 12".into(),
        kernel: "6.1".into(),
        arch: "x86_64".into(),
        boot_id: "b".into(),
        connects,
        instance: None,
        key: None,
    }
}

/// What an office computer says after each connect: about 4 KiB.
pub(super) fn keyframe(seq: u64) -> Report {
    let check = |n: usize| CheckResult {
        check: format!("check_{n}"),
        state: CheckState::Ok,
        code: format!("check_{n}_ok"),
        params: [("percent".to_owned(), n.to_string())].into(),
        for_ms: 60_000,
    };
    let item = |n: usize| Item {
        id: format!("1-{n}"),
        kind: "usb".into(),
        name: Some("HP LaserJet".into()),
        facts: [("serial", "A1"), ("speed_mbit", "480")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    };
    let record = Record {
        seq,
        mono_ms: seq,
        at_ms: wall(),
        key: true,
        gauges: (0..20_u8).map(|n| (format!("gauge_{n}"), Some(f32::from(n)))).collect(),
        inventory: [("usb".to_owned(), (0..8).map(item).collect())].into(),
        checks: (0..36).map(check).collect(),
        ..Record::default()
    };
    Report { batch: seq, boot: "b".into(), mono_ms: Some(seq), at_ms: wall(), records: vec![record], rides: false }
}

/// What it says each minute: what left its dead band.
fn changed(seq: u64) -> Report {
    let gauge = |n: u8| (format!("gauge_{n}"), Some(f32::from(n) + (seq % 7) as f32));
    let record = Record { seq, mono_ms: seq, at_ms: wall(), gauges: (0..10).map(gauge).collect(), ..Record::default() };
    Report { batch: seq, boot: "b".into(), mono_ms: Some(seq), at_ms: wall(), records: vec![record], rides: false }
}

/// Resident set, KiB.
fn rss(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}
