//! `redeem.per_s` and `sessions.idle_kib`: many officers at once.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tram_controller::clock::Clock;
use tram_controller::services::broker;

use super::Row;
use super::backend::{Backend, Does, UPDATE};
use super::client::{self, Stream};
use super::gateway_process::Process;
use super::relay::{PATH, offer, ticket};
use crate::db::{self, TestDb};
use crate::gate::masked;
use crate::office::{Office, Plan};

const REDEEM: &str = "redeem.per_s";
const REDEEM_GOAL: &str = ">= 500/s, p99 <= 10 ms";
const IDLE: &str = "sessions.idle_kib";
const IDLE_GOAL: &str = "<= 150 KiB";

const OFFICERS: usize = 500;
/// Redemptions under way at once.
const AT_ONCE: usize = 4;
const IDLE_SESSIONS: usize = 2_000;
const ACTIVE_SESSIONS: usize = 200;
/// How long the active ones work while memory is looked at.
const WORK: Duration = Duration::from_secs(10);
/// An active viewer asks so often: five pictures a second are a person who types.
const EVERY: Duration = Duration::from_millis(200);

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if wanted(REDEEM) {
        rows.push(redeem().await.unwrap_or_else(|e| Row::failed(REDEEM, "/s", REDEEM_GOAL, &e)));
    }
    if wanted(IDLE) {
        rows.push(idle().await.unwrap_or_else(|e| Row::failed(IDLE, "KiB", IDLE_GOAL, &e)));
    }
    rows
}

/// Redemptions a second and the 99th percentile, ms.
async fn redemptions(db: TestDb) -> Result<(f64, f64)> {
    let plan = Plan { desktops: OFFICERS, officers: OFFICERS, ..Plan::default() };
    let office = Arc::new(Office::build(&db.store, Clock::system(), plan).await?);
    let mut tickets = Vec::new();
    for n in 0..OFFICERS {
        let (_, ticket) = broker::connect(&office.app, &office.officer(n), &Office::browser(n)).await?;
        tickets.push((n, ticket.context("a warm desktop comes with a ticket")?.secret.reveal().to_owned()));
    }
    // As a gateway does before it takes anybody.
    db.store.warm().await?;
    let began = Instant::now();
    let mut tasks = Vec::new();
    for part in tickets.chunks(OFFICERS.div_ceil(AT_ONCE)) {
        let (office, part) = (office.clone(), part.to_vec());
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for (n, ticket) in part {
                let began = Instant::now();
                let opened = broker::redeem(&office.app, &ticket, &Office::browser(n), None).await?;
                opened.context("a fresh ticket is good")?;
                took.push(began.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(took)
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    Ok((rate, took[took.len() * 99 / 100]))
}

async fn redeem() -> Result<Row> {
    let (rate, p99) = redemptions(db::postgres().await?).await?;
    let (small_rate, small_p99) = redemptions(db::sqlite().await?).await?;
    Ok(Row {
        row: REDEEM,
        ours: Some(rate),
        anchor: None,
        anchor_name: format!(
            "PostgreSQL, {AT_ONCE} at once: p99 {p99:.1} ms (SQLite {small_rate:.0}/s, p99 {small_p99:.1} ms)"
        ),
        ratio: None,
        unit: "/s",
        goal: REDEEM_GOAL,
        ok: rate >= 500.0 && p99 <= 10.0,
    })
}

/// Memory of a session for whom nothing moves, while 200 others work: all through TLS, as in service.
async fn idle() -> Result<Row> {
    // Two descriptors of each session are this process's, three the gateway's, which inherits the limit.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most.min(65_536), most)?;
    ensure!(most >= 8_192, "no more than {most} files may be open here");
    let folder = tempfile::tempdir()?;
    let backend = Backend::start(folder.path(), Does::Change)?;
    let people = ACTIVE_SESSIONS + IDLE_SESSIONS;
    let gateway = Process::start(folder.path(), &backend.path, people, true).await?;
    let open = async |n: usize| {
        let protocols = offer(&ticket(&gateway, n).await?, n);
        let stream = client::upgrade(&gateway.address, PATH, &protocols, gateway.certificate.as_ref())?;
        settled(stream)
    };
    let (stop, pictures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut workers = Vec::new();
    for n in 0..ACTIVE_SESSIONS {
        let (mut stream, stop, pictures) = (open(n).await?, stop.clone(), pictures.clone());
        workers.push(std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                picture(&mut stream)?;
                pictures.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(EVERY);
            }
            anyhow::Ok(())
        })?);
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = gateway.memory_kib()?;
    let mut held = Vec::new();
    for n in ACTIVE_SESSIONS..people {
        held.push(open(n).await?);
    }
    let (began, drawn) = (Instant::now(), pictures.load(Ordering::SeqCst));
    std::thread::sleep(WORK);
    let rate = (pictures.load(Ordering::SeqCst) - drawn) as f64 / began.elapsed().as_secs_f64();
    let ours = gateway.memory_kib()?.saturating_sub(before) as f64 / IDLE_SESSIONS as f64;
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("an active viewer fell over"))?.context("an active viewer")?;
    }
    Ok(Row {
        row: IDLE,
        ours: Some(ours),
        anchor: Some(150.0),
        anchor_name: format!(
            "the limit; {IDLE_SESSIONS} idle, and {ACTIVE_SESSIONS} active ones drew {rate:.0} pictures/s beside them"
        ),
        ratio: Some(ours / 150.0),
        unit: "KiB",
        goal: IDLE_GOAL,
        ok: ours <= 150.0,
    })
}

/// Through the handshake and the first picture.
fn settled(mut stream: Stream) -> Result<Stream> {
    client::shake_hands(&mut stream)?;
    // ServerInit with its name.
    payload(&mut stream, 28)?;
    picture(&mut stream)?;
    Ok(stream)
}

fn picture(stream: &mut Stream) -> Result<()> {
    stream.write_all(&masked(0x82, &[3, 1, 0, 0, 0, 0, 4, 0, 3, 0]))?;
    stream.flush()?;
    payload(stream, UPDATE)
}

/// Reads so much payload; answers pings.
fn payload(stream: &mut Stream, mut left: usize) -> Result<()> {
    while left > 0 {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let mut length = [0, head[1]];
        if head[1] == 126 {
            stream.read_exact(&mut length)?;
        }
        let mut payload = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut payload)?;
        match head[0] {
            0x82 => left = left.checked_sub(payload.len()).context("more than was asked for")?,
            0x89 => stream.write_all(&masked(0x8a, &payload))?,
            other => anyhow::bail!("frame {other:#x}"),
        }
    }
    Ok(())
}
