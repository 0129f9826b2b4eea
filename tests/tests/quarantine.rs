//! What an identity in quarantine may still do: its open session, and the doors it stands before.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::time::timeout;
use tram_agent::session::control::Control;
use tram_agent::session::tunnel::{Line, OpenError, Over, Session};
use tram_controller::domain::copies::{OpenSession, Suspicion};
use tram_controller::domain::session::Policy;
use tram_controller::services::App;
use tram_tests::db;
use tram_tests::links::{World, csr};
use tram_tests::office::Plan;
use tram_tests::tunnels::{Commune, ask, rectangle, say, shake_hands, until, vnc};
use tram_tests::world::PATIENCE;
use tram_tunnel::{Limits, Role, Tunnel};
use tram_wire::enrol::Renew;
use tram_wire::ids::EndpointId;
use tram_wire::session::{self, Denial, ToAgent, ToGateway};
use tram_wire::{Incoming, RENEW_PATH, version};

async fn quarantine(app: &App, id: EndpointId) -> Result<()> {
    let mut tx = app.store.begin().await?;
    ensure!(tx.quarantine_endpoint(id, &Suspicion::default(), app.clock.now()).await?);
    Ok(tx.commit().await?)
}

async fn lift(app: &App, id: EndpointId) -> Result<()> {
    let mut tx = app.store.begin().await?;
    ensure!(tx.settle_endpoint(id, true, app.clock.now()).await?);
    Ok(tx.commit().await?)
}

#[tokio::test]
async fn an_open_session_goes_on_and_nothing_new_is_opened() -> Result<()> {
    for db in db::both().await? {
        // Nobody in this test waits for the end of a handshake, however busy the machine is.
        let policy = Policy { handshake: PATIENCE, ..Policy::default() };
        let commune = Commune::open(&db.store, Plan::default(), "picture", policy).await?;
        let app = commune.gate.office.app.clone();
        let (device, session) = commune.session(0).await?;
        let mut stream = vnc(&session)?;
        let size = shake_hands(&mut stream).await?;
        // Before: a ticket that nobody redeemed, and a line that was let through the door and has not said what it wants.
        let ticket = commune.ticket(1, &device).await?;
        let (line, _) = say(&device, &ToGateway::Hello(session::Hello { versions: version::OURS })).await?;

        quarantine(&app, device.endpoint_id).await?;
        ask(&mut stream, size).await?;
        timeout(PATIENCE, rectangle(&mut stream)).await.context("the session goes on")??;

        let tunnel = Tunnel::new(Role::Agent, Limits::default());
        let driven = tunnel.clone();
        let drive = tokio::spawn(async move { driven.drive(line, 0).await });
        tunnel.send(ToGateway::Open(session::Open { ticket: ticket.clone() }).encode()?.as_bytes())?;
        let answer = timeout(PATIENCE, tunnel.message()).await?.context("an answer")?;
        match ToAgent::decode(&answer)? {
            Incoming::Message(ToAgent::Refused(r)) => assert_eq!(r.reason, Denial::Ticket),
            other => bail!("{other:?}"),
        }
        drive.abort();
        match Session::open(commune.door(&device)?, &ticket).await {
            Err(OpenError::Dial(_)) => {}
            Err(e) => bail!("the door lets it in: {e}"),
            Ok(_) => bail!("a new session was opened"),
        }
        let desk = Control::new(&device)?.session("vda1_0").await;
        ensure!(desk.as_ref().is_err_and(|e| e.code() == "E-306"), "{desk:?}");

        // Its line breaks: it doesn't come back as long as nobody said whose the identity is.
        let mut status = session.status();
        commune.cable.cut();
        until(&mut status, "lost", |s| matches!(s.line, Line::Lost { .. })).await?;
        let before = status.borrow().resumes;
        commune.cable.mend();
        // The door itself says no, to whoever tries.
        let door = timeout(PATIENCE, tram_tests::tunnels::dial(&device)).await??;
        ensure!(door.is_err(), "the door lets a line in");
        ensure!(status.borrow().resumes == before);
        lift(&app, device.endpoint_id).await?;
        until(&mut status, "back", |s| s.line == Line::Up && s.resumes == before + 1).await?;
        ask(&mut stream, size).await?;
        timeout(PATIENCE, rectangle(&mut stream)).await??;
    }
    Ok(())
}

#[tokio::test]
async fn by_policy_an_open_session_is_cut() -> Result<()> {
    for db in db::both().await? {
        let policy = Policy { quarantine: OpenSession::IsCut, ..Policy::default() };
        let commune = Commune::open(&db.store, Plan::default(), "picture", policy).await?;
        let (device, session) = commune.session(0).await?;
        let (_, other) = commune.session(1).await?;
        let mut theirs = vnc(&other)?;
        let size = shake_hands(&mut theirs).await?;
        let mut status = session.status();
        quarantine(&commune.gate.office.app, device.endpoint_id).await?;
        let over = until(&mut status, "over", |s| matches!(s.line, Line::Over(_))).await?;
        assert_eq!(over.line, Line::Over(Over::Ended(4000)));
        ask(&mut theirs, size).await?;
        timeout(PATIENCE, rectangle(&mut theirs)).await.context("another endpoint's session goes on")??;
    }
    Ok(())
}

#[tokio::test]
async fn at_the_door_of_renewal_it_is_told_why() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        w.pass_time(Duration::from_secs(31 * 86_400));
        let renew = Renew { csr_pem: csr(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?) };
        quarantine(&w.app, d.id).await?;
        let (status, answer) = w.post(Some(&d), RENEW_PATH, &renew).await?;
        assert_eq!((status, &answer["code"]), (403, &"clone".into()), "{answer}");
        lift(&w.app, d.id).await?;
        let (status, answer) = w.post(Some(&d), RENEW_PATH, &renew).await?;
        ensure!(status == 200 && answer["certificate_pem"].is_string(), "{status} {answer}");
    }
    Ok(())
}
