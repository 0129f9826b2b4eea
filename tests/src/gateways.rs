//! A controller, its gateways as processes of their own, a hypervisor host with a node, and browsers that go where
//! they are sent.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tram_agent::identity::Identity;
use tram_agent::session::control::Control;
use tram_agent::session::gateways as known;
use tram_agent::session::tunnel::{Door, Session};
use tram_wire::desk::SignIn;

use crate::device::{Console, Device};
use crate::gate::Viewer;
use crate::node::Node;
use crate::world::{PATIENCE, World, free_address, program};

/// A gateway's process.
pub struct Gateway {
    /// Its name.
    pub name: &'static str,
    /// Where browsers reach it.
    pub web: SocketAddr,
    /// Where endpoints reach it.
    pub agents: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Gateway {
    /// Starts one; the controller may still know nothing of it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(world: &World, name: &'static str) -> Result<Self> {
        let (web, agents) = (free_address()?, free_address()?);
        let mut one = Self { name, web, agents, log: world.path().join(format!("{name}.log")), child: None };
        one.again(world)?;
        Ok(one)
    }

    /// Starts one of the files that were issued for it, with nothing else of the world: no environment, no folder.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn of_files(folder: &Path, name: &'static str, web: SocketAddr, agents: SocketAddr) -> Result<Self> {
        let log = folder.join("gateway.log");
        let mut command = Command::new(program("tram-controller")?);
        command.env_clear().arg("--config").arg(folder.join("controller.toml"));
        command.arg("--data").arg(folder.join("data")).arg("gateway").stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?;
        Ok(Self { name, web, agents, log, child: Some(child) })
    }

    /// Starts it again at the same place.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn again(&mut self, world: &World) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = world.command()?;
        command.arg("gateway").env("TRAM_GATEWAY_NAME", self.name);
        command.env("TRAM_GATEWAY_LISTEN", self.web.to_string());
        command.env("TRAM_GATEWAY_AGENT_LISTEN", self.agents.to_string());
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no gateway")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// If it does not.
    pub fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no gateway")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let until = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            ensure!(Instant::now() < until, "{} did not stop", self.name);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill9();
        }
    }
}

/// All of it.
pub struct Stage {
    /// The controller.
    pub world: World,
    /// The hypervisor host.
    pub node: Node,
    /// The gateways.
    pub gateways: Vec<Gateway>,
}

/// A browser's view of a desktop.
pub type Browser = Viewer<TlsStream<TcpStream>>;

impl Stage {
    /// A controller with so many desktops that run, and these gateways.
    ///
    /// # Errors
    /// Those of its parts.
    pub fn build(database: Option<String>, desktops: usize, names: &[&'static str]) -> Result<Self> {
        Self::build_on(database, desktops, names, "")
    }

    /// The same with more parameters for the simulated host.
    ///
    /// # Errors
    /// Those of its parts.
    pub fn build_on(database: Option<String>, desktops: usize, names: &[&'static str], host: &str) -> Result<Self> {
        let mut world = World::on(database)?;
        world.small_image()?;
        let mut node = Node::issue_with(&world, "may-1", host)?;
        node.start()?;
        world.host(node.name, &node.uri())?;
        world.start()?;
        let size = desktops.to_string();
        let pool = ["--name", "p", "--site", "00004", "--image", "small", "--size", &size, "--memory-mib", "128"];
        world.cli(&[&["admin", "pool", "create"][..], &pool].concat())?;
        world.settled(desktops, "running")?;
        let mut stage = Self { world, node, gateways: Vec::new() };
        for name in names {
            let gateway = Gateway::start(&stage.world, name)?;
            stage.gateways.push(gateway);
        }
        for name in names {
            stage.until_gateway(name, "live")?;
        }
        Ok(stage)
    }

    /// A gateway's row.
    ///
    /// # Errors
    /// If there is none.
    pub fn gateway(&self, name: &str) -> Result<Value> {
        let rows = self.world.json(&["admin", "gateway", "list", "--json"])?;
        let row = rows.as_array().into_iter().flatten().find(|g| g["name"] == name);
        row.cloned().with_context(|| format!("no gateway {name}: {rows}"))
    }

    /// Waits until a gateway is in this state.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn until_gateway(&self, name: &str, state: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let row = self.gateway(name);
            if row.as_ref().is_ok_and(|g| g["state"] == state) {
                return Ok(());
            }
            if Instant::now() > until {
                let logs: Vec<String> = self.gateways.iter().map(Gateway::log).collect();
                bail!("{name} is not {state}: {row:?}\n{}\n{}", logs.join("\n"), self.world.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A session's row, by the officer's own console.
    ///
    /// # Errors
    /// If it is not told.
    pub fn session(console: &Console, id: &str) -> Result<Value> {
        let (status, row) = console.get(&format!("/api/v1/sessions/{id}"))?;
        ensure!(status == 200, "{status} {row}");
        Ok(row)
    }

    /// Waits until an officer's session is so.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn until_session(console: &Console, id: &str, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let row = Self::session(console, id);
            match row {
                Ok(row) if so(&row) => return Ok(row),
                row if Instant::now() > until => bail!("{what}: {row:?}"),
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Asks for the officer's desktop: the session and the ticket.
    ///
    /// # Errors
    /// If none is given in time.
    pub fn connect(console: &Console) -> Result<(String, Value)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = console.post("/api/v1/connect", &json!({}))?;
            if status == 200 && answer["ticket"].is_object() {
                return Ok((answer["session"]["id"].as_str().unwrap_or_default().to_owned(), answer["ticket"].clone()));
            }
            ensure!(Instant::now() < until, "{status} {answer}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Knocks with a ticket where the controller said, from the console's page.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock(&self, console: &Console, ticket: &Value) -> Result<Browser, WsError> {
        let url = ticket["url"].as_str().unwrap_or_default();
        let mut request = url.into_client_request()?;
        let offered = format!("binary, {}", ticket["ticket"].as_str().unwrap_or_default());
        let cookie = console.cookie().map_err(|_| WsError::AttackAttempt)?;
        let headers = request.headers_mut();
        headers.insert("origin", console.origin().parse().map_err(|_| WsError::AttackAttempt)?);
        headers.insert("sec-websocket-protocol", offered.parse().map_err(|_| WsError::AttackAttempt)?);
        headers.insert("cookie", cookie.parse().map_err(|_| WsError::AttackAttempt)?);
        let place = url.trim_start_matches("wss://").split('/').next().unwrap_or_default().to_owned();
        let tcp = TcpStream::connect(&place).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").map_err(|_| WsError::AttackAttempt)?;
        let tls = self.trusts().map_err(|_| WsError::AttackAttempt)?.connect(name, tcp).await?;
        let (stream, _) = tokio_tungstenite::client_async(request, tls).await?;
        Ok(Viewer::new(stream))
    }

    /// A browser that shows the officer's desktop: the session, where it was sent, and its view after the handshake.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn view(&self, console: &Console) -> Result<(String, String, Browser)> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (id, ticket) = Self::connect(console)?;
            match self.knock(console, &ticket).await {
                Ok(mut viewer) => {
                    viewer.shake_hands().await?;
                    return Ok((id, ticket["url"].as_str().unwrap_or_default().to_owned(), viewer));
                }
                // On SQLite a gateway learns within seconds that it may take connections again; pages ask anew, too.
                Err(WsError::Http(answer)) if answer.status() == 503 && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The endpoint's own way to a desktop, through the agent's code: identity, sign-in, ticket, tunnel.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn endpoint(&self, device: &Device, name: &str, password: &str) -> Result<Session> {
        let identity = Identity::load(&device.state())?;
        let control = Control::new(&identity)?;
        let who = SignIn { username: name.into(), password: password.into() };
        let me = control.sign_in(&who).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let connected = control.connect(&me.token, false).await?;
            if let Some(ticket) = connected.ticket {
                ensure!(!connected.gateways.is_empty(), "the controller named no gateway");
                known::keep(&device.state(), &connected.gateways);
                let gateways = known::all(known::known(&device.state()), &[], identity.controller.parse()?);
                ensure!(gateways.len() == self.gateways.len() + 1, "{gateways:?}");
                return Ok(Session::open(Door::new(gateways, &identity)?, &ticket.ticket).await?);
            }
            ensure!(Instant::now() < until, "{connected:?}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    fn trusts(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.world.path().join("tls/ca.pem"))?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Types a key and reads the whole picture: any byte that is lost or doubled shifts all that follows.
///
/// # Errors
/// If the desktop does not answer in time.
pub async fn works(viewer: &mut Browser, key: u8) -> Result<Vec<u8>> {
    viewer.send(&[4, 1, 0, 0, 0, 0, 0, key]).await?;
    tokio::time::timeout(PATIENCE, viewer.picture(640, 400)).await.context("no picture")?
}

/// Asks for the whole picture, in as many raw rectangles as the display likes; how many pixels came.
///
/// # Errors
/// If anything else comes, or nothing in time.
pub async fn frame(viewer: &mut Browser, (w, h): (u16, u16)) -> Result<usize> {
    let mut ask = vec![3, 0, 0, 0, 0, 0];
    ask.extend_from_slice(&w.to_be_bytes());
    ask.extend_from_slice(&h.to_be_bytes());
    viewer.send(&ask).await?;
    let read = async {
        let head = viewer.read(4).await?;
        ensure!(head[..2] == [0, 0], "an update, not {head:?}");
        let mut pixels = 0;
        for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
            let rect = viewer.read(12).await?;
            ensure!(rect[8..] == [0; 4], "raw, not {rect:?}");
            let at = |i: usize| usize::from(u16::from_be_bytes([rect[i], rect[i + 1]]));
            pixels += at(4) * at(6);
            viewer.read(at(4) * at(6) * 4).await?;
        }
        Ok(pixels)
    };
    tokio::time::timeout(PATIENCE, read).await.context("no picture")?
}
