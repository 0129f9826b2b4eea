//! Support looks at a session at an endpoint: the officer is asked and told at their own screen, and stops it there.

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use tram_agent::session::tunnel::{Session, Status};
use tram_controller::domain::assist::{AssistState, Control};
use tram_controller::domain::policy::PoolPolicy;
use tram_controller::domain::session::Policy;
use tram_controller::services::{Ctx, pools};
use tram_controller::store::Db;
use tram_controller::store::sessions::Filter;
use tram_tests::db;
use tram_tests::kiosk::{Desk, PASSWORD, commune};
use tram_tests::office::Plan;
use tram_tests::screen::wait;
use tram_tests::support::{PATIENCE, Support};
use tram_tests::tunnels::Commune;
use tram_wire::assist::{AssistAnswer, AssistStop, Question, Stage};
use tram_wire::session::ToGateway;

/// What the agent hears of an assist, once it is so far.
async fn heard(session: &Session, stage: Stage) -> Result<tram_wire::assist::Assist> {
    let mut status = session.status();
    let so = |s: &Status| s.assist.as_ref().is_some_and(|(a, _)| a.stage == stage);
    let found = timeout(PATIENCE, status.wait_for(so)).await.with_context(|| format!("{stage:?} was never said"))??;
    Ok(found.assist.clone().context("an assist")?.0)
}

/// Until the agent hears that nobody looks any more.
async fn heard_of_the_end(session: &Session) -> Result<()> {
    timeout(PATIENCE, session.status().wait_for(|s| s.assist.is_none())).await??;
    Ok(())
}

#[tokio::test]
async fn the_officer_answers_and_stops_over_the_tunnel() -> Result<()> {
    for db in db::both().await? {
        let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let (gate, support) = (&commune.gate, Support::sign_in(&commune.gate).await?);
        let audited = async |what: &str| {
            gate.office
                .count(&format!("SELECT COUNT(*) FROM audit WHERE action = '{what}' AND actor = 'officer0'"))
                .await
        };
        let (_device, session) = commune.session(0).await?;
        let id = session.id();

        // Asked, and refused.
        support.ask(gate, id, "máy in không in").await?;
        let asked = heard(&session, Stage::Asked).await?;
        assert_eq!((asked.who.as_str(), asked.why.as_str()), ("support", "máy in không in"));
        ensure!((1..=30).contains(&asked.left_s), "{asked:?}");
        let answer = |a: &tram_wire::assist::Assist, question, allow| {
            session.say(&ToGateway::AssistAnswer(AssistAnswer { assist: a.assist, question, allow }));
        };
        answer(&asked, Question::Watch, false);
        let over = Support::until(gate, id, |a| a.state == AssistState::Ended).await?;
        assert_eq!(over.end_reason.as_deref(), Some("refused"));
        heard_of_the_end(&session).await?;

        // Asked and allowed; an answer to another question, or to one that is over, changes nothing.
        support.ask(gate, id, "máy in").await?;
        answer(&asked, Question::Watch, true);
        let asked = heard(&session, Stage::Asked).await?;
        answer(&asked, Question::Control, true);
        answer(&asked, Question::Watch, true);
        heard(&session, Stage::Allowed).await?;
        let mut looks = support.look(gate, id).await?;
        heard(&session, Stage::Watching).await?;
        support.ask_control(gate, id).await?;
        answer(&heard(&session, Stage::ControlAsked).await?, Question::Control, true);
        heard(&session, Stage::Controlling).await?;
        let now = Support::until(gate, id, |a| a.control == Control::Granted).await?;
        assert_eq!(now.state, AssistState::Active);

        // Stopped: the display ends, and the audit names the officer at their endpoint.
        session.say(&ToGateway::AssistStop(AssistStop { assist: asked.assist }));
        assert_eq!(timeout(PATIENCE, looks.closed()).await??, 4000);
        heard_of_the_end(&session).await?;
        let over = Support::until(gate, id, |a| a.state == AssistState::Ended).await?;
        assert_eq!((over.end_reason.as_deref(), over.ended_by.as_deref()), (Some("officer"), Some("officer0")));
        for action in ["assist.allow", "assist.refuse", "assist.control_grant"] {
            assert_eq!(audited(action).await?, 1, "{action}");
        }
        session.leave().await;
    }
    Ok(())
}

#[tokio::test]
async fn who_can_not_be_told_is_asked_whatever_the_policy() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (gate, support) = (&commune.gate, Support::sign_in(&commune.gate).await?);
    let app = &gate.office.app;
    let policy: PoolPolicy = serde_json::from_value(serde_json::json!({"assist": "none"}))?;
    pools::set_policy(app, &Ctx::local_admin(app.clock.now()), gate.office.pool, policy).await?;
    let (_device, session) = commune.session(0).await?;
    let id = session.id();
    assert_eq!(
        support.ask(gate, id, "a look").await?.state,
        AssistState::Asked,
        "it never said that it can show a mark"
    );
    session.say(&ToGateway::AssistStop(AssistStop { assist: heard(&session, Stage::Asked).await?.assist }));
    Support::until(gate, id, |a| a.state == AssistState::Ended).await?;

    session.can_show(true);
    let shows = "SELECT COUNT(*) FROM sessions WHERE shows_assists";
    until(|| async { Ok(gate.office.count(shows).await? == 1) }).await?;
    // Also after a cut, which is another connection.
    commune.cable.cut();
    let mut status = session.status();
    let down = |s: &Status| s.line != tram_agent::session::tunnel::Line::Up;
    timeout(PATIENCE, status.wait_for(down)).await??;
    commune.cable.mend();
    timeout(PATIENCE, status.wait_for(|s| !down(s))).await??;
    until(|| async { Ok(gate.office.count(shows).await? == 1) }).await?;
    assert_eq!(support.ask(gate, id, "a look").await?.state, AssistState::Allowed);
    heard(&session, Stage::Allowed).await?;
    let _looks = support.look(gate, id).await?;
    heard(&session, Stage::Watching).await?;
    Ok(())
}

async fn until<F: Future<Output = Result<bool>>>(mut so: impl FnMut() -> F) -> Result<()> {
    timeout(PATIENCE, async {
        while !so().await? {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await?
}

#[tokio::test]
async fn a_stop_needs_no_database() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (gate, support) = (&commune.gate, Support::sign_in(&commune.gate).await?);
    let (_device, session) = commune.session(0).await?;
    let asked = support.ask(gate, session.id(), "máy in").await?.id;
    heard(&session, Stage::Asked).await?;
    session.say(&ToGateway::AssistAnswer(AssistAnswer { assist: asked, question: Question::Watch, allow: true }));
    heard(&session, Stage::Allowed).await?;
    let mut looks = support.look(gate, session.id()).await?;
    // Somebody else writes and does not end: nothing can be written down, and all that is asked says *active*.
    let Db::Sqlite { write, .. } = gate.office.app.store.db() else { anyhow::bail!("SQLite was asked for") };
    let held = write.acquire().await?;
    session.say(&ToGateway::AssistStop(AssistStop { assist: asked }));
    assert_eq!(timeout(PATIENCE, looks.closed()).await??, 4000);
    heard_of_the_end(&session).await?;
    drop(held);
    let over = Support::until(gate, session.id(), |a| a.state == AssistState::Ended).await?;
    assert_eq!(over.end_reason.as_deref(), Some("officer"), "written down when it could be");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_and_marked_on_the_screen_and_stopped_by_key_and_button() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = commune(&db.store, "picture").await?;
    let (gate, support) = (&commune.gate, Support::sign_in(&commune.gate).await?);
    gate.office.sql("UPDATE users SET display_name = 'Trần Thị Hoa' WHERE username = 'support'").await?;
    let (state, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    commune.device().await?.save(state.path())?;
    let mut desk = Desk::start("assist", state.path(), folder.path())?;
    desk.ready()?;
    desk.sign_in(&["officer0", PASSWORD])?;
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;
    desk.picture_of_desktop("desktop")?;
    let live = Filter { live: true, limit: 1, ..Filter::all() };
    let session = gate.office.app.store.sessions(&live).await?.0.first().context("a session")?.id;
    let marked = |desk: &Desk| -> Result<bool> {
        Ok(desk.screen.windows()?.lines().any(|l| l.contains("\"Tram mark\"") && !l.contains("1x1+")))
    };

    // The question comes before the desktop. One key says no, and leads back.
    support.ask(gate, session, "Máy in không in được").await?;
    let view = desk.until("asked")?;
    assert_eq!(
        (view["assist"]["who"].as_str(), view["assist"]["stage"].as_str()),
        (Some("Trần Thị Hoa"), Some("asked"))
    );
    desk.until_front("Tram desk")?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    desk.picture("asked")?;
    desk.screen.xdotool(&["key", "Escape"])?;
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;
    let over = Support::until(gate, session, |a| a.state == AssistState::Ended).await?;
    assert_eq!(over.end_reason.as_deref(), Some("refused"));
    ensure!(!marked(&desk)?, "a mark although nobody looks");

    // Yes; the mark is over the full-screen viewer for as long as anybody looks.
    support.ask(gate, session, "Máy in không in được").await?;
    desk.until("asked")?;
    desk.until_front("Tram desk")?;
    desk.screen.xdotool(&["key", "Tab"])?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("desktop")?;
    Support::until(gate, session, |a| a.state == AssistState::Allowed).await?;
    let mut looks = support.look(gate, session).await?;
    desk.until_front("TigerVNC")?;
    wait("the mark", || Ok(marked(&desk)?.then_some(())))?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    desk.picture("watched")?;

    support.ask_control(gate, session).await?;
    desk.until("asked")?;
    desk.until_front("Tram desk")?;
    desk.picture("asked-for-control")?;
    desk.screen.xdotool(&["key", "Tab"])?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("desktop")?;
    Support::until(gate, session, |a| a.control == Control::Granted).await?;
    desk.until_front("TigerVNC")?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    desk.picture("controlled")?;

    // The key is heard although the viewer has the keyboard.
    desk.screen.xdotool(&["key", "ctrl+alt+x"])?;
    assert_eq!(timeout(PATIENCE, looks.closed()).await??, 4000);
    let over = Support::until(gate, session, |a| a.state == AssistState::Ended).await?;
    assert_eq!((over.end_reason.as_deref(), over.ended_by.as_deref()), (Some("officer"), Some("officer0")));
    wait("the end of the mark", || Ok((!marked(&desk)?).then_some(())))?;

    // By the button, too; and the mark leaves the way when it is pressed elsewhere.
    support.ask(gate, session, "Cài lại máy in").await?;
    desk.until("asked")?;
    desk.until_front("Tram desk")?;
    desk.screen.xdotool(&["key", "Tab"])?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("desktop")?;
    Support::until(gate, session, |a| a.state == AssistState::Allowed).await?;
    let mut looks = support.look(gate, session).await?;
    wait("the mark", || Ok(marked(&desk)?.then_some(())))?;
    let place = |desk: &Desk| -> Result<(i32, i32, i32, i32)> {
        let all = desk.screen.windows()?;
        let line =
            all.lines().find(|l| l.contains("\"Tram mark\"")).with_context(|| format!("no mark: {}", desk.log()))?;
        let size = line.split_whitespace().find(|w| w.contains('x') && w.contains('+')).context("a size")?;
        let n: Vec<i32> = size.split(['x', '+']).filter_map(|n| n.parse().ok()).collect();
        Ok((n[2], n[3], n[0], n[1]))
    };
    let (x, y, w, h) = place(&desk)?;
    let at = |x: i32, y: i32| [x.to_string(), y.to_string()];
    let [left, middle] = at(x + 8, y + h / 2);
    desk.screen.xdotool(&["mousemove", &left, &middle, "click", "1"])?;
    let moved = wait("the mark to move", || {
        let (x, now, ..) = place(&desk)?;
        Ok((now > y).then_some((x, now)))
    });
    let (x, y) = match moved {
        Ok(at) => at,
        Err(e) => return Err(e.context(format!("{:?}", gate.office.app.store.assists_of(session, 1).await?))),
    };
    let [button, middle] = at(x + w - 40, y + h / 2);
    desk.screen.xdotool(&["mousemove", &button, &middle, "click", "1"])?;
    assert_eq!(timeout(PATIENCE, looks.closed()).await??, 4000);
    let over = Support::until(gate, session, |a| a.state == AssistState::Ended).await?;
    assert_eq!(over.end_reason.as_deref(), Some("officer"));
    Ok(())
}
