//! A link carried by requests (`tram_wire::poll`), for where something on the way takes the switch to a WebSocket away.
//!
//! A link of this kind is a WebSocket all the same: one whose other end is here. [`conn`](super::conn) does not know the
//! difference, so nothing is allowed here that is not allowed there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
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
use super::{Agents, conn};
use crate::domain::endpoint::LinkWay;
use crate::identity::secret::Secret;

/// How long a request waits for something to answer with. Proxies give up after a minute or half of one.
const HOLD: Duration = Duration::from_secs(25);
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

struct Link {
    /// SHA-256 of the certificate it began with.
    certificate: [u8; 32],
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
        let link = self.map().get(name).cloned()?;
        // A name that leaked is worth nothing without the key.
        (Some(link.certificate) == certificate.map(digest)).then_some(link)
    }

    fn remove(&self, name: &str) {
        let mut map = self.map();
        map.remove(name);
        count(map.len());
    }
}

fn count(links: usize) {
    gauge!("agent_links_by_poll").set(f64::from(u32::try_from(links).unwrap_or(u32::MAX)));
}

fn digest(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

pub(super) async fn answer(
    agents: Agents,
    certificate: Option<CertificateDer<'static>>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let mut response = match Ask::of(&path) {
        Some(Ask::Open) => open(&agents, certificate, peer).await,
        Some(Ask::Up(name, n)) => match agents.polls.find(name, certificate.as_ref()) {
            Some(link) => link.up(n, request).await,
            None => status(StatusCode::NOT_FOUND),
        },
        Some(Ask::Down(name, n)) => match agents.polls.find(name, certificate.as_ref()) {
            Some(link) => link.down(n).await,
            None => status(StatusCode::NOT_FOUND),
        },
        None => status(StatusCode::NOT_FOUND),
    };
    // Whatever is on the way must not answer in our place.
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// Begins a link. Who it is, and whether that is good, is found out as on any other.
async fn open(agents: &Agents, certificate: Option<CertificateDer<'static>>, peer: SocketAddr) -> Response<Body> {
    let Some(certificate) = certificate else { return status(StatusCode::FORBIDDEN) };
    if agents.polls.map().len() >= MOST {
        counter!("agent_refusals_total", "reason" => "overload").increment(1);
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    let (near, far) = tokio::io::duplex(BUFFER);
    let near = WebSocketStream::from_raw_socket(near, Role::Client, Some(conn::limits())).await;
    let (sink, stream) = near.split();
    let link = Arc::new(Link {
        certificate: digest(&certificate),
        up: tokio::sync::Mutex::new(Up { n: 0, sink }),
        down: tokio::sync::Mutex::new(Down { n: 0, batch: Vec::new(), next: None, stream, over: false }),
        waiting: Mutex::default(),
        used: Mutex::new(Instant::now()),
    });
    let name = Secret::generate("").reveal().to_owned();
    {
        let mut map = agents.polls.map();
        map.insert(name.clone(), link.clone());
        count(map.len());
    }
    let (agents, of) = (agents.clone(), name.clone());
    tokio::spawn(async move {
        let mut talk = pin!(conn::run(agents.clone(), Some(certificate), peer, LinkWay::Poll, Box::new(far)));
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
    json(StatusCode::OK, &Opened { link: name, hold_s: u32::try_from(HOLD.as_secs()).unwrap_or(25) })
}

impl Link {
    fn touch(&self) {
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
    async fn up(&self, n: u64, request: Request<Incoming>) -> Response<Body> {
        self.touch();
        let Ok(Ok(body)) = timeout(TAKEN, to_bytes(Body::new(request.into_body()), MAX_BATCH)).await else {
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        };
        let mut up = self.up.lock().await;
        if n == up.n {
            return status(StatusCode::NO_CONTENT);
        }
        let Ok(frames) = read(&body) else { return status(StatusCode::BAD_REQUEST) };
        if n != up.n + 1 {
            return status(StatusCode::CONFLICT);
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
            Ok(Ok(())) => status(StatusCode::NO_CONTENT),
            Ok(Err(_)) | Err(_) => status(StatusCode::GONE),
        }
    }

    /// Frames for the agent after batch `after`, as soon as there are any.
    async fn down(&self, after: u64) -> Response<Body> {
        self.touch();
        let newer = CancellationToken::new();
        std::mem::replace(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), newer.clone()).cancel();
        let mut down = self.down.lock().await;
        if after.checked_add(1) == Some(down.n) {
            // Its answer was lost on the way.
            return batch(down.batch.clone());
        }
        if after != down.n {
            return status(StatusCode::CONFLICT);
        }
        tokio::select! {
            first = down.first() => match first {
                Some(frame) => batch(down.fill(frame)),
                None => status(StatusCode::GONE),
            },
            // Whoever waits here is not waiting any more: the one that came after it gets the frames.
            () = newer.cancelled() => status(StatusCode::NO_CONTENT),
            () = tokio::time::sleep(HOLD) => status(StatusCode::NO_CONTENT),
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

fn batch(frames: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(frames));
    let kind = header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
