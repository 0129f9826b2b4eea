//! `relay.*` and `ticket.*`: the gateway against websockify, before the same desktop and behind the same viewer.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tram_controller::services::broker;

use super::backend::{Backend, Does};
use super::client::{self, Stream};
use super::gateway_process::{Process, memory_kib};
use super::{Row, median};
use crate::office::Office;

const ROUNDS: usize = 5;
/// Bytes a round carries.
const CARRIED: u64 = 512 << 20;
const IDLE: usize = 200;
const IDLE_ANCHOR: usize = 10;
const OPENINGS: usize = 200;
/// p50 from connect to first byte of OpenUDS's tunnel, measured on this class of machine (the lower end).
const OPENUDS_MS: f64 = 4.3;

pub(super) const PATH: &str = "/gateway/v1/vnc";

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if wanted("relay.ws_down") {
        let row = through("relay.ws_down", Does::Flood, ">= 1x", 1.0).await;
        rows.push(row.unwrap_or_else(|e| Row::failed("relay.ws_down", "MB/s", ">= 1x", &e)));
    }
    if wanted("relay.ws_up") {
        let row = through("relay.ws_up", Does::Sink, ">= 2x", 2.0).await;
        rows.push(row.unwrap_or_else(|e| Row::failed("relay.ws_up", "MB/s", ">= 2x", &e)));
    }
    if wanted("relay.idle_session_kib") {
        let row = idle().await;
        rows.push(row.unwrap_or_else(|e| Row::failed("relay.idle_session_kib", "KiB", "<= 150 KiB", &e)));
    }
    if wanted("ticket.first_byte_ms") {
        let row = first_byte().await;
        rows.push(row.unwrap_or_else(|e| Row::failed("ticket.first_byte_ms", "ms", "<= 1x", &e)));
    }
    rows
}

/// websockify before a UNIX socket; ends with it.
struct Websockify(Child, String);

impl Drop for Websockify {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Websockify {
    fn start(display: &Path) -> Result<Self> {
        // A port that was free a moment ago; websockify can't choose one itself.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("websockify")
            .arg(format!("--unix-target={}", display.display()))
            .arg(&address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("websockify is not installed; run `make setup`")?;
        let it = Self(child, address);
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&it.1).is_err() {
            ensure!(Instant::now() < until, "websockify did not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(it)
    }

    fn open(&self) -> Result<Stream> {
        client::upgrade(&self.1, "/", "binary", None)
    }
}

pub(super) async fn ticket(gateway: &Process, n: usize) -> Result<String> {
    let (_, ticket) = broker::connect(&gateway.office.app, &gateway.office.officer(n), &Office::browser(n)).await?;
    Ok(ticket.context("the desktop runs")?.secret.reveal().to_owned())
}

/// What a browser offers; its cookie goes along with the protocols, on a header line of its own.
pub(super) fn offer(ticket: &str, n: usize) -> String {
    format!("binary, {ticket}\r\nCookie: tram_session={}", Office::cookie(n))
}

async fn open(gateway: &Process, n: usize) -> Result<Stream> {
    let protocols = offer(&ticket(gateway, n).await?, n);
    client::upgrade(&gateway.address, PATH, &protocols, gateway.certificate.as_ref())
}

/// Throughput of both relays, in turns.
async fn through(row: &'static str, does: Does, goal: &'static str, least: f64) -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(folder.path(), does)?;
    let gateway = Process::start(folder.path(), &backend.path, 1, false).await?;
    let websockify = Websockify::start(&backend.path)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for (stream, rates) in [(open(&gateway, 0).await?, &mut ours), (websockify.open()?, &mut theirs)] {
            rates.push(rate(stream, &backend, does)?);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(Row {
        row,
        ours: Some(ours),
        anchor: Some(theirs),
        anchor_name: "websockify".into(),
        ratio: Some(ours / theirs),
        unit: "MB/s",
        goal,
        ok: ours / theirs >= least,
    })
}

/// MB/s of one connection.
fn rate(mut stream: Stream, backend: &Backend, does: Does) -> Result<f64> {
    client::shake_hands(&mut stream)?;
    let mut carried = 0;
    let _ = backend.swallowed();
    let began = Instant::now();
    if does == Does::Flood {
        let mut buffer = vec![0; 256 * 1024];
        while carried < CARRIED {
            let n = stream.read(&mut buffer)?;
            ensure!(n > 0, "the relay closed");
            carried += n as u64;
        }
    } else {
        let (frames, payload) = client::input();
        while carried < CARRIED {
            stream.write_all(&frames)?;
            carried += payload;
        }
        backend.wait_for(carried);
    }
    Ok(carried as f64 / 1e6 / began.elapsed().as_secs_f64())
}

/// Memory of a connected viewer for whom nothing moves, through TLS as in service.
async fn idle() -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(folder.path(), Does::Rest)?;
    let gateway = Process::start(folder.path(), &backend.path, IDLE + 1, true).await?;
    let websockify = Websockify::start(&backend.path)?;
    // The first session pays for what all share.
    let mut held = vec![settled(open(&gateway, IDLE).await?)?];
    let before = gateway.memory_kib()?;
    for n in 0..IDLE {
        held.push(settled(open(&gateway, n).await?)?);
    }
    std::thread::sleep(Duration::from_secs(3));
    let ours = gateway.memory_kib()?.saturating_sub(before) as f64 / IDLE as f64;
    for _ in 0..IDLE_ANCHOR {
        held.push(settled(websockify.open()?)?);
    }
    let theirs = children(websockify.0.id())?.iter().map(|p| memory_kib(*p)).sum::<Result<u64>>()? as f64;
    let theirs = theirs / IDLE_ANCHOR as f64;
    Ok(Row {
        row: "relay.idle_session_kib",
        ours: Some(ours),
        anchor: Some(theirs),
        anchor_name: "websockify without TLS, Pss of its process per viewer".into(),
        ratio: Some(ours / theirs),
        unit: "KiB",
        goal: "<= 150 KiB",
        ok: ours <= 150.0,
    })
}

/// Through the handshake and the first update.
fn settled(mut stream: Stream) -> Result<Stream> {
    client::shake_hands(&mut stream)?;
    // ServerInit with its name and one update, in one frame or two.
    let mut left = 28 + 20;
    while left > 0 {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[1])];
        stream.read_exact(&mut payload)?;
        left -= payload.len();
    }
    Ok(stream)
}

fn children(of: u32) -> Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"))?;
    Ok(text.split_whitespace().filter_map(|p| p.parse().ok()).collect())
}

/// From connect to the first byte of the desktop: the ticket redeemed, the display opened and greeted.
async fn first_byte() -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(folder.path(), Does::Rest)?;
    let gateway = Process::start(folder.path(), &backend.path, 1, true).await?;
    let (mut opened, mut issued) = (Vec::new(), Vec::new());
    for n in 0..OPENINGS + 10 {
        let began = Instant::now();
        let ticket = ticket(&gateway, 0).await?;
        let issue = began.elapsed();
        let began = Instant::now();
        let stream = client::upgrade(&gateway.address, PATH, &offer(&ticket, 0), gateway.certificate.as_ref())?;
        // The first ten warm up both processes.
        if n >= 10 {
            opened.push(began.elapsed().as_secs_f64() * 1e3);
            issued.push(issue.as_secs_f64() * 1e3);
        }
        drop(stream);
    }
    opened.sort_by(f64::total_cmp);
    let (p50, p99) = (opened[OPENINGS / 2], opened[OPENINGS * 99 / 100]);
    Ok(Row {
        row: "ticket.first_byte_ms",
        ours: Some(p50),
        anchor: Some(OPENUDS_MS),
        anchor_name: format!(
            "OpenUDS's tunnel, connect to first byte, p50 (ours with TLS: p99 {p99:.1} ms; issuing the ticket p50 {:.1} ms)",
            median(issued)
        ),
        ratio: Some(p50 / OPENUDS_MS),
        unit: "ms",
        goal: "<= 1x",
        ok: p50 <= OPENUDS_MS,
    })
}
