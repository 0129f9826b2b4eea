//! One row for each failure: what an officer at an endpoint reads of it, with which code, and whom to call.
//! The same table for people is `docs/operations/failures.md`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tram_agent::session::desk::{Desk, Settings};
use tram_agent::session::page::{Command, Shown};
use tram_agent::session::texts::text;
use tram_agent::session::view::{Phase, View};
use tram_agent::session::viewer::{Profile, Viewer};
use tram_controller::domain::session::Policy;
use tram_controller::services::{Ctx, broker};
use tram_controller::store::sessions::Filter;
use tram_hypervisor::{Hypervisor, Stop};
use tram_tests::db::{self, TestDb};
use tram_tests::kiosk::{PASSWORD, bare_viewer, commune_with};
use tram_tests::tunnels::Commune;
use tram_wire::desk::SignIn;
use tram_wire::ids::SessionId;

const PATIENCE: Duration = Duration::from_secs(90);

/// An officer at work at an endpoint whose viewer is a program that only reads.
struct Work {
    commune: Commune,
    view: watch::Receiver<Shown>,
    commands: mpsc::Sender<Command>,
    session: SessionId,
    _folder: tempfile::TempDir,
    _db: TestDb,
}

impl Work {
    async fn begin(policy: Policy) -> Result<Self> {
        let db = db::sqlite().await?;
        let commune = commune_with(&db.store, "picture", policy).await?;
        let folder = tempfile::tempdir()?;
        let program = bare_viewer(folder.path())?;
        commune.device().await?.save(folder.path())?;
        let settings = Settings {
            state: folder.path().to_owned(),
            folder: folder.path().join("desk"),
            gateways: Vec::new(),
            viewers: vec![Viewer::Tiger(program)],
            profile: Profile::of(Some(folder.path().join("home"))),
        };
        let (send, view) = watch::channel((1, View::default()));
        let (commands, wishes) = mpsc::channel(4);
        tokio::spawn(Desk::new(settings, send, wishes).run());
        commands.send(Command::SignIn(SignIn { username: "officer0".into(), password: PASSWORD.into() })).await?;
        let mut work =
            Self { commune, view, commands, session: SessionId(uuid::Uuid::nil()), _folder: folder, _db: db };
        work.until(|v| v.phase == Phase::Desktop).await?;
        let office = &work.commune.gate.office;
        // The desktop is shown, not only promised.
        timeout(PATIENCE, async {
            while office.count("SELECT COUNT(*) FROM sessions WHERE first_frame_at IS NOT NULL").await? == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        })
        .await??;
        let live = Filter { live: true, limit: 1, ..Filter::all() };
        work.session = office.app.store.sessions(&live).await?.0.first().context("a session")?.id;
        Ok(work)
    }

    async fn until(&self, so: impl Fn(&View) -> bool) -> Result<View> {
        let mut view = self.view.clone();
        let found = timeout(PATIENCE, view.wait_for(|(_, v)| so(v))).await;
        match found {
            Ok(shown) => Ok(shown?.1.clone()),
            Err(_) => anyhow::bail!("waited in vain; {:?}", self.view.borrow().1),
        }
    }

    /// What the officer reads once they are back at the page: sentence and code.
    async fn reads(&self) -> Result<(String, String)> {
        let view = self.until(|v| v.phase == Phase::Left && v.notice.is_some()).await?;
        let notice = view.notice.context("a notice")?;
        let said = text("vi", &notice.code, &[]).with_context(|| format!("no sentence for {}", notice.code))?;
        Ok((said, notice.searchable()))
    }

    async fn desktop(&self) -> Result<tram_wire::ids::DesktopId> {
        let row = self.commune.gate.office.app.store.session(self.session).await?.context("a row")?;
        Ok(row.desktop_id.context("a desktop")?.into())
    }
}

#[tokio::test]
async fn the_desktop_crashes() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    w.commune.gate.sim.crash(w.desktop().await?)?;
    let (said, code) = w.reads().await?;
    assert!(said.starts_with("Máy tính ở trung tâm dữ liệu đã dừng.") && code == "V-4001", "{said} {code}");
    Ok(())
}

#[tokio::test]
async fn the_desktop_is_stopped() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    w.commune.gate.sim.ensure_stopped(w.desktop().await?, Stop::Force).await?;
    let (said, code) = w.reads().await?;
    assert!(said.starts_with("Máy tính ở trung tâm dữ liệu đã dừng.") && code == "V-4001", "{said} {code}");
    Ok(())
}

#[tokio::test]
async fn the_host_loses_power() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    // Nothing is told to the database: the host itself is asked.
    w.commune.gate.sim.vanish();
    let (said, code) = w.reads().await?;
    assert!(said.starts_with("Máy chủ chứa máy tính") && code == "V-4002", "{said} {code}");
    Ok(())
}

#[tokio::test]
async fn support_ends_the_session() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    let app = &w.commune.gate.office.app;
    broker::end(app, &Ctx::local_admin(app.clock.now()), w.session).await?;
    let (said, code) = w.reads().await?;
    assert!(said.starts_with("Bộ phận hỗ trợ đã kết thúc") && code == "V-4000", "{said} {code}");
    Ok(())
}

#[tokio::test]
async fn it_is_opened_somewhere_else() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    let _browser = w.commune.gate.take_over(0).await?;
    let (said, code) = w.reads().await?;
    assert!(said.contains("vừa được mở ở nơi khác") && code == "V-4004", "{said} {code}");
    Ok(())
}

#[tokio::test]
async fn nobody_types_for_too_long() -> Result<()> {
    let w = Work::begin(Policy { idle: Duration::from_secs(3), ..Policy::default() }).await?;
    let (said, code) = w.reads().await?;
    assert!(said.starts_with("Đã ngắt vì quá lâu không sử dụng") && code == "V-4003", "{said} {code}");
    Ok(())
}

#[tokio::test]
async fn the_gateway_is_gone() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    // Its machine answers, as it does for a process that was killed.
    w.commune.cable.cut();
    let view = w.until(|v| v.phase == Phase::Lost).await?;
    assert!(view.gateway_lost, "{view:?}");
    w.commune.cable.mend();
    w.until(|v| v.phase == Phase::Desktop).await?;
    Ok(())
}

#[tokio::test]
async fn the_line_goes_silent() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    w.commune.cable.silence();
    let view = w.until(|v| v.phase == Phase::Lost).await?;
    assert!(!view.gateway_lost, "{view:?}");
    w.commune.cable.mend();
    w.until(|v| v.phase == Phase::Desktop).await?;
    Ok(())
}

#[tokio::test]
async fn the_database_is_gone() -> Result<()> {
    let w = Work::begin(Policy::default()).await?;
    w.commune.gate.office.app.store.close().await;
    // Who works goes on working; only what comes next needs it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(w.view.borrow().1.phase, Phase::Desktop);
    w.commands.send(Command::SignOut { end: false }).await?;
    w.until(|v| v.phase == Phase::SignIn).await?;
    w.commands.send(Command::SignIn(SignIn { username: "officer0".into(), password: PASSWORD.into() })).await?;
    let view = w.until(|v| v.problem.is_some()).await?;
    let code = view.problem.context("a problem")?.code;
    assert!(text("vi", &format!("code_{code}"), &[]).is_some(), "no sentence for {code}");
    Ok(())
}

/// Every code that can stand on an officer's screen at an endpoint has a row in the page for people.
#[test]
fn the_page_for_people_has_every_row() -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/failures.md"))?;
    for code in ["V-4000", "V-4001", "V-4002", "V-4003", "V-4004", "K-102", "G-503", "D-101", "X-503"] {
        assert!(page.contains(&format!("| {code} |")), "{code}");
    }
    Ok(())
}
