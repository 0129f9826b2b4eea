//! An endpoint's desk on a screen without a monitor: the agent as it is installed, its kiosk browser and its viewer.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};
use tram_controller::domain::session::Policy;
use tram_controller::identity::secret::Secret;
use tram_controller::store::Store;

use crate::office::Plan;
use crate::screen::{Screen, pictures, wait};
use crate::tunnels::Commune;
use crate::world::program;

/// The password of a commune's officers.
pub const PASSWORD: &str = "hoa-sen-trang-88";

/// The desk on a screen.
pub struct Desk {
    /// What it stands on.
    pub screen: Screen,
    agent: Child,
    folder: PathBuf,
    story: &'static str,
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
    /// Starts the agent, with a kiosk browser; `story` names its pictures.
    ///
    /// # Errors
    /// If the screen or the agent can't be started.
    pub fn start(story: &'static str, state: &Path, folder: &Path) -> Result<Self> {
        Self::start_with(story, state, folder, &[])
    }

    /// The same with a page that can be read: see [`Desk::reads`].
    ///
    /// # Errors
    /// If the screen or the agent can't be started.
    pub fn start_readable(story: &'static str, state: &Path, folder: &Path) -> Result<Self> {
        Self::start_with(story, state, folder, &["--remote-debugging-port=0"])
    }

    fn start_with(story: &'static str, state: &Path, folder: &Path, more: &[&str]) -> Result<Self> {
        let screen = Screen::start()?;
        let config = folder.join("agent.toml");
        let flags = ["--kiosk", "--no-sandbox", "--incognito", "--no-first-run", "--noerrdialogs", "--disable-gpu"];
        let words: Vec<String> =
            ["/usr/bin/chromium"].iter().chain(&flags).chain(more).map(|w| format!("\"{w}\"")).collect();
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
        Ok(Self { screen, agent, folder: folder.to_owned(), story, pictures: 0 })
    }

    /// What the page shows, asked as the page asks.
    ///
    /// # Errors
    /// If it can't be asked or done.
    pub fn view(&self) -> Result<Value> {
        Ok(self.news()?["view"].take())
    }

    fn news(&self) -> Result<Value> {
        let start = fs::read_to_string(self.folder.join("tram-desk/start.html"))?;
        let address = start.split("http://").nth(1).and_then(|t| t.split('"').next()).context("an address")?;
        let (host, secret) = address.split_once("/#").context("a secret")?;
        let mut stream = TcpStream::connect(host)?;
        write!(stream, "GET /api/view HTTP/1.1\r\nHost: {host}\r\nX-Tram-Desk: {secret}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").context("a body")?.1;
        Ok(serde_json::from_str(body)?)
    }

    /// The view once it is in this phase.
    ///
    /// # Errors
    /// If it never is.
    pub fn until(&self, phase: &str) -> Result<Value> {
        let mut last = Value::Null;
        wait(phase, || {
            last = self.view().unwrap_or_default();
            Ok((last["phase"] == phase).then(|| last.clone()))
        })
        .with_context(|| format!("{last}; {}", self.log()))
    }

    /// What the agent logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default()
    }

    /// Whose window has the keyboard.
    ///
    /// # Errors
    /// If it can't be asked or done.
    pub fn front(&self) -> Result<String> {
        let out = self.screen.command("xdotool").args(["getactivewindow", "getwindowname"]).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    /// Waits until the window with the keyboard has this title.
    ///
    /// # Errors
    /// If it never has.
    pub fn until_front(&self, title: &str) -> Result<()> {
        wait(title, || Ok(self.front()?.contains(title).then_some(())))
            .with_context(|| self.screen.windows().unwrap_or_default())
    }

    /// Waits until somebody can sign in: the page is in front, and has drawn all it was told, and that the line is fine.
    ///
    /// # Errors
    /// If it never is so.
    pub fn ready(&self) -> Result<()> {
        self.ready_where(|cause| cause == "fine")
    }

    /// The same where the line is not fine, whatever is wrong with it.
    ///
    /// # Errors
    /// If it never is so.
    pub fn ready_without_line(&self) -> Result<()> {
        self.ready_where(|cause| !["fine", "looking"].contains(&cause))
    }

    fn ready_where(&self, so: impl Fn(&str) -> bool) -> Result<()> {
        self.until("sign_in")?;
        self.until_front("Tram desk")?;
        let mut last = Value::Null;
        wait("the page", || {
            last = self.news()?;
            let cause = last["view"]["cause"].as_str().unwrap_or_default();
            Ok((so(cause) && last["version"] == last["drawn"]).then_some(()))
        })
        .with_context(|| last.to_string())
    }

    /// What an element of the page shows, as the browser has laid it out; empty if it is hidden. Only of a desk that was
    /// started for this.
    ///
    /// # Errors
    /// If the browser can't be asked, or has no such element.
    pub fn reads(&self, element: &str) -> Result<String> {
        let port = fs::read_to_string(self.folder.join("tram-desk/browser/DevToolsActivePort"))?;
        let (port, path) = port.trim().split_once('\n').context("a port and a path")?;
        let stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut browser = Asked { socket: client(format!("ws://127.0.0.1:{port}{path}"), stream)?.0, n: 0 };
        let all = browser.ask("Target.getTargets", None, &json!({}))?;
        let page = all["targetInfos"].as_array().into_iter().flatten().find(|t| t["title"] == "Tram desk");
        let page = json!({"targetId": page.context("no page")?["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", None, &page)?["sessionId"].take();
        // What is hidden has its text all the same.
        let shown =
            format!("((e) => e.checkVisibility() ? e.innerText : '')(document.querySelector({}))", json!(element));
        let question = json!({"expression": shown});
        let said = browser.ask("Runtime.evaluate", Some(&session), &question)?;
        Ok(said["result"]["value"].as_str().with_context(|| said.to_string())?.to_owned())
    }

    /// Waits until an element of the page says this.
    ///
    /// # Errors
    /// If it never does.
    pub fn until_reads(&self, element: &str, words: &str) -> Result<()> {
        let mut last = String::new();
        wait(words, || {
            // The page may be on its way to the screen.
            last = self.reads(element).unwrap_or_else(|e| e.to_string());
            Ok(last.contains(words).then_some(()))
        })
        .with_context(|| last)
    }

    /// Keeps a picture of the screen.
    ///
    /// # Errors
    /// If it can't be taken.
    pub fn picture(&mut self, name: &str) -> Result<()> {
        self.pictures += 1;
        self.screen.picture(&pictures().join(format!("{}-{}-{name}.png", self.story, self.pictures)))?;
        Ok(())
    }

    /// Types a name and a password. The page has the keyboard, and the name is asked for first.
    ///
    /// # Errors
    /// If it can't be asked or done.
    pub fn sign_in(&self, words: &[&str]) -> Result<()> {
        for (n, word) in words.iter().enumerate() {
            if n > 0 {
                self.screen.xdotool(&["key", "Tab"])?;
            }
            self.screen.xdotool(&["type", "--delay", "40", word])?;
        }
        self.screen.xdotool(&["key", "Return"])
    }

    /// By the viewer's own menu. It is slow to open now and then, so it is tried again.
    ///
    /// # Errors
    /// If it can't be asked or done.
    pub fn close_viewer(&self) -> Result<()> {
        wait("the viewer's end", || {
            self.screen.xdotool(&["key", "F8"])?;
            std::thread::sleep(Duration::from_secs(1));
            self.screen.xdotool(&["key", "c"])?;
            std::thread::sleep(Duration::from_secs(2));
            Ok((self.view()?["phase"] == "left").then_some(()))
        })
    }

    /// Until the desktop's picture is there.
    ///
    /// # Errors
    /// If it can't be asked or done.
    pub fn picture_of_desktop(&mut self, name: &str) -> Result<()> {
        self.pictures += 1;
        let file = pictures().join(format!("{}-{}-{name}.png", self.story, self.pictures));
        wait("the desktop's picture", || Ok((self.screen.picture(&file)? > 100).then_some(())))
    }

    /// What the middle of the screen looks like, where a viewer shows a simulated desktop below its hints: equal for
    /// equal pictures.
    ///
    /// # Errors
    /// If no picture can be taken.
    pub fn centre(&self) -> Result<String> {
        let file = self.folder.join("centre.png");
        self.screen.picture(&file)?;
        let look = ["-crop", "640x400+320+200", "+repage", "-format", "%#", "info:"];
        let out = std::process::Command::new("convert").arg(&file).args(look).output()?;
        anyhow::ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Processes of this desk, the agent among them.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
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

    /// The process of TigerVNC's viewer.
    #[must_use]
    pub fn viewer(&self) -> Option<u32> {
        self.process("xtigervnc")
    }

    /// The desk's process of this name.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<u32> {
        let is = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.contains(name));
        self.processes().into_iter().find(is)
    }

    /// Where one of these texts can be read by somebody who only looks: arguments and environment of every
    /// process here, what was logged, what lies in the runtime folder.
    #[must_use]
    pub fn leaks(&self, secrets: &[&str]) -> Vec<String> {
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

/// A browser's own way to be asked things.
struct Asked {
    socket: WebSocket<TcpStream>,
    n: u64,
}

impl Asked {
    fn ask(&mut self, method: &str, session: Option<&Value>, params: &Value) -> Result<Value> {
        self.n += 1;
        let mut question = json!({"id": self.n, "method": method, "params": params});
        if let Some(session) = session {
            question["sessionId"] = session.clone();
        }
        self.socket.send(Message::text(question.to_string()))?;
        loop {
            // What it tells unasked comes in between.
            let Message::Text(text) = self.socket.read()? else { continue };
            let mut answer: Value = serde_json::from_str(&text)?;
            if answer["id"] == self.n {
                anyhow::ensure!(answer["error"].is_null(), "{method}: {answer}");
                return Ok(answer["result"].take());
            }
        }
    }
}

/// Speaks RFB as far as the first picture, asks for it, and reads on.
const VIEWER: &str = r#"#!/usr/bin/env python3
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[-1])
def read(n):
    got = b''
    while len(got) < n:
        more = s.recv(n - len(got))
        if not more: sys.exit(3)
        got += more
    return got
read(12); s.sendall(b'RFB 003.008\n'); read(2); s.sendall(b'\1'); read(4); s.sendall(b'\1')
read(24); s.sendall(bytes([3, 0, 0, 0, 0, 0, 2, 128, 1, 144]))
while s.recv(65536): pass
sys.exit(3)
"#;

/// A viewer without a screen: it reads what the desktop draws, until that ends.
///
/// # Errors
/// If it can't be written.
pub fn bare_viewer(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("viewer");
    fs::write(&program, VIEWER)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// A commune whose officers have the password.
///
/// # Errors
/// Those of its parts.
pub async fn commune(store: &Store, display: &str) -> Result<Commune> {
    commune_with(store, display, Policy::default()).await
}

/// The same, with limits of one's own.
///
/// # Errors
/// Those of its parts.
pub async fn commune_with(store: &Store, display: &str, policy: Policy) -> Result<Commune> {
    let commune = Commune::open(store, Plan::default(), display, policy).await?;
    let office = &commune.gate.office;
    let hash = office.app.passwords.hash(&Secret::from_text(PASSWORD)).await?;
    office.sql(&format!("UPDATE users SET password_hash = '{hash}'")).await?;
    Ok(commune)
}
