//! The caller's side: a backend whose host is somewhere else.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::{self, Answer, Call, Fault, FromNode, Hello, Purpose, ToNode, VERSION, Welcome};
use super::{Access, BEAT, HANDSHAKE, PORT, SILENCE, Signer, images};
use crate::uri::Uri;
use crate::{
    DesktopId, DesktopSpec, DesktopStats, Display, Error, Found, HostEvent, HostInfo, Hypervisor, Observed,
    OpenOptions, Result, Stop,
};

/// Between two attempts to reach a node: first and longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Calls that wait to leave.
const WAITING: usize = 256;
/// Events kept for a slow listener.
const EVENTS: usize = 1024;
/// One piece of a display carried at once.
const PIECE: usize = 16 << 10;

type Line = TlsStream<TcpStream>;
type Waiting = oneshot::Sender<Result<(Answer, Vec<u8>), Fault>>;

/// A host behind its node.
pub struct Remote {
    shared: Arc<Shared>,
    link: watch::Receiver<Link>,
    keeper: AbortHandle,
}

struct Shared {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    signer: Option<Arc<dyn Signer>>,
    options: OpenOptions,
    events: broadcast::Sender<HostEvent>,
    /// Who waits for which answer.
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    /// Images that are being sent, and how far: sent and all bytes.
    sending: Mutex<HashMap<String, (u64, u64)>>,
}

/// How the connection for calls is.
#[derive(Clone)]
enum Link {
    /// Never yet up, and not yet failed.
    Coming,
    Up(mpsc::Sender<Vec<u8>>),
    Down(String),
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Remote {
    /// A backend at `node://HOST[:PORT]`; connects by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another address, without [`OpenOptions::tls`], or outside a runtime.
    pub fn open(uri: &str, options: OpenOptions) -> Result<Self> {
        let (host, port) = address(uri)?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| Error::Invalid(format!("{host} is neither a host's name nor its address")))?;
        let Access { tls, signer } =
            options.tls.clone().ok_or_else(|| Error::Invalid("a node is reached with a certificate".into()))?;
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::Invalid("a node is reached from within a runtime".into()))?;
        let shared = Arc::new(Shared {
            host,
            port,
            name,
            tls: tls.into(),
            signer,
            options,
            events: broadcast::Sender::new(EVENTS),
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            sending: Mutex::default(),
        });
        let (say, link) = watch::channel(Link::Coming);
        let keeper = runtime.spawn(keep(shared.clone(), say)).abort_handle();
        Ok(Self { shared, link, keeper })
    }

    async fn call(&self, call: Call) -> Result<(Answer, Vec<u8>), Fault> {
        let deadline = self.shared.options.deadline;
        let n = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let work = async {
            let frame = wire::frame(&ToNode::Call { n, call }, &[]).map_err(|e| Error::Invalid(e.to_string()))?;
            let mut link = self.link.clone();
            let up = match &*link.wait_for(|l| !matches!(l, Link::Coming)).await.map_err(|_| gone())? {
                Link::Up(up) => up.clone(),
                Link::Down(why) => return Err(Error::Unreachable(why.clone()).into()),
                Link::Coming => return Err(gone().into()),
            };
            let (tell, told) = oneshot::channel();
            self.shared.waiting().insert(n, tell);
            // When the connection is lost its channel closes first and the table is cleared then: nobody waits on.
            up.send(frame).await.map_err(|_| gone())?;
            told.await.map_err(|_| gone())?
        };
        let done = timeout(deadline, work).await;
        self.shared.waiting().remove(&n);
        done.unwrap_or_else(|_| Err(Error::Timeout(deadline).into()))
    }

    async fn done(&self, call: Call) -> Result<()> {
        match self.call(call).await?.0 {
            Answer::Done => Ok(()),
            _ => Err(strange()),
        }
    }
}

fn gone() -> Error {
    Error::Unreachable("the connection to the node was lost".into())
}

fn strange() -> Error {
    Error::Refused("the node answered something else than was asked".into())
}

fn address(uri: &str) -> Result<(String, u16)> {
    let wrong = || Error::Invalid("a node's address is node://HOST or node://HOST:PORT".into());
    let uri = Uri::parse(uri)?;
    let rest =
        uri.rest.strip_prefix("//").filter(|_| uri.scheme == "node" && uri.query.is_empty()).ok_or_else(wrong)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (rest, PORT),
    };
    if host.is_empty() || host.contains(['/', '@']) || port == 0 {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, HashMap<String, (u64, u64)>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one purpose, welcomed.
    async fn connect(&self, purpose: Purpose) -> Result<Line> {
        let lost = |e: io::Error| Error::Unreachable(format!("{}:{}: {e}", self.host, self.port));
        let work = async {
            let stream = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port)).await.map_err(lost)?;
            stream.set_nodelay(true).map_err(lost)?;
            let mut line = self.tls.connect(self.name.clone(), stream).await.map_err(lost)?;
            let hello = Hello {
                version: VERSION,
                installation: self.options.owner.installation,
                accel: self.options.accel,
                purpose,
            };
            wire::send(&mut line, &hello, &[]).await.map_err(lost)?;
            let welcome: Welcome = wire::first(&mut line).await.map_err(lost)?;
            welcome?;
            Ok(line)
        };
        timeout(HANDSHAKE.min(self.options.deadline), work)
            .await
            .unwrap_or_else(|_| Err(lost(io::ErrorKind::TimedOut.into())))
    }

    /// Sends a golden image if none is on its way, and says how far it is.
    fn send_image(self: &Arc<Self>, file: &str, missing: Error) -> Error {
        let mut sending = self.sending();
        if let Some((sent, all)) = sending.get(file) {
            let percent = sent * 100 / (*all).max(1);
            return Error::Busy(format!("the image {file} is on its way to this host: {percent} %"));
        }
        // From the folder of published images, by a name that can't climb out of it.
        let path = self.options.owner.image_dir.join(file);
        let Ok(open) = crate::spec::image_file(file).and_then(|()| File::open(path).map_err(|_| strange())) else {
            return missing;
        };
        let size = open.metadata().map_or(0, |m| m.len());
        sending.insert(file.to_owned(), (0, size));
        let (shared, name) = (self.clone(), file.to_owned());
        tokio::spawn(async move {
            match shared.transfer(&name, open, size).await {
                Ok(()) => tracing::info!(host = shared.host, file = name, size, "a golden image was sent"),
                Err(e) => tracing::warn!(host = shared.host, file = name, error = %e, "a golden image was not sent"),
            }
            shared.sending().remove(&name);
            // Whoever waits for it looks again.
            let _ = shared.events.send(HostEvent::Resync);
        });
        Error::Busy(format!("the image {file} is on its way to this host: 0 %"))
    }

    async fn transfer(&self, name: &str, open: File, size: u64) -> Result<()> {
        let mut line = self.connect(Purpose::Image { file: name.to_owned(), size }).await?;
        let said = |sent| {
            self.sending().insert(name.to_owned(), (sent, size));
        };
        let sent = images::send(&mut line, open, said).await;
        // A node that refuses in the middle has said why.
        let welcome = timeout(SILENCE, wire::first::<Welcome, _>(&mut line)).await;
        match (welcome, sent) {
            (Ok(Ok(welcome)), _) => Ok(welcome?),
            (_, Err(e)) | (Ok(Err(e)), _) => Err(Error::Unreachable(e.to_string())),
            (Err(_), _) => Err(Error::Timeout(SILENCE)),
        }
    }
}

/// Keeps the connection for calls, for as long as the backend is held.
async fn keep(shared: Arc<Shared>, link: watch::Sender<Link>) {
    let mut pause = PAUSE.0;
    loop {
        match shared.connect(Purpose::Calls).await {
            Ok(line) => {
                pause = PAUSE.0;
                let (say, said) = mpsc::channel(WAITING);
                link.send_replace(Link::Up(say.clone()));
                let _ = shared.events.send(HostEvent::Resync);
                let why = carry(&shared, line, say, said).await;
                let why = why.map_or_else(|e| e.to_string(), |()| "closed".into());
                link.send_replace(Link::Down(format!("the connection to the node was lost: {why}")));
                shared.waiting().clear();
                let _ = shared.events.send(HostEvent::Lost);
            }
            Err(e) => {
                link.send_replace(Link::Down(e.inner()));
            }
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn carry(
    shared: &Arc<Shared>,
    line: Line,
    say: mpsc::Sender<Vec<u8>>,
    mut said: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let proved = line.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.as_ref().to_vec());
    let (mut from, mut to) = split(line);
    let hear = async {
        loop {
            let (message, body) = timeout(SILENCE, wire::receive::<FromNode, _>(&mut from)).await??;
            match message {
                FromNode::Answer { n, answer } => {
                    if let Some(waiting) = shared.waiting().remove(&n) {
                        let _ = waiting.send(answer.map(|a| (a, body)));
                    }
                }
                FromNode::Event(event) => drop(shared.events.send(event)),
                FromNode::Beat => {}
                FromNode::Renew { request } => {
                    tokio::spawn(renew(shared.clone(), say.clone(), proved.clone(), request));
                }
            }
        }
    };
    let tell = async {
        let mut beat = interval(BEAT);
        loop {
            let frame = tokio::select! {
                frame = said.recv() => frame.ok_or(io::ErrorKind::BrokenPipe)?,
                _ = beat.tick() => wire::frame(&ToNode::Beat, &[])?,
            };
            timeout(SILENCE, async {
                to.write_all(&frame).await?;
                to.flush().await
            })
            .await??;
        }
    };
    tokio::select! {
        end = hear => end,
        end = tell => end,
    }
}

/// Has a node's next certificate signed and sends it.
async fn renew(shared: Arc<Shared>, say: mpsc::Sender<Vec<u8>>, proved: Option<Vec<u8>>, request: String) {
    let (Some(signer), Some(proved)) = (&shared.signer, proved) else { return };
    let signed = match signer.sign(&proved, &request).await {
        Ok(pem) => wire::frame(&ToNode::Renewed { pem }, &[]).map_err(|e| e.to_string()),
        Err(why) => Err(why),
    };
    match signed {
        Ok(frame) => drop(say.send(frame).await),
        Err(why) => tracing::warn!(host = shared.host, why, "a node's certificate was not renewed"),
    }
}

#[async_trait]
impl Hypervisor for Remote {
    async fn host_info(&self) -> Result<HostInfo> {
        match self.call(Call::HostInfo).await?.0 {
            Answer::HostInfo(info) => Ok(info),
            _ => Err(strange()),
        }
    }

    async fn ensure_disk(&self, spec: &DesktopSpec) -> Result<()> {
        match self.call(Call::EnsureDisk(spec.clone())).await {
            Ok((Answer::Done, _)) => Ok(()),
            Ok(_) => Err(strange()),
            Err(fault) if fault.image => Err(self.shared.send_image(&spec.image_file, fault.into())),
            Err(fault) => Err(fault.into()),
        }
    }

    async fn ensure_defined(&self, spec: &DesktopSpec) -> Result<()> {
        self.done(Call::EnsureDefined(spec.clone())).await
    }

    async fn ensure_running(&self, id: DesktopId) -> Result<()> {
        self.done(Call::EnsureRunning(id)).await
    }

    async fn ensure_stopped(&self, id: DesktopId, how: Stop) -> Result<()> {
        self.done(Call::EnsureStopped(id, how)).await
    }

    async fn reset(&self, id: DesktopId) -> Result<()> {
        self.done(Call::Reset(id)).await
    }

    async fn ensure_absent(&self, id: DesktopId) -> Result<()> {
        self.done(Call::EnsureAbsent(id)).await
    }

    async fn observe(&self, id: DesktopId) -> Result<Observed> {
        match self.call(Call::Observe(id)).await?.0 {
            Answer::Observed(observed) => Ok(observed),
            _ => Err(strange()),
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>> {
        match self.call(Call::Inventory).await?.0 {
            Answer::Inventory(found) => Ok(found),
            _ => Err(strange()),
        }
    }

    async fn open_display(&self, desktop: DesktopId, display: Display) -> Result<OwnedFd> {
        let mut line = self.shared.connect(Purpose::Display { desktop, display }).await?;
        let local = |e: io::Error| Error::Refused(format!("no descriptor for the display: {e}"));
        let (theirs, ours) = StdUnixStream::pair().map_err(local)?;
        ours.set_nonblocking(true).map_err(local)?;
        let mut ours = UnixStream::from_std(ours).map_err(local)?;
        // Ends with either side.
        tokio::spawn(async move { copy_bidirectional_with_sizes(&mut ours, &mut line, PIECE, PIECE).await });
        Ok(theirs.into())
    }

    async fn screenshot(&self, id: DesktopId) -> Result<Vec<u8>> {
        match self.call(Call::Screenshot(id)).await? {
            (Answer::Picture, png) => Ok(png),
            _ => Err(strange()),
        }
    }

    async fn signed_in(&self, id: DesktopId) -> Result<Option<bool>> {
        match self.call(Call::SignedIn(id)).await?.0 {
            Answer::SignedIn(is) => Ok(is),
            _ => Err(strange()),
        }
    }

    async fn stats(&self) -> Result<Vec<DesktopStats>> {
        match self.call(Call::Stats).await?.0 {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(strange()),
        }
    }

    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.shared.events.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (uri, host, port) in [
            ("node://may-2", "may-2", PORT),
            ("node://may-2.hanoi.example:9000/", "may-2.hanoi.example", 9000),
            ("node://10.0.0.2", "10.0.0.2", PORT),
            ("node://[2001:db8::2]", "[2001:db8::2]", PORT),
            ("node://[2001:db8::2]:9000", "[2001:db8::2]", 9000),
        ] {
            assert_eq!(address(uri).unwrap(), (host.into(), port), "{uri}");
        }
        for uri in [
            "node:",
            "node://",
            "node:///",
            "node://a:0",
            "node://a:x",
            "node://a:70000",
            "node://u@a",
            "node://a/b",
            "node://a?x=1",
        ] {
            assert!(address(uri).is_err(), "{uri}");
        }
    }
}
