//! Gateways as processes of their own: what happens to sessions when the controller, the database or a gateway is
//! killed, or an operator empties one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error as WsError;
use tram_agent::session::tunnel::{Line, Session, Status};
use tram_controller::nudge::Bus;
use tram_controller::store::{Db, Store};
use tram_tests::db::Cluster;
use tram_tests::device::{Console, Device};
use tram_tests::gateways::{Browser, Stage, frame, works};
use tram_tests::guest::Guest;
use tram_tests::tunnels::{ask, rectangle, shake_hands};
use tram_tests::world::PATIENCE;
use tram_tunnel::Stream;
use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

/// A number out of the stage's database.
async fn count(stage: &Stage, sql: &str) -> Result<i64> {
    let store = Store::open(&stage.world.database(), Bus::default()).await?;
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    let n = match store.db() {
        Db::Sqlite { read, .. } => sqlx::query_scalar(sql).fetch_one(read).await?,
        Db::Postgres(p) => sqlx::query_scalar(sql).fetch_one(p).await?,
    };
    store.close().await;
    Ok(n)
}

fn vnc(session: &Session) -> Result<Stream> {
    Ok(session.stream(Protocol::Vnc, Class::Input, Class::Display)?)
}

async fn types(stream: &mut Stream, key: u8) -> Result<Vec<u8>> {
    use tokio::io::AsyncWriteExt;
    stream.write_all(&[4, 1, 0, 0, 0, 0, 0, key]).await?;
    ask(stream, (640, 400)).await?;
    timeout(PATIENCE, rectangle(stream)).await.context("no picture")?
}

async fn until(session: &Session, what: &str, so: impl Fn(&Status) -> bool) -> Result<Status> {
    let mut status = session.status();
    let found = timeout(PATIENCE, status.wait_for(|s| so(s))).await.map(|s| s.map(|s| s.clone()));
    match found {
        Ok(s) => Ok(s?),
        Err(_) => bail!("{what}: {:?}", session.status().borrow().clone()),
    }
}

async fn the_controller_is_killed(database: Option<String>) -> Result<()> {
    let mut stage = Stage::build(database, 2, &["gw-1"])?;
    let (console, _) = Console::officer(&stage.world, "lan")?;
    let (id, url, mut viewer) = stage.view(&console).await?;
    ensure!(url.contains(&stage.gateways[0].web.to_string()), "it was sent to {url}, not to the gateway of its own");
    let (device, _) = Device::enrolled(&stage.world)?;
    let (_, password) = Console::officer(&stage.world, "hoa")?;
    // Two desktops: one in a browser, one at an endpoint.
    let session = stage.endpoint(&device, "hoa", &password).await?;
    let mut stream = vnc(&session)?;
    shake_hands(&mut stream).await?;
    let mut seen = vec![works(&mut viewer, b'a').await?];
    types(&mut stream, b'a').await?;
    Stage::until_session(&console, &id, "active", |s| s["state"] == "active" && s["gateway"] == "gw-1")?;

    stage.world.kill9()?;
    for key in b'b'..=b'k' {
        seen.push(works(&mut viewer, key).await?);
        types(&mut stream, key).await?;
    }
    ensure!(seen.windows(2).all(|w| w[0] != w[1]), "what was typed shows");
    stage.world.start()?;
    for key in b'l'..=b'p' {
        works(&mut viewer, key).await?;
        types(&mut stream, key).await?;
    }
    let row = Stage::until_session(&console, &id, "still active", |s| s["state"] == "active")?;
    ensure!(row["resumes"] == 0 && row["gateway"] == "gw-1" && row["first_frame_at"].is_string(), "{row}");
    let tunnel = session.status().borrow().clone();
    ensure!(tunnel.line == Line::Up && (tunnel.resumes, tunnel.generation) == (0, 0), "{tunnel:?}");
    let attached = format!("SELECT COUNT(*) FROM audit WHERE action = 'session.attach' AND target = '{id}'");
    ensure!(count(&stage, &attached).await? == 1, "one connection, one row");

    // The whole time its gateway was counted as alive, and what it knows is written at the end.
    drop(viewer);
    let row = Stage::until_session(&console, &id, "disconnected", |s| s["state"] == "disconnected")?;
    ensure!(row["bytes_down"].as_i64() > Some(16 * 640 * 400 * 4), "{row}");
    session.leave().await;
    stage.gateways[0].stop()?;
    stage.until_gateway("gw-1", "stopped")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_on_sqlite_is_not_noticed() -> Result<()> {
    the_controller_is_killed(None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_on_postgres_is_not_noticed() -> Result<()> {
    let cluster = Cluster::start()?;
    the_controller_is_killed(Some(cluster.url())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_is_not_noticed_before_a_real_display_either() -> Result<()> {
    let displays = tempfile::tempdir()?;
    let mut guest = Guest::start(displays.path())?;
    let host = format!("&displays={}", displays.path().display());
    let mut stage = Stage::build_on(None, 1, &["gw-1"], &host)?;
    let (console, _) = Console::officer(&stage.world, "lan")?;
    let (id, ticket) = Stage::connect(&console)?;
    let mut viewer = stage.knock(&console, &ticket).await?;
    let size = viewer.shake_hands().await?;
    let all = usize::from(size.0) * usize::from(size.1);
    ensure!(frame(&mut viewer, size).await? == all, "the whole screen");
    stage.world.kill9()?;
    for _ in 0..20 {
        ensure!(frame(&mut viewer, size).await? == all, "the whole screen");
    }
    stage.world.start()?;
    ensure!(frame(&mut viewer, size).await? == all, "the whole screen");
    let row = Stage::until_session(&console, &id, "still active", |s| s["state"] == "active")?;
    ensure!(row["resumes"] == 0 && row["gateway"] == "gw-1", "{row}");
    ensure!(guest.lives()?, "QEMU lives");
    Ok(())
}

/// A refusal's status and body.
fn refused(knocked: Result<Browser, WsError>) -> Result<(u16, String)> {
    match knocked {
        Err(WsError::Http(answer)) => {
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
            Ok((answer.status().as_u16(), body))
        }
        Err(e) => Err(e.into()),
        Ok(_) => bail!("it was let in"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_stops_nobody_and_learns_afterwards_what_happened() -> Result<()> {
    let cluster = Cluster::start()?;
    let stage = Stage::build(Some(cluster.url()), 3, &["gw-1"])?;
    let (lan, _) = Console::officer(&stage.world, "lan")?;
    let (minh, _) = Console::officer(&stage.world, "minh")?;
    let (late, _) = Console::officer(&stage.world, "late")?;
    let (stays, _, mut working) = stage.view(&lan).await?;
    let (leaves, _, leaving) = stage.view(&minh).await?;
    works(&mut working, b'a').await?;
    Stage::until_session(&minh, &leaves, "active", |s| s["state"] == "active")?;
    let (_, ticket) = Stage::connect(&late)?;

    cluster.kill()?;
    let lost = Instant::now();
    let (status, body) = refused(stage.knock(&late, &ticket).await)?;
    ensure!(status == 503 && body.contains("\"G-503\"") && body.contains("detail_vi"), "{status} {body}");
    drop(leaving);
    let mut key = 0;
    // Longer than a gateway may be silent: only the database's own absence keeps it from being taken for dead.
    while lost.elapsed() < Duration::from_secs(22) {
        key += 1;
        works(&mut working, key).await?;
        sleep(Duration::from_millis(500)).await;
    }
    let (status, _) = refused(stage.knock(&late, &ticket).await)?;
    ensure!(status == 503, "{status}");
    cluster.again()?;

    let row = Stage::until_session(&minh, &leaves, "its end is written down", |s| s["state"] == "disconnected")?;
    let at = row["disconnected_at"].as_str().context("when")?.to_owned();
    let row = Stage::until_session(&lan, &stays, "still active", |s| s["state"] == "active")?;
    ensure!(row["resumes"] == 0, "{row}");
    let resumed = Stage::session(&minh, &leaves)?;
    ensure!(resumed["disconnected_at"] == at.as_str(), "{resumed}");
    works(&mut working, b'z').await?;
    // New ones are let in again.
    let (_, _, mut viewer) = stage.view(&late).await?;
    works(&mut viewer, b'a').await?;
    let row = Stage::session(&lan, &stays)?;
    ensure!(row["state"] == "active" && row["resumes"] == 0, "{row}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_sends_its_endpoint_to_another_one() -> Result<()> {
    let mut stage = Stage::build(None, 2, &["gw-1", "gw-2"])?;
    let (_, password) = Console::officer(&stage.world, "hoa")?;
    let (lan, _) = Console::officer(&stage.world, "lan")?;
    let (device, _) = Device::enrolled(&stage.world)?;
    let session = stage.endpoint(&device, "hoa", &password).await?;
    let id = session.id().to_string();
    let operator = Console::sign_in(&stage.world, "operator")?;
    let mut stream = vnc(&session)?;
    shake_hands(&mut stream).await?;
    let picture = types(&mut stream, b'a').await?;
    let mut took = Vec::new();
    for round in 1..=2 {
        let row =
            Stage::until_session(&operator, &id, "active", |s| s["state"] == "active" && s["gateway"].is_string())?;
        let at = stage.gateways.iter().position(|g| row["gateway"] == g.name).context("which gateway")?;
        let other = stage.gateways[1 - at].name;
        let killed = Instant::now();
        stage.gateways[at].kill9()?;
        until(&session, "elsewhere", |s| s.generation == round && s.line == Line::Up).await?;
        // Up to the first picture at the other one.
        stream = vnc(&session)?;
        shake_hands(&mut stream).await?;
        ask(&mut stream, (640, 400)).await?;
        let again = timeout(PATIENCE, rectangle(&mut stream)).await.context("no picture")??;
        took.push(killed.elapsed());
        ensure!(again == picture, "the same desktop, as it was left");
        let row = Stage::until_session(&operator, &id, "moved", |s| s["gateway"] == other)?;
        ensure!(row["state"] == "active" && row["resumes"] == round, "{row}");
        let world = &stage.world;
        stage.gateways[at].again(world)?;
        let name = stage.gateways[at].name;
        stage.until_gateway(name, "live")?;
    }
    println!("from kill -9 to the picture at another gateway: {took:?}");
    session.leave().await;

    // A browser asks again, and is not sent to the one that is gone although nobody missed it yet.
    let (id, url, mut viewer) = stage.view(&lan).await?;
    works(&mut viewer, b'a').await?;
    let at = stage.gateways.iter().position(|g| url.contains(&g.web.to_string())).context("which")?;
    stage.gateways[at].kill9()?;
    ensure!(works(&mut viewer, b'b').await.is_err());
    let (again, url, mut viewer) = stage.view(&lan).await?;
    ensure!(again == id && url.contains(&stage.gateways[1 - at].web.to_string()), "{url}");
    works(&mut viewer, b'c').await?;
    let name = stage.gateways[at].name;
    stage.until_gateway(name, "silent")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_drained_sends_its_sessions_elsewhere() -> Result<()> {
    let mut stage = Stage::build(None, 2, &["gw-1", "gw-2"])?;
    let (lan, _) = Console::officer(&stage.world, "lan")?;
    let operator = Console::sign_in(&stage.world, "operator")?;
    let support = Console::sign_in(&stage.world, "support")?;
    let (_, password) = Console::officer(&stage.world, "hoa")?;
    let (device, _) = Device::enrolled(&stage.world)?;
    let session = stage.endpoint(&device, "hoa", &password).await?;
    let (id, url, mut viewer) = stage.view(&lan).await?;
    works(&mut viewer, b'a').await?;
    let at = stage.gateways.iter().position(|g| url.contains(&g.web.to_string())).context("which")?;
    let (name, other) = (stage.gateways[at].name, stage.gateways[1 - at].name);
    let row = stage.gateway(name)?;
    let gateway = row["id"].as_str().context("id")?.to_owned();
    let (status, _) = support.post(&format!("/api/v1/gateways/{gateway}/drain"), &serde_json::json!({}))?;
    ensure!(status == 403, "support may look only: {status}");
    let (status, row) = operator.post(&format!("/api/v1/gateways/{gateway}/drain"), &serde_json::json!({}))?;
    ensure!(status == 200 && row["state"] == "draining", "{status} {row}");
    let closed = timeout(PATIENCE, viewer.closed()).await.context("nobody was sent away")??;
    ensure!(closed == 1012, "come back at once: {closed}");
    let (again, url, mut viewer) = stage.view(&lan).await?;
    ensure!(again == id && url.contains(&stage.gateways[1 - at].web.to_string()), "{url}");
    works(&mut viewer, b'b').await?;
    // The endpoint's tunnel is at the other one, wherever it was before.
    let tunnel = session.id().to_string();
    Stage::until_session(&operator, &tunnel, "moved", |s| s["state"] == "active" && s["gateway"] == other)?;
    // The wish stays over a restart of that gateway, and ends when the operator says so.
    stage.gateways[at].stop()?;
    stage.until_gateway(name, "stopped")?;
    stage.gateways[at].again(&stage.world)?;
    stage.until_gateway(name, "draining")?;
    let back = stage.world.json(&["admin", "gateway", "undrain", name, "--json"])?;
    ensure!(back[0]["state"] == "live", "{back}");
    // Both are to be empty: nobody is sent anywhere but to the controller's own.
    stage.world.cli(&["admin", "gateway", "drain", name])?;
    stage.world.cli(&["admin", "gateway", "drain", other])?;
    timeout(PATIENCE, viewer.closed()).await.context("nobody was sent away")??;
    let (_, url, mut viewer) = stage.view(&lan).await?;
    ensure!(url.contains(&stage.world.web.to_string()), "{url}");
    works(&mut viewer, b'c').await?;
    // A controller that carries nothing itself says so, until somebody does.
    stage.world.stop()?;
    stage.world.start_with(&[("TRAM_GATEWAY_EMBEDDED", "false")])?;
    stage.world.listening()?;
    let (status, answer) = lan.post("/api/v1/connect", &serde_json::json!({}))?;
    ensure!(status == 503 && answer["code"] == "G-504", "{status} {answer}");
    stage.world.cli(&["admin", "gateway", "undrain", name])?;
    let (_, url, mut viewer) = stage.view(&lan).await?;
    ensure!(url.contains(&stage.gateways[at].web.to_string()), "{url}");
    works(&mut viewer, b'd').await?;
    let audited = "SELECT COUNT(*) FROM audit WHERE action IN ('gateway.drain', 'gateway.undrain')";
    ensure!(count(&stage, audited).await? == 5, "three times drained, twice undone");
    ensure!(stage.world.cli(&["admin", "gateway", "drain", "gw-9"]).is_err_and(|e| e.to_string().contains("gw-9")));
    Ok(())
}

#[test]
fn a_gateway_that_can_not_start_says_why() -> Result<()> {
    let stage = Stage::build(None, 1, &["gw-1"])?;
    let run = |env: &[(&str, &str)]| -> Result<String> {
        let out = stage.world.command()?.arg("gateway").envs(env.iter().copied()).output()?;
        ensure!(out.status.code() == Some(1), "{}", out.status);
        Ok(String::from_utf8(out.stderr)?)
    };
    let taken = stage.world.web.to_string();
    for (env, wanted) in [
        (("TRAM_GATEWAY_NAME", "gw-1"), "runs on this data folder already"),
        (("TRAM_GATEWAY_NAME", "Cổng 1"), "gateway.name"),
        (("TRAM_GATEWAY_LISTEN", taken.as_str()), "gateway.listen"),
        (("TRAM_GATEWAY_PUBLIC_URL", "https://gw.elsewhere.example"), "gateway.public_url"),
        (("TRAM_GATEWAY_EMBEDDED", "perhaps"), "gateway.embedded"),
    ] {
        let said = run(&[env])?;
        ensure!(said.contains(wanted), "{wanted}: {said}");
    }
    Ok(())
}
