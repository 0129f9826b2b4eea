//! Rows of reports on their way into the database, as the agents' writer brings them: batches, each one transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tram_controller::clock::Clock;
use tram_controller::services::health::{Arrival, keep_all};
use tram_wire::ids::EndpointId;
use tram_wire::report::{Record, Report};
use uuid::Uuid;

use super::Row;
use super::swarm::keyframe;
use crate::db::{self, TestDb};

const ENDPOINTS: usize = 10_000;
/// As the writer's.
const BATCH: usize = 1000;
/// Records of each endpoint that are there already, over the three days that they are kept: what is written goes between
/// them, not onto empty pages.
const HISTORY: i64 = 100;
const LENGTH: Duration = Duration::from_secs(15);
const ROWS: [(&str, &str, f64); 2] = [
    ("ingest.sqlite_per_s", ">= 5000/s, p99 < 250 ms", 5000.0),
    ("ingest.postgres_per_s", ">= 20000/s, p99 < 250 ms", 20_000.0),
];

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (n, (name, goal, least)) in ROWS.into_iter().enumerate() {
        if !wanted(name) {
            continue;
        }
        let db = if n == 0 { db::sqlite().await } else { db::postgres().await };
        let measured = match db {
            Ok(db) => measure(&db, n == 0).await,
            Err(e) => Err(e),
        };
        rows.push(match measured {
            Ok((per_s, p99)) => Row {
                row: name,
                ours: Some(per_s),
                anchor: None,
                anchor_name: format!("p99 of a commit of {BATCH} reports {:.0} ms", p99.as_secs_f64() * 1e3),
                ratio: None,
                unit: "1/s",
                goal,
                ok: per_s >= least && p99 < Duration::from_millis(250),
            },
            Err(e) => Row::failed(name, "1/s", goal, &e),
        });
    }
    rows
}

/// Deltas of a fleet whose computers were all seen before.
async fn measure(db: &TestDb, sqlite: bool) -> Result<(f64, Duration)> {
    let clock = Clock::system();
    let now = clock.now();
    let mut ids: Vec<EndpointId> = (0..ENDPOINTS).map(|_| EndpointId(Uuid::now_v7())).collect();
    ids.sort_unstable();
    let mut tx = db.store.begin().await?;
    for (n, id) in ids.iter().enumerate() {
        tx.add_endpoint(*id, &format!("pc-{n}"), "00004", &json!({}), now.plus(Duration::from_secs(86_400)), now)
            .await?;
    }
    tx.commit().await?;
    let first = keyframe(1);
    for part in ids.chunks(BATCH) {
        let arrivals: Vec<_> = part.iter().map(|id| Arrival { id: *id, report: &first, at: clock.now() }).collect();
        let mut tx = db.store.begin().await?;
        keep_all(&mut tx, &arrivals).await?;
        tx.commit().await?;
    }
    db.raw(&history(clock.now().micros(), sqlite)).await?;
    let (began, mut took, mut seq) = (Instant::now(), Vec::new(), 1);
    while began.elapsed() < LENGTH {
        seq += 1;
        for part in ids.chunks(BATCH) {
            let reports: Vec<Report> = part.iter().map(|_| delta(seq)).collect();
            let arrivals: Vec<_> =
                part.iter().zip(&reports).map(|(id, report)| Arrival { id: *id, report, at: clock.now() }).collect();
            let begun = Instant::now();
            let mut tx = db.store.begin().await?;
            keep_all(&mut tx, &arrivals).await?;
            tx.commit().await?;
            took.push(begun.elapsed());
        }
    }
    let per_s = (took.len() * BATCH) as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    let p99 = *took.get(took.len() * 99 / 100).context("no batch")?;
    Ok((per_s, p99))
}

/// SQL that makes the records of three days.
fn history(now_us: i64, sqlite: bool) -> String {
    let every = 3 * 86_400_000_000_i64 / HISTORY;
    let (series, body, order) = if sqlite {
        let series = format!(
            "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {HISTORY}) SELECT n FROM s)"
        );
        (series, "'{\"gauges\":{\"gauge_1\":1.0,\"gauge_2\":2.0}}'", "e.id, n")
    } else {
        (
            format!("generate_series(1, {HISTORY}) n"),
            "'{\"gauges\":{\"gauge_1\":1.0,\"gauge_2\":2.0}}'::jsonb",
            "n, e.id",
        )
    };
    let at = format!("{} + n * {every}", now_us - HISTORY * every - 1);
    format!(
        "INSERT INTO endpoint_samples (endpoint_id, boot, seq, at, arrived_at, body) \
         SELECT e.id, 'before', n, {at}, {at}, {body} FROM endpoints e, {series} ORDER BY {order}"
    )
}

/// What an office computer says each minute: a few gauges that moved.
fn delta(seq: u64) -> Report {
    let moved = seq as f32;
    let gauges = [("gauge_1", moved), ("gauge_2", moved), ("gauge_7", moved)];
    let record = Record {
        seq,
        mono_ms: seq,
        at_ms: 1,
        gauges: gauges.into_iter().map(|(n, v)| (n.to_owned(), Some(v))).collect(),
        ..Record::default()
    };
    Report { batch: seq, boot: "b".into(), mono_ms: Some(seq), at_ms: 1, records: vec![record], rides: false }
}
