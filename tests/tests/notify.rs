//! Telling people of incidents: rules over HTTP, the outbox, and each way against a real server on loopback:
//! mail to aiosmtpd, webhooks and SMS gateways to HTTPS, SMS to a centre that speaks SMPP.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tram_controller::domain::access::Role;
use tram_controller::domain::incident::hours::Hours;
use tram_controller::domain::incident::{Cause, Confidence, Judgement, Scope, Severity};
use tram_controller::domain::time::Time;
use tram_controller::notify::{Sms, Smtp, SmtpTls, Ways};
use tram_controller::services::incidents::{self, Lookout};
use tram_controller::services::notify;
use tram_tests::db;
use tram_tests::http::{Browser, COMMUNE, DISTRICT, ELSEWHERE, TestApi};
use tram_wire::ids::EndpointId;
use uuid::Uuid;

fn rule(channel: &str, target: &str) -> Value {
    json!({"name": format!("{channel} to {target}"), "channel": channel, "target": target, "severity": "crit", "at_times": "always"})
}

async fn make(operator: &Browser<'_>, rule: Value) -> Result<String> {
    let made = operator.post("/api/v1/notify-rules", rule).await?;
    ensure!(made.status == StatusCode::CREATED, "{made:?}");
    Ok(made.json["id"].as_str().context("id")?.to_owned())
}

async fn log(operator: &Browser<'_>) -> Result<Vec<Value>> {
    let log = operator.get("/api/v1/notify-log").await?;
    Ok(log.json["items"].as_array().with_context(|| format!("{log:?}"))?.clone())
}

async fn send_all(api: &TestApi, ways: &Ways) -> Result<usize> {
    let mut sent = 0;
    while notify::send_one(api.app(), ways, api.app().clock.now()).await? {
        sent += 1;
    }
    Ok(sent)
}

/// What somebody took in, one text each.
type Taken = Arc<Mutex<Vec<String>>>;

fn taken(by: &Taken) -> Vec<String> {
    by.lock().map(|t| t.clone()).unwrap_or_default()
}

/// An HTTP server that answers `status` and keeps what it gets: head and body.
async fn web(status: &'static str) -> Result<(String, Taken)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/hook", listener.local_addr()?);
    let seen = Taken::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut line, _)) = listener.accept().await {
            let mut all = Vec::new();
            let mut part = [0; 4096];
            loop {
                let n = line.read(&mut part).await.unwrap_or(0);
                all.extend_from_slice(&part[..n]);
                let text = String::from_utf8_lossy(&all).into_owned();
                let length = text
                    .lines()
                    .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
                let whole = text.split_once("\r\n\r\n").is_some_and(|(_, body)| Some(body.len()) >= length);
                if n == 0 || whole {
                    break;
                }
            }
            if let Ok(mut kept) = kept.lock() {
                kept.push(String::from_utf8_lossy(&all).into_owned());
            }
            let _ = line
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())
                .await;
        }
    });
    Ok((url, seen))
}

/// A mail server, as Debian ships one for tests.
struct MailServer {
    child: Child,
    port: u16,
    mails: Taken,
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl MailServer {
    fn start() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = Command::new("/usr/bin/python3")
            .args([
                "-u",
                "-m",
                "aiosmtpd",
                "-n",
                "-l",
                &format!("127.0.0.1:{port}"),
                "-c",
                "aiosmtpd.handlers.Debugging",
                "stdout",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("aiosmtpd is missing; run `make setup`")?;
        let mails = Taken::default();
        let (out, kept) = (child.stdout.take().context("no output")?, mails.clone());
        std::thread::spawn(move || {
            let mut mail = String::new();
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.contains("END MESSAGE") {
                    if let Ok(mut kept) = kept.lock() {
                        kept.push(std::mem::take(&mut mail));
                    }
                } else {
                    mail = mail + &line + "\n";
                }
            }
        });
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(std::time::Instant::now() < until, "aiosmtpd does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { child, port, mails })
    }
}

/// The part of an SMS centre that takes messages in: answers a bind with this status, keeps what is submitted.
async fn centre(bind_status: u32) -> Result<(String, Taken)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?.to_string();
    let seen = Taken::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut line, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut head = [0; 16];
                while line.read_exact(&mut head).await.is_ok() {
                    let word = |i: usize| u32::from_be_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
                    let (length, command, sequence) = (word(0), word(4), word(12));
                    let mut body = vec![0; length as usize - 16];
                    if line.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    let mut status = 0;
                    let mut answer: &[u8] = b"";
                    match command {
                        // bind_transmitter
                        2 => {
                            status = bind_status;
                            answer = b"centre\0";
                        }
                        // submit_sm
                        4 => {
                            if let Ok(mut kept) = kept.lock() {
                                kept.push(String::from_utf8_lossy(&body).replace('\0', "|"));
                            }
                            answer = b"17\0";
                        }
                        _ => {}
                    }
                    let mut out = Vec::new();
                    let size = u32::try_from(16 + answer.len()).unwrap_or(16);
                    for w in [size, command | 0x8000_0000, status, sequence] {
                        out.extend_from_slice(&w.to_be_bytes());
                    }
                    out.extend_from_slice(answer);
                    if line.write_all(&out).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok((server, seen))
}

/// Two offices, one of which is silent: looked at until that is told.
async fn outage(api: &TestApi, store: &tram_controller::store::Store) -> Result<()> {
    let now = api.app().clock.now();
    let mut tx = store.begin().await?;
    for (site, silent) in [(COMMUNE, true), (COMMUNE, true), (ELSEWHERE, false)] {
        let id = EndpointId(Uuid::now_v7());
        tx.add_endpoint(id, "pc", site, &json!({}), now.plus(Duration::from_secs(86_400)), now).await?;
        tx.endpoints_heard(&[tram_controller::store::endpoints::Heard { id, at: now, skew_ms: None }], now).await?;
        if silent {
            tx.endpoint_left(id).await?;
            tx.endpoint_event(id, "silent", "", now).await?;
        }
    }
    tx.commit().await?;
    let lookout = Lookout {
        since: now.minus(Duration::from_secs(3600)),
        hours: Hours::default(),
        thresholds: Default::default(),
    };
    for _ in 0..2 {
        api.pass(Duration::from_secs(15));
        incidents::look(api.app(), &lookout, Vec::new(), api.app().clock.now()).await?.context("looked")?;
    }
    Ok(())
}

#[tokio::test]
async fn an_outage_reaches_mail_sms_and_webhook_in_the_words_of_each() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let mail = MailServer::start()?;
        let (server, sms) = centre(0).await?;
        let folder = tempfile::tempdir()?;
        let password = folder.path().join("smsc");
        std::fs::write(&password, "bimat\n")?;
        let ways = Ways {
            smtp: Some(Smtp {
                host: "127.0.0.1".into(),
                port: mail.port,
                tls: SmtpTls::None,
                from: "Tram <tram@tram.example>".into(),
                login: None,
            }),
            sms: Some(Sms::Smpp { server, system_id: "tram".into(), password, from: "TRAM".into() }),
            ..Ways::default()
        };
        make(&operator, rule("email", "truc@tram.example")).await?;
        make(&operator, rule("sms", "+84912345678")).await?;
        let elsewhere = json!({"site_code": "017"});
        let mut other = rule("email", "donganh@tram.example");
        other.as_object_mut().context("object")?.extend(elsewhere.as_object().cloned().unwrap_or_default());
        make(&operator, other).await?;
        let mut quiet = rule("email", "tat@tram.example");
        quiet["enabled"] = json!(false);
        make(&operator, quiet).await?;

        outage(&api, &db.store).await?;
        assert_eq!(send_all(&api, &ways).await?, 2, "{:?}", log(&operator).await?);
        assert_eq!(send_all(&api, &ways).await?, 0, "told once");
        for row in log(&operator).await? {
            assert!(row["sent_at"].is_string(), "{row}");
        }
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while taken(&mail.mails).is_empty() && std::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mails = taken(&mail.mails);
        assert_eq!(mails.len(), 1, "{mails:?}");
        assert!(mails[0].contains("To: truc@tram.example"), "{}", mails[0]);
        assert!(mails[0].contains("https://tram.test:8443/console/incidents/"), "{}", mails[0]);
        let sms = taken(&sms);
        assert_eq!(sms.len(), 1);
        assert!(
            sms[0].contains("84912345678")
                && sms[0].contains("mat duong truyen cua don vi - Phuong Truc Bach, Quan Ba Dinh"),
            "{sms:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_programme_gets_a_signed_event_and_what_it_refuses_is_given_up() -> Result<()> {
    let db = db::sqlite().await?;
    let api = TestApi::new(&db.store).await?;
    let operator = api.signed_in(Role::Operator).await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "khoa")?;
    let ways = Ways { webhook_secret: Some(secret), ..Ways::default() };
    let id = make(&operator, rule("webhook", "https://noc.example/hook")).await?;
    for (status, outcome) in [("204 No Content", "sent"), ("503 Later", "again"), ("410 Gone", "given up")] {
        let (url, seen) = web(status).await?;
        // Only https may be asked for; a test's server has no certificate.
        db.raw(&format!("UPDATE notify_rules SET target = '{url}'")).await?;
        assert_eq!(
            operator.post(&format!("/api/v1/notify-rules/{id}/test"), json!({})).await?.status,
            StatusCode::ACCEPTED
        );
        assert_eq!(send_all(&api, &ways).await?, 1);
        let got = taken(&seen);
        assert_eq!(got.len(), 1, "{got:?}");
        let (head, body) = got[0].split_once("\r\n\r\n").context("no body")?;
        assert_eq!(serde_json::from_str::<Value>(body)?["occasion"], "test");
        let expected: String = {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"khoa");
            ring::hmac::sign(&key, body.as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
        };
        assert!(head.contains(&format!("x-tram-signature: sha256={expected}")), "{head}");
        let row = log(&operator).await?[0].clone();
        match outcome {
            "sent" => assert!(row["sent_at"].is_string() && row["due_at"].is_null(), "{row}"),
            "again" => assert!(
                row["sent_at"].is_null()
                    && row["due_at"].is_string()
                    && row["error"].as_str().is_some_and(|e| e.contains("503")),
                "{row}"
            ),
            _ => assert!(row["sent_at"].is_null() && row["due_at"].is_null(), "{row}"),
        }
        if outcome == "again" {
            db.raw("DELETE FROM notify_outbox").await?;
        }
    }
    let audit = operator.get("/api/v1/audit?q=notify").await?;
    let actions: Vec<&str> =
        audit.json["items"].as_array().into_iter().flatten().filter_map(|r| r["action"].as_str()).collect();
    assert!(actions.contains(&"notify.give_up") && actions.contains(&"notify.create"), "{actions:?}");
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_sent_is_tried_again_and_said() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let (server, _) = centre(0x0d).await?;
        let folder = tempfile::tempdir()?;
        let password = folder.path().join("smsc");
        std::fs::write(&password, "sai")?;
        let mut ways = Ways {
            sms: Some(Sms::Smpp { server, system_id: "tram".into(), password: password.clone(), from: "TRAM".into() }),
            ..Ways::default()
        };
        let sms = make(&operator, rule("sms", "0912345678")).await?;
        let mail = make(&operator, rule("email", "truc@tram.example")).await?;
        for id in [&sms, &mail] {
            operator.post(&format!("/api/v1/notify-rules/{id}/test"), json!({})).await?;
        }
        assert_eq!(send_all(&api, &ways).await?, 2);
        let all = log(&operator).await?;
        let of = |id: &str| all.iter().find(|r| r["rule"] == id).cloned().context("not in the log");
        let (by_sms, by_mail) = (of(&sms)?, of(&mail)?);
        assert!(
            by_sms["error"].as_str().is_some_and(|e| e.contains("signing in")) && by_sms["due_at"].is_string(),
            "{by_sms}"
        );
        assert!(
            by_mail["error"].as_str().is_some_and(|e| e.contains("not configured")) && by_mail["due_at"].is_null(),
            "{by_mail}"
        );
        // The centre takes us in now, and the message goes out when it is due again.
        let (server, seen) = centre(0).await?;
        ways.sms = Some(Sms::Smpp { server, system_id: "tram".into(), password, from: "TRAM".into() });
        assert_eq!(send_all(&api, &ways).await?, 0, "not yet");
        api.pass(Duration::from_secs(60));
        assert_eq!(send_all(&api, &ways).await?, 1);
        assert!(taken(&seen)[0].contains("Thu thong bao"), "{:?}", taken(&seen));
    }
    Ok(())
}

#[tokio::test]
async fn rules_are_checked_and_only_operators_make_them() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        let mut bad = rule("email", "a@b.c\r\nBcc: x@y.z");
        bad["name"] = json!(" ");
        bad["site_code"] = json!("99999");
        let refused = operator.post("/api/v1/notify-rules", bad).await?;
        let codes: Vec<&str> =
            refused.json["errors"].as_array().into_iter().flatten().filter_map(|e| e["code"].as_str()).collect();
        assert_eq!(codes, ["N-201", "N-202", "N-203"], "{refused:?}");
        let id = make(&operator, rule("webhook", "https://noc.example/")).await?;
        assert_eq!(
            operator.post("/api/v1/notify-rules", rule("webhook", "https://noc.example/")).await?.code(),
            "N-409"
        );
        let support = api.signed_in(Role::Support).await?;
        assert_eq!(
            support.post("/api/v1/notify-rules", rule("sms", "0912345678")).await?.status,
            StatusCode::FORBIDDEN
        );
        assert_eq!(support.get("/api/v1/notify-rules").await?.json["total"], 1);
        let mut changed = rule("sms", "0912345678");
        changed["site_code"] = json!(DISTRICT);
        let path = format!("/api/v1/notify-rules/{id}");
        let put = operator.send(Method::PUT, &path, Some(("application/json", changed.to_string().into()))).await?;
        assert_eq!((&put.json["channel"], &put.json["site_code"]), (&json!("sms"), &json!(DISTRICT)), "{put:?}");
        assert_eq!(operator.delete(&path).await?.status, StatusCode::NO_CONTENT);
        assert_eq!(operator.delete(&path).await?.code(), "N-404");
    }
    Ok(())
}

#[tokio::test]
async fn a_party_that_does_not_answer_is_told_of_once() -> Result<()> {
    for db in db::both().await? {
        let api = TestApi::new(&db.store).await?;
        let operator = api.signed_in(Role::Operator).await?;
        make(&operator, rule("email", "truc@tram.example")).await?;
        let id = tram_wire::ids::IncidentId(Uuid::now_v7());
        let judgement = Judgement {
            cause: Cause::SiteLine,
            scope: Scope::Site(COMMUNE.into()),
            detail: String::new(),
            severity: Severity::Crit,
            confidence: Confidence::Medium,
            evidence: Vec::new(),
            doubts: Vec::new(),
            sites: vec![COMMUNE.into()],
            endpoints: Vec::new(),
        };
        let mut tx = db.store.begin().await?;
        tx.open_incident(id, &judgement, false, api.app().clock.now()).await?;
        tx.commit().await?;
        operator
            .post(&format!("/api/v1/incidents/{id}/hand-over"), json!({"party": "carrier", "answer_minutes": 10}))
            .await?;
        let look = async |now: Time| notify::tell_overdue(api.app(), &Hours::default(), now).await;
        look(api.app().clock.now()).await?;
        assert_eq!(log(&operator).await?.len(), 0, "there is time");
        api.pass(Duration::from_secs(601));
        for _ in 0..3 {
            look(api.app().clock.now()).await?;
        }
        let told = log(&operator).await?;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0]["occasion"], "late");
    }
    Ok(())
}
