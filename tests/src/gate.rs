//! A gateway on a real TCP port before a simulated host, and viewers that knock at it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::serve::ListenerExt;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tram_controller::clock::Clock;
use tram_controller::domain::session::Policy;
use tram_controller::fleet::Fleet;
use tram_controller::gateway::Gateway;
use tram_controller::services::{App, broker};
use tram_controller::store::Store;
use tram_hypervisor::sim::Sim;
use tram_hypervisor::{AccelPolicy, DesktopSpec, GuestProfile, Hypervisor, OpenOptions, Owner};
use tram_wire::ids::SessionId;

use crate::office::{Office, Plan};

/// All of it.
pub struct Gate {
    /// Desktops and people.
    pub office: Office,
    /// The gateway itself.
    pub gateway: Gateway,
    /// The host behind it.
    pub sim: Arc<Sim>,
    /// Where it listens.
    pub address: SocketAddr,
    tasks: Vec<AbortHandle>,
    _folder: tempfile::TempDir,
    /// The browser's cookie that goes with each ticket.
    cookies: Mutex<HashMap<String, String>>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Gate {
    /// Opens one. `display` is what the desktops' displays do: `picture`, `flood` or `sink`.
    ///
    /// # Errors
    /// Those of its parts.
    pub async fn open(store: &Store, plan: Plan, display: &str, policy: Policy) -> Result<Self> {
        let mut office = Office::build(store, Clock::system(), plan).await?;
        office.app.policy = policy.clone();
        let folder = tempfile::tempdir()?;
        office.app.data_dir = folder.path().to_owned();
        let owner = Owner {
            installation: office.app.installation,
            image_dir: "/nonexistent".into(),
            disk_dir: "/nonexistent".into(),
        };
        let options = OpenOptions { owner, accel: AccelPolicy::Auto, deadline: Duration::from_secs(5), tls: None };
        let sim = Arc::new(Sim::open(&format!("sim:///one?display={display}&memory_mib=9000000"), options)?);
        for (n, id) in office.desktops.iter().enumerate() {
            let spec = DesktopSpec {
                id: *id,
                name: format!("commune-{:02}", n + 1),
                image_file: "tram-test-1.qcow2".into(),
                vcpus: 1,
                memory_mib: 512,
                disk_gib: None,
                generation: 1,
                guest: GuestProfile::default(),
            };
            sim.ensure_disk(&spec).await?;
            sim.ensure_defined(&spec).await?;
            sim.ensure_running(*id).await?;
        }
        let fleet = Fleet::default();
        fleet.put(office.host, sim.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        office.app.public_url = format!("http://{address}");
        let gateway = Gateway::new(office.app.clone(), fleet, policy);
        let tasks = serve(listener, &gateway).into();
        Ok(Self { office, gateway, sim, address, tasks, _folder: folder, cookies: Mutex::default() })
    }

    /// A second gateway before the same host, which goes to the database by a store of its own; where it listens.
    ///
    /// # Errors
    /// If nothing can listen.
    pub async fn beside(&mut self, store: &Store) -> Result<SocketAddr> {
        let fleet = Fleet::default();
        fleet.put(self.office.host, self.sim.clone());
        let app = App { store: store.clone(), ..self.office.app.clone() };
        let policy = app.policy.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        self.tasks.extend(serve(listener, &Gateway::new(app, fleet, policy)));
        Ok(address)
    }

    /// The gateway is gone at once, as by `kill -9`: nothing of it does anything any more.
    pub fn vanish(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }

    /// A ticket of the n-th officer's session, which is opened if need be.
    ///
    /// # Errors
    /// The broker's.
    pub async fn ticket(&self, n: usize) -> Result<(SessionId, String)> {
        let (view, ticket) = broker::connect(&self.office.app, &self.office.officer(n), &Office::browser(n)).await?;
        let ticket = ticket.context("the desktop runs")?;
        let text = ticket.secret.reveal().to_owned();
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone(), Office::cookie(n));
        Ok((view.session.id, text))
    }

    /// The n-th officer takes their session over in a browser, and sees the desktop there.
    ///
    /// # Errors
    /// The refusal, or what went wrong.
    pub async fn take_over(&self, n: usize) -> Result<Viewer> {
        let app = &self.office.app;
        let (_, ticket) = broker::take_over(app, &self.office.officer(n), &Office::browser(n)).await?;
        let ticket = ticket.context("the desktop runs")?.secret.reveal().to_owned();
        let (cookie, origin) = (format!("tram_session={}", Office::cookie(n)), format!("http://{}", self.address));
        let mut viewer = self.knock_at("vnc", &ticket, &cookie, &origin).await?;
        viewer.shake_hands().await?;
        Ok(viewer)
    }

    /// Knocks with a ticket, from the right page.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock(&self, ticket: &str) -> Result<Viewer, WsError> {
        self.knock_from(ticket, &format!("http://{}", self.address)).await
    }

    /// Knocks from any page.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock_from(&self, ticket: &str, origin: &str) -> Result<Viewer, WsError> {
        self.knock_at("vnc", ticket, &self.cookie(ticket), origin).await
    }

    /// Knocks at any door with any cookie.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock_at(&self, door: &str, ticket: &str, cookie: &str, origin: &str) -> Result<Viewer, WsError> {
        Self::knock_there(self.address, door, ticket, cookie, origin).await
    }

    /// The same at another gateway.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock_there(
        address: SocketAddr,
        door: &str,
        ticket: &str,
        cookie: &str,
        origin: &str,
    ) -> Result<Viewer, WsError> {
        let mut request = format!("ws://{address}/gateway/v1/{door}").into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("origin", origin.parse().map_err(|_| WsError::AttackAttempt)?);
        headers
            .insert("sec-websocket-protocol", format!("binary, {ticket}").parse().map_err(|_| WsError::AttackAttempt)?);
        headers.insert("cookie", cookie.parse().map_err(|_| WsError::AttackAttempt)?);
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (stream, response) = tokio_tungstenite::client_async(request, socket).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "binary", "the ticket is not echoed");
        Ok(Viewer::new(stream))
    }

    /// Knocks, shakes hands and gets the first picture.
    ///
    /// # Errors
    /// The refusal, or what went wrong.
    pub async fn view(&self, n: usize) -> Result<(SessionId, Viewer)> {
        let (id, ticket) = self.ticket(n).await?;
        let mut viewer = self.knock(&ticket).await?;
        viewer.shake_hands().await?;
        Ok((id, viewer))
    }

    /// The same over a bare TCP connection, for what no library would send: stands behind the RFB handshake.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn raw(&self, n: usize) -> Result<TcpStream> {
        let (_, ticket) = self.ticket(n).await?;
        let mut socket = self.raw_upgrade(&ticket).await?;
        expect(&mut socket, b"\x82\x0cRFB 003.008\n").await?;
        socket.write_all(&masked(0x82, b"RFB 003.008\n")).await?;
        expect(&mut socket, b"\x82\x02\x01\x01").await?;
        socket.write_all(&masked(0x82, &[1])).await?;
        expect(&mut socket, b"\x82\x04\0\0\0\0").await?;
        socket.write_all(&masked(0x82, &[0])).await?;
        Ok(socket)
    }

    /// The cookie header that goes with a ticket.
    #[must_use]
    pub fn cookie(&self, ticket: &str) -> String {
        let known = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        format!("tram_session={}", known.get(ticket).map_or("", String::as_str))
    }

    /// A bare TCP connection right after the upgrade.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn raw_upgrade(&self, ticket: &str) -> Result<TcpStream> {
        let (socket, answer) = self.raw_knock(self.address, ticket, "").await?;
        ensure!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        Ok(socket)
    }

    /// A bare request for an upgrade at any gateway, with more headers; the connection and the head of the answer.
    ///
    /// # Errors
    /// The connection's.
    pub async fn raw_knock(&self, at: SocketAddr, ticket: &str, more: &str) -> Result<(TcpStream, String)> {
        let mut socket = TcpStream::connect(at).await?;
        socket.set_nodelay(true)?;
        let head = format!(
            "GET /gateway/v1/vnc HTTP/1.1\r\nHost: {at}\r\nOrigin: http://{at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: binary, {ticket}\r\nCookie: {}\r\n{more}\r\n",
            self.cookie(ticket)
        );
        socket.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(socket.read_u8().await?);
            ensure!(answer.len() < 4096, "an endless head");
        }
        Ok((socket, String::from_utf8(answer)?))
    }
}

/// Serves a gateway and lets it watch.
fn serve(listener: TcpListener, gateway: &Gateway) -> [AbortHandle; 2] {
    let service: IntoMakeServiceWithConnectInfo<_, SocketAddr> = gateway.router().into_make_service_with_connect_info();
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    let serve = tokio::spawn(async move { axum::serve(listener, service).await });
    let watch = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.watch().await }
    });
    [serve.abort_handle(), watch.abort_handle()]
}

/// A frame as a viewer sends it.
#[must_use]
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x5a, 0x01, 0xfe, 0x33];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
    out
}

async fn expect(socket: &mut TcpStream, wanted: &[u8]) -> Result<()> {
    let mut got = vec![0; wanted.len()];
    socket.read_exact(&mut got).await?;
    ensure!(got == wanted, "got {got:?}, not {wanted:?}");
    Ok(())
}

/// Reads frames until a close frame; its code.
///
/// # Errors
/// If the connection ends without one.
pub async fn close_code(socket: &mut TcpStream) -> Result<u16> {
    loop {
        let (first, second) = (socket.read_u8().await?, socket.read_u8().await?);
        ensure!(second & 0x80 == 0, "servers do not mask");
        let length = match second {
            126 => socket.read_u16().await?.into(),
            127 => socket.read_u64().await?,
            n => n.into(),
        };
        let mut payload = vec![0; usize::try_from(length)?];
        socket.read_exact(&mut payload).await?;
        if first == 0x88 {
            return Ok(u16::from_be_bytes([payload[0], payload[1]]));
        }
    }
}

/// A viewer that speaks RFB.
pub struct Viewer<S = TcpStream> {
    /// The WebSocket.
    pub stream: WebSocketStream<S>,
    have: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Viewer<S> {
    /// Behind an upgrade that was answered.
    #[must_use]
    pub fn new(stream: WebSocketStream<S>) -> Self {
        Self { stream, have: Vec::new() }
    }

    /// Sends payload.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.send(Message::binary(bytes.to_vec())).await?)
    }

    /// Exactly so much of what the desktop sends.
    ///
    /// # Errors
    /// If it ends before; the close code is in the text.
    pub async fn read(&mut self, n: usize) -> Result<Vec<u8>> {
        while self.have.len() < n {
            match self.stream.next().await.context("the connection ended")?? {
                Message::Binary(b) => self.have.extend_from_slice(&b),
                Message::Close(c) => bail!("closed: {}", c.map_or(0, |c| c.code.into())),
                _ => {}
            }
        }
        Ok(self.have.drain(..n).collect())
    }

    /// Reads until the gateway closes; the code.
    ///
    /// # Errors
    /// If the connection ends without a code.
    pub async fn closed(&mut self) -> Result<u16> {
        loop {
            match self.stream.next().await.context("no close frame")?? {
                Message::Close(c) => return Ok(c.map_or(0, |c| c.code.into())),
                _ => self.have.clear(),
            }
        }
    }

    /// RFB's handshake; the size of the desktop. Asks not to share, which must not matter.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn shake_hands(&mut self) -> Result<(u16, u16)> {
        ensure!(self.read(12).await? == b"RFB 003.008\n", "RFB 3.8");
        self.send(b"RFB 003.008\n").await?;
        ensure!(self.read(2).await? == [1, 1], "security None only");
        self.send(&[1]).await?;
        ensure!(self.read(4).await? == [0; 4], "security result");
        self.send(&[0]).await?;
        let init = self.read(24).await?;
        let name = u32::from_be_bytes([init[20], init[21], init[22], init[23]]);
        self.read(name as usize).await?;
        Ok((u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]])))
    }

    /// Asks for the whole picture and reads it (raw, 4 bytes a pixel).
    ///
    /// # Errors
    /// What went wrong.
    pub async fn picture(&mut self, w: u16, h: u16) -> Result<Vec<u8>> {
        let mut ask = vec![3, 0, 0, 0, 0, 0];
        ask.extend_from_slice(&w.to_be_bytes());
        ask.extend_from_slice(&h.to_be_bytes());
        self.send(&ask).await?;
        self.rectangle().await
    }

    /// Reads an update of one raw rectangle.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn rectangle(&mut self) -> Result<Vec<u8>> {
        let head = self.read(16).await?;
        ensure!(head[..4] == [0, 0, 0, 1] && head[12..16] == [0; 4], "one raw rectangle, not {head:?}");
        let at = |i: usize| usize::from(u16::from_be_bytes([head[i], head[i + 1]]));
        self.read(at(8) * at(10) * 4).await
    }
}
