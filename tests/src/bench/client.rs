//! The viewer's side of a relay measurement: blocking, bare, the same before every relay.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::gate::masked;

/// A connection to a relay.
pub enum Stream {
    /// Bare.
    Tcp(TcpStream),
    /// Inside TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Tls(s) => s.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buffer),
            Self::Tls(s) => s.write(buffer),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

/// Upgrades to a WebSocket; the first RFB bytes have arrived when it returns.
///
/// # Errors
/// The refusal.
pub fn upgrade(address: &str, path: &str, protocols: &str, tls: Option<&CertificateDer<'static>>) -> Result<Stream> {
    upgrade_on(TcpStream::connect(address)?, address, path, protocols, tls)
}

/// Like [`upgrade`], on a connection that may have come another way.
///
/// # Errors
/// The refusal.
pub fn upgrade_on(
    socket: TcpStream,
    address: &str,
    path: &str,
    protocols: &str,
    tls: Option<&CertificateDer<'static>>,
) -> Result<Stream> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut s = match tls {
        None => Stream::Tcp(socket),
        Some(certificate) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone())?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
            Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
        }
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    write!(
        s,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nOrigin: {scheme}://{address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n"
    )?;
    s.flush()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        s.read_exact(&mut byte).context("the head of the answer")?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        bail!("{}", String::from_utf8_lossy(&head));
    }
    expect(&mut s, b"\x82\x0cRFB 003.008\n")?;
    Ok(s)
}

/// The rest of RFB's handshake, up to what the desktop sends by itself.
///
/// # Errors
/// What went wrong.
pub fn shake_hands(s: &mut Stream) -> Result<()> {
    s.write_all(&masked(0x82, b"RFB 003.008\n"))?;
    expect(s, b"\x82\x02\x01\x01")?;
    s.write_all(&masked(0x82, &[1]))?;
    expect(s, b"\x82\x04\0\0\0\0")?;
    s.write_all(&masked(0x82, &[1]))?;
    s.flush()?;
    Ok(())
}

/// Frames with valid RFB inside (clipboard texts), masked, to be sent over and over; and their payload's length.
#[must_use]
pub fn input() -> (Vec<u8>, u64) {
    let text = 65_536 - 8;
    let message = [&[6, 0, 0, 0][..], &(text as u32).to_be_bytes(), &vec![b'x'; text]].concat();
    let frame = masked(0x82, &message);
    (frame.repeat(4), 4 * 65_536)
}

fn expect(s: &mut Stream, wanted: &[u8]) -> Result<()> {
    let mut got = vec![0; wanted.len()];
    s.read_exact(&mut got)?;
    ensure!(got == wanted, "got {got:?}, not {wanted:?}");
    Ok(())
}
