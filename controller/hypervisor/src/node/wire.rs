//! What passes between a controller and a node: frames of a JSON head and a body of bytes.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    AccelPolicy, DesktopId, DesktopSpec, DesktopStats, Display, Error, Found, HostEvent, HostInfo, InstallationId,
    Observed, Stop,
};

/// Of this protocol. A node and a controller of different versions tell each other so.
pub(super) const VERSION: u16 = 2;
/// Two lengths, big-endian: of the head, of the body.
const LENGTHS: usize = 8;
/// An inventory of ten thousand desktops has about 3 MB.
const HEAD: usize = 16 << 20;
/// The picture of the largest screen, or a piece of an image.
const BODY: usize = 64 << 20;
/// The first frame of a connection, from whoever it may be.
pub(super) const FIRST: usize = 4096;

/// The first words of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) installation: InstallationId,
    pub(super) accel: AccelPolicy,
    pub(super) purpose: Purpose,
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// [`ToNode`] and [`FromNode`], until one side closes.
    Calls,
    /// The display's bytes.
    Display { desktop: DesktopId, display: Display },
    /// A golden image: frames of [`Piece`], then one [`Welcome`].
    Image { file: String, size: u64 },
}

/// The node's answer to [`Hello`], and at the end of an image.
pub(super) type Welcome = Result<(), Fault>;

/// What is asked. `n` is the caller's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum ToNode {
    Call {
        n: u64,
        call: Call,
    },
    Beat,
    /// What the node asked for was signed (PEM).
    Renewed {
        pem: String,
    },
}

/// One method of [`Hypervisor`](crate::Hypervisor).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Call {
    HostInfo,
    EnsureDisk(DesktopSpec),
    EnsureDefined(DesktopSpec),
    EnsureRunning(DesktopId),
    EnsureStopped(DesktopId, Stop),
    Reset(DesktopId),
    EnsureAbsent(DesktopId),
    Observe(DesktopId),
    Inventory,
    Screenshot(DesktopId),
    SignedIn(DesktopId),
    Stats,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum FromNode {
    Answer {
        n: u64,
        answer: Result<Answer, Fault>,
    },
    Event(HostEvent),
    Beat,
    /// The node's certificate ends; a request for the next one (PEM).
    Renew {
        request: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    HostInfo(HostInfo),
    Observed(Observed),
    Inventory(Vec<Found>),
    /// The picture is the frame's body.
    Picture,
    Stats(Vec<DesktopStats>),
    SignedIn(Option<bool>),
}

/// A piece of an image; its bytes are the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Piece {
    More,
    /// No bytes; SHA-256 of all of them, in hexadecimal.
    End {
        sha256: String,
    },
}

/// An [`Error`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    code: String,
    text: String,
    /// The golden image is not on the host, and that is why.
    #[serde(default)]
    pub(super) image: bool,
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self { code: e.code().to_owned(), text: e.inner(), image: false }
    }
}

impl Fault {
    /// The same, because of an image that is not there.
    pub(super) fn for_want_of_an_image(self) -> Self {
        Self { image: true, ..self }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        // Made up elsewhere: a bound on what is logged and shown.
        let text: String = fault.text.chars().filter(|c| !c.is_control()).take(1000).collect();
        Error::from_code(&fault.code, text)
    }
}

/// Head and body as bytes.
pub(super) fn frame(head: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head).map_err(io::Error::other)?;
    let length = |n: usize, most| u32::try_from(n).ok().filter(|_| n <= most).ok_or_else(too_long);
    let (h, b) = (length(head.len(), HEAD)?, length(body.len(), BODY)?);
    let mut out = Vec::with_capacity(LENGTHS + head.len() + body.len());
    out.extend_from_slice(&h.to_be_bytes());
    out.extend_from_slice(&b.to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
    Ok(out)
}

pub(super) async fn send<W: AsyncWrite + Unpin>(to: &mut W, head: &impl Serialize, body: &[u8]) -> io::Result<()> {
    to.write_all(&frame(head, body)?).await?;
    to.flush().await
}

/// One frame; never more memory than was received so far and one piece.
pub(super) async fn receive<T: DeserializeOwned, R: AsyncRead + Unpin>(from: &mut R) -> io::Result<(T, Vec<u8>)> {
    receive_within(from, HEAD, BODY).await
}

/// The first frame: short, without a body.
pub(super) async fn first<T: DeserializeOwned, R: AsyncRead + Unpin>(from: &mut R) -> io::Result<T> {
    receive_within(from, FIRST, 0).await.map(|(head, _)| head)
}

async fn receive_within<T: DeserializeOwned, R: AsyncRead + Unpin>(
    from: &mut R,
    head: usize,
    body: usize,
) -> io::Result<(T, Vec<u8>)> {
    let mut lengths = [0; LENGTHS];
    from.read_exact(&mut lengths).await?;
    let number = |at: usize| {
        let bytes = [lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]];
        usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (h, b) = (number(0), number(4));
    if h > head || b > body {
        return Err(too_long());
    }
    let words = exactly(from, h).await?;
    let head = serde_json::from_slice(&words).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((head, exactly(from, b).await?))
}

/// Grows with what arrives: who only announces much costs nothing.
async fn exactly<R: AsyncRead + Unpin>(from: &mut R, n: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n.min(64 << 10));
    let got = from.take(n as u64).read_to_end(&mut bytes).await?;
    if got == n { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is longer than any honest one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_back_as_they_were_and_lies_are_refused() {
        let hello = ToNode::Call { n: 7, call: Call::Inventory };
        let bytes = frame(&hello, b"abc").unwrap();
        assert_eq!(receive::<ToNode, _>(&mut &bytes[..]).await.unwrap(), (hello, b"abc".to_vec()));
        for cut in 0..bytes.len() {
            assert!(receive::<ToNode, _>(&mut &bytes[..cut]).await.is_err(), "{cut} bytes");
        }
        assert!(first::<ToNode, _>(&mut &bytes[..]).await.is_err(), "the first frame has no body");
        let deep = [b"[".repeat(4000), b"]".repeat(4000)].concat();
        for (name, h, b, words) in [
            ("2^32-1 of head", u32::MAX, 0, &b""[..]),
            ("2^32-1 of body", 2, u32::MAX, b"{}"),
            ("not JSON", 3, 0, b"{{{"),
            ("not UTF-8", 2, 0, b"\xff\xfe"),
            ("something else", 2, 0, b"{}"),
            ("deep", 8000, 0, &deep),
        ] {
            let lie = [&h.to_be_bytes()[..], &b.to_be_bytes(), words].concat();
            assert!(receive::<ToNode, _>(&mut &lie[..]).await.is_err(), "{name}");
        }
    }
}
