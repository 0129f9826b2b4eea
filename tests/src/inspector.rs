//! Somebody who opens TLS on the way to the controller, with an authority of their own and no endpoint's key. They read what
//! passes, and may try more.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tram_agent::config::Address;
use tram_agent::link::tls;
use tram_wire::signed::{LABEL, Sealed};

use crate::front::{head, length};

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing: TLS goes through as it is.
    Nothing = 0,
    /// They open TLS and pass on what they read.
    Reads = 1,
    /// They change one bit of what the endpoint says.
    Flips = 2,
    /// They say again what the endpoint said, in a connection of their own.
    Replays = 3,
    /// They answer a request with the controller's answer to the one before it.
    Swaps = 4,
    /// They answer themselves.
    Answers = 5,
}

impl Doing {
    fn of(n: u8) -> Self {
        let all = [Self::Nothing, Self::Reads, Self::Flips, Self::Replays, Self::Swaps, Self::Answers];
        all.into_iter().find(|d| *d as u8 == n).unwrap_or(Self::Nothing)
    }
}

struct Shared {
    doing: AtomicU8,
    requests: AtomicUsize,
    /// What the controller answered to what was not the endpoint's own request.
    answered: Mutex<Vec<u16>>,
    /// The last answer, up and down.
    kept: Mutex<HashMap<bool, Vec<u8>>>,
    /// How often the endpoint was told something wrong.
    lies: AtomicUsize,
    key: KeyPair,
    lines: Mutex<CancellationToken>,
}

/// One, as long as the test runs.
pub struct Inspector {
    /// Where they listen.
    pub at: SocketAddr,
    shared: Arc<Shared>,
}

impl Inspector {
    /// Stands before `to`, with this certificate to the one side and none to the other.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(tls: Arc<ServerConfig>, to: SocketAddr, client: Arc<ClientConfig>) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let at = listener.local_addr()?;
        let shared = Arc::new(Shared {
            doing: AtomicU8::new(Doing::Reads as u8),
            requests: AtomicUsize::new(0),
            answered: Mutex::default(),
            kept: Mutex::default(),
            lies: AtomicUsize::new(0),
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            lines: Mutex::default(),
        });
        let inspector = Self { at, shared: shared.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                while let Ok((line, _)) = listener.accept().await {
                    let cut = shared.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let (tls, client, shared) = (tls.clone(), client.clone(), shared.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = serve(line, tls, to, client, &shared) => {}
                            () = cut.cancelled() => {}
                        }
                    });
                }
            });
        });
        Ok(inspector)
    }

    /// Does this from the next request on; what was said wrong before is forgotten.
    pub fn does(&self, what: Doing) {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.lies.store(0, Ordering::SeqCst);
        self.shared.doing.store(what as u8, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        let mut lines = self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *lines).cancel();
    }

    /// Requests that were read.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// What the controller answered to what was changed or said again.
    #[must_use]
    pub fn answered(&self) -> Vec<u16> {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the endpoint was told something wrong.
    #[must_use]
    pub fn lies(&self) -> usize {
        self.shared.lies.load(Ordering::SeqCst)
    }
}

/// Head and body as they came.
struct Message(String, Vec<u8>);

impl Message {
    async fn read(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Self> {
        let head = head(from).await?;
        let mut body = vec![0; usize::try_from(length(&head))?];
        from.read_exact(&mut body).await?;
        Ok(Self(head, body))
    }

    async fn write(&self, to: &mut (impl AsyncWriteExt + Unpin)) -> Result<()> {
        to.write_all(self.0.as_bytes()).await?;
        to.write_all(&self.1).await?;
        Ok(to.flush().await?)
    }

    fn status(&self) -> Result<u16> {
        Ok(self.0.get(9..12).context("no status")?.parse()?)
    }
}

async fn serve(
    mut line: TcpStream,
    tls: Arc<ServerConfig>,
    to: SocketAddr,
    client: Arc<ClientConfig>,
    shared: &Shared,
) -> Result<()> {
    if Doing::of(shared.doing.load(Ordering::SeqCst)) == Doing::Nothing {
        copy_bidirectional(&mut line, &mut TcpStream::connect(to).await?).await?;
        return Ok(());
    }
    let mut near = TlsAcceptor::from(tls).accept(line).await?;
    let to: Address = format!("https://{to}").parse()?;
    loop {
        let request = Message::read(&mut near).await?;
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let doing = Doing::of(shared.doing.load(Ordering::SeqCst));
        let (up, down) = (request.0.contains("/up/"), request.0.contains("/down/"));
        let answer = match doing {
            Doing::Flips if up => flip(request, &to, client.clone(), shared).await?,
            Doing::Replays if up => {
                let answer = ask(&request, &to, client.clone()).await?;
                let again = ask(&request, &to, client.clone()).await?.status()?;
                shared.answered.lock().unwrap_or_else(PoisonError::into_inner).push(again);
                answer
            }
            Doing::Swaps if up || down => swap(ask(&request, &to, client.clone()).await?, up, shared),
            Doing::Answers if up => make_up(&request, shared)?,
            _ => ask(&request, &to, client.clone()).await?,
        };
        answer.write(&mut near).await?;
    }
}

/// Asks the controller, without a certificate.
async fn ask(request: &Message, to: &Address, client: Arc<ClientConfig>) -> Result<Message> {
    let mut far = tls::connect(to, client).await?;
    request.write(&mut far).await?;
    Message::read(&mut far).await
}

async fn flip(mut request: Message, to: &Address, client: Arc<ClientConfig>, shared: &Shared) -> Result<Message> {
    *request.1.last_mut().context("no body")? ^= 1;
    let answer = ask(&request, to, client).await?;
    shared.answered.lock().unwrap_or_else(PoisonError::into_inner).push(answer.status()?);
    Ok(answer)
}

fn swap(answer: Message, up: bool, shared: &Shared) -> Message {
    let mut kept = shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
    match kept.insert(up, answer.1.clone()) {
        Some(body) => {
            shared.lies.fetch_add(1, Ordering::SeqCst);
            sent(body)
        }
        None => answer,
    }
}

/// All is well, says somebody with a key of their own.
fn make_up(request: &Message, shared: &Shared) -> Result<Message> {
    let asked = Sealed::read(&request.1).context("not sealed")?;
    let signature = shared.key.sign(LABEL)?;
    ensure!(asked.status == 0, "no request");
    shared.lies.fetch_add(1, Ordering::SeqCst);
    Ok(sent(Sealed { counter: asked.counter, status: 204, signature: &signature, body: &[] }.write()))
}

fn sent(body: Vec<u8>) -> Message {
    Message(format!("HTTP/1.1 200 OK\r\nvia: 1.1 office\r\ncontent-length: {}\r\n\r\n", body.len()), body)
}
