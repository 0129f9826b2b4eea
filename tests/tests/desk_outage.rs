//! The data centre's controller and database are gone, and an officer comes to work: the agent as it is installed with
//! its page in a kiosk browser and a real viewer, a gateway's and a node's process, and nobody else to ask.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tram_controller::identity::password::Passwords;
use tram_controller::identity::secret::Secret;
use tram_controller::nudge::Bus;
use tram_controller::store::{Db, Store};
use tram_tests::db::Cluster;
use tram_tests::device::{Console, Device};
use tram_tests::gateways::Stage;
use tram_tests::kiosk::{Desk, PASSWORD};
use tram_tests::screen::wait;
use tram_tests::world::PATIENCE;

/// The stage's database, asked from outside.
struct Books(Store);

impl Books {
    async fn of(stage: &Stage) -> Result<Self> {
        Ok(Self(Store::open(&stage.world.database(), Bus::default()).await?))
    }

    async fn count(&self, what: &str) -> Result<i64> {
        let Db::Postgres(p) = self.0.db() else { anyhow::bail!("not PostgreSQL") };
        let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {what}"));
        Ok(sqlx::query_scalar(sql).fetch_one(p).await?)
    }

    async fn until(&self, n: i64, what: &str) -> Result<()> {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.count(what).await? != n {
            ensure!(tokio::time::Instant::now() < until, "{what}: {} times, not {n}", self.count(what).await?);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// How often each action about this officer is in the audit.
    async fn told(&self) -> Result<Vec<(String, i64)>> {
        let mut told = Vec::new();
        for action in
            ["lease.issue", "lease.refuse", "session.lease", "session.lease_back", "session.lease_end", "session.end"]
        {
            told.push((action.to_owned(), self.count(&format!("audit WHERE action = '{action}'")).await?));
        }
        Ok(told)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_comes_to_work_while_the_data_centre_is_away() -> Result<()> {
    let cluster = Cluster::start()?;
    let mut stage = Stage::build(Some(cluster.url()), 2, &["gw-1", "gw-2"])?;
    let (console, _) = Console::officer(&stage.world, "hoa")?;
    // One that is typed without a shift key, as the other desks' officers have.
    let books = Books::of(&stage).await?;
    let hash = Passwords::default().hash(&Secret::from_text(PASSWORD)).await?;
    if let Db::Postgres(p) = books.0.db() {
        sqlx::query("UPDATE users SET password_hash = $1 WHERE username = 'hoa'").bind(hash).execute(p).await?;
    }
    books.0.close().await;
    let (device, _) = Device::enrolled(&stage.world)?;
    let folder = tempfile::tempdir()?;

    // A day like any other: what is typed colours the desktop, and a lease lies on the disk.
    let mut desk = Desk::start("desk-outage", &device.state(), folder.path())?;
    desk.ready()?;
    desk.sign_in(&["hoa", PASSWORD])?;
    let view = desk.until("desktop")?;
    let desktop = view["desktop"].as_str().context("a desktop's name")?.to_owned();
    ensure!(view["lease_until_ms"].is_null(), "{view}");
    desk.until_front("TigerVNC")?;
    desk.picture_of_desktop("before")?;
    let untouched = desk.centre()?;
    desk.screen.xdotool(&["type", "--delay", "40", "tram"])?;
    let left = wait("what was typed", || {
        let now = desk.centre()?;
        std::thread::sleep(Duration::from_secs(1));
        Ok((now != untouched && now == desk.centre()?).then_some(now))
    })?;
    let leases = device.state().join("leases");
    wait("a lease", || Ok(fs::read_dir(&leases).is_ok_and(|mut all| all.next().is_some()).then_some(())))?;
    let (status, rows) = console.get("/api/v1/sessions")?;
    ensure!(status == 200, "{status} {rows}");
    let session = rows["items"][0]["id"].as_str().context("a session")?.to_owned();

    // The computer is switched off; then the controller and its database are gone.
    drop(desk);
    Stage::until_session(&console, &session, "its viewer is gone", |s| s["state"] == "disconnected")?;
    stage.world.kill9()?;
    cluster.kill()?;

    let mut desk = Desk::start("desk-outage-away", &device.state(), folder.path())?;
    desk.ready_without_line()?;
    desk.picture("sign-in")?;
    desk.sign_in(&["hoa", "sai-mat-khau"])?;
    let view = wait("a refusal", || {
        let view = desk.view()?;
        Ok((!view["problem"].is_null()).then_some(view))
    })?;
    let problem = (view["problem"]["code"].as_str(), view["problem"]["remaining"].as_i64());
    ensure!(problem == (Some("D-108"), Some(4)), "{view}");
    desk.until("sign_in")?;
    desk.picture("wrong-password")?;
    // The cursor stands in the password's field.
    desk.sign_in(&[PASSWORD])?;
    let view = desk.until("desktop")?;
    ensure!(view["desktop"] == desktop.as_str() && view["lease_until_ms"].is_i64(), "{view}");
    desk.until_front("TigerVNC")?;
    wait("the desktop as it was left", || Ok((desk.centre()? == left).then_some(())))?;
    desk.picture_of_desktop("desktop")?;

    // A viewer that was closed comes back by one key: the page says by what right, and asks for nothing.
    desk.close_viewer()?;
    desk.until_front("Tram desk")?;
    desk.picture("left")?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;
    wait("the same desktop again", || Ok((desk.centre()? == left).then_some(())))?;
    desk.screen.xdotool(&["type", "x"])?;
    let now = wait("work goes on", || {
        let now = desk.centre()?;
        std::thread::sleep(Duration::from_secs(1));
        Ok((now != left && now == desk.centre()?).then_some(now))
    })?;

    // Its gateway dies as well: the agent shows its lease at the other one, and nobody is asked for anything.
    let at = stage.gateways.iter().position(|g| g.log().contains("let in by a lease")).context("which gateway")?;
    let viewer = desk.viewer().context("a viewer")?;
    stage.gateways[at].kill9()?;
    wait("another viewer", || Ok(desk.viewer().filter(|v| *v != viewer))).with_context(|| {
        let logs: Vec<String> = stage.gateways.iter().map(|g| format!("{}:\n{}", g.name, g.log())).collect();
        format!("desk:\n{}\n{}", desk.log(), logs.join("\n"))
    })?;
    let view = desk.until("desktop")?;
    ensure!(view["lease_until_ms"].is_i64(), "{view}");
    desk.until_front("TigerVNC")?;
    wait("the same desktop at another gateway", || Ok((desk.centre()? == now).then_some(())))?;
    ensure!(stage.gateways[1 - at].log().contains("let in by a lease"));
    desk.picture_of_desktop("another-gateway")?;
    let other = stage.gateways[1 - at].name;

    // All are back. By the books nobody was in the session for years: the controller must not end it before the
    // gateway was heard.
    cluster.again()?;
    let books = Books::of(&stage).await?;
    if let Db::Postgres(p) = books.0.db() {
        sqlx::query("UPDATE sessions SET disconnected_at = 1 WHERE state = 'disconnected'").execute(p).await?;
    }
    stage.world.start()?;
    stage.world.listening()?;
    // What the dead one kept on its disk is told when it is started again.
    stage.gateways[at].again(&stage.world)?;
    books.until(1, "audit WHERE action = 'session.lease_back' AND actor = 'hoa'").await?;
    books.until(2, "audit WHERE action = 'session.lease_end' AND actor = 'hoa'").await?;
    books.until(0, "gateways WHERE untold > 0").await?;
    let row = Stage::until_session(&console, &session, "it goes on", |s| s["state"] == "active")?;
    ensure!(row["gateway"] == other, "{row}");
    books.until(3, "audit WHERE action = 'session.lease' AND actor = 'hoa'").await?;
    // Each once, and nothing more once everybody has had the time to say everything again.
    let told = || async { anyhow::Ok(books.told().await?) };
    let once = [
        ("lease.issue", 1),
        ("lease.refuse", 0),
        ("session.lease", 3),
        ("session.lease_back", 1),
        ("session.lease_end", 2),
        ("session.end", 0),
    ]
    .map(|(action, n)| (action.to_owned(), n));
    ensure!(told().await? == once, "{:?}", told().await?);
    tokio::time::sleep(tram_controller::domain::gateway::SILENCE + Duration::from_secs(5)).await;
    ensure!(told().await? == once, "{:?}", told().await?);
    ensure!(Stage::session(&console, &session)?["state"] == "active");
    ensure!(desk.centre()? == now, "the desktop on the screen is not what it was");
    desk.picture_of_desktop("afterwards")?;
    desk.screen.xdotool(&["type", "y"])?;
    wait("work goes on afterwards", || Ok((desk.centre()? != now).then_some(())))?;
    ensure!(desk.leaks(&[PASSWORD, "sai-mat-khau"]).is_empty(), "{:?}", desk.leaks(&[PASSWORD]));
    Ok(())
}
