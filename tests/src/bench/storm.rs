//! The morning storm: 200 officers a second, 500 warm desktops, and a few officers more than there are desktops.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use tram_controller::clock::Clock;
use tram_controller::domain::session::SessionState;
use tram_controller::nudge::Bus;
use tram_controller::services::broker;
use tram_controller::store::Store;

use super::Row;
use crate::db;
use crate::office::{Office, Plan};

const NAME: &str = "storm.sign_in_p99_ms";
const GOAL: &str = "p99 <= 100 ms, in turn";
const A_SECOND: u32 = 200;
const DESKTOPS: usize = 500;
const OFFICERS: usize = 600;

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    if !wanted(NAME) {
        return Vec::new();
    }
    vec![storm().await.unwrap_or_else(|e| Row::failed(NAME, "ms", GOAL, &e))]
}

/// What became of one officer.
struct Seen {
    asked: Instant,
    answered: Instant,
    waiting: bool,
}

/// From the press of the button to a redeemed ticket, at a fixed rate whether or not the broker keeps up, on
/// PostgreSQL. Who comes when all desktops are taken gets a place in line instead.
async fn storm() -> Result<Row> {
    let db = db::postgres().await?;
    let plan = Plan { desktops: DESKTOPS, officers: OFFICERS, ..Plan::default() };
    // As a controller has it.
    let store = Store::open_to_serve(&db.url, Bus::default()).await?;
    store.warm().await?;
    let office = Arc::new(Office::build(&store, Clock::system(), plan).await?);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for n in 0..OFFICERS {
        tokio::time::sleep_until(began + Duration::from_secs(1) * u32::try_from(n)? / A_SECOND).await;
        let office = office.clone();
        tasks.push(tokio::spawn(async move { sign_in(&office, n).await }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await??);
    }
    let served: Vec<&Seen> = seen.iter().filter(|s| !s.waiting).collect();
    ensure!(served.len() == DESKTOPS, "{} of {DESKTOPS} desktops were given", served.len());
    let taken =
        office.count("SELECT COUNT(DISTINCT assigned_user) FROM desktops WHERE assigned_user IS NOT NULL").await?;
    ensure!(usize::try_from(taken)? == DESKTOPS, "{taken} officers have {DESKTOPS} desktops");
    // Nobody who came after somebody stood in line may have got a desktop.
    let first_in_line = seen.iter().filter(|s| s.waiting).map(|s| s.answered).min().context("a line")?;
    let overtakers = served.iter().filter(|s| s.asked > first_in_line).count();
    let mut took: Vec<f64> = served.iter().map(|s| (s.answered - s.asked).as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    Ok(Row {
        row: NAME,
        ours: Some(p99),
        anchor: None,
        anchor_name: format!(
            "p50 {p50:.1} ms; {overtakers} overtook the line of {}; PostgreSQL",
            seen.len() - served.len()
        ),
        ratio: None,
        unit: "ms",
        goal: GOAL,
        ok: p99 <= 100.0 && overtakers == 0,
    })
}

async fn sign_in(office: &Office, n: usize) -> Result<Seen> {
    let asked = Instant::now();
    let (view, ticket) = broker::connect(&office.app, &office.officer(n), &Office::browser(n)).await?;
    let waiting = view.state == SessionState::Waiting;
    if !waiting {
        let ticket = ticket.context("a warm desktop comes with a ticket")?;
        let opened = broker::redeem(&office.app, ticket.secret.reveal(), &Office::browser(n), None).await?;
        opened.context("a fresh ticket is good")?;
    }
    Ok(Seen { asked, answered: Instant::now(), waiting })
}
