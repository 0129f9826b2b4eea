//! The link: opening it, what is heard on it, what is said, and what its end means.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ClientConfig;
use tram_wire::diagnosis::OrderNews;
use tram_wire::enrol::Issued;
use tram_wire::heartbeat::{Beat, Goodbye, GoodbyeReason};
use tram_wire::{AgentMessage, ControllerMessage, Refusal};

use super::{App, note, standing};
use crate::actions::Here;
use crate::checks::Reach;
use crate::config::Intercepted;
use crate::host::Host;
use crate::identity::Request;
use crate::link::machine::Heard;
use crate::link::signed::Signer;
use crate::link::way::Blocked;
use crate::link::{Link, LinkError, Way, time, tls, way};
use crate::outbox::Turn;
use crate::report::LinkFacts;
use crate::status::{LinkStatus, Status};
use crate::trusted;

/// A try to link.
pub(super) type Opening = Pin<Box<dyn Future<Output = Opened>>>;

/// What became of a try.
pub(super) enum Opened {
    Link(Link),
    /// A certificate for a new key: the old one had ended.
    Renewed(Request, Issued),
    /// The ended certificate is not renewed.
    Refused(Refusal),
    Failed(LinkError),
}

/// From a cut to the record that tells of it.
const AFTER_CUT: Duration = Duration::from_secs(5);

impl<H: Host + Send + 'static> App<H> {
    pub(super) fn open(&mut self) {
        self.identity.connects += 1;
        if let Err(e) = self.identity.save(&self.state) {
            note(&format!("the connection count can't be saved: {e}"));
        }
        let (to, tls, signer) = (self.to.clone(), self.tls.clone(), self.signer());
        let (ca, floor) = (self.identity.issued.ca_pem.clone(), self.identity.issued.issued_ms);
        let ended = std::mem::take(&mut self.ended);
        self.opening = Some(Box::pin(async move {
            if ended {
                return standing::renew_ended(&to, tls).await;
            }
            let open = async |tls: Arc<ClientConfig>| match signer.clone() {
                Some(signer) => Link::open_or_sign(&to, tls, signer).await,
                None => Link::open(&to, tls).await,
            };
            match open(tls.clone()).await {
                // This computer's clock says so. The controller's may not.
                Err(LinkError::Connect(e)) if time::is_about_dates(&e) => {
                    let trust = tls::Trust::Ca(ca);
                    if let Err(e) = time::ask(&to, &trust, floor).await {
                        note(&format!(
                            "this computer's clock can't be right, and the controller's time is not known: {e}"
                        ));
                    }
                    open(tls).await.map_or_else(Opened::Failed, Opened::Link)
                }
                other => other.map_or_else(Opened::Failed, Opened::Link),
            }
        }));
    }

    /// What proves both ends where somebody opens TLS on the way, if that is put up with here.
    fn signer(&self) -> Option<Arc<Signer>> {
        if self.intercepted == Intercepted::Refuse {
            return None;
        }
        Signer::new(&self.identity).inspect_err(|e| note(&format!("this computer can't sign requests: {e}"))).ok()
    }

    pub(super) fn opened(&mut self, opened: Opened) {
        match opened {
            Opened::Link(link) => {
                self.peer = link.peer();
                self.blocked = None;
                self.upgrade.linked(self.now(), link.way());
                self.link = Some(link);
                self.machine.opened(self.now());
            }
            Opened::Renewed(request, issued) => {
                self.renewal = Some(request);
                self.renewed(issued);
                self.lost("the certificate had ended and was renewed");
                self.machine.hurry(self.now());
            }
            Opened::Refused(refusal) => {
                self.machine.rest(self.now(), &refusal);
                self.refused(&refusal);
            }
            Opened::Failed(e) => self.broke(&e),
        }
    }

    /// A link failed, or could not be opened.
    pub(super) fn broke(&mut self, e: &LinkError) {
        self.blocked = e.code();
        self.forged += u64::from(self.blocked == Some(Blocked::Forged.code()));
        self.lost(&e.to_string());
    }

    pub(super) fn refused(&mut self, refusal: &Refusal) {
        note(&format!("refused ({}): {refusal}", refusal.code()));
        self.link = None;
        self.up = None;
        self.outbox.cut();
        self.orders.cut();
        self.status = LinkStatus::Refused { code: refusal.code().to_owned(), reason: refusal.to_string() };
        self.save_status();
    }

    pub(super) fn facts(&self) -> LinkFacts {
        let controller = match self.blocked {
            _ if self.machine.is_up() => match self.way() {
                Way::Socket => Reach::Linked,
                Way::Requests => Reach::Polled,
                Way::Signed => Reach::Signed,
            },
            Some(code) => Reach::Blocked(code),
            None => Reach::Silent,
        };
        LinkFacts {
            rtt: self.machine.rtt().filter(|_| self.machine.is_up()),
            skew_ms: self.machine.skew_ms(),
            not_after_ms: Some(self.identity.issued.not_after_ms),
            controller,
            line: self.line.probe(),
            links: self.links,
        }
    }

    pub(super) fn heard(&mut self, message: ControllerMessage) {
        let (now, wall) = (self.now(), self.wall_ms());
        let keys = match &message {
            ControllerMessage::HelloAck(ack) => ack.order_keys.clone(),
            _ => Vec::new(),
        };
        match &message {
            ControllerMessage::HelloAck(a) => trusted::learn(a.server_ms),
            ControllerMessage::BeatAck(a) => trusted::learn(a.server_ms),
            _ => {}
        }
        match self.machine.heard(now, wall, message) {
            Heard::Welcome => {
                note(&format!("linked to {}", self.to));
                let by = self.way().word().map(str::to_owned);
                self.status = LinkStatus::Up { since_ms: wall, by };
                self.up = Some((now, false));
                self.links += 1;
                self.line.back(now);
                self.measuring = None;
                self.orders.keys(&keys);
                self.settled();
                self.schedule_renewal(self.identity.issued.renew_at_ms());
                self.save_status();
            }
            Heard::Quarantined => self.quarantined(wall),
            Heard::NewIdentity => self.rekey = true,
            Heard::Reborn(answer) => self.reborn(answer),
            Heard::Refused(refusal) => {
                self.refused(&refusal);
                if refusal == Refusal::Expired {
                    // Perhaps it was switched off for weeks: whoever has the key may have it renewed.
                    self.ended = true;
                    self.machine.hurry(now);
                }
            }
            Heard::Renewed(issued) => self.renewed(issued),
            Heard::Kept(batch) => {
                self.outbox.kept(batch);
                if !std::mem::replace(&mut self.reported, true) {
                    self.save_status();
                }
            }
            Heard::Plan(plan) => self.plan(plan),
            Heard::Live(live) => {
                self.ledger.note(wall, "asked", &format!("{{\"live_s\":{}}}", live.for_s));
                self.live(live);
            }
            Heard::Order(order) => {
                let entry = self.orders.take(&order, &self.host, self.here(), wall);
                self.ledger.note(wall, "asked", &entry);
            }
            Heard::Cancel(order) => self.orders.cancel(order),
            Heard::Answered | Heard::Stale => {}
        }
    }

    /// What orders may know without looking.
    pub(super) fn here(&self) -> Here {
        Here {
            controller: (self.to.host.clone(), self.to.port),
            rtt: self.machine.rtt(),
            skew_ms: self.machine.skew_ms(),
            findings: self.findings.clone(),
            read_along: self.way() == Way::Signed,
            resend: self.resend.clone(),
            bandwidth: Some(standing::measure(self.to.clone(), self.tls.clone())),
            reread_proxy: Some(way::reread),
        }
    }

    pub(super) async fn ordered(&mut self, news: OrderNews) {
        if self.resend.swap(false, Ordering::Relaxed) {
            self.next_key = self.now();
        }
        self.send(&AgentMessage::OrderNews(news)).await;
    }

    /// Sends a beat, and what waited for one.
    pub(super) async fn beat(&mut self, beat: Beat) {
        let along = if self.short() { self.batch(Turn::Beat) } else { None };
        self.send_both(&AgentMessage::Beat(beat), along.as_ref()).await;
    }

    pub(super) async fn send(&mut self, message: &AgentMessage) {
        self.send_both(message, None).await;
    }

    /// Sends a message, and another one in the same packet.
    async fn send_both(&mut self, message: &AgentMessage, along: Option<&AgentMessage>) {
        let wall = self.wall_ms();
        let plan = self.plan.as_ref().filter(|_| self.up.is_some_and(|(_, planned)| planned));
        let (binary, dictionary) = plan.map_or((false, 0), |p| (p.binary, p.dictionary));
        let Some(link) = &mut self.link else { return };
        for told in [Some(message), along].into_iter().flatten() {
            if !matches!(told, AgentMessage::Beat(_))
                && let Ok(text) = told.encode()
            {
                self.ledger.note(wall, "sent", &text);
            }
        }
        let sending = async {
            match (message, along) {
                (AgentMessage::Beat(beat), Some(report)) => link.beat_with(beat, report, dictionary).await,
                (AgentMessage::Beat(beat), None) if binary => link.beat(beat).await,
                (message, _) if binary => link.send_packed(message, dictionary).await,
                (message, _) => link.send(message).await,
            }
        };
        // A peer that reads nothing must not hold the loop; the machine's deadlines do the rest.
        match tokio::time::timeout(Duration::from_secs(10), sending).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.broke(&e),
            Err(_) => self.lost("the line takes no data"),
        }
    }

    pub(super) fn lost(&mut self, why: &str) {
        self.machine.lost(self.now());
        self.dropped(why);
    }

    pub(super) fn dropped(&mut self, why: &str) {
        self.opening = None;
        self.link = None;
        self.upgrade.cut();
        self.owed = false;
        if self.up.take().is_some() {
            // What there is to say of a cut is said soon, not with the next period.
            self.next_delta = self.next_delta.min(self.now() + AFTER_CUT);
        }
        self.outbox.cut();
        // Nobody listens to what was asked for.
        self.orders.cut();
        // A refusal explains more than the closing that follows it.
        if !matches!(self.status, LinkStatus::Refused { .. }) {
            let down = LinkStatus::Down { reason: why.to_owned(), code: self.blocked.map(str::to_owned) };
            let news = self.status != down;
            self.status = down;
            if news {
                note(&format!("no link: {why}"));
                self.save_status();
            }
        }
    }

    pub(super) async fn stop(&mut self, reason: GoodbyeReason) {
        if self.machine.is_up() {
            self.send(&AgentMessage::Goodbye(Goodbye { reason })).await;
        }
        if let Some(link) = &mut self.link {
            let _ = tokio::time::timeout(Duration::from_secs(1), link.close()).await;
        }
        self.outbox.cut();
        self.status = LinkStatus::Stopped;
        self.save_status();
    }

    pub(super) fn save_status(&self) {
        let status = Status {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            at_ms: self.wall_ms(),
            endpoint_id: self.identity.endpoint_id,
            controller: self.identity.controller.clone(),
            link: self.status.clone(),
            reported: self.reported,
            key: self.identity.key_place().as_str().to_owned(),
            certificate_not_after_ms: self.identity.issued.not_after_ms,
            findings: self.reporter().map(|r| r.findings().to_vec()).unwrap_or_default(),
        };
        if let Err(e) = status.save(Path::new(&self.state)) {
            note(&format!("the status can't be written: {e}"));
        }
    }
}
