//! The link: one outbound WebSocket over mutual TLS, or [`poll`] where that does not get through, or [`signed`] where somebody
//! opens TLS on the way and that is put up with. [`machine`] decides, this carries.

pub mod bandwidth;
mod der;
pub mod enrol;
pub mod http;
pub mod machine;
pub mod poll;
pub mod renew;
pub mod signed;
pub mod time;
pub mod tls;
pub mod way;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tram_wire::frame::MAX_FRAME;
use tram_wire::heartbeat::Beat;
use tram_wire::poll::Frame;
use tram_wire::{AgentMessage, ControllerMessage, Incoming, LINK_PATH, SERVER_NAME, WireError, packed, short};

use crate::config::Address;

/// Why a link ended or never began.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection, or TLS failed.
    #[error("{0}")]
    Connect(#[from] io::Error),
    /// The WebSocket failed.
    #[error("{0}")]
    Socket(#[from] Box<tungstenite::Error>),
    /// The controller closed it.
    #[error("closed by the controller")]
    Closed,
    /// A frame that isn't ours.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// TLS is opened on the way, and signed requests don't get through either.
    #[error("{0}; signed requests don't get through either: {1}")]
    Inspected(io::Error, Box<LinkError>),
}

impl LinkError {
    /// What stands in the way, if that is known.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Connect(e) => way::Blocked::within(e).map(way::Blocked::code),
            // What is made up is worse than what is read.
            Self::Inspected(by, e) => e.code().or_else(|| way::Blocked::within(by).map(way::Blocked::code)),
            Self::Socket(_) | Self::Closed | Self::Wire(_) => None,
        }
    }
}

impl From<tungstenite::Error> for LinkError {
    fn from(e: tungstenite::Error) -> Self {
        match e {
            tungstenite::Error::ConnectionClosed => Self::Closed,
            e => Self::Socket(Box::new(e)),
        }
    }
}

/// From a connection that is proved at both ends to the WebSocket on it. What takes longer is taken for something on the
/// way that lets no upgrade through.
const UPGRADE: Duration = Duration::from_secs(8);

enum By {
    Socket(Box<WebSocketStream<TlsStream<TcpStream>>>),
    Requests(poll::Poll),
    Signed(poll::Poll),
}

/// What carries a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A WebSocket.
    Socket,
    /// Requests: no WebSocket gets through.
    Requests,
    /// Requests signed at both ends: somebody opens TLS on the way, and can read them.
    Signed,
}

impl Way {
    /// The word for it in the status; none for the usual one.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Socket => None,
            Self::Requests => Some("requests"),
            Self::Signed => Some("signed"),
        }
    }
}

/// An open link.
pub struct Link {
    by: By,
    /// Messages of kinds this agent is too old to know.
    skipped: u64,
}

impl Link {
    /// Connects, proves both ends and upgrades; where no upgrade gets through, goes on by requests.
    pub async fn open(to: &Address, config: Arc<ClientConfig>) -> Result<Self, LinkError> {
        let stream = tls::connect(to, config.clone()).await?;
        match Self::upgrade(stream).await {
            Ok(link) => Ok(link),
            // A controller that is older than that answers as it does to any path it does not know.
            Err(e) => match poll::Poll::open(to, config).await {
                Ok(by) => Ok(Self { by: By::Requests(by), skipped: 0 }),
                Err(_) => Err(e),
            },
        }
    }

    /// As [`Link::open`]; where somebody opens TLS on the way, by signed requests.
    ///
    /// # Errors
    /// [`LinkError`]; whoever opens TLS is named.
    pub async fn open_or_sign(
        to: &Address,
        config: Arc<ClientConfig>,
        signer: Arc<signed::Signer>,
    ) -> Result<Self, LinkError> {
        match Self::open(to, config).await {
            Err(LinkError::Connect(e)) if matches!(way::Blocked::within(&e), Some(way::Blocked::Intercepted(_))) => {
                match signed::open(to, signer).await {
                    Ok(by) => Ok(Self { by: By::Signed(by), skipped: 0 }),
                    Err(why) => Err(LinkError::Inspected(e, Box::new(why))),
                }
            }
            other => other,
        }
    }

    /// Whether a better way than this one gets through by now.
    pub async fn upgrades(to: &Address, config: Arc<ClientConfig>, from: Way) -> bool {
        let Ok(stream) = tls::connect(to, config).await else { return false };
        if from == Way::Signed {
            // The controller is proved: whatever carries the link then, nobody reads it.
            return true;
        }
        match Self::upgrade(stream).await {
            Ok(mut link) => {
                let _ = timeout(UPGRADE, link.close()).await;
                true
            }
            Err(_) => false,
        }
    }

    async fn upgrade(stream: TlsStream<TcpStream>) -> Result<Self, LinkError> {
        // The library's buffers of 128 KiB would be most of the agent's memory.
        let limits = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(4096)
            .max_write_buffer_size(2 * MAX_FRAME)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let url = format!("wss://{SERVER_NAME}{LINK_PATH}");
        let removed = |status| LinkError::Connect(way::Blocked::Upgrade(status).into());
        match timeout(UPGRADE, tokio_tungstenite::client_async_with_config(url, stream, Some(limits))).await {
            Ok(Ok((socket, _))) => Ok(Self { by: By::Socket(Box::new(socket)), skipped: 0 }),
            Ok(Err(tungstenite::Error::Http(answer))) => Err(removed(answer.status().as_u16())),
            // It was answered as if it were switched, by somebody who can't.
            Ok(Err(tungstenite::Error::Protocol(_))) => Err(removed(101)),
            Ok(Err(e)) => Err(e.into()),
            Err(_) => {
                Err(LinkError::Connect(io::Error::new(io::ErrorKind::TimedOut, "no answer to the upgrade in time")))
            }
        }
    }

    /// What carries it.
    #[must_use]
    pub fn way(&self) -> Way {
        match self.by {
            By::Socket(_) => Way::Socket,
            By::Requests(_) => Way::Requests,
            By::Signed(_) => Way::Signed,
        }
    }

    /// Whom it leads to.
    #[must_use]
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        match &self.by {
            By::Socket(socket) => socket.get_ref().get_ref().0.peer_addr().ok(),
            By::Requests(poll) | By::Signed(poll) => poll.peer(),
        }
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &AgentMessage) -> Result<(), LinkError> {
        self.put(Frame::Text(message.encode()?)).await
    }

    /// Sends a beat in its short form.
    pub async fn beat(&mut self, beat: &Beat) -> Result<(), LinkError> {
        self.put(Frame::Binary(short::beat(beat))).await
    }

    /// Sends one message, packed with this dictionary if that is worth it.
    pub async fn send_packed(&mut self, message: &AgentMessage, dictionary: u8) -> Result<(), LinkError> {
        let text = message.encode()?;
        self.put(packed::pack_with(&text, dictionary).map_or(Frame::Text(text), Frame::Binary)).await
    }

    /// Sends a beat in its short form, and a report in the same packet.
    pub async fn beat_with(&mut self, beat: &Beat, report: &AgentMessage, dictionary: u8) -> Result<(), LinkError> {
        let text = report.encode()?;
        let report = packed::pack_with(&text, dictionary).map_or(Frame::Text(text), Frame::Binary);
        if let By::Socket(socket) = &mut self.by {
            socket.feed(Message::binary(short::beat(beat))).await?;
        } else {
            self.put(Frame::Binary(short::beat(beat))).await?;
        }
        self.put(report).await
    }

    async fn put(&mut self, frame: Frame) -> Result<(), LinkError> {
        match (&mut self.by, frame) {
            (By::Requests(poll) | By::Signed(poll), frame) => poll.send(frame).await,
            (By::Socket(socket), Frame::Text(text)) => Ok(socket.send(Message::text(text)).await?),
            (By::Socket(socket), Frame::Binary(bytes)) => Ok(socket.send(Message::binary(bytes)).await?),
        }
    }

    /// The next message this agent knows. Safe to drop half-way.
    pub async fn next(&mut self) -> Result<ControllerMessage, LinkError> {
        loop {
            let message = match &mut self.by {
                By::Requests(poll) | By::Signed(poll) => match poll.next().await? {
                    Frame::Text(text) => text_message(text.as_bytes())?,
                    Frame::Binary(bytes) => short_message(&bytes),
                },
                By::Socket(socket) => match socket.next().await.ok_or(LinkError::Closed)?? {
                    Message::Text(text) => text_message(text.as_bytes())?,
                    Message::Binary(bytes) => short_message(&bytes),
                    Message::Close(_) => return Err(LinkError::Closed),
                    // Pings are answered by the library.
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                },
            };
            match message {
                Some(message) => return Ok(message),
                // A kind made after this build.
                None => self.skipped += 1,
            }
        }
    }

    /// Messages skipped because this agent is too old to know them.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Closes politely.
    pub async fn close(&mut self) {
        match &mut self.by {
            // The other end may be gone already; nothing is lost by that.
            By::Socket(socket) => drop(socket.as_mut().close(None).await),
            By::Requests(poll) | By::Signed(poll) => poll.close().await,
        }
    }
}

fn text_message(text: &[u8]) -> Result<Option<ControllerMessage>, LinkError> {
    match ControllerMessage::decode(text)? {
        Incoming::Message(m) => Ok(Some(m)),
        Incoming::Unknown { .. } => Ok(None),
    }
}

fn short_message(bytes: &[u8]) -> Option<ControllerMessage> {
    let kept = || short::read_kept(bytes).map(ControllerMessage::ReportAck);
    short::read_ack(bytes).map(ControllerMessage::BeatAck).or_else(kept)
}
