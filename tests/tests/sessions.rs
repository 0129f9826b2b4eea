//! The broker on both databases: who gets which desktop, and what a ticket opens.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use tram_controller::clock::Clock;
use tram_controller::domain::access::{Role, Scope};
use tram_controller::domain::gateway;
use tram_controller::domain::policy::SessionPolicy;
use tram_controller::domain::session::{Cut, Policy, SessionState, TICKET_KEPT};
use tram_controller::domain::ticket::{Binding, Place, Protocol};
use tram_controller::domain::time::Time;
use tram_controller::identity::secret;
use tram_controller::reconcile::session_reaper;
use tram_controller::services::{App, Error, bandwidth, broker};
use tram_controller::store::StoreError;
use tram_controller::store::sessions::{Filter, Session};
use tram_tests::db;
use tram_tests::office::{Office, Plan, SITE, noon};
use tram_wire::ids::{EndpointId, OrderId, SessionId};
use uuid::Uuid;

async fn row(app: &App, id: SessionId) -> Session {
    app.store.session(id).await.unwrap().expect("the session is there")
}

#[tokio::test]
async fn an_officer_gets_a_running_desktop_and_the_same_one_again() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let (first, ticket) = broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await?;
        assert_eq!(first.state, SessionState::Ready);
        let ticket = ticket.expect("a running desktop comes with a ticket");
        assert!(secret::has_shape(broker::TICKET_PREFIX, ticket.secret.reveal()));
        assert_eq!(ticket.expires_in, Duration::from_secs(30));
        let (again, _) = broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await?;
        assert_eq!(again.session.id, first.session.id);
        let (other, _) = broker::connect(&office.app, &office.officer(1), &Office::browser(1)).await?;
        assert_ne!(other.session.desktop_id, first.session.desktop_id);
        // Opened twice, audited twice; coming back is no new session.
        assert_eq!(office.count("SELECT COUNT(*) FROM audit WHERE action = 'session.open'").await?, 2);
    }
    Ok(())
}

#[tokio::test]
async fn no_desktop_is_said_clearly_and_leaves_nothing() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { desktops: 1, ..Plan::default() }).await?;
        broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await?;
        let id = office.add_user("elsewhere", Role::Officer, Some("00008")).await?;
        let far = office.caller(id, "elsewhere", Role::Officer, Scope::Sites(vec!["00008".into()]));
        let none = broker::connect(&office.app, &far, &Office::browser(0)).await.unwrap_err();
        assert!(matches!(&none, Error::Capacity("S-101", t) if t.contains("no desktops for your site")), "{none:?}");
        assert_eq!(office.count("SELECT COUNT(*) FROM sessions").await?, 1);
        let operator = office.caller(id, "op", Role::Operator, Scope::All);
        assert!(matches!(
            broker::connect(&office.app, &operator, &Office::browser(0)).await,
            Err(Error::Forbidden(..))
        ));
        office.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer0'").await?;
        assert!(matches!(
            broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await,
            Err(Error::Forbidden(..))
        ));
    }
    Ok(())
}

#[tokio::test]
async fn a_desktop_that_is_off_is_started_and_waited_for() -> Result<()> {
    for db in db::both().await? {
        let clock = noon();
        let office = Office::build(&db.store, clock.clone(), Plan { desktops: 1, ..Plan::default() }).await?;
        office.sql("UPDATE desktops SET state = 'stopped', desired = 'stopped', next_try_at = NULL").await?;
        let (view, ticket) = broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await?;
        assert!(ticket.is_none());
        assert_eq!(view.state, SessionState::Starting);
        let step = view.step.expect("something to wait for");
        assert_eq!(step.code.as_str(), "stopped");
        assert!(step.estimate_s.is_some_and(|s| s > 0) && step.progress.is_some());
        assert_eq!(
            office.count("SELECT COUNT(*) FROM desktops WHERE desired = 'running' AND next_try_at IS NOT NULL").await?,
            1
        );
        let early =
            broker::ticket(&office.app, &office.officer(0), view.session.id, &Office::browser(0)).await.unwrap_err();
        assert_eq!(early.code(), "S-104");
        office.sql("UPDATE desktops SET state = 'running'").await?;
        assert_eq!(broker::get(&office.app, &office.officer(0), view.session.id).await?.state, SessionState::Ready);
        broker::ticket(&office.app, &office.officer(0), view.session.id, &Office::browser(0)).await?;
        assert_eq!(session_reaper::pass(&office.app).await?, 1);
        assert_eq!(row(&office.app, view.session.id).await.state, SessionState::Ready);
        assert_eq!(session_reaper::pass(&office.app).await?, 0, "twice has no second effect");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_officers_at_once_get_a_desktop_each_or_a_place_in_line() -> Result<()> {
    for db in db::both().await? {
        let plan = Plan { desktops: 30, officers: 50, ..Plan::default() };
        let office = std::sync::Arc::new(Office::build(&db.store, noon(), plan).await?);
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                let office = office.clone();
                tokio::spawn(async move { broker::connect(&office.app, &office.officer(n), &Office::browser(n)).await })
            })
            .collect();
        let (mut desktops, mut waiting) = (BTreeSet::new(), 0);
        for task in tasks {
            match task.await? {
                Ok((v, _)) if v.state == SessionState::Waiting => waiting += 1,
                Ok((v, _)) => assert!(desktops.insert(v.session.desktop_id), "one desktop was given twice"),
                Err(e) => return Err(e.into()),
            }
        }
        assert_eq!((desktops.len(), waiting), (30, 20), "{}", db.store.engine());
        assert_eq!(office.count("SELECT COUNT(DISTINCT assigned_user) FROM desktops").await?, 30);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_officer_in_ten_windows_gets_one_desktop() -> Result<()> {
    for db in db::both().await? {
        let office =
            std::sync::Arc::new(Office::build(&db.store, noon(), Plan { desktops: 10, ..Plan::default() }).await?);
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let office = office.clone();
                tokio::spawn(async move { broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await })
            })
            .collect();
        let mut ids = BTreeSet::new();
        for task in tasks {
            ids.insert(task.await??.0.session.id);
        }
        assert_eq!(ids.len(), 1);
        assert_eq!(office.count("SELECT COUNT(*) FROM desktops WHERE assigned_user IS NOT NULL").await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn the_database_itself_refuses_a_second_live_session() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let (view, _) = broker::connect(&office.app, &office.officer(0), &Office::browser(0)).await?;
        let mut tx = db.store.begin().await?;
        let policy = SessionPolicy::default();
        let free = tx.free_desktop(office.officers[1].0, &Scope::All, true).await?.expect("one is free");
        let same_user = tx
            .open_session(SessionId(Uuid::now_v7()), office.officers[0].0, &free, &policy, None, "", noon().now())
            .await;
        assert!(matches!(same_user, Err(StoreError::Duplicate(_))), "{same_user:?}");
        drop(tx);
        let mut tx = db.store.begin().await?;
        let mut taken = free.clone();
        taken.id = view.session.desktop_id.expect("has one").into();
        let same_desktop = tx
            .open_session(SessionId(Uuid::now_v7()), office.officers[1].0, &taken, &policy, None, "", noon().now())
            .await;
        assert!(matches!(same_desktop, Err(StoreError::Duplicate(_))), "{same_desktop:?}");
        drop(tx);
        let bad = office.sql("UPDATE sessions SET state = 'asleep'").await;
        assert!(bad.is_err(), "a state that does not exist is refused");
        assert!(office.sql("UPDATE sessions SET state = 'active'").await.is_err(), "active needs a gateway");
    }
    Ok(())
}

#[tokio::test]
async fn a_used_desktop_is_rebuilt_before_anybody_else_gets_it() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { desktops: 1, ..Plan::default() }).await?;
        let app = &office.app;
        let (view, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        let id = view.session.id;
        // Nobody looked at it: clean, and free at once.
        broker::end(app, &office.officer(0), id).await?;
        assert_eq!(office.count("SELECT disk_generation FROM desktops").await?, 1);
        let (view, _) = broker::connect(app, &office.officer(1), &Office::browser(1)).await?;
        assert_eq!(view.state, SessionState::Ready);
        let epoch = broker::attached(app, view.session.id, Uuid::now_v7(), "192.0.2.9").await?.unwrap();
        assert_eq!(epoch, 1);
        broker::end(app, &office.officer(1), view.session.id).await?;
        let ended = row(app, view.session.id).await;
        assert_eq!((ended.state, ended.end_reason.as_deref()), (SessionState::Ended, Some("user")));
        assert_eq!(office.count("SELECT disk_generation FROM desktops WHERE state = 'rebuilding' AND assigned_user IS NULL AND next_try_at IS NOT NULL").await?, 2);
        let (next, ticket) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        assert_eq!(next.state, SessionState::Starting);
        assert!(ticket.is_none(), "no ticket for a desktop with somebody else's disk");
        // Ending what is over is no fault and has no second effect.
        broker::end(app, &office.officer(1), view.session.id).await?;
        assert_eq!(office.count("SELECT disk_generation FROM desktops").await?, 2);
        assert_eq!(office.count("SELECT COUNT(*) FROM audit WHERE action = 'session.end'").await?, 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_line_is_not_filled_while_somebody_works_behind_it() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let app = &office.app;
        let (view, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        bandwidth::quiet(app, SITE).await?;
        broker::attached(app, view.session.id, Uuid::now_v7(), "").await?.unwrap();
        let busy = bandwidth::quiet(app, SITE).await.unwrap_err();
        assert!(matches!(&busy, Error::Conflict("Q-110", t) if t.contains(": 1;")), "{busy:?}");
        bandwidth::quiet(app, "00008").await?;
        broker::end(app, &office.officer(0), view.session.id).await?;
        bandwidth::quiet(app, SITE).await?;
        // And an order that nobody gave opens nothing.
        let none = bandwidth::ordered(app, EndpointId(Uuid::now_v7()), OrderId(Uuid::now_v7())).await;
        assert!(matches!(none, Err(Error::NotFound(..))));
    }
    Ok(())
}

#[tokio::test]
async fn a_kept_desktop_stays_with_its_user() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { persistent: true, ..Plan::default() }).await?;
        let app = &office.app;
        let (mine, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        broker::attached(app, mine.session.id, Uuid::now_v7(), "").await?.unwrap();
        broker::end(app, &office.officer(0), mine.session.id).await?;
        assert_eq!(
            office.count("SELECT COUNT(*) FROM desktops WHERE disk_generation = 1 AND state = 'running'").await?,
            2
        );
        let (other, _) = broker::connect(app, &office.officer(1), &Office::browser(1)).await?;
        assert_ne!(other.session.desktop_id, mine.session.desktop_id);
        let (again, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        assert_eq!(again.session.desktop_id, mine.session.desktop_id);
        assert_ne!(again.session.id, mine.session.id);
    }
    Ok(())
}

#[tokio::test]
async fn people_see_and_end_only_what_is_theirs() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let app = &office.app;
        let (mine, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        broker::connect(app, &office.officer(1), &Office::browser(1)).await?;
        let see = |ctx| async move { broker::list(app, &ctx, Filter::all()).await.unwrap().1 };
        let support = office.add_user("support", Role::Support, None).await?;
        let near = office.caller(support, "support", Role::Support, Scope::Sites(vec!["1".into(), SITE.into()]));
        let far = office.caller(support, "support", Role::Support, Scope::Sites(vec!["00008".into()]));
        assert_eq!(see(office.officer(0)).await, 1);
        assert_eq!(see(near.clone()).await, 2);
        assert_eq!(see(far.clone()).await, 0);
        let id = mine.session.id;
        for stranger in [office.officer(1), far] {
            assert!(matches!(broker::end(app, &stranger, id).await, Err(Error::NotFound("S-404", _))));
        }
        assert!(matches!(
            broker::ticket(app, &office.officer(1), id, &Office::browser(1)).await,
            Err(Error::NotFound("S-404", _))
        ));
        broker::end(app, &near, id).await?;
        assert_eq!(row(app, id).await.end_reason.as_deref(), Some("staff"));
        let over = broker::ticket(app, &office.officer(0), id, &Office::browser(0)).await.unwrap_err();
        assert_eq!(over.code(), "S-105");
        // Pages follow each other without a gap.
        let page = |before| Filter { before, limit: 1, ..Filter::all() };
        let (first, total) = app.store.sessions(&page(None)).await?;
        let (second, _) = app.store.sessions(&page(Some(first[0].id))).await?;
        assert_eq!((total, second[0].id), (2, id));
        assert!(app.store.sessions(&page(Some(id))).await?.0.is_empty());
        assert_eq!(app.store.sessions(&Filter::live()).await?.1, 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_ticket_opens_once_and_only_what_it_is_for() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let app = &office.app;
        let mine = Office::browser(0);
        let (view, first) = broker::connect(app, &office.officer(0), &mine).await?;
        let (_, second) = broker::connect(app, &office.officer(0), &mine).await?;
        let (first, second) = (first.unwrap().secret, second.unwrap().secret);
        let open =
            |text: String, proved: Binding| async move { broker::redeem(app, &text, &proved, None).await.unwrap() };
        assert!(open(first.reveal().into(), mine).await.is_none(), "an older ticket is void");
        let mut wrong = second.reveal().to_owned();
        wrong.pop();
        assert!(open(wrong.clone(), mine).await.is_none(), "truncated");
        wrong.push(if second.reveal().ends_with('A') { 'B' } else { 'A' });
        assert!(open(wrong, mine).await.is_none(), "altered");
        assert!(open("vdt1_".to_owned() + &"x".repeat(10 << 20), mine).await.is_none(), "huge");
        assert!(open(second.reveal().into(), Binding::Browser([0; 32])).await.is_none(), "without a cookie");
        assert!(open(second.reveal().into(), Office::browser(1)).await.is_none(), "another's browser");
        let endpoint = Binding::Endpoint { id: EndpointId(Uuid::now_v7()), certificate: *mine.hash() };
        assert!(open(second.reveal().into(), endpoint).await.is_none(), "another kind of place");
        let spice = broker::redeem(app, second.reveal(), &mine, Some(Protocol::Spice)).await?;
        assert!(spice.is_none(), "a browser's ticket opens no SPICE");
        let opened = broker::redeem(app, second.reveal(), &mine, Some(Protocol::Vnc)).await?.expect("good");
        assert_eq!((opened.session_id, opened.user_id), (view.session.id, office.officers[0].0));
        assert_eq!(Some(opened.desktop_id.0), view.session.desktop_id);
        assert_eq!((opened.protocols.to_string(), opened.place), ("vnc".into(), Place::Browser));
        assert_eq!(opened.policy, SessionPolicy::default(), "the session's own policy comes along");
        assert!((0..5_000_000).contains(&opened.age), "{}", opened.age);
        assert!(open(second.reveal().into(), mine).await.is_none(), "used");
        assert_eq!(broker::note_refusal(app, second.reveal(), "192.0.2.66").await?, "redeemed");
        assert_eq!(broker::note_refusal(app, first.reveal(), "192.0.2.66").await?, "revoked");
        assert_eq!(broker::note_refusal(app, "vdt1_nonsense", "192.0.2.66").await?, "unknown");
        assert_eq!(office.count("SELECT COUNT(*) FROM audit WHERE action = 'ticket.refuse'").await?, 2);

        // Each of these alone makes a good ticket worthless.
        for spoil in [
            "UPDATE tickets SET issued_at = issued_at - 31000000, expires_at = expires_at - 31000000 WHERE redeemed_at IS NULL",
            "UPDATE users SET disabled = TRUE WHERE username = 'officer0'",
            "DELETE FROM web_sessions",
            "UPDATE desktops SET assigned_user = NULL",
        ] {
            let ticket = broker::ticket(app, &office.officer(0), view.session.id, &mine).await?;
            office.sql(spoil).await?;
            assert!(open(ticket.secret.reveal().into(), mine).await.is_none(), "{spoil}");
            office.sql("UPDATE users SET disabled = FALSE").await?;
            if spoil.starts_with("DELETE") {
                office.sign_in(office.officers[0].0, &Office::cookie(0)).await?;
            }
        }
        // Nothing of a ticket in the clear is stored.
        assert_eq!(office.count("SELECT COUNT(*) FROM audit WHERE CAST(detail AS TEXT) LIKE '%vdt1%'").await?, 0);
        office.sql("UPDATE tickets SET issued_at = 0, expires_at = 1").await?;
        let mut tx = db.store.begin().await?;
        assert!(tx.forget_tickets(TICKET_KEPT).await? >= 6);
        tx.commit().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoints_ticket_opens_only_there_and_not_after_it_was_revoked() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let (app, here) = (&office.app, office.add_endpoint("may-01").await?);
        let (_, ticket) = broker::connect(app, &office.officer(0), &here).await?;
        let text = ticket.expect("the desktop runs").secret;
        let Binding::Endpoint { id, certificate } = here else { unreachable!() };
        let other = office.add_endpoint("may-02").await?;
        for (why, proved) in [
            ("another endpoint", other),
            ("another certificate", Binding::Endpoint { id, certificate: [9; 32] }),
            (
                "another endpoint with this certificate",
                Binding::Endpoint { id: other.endpoint().unwrap(), certificate },
            ),
            ("a browser", Binding::Browser(certificate)),
        ] {
            assert!(broker::redeem(app, text.reveal(), &proved, None).await?.is_none(), "{why}");
        }
        let opened = broker::redeem(app, text.reveal(), &here, None).await?.expect("good");
        assert_eq!((opened.protocols.to_string(), opened.place), ("vnc,spice".into(), Place::Endpoint));
        let (_, ticket) = broker::connect(app, &office.officer(0), &here).await?;
        office.sql("UPDATE endpoints SET revoked_at = 1 WHERE name = 'may-01'").await?;
        assert!(broker::redeem(app, ticket.unwrap().secret.reveal(), &here, None).await?.is_none(), "revoked");
    }
    Ok(())
}

#[tokio::test]
async fn a_controllers_wrong_clock_does_not_matter_to_tickets() -> Result<()> {
    for db in db::both().await? {
        let clock = noon();
        let office = Office::build(&db.store, clock.clone(), Plan::default()).await?;
        for (n, hours) in [(0, -1_i64), (1, 1)] {
            let wrong = Clock::system().now().micros() + hours * 3_600_000_000;
            clock.set(Time::from_micros(wrong));
            let (_, ticket) = broker::connect(&office.app, &office.officer(n), &Office::browser(n)).await?;
            assert!(
                broker::redeem(&office.app, ticket.unwrap().secret.reveal(), &Office::browser(n), None)
                    .await?
                    .is_some(),
                "{hours} h"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_gateways_redeem_at_the_same_instant_and_one_wins() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan::default()).await?;
        let app = &office.app;
        let (view, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        for round in 0..100 {
            let ticket = broker::ticket(app, &office.officer(0), view.session.id, &Office::browser(0)).await?;
            let tries: Vec<_> = (0..3)
                .map(|_| {
                    let (app, text) = (app.clone(), ticket.secret.reveal().to_owned());
                    tokio::spawn(async move { broker::redeem(&app, &text, &Office::browser(0), None).await })
                })
                .collect();
            let mut won = 0;
            for t in tries {
                won += usize::from(t.await??.is_some());
            }
            assert_eq!(won, 1, "round {round} on {}", db.store.engine());
        }
    }
    Ok(())
}

#[tokio::test]
async fn connections_come_go_and_take_over() -> Result<()> {
    for db in db::both().await? {
        let clock = noon();
        let office = Office::build(&db.store, clock.clone(), Plan::default()).await?;
        let app = &office.app;
        let (view, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        let (id, gateway) = (view.session.id, Uuid::now_v7());
        assert_eq!(broker::attached(app, id, gateway, "192.0.2.1").await?, Ok(1));
        broker::first_frame(app, id, app.clock.now()).await?;
        let seen = row(app, id).await;
        assert_eq!((seen.state, seen.resumes, seen.client_ip.as_str()), (SessionState::Active, 0, "192.0.2.1"));
        assert_eq!(seen.first_frame_at, Some(clock.now().micros()));
        // A second window: the first connection's end must not be taken for the session's.
        assert_eq!(broker::attached(app, id, gateway, "192.0.2.2").await?, Ok(2));
        broker::detached(app, id, 1, 10, 20, app.clock.now()).await?;
        let seen = row(app, id).await;
        assert_eq!((seen.state, seen.resumes, seen.bytes_up, seen.bytes_down), (SessionState::Active, 1, 10, 20));
        broker::detached(app, id, 2, 1, 2, app.clock.now()).await?;
        let seen = row(app, id).await;
        assert_eq!((seen.state, seen.bytes_up, seen.bytes_down), (SessionState::Disconnected, 11, 22));
        let standing = broker::standings(app, vec![id, SessionId(Uuid::now_v7())]).await?;
        assert_eq!(standing.len(), 1);
        broker::end(app, &office.officer(0), id).await?;
        assert_eq!(broker::attached(app, id, gateway, "").await?, Err(Cut::Ended));
        assert_eq!(broker::attached(app, SessionId(Uuid::now_v7()), gateway, "").await?, Err(Cut::Ended));
    }
    Ok(())
}

#[tokio::test]
async fn sessions_of_a_dead_gateway_wait_and_then_end() -> Result<()> {
    for db in db::both().await? {
        let clock = noon();
        let office = Office::build(&db.store, clock.clone(), Plan::default()).await?;
        let (app, policy) = (&office.app, Policy::default());
        let (view, _) = broker::connect(app, &office.officer(0), &Office::browser(0)).await?;
        let id = view.session.id;
        broker::attached(app, id, Uuid::now_v7(), "").await?.unwrap();
        assert_eq!(session_reaper::pass(app).await?, 0, "its gateway was just heard");
        // kill -9: no detach is ever written. Here the gateway's last sign of life grows old.
        office.sql(&format!("UPDATE gateways SET seen_at = seen_at - {}", gateway::SILENCE.as_micros() + 1)).await?;
        assert_eq!(session_reaper::pass(app).await?, 1);
        assert_eq!(row(app, id).await.state, SessionState::Disconnected);
        assert_eq!(session_reaper::pass(app).await?, 0);
        clock.set(clock.now().plus(policy.grace - Duration::from_secs(1)));
        assert_eq!(session_reaper::pass(app).await?, 0);
        clock.set(clock.now().plus(Duration::from_secs(1)));
        assert_eq!(session_reaper::pass(app).await?, 1);
        let over = row(app, id).await;
        assert_eq!((over.state, over.end_reason.as_deref()), (SessionState::Ended, Some("expired")));
        assert_eq!(office.count("SELECT COUNT(*) FROM desktops WHERE state = 'rebuilding'").await?, 1);
        assert_eq!(session_reaper::pass(app).await?, 0, "twice has no second effect");
    }
    Ok(())
}

#[tokio::test]
async fn a_session_whose_desktop_is_gone_ends() -> Result<()> {
    for db in db::both().await? {
        let office = Office::build(&db.store, noon(), Plan { desktops: 3, officers: 3, ..Plan::default() }).await?;
        let app = &office.app;
        let mut ids = Vec::new();
        for n in 0..3 {
            ids.push(broker::connect(app, &office.officer(n), &Office::browser(n)).await?.0.session);
        }
        let name = |n: usize| ids[n].desktop_name.clone();
        office.sql(&format!("DELETE FROM desktops WHERE name = '{}'", name(0))).await?;
        office.sql(&format!("UPDATE desktops SET desired = 'absent' WHERE name = '{}'", name(1))).await?;
        assert_eq!(session_reaper::pass(app).await?, 2);
        let first = row(app, ids[0].id).await;
        assert_eq!((first.end_reason.as_deref(), first.desktop_id), (Some("desktop_gone"), None));
        assert_eq!(first.desktop_name, name(0), "the name outlives the desktop");
        assert_eq!(row(app, ids[2].id).await.state, SessionState::Ready);
        assert_eq!(app.store.session_counts(&Scope::All).await?, (0, 0));
        // The officer is not stuck with it.
        let (view, _) = broker::connect(app, &office.officer(1), &Office::browser(1)).await?;
        assert_eq!(view.state, SessionState::Waiting);
        office
            .sql(&format!("UPDATE desktops SET desired = 'running', assigned_user = NULL WHERE name = '{}'", name(1)))
            .await?;
        assert_eq!(session_reaper::pass(app).await?, 1);
        let (view, _) = broker::connect(app, &office.officer(1), &Office::browser(1)).await?;
        assert_eq!(view.session.desktop_name, name(1));
    }
    Ok(())
}
