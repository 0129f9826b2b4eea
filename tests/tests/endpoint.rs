//! An officer's morning at an endpoint, with a keyboard and nothing else: the agent as it is installed, a kiosk
//! browser and a viewer on a screen, the agents' listener and a gateway at the other end of a cable.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tram_controller::domain::session::Policy;
use tram_controller::services::{Ctx, broker};
use tram_controller::store::sessions::Filter;
use tram_tests::db;
use tram_tests::guest::Guest;
use tram_tests::kiosk::{Desk, PASSWORD, commune};
use tram_tests::screen::{pictures, wait};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_display_comes_by_spice_and_stays_over_a_cut() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut guest = Guest::start(folder.path())?;
    let db = db::sqlite().await?;
    let commune = commune(&db.store, &format!("picture&displays={}", folder.path().display())).await?;
    let office = &commune.gate.office;
    let state = tempfile::tempdir()?;
    commune.device().await?.save(state.path())?;
    let mut desk = Desk::start("endpoint", state.path(), folder.path())?;
    desk.ready()?;
    desk.picture("spice-sign-in")?;
    desk.sign_in(&["officer0", PASSWORD])?;
    desk.until("desktop")?;
    let viewer = wait("remote-viewer", || Ok(desk.process("remote-viewer")))?;
    // What QEMU drew went through the gateway: a window that complains has colours as well.
    let drawn = "SELECT COUNT(*) FROM sessions WHERE first_frame_at IS NOT NULL";
    for tries in 0.. {
        if office.count(drawn).await? == 1 {
            break;
        }
        ensure!(tries < 600, "no picture: {}", desk.screen.windows()?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let file = pictures().join("endpoint-spice.png");
    // The firmware's words are more than one colour; the page has more, but then it is in front.
    let shown = |desk: &Desk| {
        wait("the desktop's picture", || {
            let front = desk.front()?;
            let viewer = front.contains("Tram") && !front.contains("Tram desk");
            Ok((viewer && desk.screen.picture(&file)? > 2).then_some(()))
        })
        .with_context(|| format!("{:?}; {}", desk.front(), desk.screen.windows().unwrap_or_default()))
    };
    shown(&desk)?;
    assert_eq!(desk.leaks(&[PASSWORD, "tds1_", "vdt1_"]), [""; 0]);

    commune.cable.cut();
    desk.until("lost")?;
    desk.until_front("Tram desk")?;
    commune.cable.mend();
    desk.until("desktop")?;
    shown(&desk)?;
    assert_eq!(desk.process("remote-viewer"), Some(viewer), "the same viewer goes on");

    // Before the session has lasted as long as one may, the page says so in front of the desktop, and the officer
    // goes back by the keyboard.
    let gone = Policy::default().longest.as_micros() - 240_000_000;
    office.sql(&format!("UPDATE sessions SET assigned_at = assigned_at - {gone}")).await?;
    let view = desk.until("warned")?;
    assert_eq!(view["warning"]["code"], "longest");
    desk.until_front("Tram desk")?;
    desk.picture("warned")?;
    desk.screen.xdotool(&["key", "Tab"])?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("desktop")?;
    shown(&desk)?;

    // One that vanishes at once, with all its channels, costs nothing but itself.
    std::process::Command::new("kill").args(["-KILL", &viewer.to_string()]).status()?;
    wait("another viewer", || Ok(desk.process("remote-viewer").filter(|v| *v != viewer)))?;
    shown(&desk)?;
    ensure!(guest.lives()?, "QEMU died with its viewer");
    ensure!(desk.process("xtigervnc").is_none(), "it fell back to VNC");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officers_morning() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = commune(&db.store, "picture").await?;
    let office = &commune.gate.office;
    let (state, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    // A name that would like to be a command, an option or a page.
    let trap = folder.path().join("trap");
    let name =
        format!("-FullScreen=0; touch {0}\n--spice-debug $(touch {0}) <script>alert(1)</script>", trap.display());
    office.sql(&format!("UPDATE desktops SET name = '{name}' || name")).await?;
    commune.device().await?.save(state.path())?;

    let mut desk = Desk::start("endpoint", state.path(), folder.path())?;
    desk.ready()?;
    desk.picture("sign-in")?;

    // A slip of the finger, then the right password: the cursor stands in the password's field.
    desk.sign_in(&["officer0", "hoa-sen"])?;
    let view = wait("a refusal", || {
        let view = desk.view()?;
        Ok((!view["problem"].is_null()).then_some(view))
    })?;
    assert_eq!((view["problem"]["code"].as_str(), view["problem"]["remaining"].as_i64()), (Some("A-101"), Some(4)));
    desk.until("sign_in")?;
    desk.picture("wrong-password")?;
    desk.sign_in(&[PASSWORD])?;

    let view = desk.until("desktop")?;
    assert_eq!(view["name"], "officer0");
    assert!(view["desktop"].as_str().is_some_and(|d| d.starts_with(&name)), "{view}");
    desk.until_front("TigerVNC")?;
    desk.picture_of_desktop("desktop")?;
    let start = fs::read_to_string(folder.path().join("tram-desk/start.html"))?;
    let secret = start.split("/#").nth(1).and_then(|t| t.split('"').next()).context("a secret")?.to_owned();
    assert_eq!(desk.leaks(&[PASSWORD, "tds1_", "vdt1_"]), [""; 0]);
    let only = format!("{} holds {secret}", folder.path().join("tram-desk/start.html").display());
    assert_eq!(desk.leaks(&[&secret]), [only], "the page's secret is in its own private file only");

    let words = fs::read_to_string(format!("/proc/{}/cmdline", desk.viewer().context("a viewer")?))?;
    let words: Vec<&str> = words.split_terminator('\0').skip(1).collect();
    let (socket, options) = words.split_last().context("arguments")?;
    assert_eq!(
        options.join(" "),
        "-FullScreen=1 -SecurityTypes=None -Shared=1 -RemoteResize=1 -ReconnectOnError=0 -MenuKey=F8"
    );
    assert!(Path::new(socket).starts_with(folder.path().join("tram-desk")), "{socket}");

    // The line is cut: the same viewer waits behind a page that says so, and comes back by itself.
    let viewer = desk.viewer().context("a viewer")?;
    commune.cable.cut();
    desk.until("lost")?;
    desk.until_front("Tram desk")?;
    desk.picture("line-lost")?;
    commune.cable.mend();
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;
    assert_eq!(desk.viewer(), Some(viewer), "the same viewer goes on");
    desk.picture_of_desktop("line-back")?;

    // A viewer that crashes is started again.
    std::process::Command::new("kill").args(["-SEGV", &viewer.to_string()]).status()?;
    wait("another viewer", || Ok(desk.viewer().filter(|v| *v != viewer)))?;
    desk.until_front("TigerVNC")?;

    // The officer closes it, is asked, and goes back by one key.
    desk.close_viewer()?;
    desk.until_front("Tram desk")?;
    desk.picture("left")?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;

    // Support ends the session: the reason is on the page.
    let live = Filter { live: true, limit: 1, ..Filter::all() };
    let (sessions, _) = office.app.store.sessions(&live).await?;
    let id = sessions.first().context("a session")?.id;
    broker::end(&office.app, &Ctx::local_admin(office.app.clock.now()), id).await?;
    let view = desk.until("left")?;
    assert_eq!(view["notice"]["code"], "end_staff");
    desk.until_front("Tram desk")?;
    desk.picture("ended-by-support")?;
    assert_eq!(desk.viewer(), None);

    // Signs out, by the keyboard too: nothing of the sign-in is left anywhere.
    desk.screen.xdotool(&["key", "Tab"])?;
    desk.screen.xdotool(&["key", "Return"])?;
    desk.until("sign_in")?;
    let left = office.count("SELECT COUNT(*) FROM web_sessions WHERE endpoint_id IS NOT NULL").await?;
    ensure!(left == 0, "{left} sign-ins are left");

    // Another officer, whose account is switched off while they work: out at once, and told so.
    desk.sign_in(&["officer1", PASSWORD])?;
    desk.until("desktop")?;
    desk.until_front("TigerVNC")?;
    office.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer1'").await?;
    let view = desk.until("sign_in")?;
    assert_eq!(view["notice"]["code"], "A-100");
    desk.until_front("Tram desk")?;
    let sockets = fs::read_dir(folder.path().join("tram-desk"))?.flatten();
    let sockets: Vec<_> = sockets.filter(|e| e.path().extension().is_some_and(|x| x == "sock")).collect();
    ensure!(!trap.exists(), "a desktop's name was run");
    ensure!(sockets.is_empty(), "sockets are left: {sockets:?}");
    Ok(())
}
