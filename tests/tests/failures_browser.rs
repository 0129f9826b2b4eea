//! The table of failures once more, in a browser: Chromium before the real controller, a gateway's and a node's
//! processes. What an officer reads, with which code, and that the way back works. The same at an endpoint is
//! `failures.rs`, the table for people `docs/operations/failures.md`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tram_tests::db::Cluster;
use tram_tests::device::Console;
use tram_tests::gateways::Stage;
use tram_tests::screen::pictures;

const PHONE: &str = "024 3333 4444";

/// An officer's browser; does what it is told and says what came of it.
struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Browser {
    fn start(stage: &Stage, password: &str) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/failures.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .env("TRAM_URL", format!("https://{}", stage.world.web))
            .env("TRAM_ACCOUNT", json!({"username": "hoa", "password": password}).to_string())
            .env("TRAM_SHOTS", pictures())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("node is not there; run `make setup`")?;
        let from = BufReader::new(child.stdout.take().context("no output")?);
        let to = child.stdin.take();
        Ok(Self { child, to, from })
    }

    fn ask(&mut self, what: &str) -> Result<Value> {
        writeln!(self.to.as_mut().context("it ended")?, "{what}")?;
        let mut line = String::new();
        ensure!(self.from.read_line(&mut line)? > 0, "{what}: the browser ended");
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }

    /// What lies over the desktop once it says this code; it must say so in these words, and whom to call.
    fn reads(&mut self, code: &str, sentence: &str) -> Result<()> {
        let over = self.ask(&format!("over {code}"))?;
        let text = over["text"].as_str().unwrap_or_default();
        ensure!(text.contains(sentence) && text.contains(PHONE), "{code}: {text}");
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes its Chromium when nobody tells it anything any more.
        self.to.take();
        let _ = self.child.wait();
    }
}

fn live(operator: &Console) -> Result<Value> {
    let (status, rows) = operator.get("/api/v1/sessions")?;
    let row = rows["items"].as_array().into_iter().flatten().find(|s| s["state"] != "ended");
    row.cloned().with_context(|| format!("no session: {status} {rows}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_reads_in_the_browser_what_failed() -> Result<()> {
    let cluster = Cluster::start()?;
    let mut stage = Stage::build(Some(cluster.url()), 2, &["gw-1"])?;
    let again = |stage: &mut Stage| {
        stage.world.start_with(&[("TRAM_SUPPORT_PHONE", PHONE)])?;
        stage.world.listening()
    };
    stage.world.kill9()?;
    again(&mut stage)?;
    let operator = Console::sign_in(&stage.world, "operator")?;
    let (officer, password) = Console::officer(&stage.world, "hoa")?;
    let mut browser = Browser::start(&stage, &password)?;
    browser.ask("begin")?;

    // The controller: who works notices nothing.
    stage.world.kill9()?;
    browser.ask("alive")?;
    again(&mut stage)?;
    browser.ask("alive")?;

    // The gateway: another place carries the session, and nobody is asked for anything.
    ensure!(live(&operator)?["gateway"] == "gw-1", "{}", live(&operator)?);
    stage.gateways[0].kill9()?;
    let id = live(&operator)?["id"].as_str().context("a session")?.to_owned();
    Stage::until_session(&officer, &id, "it goes on elsewhere", |s| s["state"] == "active" && s["gateway"] != "gw-1")?;
    browser.ask("alive")?;
    stage.gateways[0].again(&stage.world)?;
    stage.until_gateway("gw-1", "live")?;

    // The desktop: somebody stops it.
    let desktop =
        live(&operator)?["desktop"]["id"].as_str().with_context(|| format!("{:?}", live(&operator)))?.to_owned();
    let (status, answer) = operator.post(&format!("/api/v1/desktops/{desktop}/stop"), &json!({"force": true}))?;
    ensure!((200..300).contains(&status), "{status} {answer}");
    browser.reads("V-4001", "Máy trạm ảo đã dừng; máy này và đường truyền vẫn tốt.")?;
    browser.ask("again")?;
    browser.ask("open")?;

    // The host.
    stage.node.kill9()?;
    browser.reads("V-4002", "Trung tâm dữ liệu mất liên lạc với máy chủ")?;
    stage.node.start()?;
    browser.ask("again")?;
    browser.ask("open")?;

    // Another browser takes it.
    let (status, answer) = officer.post("/api/v1/connect", &json!({"take_over": true}))?;
    ensure!(status == 200, "{status} {answer}");
    let mut there = stage.knock(&officer, &answer["ticket"]).await.context("the other browser")?;
    there.shake_hands().await?;
    browser.reads("V-4004", "vừa mở máy trạm ảo trên một thiết bị hay cửa sổ khác")?;
    browser.ask("again")?;
    browser.ask("open")?;

    // Support ends it.
    let session = live(&operator)?["id"].as_str().context("a session")?.to_owned();
    let (status, answer) = operator.delete(&format!("/api/v1/sessions/{session}"))?;
    ensure!((200..300).contains(&status), "{status} {answer}");
    browser.reads("V-4000", "kết thúc")?;
    browser.ask("again")?;
    browser.ask("open")?;
    Ok(())
}
