//! The link: one outbound WebSocket over mutual TLS. [`machine`] decides, this carries.

mod der;
pub mod enrol;
pub mod http;
pub mod machine;
pub mod renew;
pub mod time;
pub mod tls;
pub mod way;

use std::io;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tram_wire::frame::MAX_FRAME;
use tram_wire::heartbeat::Beat;
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
}

impl LinkError {
    /// What stands in the way, if that is known.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Connect(e) => way::Blocked::within(e).map(way::Blocked::code),
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

/// An open link.
pub struct Link {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    /// Messages of kinds this agent is too old to know.
    skipped: u64,
}

impl Link {
    /// Connects, proves both ends and upgrades.
    pub async fn open(to: &Address, config: Arc<ClientConfig>) -> Result<Self, LinkError> {
        let stream = tls::connect(to, config).await?;
        // The library's buffers of 128 KiB would be most of the agent's memory.
        let limits = WebSocketConfig::default()
            .read_buffer_size(4096)
            .write_buffer_size(4096)
            .max_write_buffer_size(2 * MAX_FRAME)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let url = format!("wss://{SERVER_NAME}{LINK_PATH}");
        let (socket, _) = match tokio_tungstenite::client_async_with_config(url, stream, Some(limits)).await {
            Err(tungstenite::Error::Http(answer)) => {
                return Err(LinkError::Connect(way::Blocked::Upgrade(answer.status().as_u16()).into()));
            }
            other => other?,
        };
        Ok(Self { socket, skipped: 0 })
    }

    /// Whom it leads to.
    #[must_use]
    pub fn peer(&self) -> Option<std::net::SocketAddr> {
        self.socket.get_ref().get_ref().0.peer_addr().ok()
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &AgentMessage) -> Result<(), LinkError> {
        Ok(self.socket.send(Message::text(message.encode()?)).await?)
    }

    /// Sends a beat in its short form.
    pub async fn beat(&mut self, beat: &Beat) -> Result<(), LinkError> {
        Ok(self.socket.send(Message::binary(short::beat(beat))).await?)
    }

    /// Sends one message, packed if that is worth it.
    pub async fn send_packed(&mut self, message: &AgentMessage) -> Result<(), LinkError> {
        let text = message.encode()?;
        let frame = packed::pack(&text).map_or_else(|| Message::text(text), Message::binary);
        Ok(self.socket.send(frame).await?)
    }

    /// The next message this agent knows. Safe to drop half-way.
    pub async fn next(&mut self) -> Result<ControllerMessage, LinkError> {
        loop {
            match self.socket.next().await.ok_or(LinkError::Closed)?? {
                Message::Text(text) => match ControllerMessage::decode(text.as_bytes())? {
                    Incoming::Message(m) => return Ok(m),
                    Incoming::Unknown { .. } => self.skipped += 1,
                },
                Message::Close(_) => return Err(LinkError::Closed),
                Message::Binary(bytes) => match short::read_ack(&bytes) {
                    Some(ack) => return Ok(ControllerMessage::BeatAck(ack)),
                    // A kind made after this build.
                    None => self.skipped += 1,
                },
                // Pings are answered by the library.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
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
        // The other end may be gone already; nothing is lost by that.
        let _ = self.socket.close(None).await;
    }
}
