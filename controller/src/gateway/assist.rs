//! Support looks at a session: a second display of the same desktop, behind a door of its own. The officer's
//! connection is not touched.
//!
//! What the supporter has no right to is dropped here, whatever their viewer sends ([`Rights`]). These connections
//! are watched apart from the sessions, so that an officer's *stop* waits for nobody; a connection that does not
//! take its goodbye loses the desktop all the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use hyper_util::rt::TokioIo;
use metrics::{counter, gauge};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tram_wire::ids::{AssistId, SessionId};

use super::admit::{self, Knock, Refusal, Slot};
use super::link::Link;
use super::protocol::vnc;
use super::protocol::vnc::requests::Rights;
use super::relay::{self, End, Inbox};
use super::watch::{GATHER, LOOK_EVERY};
use super::{Gateway, goodbye, peer_of, switching, welcome};
use crate::domain::session::Cut;
use crate::nudge::Kind;
use crate::services::{App, assists};
use crate::store::assists::Opened;

/// A database that says nothing for this long can stop nobody.
const ANSWER: Duration = Duration::from_secs(3);

/// Live assists of this gateway.
#[derive(Default)]
pub(super) struct Assists {
    links: Mutex<HashMap<AssistId, Arc<Link>>>,
    /// Those whose end could not be written down yet.
    unsaid: Mutex<Vec<Opened>>,
}

impl Assists {
    fn links(&self) -> MutexGuard<'_, HashMap<AssistId, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, id: AssistId, link: Option<Arc<Link>>) {
        let mut links = self.links();
        match link {
            Some(link) => links.insert(id, link),
            None => links.remove(&id),
        };
        gauge!("gateway_assists").set(links.len() as f64);
    }

    fn unsaid(&self) -> MutexGuard<'_, Vec<Opened>> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts one, if it is of this session.
    pub(super) fn cut(&self, id: AssistId, session: SessionId, why: Cut) {
        if let Some(link) = self.links().get(&id).filter(|l| l.session == session) {
            link.cut(why);
        }
    }

    pub(super) fn cut_all(&self, why: Cut) {
        self.links().values().for_each(|l| l.cut(why));
    }
}

impl Gateway {
    /// Live assists.
    #[must_use]
    pub fn assists(&self) -> usize {
        self.0.assists.links().len()
    }

    /// Cuts every assist that is over, and follows what its keys and mouse may do. Runs until dropped.
    pub(super) async fn watch_assists(&self) {
        let mut changes = self.0.app.store.bus().listen();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                change = changes.recv() => match change {
                    Ok(c) if c.kind == Kind::Session && self.0.assists.links().values().any(|l| l.session.0 == c.id) => {
                        tokio::time::sleep(GATHER).await;
                    }
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => {}
                    // The bus lives as long as the store; the timer goes on in any case.
                    Err(RecvError::Closed) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
            self.look_at_assists().await;
        }
    }

    async fn look_at_assists(&self) {
        self.say_stopped().await;
        let unsaid = std::mem::take(&mut *self.0.assists.unsaid());
        for opened in unsaid {
            self.say_left(opened).await;
        }
        let links: Vec<_> = self.0.assists.links().iter().map(|(id, l)| (*id, l.clone())).collect();
        if links.is_empty() {
            return;
        }
        for (_, link) in &links {
            // Who only looks touches nothing: the time of an assist is limited by itself.
            link.touched();
            if let Some(cut) = link.look(&self.0.policy) {
                link.cut(cut);
            }
        }
        let asked = timeout(ANSWER, assists::standings(&self.0.app)).await;
        match asked.map_err(|_| "no answer in time".to_owned()).and_then(|s| s.map_err(|e| e.to_string())) {
            Ok(standings) => {
                for (id, link) in &links {
                    match standings.iter().find(|(found, _, _)| found == id) {
                        Some((_, None, control)) => {
                            link.grant(if *control { Rights::Control } else { Rights::Look });
                        }
                        _ => link.cut(Cut::Ended),
                    }
                }
            }
            Err(e) => {
                // What nobody could stop must not go on.
                tracing::warn!(error = %e, "the gateway could not look at its assists and ends them");
                self.0.assists.cut_all(Cut::Ended);
            }
        }
    }

    async fn admit_assist(&self, knock: &Knock, peer: IpAddr) -> Result<(Opened, Slot), Refusal> {
        if self.closed() {
            return Err(Refusal::Unavailable);
        }
        let slot = self.0.half_open.enter(peer)?;
        match assists::redeem(&self.0.app, &knock.ticket, knock.proved().hash()).await {
            Ok(Some(opened)) => Ok((opened, slot)),
            Ok(None) => {
                tokio::spawn(note_refusal(self.0.app.clone(), knock.ticket.clone(), peer));
                Err(Refusal::Ticket)
            }
            Err(e) => {
                tracing::error!(error = %e, "a ticket could not be looked up");
                Err(Refusal::Unavailable)
            }
        }
    }

    /// One assist from its upgrade to its end.
    async fn carry_assist(self, upgrade: hyper::upgrade::OnUpgrade, opened: Opened, peer: IpAddr, slot: Slot) {
        let display = self.open_display(opened.session, opened.desktop);
        let (display, upgraded) = tokio::join!(display, timeout(self.0.policy.handshake, upgrade));
        let Ok(Ok(upgraded)) = upgraded else { return };
        let (from_viewer, mut viewer) = tokio::io::split(TokioIo::new(upgraded));
        let mut inbox = Inbox::new(from_viewer, &self.0.buffers);
        let end = match display {
            Ok(display) => self.serve_assist(&mut inbox, &mut viewer, display, &opened, peer, slot).await,
            Err(cut) => End::Cut(cut),
        };
        self.say_left(opened).await;
        let (code, reason) = self.last_words(end, opened.session, opened.desktop).await;
        tracing::info!(session = %opened.session, assist = %opened.assist, code, "support looks no more");
        goodbye(&mut inbox, &mut viewer, code, &reason).await;
    }

    async fn serve_assist<R, W>(
        &self,
        inbox: &mut Inbox<'_, R>,
        viewer: &mut W,
        mut display: UnixStream,
        opened: &Opened,
        peer: IpAddr,
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
        let link = Arc::new(Link::new(opened.session, opened.desktop, 0));
        link.grant(Rights::Look);
        // Watched before it begins: whatever ends it from here on is seen.
        self.0.assists.put(opened.assist, Some(link.clone()));
        let end = match assists::began(&self.0.app, opened, self.0.id, &peer.to_string()).await {
            Ok(true) => {
                drop(slot);
                match display.write_all(&[vnc::SHARED]).await {
                    Ok(()) => relay::run(inbox, viewer, &mut display, &link, &self.0.buffers, || ()).await,
                    Err(_) => End::Display,
                }
            }
            Ok(false) => End::Cut(Cut::Ended),
            Err(e) => {
                tracing::error!(error = %e, "an assist could not be written down");
                End::Cut(Cut::Restart)
            }
        };
        // The desktop's side is let go of before anybody waits for the viewer.
        drop(display);
        self.0.assists.put(opened.assist, None);
        let (up, down) = link.take_bytes();
        counter!("gateway_assist_bytes_total", "way" => "up").increment(up);
        counter!("gateway_assist_bytes_total", "way" => "down").increment(down);
        end
    }

    /// Writes an assist's end down, now or at the next look.
    async fn say_left(&self, opened: Opened) {
        // Who ended it says so.
        if self.0.stopped.has(opened.assist, opened.session) {
            return;
        }
        if let Err(e) = assists::left(&self.0.app, &opened).await {
            tracing::warn!(session = %opened.session, error = %e, "the end of an assist could not be written down");
            self.0.assists.unsaid().push(opened);
        }
    }
}

async fn note_refusal(app: App, ticket: String, peer: IpAddr) {
    match assists::note_refusal(&app, &ticket, &peer.to_string()).await {
        Ok(reason) => tracing::info!(%peer, reason, "a ticket for an assist was refused"),
        Err(e) => tracing::warn!(%peer, error = %e, "a refused ticket could not be looked up"),
    }
}

/// `GET /gateway/v1/assist`.
pub(super) async fn enter(State(gateway): State<Gateway>, mut request: Request) -> Response<Body> {
    let peer = peer_of(&request).ip();
    let knock = match admit::knock(request.headers(), &gateway.0.app.public_url) {
        Ok(knock) => knock,
        Err(refusal) => return refusal.response(),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    match gateway.admit_assist(&knock, peer).await {
        Ok((opened, slot)) => {
            tokio::spawn(gateway.carry_assist(upgrade, opened, peer, slot));
            switching(knock.accept)
        }
        Err(refusal) => refusal.response(),
    }
}
