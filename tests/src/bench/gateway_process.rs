//! Tram's gateway in a process of its own, so that its memory and its processor time are its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use axum::serve::{Listener, ListenerExt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tram_controller::clock::Clock;
use tram_controller::domain::session::Policy;
use tram_controller::fleet::Fleet;
use tram_controller::gateway::Gateway;
use tram_controller::nudge::Bus;
use tram_controller::store::Store;
use tram_hypervisor::{
    DesktopId, DesktopSpec, DesktopStats, Error, Found, HostEvent, HostInfo, Hypervisor, Observed, Stop,
};

use crate::office::{Office, Plan};

/// The running process and what a bench needs of it. Ends with it.
pub struct Process {
    /// Where it listens.
    pub address: String,
    /// Desktops and people in its database, which this process uses too.
    pub office: Office,
    /// Its certificate, if it speaks TLS.
    pub certificate: Option<CertificateDer<'static>>,
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// Starts one in a folder, before displays at a UNIX socket.
    ///
    /// # Errors
    /// Those of its parts.
    pub async fn start(folder: &Path, display: &Path, people: usize, tls: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gateway-").tempdir_in(folder)?.keep();
        let url = format!("sqlite://{}", folder.join("tram.db").display());
        let store = Store::open(&url, Bus::default()).await?;
        store.migrate().await?;
        let plan = Plan { desktops: people, officers: people, ..Plan::default() };
        let office = Office::build(&store, Clock::system(), plan).await?;
        let mut certificate = None;
        if tls {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
            std::fs::write(folder.join("key.der"), made.signing_key.serialize_der())?;
            std::fs::write(folder.join("cert.der"), made.cert.der())?;
            certificate = Some(made.cert.der().clone());
        }
        let mut child = Command::new(std::env::current_exe()?)
            .args(["gateway", "--host", &office.host.to_string(), "--folder"])
            .arg(&folder)
            .arg("--display")
            .arg(display)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        Ok(Self { address: line.trim().to_owned(), office, certificate, child })
    }

    /// Memory it holds, KiB.
    ///
    /// # Errors
    /// If it has ended.
    pub fn memory_kib(&self) -> Result<u64> {
        memory_kib(self.child.id())
    }
}

/// Proportional memory of a process, KiB.
///
/// # Errors
/// If it has ended.
pub fn memory_kib(pid: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|l| l.starts_with("Pss:")).context("no Pss")?;
    line.split_whitespace().nth(1).context("no number")?.parse().context("no number")
}

/// The process itself: serves until killed.
///
/// # Errors
/// Those of its parts.
pub async fn serve(folder: PathBuf, host: uuid::Uuid, display: PathBuf) -> Result<()> {
    let store = Store::open(&format!("sqlite://{}", folder.join("tram.db").display()), Bus::default()).await?;
    let mut app = Office::app(&store, Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let tls = std::fs::read(folder.join("cert.der")).ok().zip(std::fs::read(folder.join("key.der")).ok());
    app.public_url = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
    let fleet = Fleet::default();
    let (events, _) = broadcast::channel(16);
    fleet.put(host.into(), Arc::new(Displays { path: display, events }));
    let gateway = Gateway::new(app, fleet, Policy::default());
    let router = gateway.router();
    tokio::spawn(async move { gateway.watch().await });
    println!("{address}");
    match tls {
        None => {
            let listener = listener.tap_io(|s| {
                let _ = s.set_nodelay(true);
            });
            axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await?;
        }
        Some((certificate, key)) => {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let key = PrivateKeyDer::try_from(key).map_err(|e| anyhow::anyhow!(e))?;
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(vec![CertificateDer::from(certificate)], key)?;
            let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
            axum::serve(listener, router).await?;
        }
    }
    Ok(())
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((socket, peer)) = self.listener.accept().await
                && socket.set_nodelay(true).is_ok()
                && let Ok(stream) = self.acceptor.accept(socket).await
            {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A host that has displays and nothing else.
struct Displays {
    path: PathBuf,
    events: broadcast::Sender<HostEvent>,
}

fn nothing<T>() -> tram_hypervisor::Result<T> {
    Err(Error::Unsupported("this host has displays only".into()))
}

#[async_trait]
impl Hypervisor for Displays {
    async fn host_info(&self) -> tram_hypervisor::Result<HostInfo> {
        nothing()
    }
    async fn ensure_disk(&self, _: &DesktopSpec) -> tram_hypervisor::Result<()> {
        nothing()
    }
    async fn ensure_defined(&self, _: &DesktopSpec) -> tram_hypervisor::Result<()> {
        nothing()
    }
    async fn ensure_running(&self, _: DesktopId) -> tram_hypervisor::Result<()> {
        nothing()
    }
    async fn ensure_stopped(&self, _: DesktopId, _: Stop) -> tram_hypervisor::Result<()> {
        nothing()
    }
    async fn reset(&self, _: DesktopId) -> tram_hypervisor::Result<()> {
        nothing()
    }
    async fn ensure_absent(&self, _: DesktopId) -> tram_hypervisor::Result<()> {
        nothing()
    }
    async fn observe(&self, _: DesktopId) -> tram_hypervisor::Result<Observed> {
        nothing()
    }
    async fn inventory(&self) -> tram_hypervisor::Result<Vec<Found>> {
        nothing()
    }
    async fn open_display(&self, _: DesktopId, _: tram_hypervisor::Display) -> tram_hypervisor::Result<OwnedFd> {
        UnixStream::connect(&self.path).map(Into::into).map_err(|e| Error::Unreachable(e.to_string()))
    }
    async fn screenshot(&self, _: DesktopId) -> tram_hypervisor::Result<Vec<u8>> {
        nothing()
    }
    async fn signed_in(&self, _: DesktopId) -> tram_hypervisor::Result<Option<bool>> {
        nothing()
    }
    async fn stats(&self) -> tram_hypervisor::Result<Vec<DesktopStats>> {
        nothing()
    }
    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.events.subscribe()
    }
}
