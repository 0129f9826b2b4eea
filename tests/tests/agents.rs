//! Agents against the controller, in one process, over real TLS, on both databases: enrolment, link,
//! beat, silence, revocation, wrong certificates, wrong clocks, hostile frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tram_controller::agents;
use tram_controller::clock::Clock;
use tram_controller::domain::endpoint::{EndpointState, SILENT_WITHIN, Verdict};
use tram_controller::domain::time::Time;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::services::{App, Ctx, Error, endpoints};
use tram_controller::store::endpoints::{Endpoint, Filter};
use tram_tests::db;
use tram_tests::office::{Office, Plan, SITE, noon};
use tram_wire::check::{CheckState, Finding};
use tram_wire::enrol::{EnrolRequest, EnrolResponse, Issued, Renew};
use tram_wire::heartbeat::{Beat, Goodbye, GoodbyeReason, Snapshot};
use tram_wire::hello::Hello;
use tram_wire::ids::EndpointId;
use tram_wire::{AgentMessage, ControllerMessage, Incoming, LINK_PATH, Refusal, SERVER_NAME, version};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    app: App,
    at: SocketAddr,
    ca: DeviceCa,
    stop: CancellationToken,
    _folder: TempDir,
    _db: db::TestDb,
}

impl World {
    async fn all() -> Result<Vec<Self>> {
        let mut worlds = Vec::new();
        for db in db::both().await? {
            db.raw(&format!(
                "INSERT INTO sites (code, valid_from, name, short_name, type, level, search_key) \
                 VALUES ('{SITE}', '2016-01-01', 'Phường Trúc Bạch', 'Trúc Bạch', 'phường', 'commune', 'truc bach')"
            ))
            .await?;
            let plan = Plan { desktops: 0, officers: 0, ..Plan::default() };
            let office = Office::build(&db.store, noon(), plan).await?;
            let folder = tempfile::tempdir()?;
            let app = App { data_dir: folder.path().to_owned(), ..office.app };
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let (at, stop) = (listener.local_addr()?, CancellationToken::new());
            let ca = DeviceCa::open(&app.data_dir, app.clock.now())?;
            tokio::spawn(agents::serve(app.clone(), listener, None, stop.clone()));
            worlds.push(Self { app, at, ca, stop, _folder: folder, _db: db });
        }
        Ok(worlds)
    }

    fn admin(&self) -> Ctx {
        Ctx::local_admin(self.app.clock.now())
    }

    async fn token(&self, count: i64, ttl_hours: i64) -> Result<String> {
        let request = endpoints::TokenRequest { site_code: SITE.into(), count, ttl_hours, note: String::new() };
        Ok(endpoints::create_token(&self.app, &self.admin(), &request).await?.0)
    }

    async fn enrol(&self, token: &str) -> Result<(EnrolResponse, KeyPair), Refusal> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = EnrolRequest { token: token.to_owned(), csr_pem: csr(&key), hello: hello(&self.app.clock) };
        let done = endpoints::enrol(&self.app, &self.admin(), &self.ca, &request).await?;
        Ok((done, key))
    }

    async fn endpoint(&self) -> Result<Device> {
        let (answer, key) = self.enrol(&self.token(1, 1).await?).await?;
        Ok(Device { id: answer.endpoint_id, issued: answer.issued, key })
    }

    async fn connect(&self, device: Option<&Device>) -> Result<Line> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // The controller's clock stands in the future: look at its certificate from there.
        let builder = ClientConfig::builder_with_details(provider, Arc::new(StandingStill(self.app.clock.now())))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match device {
            None => builder.with_no_client_auth(),
            Some(d) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(d.issued.certificate_pem.as_bytes())?],
                PrivateKeyDer::from_pem_slice(d.key.serialize_pem().as_bytes())?,
            )?,
        };
        let tcp = TcpStream::connect(self.at).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER_NAME)?, tcp).await?;
        let (socket, _) = tokio_tungstenite::client_async(format!("wss://{SERVER_NAME}{LINK_PATH}"), tls).await?;
        Ok(Line(socket))
    }

    async fn link(&self, device: &Device) -> Result<Line> {
        let mut line = self.connect(Some(device)).await?;
        line.send(&AgentMessage::Hello(hello(&self.app.clock))).await?;
        match line.next().await? {
            ControllerMessage::HelloAck(ack) => assert_eq!((ack.version, ack.beat_s), (1, 30)),
            other => anyhow::bail!("{other:?}"),
        }
        Ok(line)
    }

    async fn refusal(&self, device: Option<&Device>) -> Result<Refusal> {
        let mut line = self.connect(device).await?;
        // The answer may come before this is sent.
        let _ = line.send(&AgentMessage::Hello(hello(&self.app.clock))).await;
        line.refused().await
    }

    async fn row(&self, id: EndpointId) -> Result<Endpoint> {
        self.app.store.endpoint(id).await?.context("the endpoint is there")
    }

    /// Waits until the row is as told; reports are written in batches.
    async fn until(&self, id: EndpointId, what: &str, told: impl Fn(&Endpoint) -> bool) -> Result<Endpoint> {
        for _ in 0..100 {
            let row = self.row(id).await?;
            if told(&row) {
                return Ok(row);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("{}: never {what}: {:?}", self.app.store.engine(), self.row(id).await?)
    }

    async fn events(&self, id: EndpointId) -> Result<Vec<String>> {
        Ok(self.app.store.endpoint_events(id, 50).await?.into_iter().rev().map(|e| e.kind).collect())
    }

    fn pass_time(&self, by: Duration) {
        self.app.clock.set(self.app.clock.now().plus(by));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug)]
struct StandingStill(Time);

impl rustls::time_provider::TimeProvider for StandingStill {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let since = Duration::from_micros(self.0.micros().unsigned_abs());
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
    }
}

struct Device {
    id: EndpointId,
    issued: Issued,
    key: KeyPair,
}

struct Line(WebSocketStream<TlsStream<TcpStream>>);

impl Line {
    async fn send(&mut self, message: &AgentMessage) -> Result<()> {
        Ok(self.0.send(Message::text(message.encode()?)).await?)
    }

    async fn next(&mut self) -> Result<ControllerMessage> {
        let frame = tokio::time::timeout(Duration::from_secs(5), self.0.next()).await?.context("closed")??;
        match ControllerMessage::decode(&frame.into_data())? {
            Incoming::Message(m) => Ok(m),
            Incoming::Unknown { kind } => anyhow::bail!("unknown {kind}"),
        }
    }

    async fn refused(&mut self) -> Result<Refusal> {
        match self.next().await? {
            ControllerMessage::Refused(r) => Ok(r),
            other => anyhow::bail!("not refused: {other:?}"),
        }
    }
}

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

fn hello(clock: &Clock) -> Hello {
    Hello {
        versions: version::OURS,
        agent_version: "0.1.0".into(),
        at_ms: clock.now().micros() / 1000,
        hostname: "mot-cua-03".into(),
        os: String::new(),
        kernel: String::new(),
        arch: String::new(),
        boot_id: String::new(),
        connects: 1,
    }
}

fn snapshot(state: CheckState) -> AgentMessage {
    let finding = Finding { check: "disk_space".into(), state, code: "disk_low".into(), params: Default::default() };
    let mut s = Snapshot {
        at_ms: 0,
        hardware: Default::default(),
        vitals: Default::default(),
        network: Default::default(),
        findings: vec![finding],
    };
    s.hardware.vendor = Some("Dell\u{0} Inc.".into());
    AgentMessage::Snapshot(Box::new(s))
}

#[tokio::test]
async fn an_endpoint_enrols_links_beats_and_reports() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        assert_eq!(w.row(d.id).await?.state, EndpointState::Never);
        let mut line = w.link(&d).await?;
        line.send(&AgentMessage::Beat(Beat { seq: 1, at_ms: 0, rtt_us: None })).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(a) if a.seq == 1));
        w.until(d.id, "online", |e| e.state == EndpointState::Online).await?;
        line.send(&snapshot(CheckState::Warn)).await?;
        let row = w.until(d.id, "warned", |e| e.verdict == Verdict::Warn).await?;
        assert_eq!((row.site_name.as_deref(), row.name.as_str()), (Some("Phường Trúc Bạch"), "mot-cua-03"));
        // NUL would be refused by PostgreSQL, and with it the whole batch.
        assert_eq!(row.hardware.unwrap()["vendor"], "Dell Inc.");
        line.send(&AgentMessage::Goodbye(Goodbye { reason: GoodbyeReason::Stopped })).await?;
        w.until(d.id, "gone", |e| e.state == EndpointState::Silent).await?;
        assert_eq!(w.events(d.id).await?, ["enrolled", "online", "verdict", "goodbye"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_token_works_as_often_as_it_says_and_no_longer_than_it_says() -> Result<()> {
    for w in World::all().await? {
        let token = w.token(2, 1).await?;
        let (a, b, c) = tokio::join!(w.enrol(&token), w.enrol(&token), w.enrol(&token));
        let good = [&a, &b, &c].into_iter().filter(|r| r.is_ok()).count();
        assert_eq!(good, 2);
        let late = w.token(1, 1).await?;
        w.pass_time(HOUR + Duration::from_secs(1));
        assert_eq!(w.enrol(&late).await.err(), Some(Refusal::Token));
        assert_eq!(w.enrol("tram1-00000-00000-00000-00000").await.err(), Some(Refusal::Token));
        assert_eq!(w.enrol("rubbish").await.err(), Some(Refusal::Token));
        assert_eq!(endpoints::list(&w.app, &w.admin(), &Filter { limit: 10, ..Filter::default() }).await?.1, 2);
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_request_does_not_use_the_token_up() -> Result<()> {
    for w in World::all().await? {
        let token = w.token(1, 1).await?;
        let bad = EnrolRequest { token: token.clone(), csr_pem: "x".into(), hello: hello(&w.app.clock) };
        let refused = endpoints::enrol(&w.app, &w.admin(), &w.ca, &bad).await;
        assert!(matches!(refused, Err(Refusal::Malformed { .. })), "{refused:?}");
        assert!(w.enrol(&token).await.is_ok());
    }
    Ok(())
}

#[tokio::test]
async fn silence_is_noticed_in_time_and_a_return_too() -> Result<()> {
    for w in World::all().await? {
        let began = w.app.clock.now();
        let d = w.endpoint().await?;
        let line = w.link(&d).await?;
        w.until(d.id, "online", |e| e.state == EndpointState::Online).await?;
        drop(line);
        let silent = |now: Time, since: Time| endpoints::mark_silent(&w.app, since, now);
        assert_eq!(silent(began.plus(Duration::from_secs(65)), began).await?, 0, "called too early");
        // A controller that has just begun hasn't heard anybody yet.
        let late = began.plus(SILENT_WITHIN);
        assert_eq!(silent(late, late).await?, 0, "blamed for the controller's absence");
        assert_eq!(silent(late, began).await?, 1);
        assert_eq!(silent(late, began).await?, 0, "called twice");
        assert_eq!(w.row(d.id).await?.state, EndpointState::Silent);
        w.pass_time(SILENT_WITHIN);
        let _line = w.link(&d).await?;
        w.until(d.id, "back", |e| e.state == EndpointState::Online).await?;
        assert_eq!(w.events(d.id).await?, ["enrolled", "online", "silent", "online"]);
    }
    Ok(())
}

#[tokio::test]
async fn revocation_cuts_the_link_within_two_seconds_and_for_good() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let began = std::time::Instant::now();
        endpoints::revoke(&w.app, &w.admin(), d.id, "stolen").await?;
        assert_eq!(line.refused().await?, Refusal::Revoked);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(w.refusal(Some(&d)).await?, Refusal::Revoked);
        // Its last words don't bring it back.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(w.row(d.id).await?.state, EndpointState::Revoked);
        let again = endpoints::revoke(&w.app, &w.admin(), d.id, "stolen").await;
        assert!(matches!(again, Err(Error::Conflict("E-409", _))));
    }
    Ok(())
}

#[tokio::test]
async fn wrong_certificates_get_their_reason() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        assert_eq!(w.refusal(None).await?, Refusal::Unknown);
        // Signed by another authority, for an id that exists here.
        let elsewhere = tempfile::tempdir()?;
        let foreign_ca = DeviceCa::open(elsewhere.path(), w.app.clock.now())?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issued = foreign_ca.sign(&csr(&key), d.id, w.app.clock.now())?;
        assert_eq!(w.refusal(Some(&Device { id: d.id, issued, key })).await?, Refusal::Unknown);
        // Ours, but for nobody.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let nobody = EndpointId(Uuid::now_v7());
        let issued = w.ca.sign(&csr(&key), nobody, w.app.clock.now())?;
        assert_eq!(w.refusal(Some(&Device { id: nobody, issued, key })).await?, Refusal::Unknown);
        w.pass_time(HOUR * 24 * 31);
        assert_eq!(w.refusal(Some(&d)).await?, Refusal::Expired);
    }
    Ok(())
}

#[tokio::test]
async fn a_clock_an_hour_off_is_told_not_punished() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        let at_ms = w.app.clock.now().micros() / 1000 + 3_600_000;
        line.send(&AgentMessage::Beat(Beat { seq: 1, at_ms, rtt_us: Some(0) })).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(_)));
        drop(line);
        let row = w.until(d.id, "skewed", |e| e.skew_ms == Some(3_600_000)).await?;
        // By the controller's clock, whatever the endpoint says.
        assert_eq!(row.last_seen_at, Some(w.app.clock.now().micros()));
        assert_eq!(row.state, EndpointState::Online);
    }
    Ok(())
}

#[tokio::test]
async fn hostile_frames_end_the_link_with_a_reason_and_unknown_kinds_do_not() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut line = w.link(&d).await?;
        line.0.send(Message::text(r#"{"kind":"hologram","x":1}"#)).await?;
        line.send(&AgentMessage::Beat(Beat { seq: 9, at_ms: 0, rtt_us: None })).await?;
        assert!(matches!(line.next().await?, ControllerMessage::BeatAck(a) if a.seq == 9));
        line.0.send(Message::text("[".repeat(1000))).await?;
        assert!(matches!(line.refused().await?, Refusal::Malformed { .. }));

        let mut line = w.link(&d).await?;
        line.0.send(Message::text(format!(r#"{{"kind":"beat","pad":"{}"}}"#, "x".repeat(70_000)))).await?;
        assert!(matches!(line.refused().await?, Refusal::Malformed { detail } if detail.contains("limit")));

        let mut line = w.link(&d).await?;
        for seq in 1..=200 {
            if line.send(&AgentMessage::Beat(Beat { seq, at_ms: 0, rtt_us: None })).await.is_err() {
                break;
            }
        }
        let mut answers = 0;
        let refusal = loop {
            match line.next().await? {
                ControllerMessage::BeatAck(_) => answers += 1,
                ControllerMessage::Refused(r) => break r,
                other => anyhow::bail!("{other:?}"),
            }
        };
        assert!(matches!(refusal, Refusal::Malformed { .. }) && answers <= 61, "{answers}");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_link_takes_over_and_a_key_renews_over_it() -> Result<()> {
    for w in World::all().await? {
        let d = w.endpoint().await?;
        let mut old = w.link(&d).await?;
        let mut line = w.link(&d).await?;
        assert_eq!(old.refused().await?, Refusal::Superseded);
        w.pass_time(HOUR * 24 * 20);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        line.send(&AgentMessage::Renew(Renew { csr_pem: csr(&key) })).await?;
        let ControllerMessage::Renewed(issued) = line.next().await? else { anyhow::bail!("not renewed") };
        w.pass_time(HOUR * 24 * 15);
        assert_eq!(w.refusal(Some(&d)).await?, Refusal::Expired);
        let _line = w.link(&Device { id: d.id, issued, key }).await?;
    }
    Ok(())
}
