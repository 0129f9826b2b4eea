//! An officer calls support from the screen, by the keyboard, while the line is down: the agent as it is installed with
//! a kiosk browser, and the controller's use cases at the other end of a cable.

use anyhow::{Context, Result, ensure};
use tram_controller::services::{Ctx, calls};
use tram_tests::db;
use tram_tests::kiosk::{Desk, commune};
use tram_tests::screen::wait;

/// Keys on the page, one after the other.
fn keys(desk: &Desk, all: &[&str]) -> Result<()> {
    all.iter().try_for_each(|key| desk.screen.xdotool(&["key", key]))
}

fn called(desk: &Desk, state: &str) -> Result<serde_json::Value> {
    wait(state, || {
        let call = desk.view()?["call"].take();
        Ok((call["state"] == state).then_some(call))
    })
    .with_context(|| format!("{:?}; {}", desk.view(), desk.log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_read_out_with_the_line_down_and_support_finds_the_computer() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = commune(&db.store, "picture").await?;
    let app = &commune.app;
    let (state, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let device = commune.device().await?;
    device.save(state.path())?;
    let mut desk = Desk::start("call", state.path(), folder.path())?;
    desk.ready()?;

    // The button is the last thing on the page: name, password, sign in, what is sent, call.
    commune.cable.cut();
    keys(&desk, &["Tab", "Tab", "Tab", "Tab", "Return"])?;
    let call = called(&desk, "queued")?;
    let code = call["code"].as_str().context("a code")?.to_owned();
    ensure!(code.len() == 6, "{call}");
    desk.picture("code-offline")?;
    // One press more is the same call.
    keys(&desk, &["Return"])?;

    // The engineer types what was read out: nothing has arrived, and the computer is known all the same.
    let ctx = || Ctx::local_admin(app.clock.now());
    let found = calls::find(app, &ctx(), &code).await?;
    ensure!(found.calls.is_empty() && found.expected == [device.endpoint_id], "{found:?}");
    let opened = calls::expect(app, &ctx(), device.endpoint_id, &code).await?;

    // The line comes back, and so does how the computer was.
    commune.cable.mend();
    let call = called(&desk, "taken")?;
    ensure!(call["by"] == "local-admin" && call["code"] == code.as_str(), "{call}");
    let (arrived, events, _) = calls::get(app, &ctx(), opened.id).await?;
    let snapshot = arrived.snapshot.context("a snapshot")?;
    ensure!(snapshot["findings"].as_array().is_some_and(|f| f.len() > 20), "{snapshot}");
    ensure!(snapshot["phase"] == "sign_in" && arrived.arrived_at.is_some(), "{snapshot}");
    ensure!(events.iter().map(|e| e.kind.as_str()).eq(["expected", "arrived"]), "{events:?}");
    desk.picture("taken")?;

    // It is solved; the officer is told, and the next press makes another code.
    calls::step(app, &ctx(), opened.id, &calls::Step::Solve, "đã cắm lại dây").await?;
    called(&desk, "solved")?;
    keys(&desk, &["Return"])?;
    let next = called(&desk, "open")?;
    ensure!(next["code"] != code.as_str(), "{next}");

    // What was sent stands in the book on the page before the button.
    keys(&desk, &["shift+Tab"])?;
    desk.picture("privacy-link")?;
    keys(&desk, &["Return"])?;
    let book = std::fs::read_to_string(state.path().join("ledger.jsonl"))?;
    ensure!(book.lines().filter(|l| l.contains("\"kind\":\"call\"")).count() == 2, "{book}");
    wait("the page's picture", || {
        Ok((desk.screen.picture(&tram_tests::screen::pictures().join("call-book.png"))? > 100).then_some(()))
    })?;
    // Escape leads back.
    keys(&desk, &["Escape"])?;
    wait("the sign-in page", || Ok((desk.view()?["phase"] == "sign_in").then_some(())))
}
