//! Rows of the agent, against `prometheus-node-exporter` scraped every 15 s in the same minute.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tram_wire::packed;

use super::Row;
use crate::device::Console;
use crate::world::{World, free_address};

const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";
const MINUTE: Duration = Duration::from_secs(60);
const SCRAPE: Duration = Duration::from_secs(15);

/// The rows whose names are wanted.
pub fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let names = [
        ("agent.pss", "MiB", "<= 0.5x"),
        ("agent.cpu", "s/min", "<= 0.4x"),
        ("agent.binary", "MB", "<= 0.45x"),
        ("agent.wan_kb_h", "kB/h", "<= 40 kB/h"),
        ("doctor.s", "s", "< 5 s"),
        ("diagnosis.ping_s", "s", "< 3 s"),
    ];
    let names: Vec<_> = names.into_iter().filter(|(n, ..)| wanted(n)).collect();
    if names.is_empty() {
        return vec![];
    }
    match measure() {
        Ok(all) => all.into_iter().filter(|r| wanted(r.row)).collect(),
        Err(e) => names.into_iter().map(|(n, unit, goal)| Row::failed(n, unit, goal, &e)).collect(),
    }
}

/// A child that ends with this.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure() -> Result<Vec<Row>> {
    let binary = build()?;
    let mut world = World::new()?;
    world.start()?;
    let token = world.json(&["admin", "endpoint", "token", "--site", "00004", "--json"])?;
    let state = world.path().join("agent");
    let wan = Wan::to(world.agents)?;
    let controller = format!("https://{}", wan.at);
    let enrolled = Command::new(&binary)
        .args(["enrol", "--controller", &controller, "--token", token["token"].as_str().context("token")?, "--state"])
        .arg(&state)
        .output()?;
    ensure!(enrolled.status.success(), "enrolment: {}", String::from_utf8_lossy(&enrolled.stderr));
    let quiet = |c: &mut Command| c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let agent = Guard(quiet(Command::new(&binary).arg("run").arg("--state").arg(&state))?);
    let address = free_address()?;
    let exporter = Guard(
        quiet(Command::new(EXPORTER).arg(format!("--web.listen-address={address}")))
            .context("prometheus-node-exporter is not installed; run `make setup`")?,
    );
    world.until("the agent is online", |w| {
        Ok(w.json(&["admin", "endpoint", "list", "--json"])?[0]["state"] == "online")
    })?;
    scrape(address)?;
    // The first minute has the start in it.
    watch(address, MINUTE / 2)?;
    let (bytes0, began) = (wan.bytes(), Instant::now());
    let (a0, e0) = (cpu(agent.0.id())?, cpu(exporter.0.id())?);
    watch(address, MINUTE)?;
    let (a1, e1) = (cpu(agent.0.id())?, cpu(exporter.0.id())?);
    let hour = Duration::from_secs(3600).as_secs_f64() / began.elapsed().as_secs_f64();
    let ledger = std::fs::read_to_string(state.join("ledger.jsonl")).unwrap_or_default();
    // A minute has no keyframe in it, an hour has four.
    let keyframe = ledger.lines().filter(|l| l.contains("key\\\":true") || l.contains("\"key\":true"));
    let keyframe =
        keyframe.map(|l| packed::pack_with(l, packed::DICTIONARY).map_or(l.len(), |p| p.len())).max().unwrap_or(0);
    let kb_h = ((wan.bytes() - bytes0) as f64 * hour + 4.0 * keyframe as f64) / 1e3;
    let begun = Instant::now();
    let doctor = quiet(Command::new(&binary).args(["doctor", "--json"]).arg("--state").arg(&state))?.wait()?;
    let doctor_s = begun.elapsed().as_secs_f64();
    ensure!(doctor.code().is_some_and(|c| c <= 2), "doctor: {doctor}");
    let ping_s = ping_bundle(&world)?;
    let own = |row, ours: f64, unit, goal, ok| Row {
        row,
        ours: Some(ours),
        anchor: None,
        anchor_name: String::new(),
        ratio: None,
        unit,
        goal,
        ok,
    };
    let size = |p: &Path| Ok::<_, anyhow::Error>(std::fs::metadata(p)?.len() as f64 / 1e6);
    Ok(vec![
        row("agent.pss", pss(agent.0.id())?, pss(exporter.0.id())?, "MiB", "<= 0.5x", 0.5),
        row("agent.cpu", a1 - a0, e1 - e0, "s/min", "<= 0.4x", 0.4),
        row("agent.binary", size(&binary)?, size(Path::new(EXPORTER))?, "MB", "<= 0.45x", 0.45),
        own("agent.wan_kb_h", kb_h, "kB/h", "<= 40 kB/h", kb_h <= 40.0),
        own("doctor.s", doctor_s, "s", "< 5 s", doctor_s < 5.0),
        own("diagnosis.ping_s", ping_s, "s", "< 3 s", ping_s < 3.0),
    ])
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
    took.sort_by(f64::total_cmp);
    Ok(took[2])
}

/// A line to the controller that counts what it carries, with the headers a real one would add.
struct Wan {
    at: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Wan {
    fn to(controller: SocketAddr) -> Result<Self> {
        /// Ethernet's payload: IP and TCP with timestamps, and the acknowledgement that comes back.
        const HEADERS: u64 = 52 + 52;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (at, bytes) = (listener.local_addr()?, Arc::<AtomicU64>::default());
        let count = bytes.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(controller) else { continue };
                for (mut from, mut to) in [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))]
                    .into_iter()
                    .filter_map(|(f, t)| Some((f.ok()?, t.ok()?)))
                {
                    let count = count.clone();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16_384];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            count.fetch_add(n as u64 + HEADERS, Ordering::Relaxed);
                            if to.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Ok(Self { at, bytes })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The agent as it is shipped.
fn build() -> Result<PathBuf> {
    let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--quiet", "--locked", "--profile", "agent", "-p", "tram-agent"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()?;
    ensure!(built.success(), "the agent does not build");
    let here = std::env::current_exe()?;
    Ok(here.ancestors().nth(2).context("no target folder")?.join("agent/tram-agent"))
}

fn row(row: &'static str, ours: f64, anchor: f64, unit: &'static str, goal: &'static str, most: f64) -> Row {
    let anchor_name = "prometheus-node-exporter".into();
    Row {
        row,
        ours: Some(ours),
        anchor: Some(anchor),
        anchor_name,
        ratio: Some(ours / anchor),
        unit,
        goal,
        ok: ours <= most * anchor,
    }
}

fn watch(exporter: SocketAddr, length: Duration) -> Result<()> {
    let until = Instant::now() + length;
    while Instant::now() < until {
        std::thread::sleep(SCRAPE);
        scrape(exporter)?;
    }
    Ok(())
}

fn scrape(exporter: SocketAddr) -> Result<()> {
    let mut last = None;
    for _ in 0..50 {
        match std::net::TcpStream::connect(exporter) {
            Ok(mut s) => {
                write!(s, "GET /metrics HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")?;
                s.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
            Err(e) => last = Some(e),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(last.context("no try")?.into())
}

/// Proportional set size, MiB.
fn pss(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|l| l.starts_with("Pss:")).context("no Pss")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib / 1024.0)
}

/// Processor seconds used so far, from the scheduler's own nanoseconds of every thread: clock ticks are
/// too coarse for something that uses a few milliseconds a minute.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let mut ns = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        ns += text.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
    }
    Ok(ns / 1e9)
}
