//! A link carried by requests (`tram_wire::poll`), for where something on the way takes the switch to a WebSocket away.
//!
//! A link of this kind is a WebSocket all the same: one whose other end is here. [`conn`](super::conn) does not know the
//! difference, so nothing is allowed here that is not allowed there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::body::Incoming;
use metrics::{counter, gauge};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::io::DuplexStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use tram_wire::poll::{Ask, Frame, MAX_BATCH, Opened, read};

use super::accept::{json, status};
use super::{Agents, conn, signed};
use crate::domain::endpoint::LinkWay;
use crate::identity::secret::Secret;

/// How long a request waits for something to answer with. Proxies give up after a minute or half of one.
pub(super) const HOLD_S: u32 = 25;
const HOLD: Duration = Duration::from_secs(HOLD_S as u64);
/// A link nobody asks after for so long is over.
const IDLE: Duration = Duration::from_secs(70);
/// A link that ended tells why to whoever asks within this time.
const LAST_WORD: Duration = Duration::from_secs(10);
/// A body must arrive within this time, and what is in it be taken.
const TAKEN: Duration = Duration::from_secs(20);
/// Between the two ends of a link in here.
const BUFFER: usize = 16 * 1024;
/// Links at once; more could only come from endpoints that open many.
const MOST: usize = 20_000;

type Near = WebSocketStream<DuplexStream>;

/// All links of this kind.
#[derive(Clone, Default)]
pub(super) struct Polls(Arc<Mutex<HashMap<String, Arc<Link>>>>);

pub(super) struct Link {
    /// SHA-256 of the certificate it began with.
    certificate: [u8; 32],
    /// What its requests are signed for, if TLS does not prove them.
    signed: Option<signed::Lanes>,
    up: tokio::sync::Mutex<Up>,
    down: tokio::sync::Mutex<Down>,
    /// Ends the request that waits, for one that came after it.
    waiting: Mutex<CancellationToken>,
    used: Mutex<Instant>,
}

struct Up {
    /// The last batch that was taken.
    n: u64,
    sink: SplitSink<Near, Message>,
}

struct Down {
    /// The last batch that was made; it is kept until the next one is asked for.
    n: u64,
    batch: Vec<u8>,
    /// A frame that did not fit.
    next: Option<Frame>,
    stream: SplitStream<Near>,
    over: bool,
}

impl Polls {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Link>>> {
        // No code below panics while it holds the lock; a poisoned map would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str, certificate: Option<&CertificateDer<'_>>) -> Option<Arc<Link>> {
        let link = self.map().get(name).cloned().filter(|l| l.signed.is_none())?;
        // A name that leaked is worth nothing without the key.
        (Some(link.certificate) == certificate.map(digest)).then_some(link)
    }

    /// A link whose requests are signed. Nothing is done for one before it is proved.
    pub(super) fn find_signed(&self, name: &str) -> Option<Arc<Link>> {
        self.map().get(name).cloned().filter(|l| l.signed.is_some())
    }

    fn remove(&self, name: &str) {
        let mut map = self.map();
        map.remove(name);
        count(&map);
    }
}

fn count(map: &HashMap<String, Arc<Link>>) {
    let links = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    let signed = map.values().filter(|l| l.signed.is_some()).count();
    gauge!("agent_links_by_poll").set(links(map.len() - signed));
    gauge!("agent_links_signed").set(links(signed));
}

pub(super) fn digest(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

pub(super) async fn answer(
    agents: Agents,
    certificate: Option<CertificateDer<'static>>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let response = match Ask::of(&path) {
        Some(Ask::Open) => match certificate {
            Some(certificate) => match open(&agents, certificate, peer, None).await {
                Some(link) => json(StatusCode::OK, &Opened { link, hold_s: HOLD_S }),
                None => status(StatusCode::SERVICE_UNAVAILABLE),
            },
            None => status(StatusCode::FORBIDDEN),
        },
        Some(Ask::Up(name, n)) => match agents.polls.find(name, certificate.as_ref()) {
            Some(link) => {
                link.touch();
                match body(request, MAX_BATCH).await {
                    Some(body) => status(link.up(n, &body).await),
                    None => status(StatusCode::PAYLOAD_TOO_LARGE),
                }
            }
            None => status(StatusCode::NOT_FOUND),
        },
        Some(Ask::Down(name, n)) => match agents.polls.find(name, certificate.as_ref()) {
            Some(link) => match link.down(n).await {
                (StatusCode::OK, frames) => bytes(frames),
                (code, _) => status(code),
            },
            None => status(StatusCode::NOT_FOUND),
        },
        None => status(StatusCode::NOT_FOUND),
    };
    unkept(response)
}

/// Whatever is on the way must not answer in our place.
pub(super) fn unkept(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// The body, if it is here in time and not too large.
pub(super) async fn body(request: Request<Incoming>, most: usize) -> Option<Bytes> {
    timeout(TAKEN, to_bytes(Body::new(request.into_body()), most)).await.ok()?.ok()
}

/// Begins a link; its name, or `None` if there are too many. Who it is, and whether that is good, is found out as on any
/// other; that the other end has the certificate's key was proved.
pub(super) async fn open(
    agents: &Agents,
    certificate: CertificateDer<'static>,
    peer: SocketAddr,
    signed: Option<signed::Lanes>,
) -> Option<String> {
    if agents.polls.map().len() >= MOST {
        counter!("agent_refusals_total", "reason" => "overload").increment(1);
        return None;
    }
    let way = if signed.is_some() { LinkWay::Signed } else { LinkWay::Poll };
    let (near, far) = tokio::io::duplex(BUFFER);
    let near = WebSocketStream::from_raw_socket(near, Role::Client, Some(conn::limits())).await;
    let (sink, stream) = near.split();
    let link = Arc::new(Link {
        certificate: digest(&certificate),
        signed,
        up: tokio::sync::Mutex::new(Up { n: 0, sink }),
        down: tokio::sync::Mutex::new(Down { n: 0, batch: Vec::new(), next: None, stream, over: false }),
        waiting: Mutex::default(),
        used: Mutex::new(Instant::now()),
    });
    let name = Secret::generate("").reveal().to_owned();
    {
        let mut map = agents.polls.map();
        map.insert(name.clone(), link.clone());
        count(&map);
    }
    let (agents, of) = (agents.clone(), name.clone());
    tokio::spawn(async move {
        let mut talk = pin!(conn::run(agents.clone(), Some(certificate), peer, way, Box::new(far)));
        let ended = tokio::select! {
            () = &mut talk => true,
            () = link.unused(IDLE) => false,
        };
        if ended {
            // Why it ended waits for whoever asks next, for a while.
            link.unused(LAST_WORD).await;
        }
        agents.polls.remove(&of);
        drop(link);
        if !ended {
            // With its other end gone it ends as any line that breaks.
            talk.await;
        }
    });
    Some(name)
}

impl Link {
    /// What its requests are signed for.
    pub(super) fn lanes(&self) -> Option<&signed::Lanes> {
        self.signed.as_ref()
    }

    /// Somebody asked for it who is proved.
    pub(super) fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nobody asked for so long.
    async fn unused(&self, within: Duration) {
        loop {
            let until = *self.used.lock().unwrap_or_else(PoisonError::into_inner) + within;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Takes a batch of the agent's frames, once.
    pub(super) async fn up(&self, n: u64, body: &[u8]) -> StatusCode {
        let mut up = self.up.lock().await;
        if n == up.n {
            return StatusCode::NO_CONTENT;
        }
        let Ok(frames) = read(body) else { return StatusCode::BAD_REQUEST };
        if n != up.n + 1 {
            return StatusCode::CONFLICT;
        }
        // Taken in part would be taken twice: from here on the batch counts, and a line that is stuck is over.
        up.n = n;
        let taken = timeout(TAKEN, async {
            for frame in frames {
                up.sink.feed(message(frame)).await?;
            }
            up.sink.flush().await
        });
        match taken.await {
            Ok(Ok(())) => StatusCode::NO_CONTENT,
            Ok(Err(_)) | Err(_) => StatusCode::GONE,
        }
    }

    /// Frames for the agent after batch `after`, as soon as there are any.
    pub(super) async fn down(&self, after: u64) -> (StatusCode, Vec<u8>) {
        let empty = |code| (code, Vec::new());
        self.touch();
        let newer = CancellationToken::new();
        std::mem::replace(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), newer.clone()).cancel();
        let mut down = self.down.lock().await;
        if after.checked_add(1) == Some(down.n) {
            // Its answer was lost on the way.
            return (StatusCode::OK, down.batch.clone());
        }
        if after != down.n {
            return empty(StatusCode::CONFLICT);
        }
        tokio::select! {
            first = down.first() => match first {
                Some(frame) => (StatusCode::OK, down.fill(frame)),
                None => empty(StatusCode::GONE),
            },
            // Whoever waits here is not waiting any more: the one that came after it gets the frames.
            () = newer.cancelled() => empty(StatusCode::NO_CONTENT),
            () = tokio::time::sleep(HOLD) => empty(StatusCode::NO_CONTENT),
        }
    }
}

impl Down {
    /// The next frame; `None`: the link is over. Safe to drop half-way.
    async fn first(&mut self) -> Option<Frame> {
        if let Some(frame) = self.next.take() {
            return Some(frame);
        }
        while !self.over {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Some(Frame::Text(text.as_str().to_owned())),
                Some(Ok(Message::Binary(bytes))) => return Some(Frame::Binary(bytes.to_vec())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => self.over = true,
            }
        }
        None
    }

    /// The next batch: this frame and those that are here already. Nothing is waited for, so that nothing is lost if the
    /// one who asked is gone.
    fn fill(&mut self, first: Frame) -> Vec<u8> {
        let mut batch = Vec::new();
        first.put(&mut batch);
        while let Some(frame) = self.first().now_or_never().flatten() {
            if batch.len() + frame.size() > MAX_BATCH {
                self.next = Some(frame);
                break;
            }
            frame.put(&mut batch);
        }
        self.n += 1;
        self.batch.clone_from(&batch);
        batch
    }
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Text(text) => Message::text(text),
        Frame::Binary(bytes) => Message::binary(bytes),
    }
}

pub(super) fn bytes(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    let kind = header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
