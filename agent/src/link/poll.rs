//! The link carried by requests (`tram_wire::poll`), for where something on the way takes the switch to a WebSocket away:
//! one request that waits for what the controller has to say, and one for each batch of what there is to say here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;
use tram_wire::SERVER_NAME;
use tram_wire::poll::{Ask, Frame, MAX_BATCH, Opened, read};
use tram_wire::signed::OVERHEAD;

use super::signed::Lane;
use super::way::Blocked;
use super::{LinkError, tls};
use crate::config::Address;

/// Longest a request without a wait may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
/// Frames on their way in either direction.
const WAITING: usize = 32;
/// Longest head of an answer.
const HEAD: usize = 8 * 1024;
/// Longest body of an answer.
const BODY: usize = MAX_BATCH + OVERHEAD;

/// A link by requests.
pub struct Poll {
    up: Option<mpsc::Sender<Frame>>,
    down: mpsc::Receiver<Result<Frame, LinkError>>,
    peer: Option<SocketAddr>,
    sending: JoinHandle<()>,
    listening: JoinHandle<()>,
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.sending.abort();
        self.listening.abort();
    }
}

impl Poll {
    /// Begins a link.
    ///
    /// # Errors
    /// If the controller can't be reached like this, or is too old to know it.
    pub async fn open(to: &Address, config: Arc<ClientConfig>) -> Result<Self, LinkError> {
        let mut requests = Requests::new(to, config.clone(), None);
        let (status, body) = requests.post(&Ask::Open, &[], DEADLINE).await?;
        if status != 200 {
            return Err(LinkError::Connect(io::Error::other(format!("no link by requests either: HTTP {status}"))));
        }
        let opened: Opened = serde_json::from_slice(&body).map_err(io::Error::other)?;
        Self::begin(requests, Requests::new(to, config, None), opened.link, opened.hold_s)
    }

    /// Goes on with a link that began: what asks upward, and what asks downward.
    ///
    /// # Errors
    /// If its name makes no sense.
    pub(super) fn begin(requests: Requests, another: Requests, link: String, hold_s: u32) -> Result<Self, LinkError> {
        if link.is_empty() || !link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            return Err(LinkError::Connect(io::Error::other("the controller's answer makes no sense")));
        }
        let peer = requests.stream.as_ref().and_then(|s| s.get_ref().0.peer_addr().ok());
        let (up, to_send) = mpsc::channel(WAITING);
        let (heard, down) = mpsc::channel(WAITING);
        let hold = DEADLINE + Duration::from_secs(hold_s.min(300).into());
        let listening = tokio::spawn(listen(another, link.clone(), hold, heard.clone()));
        let sending = tokio::spawn(send(requests, link, to_send, heard));
        Ok(Self { up: Some(up), down, peer, sending, listening })
    }

    /// Whom it leads to.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// If the link is over.
    pub async fn send(&mut self, frame: Frame) -> Result<(), LinkError> {
        let up = self.up.as_ref().ok_or(LinkError::Closed)?;
        if up.send(frame).await.is_ok() {
            return Ok(());
        }
        // Why it is over may wait behind frames that nobody will ask for any more.
        let over = std::iter::from_fn(|| self.down.try_recv().ok()).find_map(Result::err);
        Err(over.unwrap_or(LinkError::Closed))
    }

    /// The next frame. Safe to drop half-way.
    ///
    /// # Errors
    /// Why the link is over.
    pub async fn next(&mut self) -> Result<Frame, LinkError> {
        self.down.recv().await.unwrap_or(Err(LinkError::Closed))
    }

    /// Waits until what was said is on its way.
    pub async fn close(&mut self) {
        self.up = None;
        let _ = (&mut self.sending).await;
    }
}

/// Sends what there is to say, as many frames at once as there are.
async fn send(
    mut requests: Requests,
    link: String,
    mut frames: mpsc::Receiver<Frame>,
    tell: mpsc::Sender<Result<Frame, LinkError>>,
) {
    let (mut n, mut left) = (0, None);
    while let Some(first) = match left.take() {
        Some(frame) => Some(frame),
        None => frames.recv().await,
    } {
        let mut batch = Vec::new();
        first.put(&mut batch);
        while let Ok(frame) = frames.try_recv() {
            if batch.len() + frame.size() > MAX_BATCH {
                left = Some(frame);
                break;
            }
            frame.put(&mut batch);
        }
        n += 1;
        let error = match requests.post(&Ask::Up(&link, n), &batch, DEADLINE).await {
            Ok((204, _)) => continue,
            Ok((404 | 410, _)) => LinkError::Closed,
            Ok((status, _)) => unexpected(status),
            Err(e) => e.into(),
        };
        let _ = tell.send(Err(error)).await;
        return;
    }
}

/// Asks for what the controller has to say, again and again.
async fn listen(mut requests: Requests, link: String, hold: Duration, tell: mpsc::Sender<Result<Frame, LinkError>>) {
    let mut n = 0;
    let error = loop {
        let asked = Instant::now();
        let batch = match requests.post(&Ask::Down(&link, n), &[], hold).await {
            Ok((204, _)) => {
                // Somebody on the way who answers without waiting must not be asked without end.
                sleep_until(asked + Duration::from_secs(1)).await;
                continue;
            }
            Ok((200, batch)) => batch,
            Ok((404 | 410, _)) => break LinkError::Closed,
            Ok((status, _)) => break unexpected(status),
            Err(e) => break e.into(),
        };
        let Ok(frames) = read(&batch) else { break unexpected(200) };
        n += 1;
        for frame in frames {
            if tell.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    };
    let _ = tell.send(Err(error)).await;
}

fn unexpected(status: u16) -> LinkError {
    LinkError::Connect(io::Error::other(format!("a link by requests was answered with HTTP {status}")))
}

/// Requests one after the other, on one connection as long as it is left open.
pub(super) struct Requests {
    to: Address,
    config: Arc<ClientConfig>,
    stream: Option<TlsStream<TcpStream>>,
    /// What signs them, where TLS proves nobody.
    pub(super) lane: Option<Lane>,
}

impl Requests {
    pub(super) fn new(to: &Address, config: Arc<ClientConfig>, lane: Option<Lane>) -> Self {
        Self { to: to.clone(), config, stream: None, lane }
    }

    /// Status and body. A connection that was left open may be gone by now, and an answer may be lost: then the request is
    /// sent again on a new one, once, which its number makes harmless.
    async fn post(&mut self, ask: &Ask<'_>, body: &[u8], within: Duration) -> io::Result<(u16, Vec<u8>)> {
        match self.try_once(ask, body, within).await {
            Err(e) if e.kind() != io::ErrorKind::TimedOut && Blocked::within(&e).is_none() => {
                self.try_once(ask, body, within).await
            }
            other => other,
        }
    }

    async fn try_once(&mut self, ask: &Ask<'_>, body: &[u8], within: Duration) -> io::Result<(u16, Vec<u8>)> {
        let Some(lane) = &mut self.lane else { return self.raw(&ask.path(), body, within).await };
        let (path, sealed) = lane.request(ask, body).await?;
        let answer = self.raw(&path, &sealed, within).await?;
        self.lane.as_ref().ok_or_else(garbled)?.answer(&path, answer)
    }

    /// As it is, once.
    pub(super) async fn raw(&mut self, path: &str, body: &[u8], within: Duration) -> io::Result<(u16, Vec<u8>)> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {SERVER_NAME}\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        self.once(&request, within).await
    }

    async fn once(&mut self, request: &[u8], within: Duration) -> io::Result<(u16, Vec<u8>)> {
        // Taken out: a request that is given up half-way leaves no connection that could be in the middle of an answer.
        let stream = self.stream.take();
        let work = async {
            let mut stream = match stream {
                Some(stream) => stream,
                None => tls::connect(&self.to, self.config.clone()).await?,
            };
            stream.write_all(request).await?;
            stream.flush().await?;
            let answer = answer(&mut stream).await?;
            Ok::<_, io::Error>((stream, answer))
        };
        let (stream, answer) =
            timeout(within, work).await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        self.stream = (!answer.last).then_some(stream);
        Ok((answer.status, answer.body))
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    /// The connection ends with it.
    last: bool,
}

/// How the end of a body is known.
enum Length {
    Bytes(usize),
    Chunks,
    /// With the connection.
    End,
}

async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let (status, length, last, at) = loop {
        if let Some(head) = head(&bytes)? {
            break head;
        }
        more(stream, &mut bytes, HEAD).await?;
    };
    let mut rest = bytes.split_off(at);
    let body = match length {
        Length::Bytes(n) if n > BODY => return Err(garbled()),
        Length::Bytes(n) => {
            while rest.len() < n {
                more(stream, &mut rest, BODY).await?;
            }
            rest.truncate(n);
            rest
        }
        Length::Chunks => loop {
            if let Some(body) = chunks(&rest)? {
                break body;
            }
            more(stream, &mut rest, 2 * BODY).await?;
        },
        Length::End => {
            while more(stream, &mut rest, BODY).await.is_ok() {}
            rest
        }
    };
    Ok(Answer { status, body, last })
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an answer is no HTTP, or too large")
}

async fn more(stream: &mut (impl AsyncReadExt + Unpin), into: &mut Vec<u8>, most: usize) -> io::Result<()> {
    let mut part = [0; 2048];
    let n = stream.read(&mut part).await?;
    into.extend_from_slice(&part[..n]);
    match n {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if into.len() > most + HEAD => Err(garbled()),
        _ => Ok(()),
    }
}

/// Status, length of the body, whether the connection ends, and where the body begins; `None`: not all of it is here.
fn head(bytes: &[u8]) -> io::Result<Option<(u16, Length, bool, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let at = match response.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(garbled()),
    };
    let status = response.code.ok_or_else(garbled)?;
    let value = |name: &str| {
        let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::to_ascii_lowercase)
    };
    let length = match (value("transfer-encoding"), value("content-length")) {
        _ if status == 204 || status == 304 => Length::Bytes(0),
        (Some(how), _) if how.ends_with("chunked") => Length::Chunks,
        (Some(_), _) => return Err(garbled()),
        (None, Some(n)) => Length::Bytes(n.trim().parse().map_err(|_| garbled())?),
        (None, None) => Length::End,
    };
    let old = response.version == Some(0);
    let last =
        matches!(length, Length::End) || value("connection").map_or(old, |c| c.split(',').any(|w| w.trim() == "close"));
    Ok(Some((status, length, last, at)))
}

/// A body in chunks, as proxies like to send it on; `None`: not all of it is here.
fn chunks(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(garbled()),
        };
        let size = usize::try_from(size).ok().filter(|n| body.len() + n <= BODY).ok_or_else(garbled)?;
        let rest = &bytes[at..];
        if size == 0 {
            // Trailers are not asked for; an empty line ends it all.
            return match rest.get(..2) {
                Some(b"\r\n") => Ok(Some(body)),
                Some(_) => Err(garbled()),
                None => Ok(None),
            };
        }
        let Some(chunk) = rest.get(..size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        if &chunk[size..] != b"\r\n" {
            return Err(garbled());
        }
        bytes = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> io::Result<(u16, String, bool)> {
        let a = answer(&mut text.as_bytes()).await?;
        Ok((a.status, String::from_utf8(a.body).unwrap(), a.last))
    }

    #[tokio::test]
    async fn answers_are_read_whatever_a_proxy_made_of_them() {
        let said = read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
        assert_eq!(said, (200, "abc".into(), false));
        let said = read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=1\r\nc\r\n0\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(said, (200, "abc".into(), false));
        assert_eq!(read("HTTP/1.1 204 No\r\nConnection: close\r\n\r\n").await.unwrap(), (204, String::new(), true));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nabc").await.unwrap(), (200, "abc".into(), true));
        assert_eq!(read("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap(), (200, String::new(), true));
    }

    #[tokio::test]
    async fn half_an_answer_and_rubbish_are_none() {
        for bad in [
            "HTTP/1.1 200 OK\r\nConte",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nab",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(read(bad).await.is_err(), "{bad}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(3 * HEAD));
        assert!(read(&endless).await.is_err());
    }
}
