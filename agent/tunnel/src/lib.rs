//! Carries a tunnel ([`tram_wire::tunnel`]) over connections: one driver for the agent and the gateway.
//!
//! ```text
//! Stream (AsyncRead + AsyncWrite) ─┐
//! Stream ──────────────────────────┼─ Mux behind one lock ─ drive(connection) ─ TLS ─ TCP
//! messages ────────────────────────┘
//! ```
//! A [`Tunnel`] outlives its connections. [`Tunnel::drive`] runs one of them until it ends; between two of
//! them streams simply wait. Reading and writing of the connection happen outside of the lock.

mod drive;
mod line;
mod stream;
mod words;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tram_wire::tunnel::{Class, Event, Fault, Mux};

pub use line::{Line, prepare};
pub use stream::{ReadStream, Stream, WriteStream};
pub use tram_wire::tunnel::{Limits, Role, Stats, StreamError};
pub use words::{read_words, write_words};

/// Messages that may wait for their reader.
const MESSAGES: usize = 64;

/// Why a connection is no longer carried. The tunnel itself is unharmed unless it was closed.
#[derive(Debug, thiserror::Error)]
pub enum LineEnd {
    /// It broke, or the other end closed it.
    #[error("the line broke: {0}")]
    Lost(#[from] std::io::Error),
    /// Nothing came for too long.
    #[error("the line is silent")]
    Silent,
    /// The other end broke the rules.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A newer connection carries the tunnel.
    #[error("a newer connection took over")]
    Superseded,
    /// The tunnel was closed from here.
    #[error("the tunnel was closed")]
    Closed,
}

/// One end of a tunnel; cheap to clone.
#[derive(Clone)]
pub struct Tunnel(Arc<Shared>);

struct Shared {
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    mux: Mux,
    /// Counts connections: an older one must not touch the tunnel any more.
    line: u64,
    closed: bool,
    driver: Option<Waker>,
    readers: HashMap<u32, Waker>,
    writers: HashMap<u32, Waker>,
    opened: VecDeque<(u32, Vec<u8>)>,
    messages: VecDeque<Vec<u8>>,
    acceptor: Option<Waker>,
    listener: Option<Waker>,
}

impl Tunnel {
    /// An end without a connection.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            inner: Mutex::new(Inner {
                mux: Mux::new(role, limits),
                line: 0,
                closed: false,
                driver: None,
                readers: HashMap::new(),
                writers: HashMap::new(),
                opened: VecDeque::new(),
                messages: VecDeque::new(),
                acceptor: None,
                listener: None,
            }),
        }))
    }

    /// Opens a stream. `ours` is the class of what is sent from here, `theirs` of what comes back.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn open(&self, ours: Class, theirs: Class, header: &[u8]) -> Result<Stream, StreamError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(StreamError::Gone);
        }
        let id = inner.mux.open(ours, theirs, header)?;
        inner.wake_driver();
        drop(inner);
        Ok(Stream::new(self.clone(), id))
    }

    /// The next stream the other end opened, with its header. `None` once the tunnel is closed.
    pub async fn accept(&self) -> Option<(Stream, Vec<u8>)> {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if let Some((id, header)) = inner.opened.pop_front() {
                return Poll::Ready(Some((Stream::new(self.clone(), id), header)));
            }
            if inner.closed {
                return Poll::Ready(None);
            }
            inner.acceptor = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next control message. `None` once the tunnel is closed.
    pub async fn message(&self) -> Option<Vec<u8>> {
        poll_fn(|cx| {
            let mut inner = self.lock();
            if let Some(message) = inner.messages.pop_front() {
                return Poll::Ready(Some(message));
            }
            if inner.closed {
                return Poll::Ready(None);
            }
            inner.listener = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Sends a control message, before all data.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn send(&self, message: &[u8]) -> Result<(), StreamError> {
        let mut inner = self.lock();
        inner.mux.send_message(message)?;
        inner.wake_driver();
        Ok(())
    }

    /// Whether the other end may come back with this number. Changes nothing.
    ///
    /// # Errors
    /// [`Fault::Window`].
    pub fn reaches(&self, their_last: u64) -> Result<(), Fault> {
        self.lock().mux.reaches(their_last)
    }

    /// Ends the connection that is carried, if any, and says which frame arrived last: what the other end is
    /// to be told. Nothing arrives any more until the next [`Tunnel::drive`].
    pub fn stop(&self) -> u64 {
        let mut inner = self.lock();
        inner.line += 1;
        inner.mux.detach();
        inner.wake_driver();
        inner.mux.received()
    }

    /// Whether a connection is carried.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.lock().mux.is_up()
    }

    /// How long nothing has come over the line that is carried. With pings every second, more than two of them
    /// mean that it stands still.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let now = self.now();
        self.lock().mux.silent_for(now)
    }

    /// Ends the tunnel: its connection, and all streams with an error.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.mux.detach();
        inner.wake_driver();
        let (readers, writers) = (std::mem::take(&mut inner.readers), std::mem::take(&mut inner.writers));
        readers.into_values().chain(writers.into_values()).for_each(Waker::wake);
        inner.acceptor.take().into_iter().chain(inner.listener.take()).for_each(Waker::wake);
    }

    /// Waits until the other end has all messages, or until `limit`: before a goodbye.
    pub async fn drained(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.settled() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether there is nobody to wait for, or nothing.
    fn settled(&self) -> bool {
        let inner = self.lock();
        inner.mux.settled() || !inner.mux.is_up()
    }

    /// Numbers of the tunnel.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.lock().mux.stats()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics while it holds the lock; a poisoned tunnel would still be whole.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }
}

impl Inner {
    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Passes on what happened.
    fn news(&mut self) -> Result<(), Fault> {
        while let Some(event) = self.mux.event() {
            let waker = match event {
                Event::Readable(id) => self.readers.remove(&id),
                Event::Writable(id) => self.writers.remove(&id),
                Event::Opened(id, header) => {
                    self.opened.push_back((id, header));
                    self.acceptor.take()
                }
                Event::Message(message) => {
                    if self.messages.len() >= MESSAGES {
                        return Err(Fault::MessageFlood);
                    }
                    self.messages.push_back(message);
                    self.listener.take()
                }
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Ok(())
    }
}
