//! Support looks through the gateway: beside the officer, with no more rights than were given, until it is stopped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error as WsError;
use tram_controller::domain::assist::Question;
use tram_controller::domain::session::Policy;
use tram_controller::services::{assists, broker};
use tram_controller::store::Db;
use tram_tests::db;
use tram_tests::gate::{Gate, Viewer};
use tram_tests::office::Plan;
use tram_tests::support::{COOKIE, PATIENCE, Support};
use tram_wire::ids::SessionId;

/// A gate with somebody of support who is signed in.
struct Room {
    gate: Gate,
    support: Support,
}

impl Room {
    async fn open(display: &str) -> Result<(db::TestDb, Self)> {
        let db = db::sqlite().await?;
        let gate = Gate::open(&db.store, Plan::default(), display, Policy::default()).await?;
        let support = Support::sign_in(&gate).await?;
        Ok((db, Self { gate, support }))
    }

    /// Asks, and gets the first officer's yes.
    async fn allowed(&self, session: SessionId) -> Result<()> {
        let asked = self.support.ask(&self.gate, session, "the printer").await?;
        let officer = self.gate.office.officer(0);
        assists::answer(&self.gate.office.app, &officer, session, asked.id, Question::Watch, true).await?;
        Ok(())
    }

    /// The same, and a ticket.
    async fn ticket(&self, session: SessionId) -> Result<String> {
        self.allowed(session).await?;
        self.support.ticket(&self.gate, session).await
    }

    async fn knock(&self, door: &str, ticket: &str, cookie: &str) -> Result<Viewer, WsError> {
        Support::knock(&self.gate, door, ticket, cookie).await
    }

    async fn look(&self, session: SessionId) -> Result<Viewer> {
        self.allowed(session).await?;
        self.support.look(&self.gate, session).await
    }

    async fn until(&self, what: &str, mut so: impl FnMut() -> bool) -> Result<()> {
        let since = Instant::now();
        while !so() {
            anyhow::ensure!(since.elapsed() < PATIENCE, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Until what waits to be read by a viewer does not grow any more.
    async fn fills(&self, socket: &tokio::net::TcpStream) -> Result<()> {
        let (mut all, mut had, mut still) = (vec![0; 64 << 20], 0, 0);
        while still < 20 {
            let have = socket.peek(&mut all).await?;
            still = if have > had { 0 } else { still + 1 };
            had = have;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn end_reason(&self, session: SessionId) -> Result<Option<String>> {
        Ok(Support::until(&self.gate, session, |a| a.end_reason.is_some()).await?.end_reason)
    }
}

/// Everything a viewer can send that is no request for pictures. The simulated desktop hangs up at messages it does
/// not know, as most of these are.
fn forbidden() -> Vec<u8> {
    [
        &[4, 1, 0, 0, 0, 0, 0x1e, 0xa1][..],
        &[5, 1, 0, 5, 0, 5],
        &[6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c'],
        &[6, 0, 0, 0, 255, 255, 255, 253, b'a', b'b', b'c'],
        &[255, 0, 0, 1, 0, 0, 0, 97, 0, 0, 0, 30],
        &[255, 1, 0, 0],
        &[250, 0, 1, 2],
        &[251, 0, 2, 0, 2, 0, 0, 0],
    ]
    .concat()
}

#[tokio::test]
async fn who_looks_changes_nothing_until_they_may() -> Result<()> {
    let (_db, room) = Room::open("picture").await?;
    let gate = &room.gate;
    let (session, mut officer) = gate.view(0).await?;
    let before = officer.picture(640, 400).await?;
    let mut support = room.look(session).await?;
    assert_eq!(support.picture(640, 400).await?, before, "the same desktop");
    support.send(&forbidden()).await?;
    // In the order of the stream: the answer to this comes after all that was sent before it.
    assert_eq!(support.picture(640, 400).await?, before, "and it is still there");
    assert_eq!(officer.picture(640, 400).await?, before);
    officer.send(&[4, 1, 0, 0, 0, 0, 0x1e, 0xa2]).await?;
    let typed = officer.picture(640, 400).await?;
    assert!(typed != before && support.picture(640, 400).await? == typed, "the officer works on and is seen to");

    let app = &gate.office.app;
    let asked = room.support.ask_control(gate, session).await?;
    support.send(&forbidden()).await?;
    assert_eq!(support.picture(640, 400).await?, typed, "asking is not having");
    assists::answer(app, &gate.office.officer(0), session, asked.id, Question::Control, true).await?;
    let since = Instant::now();
    loop {
        support.send(&[4, 1, 0, 0, 0, 0, 0x1e, 0xa3]).await?;
        if support.picture(640, 400).await? != typed {
            break;
        }
        anyhow::ensure!(since.elapsed() < PATIENCE, "control never came");
    }
    // Control is keys and mouse: the rest would make the simulated desktop hang up.
    support.send(&forbidden()[14..25]).await?;
    support.send(&[250, 0, 1, 2, 251, 0, 2, 0, 2, 0, 0, 0, 255, 1, 0, 0]).await?;
    support.picture(640, 400).await?;

    assists::end(app, &gate.office.officer(0), session).await?;
    assert_eq!(timeout(PATIENCE, support.closed()).await??, 4000);
    assert_eq!(room.end_reason(session).await?.as_deref(), Some("officer"));
    officer.picture(640, 400).await?;
    assert_eq!(app.store.session(session).await?.context("a row")?.epoch, 1, "one connection, from beginning to end");
    Ok(())
}

#[tokio::test]
async fn neither_door_takes_the_others_ticket() -> Result<()> {
    let (_db, room) = Room::open("picture").await?;
    let (session, _officer) = room.gate.view(0).await?;
    let look = room.ticket(session).await?;
    let (mine, theirs) = (format!("tram_session={COOKIE}"), room.gate.cookie("none"));
    let (_, work) = room.gate.ticket(0).await?;
    let officers = room.gate.cookie(&work);
    for (door, ticket, cookie) in [
        ("vnc", &look, &mine),
        ("vnc", &look, &officers),
        ("assist", &work, &officers),
        ("assist", &work, &mine),
        ("assist", &look, &officers),
        ("assist", &look, &theirs),
        ("assist", &"vat1_x".to_owned(), &mine),
    ] {
        let Err(WsError::Http(refused)) = room.knock(door, ticket, cookie).await else { panic!("{door} opened") };
        let body = String::from_utf8_lossy(refused.body().as_deref().unwrap_or_default()).into_owned();
        assert!(refused.status() == 403 && body.contains("G-101"), "{door}: {body}");
    }
    assert!(room.knock("assist", &look, &mine).await.is_ok(), "unspent by all that");
    let Err(WsError::Http(again)) = room.knock("assist", &look, &mine).await else { panic!("opened twice") };
    assert_eq!(again.status(), 403);
    Ok(())
}

#[tokio::test]
async fn a_stop_cuts_a_viewer_that_takes_nothing() -> Result<()> {
    let (_db, room) = Room::open("flood").await?;
    let (session, _officer) = room.gate.view(0).await?;
    let mut support = room.look(session).await?;
    // Asks for pictures without end and never reads one.
    let ask = [3, 0, 0, 0, 0, 0, 2, 128, 1, 144];
    support.send(&ask).await?;
    support.stream.get_mut().flush().await?;
    room.fills(support.stream.get_ref()).await?;
    let since = Instant::now();
    assists::end(&room.gate.office.app, &room.gate.office.officer(0), session).await?;
    room.until("the desktop's side is closed", || room.gate.gateway.assists() == 0).await?;
    println!("stopped after {} ms", since.elapsed().as_millis());
    assert_eq!(room.end_reason(session).await?.as_deref(), Some("officer"));
    Ok(())
}

#[tokio::test]
async fn what_ends_the_right_to_look_ends_the_look() -> Result<()> {
    for (how, reason) in [
        ("DELETE FROM web_sessions WHERE user_id IN (SELECT id FROM users WHERE username = 'support')", "not_allowed"),
        ("UPDATE users SET disabled = 1 WHERE username = 'support'", "not_allowed"),
        ("UPDATE assists SET due_at = asked_at", "longest"),
    ] {
        let (_db, room) = Room::open("picture").await?;
        let (session, mut officer) = room.gate.view(0).await?;
        let mut support = room.look(session).await?;
        room.gate.office.sql(how).await?;
        assert_eq!(timeout(PATIENCE, support.closed()).await??, 4000, "{how}");
        assert_eq!(room.end_reason(session).await?.as_deref(), Some(reason), "{how}");
        officer.picture(640, 400).await?;
    }
    let (_db, room) = Room::open("picture").await?;
    let (session, mut officer) = room.gate.view(0).await?;
    let mut support = room.look(session).await?;
    broker::end(&room.gate.office.app, &room.gate.office.officer(0), session).await?;
    assert_eq!(timeout(PATIENCE, support.closed()).await??, 4000);
    assert_eq!(timeout(PATIENCE, officer.closed()).await??, 4000);
    assert_eq!(room.end_reason(session).await?.as_deref(), Some("session_over"));

    let (_db, room) = Room::open("picture").await?;
    let (session, mut officer) = room.gate.view(0).await?;
    drop(room.look(session).await?);
    assert_eq!(room.end_reason(session).await?.as_deref(), Some("left"), "the mark goes when nobody looks");
    officer.picture(640, 400).await?;
    room.look(session).await?;
    room.gate.gateway.drain().await;
    assert_eq!(room.gate.gateway.assists(), 0);
    Ok(())
}

#[tokio::test]
async fn what_nobody_could_stop_does_not_go_on() -> Result<()> {
    let (_db, room) = Room::open("picture").await?;
    let (session, mut officer) = room.gate.view(0).await?;
    let mut support = room.look(session).await?;
    let Db::Sqlite { write, read } = room.gate.office.app.store.db() else { anyhow::bail!("SQLite was asked for") };
    write.close().await;
    read.close().await;
    assert_eq!(timeout(PATIENCE, support.closed()).await??, 4000, "without a database a stop would not be heard");
    officer.picture(640, 400).await?;
    assert_eq!(room.gate.gateway.connections(), 1, "who works goes on working");
    Ok(())
}

#[tokio::test]
async fn an_end_that_could_not_be_written_down_is_written_later() -> Result<()> {
    let (_db, room) = Room::open("picture").await?;
    let (session, _officer) = room.gate.view(0).await?;
    let support = room.look(session).await?;
    let app = &room.gate.office.app;
    room.gate.office.sql("ALTER TABLE assists RENAME TO assists_away").await?;
    drop(support);
    room.until("the desktop's side is closed", || room.gate.gateway.assists() == 0).await?;
    room.gate.office.sql("ALTER TABLE assists_away RENAME TO assists").await?;
    assert_eq!(room.end_reason(session).await?.as_deref(), Some("left"));
    assert!(assists::standings(app).await?.is_empty());
    Ok(())
}
