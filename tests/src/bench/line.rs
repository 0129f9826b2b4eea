//! What the tunnel's measurements share: TLS between two ends, and tunnels and plain relays over it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tram_tunnel::{Limits, Role, Tunnel};
use tram_wire::tunnel::Class;

const BUFFER: usize = 64 * 1024;

/// TLS 1.3 with a certificate made now.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// Makes one.
    ///
    /// # Errors
    /// If the certificate can't be made.
    pub fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["gateway".into()])?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|e| anyhow::anyhow!(e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The gateway's end.
    ///
    /// # Errors
    /// The connection's.
    pub async fn accept(&self, tcp: TcpStream) -> Result<server::TlsStream<TcpStream>> {
        Ok(self.acceptor.accept(tcp).await?)
    }

    /// The agent's end.
    ///
    /// # Errors
    /// The connection's.
    pub async fn connect(&self, tcp: TcpStream) -> Result<client::TlsStream<TcpStream>> {
        Ok(self.connector.connect(ServerName::try_from("gateway")?, tcp).await?)
    }

    /// Both ends of a tunnel over both ends of a TCP connection, running.
    ///
    /// # Errors
    /// TLS's.
    pub async fn tunnel(&self, near: TcpStream, far: TcpStream) -> Result<(Tunnel, Tunnel)> {
        for socket in [&near, &far] {
            tram_tunnel::prepare(socket)?;
        }
        let (near, far) = tokio::try_join!(self.accept(near), self.connect(far))?;
        let gateway = Tunnel::new(Role::Gateway, Limits::default());
        let agent = Tunnel::new(Role::Agent, Limits::default());
        let (g, a) = (gateway.clone(), agent.clone());
        tokio::spawn(async move { g.drive(near, 0).await });
        tokio::spawn(async move { a.drive(far, 0).await });
        Ok((gateway, agent))
    }
}

/// How a relay of two hops goes between its hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hops {
    /// TLS, a connection for each.
    Plain,
    /// One tunnel for all.
    Tunnel,
}

/// A relay of two hops in this process, before a server at a UNIX socket: prints its address and serves until
/// killed.
///
/// # Errors
/// Those of its parts.
pub async fn serve(hops: Hops, backend: PathBuf) -> Result<()> {
    let tls = Tls::new()?;
    let inner = TcpListener::bind("127.0.0.1:0").await?;
    let to = inner.local_addr()?;
    let outer = TcpListener::bind("127.0.0.1:0").await?;
    let address = outer.local_addr()?;
    match hops {
        Hops::Plain => {
            tokio::spawn(plain_far(inner, tls.clone(), backend));
            println!("{address}");
            loop {
                let (mut client, _) = outer.accept().await?;
                let tls = tls.clone();
                tokio::spawn(async move {
                    client.set_nodelay(true)?;
                    let tcp = TcpStream::connect(to).await?;
                    tcp.set_nodelay(true)?;
                    let mut line = tls.connect(tcp).await?;
                    copy_bidirectional_with_sizes(&mut client, &mut line, BUFFER, BUFFER).await?;
                    anyhow::Ok(())
                });
            }
        }
        Hops::Tunnel => {
            let (far, near) = tokio::try_join!(TcpStream::connect(to), inner.accept())?;
            let (gateway, agent) = tls.tunnel(near.0, far).await?;
            tokio::spawn(async move {
                while let Some((stream, _)) = gateway.accept().await {
                    let backend = backend.clone();
                    tokio::spawn(async move {
                        let mut display = UnixStream::connect(&backend).await?;
                        stream.relay(&mut display).await?;
                        anyhow::Ok(())
                    });
                }
            });
            println!("{address}");
            loop {
                let (mut client, _) = outer.accept().await?;
                client.set_nodelay(true)?;
                let stream = agent.open(Class::Input, Class::Display, b"").context("a stream")?;
                tokio::spawn(async move { stream.relay(&mut client).await });
            }
        }
    }
}

async fn plain_far(inner: TcpListener, tls: Tls, backend: PathBuf) -> Result<()> {
    loop {
        let (tcp, _) = inner.accept().await?;
        let (tls, backend) = (tls.clone(), backend.clone());
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            let mut line = tls.accept(tcp).await?;
            let mut display = UnixStream::connect(&backend).await?;
            copy_bidirectional_with_sizes(&mut display, &mut line, BUFFER, BUFFER).await?;
            anyhow::Ok(())
        });
    }
}
