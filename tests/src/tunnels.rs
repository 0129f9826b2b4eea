//! Endpoints with tunnels: the agents' listener and a gateway before a simulated host, a cable that can be cut
//! between them, enrolled identities, and RFB over a stream.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tram_agent::config::Address;
use tram_agent::identity::{Identity, Request};
use tram_agent::link::tls;
use tram_agent::session::tunnel::{Door, Session, Status};
use tram_controller::agents;
use tram_controller::domain::session::Policy;
use tram_controller::domain::ticket::Binding;
use tram_controller::domain::time::Time;
use tram_controller::gateway::Gateway;
use tram_controller::gateway::tunnel::Caller;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::services::{App, Ctx, broker, endpoints, enrolments};
use tram_controller::store::Store;
use tram_tunnel::{Limits, LineEnd, Role, Stream, Tunnel, read_words, write_words};
use tram_wire::enrol::{EnrolRequest, Issued};
use tram_wire::hello::Hello;
use tram_wire::session::{self, Opened, Protocol, ToAgent, ToGateway};
use tram_wire::tunnel::Class;
use tram_wire::{Incoming, TUNNEL_PATH, TUNNEL_UPGRADE, version};

use crate::cable::Cable;
use crate::gate::Gate;
use crate::office::{Plan, SITE};
use crate::world::PATIENCE;

/// All of it.
pub struct Commune {
    /// Desktops, people and the gateway.
    pub gate: Gate,
    /// Between the endpoints and the agents' listener.
    pub cable: Cable,
    /// The controller's use cases, with its data folder.
    pub app: App,
    ca: DeviceCa,
    carrying: Arc<Mutex<Gateway>>,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Drop for Commune {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Commune {
    /// Opens one. `display` is what the desktops' displays do: `picture`, `flood` or `sink`.
    ///
    /// # Errors
    /// Those of its parts.
    pub async fn open(store: &Store, plan: Plan, display: &str, policy: Policy) -> Result<Self> {
        let gate = Gate::open(store, plan, display, policy).await?;
        // Endpoints are enrolled for a site that exists.
        let known = gate.office.count(&format!("SELECT count(*) FROM sites WHERE code = '{SITE}'")).await?;
        if known == 0 {
            let row = "'2016-01-01', 'Phường Trúc Bạch', 'Trúc Bạch', 'phường', 'commune', 'truc bach'";
            gate.office
                .sql(&format!(
                    "INSERT INTO sites (code, valid_from, name, short_name, type, level, search_key) VALUES ('{SITE}', {row})"
                ))
                .await?;
        }
        let folder = tempfile::tempdir()?;
        let app = App { data_dir: folder.path().to_owned(), ..gate.office.app.clone() };
        let ca = DeviceCa::open(&app.data_dir, app.clock.now())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let cable = Cable::to(listener.local_addr()?).await?;
        let carrying = Arc::new(Mutex::new(gate.gateway.clone()));
        let carrier: agents::Carrier = {
            let carrying = carrying.clone();
            Arc::new(move |a: agents::Arrival| {
                let gateway = carrying.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let caller = Caller { endpoint: a.endpoint, certificate: a.certificate, peer: a.peer };
                tokio::spawn(async move { gateway.tunnel(caller, a.line).await });
            })
        };
        let stop = CancellationToken::new();
        tokio::spawn(agents::serve(app.clone(), listener, Some(carrier), stop.clone()));
        Ok(Self { gate, cable, app, ca, carrying, stop, _folder: folder })
    }

    /// From now on another gateway takes the tunnels.
    pub fn carry_by(&self, gateway: Gateway) {
        *self.carrying.lock().unwrap_or_else(PoisonError::into_inner) = gateway;
    }

    /// Enrols an endpoint.
    ///
    /// # Errors
    /// The refusal.
    pub async fn device(&self) -> Result<Identity> {
        let ctx = Ctx::local_admin(self.app.clock.now());
        let asked = endpoints::TokenRequest {
            site_code: SITE.into(),
            count: 1,
            ttl_hours: 1,
            ..endpoints::TokenRequest::default()
        };
        let (token, _) = endpoints::create_token(&self.app, &ctx, &asked).await?;
        let request = Request::new()?;
        let hello = Hello {
            versions: version::OURS,
            agent_version: "1".into(),
            at_ms: self.app.clock.now().micros() / 1000,
            hostname: "mot-cua".into(),
            os: String::new(),
            kernel: String::new(),
            arch: String::new(),
            boot_id: String::new(),
            connects: 0,
            instance: None,
            key: None,
        };
        let asked = EnrolRequest { token, csr_pem: request.csr_pem.clone(), hello, hardware: None };
        let answer = enrolments::enrol(&self.app, &ctx, &self.ca, &asked).await?;
        Ok(Identity {
            controller: format!("https://{}", self.cable.address),
            endpoint_id: answer.endpoint_id,
            key_pem: request.key_pem(),
            issued: answer.issued,
            connects: 0,
            copy: None,
        })
    }

    /// The same endpoint with a certificate of this or of another authority, issued at some time.
    ///
    /// # Errors
    /// The authority's.
    pub fn reissued(&self, device: &Identity, by: Option<&DeviceCa>, at: Time) -> Result<Identity> {
        let request = Request::new()?;
        let issued = by.unwrap_or(&self.ca).sign(&request.csr_pem, device.endpoint_id, at)?;
        // What it trusts stays as it was.
        let issued = Issued { ca_pem: device.issued.ca_pem.clone(), ..issued };
        Ok(Identity { key_pem: request.key_pem(), issued, ..device.clone() })
    }

    /// What a device's tickets are bound to.
    ///
    /// # Errors
    /// If its certificate is damaged.
    pub fn binding(device: &Identity) -> Result<Binding> {
        let der = CertificateDer::from_pem_slice(device.issued.certificate_pem.as_bytes())?;
        Ok(Binding::Endpoint { id: device.endpoint_id, certificate: Sha256::digest(&der).into() })
    }

    /// A ticket of the n-th officer for this device.
    ///
    /// # Errors
    /// The broker's.
    pub async fn ticket(&self, n: usize, device: &Identity) -> Result<String> {
        let office = &self.gate.office;
        let (_, ticket) = broker::connect(&office.app, &office.officer(n), &Self::binding(device)?).await?;
        Ok(ticket.context("the desktop runs")?.secret.reveal().to_owned())
    }

    /// The way to the gateways for this device.
    ///
    /// # Errors
    /// If its identity is damaged.
    pub fn door(&self, device: &Identity) -> Result<Door> {
        let to: Address = device.controller.parse()?;
        Ok(Door::new(vec![to], device)?)
    }

    /// The n-th officer's session at a new endpoint.
    ///
    /// # Errors
    /// The refusal.
    pub async fn session(&self, n: usize) -> Result<(Identity, Session)> {
        let device = self.device().await?;
        let ticket = self.ticket(n, &device).await?;
        let session = Session::open(self.door(&device)?, &ticket).await?;
        Ok((device, session))
    }
}

/// A connection by hand, for what no honest agent does.
pub type RawLine = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// Connects and upgrades; the status of the answer if it is another than 101.
///
/// # Errors
/// The connection's.
pub async fn dial(device: &Identity) -> Result<std::result::Result<RawLine, u16>> {
    let to: Address = device.controller.parse()?;
    let tcp = tokio::net::TcpStream::connect((to.host.as_str(), to.port)).await?;
    let mut line = tls::over(tcp, tls::tunnel(device)?).await?;
    let head =
        format!("GET {TUNNEL_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {TUNNEL_UPGRADE}\r\n\r\n");
    line.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(line.read_u8().await?);
    }
    let code: u16 = std::str::from_utf8(&answer[9..12])?.parse()?;
    Ok(if code == 101 { Ok(line) } else { Err(code) })
}

/// Connects and says first words; the line and the answer.
///
/// # Errors
/// The connection's.
pub async fn say(device: &Identity, words: &ToGateway) -> Result<(RawLine, ToAgent)> {
    let mut line = dial(device).await?.map_err(|code| anyhow::anyhow!("HTTP {code}"))?;
    write_words(&mut line, words.encode()?.as_bytes()).await?;
    match ToAgent::decode(&read_words(&mut line).await?)? {
        Incoming::Message(answer) => Ok((line, answer)),
        Incoming::Unknown { kind } => anyhow::bail!("{kind}"),
    }
}

/// A session by hand: the tunnel, what the gateway said, and the task that drives it.
///
/// # Errors
/// The refusal.
pub async fn open(device: &Identity, ticket: &str) -> Result<(Tunnel, Opened, JoinHandle<LineEnd>)> {
    let (line, _) = say(device, &ToGateway::Hello(session::Hello { versions: version::OURS })).await?;
    let tunnel = Tunnel::new(Role::Agent, Limits::default());
    let drive = drive(&tunnel, line, 0);
    tunnel.send(ToGateway::Open(session::Open { ticket: ticket.to_owned() }).encode()?.as_bytes())?;
    match ToAgent::decode(&tunnel.message().await.context("closed")?)? {
        Incoming::Message(ToAgent::Opened(opened)) => Ok((tunnel, opened, drive)),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Drives a tunnel over a line.
pub fn drive(tunnel: &Tunnel, line: RawLine, last: u64) -> JoinHandle<LineEnd> {
    let tunnel = tunnel.clone();
    tokio::spawn(async move { tunnel.drive(line, last).await })
}

/// The desktop's display of a session.
///
/// # Errors
/// If it can't be opened.
pub fn vnc(session: &Session) -> Result<Stream> {
    Ok(session.stream(Protocol::Vnc, Class::Input, Class::Display)?)
}

/// The session's status once it is so.
///
/// # Errors
/// If it never is, with what it is.
pub async fn until(status: &mut watch::Receiver<Status>, what: &str, so: impl Fn(&Status) -> bool) -> Result<Status> {
    let found = timeout(PATIENCE, status.wait_for(|s| so(s))).await.map(|s| s.map(|s| s.clone()));
    match found {
        Ok(s) => Ok(s?),
        Err(_) => bail!("{what}: {:?}", status.borrow().clone()),
    }
}

/// RFB's handshake as a viewer; the size of the desktop.
///
/// # Errors
/// What went wrong.
pub async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(s: &mut S) -> Result<(u16, u16)> {
    let mut version = [0; 12];
    s.read_exact(&mut version).await?;
    ensure!(&version == b"RFB 003.008\n", "RFB 3.8");
    s.write_all(&version).await?;
    let mut offered = [0; 2];
    s.read_exact(&mut offered).await?;
    ensure!(offered == [1, 1], "security None only");
    s.write_all(&[1]).await?;
    ensure!(s.read_u32().await? == 0, "security result");
    // Asks not to share, which must not matter.
    s.write_all(&[0]).await?;
    let mut init = [0; 24];
    s.read_exact(&mut init).await?;
    let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]);
    s.read_exact(&mut vec![0; name as usize]).await?;
    Ok((u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]])))
}

/// Asks for the whole picture.
///
/// # Errors
/// The stream's.
pub async fn ask<S: AsyncWrite + Unpin>(s: &mut S, (w, h): (u16, u16)) -> Result<()> {
    let mut ask = vec![3, 0, 0, 0, 0, 0];
    ask.extend_from_slice(&w.to_be_bytes());
    ask.extend_from_slice(&h.to_be_bytes());
    Ok(s.write_all(&ask).await?)
}

/// Reads an update of one raw rectangle.
///
/// # Errors
/// What went wrong.
pub async fn rectangle<S: AsyncRead + Unpin>(s: &mut S) -> Result<Vec<u8>> {
    let mut head = [0; 16];
    s.read_exact(&mut head).await?;
    ensure!(head[..4] == [0, 0, 0, 1] && head[12..16] == [0; 4], "one raw rectangle, not {head:?}");
    let at = |i: usize| usize::from(u16::from_be_bytes([head[i], head[i + 1]]));
    let mut pixels = vec![0; at(8) * at(10) * 4];
    s.read_exact(&mut pixels).await?;
    Ok(pixels)
}
