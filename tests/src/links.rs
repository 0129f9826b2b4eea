//! Endpoints by hand, against the agents' listener in this process: the messages are the test's own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tram_controller::agents;
use tram_controller::clock::Clock;
use tram_controller::domain::time::Time;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::services::{App, Ctx, endpoints, enrolments};
use tram_controller::store::endpoints::Endpoint;
use tram_wire::enrol::{EnrolRequest, EnrolResponse, Issued};
use tram_wire::hello::Hello;
use tram_wire::ids::EndpointId;
use tram_wire::{AgentMessage, ControllerMessage, Incoming, LINK_PATH, Refusal, SERVER_NAME, version};

use crate::db;
use crate::office::{Office, Plan, SITE, noon};

/// A controller's side of the agents, on one database.
pub struct World {
    /// Use cases.
    pub app: App,
    at: SocketAddr,
    /// Its device CA.
    pub ca: DeviceCa,
    stop: CancellationToken,
    _folder: TempDir,
    _db: db::TestDb,
}

impl World {
    /// One on each database.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn all() -> Result<Vec<Self>> {
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

    /// An administrator at a shell.
    pub fn admin(&self) -> Ctx {
        Ctx::local_admin(self.app.clock.now())
    }

    /// A token for so many endpoints.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn token(&self, count: i64, ttl_hours: i64) -> Result<String> {
        let request =
            endpoints::TokenRequest { site_code: SITE.into(), count, ttl_hours, ..endpoints::TokenRequest::default() };
        Ok(endpoints::create_token(&self.app, &self.admin(), &request).await?.0)
    }

    /// Enrols with a token.
    pub async fn enrol(&self, token: &str) -> Result<(EnrolResponse, KeyPair), Refusal> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request =
            EnrolRequest { token: token.to_owned(), csr_pem: csr(&key), hello: hello(&self.app.clock), hardware: None };
        let done = enrolments::enrol(&self.app, &self.admin(), &self.ca, &request).await?;
        Ok((done, key))
    }

    /// A new endpoint.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn endpoint(&self) -> Result<Device> {
        let (answer, key) = self.enrol(&self.token(1, 1).await?).await?;
        Ok(Device { id: answer.endpoint_id, issued: answer.issued, key })
    }

    /// A connection that said nothing yet.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn connect(&self, device: Option<&Device>) -> Result<Line> {
        let tls = self.tls(device).await?;
        let (socket, _) = tokio_tungstenite::client_async(format!("wss://{SERVER_NAME}{LINK_PATH}"), tls).await?;
        Ok(Line(socket))
    }

    /// Posts JSON at another door of the listener; the status and the JSON.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn post(&self, device: Option<&Device>, path: &str, body: &impl Serialize) -> Result<(u16, Value)> {
        let mut tls = self.tls(device).await?;
        let body = serde_json::to_string(body)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {SERVER_NAME}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        tls.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        // Closing without TLS's farewell is no fault here.
        let _ = tls.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer)?;
        let status = text.get(9..12).context("no answer")?.parse()?;
        let (_, body) = text.split_once("\r\n\r\n").context("no body")?;
        Ok((status, serde_json::from_str(body)?))
    }

    async fn tls(&self, device: Option<&Device>) -> Result<TlsStream<TcpStream>> {
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
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SERVER_NAME)?, tcp).await?)
    }

    /// A link: it said hello, and has its plan.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn link(&self, device: &Device) -> Result<Line> {
        let mut line = self.connect(Some(device)).await?;
        line.send(&AgentMessage::Hello(hello(&self.app.clock))).await?;
        match line.next().await? {
            ControllerMessage::HelloAck(ack) => assert_eq!((ack.version, ack.beat_s), (1, 30)),
            other => anyhow::bail!("{other:?}"),
        }
        match line.next().await? {
            ControllerMessage::Plan(_) => Ok(line),
            other => anyhow::bail!("no plan: {other:?}"),
        }
    }

    /// What an endpoint that links is told instead.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn refusal(&self, device: Option<&Device>) -> Result<Refusal> {
        let mut line = self.connect(device).await?;
        // The answer may come before this is sent.
        let _ = line.send(&AgentMessage::Hello(hello(&self.app.clock))).await;
        line.refused().await
    }

    /// The row of an endpoint.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn row(&self, id: EndpointId) -> Result<Endpoint> {
        self.app.store.endpoint(id).await?.context("the endpoint is there")
    }

    /// Waits until the row is as told; reports are written in batches.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn until(&self, id: EndpointId, what: &str, told: impl Fn(&Endpoint) -> bool) -> Result<Endpoint> {
        for _ in 0..100 {
            let row = self.row(id).await?;
            if told(&row) {
                return Ok(row);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("{}: never {what}: {:?}", self.app.store.engine(), self.row(id).await?)
    }

    /// What happened to an endpoint, oldest first.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn events(&self, id: EndpointId) -> Result<Vec<String>> {
        Ok(self.app.store.endpoint_events(id, 50).await?.into_iter().rev().map(|e| e.kind).collect())
    }

    /// Moves the clock on.
    pub fn pass_time(&self, by: Duration) {
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

/// An enrolled endpoint.
pub struct Device {
    /// Its id.
    pub id: EndpointId,
    /// Its certificate.
    pub issued: Issued,
    /// Its key.
    pub key: KeyPair,
}

/// Its link.
pub struct Line(pub WebSocketStream<TlsStream<TcpStream>>);

impl Line {
    /// Sends a message.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn send(&mut self, message: &AgentMessage) -> Result<()> {
        Ok(self.0.send(Message::text(message.encode()?)).await?)
    }

    /// The next message.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn next(&mut self) -> Result<ControllerMessage> {
        let frame = tokio::time::timeout(Duration::from_secs(5), self.0.next()).await?.context("closed")??;
        match ControllerMessage::decode(&frame.into_data())? {
            Incoming::Message(m) => Ok(m),
            Incoming::Unknown { kind } => anyhow::bail!("unknown {kind}"),
        }
    }

    /// The bytes of the next message, which is in its short form.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn binary(&mut self) -> Result<tokio_tungstenite::tungstenite::Bytes> {
        let frame = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await?.context("closed")??;
        anyhow::ensure!(frame.is_binary(), "{frame:?}");
        Ok(frame.into_data())
    }

    /// The refusal that must come next.
    ///
    /// # Errors
    /// If it isn't so.
    pub async fn refused(&mut self) -> Result<Refusal> {
        match self.next().await? {
            ControllerMessage::Refused(r) => Ok(r),
            other => anyhow::bail!("not refused: {other:?}"),
        }
    }
}

/// A request for a certificate of this key.
#[must_use]
pub fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// What an endpoint says first.
#[must_use]
pub fn hello(clock: &Clock) -> Hello {
    Hello {
        versions: version::OURS,
        agent_version: "0.1.0".into(),
        at_ms: clock.now().micros() / 1000,
        hostname: "mot-cua-03".into(),
        os: String::new(),
        kernel: String::new(),
        arch: String::new(),
        boot_id: String::new(),
        connects: 0,
        instance: None,
        key: None,
    }
}
