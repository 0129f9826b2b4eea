//! `site.*`: two officers of an office whose line of 4/1 Mbit/s and 80 ms round trip is full of one's pictures, while
//! the other types. With the site shaped to 85 % of its line, and without, on the same line in the same run.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tram_controller::domain::limits::Limits;
use tram_controller::gateway::shape::{Shaper, Site, Taker};

use super::Row;
use super::thin::{BEAT, Outcome, SMALL, WATCHED, Watch, connection, count_settled, swallow};
use crate::thin::{ThinLine, Way};

/// The line, kbit/s.
const LINE: u32 = 4_000;
const PIECE: usize = 64 * 1024;

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let (late, share) = ("site.typist_p95_ms", "site.shaped_ratio");
    if !wanted(late) && !wanted(share) {
        return Vec::new();
    }
    let (most, goal, part) = (150.0, "<= 150 ms", "0.75 to 0.86 of the line");
    let both = async {
        let shaped = office(Some(Limits::default().budget(LINE))).await?;
        Ok::<_, anyhow::Error>((shaped, office(None).await?))
    };
    let (shaped, free) = match both.await {
        Ok(both) => both,
        Err(e) => return vec![Row::failed(late, "ms", goal, &e), Row::failed(share, "", part, &e)],
    };
    let ratio = |o: &Outcome| o.mbit * 1000.0 / f64::from(LINE);
    vec![
        Row {
            row: late,
            ours: Some(shaped.p95_ms),
            anchor: Some(free.p95_ms),
            anchor_name: "the same office, not shaped".into(),
            ratio: Some(shaped.p95_ms / free.p95_ms),
            unit: "ms",
            goal,
            ok: shaped.p95_ms <= most,
        },
        Row {
            row: share,
            ours: Some(ratio(&shaped)),
            anchor: Some(ratio(&free)),
            anchor_name: "the same office, not shaped".into(),
            ratio: Some(ratio(&shaped) / ratio(&free)),
            unit: "",
            goal: part,
            ok: (0.75..=0.86).contains(&ratio(&shaped)),
        },
    ]
}

async fn office(kbit: Option<u32>) -> Result<Outcome> {
    let way = |bits| Way { bits, buffer: 200_000, delay: Duration::from_millis(40), loss: 0 };
    let line = tokio::task::block_in_place(|| ThinLine::new(way(u64::from(LINE) * 1000), way(1_000_000)))?;
    let site = Shaper::new(None).site("office", kbit);
    let (pictures, viewer) = connection(&line).await?;
    let (mut letters, mut typist) = connection(&line).await?;
    // What Debian comes with, whatever this machine has: BBR lets so few packets of a typist travel at once that
    // letters wait for each other as soon as the line's round trip grows.
    for gateway in [&pictures, &letters] {
        SockRef::from(gateway).set_tcp_congestion(b"cubic")?;
    }
    let mut watch = Watch::new();
    let (began, bytes) = (watch.began, watch.bytes.clone());
    let tasks = [
        tokio::spawn(pour(site.clone(), pictures)),
        tokio::spawn(swallow(viewer, bytes.clone())),
        tokio::spawn(async move {
            let (taker, mut beat) = (Taker::default(), interval(BEAT));
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                beat.tick().await;
                let stamp = Watch::stamp(began);
                site.take(&taker, SMALL).await.spent(SMALL);
                if letters.write_all(&stamp).await.is_err() {
                    return;
                }
            }
        }),
    ];
    let settled = count_settled(bytes);
    let read = async {
        let mut frame = [0; SMALL];
        while typist.read_exact(&mut frame).await.is_ok() {
            watch.arrived(&frame);
        }
    };
    let _ = timeout(WATCHED, read).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    watch.outcome(settled.await?)
}

/// Pictures without end, as fast as the site lets them leave.
async fn pour(site: Arc<Site>, mut to: TcpStream) {
    let (taker, picture) = (Taker::default(), vec![7; PIECE]);
    loop {
        let grant = site.take(&taker, PIECE).await;
        let n = grant.bytes();
        grant.spent(n);
        if to.write_all(&picture[..n]).await.is_err() {
            return;
        }
    }
}
