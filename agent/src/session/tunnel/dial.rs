//! One connection to a gateway, up to the first words.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tram_tunnel::{Tunnel, read_words, write_words};
use tram_wire::session::{Denial, Hello, Resume, ToAgent, ToGateway};
use tram_wire::{Incoming, SERVER_NAME, TUNNEL_PATH, TUNNEL_UPGRADE, version};

use crate::config::Address;
use crate::identity::Identity;
use crate::link::{tls, way};

/// From the first packet to the first words: a thin line with losses needs several round trips.
const DIAL: Duration = Duration::from_secs(15);
/// Longest head of the gateway's answer.
const HEAD: usize = 4096;

pub(super) type Line = TlsStream<TcpStream>;

/// Why a gateway was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No connection, or TLS failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer in time")]
    Slow,
    /// Whoever answered is no gateway for this endpoint.
    #[error("the answer was HTTP {0}")]
    Http(u16),
    /// The gateway's words made no sense.
    #[error("the gateway's answer made no sense")]
    Words,
    /// The gateway refused.
    #[error("the gateway refused ({})", .0.code())]
    Refused(Denial),
}

impl DialError {
    /// Whether whoever answered carries nothing for us, so that another gateway is asked at once. A line that is
    /// down says something else, or nothing.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Io(e) => e.kind() == io::ErrorKind::ConnectionRefused,
            Self::Http(code) => matches!(code, 404 | 503),
            Self::Refused(d) => *d == Denial::Unavailable,
            Self::Slow | Self::Words => false,
        }
    }
}

/// Where gateways are, and how this endpoint proves itself to them.
#[derive(Clone)]
pub struct Door {
    gateways: Arc<Mutex<Vec<Address>>>,
    tls: Arc<ClientConfig>,
}

impl Door {
    /// The gateways to try, the best first, with this endpoint's identity. TLS 1.3 only.
    ///
    /// # Errors
    /// If the identity can't be used for TLS.
    pub fn new(gateways: Vec<Address>, identity: &Identity) -> io::Result<Self> {
        Ok(Self { gateways: Arc::new(Mutex::new(gateways)), tls: tls::tunnel(identity)? })
    }

    /// Other gateways are there now.
    pub(super) fn learn(&self, gateways: Vec<Address>) {
        *self.gateways.lock().unwrap_or_else(PoisonError::into_inner) = gateways;
    }

    /// Those there are.
    pub(super) fn gateways(&self) -> Vec<Address> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new tunnel.
    pub(super) async fn hello(&self, to: &Address) -> Result<Line, DialError> {
        let words = ToGateway::Hello(Hello { versions: version::OURS });
        match self.say(to, &words).await? {
            (line, ToAgent::Welcome(_)) => Ok(line),
            _ => Err(DialError::Words),
        }
    }

    /// Comes back with a tunnel: the connection, the next secret, and what the gateway has.
    pub(super) async fn resume(
        &self,
        to: &Address,
        tunnel: &Tunnel,
        session: tram_wire::ids::SessionId,
        secret: &str,
    ) -> Result<(Line, String, u64), DialError> {
        let last = tunnel.stop();
        let words = Resume { versions: version::OURS, session, secret: secret.to_owned(), last };
        match self.say(to, &ToGateway::Resume(words)).await? {
            (line, ToAgent::Resumed(r)) => Ok((line, r.secret, r.last)),
            _ => Err(DialError::Words),
        }
    }

    async fn say(&self, to: &Address, words: &ToGateway) -> Result<(Line, ToAgent), DialError> {
        tokio::time::timeout(DIAL, self.say_slowly(to, words)).await.map_err(|_| DialError::Slow)?
    }

    async fn say_slowly(&self, to: &Address, words: &ToGateway) -> Result<(Line, ToAgent), DialError> {
        let mut line = self.connect(to).await?;
        let words = words.encode().map_err(|_| DialError::Words)?;
        write_words(&mut line, words.as_bytes()).await?;
        let answer = read_words(&mut line).await?;
        match ToAgent::decode(&answer) {
            Ok(Incoming::Message(ToAgent::Refused(r))) => Err(DialError::Refused(r.reason)),
            Ok(Incoming::Message(answer)) => Ok((line, answer)),
            Ok(Incoming::Unknown { .. }) | Err(_) => Err(DialError::Words),
        }
    }

    async fn connect(&self, to: &Address) -> Result<Line, DialError> {
        let tcp = way::tcp(to).await?;
        tram_tunnel::prepare(&tcp)?;
        let mut line = tls::over(tcp, self.tls.clone()).await?;
        let head = format!(
            "GET {TUNNEL_PATH} HTTP/1.1\r\nHost: {SERVER_NAME}\r\nConnection: Upgrade\r\nUpgrade: {TUNNEL_UPGRADE}\r\n\r\n"
        );
        line.write_all(head.as_bytes()).await?;
        line.flush().await?;
        match status(&mut line).await? {
            101 => Ok(line),
            code => Err(DialError::Http(code)),
        }
    }
}

/// The status of the answer's head. The gateway says nothing more before it hears our first words.
async fn status(line: &mut Line) -> Result<u16, DialError> {
    let mut head = Vec::new();
    loop {
        if line.read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            Ok(httparse::Status::Complete(_)) => return response.code.ok_or(DialError::Words),
            Ok(httparse::Status::Partial) if head.len() < HEAD => {}
            _ => return Err(DialError::Words),
        }
    }
}
