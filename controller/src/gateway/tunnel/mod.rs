//! Tunnels of endpoints: many streams over one connection that may break.
//!
//! ```text
//! agents/accept ── mTLS, upgrade ──► Gateway::tunnel ── hello ──► open | again ──► Carried::run
//!                                                    └─ resume ─► the Carried of that session
//! Carried::run: drives the line ⇄ waits for it (the desktops' sides stay open for the grace) ─► over
//! ```
//! One session, one [`carry::Carried`], one task. A line that comes back is handed to that task, which is the
//! only one to judge it: what two of them at once do is decided by who comes first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tram_tunnel::{Limits, Line, LineEnd, Role, Tunnel, read_words, write_words};
use tram_wire::Incoming;
use tram_wire::ids::{DesktopId, EndpointId, SessionId};
use tram_wire::lease::Lease;
use tram_wire::session::{Denial, Hello, Opened, Protocol, Refused, Resume, ToAgent, ToGateway, Welcome};
use tram_wire::version;

use super::admit::Slot;
use super::lease::Way;
use super::link::Link;
use super::{Gateway, note_refusal};
use crate::domain::policy::SessionPolicy;
use crate::domain::session::Cut;
use crate::domain::ticket::{self, Binding, Protocols};
use crate::identity::secret::Secret;
use crate::services::{broker, tunnels};
use crate::store::tickets::Redeemed;

mod carry;
mod pump;

use self::carry::{Carried, Coming};

/// Streams of one tunnel: SPICE needs ten.
const STREAMS: usize = 16;
/// How long the last message to an agent may take.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

/// Who is at the other end, as its certificate proved.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// SHA-256 of its certificate.
    pub certificate: [u8; 32],
    /// Where it calls from.
    pub peer: SocketAddr,
}

pub(super) type BoxedLine = Box<dyn Line>;

/// Tunnels with a session, by session.
#[derive(Default)]
pub(super) struct Tunnels(Mutex<HashMap<SessionId, Seat>>);

struct Seat {
    endpoint: EndpointId,
    link: Arc<Link>,
    coming: mpsc::Sender<Coming>,
}

impl Tunnels {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the tunnels of endpoints that were withdrawn.
    pub(super) fn cut_endpoints(&self, gone: &[EndpointId]) {
        for seat in self.map().values().filter(|s| gone.contains(&s.endpoint)) {
            seat.link.cut(Cut::Ended);
        }
    }

    /// Their links.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.map().values().map(|s| s.link.clone()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map().is_empty()
    }
}

/// A session that was let in.
struct Entry {
    session: SessionId,
    desktop: DesktopId,
    protocols: Protocols,
    epoch: i64,
    token: Secret,
    policy: SessionPolicy,
    /// How old its ticket was, microseconds.
    age: i64,
    /// The lease it was let in by.
    lease: Option<Lease>,
}

impl Gateway {
    /// One connection of an agent, from its first words to its end.
    pub async fn tunnel<L: Line + 'static>(&self, caller: Caller, line: L) {
        let Ok(slot) = self.0.half_open.enter(caller.peer.ip()) else {
            counter!("gateway_refused_total", "code" => "G-103").increment(1);
            return;
        };
        let mut line: BoxedLine = Box::new(line);
        let Ok(Ok(words)) = timeout(self.0.policy.handshake, read_words(&mut line)).await else { return };
        match ToGateway::decode(&words) {
            Ok(Incoming::Message(ToGateway::Hello(hello))) => self.fresh(caller, line, hello, slot).await,
            Ok(Incoming::Message(ToGateway::Resume(resume))) => self.resume(caller, line, resume).await,
            _ => refuse(line, Denial::Malformed).await,
        }
    }

    async fn resume(&self, caller: Caller, line: BoxedLine, resume: Resume) {
        let Ok(version) = version::negotiate(resume.versions) else { return refuse(line, Denial::Version).await };
        // One answer for a session that is not here and for one of another endpoint.
        let seat = self
            .0
            .tunnels
            .map()
            .get(&resume.session)
            .filter(|s| s.endpoint == caller.endpoint)
            .map(|s| s.coming.clone());
        let Some(coming) = seat else { return refuse(line, Denial::UnknownSession).await };
        if let Err(mpsc::error::SendError(back)) =
            coming.send(Coming { line, resume, version, peer: caller.peer }).await
        {
            refuse(back.line, Denial::UnknownSession).await;
        }
    }

    async fn fresh(&self, caller: Caller, mut line: BoxedLine, hello: Hello, slot: Slot) {
        let Ok(version) = version::negotiate(hello.versions) else { return refuse(line, Denial::Version).await };
        if say(&mut line, &ToAgent::Welcome(Welcome { version })).await.is_err() {
            return;
        }
        let tunnel = Tunnel::new(Role::Gateway, Limits { streams: STREAMS, ..Limits::default() });
        let driven = tunnel.clone();
        let mut drive: carry::Drive = Box::pin(async move { driven.drive(line, 0).await });
        let asked = timeout(self.0.policy.handshake, self.ask(caller, &tunnel));
        let entry = tokio::select! {
            end = &mut drive => return ended(&end),
            asked = asked => asked.unwrap_or(Err(Denial::Malformed)),
        };
        drop(slot);
        match entry {
            Ok(entry) => self.carry_tunnel(caller, tunnel, drive, entry).await,
            Err(reason) => {
                counter!("gateway_refused_total", "code" => reason.code()).increment(1);
                send(&tunnel, &ToAgent::Refused(Refused { reason }));
                tokio::select! {
                    _ = drive => {}
                    () = tunnel.drained(LAST_WORDS) => {}
                }
                tunnel.close();
            }
        }
    }

    /// The first message: which session.
    async fn ask(&self, caller: Caller, tunnel: &Tunnel) -> Result<Entry, Denial> {
        let message = tunnel.message().await.ok_or(Denial::Malformed)?;
        if self.closed() {
            return Err(Denial::Unavailable);
        }
        match ToGateway::decode(&message) {
            // Known to fail, and said at once: nothing is opened that nobody can look up.
            Ok(Incoming::Message(ToGateway::Open(_) | ToGateway::Again(_))) if self.away() => Err(Denial::Unavailable),
            Ok(Incoming::Message(ToGateway::Open(open))) => self.redeem(caller, open.ticket).await,
            Ok(Incoming::Message(ToGateway::Again(again))) => {
                let ip = caller.peer.ip().to_string();
                let app = &self.0.app;
                let found = tunnels::again(app, again.session, &again.token, caller.endpoint, self.0.id, &ip).await;
                match found {
                    Ok(Some(r)) => Ok(Entry {
                        session: again.session,
                        desktop: r.desktop,
                        protocols: r.protocols,
                        epoch: r.epoch,
                        token: r.token,
                        policy: r.policy,
                        age: 0,
                        lease: None,
                    }),
                    Ok(None) => Err(Denial::Ticket),
                    Err(e) => Err(unavailable(&e)),
                }
            }
            Ok(Incoming::Message(ToGateway::Lease(by))) => {
                let Way { session, lease, epoch, protocols, policy, token } = self.by_lease(caller, &by.lease).await?;
                let desktop = lease.desktop;
                Ok(Entry { session, desktop, protocols, epoch, token, policy, age: 0, lease: Some(lease) })
            }
            _ => Err(Denial::Malformed),
        }
    }

    /// The tunnel this endpoint itself has for a session.
    pub(super) fn link_of(&self, caller: Caller, session: SessionId) -> Option<Arc<Link>> {
        self.0.tunnels.map().get(&session).filter(|s| s.endpoint == caller.endpoint).map(|s| s.link.clone())
    }

    async fn redeem(&self, caller: Caller, ticket: String) -> Result<Entry, Denial> {
        let app = &self.0.app;
        let proved = Binding::Endpoint { id: caller.endpoint, certificate: caller.certificate };
        let Redeemed { session_id, desktop_id, protocols, age, policy, .. } =
            match broker::redeem(app, &ticket, &proved, None).await {
                Ok(Some(redeemed)) => redeemed,
                Ok(None) => {
                    tokio::spawn(note_refusal(app.clone(), ticket, caller.peer.ip()));
                    return Err(Denial::Ticket);
                }
                Err(e) => return Err(unavailable(&e)),
            };
        let attached = broker::attached(app, session_id, self.0.id, &caller.peer.ip().to_string()).await;
        let epoch = match attached {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(_)) => return Err(Denial::Ticket),
            Err(e) => return Err(unavailable(&e)),
        };
        let token = tunnels::promise(app, session_id, caller.endpoint, protocols, epoch).await;
        let token = token.map_err(|e| unavailable(&e))?;
        Ok(Entry { session: session_id, desktop: desktop_id, protocols, epoch, token, policy, age, lease: None })
    }

    async fn carry_tunnel(&self, caller: Caller, tunnel: Tunnel, drive: carry::Drive, entry: Entry) {
        let link = Arc::new(Link::new(entry.session, entry.desktop, entry.epoch).calling_from(caller.peer));
        link.obey(&entry.policy);
        match &entry.lease {
            Some(lease) => self.hold(caller, &link, lease.clone(), &entry.token),
            None => self.seat(&link).await,
        }
        link.feel(|e| e.ticket_ms = u64::try_from(entry.age / 1000).ok().filter(|_| entry.age > 0));
        let (coming, arrivals) = mpsc::channel(4);
        let seat = Seat { endpoint: caller.endpoint, link: link.clone(), coming };
        self.0.tunnels.map().insert(entry.session, seat);
        if let Some(old) = self.links().insert(entry.session, link.clone()) {
            old.cut(Cut::TakenOver);
        }
        let secret = Secret::generate("");
        send(
            &tunnel,
            &ToAgent::Opened(Opened {
                session: entry.session,
                secret: secret.reveal().to_owned(),
                again: entry.token.reveal().to_owned(),
                protocols: entry.protocols.iter().map(on_wire).collect(),
                grace_s: u32::try_from(self.0.policy.line_grace.as_secs()).unwrap_or(u32::MAX),
            }),
        );
        let carried = Carried::new(self.clone(), tunnel, link.clone(), entry, secret, arrivals, caller.peer);
        carried.run(drive).await;
        self.let_go(&link).await;
        {
            let mut map = self.0.tunnels.map();
            if map.get(&link.session).is_some_and(|s| Arc::ptr_eq(&s.link, &link)) {
                map.remove(&link.session);
            }
        }
        self.forget(&link);
    }
}

fn on_wire(p: ticket::Protocol) -> Protocol {
    match p {
        ticket::Protocol::Vnc => Protocol::Vnc,
        ticket::Protocol::Spice => Protocol::Spice,
    }
}

fn unavailable(e: &crate::services::Error) -> Denial {
    tracing::error!(error = %e, "a tunnel's session could not be looked up");
    Denial::Unavailable
}

/// A message on a running tunnel; a full queue means that nobody reads, which ends it anyway.
fn send(tunnel: &Tunnel, message: &ToAgent) {
    if let Ok(text) = message.encode() {
        let _ = tunnel.send(text.as_bytes());
    }
}

/// First words on a line.
async fn say(line: &mut BoxedLine, words: &ToAgent) -> std::io::Result<()> {
    let text = words.encode().map_err(std::io::Error::other)?;
    timeout(LAST_WORDS * 20, write_words(line, text.as_bytes())).await?
}

async fn refuse(mut line: BoxedLine, reason: Denial) {
    counter!("gateway_refused_total", "code" => reason.code()).increment(1);
    let _ = say(&mut line, &ToAgent::Refused(Refused { reason })).await;
    // The reason would be lost with an end that comes before it was read.
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut line).await;
}

/// A line is over: counted by why.
fn ended(end: &LineEnd) {
    let why = match end {
        LineEnd::Lost(_) => "lost",
        LineEnd::Silent => "silent",
        LineEnd::Fault(fault) => {
            tracing::warn!(fault = fault.code(), "an agent broke the rules of the tunnel");
            fault.code()
        }
        LineEnd::Superseded => "superseded",
        LineEnd::Closed => "closed",
    };
    counter!("tunnel_lines_ended_total", "why" => why).increment(1);
}
