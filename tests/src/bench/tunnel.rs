//! `tunnel.*`: the tunnel against a plain relay of two hops with TLS between them, before the same server.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::agent::cpu;
use super::line::Hops;
use super::{Row, median};

const ROUNDS: usize = 5;
/// Bytes a round carries.
const CARRIED: u64 = 512 << 20;
const OPENINGS: usize = 400;
/// How long openings are counted, and by how many clients.
const COUNTED: Duration = Duration::from_secs(5);
const CLIENTS: usize = 16;
/// p50 from connect to first byte of OpenUDS's tunnel, and its openings a second, measured on this class of
/// machine (the better end of each).
const OPENUDS_MS: f64 = 4.3;
const OPENUDS_OPENS: f64 = 266.0;

/// The rows whose names are wanted.
pub fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if wanted("tunnel.down") || wanted("tunnel.cpu") {
        match down() {
            Ok(all) => rows.extend(all.into_iter().filter(|r| wanted(r.row))),
            Err(e) => {
                rows.push(Row::failed("tunnel.down", "GB/s", ">= 0.9x", &e));
                rows.push(Row::failed("tunnel.cpu", "s/GB", "<= 1.2x", &e));
            }
        }
    }
    if wanted("tunnel.first_byte_ms") {
        rows.push(first_byte().unwrap_or_else(|e| Row::failed("tunnel.first_byte_ms", "ms", "p50 < 1.5 ms", &e)));
    }
    if wanted("tunnel.opens_per_s") {
        rows.push(opens().unwrap_or_else(|e| Row::failed("tunnel.opens_per_s", "1/s", ">= 1500/s", &e)));
    }
    rows
}

/// A relay in a process of its own.
struct Relay {
    child: Child,
    address: String,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Relay {
    fn start(hops: Hops, backend: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hops")
            .arg(format!("{hops:?}").to_lowercase())
            .arg(backend)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().to_owned() })
    }
}

/// A server that says one byte to whoever connects, and then floods or rests.
fn server(folder: &Path, flood: bool) -> Result<PathBuf> {
    let path = folder.join(if flood { "flood" } else { "rest" });
    let listener = UnixListener::bind(&path)?;
    std::thread::spawn(move || {
        for mut s in listener.incoming().flatten() {
            std::thread::spawn(move || {
                s.write_all(&[1])?;
                let piece = vec![0x55; 256 * 1024];
                if !flood {
                    return s.read(&mut [0; 1]);
                }
                loop {
                    s.write_all(&piece)?;
                }
            });
        }
    });
    Ok(path)
}

fn down() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let backend = server(folder.path(), true)?;
    let relays = [Relay::start(Hops::Tunnel, &backend)?, Relay::start(Hops::Plain, &backend)?];
    let (mut rates, mut costs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=ROUNDS {
        for (n, relay) in relays.iter().enumerate() {
            let before = cpu(relay.child.id())?;
            let rate = rate(&relay.address)?;
            let cost = (cpu(relay.child.id())? - before) / (CARRIED as f64 / 1e9);
            // The first is a warm-up.
            if round > 0 {
                rates[n].push(rate);
                costs[n].push(cost);
            }
        }
    }
    let ([ours, theirs], [our_cost, their_cost]) = (rates.map(median), costs.map(median));
    let anchor_name = "two hops, tokio + rustls".to_owned();
    Ok(vec![
        Row {
            row: "tunnel.down",
            ours: Some(ours),
            anchor: Some(theirs),
            anchor_name: anchor_name.clone(),
            ratio: Some(ours / theirs),
            unit: "GB/s",
            goal: ">= 0.9x",
            ok: ours >= 0.9 * theirs,
        },
        Row {
            row: "tunnel.cpu",
            ours: Some(our_cost),
            anchor: Some(their_cost),
            anchor_name,
            ratio: Some(our_cost / their_cost),
            unit: "s/GB",
            goal: "<= 1.2x",
            ok: our_cost <= 1.2 * their_cost,
        },
    ])
}

/// GB/s of one connection.
fn rate(address: &str) -> Result<f64> {
    let mut stream = std::net::TcpStream::connect(address)?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut carried, began) = (0, Instant::now());
    while carried < CARRIED {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the relay closed");
        carried += n as u64;
    }
    Ok(carried as f64 / 1e9 / began.elapsed().as_secs_f64())
}

fn open(address: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.read_exact(&mut [0; 1])?;
    Ok(began.elapsed())
}

/// From a viewer's connection to the desktop's first byte, through an open tunnel.
fn first_byte() -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(Hops::Tunnel, &server(folder.path(), false)?)?;
    for _ in 0..20 {
        open(&relay.address)?;
    }
    let times: Result<Vec<f64>> = (0..OPENINGS).map(|_| Ok(open(&relay.address)?.as_secs_f64() * 1e3)).collect();
    let ours = median(times?);
    Ok(Row {
        row: "tunnel.first_byte_ms",
        ours: Some(ours),
        anchor: Some(OPENUDS_MS),
        anchor_name: "OpenUDS tunnel (recorded)".into(),
        ratio: Some(ours / OPENUDS_MS),
        unit: "ms",
        goal: "p50 < 1.5 ms",
        ok: ours < 1.5,
    })
}

/// Openings a second of several viewers of one tunnel, each to its first byte.
fn opens() -> Result<Row> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(Hops::Tunnel, &server(folder.path(), false)?)?;
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = relay.address.clone();
            std::thread::spawn(move || {
                let mut n = 0_u32;
                while began.elapsed() < COUNTED {
                    open(&address)?;
                    n += 1;
                }
                anyhow::Ok(n)
            })
        })
        .collect();
    let mut total = 0;
    for client in clients {
        total += client.join().map_err(|_| anyhow::anyhow!("a client fell over"))??;
    }
    let ours = f64::from(total) / began.elapsed().as_secs_f64();
    Ok(Row {
        row: "tunnel.opens_per_s",
        ours: Some(ours),
        anchor: Some(OPENUDS_OPENS),
        anchor_name: "OpenUDS tunnel (recorded)".into(),
        ratio: Some(ours / OPENUDS_OPENS),
        unit: "1/s",
        goal: ">= 1500/s",
        ok: ours >= 1500.0,
    })
}
