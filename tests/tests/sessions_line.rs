//! The waiting line on both databases: everybody in their turn, no desktop twice, and no place for who left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tram_controller::domain::access::{Role, Scope};
use tram_controller::domain::line::{self, Cause};
use tram_controller::domain::session::SessionState;
use tram_controller::reconcile::session_reaper;
use tram_controller::services::broker::{self, View};
use tram_controller::store::Db;
use tram_controller::store::sessions::Filter;
use tram_tests::db;
use tram_tests::office::{Office, Plan, SITE, noon};
use uuid::Uuid;

async fn ask(office: &Office, n: usize) -> View {
    broker::connect(&office.app, &office.officer(n), &Office::browser(n)).await.unwrap().0
}

#[tokio::test]
async fn whoever_finds_no_desktop_stands_in_line_and_moves_up() -> Result<()> {
    for db in db::both().await? {
        let plan = Plan { desktops: 1, officers: 4, ..Plan::default() };
        let office = Office::build(&db.store, noon(), plan).await?;
        let app = &office.app;
        let first = ask(&office, 0).await;
        for (n, position) in [(1, 1), (2, 2), (3, 3)] {
            let view = ask(&office, n).await;
            assert_eq!(view.state, SessionState::Waiting);
            let queue = view.queue.expect("a place");
            assert_eq!((queue.position, queue.length, queue.cause), (position, position, Cause::Busy));
            assert_eq!(queue.estimate_s, None, "nothing was measured, so nothing is promised");
            assert!(view.step.is_none() && view.session.desktop_id.is_none());
        }
        assert_eq!(broker::serve_line(app).await?, 0);
        // Asking again keeps the place and makes no second one.
        assert_eq!(ask(&office, 1).await.queue.map(|q| q.position), Some(1));
        assert_eq!(office.count("SELECT COUNT(*) FROM sessions WHERE state = 'waiting'").await?, 3);
        broker::end(app, &office.officer(0), first.session.id).await?;
        assert_eq!(session_reaper::pass(app).await?, 1);
        let served = ask(&office, 1).await;
        assert_eq!(served.session.desktop_id, first.session.desktop_id);
        assert_eq!(ask(&office, 3).await.queue.map(|q| (q.position, q.length)), Some((2, 2)));
        // The second in line gives up: the third moves up, and the list tells so.
        let left = ask(&office, 2).await.session.id;
        broker::end(app, &office.officer(2), left).await?;
        let (rows, _) = broker::list(app, &office.officer(3), Filter::live()).await?;
        assert_eq!(rows[0].queue.map(|q| (q.position, q.length)), Some((1, 1)));
        assert_eq!(session_reaper::pass(app).await?, 0, "twice has no second effect");
    }
    Ok(())
}

#[tokio::test]
async fn a_newcomer_does_not_get_past_the_line_but_others_sites_do_not_hinder() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { desktops: 1, officers: 3, ..Plan::default() }).await?;
        let app = &office.app;
        let first = ask(&office, 0).await;
        ask(&office, 1).await;
        // Somebody waits for a site without room; that is no reason to let the others wait.
        let id = office.add_user("far", Role::Officer, Some("00008")).await?;
        let far = office.caller(id, "far", Role::Officer, Scope::Sites(vec!["00008".into(), SITE.into()]));
        let (view, _) = broker::connect(app, &far, &Office::browser(9)).await?;
        assert_eq!(view.queue.map(|q| q.position), Some(2));
        broker::end(app, &office.officer(0), first.session.id).await?;
        // Free, and nobody has served the line yet: the newcomer still stands behind.
        let late = ask(&office, 2).await;
        assert_eq!((late.state, late.queue.map(|q| q.position)), (SessionState::Waiting, Some(3)));
        assert_eq!(broker::serve_line(app).await?, 1);
        assert_eq!(ask(&office, 1).await.state, SessionState::Ready);
        assert_eq!(ask(&office, 2).await.queue.map(|q| q.position), Some(2));
    }
    Ok(())
}

#[tokio::test]
async fn who_went_away_loses_the_place() -> Result<()> {
    for db in db::both().await? {
        let clock = noon();
        let office =
            Office::build(&db.store, clock.clone(), Plan { desktops: 1, officers: 4, ..Plan::default() }).await?;
        let app = &office.app;
        ask(&office, 0).await;
        let silent = ask(&office, 1).await.session.id;
        let asking = ask(&office, 2).await.session.id;
        let leaver = ask(&office, 3).await.session.id;
        clock.set(clock.now().plus(line::SILENCE - Duration::from_secs(1)));
        assert_eq!(ask(&office, 2).await.session.id, asking);
        office.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer3'").await?;
        assert_eq!(session_reaper::pass(app).await?, 1);
        clock.set(clock.now().plus(Duration::from_secs(1)));
        assert_eq!(session_reaper::pass(app).await?, 1);
        let why = |id| async move { app.store.session(id).await.unwrap().unwrap().end_reason };
        assert_eq!(why(silent).await.as_deref(), Some("left"));
        assert_eq!(why(leaver).await.as_deref(), Some("disabled"));
        assert_eq!(why(asking).await, None);
    }
    Ok(())
}

#[tokio::test]
async fn desktops_out_of_order_are_not_given_away_and_named_as_the_cause() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { desktops: 1, ..Plan::default() }).await?;
        for (break_it, mend_it) in [
            ("UPDATE hosts SET state = 'down'", "UPDATE hosts SET state = 'up'"),
            ("UPDATE desktops SET state = 'failed'", "UPDATE desktops SET state = 'running'"),
        ] {
            office.sql(break_it).await?;
            let view = ask(&office, 0).await;
            assert_eq!(view.queue.map(|q| q.cause), Some(Cause::OutOfOrder));
            assert_eq!(broker::serve_line(&office.app).await?, 0);
            office.sql(mend_it).await?;
            assert_eq!(broker::serve_line(&office.app).await?, 1);
            broker::end(&office.app, &office.officer(0), view.session.id).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_desktop_that_failed_before_it_was_seen_costs_no_place() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { desktops: 2, officers: 4, ..Plan::default() }).await?;
        ask(&office, 0).await;
        let unlucky = ask(&office, 1).await;
        ask(&office, 2).await;
        office
            .sql(&format!("UPDATE desktops SET state = 'failed' WHERE name = '{}'", unlucky.session.desktop_name))
            .await?;
        let again = ask(&office, 1).await;
        assert_eq!(again.queue.map(|q| q.position), Some(1), "before those who came later");
        assert_eq!(ask(&office, 2).await.queue.map(|q| q.position), Some(2));
    }
    Ok(())
}

/// What the storm saw of one officer.
#[derive(Clone, Copy)]
struct Seen {
    n: usize,
    asked: Instant,
    queued: Option<Instant>,
}

const OFFICERS: usize = 200;
const DESKTOPS: usize = 60;

/// One morning: everybody asks within moments, works for a moment, leaves. Returns what was seen.
async fn morning(office: &Arc<Office>) -> Result<Vec<Seen>> {
    let inside = Arc::new(Mutex::new(BTreeSet::new()));
    let mut tasks = Vec::new();
    for n in 0..OFFICERS {
        let (office, inside) = (office.clone(), inside.clone());
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(8 * n as u64)).await;
            let (asked, mut queued) = (Instant::now(), None);
            let mut view = ask(&office, n).await;
            while view.state != SessionState::Ready {
                if view.state == SessionState::Waiting {
                    queued.get_or_insert_with(Instant::now);
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
                view = ask(&office, n).await;
            }
            let desktop = view.session.desktop_id.expect("a desktop");
            assert!(inside.lock().unwrap().insert(desktop), "one desktop was given twice");
            broker::attached(&office.app, view.session.id, Uuid::now_v7(), "").await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(inside.lock().unwrap().remove(&desktop));
            broker::end(&office.app, &office.officer(n), view.session.id).await.unwrap();
            Seen { n, asked, queued }
        }));
    }
    // Two controllers serve the line at once.
    let servers: Vec<_> = (0..2)
        .map(|_| {
            let office = office.clone();
            tokio::spawn(async move {
                loop {
                    broker::serve_line(&office.app).await.unwrap();
                    // What the host does meanwhile.
                    office.sql("UPDATE desktops SET state = 'running' WHERE state = 'rebuilding'").await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await?);
    }
    servers.iter().for_each(|s| s.abort());
    Ok(seen)
}

/// In which order the officers got their desktops.
async fn order(office: &Office) -> Result<BTreeMap<usize, usize>> {
    let sql = "SELECT u.username FROM audit a JOIN sessions s ON CAST(s.id AS TEXT) = a.target JOIN users u ON u.id = s.user_id \
               WHERE a.action = 'session.open' ORDER BY a.id";
    // SQLite keeps ids as bytes: there the text is made from their hex.
    let lite = "SELECT u.username FROM audit a JOIN sessions s ON lower(hex(s.id)) = replace(a.target, '-', '') \
                JOIN users u ON u.id = s.user_id WHERE a.action = 'session.open' ORDER BY a.id";
    let names: Vec<String> = match office.app.store.db() {
        Db::Sqlite { read, .. } => sqlx::query_scalar(lite).fetch_all(read).await?,
        Db::Postgres(p) => sqlx::query_scalar(sql).fetch_all(p).await?,
    };
    let number = |name: &str| name.trim_start_matches("officer").parse::<usize>();
    Ok(names
        .iter()
        .enumerate()
        .map(|(at, name)| Ok((number(name)?, at)))
        .collect::<Result<_, std::num::ParseIntError>>()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_the_morning_storm_everybody_is_served_once_and_in_turn() -> Result<()> {
    for db in db::both().await? {
        let plan = Plan { desktops: DESKTOPS, officers: OFFICERS, ..Plan::default() };
        let office = Arc::new(Office::build(&db.store, noon(), plan).await?);
        let seen = morning(&office).await?;
        let order = order(&office).await?;
        assert_eq!(order.len(), OFFICERS, "{}: everybody got one desktop", db.store.engine());
        assert!(seen.iter().filter(|s| s.queued.is_some()).count() > 20, "hardly anybody had to wait");
        for early in seen.iter().filter(|s| s.queued.is_some()) {
            for late in seen.iter().filter(|l| early.queued.is_some_and(|q| q < l.asked)) {
                assert!(
                    order[&early.n] < order[&late.n],
                    "{}: officer {} stood in line before {} came, and was served after",
                    db.store.engine(),
                    early.n,
                    late.n
                );
            }
        }
    }
    Ok(())
}
