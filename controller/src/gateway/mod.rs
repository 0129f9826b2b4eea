//! Floor 4: carries display traffic. Never changes the outside world.
//!
//! A viewer's way in: [`admit`] reads the request and the broker redeems its ticket; the connection is
//! upgraded; the desktop's display is opened by the host's backend; both RFB handshakes end here
//! ([`protocol`]); [`relay`] copies until one side ends or the [`watch`](Gateway::watch) cuts the [`link`].
//! Support looks at a session through a door and a display of its own ([`assist`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use hyper_util::rt::TokioIo;
use metrics::{counter, histogram};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use tram_hypervisor::Display;
use tram_wire::ids::{DesktopId, SessionId};
use uuid::Uuid;

pub mod admit;
pub mod assist;
mod late;
mod lease;
mod limit;
mod lines;
pub mod link;
mod mark;
mod meter;
pub mod protocol;
pub mod relay;
pub mod shape;
mod sign_in;
mod spool;
mod standing;
pub mod tcp;
mod truth;
pub mod tunnel;
mod warn;
mod watch;
pub mod ws;

use self::admit::{HalfOpen, Knock, Refusal, Slot};
use self::link::Link;
use self::protocol::vnc;
use self::relay::{Buffers, End, Inbox};
use crate::domain::experience::millis;
use crate::domain::session::{Cut, Policy};
use crate::domain::ticket::Protocol;
use crate::fleet::Fleet;
use crate::services::gateways::Me;
use crate::services::{App, broker};
use crate::store::tickets::Redeemed;

/// Opening a display, and its side of the handshake.
const OPEN: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// The gateway of this process; cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    app: App,
    fleet: Fleet,
    policy: Policy,
    /// This process among the gateways.
    id: Uuid,
    /// What it says of itself; one that says nothing is sent nobody.
    me: Option<Me>,
    links: Mutex<HashMap<SessionId, Arc<Link>>>,
    tunnels: tunnel::Tunnels,
    assists: assist::Assists,
    stopped: mark::Stopped,
    shaper: shape::Shaper,
    told_lines: lines::Told,
    leases: lease::Leases,
    half_open: HalfOpen,
    buffers: Buffers,
    stopping: AtomicBool,
    /// An operator wants it empty.
    draining: AtomicBool,
    /// The database did not answer last time.
    away: AtomicBool,
    /// The database knows that there is nothing more to tell of what happened by lease.
    told: AtomicBool,
    late: late::Late,
}

impl Gateway {
    /// A gateway without connections, that nobody is sent to.
    #[must_use]
    pub fn new(app: App, fleet: Fleet, policy: Policy) -> Self {
        Self::made(app, fleet, policy, None)
    }

    /// A gateway that is known to controllers as this, from its first [`Gateway::enter`] on.
    #[must_use]
    pub fn known(app: App, fleet: Fleet, policy: Policy, me: Me) -> Self {
        Self::made(app, fleet, policy, Some(me))
    }

    fn made(app: App, fleet: Fleet, policy: Policy, me: Option<Me>) -> Self {
        let shaper = shape::Shaper::new(policy.limits.gateway_kbit);
        // Several gateways of their own may share a data folder.
        let leases = match &me {
            Some(me) if !me.embedded => lease::Leases::new(&app.data_dir.join(format!("gateway-{}", me.name))),
            _ => lease::Leases::new(&app.data_dir),
        };
        Self(Arc::new(Inner {
            leases,
            app,
            fleet,
            policy,
            shaper,
            told_lines: lines::Told(Mutex::new(Instant::now())),
            id: Uuid::now_v7(),
            me,
            links: Mutex::default(),
            tunnels: tunnel::Tunnels::default(),
            assists: assist::Assists::default(),
            stopped: mark::Stopped::default(),
            half_open: HalfOpen::default(),
            buffers: Buffers::default(),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            away: AtomicBool::new(false),
            told: AtomicBool::new(true),
            late: late::Late::default(),
        }))
    }

    /// Its routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/gateway/v1/vnc", get(enter))
            .route("/gateway/v1/assist", get(assist::enter))
            .with_state(self.clone())
    }

    /// Live connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.links().len()
    }

    /// Sends every viewer away, to come back to whoever serves next; refuses new ones.
    pub async fn drain(&self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.leave().await;
        self.links().values().for_each(|l| l.cut(Cut::Restart));
        self.0.assists.cut_all(Cut::Restart);
        let until = Instant::now() + GOODBYE;
        while self.connections() + self.assists() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Link>>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admit(&self, knock: Knock, peer: IpAddr) -> Result<(Redeemed, Slot), Refusal> {
        if self.closed() || self.away() {
            return Err(Refusal::Unavailable);
        }
        let slot = self.0.half_open.enter(peer)?;
        match broker::redeem(&self.0.app, &knock.ticket, &knock.proved(), Some(Protocol::Vnc)).await {
            Ok(Some(redeemed)) => Ok((redeemed, slot)),
            Ok(None) => {
                // Why is found out after the answer, so that the answer takes the same time for every reason.
                tokio::spawn(note_refusal(self.0.app.clone(), knock.ticket, peer));
                Err(Refusal::Ticket)
            }
            Err(e) => {
                tracing::error!(error = %e, "a ticket could not be looked up");
                Err(Refusal::Unavailable)
            }
        }
    }

    /// One connection from its upgrade to its end.
    async fn carry(self, upgrade: hyper::upgrade::OnUpgrade, ticket: Redeemed, peer: SocketAddr, slot: Slot) {
        let began = Instant::now();
        let open = async { (self.open_display(ticket.session_id, ticket.desktop_id).await, began.elapsed()) };
        let ((display, opened), upgraded) = tokio::join!(open, timeout(self.0.policy.handshake, upgrade));
        let Ok(Ok(upgraded)) = upgraded else { return };
        let (from_viewer, mut viewer) = tokio::io::split(TokioIo::new(upgraded));
        let mut inbox = Inbox::new(from_viewer, &self.0.buffers);
        let end = match display {
            Ok(stream) => self.serve(&mut inbox, &mut viewer, (stream, opened), &ticket, peer, slot).await,
            Err(cut) => End::Cut(cut),
        };
        let (code, reason) = self.last_words(end, ticket.session_id, ticket.desktop_id).await;
        counter!("gateway_closed_total", "code" => code.to_string()).increment(1);
        tracing::info!(session = %ticket.session_id, code, reason, "a viewer is gone");
        goodbye(&mut inbox, &mut viewer, code, &reason).await;
    }

    /// The desktop's RFB display, through its side of the handshake.
    async fn open_display(&self, session: SessionId, desktop: DesktopId) -> Result<UnixStream, Cut> {
        let work = async {
            let mut display =
                self.open_raw(session, desktop, Display::Vnc).await.map_err(|e| e.unwrap_or(Cut::HostLost))?;
            vnc::greet(&mut display).await.map_err(|e| {
                tracing::warn!(desktop = %desktop, error = %e, "a display did not shake hands");
                Cut::DesktopGone
            })?;
            Ok(display)
        };
        timeout(OPEN, work).await.unwrap_or(Err(Cut::HostLost))
    }

    /// A display of the desktop as its hypervisor gives it. `None` for an error: it has no such display.
    async fn open_raw(
        &self,
        session: SessionId,
        desktop: DesktopId,
        which: Display,
    ) -> Result<UnixStream, Option<Cut>> {
        let began = Instant::now();
        let work = async {
            let host = self.host_of(session).await?;
            let backend = self.0.fleet.get(host.into()).ok_or(Cut::HostLost)?;
            let fd = backend.open_display(desktop, which).await.map_err(|e| {
                tracing::warn!(desktop = %desktop, error = %e, code = e.code(), "a display could not be opened");
                truth::of_error(&e)
            })?;
            let stream = StdStream::from(fd);
            let ready = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
            ready.map_err(|_| Some(Cut::HostLost))
        };
        let opened = timeout(OPEN, work).await.unwrap_or(Err(Some(Cut::HostLost)));
        histogram!("gateway_display_open_seconds").record(began.elapsed().as_secs_f64());
        opened
    }

    /// The host of a session's desktop; remembered for a running session while the database is away.
    async fn host_of(&self, session: SessionId) -> Result<Uuid, Cut> {
        let known = self.links().get(&session).cloned();
        // Who came in without the database needs it no more for another display.
        if let Some(host) = known.as_ref().filter(|l| l.epoch() == lease::UNWRITTEN).and_then(|l| l.host()) {
            return Ok(host);
        }
        match self.0.app.store.session(session).await {
            Ok(row) => {
                let host = row.ok_or(Cut::Ended)?.host_id.ok_or(Cut::DesktopGone)?;
                if let Some(link) = known {
                    link.found(host);
                }
                Ok(host)
            }
            Err(e) => {
                tracing::warn!(%session, error = %e, "a session's host could not be looked up");
                known.and_then(|l| l.host()).ok_or(Cut::HostLost)
            }
        }
    }

    async fn serve<R, W>(
        &self,
        inbox: &mut Inbox<'_, R>,
        viewer: &mut W,
        (mut display, opened): (UnixStream, Duration),
        ticket: &Redeemed,
        peer: SocketAddr,
        slot: Slot,
    ) -> End
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match timeout(self.0.policy.handshake, welcome(inbox, viewer)).await {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return end,
            Err(_) => return End::Cut(Cut::Limit),
        }
        let app = &self.0.app;
        let epoch =
            match broker::attached(app, ticket.session_id, self.0.id, &peer.ip().to_canonical().to_string()).await {
                Ok(Ok(epoch)) => epoch,
                Ok(Err(cut)) => return End::Cut(cut),
                Err(e) => {
                    tracing::error!(error = %e, "a connection could not be written down");
                    return End::Cut(Cut::Restart);
                }
            };
        drop(slot);
        let link = Arc::new(Link::new(ticket.session_id, ticket.desktop_id, epoch).calling_from(peer));
        link.obey(&ticket.policy);
        self.seat(&link).await;
        if let Some(old) = self.links().insert(ticket.session_id, link.clone()) {
            old.cut(Cut::TakenOver);
        }
        link.feel(|e| {
            e.ticket_ms = u64::try_from(ticket.age / 1000).ok();
            e.display_ms = Some(millis(opened));
        });
        let end = match display.write_all(&[vnc::SHARED]).await {
            Ok(()) => {
                let first = || self.first_picture(&link, ticket.age);
                relay::run(inbox, viewer, &mut display, &link, &self.0.buffers, first).await
            }
            Err(_) => End::Display,
        };
        // The desktop's side is let go of before anybody waits for the viewer.
        drop(display);
        self.forget(&link);
        self.detach(&link).await;
        end
    }

    /// A newer connection of the session may stand in its place.
    fn forget(&self, link: &Arc<Link>) {
        let mut links = self.links();
        if links.get(&link.session).is_some_and(|l| Arc::ptr_eq(l, link)) {
            links.remove(&link.session);
        }
    }

    async fn detach(&self, link: &Arc<Link>) {
        link.attach(false);
        let (up, down) = link.take_bytes();
        counter!("gateway_bytes_total", "way" => "up").increment(up);
        counter!("gateway_bytes_total", "way" => "down").increment(down);
        if self.count_held(link, up, down) {
            return;
        }
        self.tell(link, None).await;
        self.left(link, up, down).await;
    }

    /// Writes down how a connection feels; `line` is what the kernel says of it.
    async fn tell(&self, link: &Link, line: Option<tcp::Segments>) {
        if self.away() {
            return;
        }
        let (felt, sample) = link.sample(line);
        if let Err(e) = broker::experienced(&self.0.app, link.session, link.epoch(), &felt, &sample).await {
            tracing::warn!(session = %link.session, error = %e, "what a session feels like could not be written down");
        }
    }

    /// A connection shows something; `age` is that of the ticket when it was redeemed, microseconds. Every stream of
    /// a tunnel has a first picture; the connection's is the first of them.
    fn first_picture(&self, link: &Arc<Link>, age: i64) {
        let (id, since_attach) = (link.session, link.age());
        let mut news = false;
        link.feel(|e| {
            news = e.picture_ms.is_none();
            e.picture_ms.get_or_insert(millis(since_attach));
        });
        if !news {
            return;
        }
        self.await_sign_in(link);
        let before = Duration::from_micros(u64::try_from(age).unwrap_or(0));
        histogram!("ticket_to_first_frame_seconds").record((before + since_attach).as_secs_f64());
        let gateway = self.clone();
        tokio::spawn(async move { gateway.pictured(id).await });
    }

    /// Close code and reason of an end.
    async fn last_words(&self, end: End, id: SessionId, desktop: DesktopId) -> (u16, String) {
        let cut = match end {
            End::Viewer => return (1000, String::new()),
            End::Frame(f) => return (f.code(), f.code().to_string()),
            End::Message(m) => {
                tracing::warn!(session = %id, fault = m.0, "a viewer broke the rules of RFB");
                return (1002, "1002".into());
            }
            End::Cut(cut) => cut,
            End::Display => self.why_closed(id, desktop).await,
        };
        (cut.code(), cut.code().to_string())
    }
}

/// A close frame, and what the viewer still sends until it closes.
async fn goodbye<R, W>(inbox: &mut Inbox<'_, R>, viewer: &mut W, code: u16, reason: &str)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let said = async {
        if viewer.write_all(&ws::close_frame(code, reason)).await.is_ok() && viewer.shutdown().await.is_ok() {
            inbox.drain().await;
        }
    };
    let _ = timeout(GOODBYE, said).await;
}

/// The handshake with the viewer.
async fn welcome<R, W>(inbox: &mut Inbox<'_, R>, viewer: &mut W) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let fault = |what| End::Message(vnc::client::Fault(what));
    relay::send(viewer, vnc::VERSION).await?;
    if inbox.exact::<12>().await? != *vnc::VERSION {
        return Err(fault("not RFB 3.8"));
    }
    relay::send(viewer, &vnc::SECURITY).await?;
    if inbox.exact::<1>().await? != [vnc::NONE] {
        return Err(fault("a security type that was not offered"));
    }
    relay::send(viewer, &vnc::OK).await?;
    // ClientInit: whether the viewer wants the desktop for itself is not its choice.
    inbox.exact::<1>().await?;
    Ok(())
}

async fn note_refusal(app: App, ticket: String, peer: IpAddr) {
    match broker::note_refusal(&app, &ticket, &peer.to_string()).await {
        Ok(reason) => {
            counter!("gateway_tickets_refused_total", "reason" => reason).increment(1);
            tracing::info!(%peer, reason, "a ticket was refused");
        }
        Err(e) => tracing::warn!(%peer, error = %e, "a refused ticket could not be looked up"),
    }
}

/// `GET /gateway/v1/vnc`.
async fn enter(State(gateway): State<Gateway>, mut request: Request) -> Response<Body> {
    let peer = peer_of(&request);
    let knock = match admit::knock(request.headers(), &gateway.0.app.public_url) {
        Ok(knock) => knock,
        Err(refusal) => return refusal.response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let accept = knock.accept.clone();
    let (ticket, slot) = match gateway.admit(knock, peer.ip()).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.response(),
    };
    tokio::spawn(gateway.carry(upgrade, ticket, peer, slot));
    switching(accept)
}

/// Where who knocks calls from.
fn peer_of(request: &Request) -> SocketAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0);
    canonical(peer.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// The same for a socket that speaks both families.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// What the kernel knows of all connections; nothing where it does not tell.
async fn kernel() -> HashMap<SocketAddr, tcp::Segments> {
    let asked = tokio::task::spawn_blocking(tcp::connections).await;
    match asked {
        Ok(Ok(all)) => all,
        Ok(Err(e)) => {
            tracing::debug!(error = %e, "the kernel does not tell what was sent again");
            HashMap::new()
        }
        Err(_) => HashMap::new(),
    }
}

/// The door is open; `accept` answers the key.
fn switching(accept: String) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
