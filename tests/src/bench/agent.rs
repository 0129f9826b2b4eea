//! Rows of the agent, against `prometheus-node-exporter` scraped every 15 s in the same minute.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Row;
use crate::world::{World, free_address};

const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";
const MINUTE: Duration = Duration::from_secs(60);
const SCRAPE: Duration = Duration::from_secs(15);

/// The rows whose names are wanted.
pub fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let names =
        [("agent.pss", "MiB", "<= 0.5x"), ("agent.cpu", "s/min", "<= 0.4x"), ("agent.binary", "MB", "<= 0.45x")];
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
    let controller = format!("https://{}", world.agents);
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
    let (a0, e0) = (cpu(agent.0.id())?, cpu(exporter.0.id())?);
    watch(address, MINUTE)?;
    let (a1, e1) = (cpu(agent.0.id())?, cpu(exporter.0.id())?);
    let size = |p: &Path| Ok::<_, anyhow::Error>(std::fs::metadata(p)?.len() as f64 / 1e6);
    Ok(vec![
        row("agent.pss", pss(agent.0.id())?, pss(exporter.0.id())?, "MiB", "<= 0.5x", 0.5),
        row("agent.cpu", a1 - a0, e1 - e0, "s/min", "<= 0.4x", 0.4),
        row("agent.binary", size(&binary)?, size(Path::new(EXPORTER))?, "MB", "<= 0.45x", 0.45),
    ])
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
