//! An officer's morning at an endpoint, with a keyboard and nothing else: the agent as it is installed, a kiosk
//! browser and a viewer on a screen, the agents' listener and a gateway at the other end of a cable.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tram_controller::domain::session::Policy;
use tram_controller::identity::secret::Secret;
use tram_controller::services::{Ctx, broker};
use tram_controller::store::Store;
use tram_controller::store::sessions::Filter;
use tram_tests::db;
use tram_tests::guest::Guest;
use tram_tests::office::Plan;
use tram_tests::screen::{Screen, pictures, wait};
use tram_tests::tunnels::Commune;
use tram_tests::world::program;

const PASSWORD: &str = "hoa-sen-trang-88";

/// The desk on a screen.
struct Desk {
    screen: Screen,
    agent: Child,
    folder: PathBuf,
    pictures: u32,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Gently: it ends its browser and its viewer.
        let _ = std::process::Command::new("kill").arg(self.agent.id().to_string()).status();
        let _ = self.agent.wait();
    }
}

impl Desk {
    fn start(state: &Path, folder: &Path) -> Result<Self> {
        let screen = Screen::start()?;
        let config = folder.join("agent.toml");
        let flags = ["--kiosk", "--no-sandbox", "--incognito", "--no-first-run", "--noerrdialogs", "--disable-gpu"];
        let words: Vec<String> = ["/usr/bin/chromium"].iter().chain(&flags).map(|w| format!("\"{w}\"")).collect();
        fs::write(&config, format!("[desk]\nbrowser = [{}]\n", words.join(", ")))?;
        let log = fs::File::create(folder.join("agent.log"))?;
        let agent = screen
            .command(program("tram-agent")?)
            .args(["--config".as_ref(), config.as_os_str(), "--state".as_ref(), state.as_os_str(), "desk".as_ref()])
            .env("XDG_RUNTIME_DIR", folder)
            .env("HOME", folder)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { screen, agent, folder: folder.to_owned(), pictures: 0 })
    }

    /// What the page shows, asked as the page asks.
    fn view(&self) -> Result<Value> {
        let start = fs::read_to_string(self.folder.join("tram-desk/start.html"))?;
        let address = start.split("http://").nth(1).and_then(|t| t.split('"').next()).context("an address")?;
        let (host, secret) = address.split_once("/#").context("a secret")?;
        let mut stream = TcpStream::connect(host)?;
        write!(stream, "GET /api/view HTTP/1.1\r\nHost: {host}\r\nX-Tram-Desk: {secret}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").context("a body")?.1;
        Ok(serde_json::from_str::<Value>(body)?["view"].take())
    }

    fn until(&self, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        wait(phase, || {
            last = self.view().unwrap_or_default();
            Ok((last["phase"] == phase).then(|| last.clone()))
        })
        .with_context(|| format!("{last}; {}", fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()))
    }

    /// Whose window has the keyboard.
    fn front(&self) -> Result<String> {
        let out = self.screen.command("xdotool").args(["getactivewindow", "getwindowname"]).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    fn until_front(&self, title: &str) -> Result<()> {
        wait(title, || Ok(self.front()?.contains(title).then_some(())))
            .with_context(|| self.screen.windows().unwrap_or_default())
    }

    fn picture(&mut self, name: &str) -> Result<()> {
        self.pictures += 1;
        self.screen.picture(&pictures().join(format!("endpoint-{}-{name}.png", self.pictures)))?;
        Ok(())
    }

    /// Types a name and a password. The page has the keyboard, and the name is asked for first.
    fn sign_in(&self, words: &[&str]) -> Result<()> {
        for (n, word) in words.iter().enumerate() {
            if n > 0 {
                self.screen.xdotool(&["key", "Tab"])?;
            }
            self.screen.xdotool(&["type", "--delay", "40", word])?;
        }
        self.screen.xdotool(&["key", "Return"])
    }

    /// By the viewer's own menu. It is slow to open now and then, so it is tried again.
    fn close_viewer(&self) -> Result<()> {
        wait("the viewer's end", || {
            self.screen.xdotool(&["key", "F8"])?;
            std::thread::sleep(Duration::from_secs(1));
            self.screen.xdotool(&["key", "c"])?;
            std::thread::sleep(Duration::from_secs(2));
            Ok((self.view()?["phase"] == "left").then_some(()))
        })
    }

    /// Until the desktop's picture is there.
    fn picture_of_desktop(&mut self, name: &str) -> Result<()> {
        self.pictures += 1;
        let file = pictures().join(format!("endpoint-{}-{name}.png", self.pictures));
        wait("the desktop's picture", || Ok((self.screen.picture(&file)? > 100).then_some(())))
    }

    /// Processes of this desk, the agent among them.
    fn processes(&self) -> Vec<u32> {
        let all: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| {
                let pid = e.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(e.path().join("stat")).ok()?;
                Some((pid, stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?))
            })
            .collect();
        let mut ours = vec![self.agent.id()];
        let mut at = 0;
        while let Some(parent) = ours.get(at).copied() {
            ours.extend(all.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        ours
    }

    fn viewer(&self) -> Option<u32> {
        self.process("xtigervnc")
    }

    /// The desk's process of this name.
    fn process(&self, name: &str) -> Option<u32> {
        let is = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.contains(name));
        self.processes().into_iter().find(is)
    }

    /// Where one of these texts can be read by somebody who only looks: arguments and environment of every
    /// process here, what was logged, what lies in the runtime folder.
    fn leaks(&self, secrets: &[&str]) -> Vec<String> {
        let mut places: Vec<PathBuf> = Vec::new();
        for pid in self.processes() {
            places.extend(["cmdline", "environ"].map(|f| PathBuf::from(format!("/proc/{pid}/{f}"))));
        }
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => places.push(entry.path()),
                    _ => {}
                }
            }
        }
        assert!(places.len() > 20, "looked at {} places only", places.len());
        let holds = |bytes: &[u8], s: &str| bytes.windows(s.len()).any(|w| w == s.as_bytes());
        let found = |place: &PathBuf| {
            let bytes = fs::read(place).unwrap_or_default();
            secrets.iter().find(|s| holds(&bytes, s)).map(|s| format!("{} holds {s}", place.display()))
        };
        places.iter().filter_map(found).collect()
    }
}

/// A commune whose officers have the password.
async fn commune(store: &Store, display: &str) -> Result<Commune> {
    let commune = Commune::open(store, Plan::default(), display, Policy::default()).await?;
    let office = &commune.gate.office;
    let hash = office.app.passwords.hash(&Secret::from_text(PASSWORD)).await?;
    office.sql(&format!("UPDATE users SET password_hash = '{hash}'")).await?;
    Ok(commune)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_display_comes_by_spice_and_stays_over_a_cut() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut guest = Guest::start(folder.path())?;
    let db = db::sqlite().await?;
    let commune = commune(&db.store, &format!("picture&displays={}", folder.path().display())).await?;
    let office = &commune.gate.office;
    let state = tempfile::tempdir()?;
    commune.device().await?.save(state.path())?;
    let mut desk = Desk::start(state.path(), folder.path())?;
    desk.until("sign_in")?;
    desk.until_front("Tram desk")?;
    wait("the line", || Ok((desk.view()?["cause"] == "fine").then_some(())))?;
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

    let mut desk = Desk::start(state.path(), folder.path())?;
    desk.until("sign_in")?;
    desk.until_front("Tram desk")?;
    wait("the line", || Ok((desk.view()?["cause"] == "fine").then_some(())))?;
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
