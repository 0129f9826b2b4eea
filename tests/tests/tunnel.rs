//! Tunnels of endpoints on real parts: mTLS, the gateway, a simulated host, and a cable that is cut.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tram_agent::session::tunnel::{Line, OpenError, Over, Session};
use tram_controller::domain::session::{Policy, SessionState};
use tram_controller::gateway::Gateway;
use tram_controller::services::{Ctx, broker, endpoints};
use tram_tests::db;
use tram_tests::office::Plan;
use tram_tests::tunnels::{Commune, ask, rectangle, shake_hands, until, vnc};
use tram_wire::ids::SessionId;
use tram_wire::session::{Denial, Protocol};

const PATIENCE: Duration = Duration::from_secs(60);

async fn reaches(commune: &Commune, id: SessionId, state: SessionState) -> Result<()> {
    timeout(PATIENCE, async {
        while commune.gate.office.app.store.session(id).await.unwrap().unwrap().state != state {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .with_context(|| format!("{state:?}"))
}

#[tokio::test]
async fn a_desktop_is_reached_and_left() -> Result<()> {
    for db in db::both().await? {
        let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let (_, session) = commune.session(0).await?;
        assert!(session.protocols().contains(&Protocol::Vnc));
        let mut stream = vnc(&session)?;
        let size = shake_hands(&mut stream).await?;
        ask(&mut stream, size).await?;
        let before = rectangle(&mut stream).await?;
        stream.write_all(&[4, 1, 0, 0, 0, 0, 0, 97]).await?;
        ask(&mut stream, size).await?;
        assert!(rectangle(&mut stream).await? != before, "what was typed shows");
        reaches(&commune, session.id(), SessionState::Active).await?;
        let id = session.id();
        session.leave().await;
        reaches(&commune, id, SessionState::Disconnected).await?;
        let row = commune.gate.office.app.store.session(id).await?.context("row")?;
        assert!(row.first_frame_at.is_some() && row.bytes_down > before.len() as i64, "{row:?}");
        // The row is written while the last of its connections closes.
        timeout(PATIENCE, async {
            while commune.gate.gateway.connections() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .context("a connection stays open")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_limit_that_is_near_is_told_and_taken_back() -> Result<()> {
    let db = db::sqlite().await?;
    let policy = Policy { idle: Duration::from_secs(40), ..Policy::default() };
    let commune = Commune::open(&db.store, Plan::default(), "picture", policy).await?;
    let (_, session) = commune.session(0).await?;
    let mut status = session.status();
    let mut stream = vnc(&session)?;
    shake_hands(&mut stream).await?;
    let warned = until(&mut status, "a warning", |s| s.warning.is_some()).await?;
    let warning = warned.warning.context("a warning")?;
    assert!(warning.code == "idle" && warning.in_s <= 20, "{warning:?}");
    stream.write_all(&[4, 1, 0, 0, 0, 0, 0, 97]).await?;
    until(&mut status, "no warning any more", |s| s.warning.is_none()).await?;
    Ok(())
}

#[tokio::test]
async fn a_cut_of_five_seconds_loses_nothing() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "flood", Policy::default()).await?;
    let (_, session) = commune.session(0).await?;
    let mut status = session.status();
    let mut stream = vnc(&session)?;
    let size = shake_hands(&mut stream).await?;
    ask(&mut stream, size).await?;
    let first = rectangle(&mut stream).await?;
    let (mut up, mut frames) = (0, 0);
    for round in 0..3 {
        for _ in 0..4 {
            // The display sends the same update without end: a lost or doubled byte shifts all that follows.
            assert!(timeout(PATIENCE, rectangle(&mut stream)).await?? == first, "round {round}");
            frames += 1;
        }
        commune.cable.cut();
        let lost = until(&mut status, "lost", |s| matches!(s.line, Line::Lost { .. })).await?;
        assert_eq!(lost.generation, 0);
        reaches(&commune, session.id(), SessionState::Disconnected).await?;
        // Typed while the line is away: it waits.
        for _ in 0..100 {
            stream.write_all(&[5, 0, 0, 1, 0, 1]).await?;
            up += 6;
        }
        sleep(Duration::from_millis([5000, 300, 1200][round])).await;
        timeout(PATIENCE, commune.cable.tried()).await.context("the agent dials by itself")?;
        commune.cable.mend();
        let back = until(&mut status, "back", |s| s.line == Line::Up).await?;
        assert_eq!((back.generation, back.resumes), (0, round as u32 + 1));
        reaches(&commune, session.id(), SessionState::Active).await?;
    }
    assert!(timeout(PATIENCE, rectangle(&mut stream)).await?? == first);
    let id = session.id();
    drop(stream);
    session.leave().await;
    reaches(&commune, id, SessionState::Disconnected).await?;
    let row = commune.gate.office.app.store.session(id).await?.context("row")?;
    assert!(row.bytes_down >= i64::from(frames) * first.len() as i64);
    assert!(row.bytes_up >= up, "all that was typed arrived: {} of {up}", row.bytes_up);
    Ok(())
}

#[tokio::test]
async fn another_gateway_gives_the_same_desktop_within_seconds() -> Result<()> {
    for db in db::both().await? {
        let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let (_, session) = commune.session(0).await?;
        let mut status = session.status();
        let mut stream = vnc(&session)?;
        let size = shake_hands(&mut stream).await?;
        stream.write_all(&[4, 1, 0, 0, 0, 0, 0, 97]).await?;
        ask(&mut stream, size).await?;
        let picture = rectangle(&mut stream).await?;
        for round in 1..=2 {
            let fleet = tram_controller::fleet::Fleet::default();
            fleet.put(commune.gate.office.host, commune.gate.sim.clone());
            let other = Gateway::new(commune.gate.office.app.clone(), fleet, Policy::default());
            commune.carry_by(other.clone());
            commune.cable.cut();
            until(&mut status, "lost", |s| matches!(s.line, Line::Lost { .. })).await?;
            commune.cable.mend();
            let back = until(&mut status, "elsewhere", |s| s.line == Line::Up).await?;
            assert_eq!((back.generation, back.resumes), (round, 0), "a new generation, not a resumption");
            assert!(stream.read_u8().await.is_err(), "streams of the old one are dead");
            stream = vnc(&session)?;
            assert_eq!(shake_hands(&mut stream).await?, size);
            ask(&mut stream, size).await?;
            assert!(rectangle(&mut stream).await? == picture, "the same desktop, with what was typed");
            assert_eq!(other.connections(), 1);
        }
        let audits = commune.gate.office.count("SELECT count(*) FROM audit WHERE action = 'session.return'").await?;
        assert_eq!(audits, 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_silent_line_is_given_up_and_comes_back() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (_, session) = commune.session(0).await?;
    let mut status = session.status();
    let mut stream = vnc(&session)?;
    let size = shake_hands(&mut stream).await?;
    commune.cable.silence();
    until(&mut status, "noticed", |s| matches!(s.line, Line::Lost { .. })).await?;
    commune.cable.mend();
    until(&mut status, "back", |s| s.line == Line::Up && s.resumes == 1).await?;
    ask(&mut stream, size).await?;
    timeout(PATIENCE, rectangle(&mut stream)).await??;
    Ok(())
}

#[tokio::test]
async fn who_does_not_come_back_in_time_finds_the_desktop_by_the_token() -> Result<()> {
    let db = db::sqlite().await?;
    let policy = Policy { line_grace: Duration::from_millis(300), ..Policy::default() };
    let commune = Commune::open(&db.store, Plan::default(), "picture", policy).await?;
    let (_, session) = commune.session(0).await?;
    let mut status = session.status();
    let mut stream = vnc(&session)?;
    shake_hands(&mut stream).await?;
    commune.cable.cut();
    timeout(PATIENCE, async {
        while commune.gate.gateway.connections() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .context("the gateway lets go after the grace")?;
    commune.cable.mend();
    until(&mut status, "again", |s| s.line == Line::Up && s.generation == 1).await?;
    assert!(stream.read_u8().await.is_err());
    shake_hands(&mut vnc(&session)?).await?;
    Ok(())
}

#[tokio::test]
async fn ending_the_session_cuts_a_line_that_is_up_and_one_that_is_away() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let app = commune.gate.office.app.clone();
    let (_, up) = commune.session(0).await?;
    let mut stream = vnc(&up)?;
    shake_hands(&mut stream).await?;
    broker::end(&app, &Ctx::local_admin(app.clock.now()), up.id()).await?;
    let mut status = up.status();
    let over = until(&mut status, "over", |s| matches!(s.line, Line::Over(_))).await?;
    assert_eq!(over.line, Line::Over(Over::Ended(4000)));
    assert!(stream.read_u8().await.is_err());

    let (_, away) = commune.session(1).await?;
    shake_hands(&mut vnc(&away)?).await?;
    let mut status = away.status();
    commune.cable.cut();
    until(&mut status, "lost", |s| matches!(s.line, Line::Lost { .. })).await?;
    broker::end(&app, &Ctx::local_admin(app.clock.now()), away.id()).await?;
    timeout(PATIENCE, async {
        while commune.gate.gateway.connections() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .context("cut while its line is away")?;
    commune.cable.mend();
    let over = until(&mut status, "told", |s| matches!(s.line, Line::Over(_))).await?;
    assert_eq!(over.line, Line::Over(Over::Refused(Denial::Ticket)));
    Ok(())
}

#[tokio::test]
async fn tickets_open_nothing_for_another_endpoint_or_twice() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (mine, other) = (commune.device().await?, commune.device().await?);
    let refused = |r: Result<Session, OpenError>| match r {
        Err(OpenError::Refused(d)) => d,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was let in"),
    };
    let ticket = commune.ticket(0, &mine).await?;
    assert_eq!(refused(Session::open(commune.door(&other)?, &ticket).await), Denial::Ticket);
    let session = Session::open(commune.door(&mine)?, &ticket).await?;
    assert_eq!(refused(Session::open(commune.door(&mine)?, &ticket).await), Denial::Ticket);
    assert_eq!(refused(Session::open(commune.door(&mine)?, "vdt1_").await), Denial::Ticket);
    let (_, browser) = commune.gate.ticket(1).await?;
    assert_eq!(refused(Session::open(commune.door(&mine)?, &browser).await), Denial::Ticket);
    shake_hands(&mut vnc(&session)?).await?;
    Ok(())
}

#[tokio::test]
async fn a_withdrawn_endpoint_is_cut_and_stays_out() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (device, session) = commune.session(0).await?;
    shake_hands(&mut vnc(&session)?).await?;
    let app = &commune.gate.office.app;
    endpoints::revoke(app, &Ctx::local_admin(app.clock.now()), device.endpoint_id, "stolen").await?;
    let mut status = session.status();
    let over = until(&mut status, "cut", |s| matches!(s.line, Line::Over(_))).await?;
    assert_eq!(over.line, Line::Over(Over::Ended(4000)));
    let ticket = commune.ticket(0, &device).await?;
    assert!(matches!(Session::open(commune.door(&device)?, &ticket).await, Err(OpenError::Dial(_))));
    Ok(())
}
