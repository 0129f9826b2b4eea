//! The node's side: who comes in, what they may ask.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::{self, Answer, Call, Fault, FromNode, Hello, Purpose, ToNode, VERSION, Welcome};
use super::{BEAT, Certificate, Figures, HANDSHAKE, LINGER, SILENCE, images};
use crate::{AccelPolicy, DesktopId, Display, Error, HostEvent, HostInfo, Hypervisor, OpenOptions, Result};

/// Connections at once: a few controllers, and ten for each of the host's sessions.
const CONNECTIONS: usize = 4096;
/// Calls one controller may have under way; more are told to wait.
const CALLS: usize = 256;
/// Frames that wait to leave.
const FRAMES: usize = 64;
/// Images taken in at once.
const IMAGES: usize = 2;
/// One piece of a display carried at once.
const PIECE: usize = 16 << 10;

type Line = TlsStream<TcpStream>;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Backend of the host itself, such as `qemu:///system`.
    pub uri: String,
    /// Whose desktops it keeps, and where; the acceleration is each controller's to say.
    pub options: OpenOptions,
    /// What it serves with, if that is to renew itself.
    pub certificate: Option<Arc<dyn Certificate>>,
}

/// A host's node.
pub struct Node {
    settings: Settings,
    backend: Mutex<Option<(AccelPolicy, Arc<dyn Hypervisor>)>>,
    images: Semaphore,
    figures: Figures,
}

impl Node {
    /// Opens the backend, so that a wrong address is told at the start and not to the first controller.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn open(settings: Settings) -> Result<Arc<Self>> {
        if settings.uri.starts_with("node:") {
            return Err(Error::Invalid("a node stands before its own host, not before another node".into()));
        }
        let accel = settings.options.accel;
        let backend = crate::open(&settings.uri, settings.options.clone())?;
        images::clear(&settings.options.owner.image_dir);
        Ok(Arc::new(Self {
            settings,
            backend: Mutex::new(Some((accel, backend))),
            images: Semaphore::new(IMAGES),
            figures: Figures::default(),
        }))
    }

    /// What it counts.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The host as the hypervisor sees it now: an error is what controllers are told, too.
    ///
    /// # Errors
    /// The hypervisor's.
    pub async fn look(&self) -> Result<HostInfo> {
        let open = self.backend.lock().await.as_ref().map(|(_, backend)| backend.clone());
        let backend = open.ok_or_else(|| Error::Unreachable("the hypervisor is being opened".into()))?;
        Ok(HostInfo { certificate_until: self.certificate_until(), ..backend.host_info().await? })
    }

    /// The last moment its certificate is good, microseconds since 1970.
    #[must_use]
    pub fn certificate_until(&self) -> Option<i64> {
        self.settings.certificate.as_ref().map(|c| c.not_after())
    }

    /// The backend with the acceleration a controller wants.
    async fn backend(&self, accel: AccelPolicy) -> Result<Arc<dyn Hypervisor>> {
        let mut slot = self.backend.lock().await;
        match &*slot {
            Some((open, backend)) if *open == accel => Ok(backend.clone()),
            _ => {
                let options = OpenOptions { accel, ..self.settings.options.clone() };
                let backend = crate::open(&self.settings.uri, options)?;
                *slot = Some((accel, backend.clone()));
                Ok(backend)
            }
        }
    }

    fn judge(&self, hello: &Hello) -> Result<()> {
        if hello.version != VERSION {
            return Err(Error::Unsupported(format!(
                "the node speaks version {VERSION} and the controller {}: bring both to the same release",
                hello.version
            )));
        }
        if hello.installation != self.settings.options.owner.installation {
            return Err(Error::Invalid(
                "the node belongs to another installation: issue it anew with `tram-controller admin node issue`"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Serves until dropped. Dropping it ends every connection; desktops go on.
///
/// # Errors
/// The listener's, when it can't accept at all any more.
pub async fn serve(node: Arc<Node>, listener: TcpListener, tls: Arc<ServerConfig>) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(seat) = room.clone().acquire_owned().await else { return Ok(()) };
        let (stream, peer) = match listener.accept().await {
            Ok(come) => come,
            // Out of descriptors, or gone before it was taken: the next one may be luckier.
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (node, acceptor) = (node.clone(), acceptor.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let _held = Figures::held(&node.figures.connections);
            if let Err(e) = connection(&node, &acceptor, stream).await {
                tracing::debug!(%peer, error = %e, "a connection ended");
            }
            drop(seat);
        });
    }
}

async fn connection(node: &Arc<Node>, acceptor: &TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let greeted = async {
        let mut line = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
        let hello: Hello = timeout(HANDSHAKE, wire::first(&mut line)).await??;
        io::Result::Ok((line, hello))
    };
    let (mut line, hello) = greeted.await.inspect_err(|_| Figures::add(&node.figures.refused))?;
    let backend = match node.judge(&hello) {
        Ok(()) => node.backend(hello.accel).await,
        Err(e) => Err(e),
    };
    let backend = match backend {
        Ok(backend) => backend,
        Err(e) => {
            Figures::add(&node.figures.refused);
            return refuse(&mut line, e).await;
        }
    };
    match hello.purpose {
        Purpose::Calls => {
            wire::send(&mut line, &Welcome::Ok(()), &[]).await?;
            calls(node, backend, line).await
        }
        Purpose::Display { desktop, display } => {
            let _held = Figures::held(&node.figures.displays);
            show(&*backend, desktop, display, line).await
        }
        Purpose::Image { file, size } => image(node, &file, size, line).await,
    }
}

async fn refuse(line: &mut Line, why: Error) -> io::Result<()> {
    wire::send(line, &Welcome::Err(why.into()), &[]).await?;
    line.shutdown().await
}

async fn calls(node: &Arc<Node>, backend: Arc<dyn Hypervisor>, line: Line) -> io::Result<()> {
    let (mut from, mut to) = split(line);
    let (say, mut said) = mpsc::channel::<Vec<u8>>(FRAMES);
    let mut events = backend.events();
    let hear = async {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.try_join_next().is_some() {}
            let message = timeout(SILENCE, wire::receive::<ToNode, _>(&mut from)).await??.0;
            let (n, call) = match message {
                ToNode::Call { n, call } => (n, call),
                ToNode::Beat => continue,
                ToNode::Renewed { pem } => {
                    install(node, &pem);
                    continue;
                }
            };
            if under_way.len() >= CALLS {
                let answer = FromNode::Answer { n, answer: Err(Error::Overloaded.into()) };
                let _ = say.send(wire::frame(&answer, &[])?).await;
                continue;
            }
            let (node, backend, say) = (node.clone(), backend.clone(), say.clone());
            under_way.spawn(async move {
                Figures::add(&node.figures.calls);
                let (answer, body) = match answer(&node, &*backend, call).await {
                    Ok((answer, body)) => (Ok(answer), body),
                    Err(fault) => {
                        Figures::add(&node.figures.calls_failed);
                        (Err(fault), Vec::new())
                    }
                };
                let refused = |e: io::Error| {
                    let answer = Err(Error::Refused(format!("the answer can't be sent: {e}")).into());
                    wire::frame(&FromNode::Answer { n, answer }, &[])
                };
                if let Ok(frame) = wire::frame(&FromNode::Answer { n, answer }, &body).or_else(refused) {
                    let _ = say.send(frame).await;
                }
            });
        }
    };
    let tell = async {
        let mut beat = interval(BEAT);
        loop {
            let frame = tokio::select! {
                frame = said.recv() => match frame {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
                event = events.recv() => match event {
                    Ok(event) => wire::frame(&FromNode::Event(event), &[])?,
                    Err(RecvError::Lagged(_)) => wire::frame(&FromNode::Event(HostEvent::Resync), &[])?,
                    Err(RecvError::Closed) => return Err(io::ErrorKind::BrokenPipe.into()),
                },
                _ = beat.tick() => match node.settings.certificate.as_ref().and_then(|c| c.request()) {
                    Some(request) => wire::frame(&FromNode::Renew { request }, &[])?,
                    None => wire::frame(&FromNode::Beat, &[])?,
                },
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

fn install(node: &Node, pem: &str) {
    let Some(certificate) = &node.settings.certificate else { return };
    match tokio::task::block_in_place(|| certificate.install(pem)) {
        Ok(()) => tracing::info!("the node's certificate was renewed"),
        Err(why) => tracing::warn!(why, "the node's certificate was not renewed"),
    }
}

async fn answer(node: &Node, hv: &dyn Hypervisor, call: Call) -> Result<(Answer, Vec<u8>), Fault> {
    let done = match call {
        Call::HostInfo => {
            Answer::HostInfo(HostInfo { certificate_until: node.certificate_until(), ..hv.host_info().await? })
        }
        Call::EnsureDisk(spec) => {
            if let Err(e) = hv.ensure_disk(&spec).await {
                let missing = matches!(e, Error::NotFound(_))
                    && !node.settings.options.owner.image_dir.join(&spec.image_file).exists();
                let fault = Fault::from(e);
                return Err(if missing { fault.for_want_of_an_image() } else { fault });
            }
            Answer::Done
        }
        Call::EnsureDefined(spec) => hv.ensure_defined(&spec).await.map(|()| Answer::Done)?,
        Call::EnsureRunning(id) => hv.ensure_running(id).await.map(|()| Answer::Done)?,
        Call::EnsureStopped(id, how) => hv.ensure_stopped(id, how).await.map(|()| Answer::Done)?,
        Call::Reset(id) => hv.reset(id).await.map(|()| Answer::Done)?,
        Call::EnsureAbsent(id) => hv.ensure_absent(id).await.map(|()| Answer::Done)?,
        Call::Observe(id) => Answer::Observed(hv.observe(id).await?),
        Call::Inventory => Answer::Inventory(hv.inventory().await?),
        Call::Screenshot(id) => return Ok((Answer::Picture, hv.screenshot(id).await?)),
        Call::SignedIn(id) => Answer::SignedIn(hv.signed_in(id).await?),
        Call::Stats => Answer::Stats(hv.stats().await?),
    };
    Ok((done, Vec::new()))
}

async fn show(hv: &dyn Hypervisor, desktop: DesktopId, display: Display, mut line: Line) -> io::Result<()> {
    let fd = match hv.open_display(desktop, display).await {
        Ok(fd) => StdUnixStream::from(fd),
        Err(e) => return refuse(&mut line, e).await,
    };
    fd.set_nonblocking(true)?;
    let mut display = UnixStream::from_std(fd)?;
    wire::send(&mut line, &Welcome::Ok(()), &[]).await?;
    let (mut from_gateway, mut to_gateway) = split(line);
    let (mut from_display, mut to_display) = display.split();
    let gateway_left = tokio::select! {
        _ = pass(&mut from_gateway, &mut to_display) => true,
        // Its end is the display's; a failure is most likely the gateway's.
        end = pass(&mut from_display, &mut to_gateway) => end.is_err(),
    };
    if gateway_left {
        let drained = async { while from_display.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} };
        let _ = timeout(LINGER, drained).await;
        return Ok(());
    }
    to_gateway.shutdown().await
}

/// Each piece as it came, in one write: what belongs together stays together.
async fn pass<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(from: &mut R, to: &mut W) -> io::Result<()> {
    let mut piece = vec![0; PIECE].into_boxed_slice();
    loop {
        let n = from.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&piece[..n]).await?;
        to.flush().await?;
    }
}

async fn image(node: &Node, file: &str, size: u64, mut line: Line) -> io::Result<()> {
    let Ok(_seat) = node.images.try_acquire() else {
        return refuse(&mut line, Error::Overloaded).await;
    };
    let folder = &node.settings.options.owner.image_dir;
    wire::send(&mut line, &Welcome::Ok(()), &[]).await?;
    let done = images::take(&mut line, folder, file, size).await;
    match &done {
        Ok(()) => {
            Figures::add(&node.figures.images);
            tracing::info!(file, size, "a golden image came in");
        }
        Err(e) => tracing::warn!(file, size, error = %e, "a golden image was not taken in"),
    }
    wire::send(&mut line, &done.map_err(Fault::from), &[]).await?;
    line.shutdown().await
}
