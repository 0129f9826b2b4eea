//! `thin.*` and `mux.*`: the tunnel on a line of 4/1 Mbit/s with 80 ms round trip, and on one of 300 ms, against
//! plain connections on the same line in the same run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tram_wire::tunnel::Class;

use super::Row;
use super::line::Tls;
use crate::thin::{ThinLine, Way};

/// How long a line is watched, and from when on it counts.
pub(super) const WATCHED: Duration = Duration::from_secs(14);
const SETTLED: Duration = Duration::from_secs(1);
/// Between two interactive frames, and their length.
pub(super) const BEAT: Duration = Duration::from_millis(50);
pub(super) const SMALL: usize = 64;
const BULK: usize = 4096;

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let names = [("thin.p95_loss0_ms", 0, 150.0, "<= 150 ms"), ("thin.p95_loss1_ms", 10, 250.0, "<= 250 ms")];
    let (mut goodput, mut plain_goodput) = (Vec::new(), Vec::new());
    for (row, loss, most, goal) in names {
        if !wanted(row) && !wanted("thin.goodput_mbit") {
            continue;
        }
        match both(loss).await {
            Ok((ours, plain)) => {
                goodput.push(ours.mbit);
                plain_goodput.push(plain.mbit);
                rows.push(Row {
                    row,
                    ours: Some(ours.p95_ms),
                    anchor: Some(plain.p95_ms),
                    anchor_name: "plain TLS relay, cubic".into(),
                    ratio: Some(ours.p95_ms / plain.p95_ms),
                    unit: "ms",
                    goal,
                    ok: ours.p95_ms <= most,
                });
            }
            Err(e) => rows.push(Row::failed(row, "ms", goal, &e)),
        }
    }
    if wanted("thin.goodput_mbit") {
        let least = |v: &[f64]| v.iter().copied().reduce(f64::min);
        let (ours, plain) = (least(&goodput), least(&plain_goodput));
        rows.push(Row {
            row: "thin.goodput_mbit",
            ours,
            anchor: plain,
            anchor_name: "plain TLS relay, cubic (the worse of both losses)".into(),
            ratio: ours.zip(plain).map(|(o, p)| o / p),
            unit: "Mbit/s",
            goal: ">= 3.6 Mbit/s",
            ok: goodput.len() == 2 && ours.is_some_and(|o| o >= 3.6),
        });
    }
    if wanted("mux.rtt300") {
        let goal = ">= 0.9x";
        rows.push(far().await.unwrap_or_else(|e| Row::failed("mux.rtt300", "Mbit/s", goal, &e)));
    }
    rows
}

/// What came of one watch.
pub(super) struct Outcome {
    pub(super) mbit: f64,
    pub(super) p95_ms: f64,
}

async fn both(loss: u64) -> Result<(Outcome, Outcome)> {
    let way = |bits| Way { bits, buffer: 200_000, delay: Duration::from_millis(40), loss };
    let line = tokio::task::block_in_place(|| ThinLine::new(way(4_000_000), way(1_000_000)))?;
    let ours = ours(&line).await.context("the tunnel")?;
    let plain = plain(&line).await.context("the plain relay")?;
    Ok((ours, plain))
}

/// Both ends of a TCP connection over the line: near, far.
pub(super) async fn connection(line: &ThinLine) -> Result<(TcpStream, TcpStream)> {
    tokio::task::block_in_place(|| {
        let listener = line.listen()?;
        let far = line.connect(listener.local_addr()?)?;
        let (near, _) = listener.accept()?;
        let ready = |s: std::net::TcpStream| {
            s.set_nonblocking(true)?;
            s.set_nodelay(true)?;
            TcpStream::from_std(s)
        };
        Ok((ready(near)?, ready(far)?))
    })
}

/// Counts what arrives.
pub(super) struct Watch {
    pub(super) began: Instant,
    pub(super) bytes: Arc<AtomicU64>,
    late_ms: Vec<f64>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), bytes: Arc::default(), late_ms: Vec::new() }
    }

    pub(super) fn stamp(began: Instant) -> [u8; SMALL] {
        let mut frame = [0; SMALL];
        frame[..8].copy_from_slice(&(began.elapsed().as_micros() as u64).to_be_bytes());
        frame
    }

    pub(super) fn arrived(&mut self, frame: &[u8]) {
        let sent = frame.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        let now = self.began.elapsed();
        if now >= SETTLED {
            self.late_ms.push((now.as_micros() as u64).saturating_sub(sent) as f64 / 1e3);
        }
    }

    pub(super) fn outcome(mut self, settled_bytes: u64) -> Result<Outcome> {
        self.late_ms.sort_by(f64::total_cmp);
        let at = self.late_ms.len() * 95 / 100;
        let p95_ms = *self.late_ms.get(at).context("nothing interactive arrived")?;
        let seconds = (WATCHED - SETTLED).as_secs_f64();
        let bytes = self.bytes.load(Ordering::Relaxed) - settled_bytes;
        Ok(Outcome { mbit: bytes as f64 * 8.0 / 1e6 / seconds, p95_ms })
    }
}

pub(super) async fn swallow<R: AsyncRead + Unpin>(mut from: R, bytes: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(n as u64, Ordering::Relaxed);
    }
}

async fn flood<W: AsyncWrite + Unpin>(mut to: W) {
    while to.write_all(&[7; BULK]).await.is_ok() {}
}

async fn ours(line: &ThinLine) -> Result<Outcome> {
    let (near, far) = connection(line).await?;
    let (gateway, agent) = Tls::new()?.tunnel(near, far).await?;
    let bulk = agent.open(Class::Bulk, Class::Bulk, b"bulk")?;
    let mut input = agent.open(Class::Input, Class::Input, b"input")?;
    let (to_bulk, _) = gateway.accept().await.context("bulk")?;
    let (mut to_input, _) = gateway.accept().await.context("input")?;
    let mut watch = Watch::new();
    let (began, bytes) = (watch.began, watch.bytes.clone());
    let (_, bulk_writer) = to_bulk.into_split();
    let tasks = [
        tokio::spawn(flood(bulk_writer)),
        tokio::spawn(swallow(bulk, bytes.clone())),
        tokio::spawn(async move {
            let mut beat = interval(BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                beat.tick().await;
                if to_input.write_all(&Watch::stamp(began)).await.is_err() {
                    return;
                }
            }
        }),
    ];
    let settled = count_settled(bytes);
    let read = async {
        let mut frame = [0; SMALL];
        while input.read_exact(&mut frame).await.is_ok() {
            watch.arrived(&frame);
        }
    };
    let _ = timeout(WATCHED, read).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    agent.close();
    gateway.close();
    watch.outcome(settled.await?)
}

/// What had arrived when the watch began to count.
pub(super) fn count_settled(bytes: Arc<AtomicU64>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        sleep(SETTLED).await;
        bytes.load(Ordering::Relaxed)
    })
}

/// One TLS connection as it comes: cubic, no limit of unsent data; the sender puts interactive frames first.
async fn plain(line: &ThinLine) -> Result<Outcome> {
    let (near, far) = connection(line).await?;
    SockRef::from(&near).set_tcp_congestion(b"cubic")?;
    let tls = Tls::new()?;
    let (mut near, mut far) = tokio::try_join!(tls.accept(near), tls.connect(far))?;
    let mut watch = Watch::new();
    let (began, bytes) = (watch.began, watch.bytes.clone());
    let sender = tokio::spawn(async move {
        let mut beat = interval(BEAT);
        loop {
            let sent = tokio::select! {
                biased;
                _ = beat.tick() => near.write_all(&[&[1][..], &Watch::stamp(began)].concat()).await,
                () = std::future::ready(()) => near.write_all(&[&[0][..], &[7; BULK]].concat()).await,
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let settled = count_settled(bytes.clone());
    let read = async {
        loop {
            match far.read_u8().await {
                Ok(1) => {
                    let mut frame = [0; SMALL];
                    far.read_exact(&mut frame).await?;
                    watch.arrived(&frame);
                }
                Ok(_) => {
                    far.read_exact(&mut [0; BULK]).await?;
                    bytes.fetch_add(BULK as u64, Ordering::Relaxed);
                }
                Err(e) => return Err::<(), std::io::Error>(e),
            }
        }
    };
    let _ = timeout(WATCHED, read).await;
    sender.abort();
    watch.outcome(settled.await?)
}

/// One stream of a tunnel, and one plain TCP connection, at 300 ms.
async fn far() -> Result<Row> {
    let way = Way { bits: 40_000_000, buffer: 4 << 20, delay: Duration::from_millis(150), loss: 0 };
    let line = tokio::task::block_in_place(|| ThinLine::new(way, way))?;
    // Both by BBR, where the kernel has it: the mux is measured, not congestion control.
    let (mut near, far) = connection(&line).await?;
    let _ = SockRef::from(&near).set_tcp_congestion(b"bbr");
    let bytes = Arc::<AtomicU64>::default();
    let tasks = [
        tokio::spawn(swallow(far, bytes.clone())),
        tokio::spawn(async move { while near.write_all(&[7; 65_536]).await.is_ok() {} }),
    ];
    let plain = mbit(&bytes).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    drop(line);
    let line = tokio::task::block_in_place(|| ThinLine::new(way, way))?;
    let (near, far) = connection(&line).await?;
    let (gateway, agent) = Tls::new()?.tunnel(near, far).await?;
    let stream = agent.open(Class::Display, Class::Display, b"")?;
    let (to, _) = gateway.accept().await.context("a stream")?;
    let bytes = Arc::<AtomicU64>::default();
    let tasks = [tokio::spawn(swallow(stream, bytes.clone())), tokio::spawn(flood(to))];
    let ours = mbit(&bytes).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    agent.close();
    gateway.close();
    Ok(Row {
        row: "mux.rtt300",
        ours: Some(ours),
        anchor: Some(plain),
        anchor_name: "one plain TCP connection, 40 Mbit/s".into(),
        ratio: Some(ours / plain),
        unit: "Mbit/s",
        goal: ">= 0.9x",
        ok: ours >= 0.9 * plain,
    })
}

/// Throughput from the first packet on, starts included.
async fn mbit(bytes: &AtomicU64) -> f64 {
    sleep(WATCHED).await;
    bytes.load(Ordering::Relaxed) as f64 * 8.0 / 1e6 / WATCHED.as_secs_f64()
}
