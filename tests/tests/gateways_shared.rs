//! Gateways that share one database: sessions that were taken for lost, and endpoints that come back while the database
//! is away.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};
use tram_agent::session::tunnel::Line;
use tram_controller::domain::session::{Policy, SessionState};
use tram_controller::gateway::Gateway;
use tram_controller::nudge::Bus;
use tram_controller::store::Store;
use tram_controller::store::sessions::Session as Row;
use tram_tests::db::{self, Cluster};
use tram_tests::gate::Gate;
use tram_tests::office::Plan;
use tram_tests::tunnels::{Commune, ask, rectangle, shake_hands};
use tram_wire::ids::SessionId;
use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

const PATIENCE: Duration = Duration::from_secs(60);

async fn until(gate: &Gate, id: SessionId, what: &str, so: impl Fn(&Row) -> bool) -> Result<Row> {
    let look = async {
        loop {
            let row = gate.office.app.store.session(id).await?.context("row")?;
            if so(&row) {
                return Ok::<_, anyhow::Error>(row);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, look).await.with_context(|| what.to_owned())?
}

#[tokio::test]
async fn a_session_that_was_taken_for_lost_is_taken_back_by_who_carries_it() -> Result<()> {
    for db in db::both().await? {
        let mut gate = Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let store = Store::open(&db.url, Bus::default()).await?;
        let there = gate.beside(&store).await?;
        let lost =
            "UPDATE sessions SET state = 'disconnected', gateway_id = NULL, disconnected_at = 1 WHERE state = 'active'";
        let (id, mut viewer) = gate.view(0).await?;
        let before = until(&gate, id, "active", |s| s.state == SessionState::Active).await?;
        gate.office.sql(lost).await?;
        let after = until(&gate, id, "taken back", |s| s.state == SessionState::Active).await?;
        assert_eq!((after.epoch, after.resumes, after.disconnected_at), (before.epoch, before.resumes, None));
        assert_eq!(after.gateway_id, Some(gate.gateway.id()));
        viewer.picture(640, 400).await?;

        // Somebody came back elsewhere meanwhile: who is left behind does not take the session back.
        gate.office.sql(lost).await?;
        let (_, ticket) = gate.ticket(0).await?;
        let cookie = gate.cookie(&ticket);
        let origin = gate.office.app.public_url.clone();
        let mut second = Gate::knock_there(there, "vnc", &ticket, &cookie, &origin).await?;
        second.shake_hands().await?;
        assert_eq!(timeout(PATIENCE, viewer.closed()).await??, 4004);
        let row = until(&gate, id, "active elsewhere", |s| s.state == SessionState::Active).await?;
        assert!(row.epoch > after.epoch && row.gateway_id != Some(gate.gateway.id()));

        // Who left stays away.
        drop(second);
        until(&gate, id, "left", |s| s.state == SessionState::Disconnected).await?;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(gate.office.app.store.session(id).await?.context("row")?.state, SessionState::Disconnected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_while_the_database_is_away_comes_back_and_is_written_down() -> Result<()> {
    let cluster = Cluster::start()?;
    let store = Store::open(&cluster.url(), Bus::default()).await?;
    store.migrate().await?;
    let commune = Commune::open(&store, Plan::default(), "picture", Policy::default()).await?;
    let (_, session) = commune.session(0).await?;
    let mut stream = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
    let size = shake_hands(&mut stream).await?;
    ask(&mut stream, size).await?;
    let picture = rectangle(&mut stream).await?;
    let before = until(&commune.gate, session.id(), "active", |s| s.state == SessionState::Active).await?;

    cluster.kill()?;
    let gateway: &Gateway = &commune.gate.gateway;
    timeout(PATIENCE, async {
        while !gateway.away() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .context("the gateway does not notice")?;
    let mut status = session.status();
    for round in 1..=2 {
        commune.cable.cut();
        timeout(PATIENCE, status.wait_for(|s| matches!(s.line, Line::Lost { .. }))).await??;
        commune.cable.mend();
        let back = timeout(PATIENCE, status.wait_for(|s| s.line == Line::Up)).await??.clone();
        assert_eq!((back.resumes, back.generation), (round, 0), "the same tunnel");
        ask(&mut stream, size).await?;
        assert!(timeout(PATIENCE, rectangle(&mut stream)).await?? == picture);
    }
    // A new stream of a running session: its host is remembered.
    let mut second = session.stream(Protocol::Vnc, Class::Input, Class::Display)?;
    assert_eq!(timeout(PATIENCE, shake_hands(&mut second)).await??, size);
    assert!(gateway.late() >= 4, "two cuts and two returns are kept: {}", gateway.late());

    cluster.again()?;
    let row = until(&commune.gate, session.id(), "what happened is written", |s| s.epoch == before.epoch + 2).await?;
    assert_eq!((row.state, row.resumes), (SessionState::Active, before.resumes + 2));
    assert_eq!(gateway.late(), 0);
    let audited = format!("SELECT COUNT(*) FROM audit WHERE action = 'session.resume' AND target = '{}'", session.id());
    assert_eq!(commune.gate.office.count(&audited).await?, 2);
    Ok(())
}
