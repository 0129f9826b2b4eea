//! How long sessions last: by the pool's own policy, with a warning, and for accounts that may go on.

use std::time::Duration;

use anyhow::{Result, ensure};
use axum::http::{Method, StatusCode};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tram_controller::config::Config;
use tram_controller::domain::access::{Role, Scope};
use tram_controller::domain::experience::Segment;
use tram_controller::domain::policy::PoolPolicy;
use tram_controller::domain::session::{Limit, Policy, SessionState};
use tram_controller::reconcile::session_reaper;
use tram_controller::services::{Error, broker, pools};
use tram_controller::store::sessions::Filter;
use tram_tests::db;
use tram_tests::gate::Gate;
use tram_tests::http::TestApi;
use tram_tests::office::{Office, Plan, noon};
use tram_wire::ids::SessionId;
use uuid::Uuid;

/// The machine is slow and busy; the time is no part of the claim.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_pools_own_policy_holds_for_sessions_that_begin_after_it() -> Result<()> {
    for db in db::both().await? {
        let clock = noon();
        let office = Office::build(&db.store, clock.clone(), Plan::default()).await?;
        let app = &office.app;
        let (before, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        let id = office.add_user("op", Role::Operator, None).await?;
        let operator = office.caller(id, "op", Role::Operator, Scope::All);
        let own = PoolPolicy { idle_minutes: Some(5), longest_minutes: Some(60), ..PoolPolicy::default() };
        let wrong = PoolPolicy { idle_minutes: Some(0), kbit: Some(1), ..PoolPolicy::default() };
        let refused = pools::set_policy(app, &operator, office.pool, wrong).await;
        assert!(matches!(&refused, Err(Error::Invalid("P-113", _, faults)) if faults.len() == 2), "{refused:?}");
        assert!(matches!(
            pools::set_policy(app, &office.officer(0), office.pool, own.clone()).await,
            Err(Error::Forbidden(..))
        ));
        assert_eq!(pools::set_policy(app, &operator, office.pool, own.clone()).await?.pool.policy, own);
        let (after, _) = broker::connect(app, &office.officer(1), &Office::browser(1)).await?;
        assert_eq!((before.session.policy.idle_s, after.session.policy.idle_s), (1800, 300));
        assert_eq!(after.session.policy.grace(), Policy::default().grace, "as configured");

        // Somebody works in both: the longest counts for them, too, and they are told in time.
        for s in [&before, &after] {
            broker::attached(app, s.session.id, Uuid::now_v7(), "").await?.unwrap();
        }
        clock.set(clock.now().plus(Duration::from_secs(55 * 60)));
        let near =
            broker::get(app, &office.officer(1), after.session.id).await?.closing.expect("five minutes are left");
        assert_eq!((near.0, near.1.since(clock.now())), (Limit::Longest, Duration::from_secs(300)));
        assert!(broker::get(app, &office.officer(0), before.session.id).await?.closing.is_none());
        assert_eq!(session_reaper::pass(app).await?, 0);
        clock.set(clock.now().plus(Duration::from_secs(300)));
        assert_eq!(session_reaper::pass(app).await?, 1);
        let ended = app.store.session(after.session.id).await?.expect("a row");
        assert_eq!((ended.state, ended.end_reason.as_deref()), (SessionState::Ended, Some("longest")));
        assert_eq!(office.count("SELECT COUNT(*) FROM desktops WHERE state = 'rebuilding'").await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_account_that_is_switched_off_loses_everything_at_once() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let app = &office.app;
        let (view, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        broker::attached(app, view.session.id, Uuid::now_v7(), "").await?.unwrap();
        office.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer0'").await?;
        assert_eq!(session_reaper::pass(app).await?, 1);
        let row = app.store.session(view.session.id).await?.expect("a row");
        assert_eq!(row.end_reason.as_deref(), Some("disabled"));
        assert_eq!(office.count("SELECT COUNT(*) FROM desktops WHERE assigned_user IS NOT NULL").await?, 0);
        assert_eq!(session_reaper::pass(app).await?, 0, "twice has no second effect");
    }
    Ok(())
}

#[tokio::test]
async fn support_ends_a_session_with_a_word_to_its_officer() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        Office::build(&db.store, api.app().clock.clone(), Plan { officers: 0, ..Plan::default() }).await?;
        api.add_user("lan", Role::Officer).await?;
        let (lan, support) = (api.sign_in("lan").await?, api.signed_in(Role::Support).await?);
        let session = lan.post("/api/v1/connect", json!({})).await?.json["session"]["id"].clone();
        let path = format!("/api/v1/sessions/{}", session.as_str().unwrap_or_default());
        let long = support.delete(&format!("{path}?reason={}", "x".repeat(201))).await?;
        assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(support.delete(&format!("{path}?reason=M%C3%A1y%20treo")).await?.status, StatusCode::NO_CONTENT);
        let over = lan.get(&path).await?.json;
        assert_eq!((over["end_reason"].as_str(), over["end_note"].as_str()), (Some("staff"), Some("Máy treo")));
        assert!(over["ended_by"].as_str().is_some_and(|who| who.starts_with("support")));
        // Whom to call is told to everybody: most call who can't sign in.
        assert_eq!(api.browser().get("/api/v1/support").await?.json["phone"], "024 1022");
    }
    Ok(())
}

async fn until(what: &str, gate: &Gate, id: SessionId, so: impl Fn(bool, SessionState) -> bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let (rows, _) = gate.office.app.store.sessions(&Filter { ids: Some(vec![id]), ..Filter::all() }).await?;
        if so(rows[0].closing_at.is_some(), rows[0].state) {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_seems_away_is_warned_and_may_say_that_they_are_there() -> Result<()> {
    for db in db::both().await? {
        let gate = Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let (id, ticket) = gate.ticket(0).await?;
        let mut viewer = gate.knock(&ticket).await?;
        viewer.shake_hands().await?;
        viewer.picture(640, 400).await?;
        until("a viewer", &gate, id, |_, state| state == SessionState::Active).await?;
        gate.office.sql("UPDATE sessions SET policy = '{\"idle_s\": 12}'").await?;
        until("a warning", &gate, id, |closing, _| closing).await?;
        broker::present(&gate.office.app, &gate.office.officer(0), id).await?;
        until("its end", &gate, id, |closing, state| !closing && state == SessionState::Active).await?;
        assert!(matches!(
            broker::present(&gate.office.app, &gate.office.officer(1), id).await,
            Err(Error::NotFound("S-404", _))
        ));
        // Silent again: the viewer goes, the session stays.
        assert_eq!(timeout(PATIENCE, viewer.closed()).await??, 4003);
        until("a kept session", &gate, id, |_, state| state == SessionState::Disconnected).await?;
        // What was felt is kept with it, segment by segment.
        let felt = gate.office.app.store.session(id).await?.expect("a row").segments();
        for segment in [Segment::Ticket, Segment::Display, Segment::Picture] {
            assert!(felt.iter().any(|m| m.segment == segment), "{segment} is missing: {felt:?}");
        }
    }
    Ok(())
}

/// There is no recorder. Whoever must have one, by law or by order, must not be led to believe that there is.
#[tokio::test]
async fn a_policy_that_wants_a_recording_is_refused() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let office = Office::build(&db.store, api.app().clock.clone(), Plan::default()).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let path = format!("/api/v1/pools/{}/policy", office.pool);
        for body in [json!({"record": "required"}), json!({"idle_minutes": 5, "recording": true})] {
            let refused =
                operator.send(Method::PUT, &path, Some(("application/json", body.to_string().into_bytes()))).await?;
            ensure!(refused.status.is_client_error(), "{refused:?}");
            ensure!(refused.json.to_string().contains("unknown field `record"), "{refused:?}");
        }
        ensure!(office.count("SELECT COUNT(*) FROM pools WHERE CAST(policy AS TEXT) LIKE '%5%'").await? == 0);
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tram.toml");
    std::fs::write(&file, "[sessions]\nrecord = \"required\"\n")?;
    let refused = Config::load(Some(&file), folder.path(), |_| None).map(drop);
    let said = refused.err().map(|e| format!("{:#}", anyhow::Error::from(e))).unwrap_or_default();
    ensure!(said.contains("unknown field `record`"), "{said}");
    Ok(())
}
