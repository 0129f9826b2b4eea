//! One session's tunnel, from its opening to its end, over all its lines.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tram_tunnel::{LineEnd, Tunnel};
use tram_wire::Incoming;
use tram_wire::session::{Denial, Ended, Quality, Refused, Resume, Resumed, ToAgent, ToGateway, Warn};

use super::super::Gateway;
use super::super::link::Link;
use super::super::mark;
use super::{BoxedLine, Entry, LAST_WORDS, ended, pump, refuse, say, send};
use crate::domain::session::Cut;
use crate::identity::secret::Secret;

/// A line that is being driven.
pub(super) type Drive = Pin<Box<dyn Future<Output = LineEnd> + Send>>;

/// How often the link is told that the tunnel lives, and the agent how it does.
const LOOK: Duration = Duration::from_secs(5);

/// Words of one agent that are worked on at once.
const WORDS: usize = 4;

/// A line that wants to go on with the session.
pub(super) struct Coming {
    pub(super) line: BoxedLine,
    pub(super) resume: Resume,
    pub(super) version: u16,
    pub(super) peer: SocketAddr,
}

/// How a session's tunnel ends.
enum Over {
    /// Somebody cut it.
    Cut(Cut),
    /// The agent left.
    Left,
    /// Nobody came back in time.
    Lost,
}

pub(super) struct Carried {
    gateway: Gateway,
    tunnel: Tunnel,
    link: Arc<Link>,
    entry: Arc<Entry>,
    secret: Secret,
    /// The one the agent showed last; good until it was heard on the line it came back with, as it may never
    /// have got the new one.
    former: Option<Secret>,
    /// Bytes that had arrived when the line last came back: more means that the agent was heard.
    heard_until: u64,
    /// The agent was told that a limit is near.
    warned: bool,
    arrivals: mpsc::Receiver<Coming>,
    /// Where the agent calls from.
    peer: SocketAddr,
    /// Its screen can show that somebody looks.
    shows: bool,
    /// What of the agent's words is being worked on; whoever says more than this at once is not heard.
    words: Arc<Semaphore>,
}

impl Carried {
    pub(super) fn new(
        gateway: Gateway,
        tunnel: Tunnel,
        link: Arc<Link>,
        entry: Entry,
        secret: Secret,
        arrivals: mpsc::Receiver<Coming>,
        peer: SocketAddr,
    ) -> Self {
        Self {
            gateway,
            tunnel,
            link,
            entry: Arc::new(entry),
            secret,
            former: None,
            heard_until: 0,
            warned: false,
            arrivals,
            peer,
            shows: false,
            words: Arc::new(Semaphore::new(WORDS)),
        }
    }

    pub(super) async fn run(mut self, drive: Drive) {
        let streams = pump::accept(self.gateway.clone(), self.tunnel.clone(), self.link.clone(), self.entry.clone());
        let over = tokio::select! {
            () = streams => Over::Left,
            over = self.carry(Some(drive)) => over,
        };
        let why = match over {
            Over::Cut(cut) => cut.code().to_string(),
            Over::Left => "1000".to_owned(),
            Over::Lost => "1006".to_owned(),
        };
        counter!("gateway_closed_total", "code" => why.clone()).increment(1);
        tracing::info!(session = %self.link.session, code = why, "a tunnel is over");
        self.tunnel.close();
        self.gateway.detach(&self.link).await;
    }

    /// Drives lines and waits for them until all is over.
    async fn carry(&mut self, mut drive: Option<Drive>) -> Over {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost_at = None;
        let (mut marks, mut marked) = (self.link.marks(), None);
        marks.mark_changed();
        loop {
            let grace = self.gateway.0.policy.line_grace;
            let until = lost_at.map(|at: Instant| at + grace);
            let driven = async {
                match &mut drive {
                    Some(d) => d.await,
                    None => std::future::pending().await,
                }
            };
            let waited = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                why = self.link.cut_off() => {
                    self.say_why(why, drive).await;
                    return Over::Cut(why);
                }
                coming = self.arrivals.recv() => {
                    let Some(coming) = coming else { return Over::Lost };
                    match self.come_back(coming).await {
                        Ok(Some(next)) => (drive, lost_at) = (Some(next), None),
                        // It was refused, or broke before it carried; what is driven goes on.
                        Ok(None) => {}
                        Err(cut) => {
                            self.say_why(cut, drive).await;
                            return Over::Cut(cut);
                        }
                    }
                    if lost_at.is_none() && !self.tunnel.is_up() && drive.is_none() {
                        lost_at = Some(Instant::now());
                    }
                }
                end = driven => {
                    ended(&end);
                    drive = None;
                    // A line that ended because another took its place is no loss.
                    lost_at.get_or_insert_with(Instant::now);
                    self.gateway.detach(&self.link).await;
                }
                () = waited => return Over::Lost,
                message = self.tunnel.message() => {
                    match message.map(|m| ToGateway::decode(&m)) {
                        Some(Ok(Incoming::Message(ToGateway::Leave(_)))) | None => return Over::Left,
                        Some(Ok(Incoming::Message(ToGateway::Open(_) | ToGateway::Again(_) | ToGateway::Lease(_)))) => {
                            send(&self.tunnel, &ToAgent::Refused(Refused { reason: Denial::Occupied }));
                        }
                        Some(Ok(Incoming::Message(words))) => self.hear(words),
                        Some(_) => {}
                    }
                }
                // The sender lives in the link, so waiting can't fail.
                _ = marks.changed() => {
                    let now = marks.borrow_and_update().clone();
                    if let Some(shown) = mark::news(std::mem::replace(&mut marked, now.clone()), now) {
                        send(&self.tunnel, &ToAgent::Assist(shown));
                    }
                }
                _ = look.tick() => self.look(),
            }
        }
    }

    /// What the officer at the endpoint says of who looks at their session.
    fn hear(&mut self, words: ToGateway) {
        let (gateway, link, ip) = (self.gateway.clone(), self.link.clone(), self.peer.ip().to_string());
        let place = self.words.clone().try_acquire_owned();
        match (words, place) {
            (ToGateway::AssistStop(stop), _) => {
                // At once; only the telling takes time.
                let news = gateway.stop_assist(&link, ip, stop.assist);
                tokio::spawn(async move {
                    if news {
                        gateway.say_stopped().await;
                    }
                });
            }
            (ToGateway::AssistAnswer(said), Ok(place)) => {
                tokio::spawn(async move {
                    gateway.answered(&link, ip, said).await;
                    drop(place);
                });
            }
            (ToGateway::Marks(marks), Ok(place)) => {
                self.shows = marks.shown;
                tokio::spawn(async move {
                    gateway.shows_assists(&link, ip, marks.shown).await;
                    drop(place);
                });
            }
            _ => {}
        }
    }

    /// Signs of life are the tunnel's own business; whoever watches links need not end this one.
    fn look(&mut self) {
        self.link.heard(0);
        let warning = self.link.warning();
        if warning.is_some() || self.warned {
            let (code, left) = warning.map_or((Warn::CLEAR, Duration::ZERO), |(limit, left)| (limit.as_str(), left));
            let in_s = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
            send(&self.tunnel, &ToAgent::Warn(Warn { code: code.to_owned(), in_s }));
        }
        self.warned = warning.is_some();
        let stats = self.tunnel.stats();
        if let Some(rtt) = stats.round_trip.filter(|_| self.tunnel.is_up()) {
            self.link.feel(|e| e.round_trip(rtt));
            let rtt_ms = u32::try_from(rtt.as_millis()).unwrap_or(u32::MAX);
            let down_kbit = (stats.rate.unwrap_or(0.0) / 125.0) as u32;
            send(&self.tunnel, &ToAgent::Quality(Quality { rtt_ms, down_kbit }));
        }
    }

    /// Judges a line that wants to go on with the session. Nothing is let go of before it has proved itself.
    async fn come_back(&mut self, coming: Coming) -> Result<Option<Drive>, Cut> {
        let Coming { mut line, resume, version, peer } = coming;
        let shown = resume.secret.as_bytes();
        let is = |s: &Secret| bool::from(s.reveal().as_bytes().ct_eq(shown));
        if self.tunnel.stats().received > self.heard_until {
            self.former = None;
        }
        let current = is(&self.secret);
        if !current && !self.former.as_ref().is_some_and(is) {
            refuse(line, Denial::Secret).await;
            return Ok(None);
        }
        if self.tunnel.reaches(resume.last).is_err() {
            refuse(line, Denial::Window).await;
            return Ok(None);
        }
        if let Err(cut) = self.gateway.back(&self.link, peer).await {
            refuse(line, Denial::UnknownSession).await;
            return Err(cut);
        }
        if self.shows {
            self.gateway.shows_assists(&self.link, peer.ip().to_string(), true).await;
        }
        self.peer = peer;
        let last = self.tunnel.stop();
        let next = Secret::generate("");
        let words = Resumed { version, secret: next.reveal().to_owned(), last };
        let latest = std::mem::replace(&mut self.secret, next);
        if current {
            self.former = Some(latest);
        }
        self.heard_until = self.tunnel.stats().received;
        counter!("tunnel_resumes_total").increment(1);
        let said = say(&mut line, &ToAgent::Resumed(words)).await;
        let (tunnel, their_last) = (self.tunnel.clone(), resume.last);
        Ok(Some(match said {
            Ok(()) => Box::pin(async move { tunnel.drive(line, their_last).await }),
            Err(e) => Box::pin(std::future::ready(LineEnd::Lost(e))),
        }))
    }

    /// Tells the agent before the end. A gateway that stops says nothing: the agent comes back elsewhere.
    async fn say_why(&self, why: Cut, drive: Option<Drive>) {
        let Some(drive) = drive.filter(|_| why != Cut::Restart) else { return };
        send(&self.tunnel, &ToAgent::Ended(Ended { code: why.code() }));
        tokio::select! {
            _ = drive => {}
            () = self.tunnel.drained(LAST_WORDS) => {}
        }
    }
}
