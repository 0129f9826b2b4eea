//! An officer signs in in a terminal: the agent as it is installed on a pseudo-terminal of forty columns, against the
//! agents' listener and a gateway.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use tram_controller::services::{Ctx, broker};
use tram_controller::store::sessions::Filter;
use tram_tests::db;
use tram_tests::kiosk::{PASSWORD, bare_viewer, commune};
use tram_tests::screen::wait;
use tram_tests::world::program;

struct Pty {
    child: Child,
    keys: ChildStdin,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pty {
    fn start(folder: &std::path::Path, environment: &str) -> Result<Self> {
        let viewer = bare_viewer(folder)?;
        let config = folder.join("agent.toml");
        fs::write(
            &config,
            format!("[desk]\nremote_viewer = \"/nonexistent\"\nvnc_viewer = \"{}\"\n", viewer.display()),
        )?;
        // Afterwards it says whether the terminal echoes again.
        let line = format!(
            "stty cols 40; env {environment} {} --config {} --state {} desk --terminal; echo code $?; stty -a | grep -o -- '-\\?echo '",
            program("tram-agent")?.display(),
            config.display(),
            folder.display()
        );
        let mut child = Command::new("script")
            .args(["-qfec", &line, "/dev/null"])
            // The line's shell: Ctrl-C ends the program, and a bash goes on with the next command. A dash ends, too.
            .env("SHELL", "/bin/bash")
            .env("XDG_RUNTIME_DIR", folder)
            .env_remove("DISPLAY")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("script, of util-linux")?;
        let keys = child.stdin.take().context("its input")?;
        let mut out = child.stdout.take().context("its output")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut piece) {
                all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(&piece[..n]);
            }
        });
        Ok(Self { child, keys, seen })
    }

    /// All that was shown, with lines joined: what is broken at forty columns is one sentence.
    fn text(&self) -> String {
        let bytes = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        // A sentence that is broken has its colour on both lines.
        let mut plain = String::new();
        let mut rest = shown.as_str();
        while let Some((before, after)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = after.split_once('m').map_or("", |(_, rest)| rest);
        }
        plain.push_str(rest);
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Waits for words after those of the last time.
    fn until(&self, from: &mut usize, words: &str) -> Result<()> {
        let found = wait(words, || Ok(self.text().get(*from..).and_then(|t| Some(t.find(words)? + words.len()))));
        *from += found.with_context(|| self.text())?;
        Ok(())
    }

    fn type_(&mut self, line: &str) -> Result<()> {
        self.keys.write_all(line.as_bytes())?;
        Ok(self.keys.flush()?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officers_day_in_a_terminal() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = commune(&db.store, "picture").await?;
    let office = &commune.gate.office;
    let folder = tempfile::tempdir()?;
    commune.device().await?.save(folder.path())?;
    let mut pty = Pty::start(folder.path(), "LANG=vi_VN.UTF-8")?;
    let mut at = 0;
    pty.until(&mut at, "Tên đăng nhập:")?;
    // Support is called before anybody has signed in; the name is asked for again.
    pty.type_("?\n")?;
    pty.until(&mut at, "Mã hỗ trợ của anh/chị:")?;
    pty.until(&mut at, "Bộ phận hỗ trợ đã nhận được yêu cầu.")?;
    let calls = office.count("SELECT COUNT(*) FROM support_calls WHERE snapshot IS NOT NULL").await?;
    ensure!(calls == 1, "{calls} calls");
    pty.until(&mut at, "Tên đăng nhập:")?;
    pty.type_("officer0\n")?;
    pty.until(&mut at, "Mật khẩu:")?;
    pty.type_("sai-mat-khau\n")?;
    pty.until(&mut at, "(A-101)")?;
    pty.until(&mut at, "Còn 4 lần thử.")?;
    pty.until(&mut at, "Tên đăng nhập:")?;
    pty.type_("officer0\n")?;
    pty.until(&mut at, "Mật khẩu:")?;
    pty.type_(&format!("{PASSWORD}\n"))?;
    pty.until(&mut at, "đang mở")?;
    let live = Filter { live: true, limit: 1, ..Filter::all() };
    let session = || async { Ok::<_, anyhow::Error>(office.app.store.sessions(&live).await?.0.first().map(|s| s.id)) };
    let id = session().await?.context("a session")?;

    // Support ends it: reason, code, and what can be done. A wrong number is asked again.
    broker::end(&office.app, &Ctx::local_admin(office.app.clock.now()), id).await?;
    pty.until(&mut at, "Bộ phận hỗ trợ đã kết thúc phiên làm việc.")?;
    pty.until(&mut at, "(V-4000)")?;
    pty.until(&mut at, "1 Vào lại máy tính")?;
    pty.type_("7\n")?;
    pty.until(&mut at, "1 Vào lại máy tính")?;
    pty.type_("1\n")?;
    pty.until(&mut at, "đang mở")?;

    // Somebody took it over meanwhile; the officer takes it back.
    let _browser = commune.gate.take_over(0).await?;
    pty.until(&mut at, "(V-4004)")?;
    pty.until(&mut at, "1 Vào lại máy tính")?;
    pty.type_("1\n")?;
    pty.until(&mut at, "1 Chuyển về đây")?;
    pty.type_("1\n")?;
    pty.until(&mut at, "đang mở")?;

    // The line is cut and comes back.
    commune.cable.cut();
    pty.until(&mut at, "(G-503)")?;
    commune.cable.mend();
    pty.until(&mut at, "đang mở")?;
    let id = session().await?.context("a session")?;
    broker::end(&office.app, &Ctx::local_admin(office.app.clock.now()), id).await?;
    pty.until(&mut at, "3 Kết thúc và đăng xuất")?;
    pty.type_("3\n")?;
    pty.until(&mut at, "Tên đăng nhập:")?;

    // Ctrl-C in the middle of a password: the terminal echoes again.
    pty.type_("officer0\n")?;
    pty.until(&mut at, "Mật khẩu:")?;
    pty.type_("\x03")?;
    pty.until(&mut at, "code 130")?;
    pty.until(&mut at, "echo")?;
    let text = pty.text();
    ensure!(!text[at - 5..].starts_with("-echo"), "no echo afterwards: {text}");
    ensure!(!text.contains(PASSWORD) && !text.contains("sai-mat-khau"), "a password was shown: {text}");
    let bytes = pty.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let shown = String::from_utf8_lossy(&bytes).replace("\x1b[0m", "");
    ensure!(shown.contains("\x1b[1m"), "no colours on a terminal");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_there_is_no_colour_and_the_input_may_end() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = commune(&db.store, "picture").await?;
    let folder = tempfile::tempdir()?;
    commune.device().await?.save(folder.path())?;
    let out = Command::new(program("tram-agent")?)
        .args(["--state".as_ref(), folder.path().as_os_str(), "desk".as_ref(), "--terminal".as_ref()])
        .env("XDG_RUNTIME_DIR", folder.path())
        .env("LANG", "en_GB.UTF-8")
        .env_remove("LC_ALL")
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success() && text.contains("Sign-in name:") && !text.contains('\x1b'), "{out:?}");
    Ok(())
}
