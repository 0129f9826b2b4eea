use std::collections::BTreeSet;
use std::process::{Command as Process, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::session::cause::Cause;
use crate::session::view::{Notice, Phase};

struct Open {
    page: Arc<Page>,
    view: watch::Sender<Shown>,
    commands: mpsc::Receiver<Command>,
    calls: mpsc::Receiver<()>,
    orders: mpsc::Receiver<bool>,
    port: u16,
    secret: String,
    _folder: tempfile::TempDir,
}

async fn open() -> Open {
    let folder = tempfile::tempdir().unwrap();
    let (view, seen) = watch::channel((1, View::default()));
    let (desk, commands) = mpsc::channel(4);
    let (call, calls) = mpsc::channel(4);
    let (order, orders) = mpsc::channel(4);
    let wishes = Wishes { desk, calls: call, orders: order, ledger: Ledger::of(folder.path()) };
    let page = Page::bind(0, peer::own_uid().unwrap(), folder.path(), seen, wishes).await.unwrap();
    let port = page.listener.local_addr().unwrap().port();
    let secret = page.shared.secret.clone();
    let page = Arc::new(page);
    let serving = page.clone();
    tokio::spawn(async move { serving.serve().await });
    Open { page, view, commands, calls, orders, port, secret, _folder: folder }
}

impl Open {
    /// Status and body of the answer to a request as the browser would send it, with these lines changed.
    async fn ask(&self, line: &str, change: &[(&str, &str)], body: &str) -> (u16, String) {
        let own = format!("127.0.0.1:{}", self.port);
        let origin = format!("http://{own}");
        let mut lines = vec![("Host", own.as_str()), ("X-Tram-Desk", &self.secret), ("Origin", &origin)];
        for (name, value) in change {
            lines.retain(|(n, _)| n != name);
            if !value.is_empty() {
                lines.push((name, value));
            }
        }
        let head: String = lines.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let text = format!("{line} HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, b)| b.to_owned()))
    }
}

#[tokio::test]
async fn the_kiosk_sees_the_page_and_is_heard() {
    let mut o = open().await;
    let (status, html) = o.ask("GET /", &[("X-Tram-Desk", ""), ("Origin", "")], "").await;
    assert!(status == 200 && html.contains("desk.js") && !html.contains("http"), "{status} {html}");
    let (status, news) = o.ask("GET /api/view", &[], "").await;
    assert!(status == 200 && news.contains("\"phase\":\"sign_in\""), "{news}");
    let body = r#"{"username":"lan","password":"x"}"#;
    assert_eq!(o.ask("POST /api/sign-in", &[], body).await.0, 204);
    let who = SignIn { username: "lan".into(), password: "x".into() };
    assert_eq!(o.commands.recv().await, Some(Command::SignIn(who)));
    assert_eq!(o.ask("POST /api/action", &[], r#"{"do":"end"}"#).await.0, 204);
    assert_eq!(o.commands.recv().await, Some(Command::SignOut { end: true }));
    assert_eq!(o.ask("POST /api/action", &[], r#"{"do":"rm -rf"}"#).await.0, 400);
}

#[tokio::test]
async fn support_is_called_whatever_the_desk_is_busy_with() {
    let mut o = open().await;
    for n in 0..9 {
        let status = o.ask("POST /api/action", &[], r#"{"do":"again"}"#).await.0;
        assert_eq!(status, if n < 4 { 204 } else { 503 }, "{n}");
    }
    assert_eq!(o.ask("POST /api/action", &[], r#"{"do":"call_support"}"#).await.0, 204);
    assert_eq!(o.calls.recv().await, Some(()));
    assert_eq!(
        o.ask("POST /api/action", &[("Origin", "http://evil.example")], r#"{"do":"call_support"}"#).await.0,
        403
    );
    assert!(o.calls.try_recv().is_err());
    // Nor does an answer to support wait behind them.
    assert_eq!(o.ask("POST /api/action", &[], r#"{"do":"order_refuse"}"#).await.0, 204);
    assert_eq!(o.orders.recv().await, Some(false));
    let evil = [("Origin", "http://evil.example")];
    assert_eq!(o.ask("POST /api/action", &evil, r#"{"do":"order_allow"}"#).await.0, 403);
    assert!(o.orders.try_recv().is_err());
}

#[tokio::test]
async fn the_officer_reads_what_was_sent_and_nobody_else_does() {
    let o = open().await;
    let ledger = Ledger::of(o._folder.path());
    ledger.note(1, "sent", r#"{"kind":"hello","hostname":"mot-cua-03"}"#);
    ledger.note(2, "support", r#"{"kind":"assist","stage":"watching","who":"Hoa","why":"máy in"}"#);
    let (status, body) = o.ask("GET /api/ledger", &[], "").await;
    let all: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, all["total"].as_i64(), all["entries"][0]["what"]["who"].as_str()), (200, Some(2), Some("Hoa")));
    let (_, body) = o.ask("GET /api/ledger?kind=hello&skip=0", &[], "").await;
    assert!(body.contains("mot-cua-03") && !body.contains("Hoa"), "{body}");
    let (status, html) = o.ask("GET /privacy", &[("X-Tram-Desk", ""), ("Origin", "")], "").await;
    assert!(status == 200 && html.contains("privacy.js") && !html.contains("Hoa"));
    assert_eq!(o.ask("GET /api/ledger", &[("X-Tram-Desk", "")], "").await.0, 403);
    assert_eq!(o.ask("GET /api/ledger", &[("Origin", "http://evil.example")], "").await.0, 403);
}

#[tokio::test]
async fn news_are_waited_for() {
    let o = open().await;
    let mut waiting = Box::pin(o.ask("GET /api/view?after=1", &[], ""));
    tokio::select! {
        _ = &mut waiting => panic!("answered without news"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    o.view.send_replace((2, View { notice: Some(Notice::new("end_staff")), ..View::default() }));
    assert!(waiting.await.1.contains("end_staff"));
}

#[tokio::test]
async fn other_pages_other_names_and_other_programs_are_refused() {
    let mut o = open().await;
    let own = format!("localhost:{}", o.port);
    for (line, change, status) in [
        // A foreign name that was made to resolve to this computer.
        ("GET /", &[("Host", "evil.example")][..], 421),
        ("GET /api/view", &[("Host", &own)], 421),
        ("GET /api/view", &[("Host", "")], 421),
        // Another page in the same browser.
        ("POST /api/action", &[("Origin", "http://evil.example")], 403),
        ("POST /api/action", &[("Origin", "null")], 403),
        ("POST /api/action", &[("Origin", "")], 403),
        ("GET /desk.js", &[("Origin", ""), ("Sec-Fetch-Site", "cross-site")], 403),
        // Another program of the same user.
        ("GET /api/view", &[("X-Tram-Desk", "")], 403),
        ("POST /api/action", &[("X-Tram-Desk", "00000000000000000000000000000000")], 403),
        ("POST /api/sign-in", &[("X-Tram-Desk", "")], 403),
        ("GET /../../etc/passwd", &[], 404),
    ] {
        assert_eq!(o.ask(line, change, "{\"do\":\"end\"}").await.0, status, "{line} {change:?}");
    }
    assert!(o.commands.try_recv().is_err(), "something was heard");
}

#[tokio::test]
async fn another_user_learns_nothing() {
    if peer::own_uid().unwrap() != 0 {
        return; // Only root can become somebody else to try.
    }
    let o = open().await;
    let knock = format!(
        // It may be hung up on before it has said anything.
        "trap '' PIPE; exec 3<>/dev/tcp/127.0.0.1/{0}; printf 'GET / HTTP/1.1\\r\\nHost: 127.0.0.1:{0}\\r\\n\\r\\n' >&3; \
         read -r line <&3; echo \"got ${{line:-nothing}}\"",
        o.port
    );
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", &knock];
    let child = Process::new("setpriv").args(user).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "got nothing");
    let start = fs::read_to_string(o.page.start()).unwrap();
    assert!(start.contains(&o.secret));
    let cat = ["--reuid=65534", "--regid=65534", "--clear-groups", "cat", o.page.start().to_str().unwrap()];
    assert!(!Process::new("setpriv").args(cat).stderr(Stdio::null()).status().unwrap().success());
}

/// Every sentence in both languages, and a sentence for everything the agent can say.
#[test]
fn nothing_is_shown_raw() {
    let texts: serde_json::Value = serde_json::from_str(texts::JSON).unwrap();
    let keys = |l: &str| texts[l].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys("vi"), keys("en"));
    let word = |v: serde_json::Value| v.as_str().unwrap().to_owned();
    let mut needed: Vec<String> = Cause::ALL.iter().map(|c| format!("cause_{}", word(serde_json::json!(c)))).collect();
    for phase in [
        Phase::Signing,
        Phase::Waiting,
        Phase::TakeOver,
        Phase::Opening,
        Phase::Desktop,
        Phase::Warned,
        Phase::Lost,
        Phase::Left,
    ] {
        needed.push(format!("phase_{}", word(serde_json::json!(phase))));
    }
    needed.extend(["title", "waits", "not_approved", "unanswered"].map(|key| format!("enrol_{key}")));
    let states = [
        "planned",
        "creating",
        "defined",
        "starting",
        "booting",
        "running",
        "stopping",
        "stopped",
        "rebuilding",
        "failed",
        "deleting",
    ];
    needed.extend(states.iter().map(|s| format!("step_{s}")));
    // The codes the session's own sources name.
    for source in [
        include_str!("../desk.rs"),
        include_str!("../control.rs"),
        include_str!("../show.rs"),
        include_str!("../lease.rs"),
        include_str!("../call.rs"),
    ] {
        for part in source.split("\"D-").skip(1) {
            needed.push(format!("code_D-{}", &part[..3]));
        }
    }
    let missing: Vec<_> = needed.iter().filter(|k| !keys("vi").contains(*k)).collect();
    assert!(needed.len() > 25 && missing.is_empty(), "no sentence for {missing:?}");
    for state in ["made", "queued", "open", "taken", "handed_over", "solved", "closed", "none"] {
        needed.push(format!("call_{state}"));
    }
    for kind in ["hello", "snapshot", "change", "report", "renew", "goodbye", "call", "live", "assist"] {
        needed.push(format!("sent_{kind}"));
    }
    // What the pages ask for by name.
    for source in [include_str!("desk.html"), include_str!("privacy.html")] {
        needed.extend(source.split("data-text=\"").skip(1).map(|part| part.split('"').next().unwrap().to_owned()));
    }
    let missing: Vec<_> = needed.iter().filter(|k| !keys("vi").contains(*k)).collect();
    assert!(missing.is_empty(), "no sentence for {missing:?}");
    for id in [
        "call_support",
        "call_title",
        "call_hint",
        "by_lease",
        "code_G-112",
        "code_G-113",
        "code_G-114",
        "sign_in",
        "username",
        "password",
        "again",
        "sign_out",
        "end",
        "take_over",
    ] {
        assert!(keys("vi").contains(id), "{id}");
    }
}
