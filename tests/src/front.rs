//! What may stand before the controller and meddle: it ends TLS at both sides, with an endpoint's own key, and sees
//! requests and frames.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tram_agent::config::Address;
use tram_agent::link::tls;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// Nothing.
    None = 0,
    /// It knows nothing of upgrades, closes after each answer, and loses one of four.
    NoUpgrade = 1,
    /// It lets no ping and no pong through, and pings both ends itself.
    EatsPings = 2,
}

impl Meddling {
    fn of(n: u8) -> Self {
        match n {
            1 => Self::NoUpgrade,
            2 => Self::EatsPings,
            _ => Self::None,
        }
    }
}

#[derive(Default)]
struct Shared {
    mode: AtomicU8,
    requests: AtomicUsize,
    lost: AtomicUsize,
    eaten: AtomicUsize,
    frames: AtomicUsize,
    lines: Mutex<CancellationToken>,
}

/// One, as long as the test runs.
pub struct Front {
    /// Where it listens.
    pub at: SocketAddr,
    shared: Arc<Shared>,
}

impl Front {
    /// Stands before `to` with this certificate, and shows the one of `client` there.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(tls: Arc<ServerConfig>, to: SocketAddr, client: Arc<ClientConfig>, mode: Meddling) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let front = Self { at, shared: shared.clone() };
        front.meddle(mode);
        let to: Address = format!("https://{to}").parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                while let Ok((line, _)) = listener.accept().await {
                    let cut = shared.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let (tls, to, client, shared) = (tls.clone(), to.clone(), client.clone(), shared.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = serve(line, tls, &to, client, &shared) => {}
                            () = cut.cancelled() => {}
                        }
                    });
                }
            });
        });
        Ok(front)
    }

    /// Does this from the next connection on.
    pub fn meddle(&self, mode: Meddling) {
        self.shared.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        let mut lines = self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *lines).cancel();
    }

    /// Requests without an upgrade that were passed on, and how many answers were lost.
    #[must_use]
    pub fn requests(&self) -> (usize, usize) {
        (self.shared.requests.load(Ordering::SeqCst), self.shared.lost.load(Ordering::SeqCst))
    }

    /// Pings and pongs that were eaten, and other frames that were passed on.
    #[must_use]
    pub fn frames(&self) -> (usize, usize) {
        (self.shared.eaten.load(Ordering::SeqCst), self.shared.frames.load(Ordering::SeqCst))
    }
}

async fn serve(
    line: TcpStream,
    tls: Arc<ServerConfig>,
    to: &Address,
    client: Arc<ClientConfig>,
    shared: &Shared,
) -> Result<()> {
    let mode = Meddling::of(shared.mode.load(Ordering::SeqCst));
    let mut near = TlsAcceptor::from(tls).accept(line).await?;
    let mut far = tls::connect(to, client).await?;
    let request = head(&mut near).await?;
    match mode {
        Meddling::None => {
            far.write_all(request.as_bytes()).await?;
            far.flush().await?;
            copy_bidirectional(&mut near, &mut far).await?;
        }
        Meddling::NoUpgrade => {
            let hop = ["upgrade:", "connection:", "sec-websocket"];
            let kept = request.split_inclusive("\r\n").filter(|l| !hop.iter().any(|h| l.to_lowercase().starts_with(h)));
            far.write_all(kept.collect::<String>().as_bytes()).await?;
            pass(&mut near, &mut far, length(&request)).await?;
            let answer = head(&mut far).await?;
            let n = shared.requests.fetch_add(1, Ordering::SeqCst);
            if n % 4 == 3 {
                // What was answered was done; the one who asked does not know.
                shared.lost.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            let (status, rest) = answer.split_once("\r\n").context("no line")?;
            near.write_all(format!("{status}\r\nconnection: close\r\nvia: 1.1 front\r\n{rest}").as_bytes()).await?;
            pass(&mut far, &mut near, length(&answer)).await?;
            near.shutdown().await?;
        }
        Meddling::EatsPings => {
            far.write_all(request.as_bytes()).await?;
            far.flush().await?;
            let answer = head(&mut far).await?;
            near.write_all(answer.as_bytes()).await?;
            near.flush().await?;
            let ((near_in, near_out), (far_in, far_out)) = (split(near), split(far));
            tokio::select! {
                done = frames(near_in, far_out, &[0x89, 0x80, 0, 0, 0, 0], shared) => done?,
                done = frames(far_in, near_out, &[0x89, 0], shared) => done?,
            }
        }
    }
    Ok(())
}

/// A head, byte by byte: nothing behind it is touched.
pub(crate) async fn head(from: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
        ensure!(head.len() < 16 * 1024, "no head");
    }
    Ok(String::from_utf8(head)?)
}

pub(crate) fn length(head: &str) -> u64 {
    let lower = head.to_lowercase();
    let line = lower.lines().find_map(|l| l.strip_prefix("content-length:").and_then(|n| n.trim().parse().ok()));
    line.unwrap_or(0)
}

async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), bytes: u64) -> Result<()> {
    let passed = tokio::io::copy(&mut from.take(bytes), to).await?;
    ensure!(passed == bytes, "it ended early");
    Ok(to.flush().await?)
}

/// Passes frames on, but no pings and pongs; after every third one pings by itself.
async fn frames(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    ping: &[u8],
    shared: &Shared,
) -> Result<()> {
    for n in 1_u64.. {
        let mut frame = vec![from.read_u8().await?, from.read_u8().await?];
        let long = match frame[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        frame.resize(2 + long, 0);
        from.read_exact(&mut frame[2..]).await?;
        let size = match long {
            0 => usize::from(frame[1] & 0x7f),
            _ => frame[2..].iter().fold(0, |n, b| (n << 8) | usize::from(*b)),
        };
        let masked = if frame[1] & 0x80 == 0 { 0 } else { 4 };
        let at = frame.len();
        frame.resize(at + masked + size, 0);
        from.read_exact(&mut frame[at..]).await?;
        if matches!(frame[0] & 0x0f, 9 | 10) {
            shared.eaten.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        shared.frames.fetch_add(1, Ordering::SeqCst);
        to.write_all(&frame).await?;
        if n % 3 == 0 {
            to.write_all(ping).await?;
        }
        to.flush().await?;
    }
    Ok(())
}
