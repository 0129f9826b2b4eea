//! Keeps a session's line: drives it, and brings it back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tram_tunnel::{Limits, LineEnd, Role, Tunnel};
use tram_wire::Incoming;
use tram_wire::assist::{Marks, Stage};
use tram_wire::session::{Again, ByLease, Denial, Leave, Opened, ToAgent, ToGateway, Warn};

use super::dial::{DialError, Door, Line};
use super::{ANSWER, Line as LineState, OpenError, Over, Session, Shared, Status};
use crate::config::Address;

/// Waits between tries: from this…
const SHORTEST: Duration = Duration::from_millis(200);
/// …to this.
const LONGEST: Duration = Duration::from_secs(5);
/// A sign of life is asked for this often: the officer is to know within two of them that the line stands still.
const PING: Duration = Duration::from_secs(1);
/// Nothing for this long, and it does. Long enough for one packet that was lost and sent again.
const STALLED: Duration = Duration::from_millis(2500);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the gateway that holds the streams is waited for where there are others…
const HOME: Duration = Duration::from_secs(5);
/// …and once more when another one answered.
const LAST_LOOK: Duration = Duration::from_secs(3);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A tunnel on a line, with an open session.
struct Begun {
    tunnel: Tunnel,
    drive: JoinHandle<LineEnd>,
    opened: Opened,
}

/// Opens a session on a new tunnel. `ask` is `open`, `again` or `lease`.
async fn begin(door: &Door, to: &Address, ask: &ToGateway) -> Result<Begun, OpenError> {
    begin_on(door.hello(to).await.map_err(not_opened)?, ask).await
}

fn not_opened(e: DialError) -> OpenError {
    match e {
        DialError::Refused(d) => OpenError::Refused(d),
        e => OpenError::Dial(e),
    }
}

/// The same on a line that is there.
async fn begin_on(line: Line, ask: &ToGateway) -> Result<Begun, OpenError> {
    let tunnel = Tunnel::new(Role::Agent, Limits { ping: PING, ..Limits::default() });
    let mut drive = tokio::spawn({
        let tunnel = tunnel.clone();
        async move { tunnel.drive(line, 0).await }
    });
    let ask = ask.encode().map_err(|_| DialError::Words)?;
    tunnel.send(ask.as_bytes()).map_err(|_| DialError::Words)?;
    let answer = async {
        tokio::select! {
            biased;
            message = tunnel.message() => message,
            _ = &mut drive => None,
        }
    };
    let answer = timeout(ANSWER, answer).await;
    match answer.ok().flatten().map(|m| ToAgent::decode(&m)) {
        Some(Ok(Incoming::Message(ToAgent::Opened(opened)))) => Ok(Begun { tunnel, drive, opened }),
        other => {
            tunnel.close();
            Err(match other {
                Some(Ok(Incoming::Message(ToAgent::Refused(r)))) => OpenError::Refused(r.reason),
                Some(_) => DialError::Words.into(),
                None => DialError::Slow.into(),
            })
        }
    }
}

/// The first gateway that opens the session. One that is not there, or takes nobody now, is passed over: the ticket
/// is still good.
async fn first(door: &Door, ask: &ToGateway) -> Result<(Address, Begun), OpenError> {
    let none = io::Error::new(io::ErrorKind::NotFound, "no gateway is known");
    let mut failed = OpenError::Dial(none.into());
    for to in door.gateways() {
        match begin(door, &to, ask).await {
            Ok(begun) => return Ok((to, begun)),
            Err(OpenError::Refused(d)) if d != Denial::Unavailable => return Err(OpenError::Refused(d)),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

pub(super) async fn open(door: Door, ask: ToGateway) -> Result<Session, OpenError> {
    let (at, begun) = first(&door, &ask).await?;
    let status = Status {
        line: LineState::Up,
        stalled: false,
        resumes: 0,
        generation: 0,
        warning: None,
        assist: None,
        quality: None,
        leased: matches!(ask, ToGateway::Lease(_)),
    };
    let lease = match &ask {
        ToGateway::Lease(l) => Some(l.lease.clone()),
        _ => None,
    };
    let shared = Arc::new(Shared {
        session: begun.opened.session,
        protocols: begun.opened.protocols.clone(),
        tunnel: std::sync::Mutex::new(begun.tunnel.clone()),
        status: watch::Sender::new(status),
        marks: AtomicBool::new(false),
        lease: std::sync::Mutex::new(lease),
        door: door.clone(),
    });
    let (leave, left) = oneshot::channel();
    let keeper = Keeper { shared: shared.clone(), door, at, begun, jitter: Jitter::new() };
    let keeper = tokio::spawn(keeper.run(left));
    Ok(Session { shared, leave: Some(leave), keeper })
}

struct Keeper {
    shared: Arc<Shared>,
    door: Door,
    /// The gateway that holds the streams.
    at: Address,
    begun: Begun,
    jitter: Jitter,
}

impl Keeper {
    async fn run(mut self, left: oneshot::Receiver<()>) {
        let over = tokio::select! {
            over = self.keep() => over,
            // Also when the handle is gone without a word.
            _ = left => {
                self.say_goodbye().await;
                Over::Left
            }
        };
        self.begun.tunnel.close();
        self.shared.say(|s| s.line = LineState::Over(over));
    }

    async fn keep(&mut self) -> Over {
        loop {
            match self.carry().await {
                Ok(over) => return over,
                Err(why) => {
                    if let Some(over) = self.come_back(why).await {
                        return over;
                    }
                }
            }
        }
    }

    /// Carries until the line is lost (an error) or all is over.
    async fn carry(&mut self) -> Result<Over, (String, bool)> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                end = &mut self.begun.drive => {
                    let gateway = matches!(&end, Ok(LineEnd::Lost(e)) if hung_up(e));
                    return Err((end.map_or_else(|e| e.to_string(), |e| e.to_string()), gateway));
                }
                _ = look.tick() => {
                    let stalled = self.begun.tunnel.silent_for().is_some_and(|s| s >= STALLED);
                    self.shared.status.send_if_modified(|s| std::mem::replace(&mut s.stalled, stalled) != stalled);
                    continue;
                }
                message = self.begun.tunnel.message() => message,
            };
            match message.map(|m| ToAgent::decode(&m)) {
                Some(Ok(Incoming::Message(ToAgent::Ended(e)))) => return Ok(Over::Ended(e.code)),
                Some(Ok(Incoming::Message(ToAgent::Warn(w)))) => {
                    self.shared.say(|s| s.warning = (w.code != Warn::CLEAR).then_some(w))
                }
                Some(Ok(Incoming::Message(ToAgent::Assist(a)))) => {
                    self.shared.say(|s| s.assist = (a.stage != Stage::Over).then(|| (a, Instant::now())));
                }
                Some(Ok(Incoming::Message(ToAgent::Quality(q)))) => self.shared.say(|s| s.quality = Some(q)),
                // Made after this build, or not for now.
                Some(_) => {}
                None => return Ok(Over::Left),
            }
        }
    }

    /// Dials until the line is back, or no gateway wants it.
    async fn come_back(&mut self, (mut why, mut gateway): (String, bool)) -> Option<Over> {
        let since = Instant::now();
        for tries in 0.. {
            let line = LineState::Lost { since, tries, why: why.clone(), gateway };
            self.shared.say(|s| (s.line, s.stalled) = (line, false));
            sleep(self.jitter.next(tries)).await;
            let home = match self.go_home().await {
                Ok(()) => return None,
                Err(OpenError::Refused(d)) if d != Denial::Unavailable => return Some(Over::Refused(d)),
                Err(e) => e,
            };
            match self.go_elsewhere(matches!(&home, OpenError::Dial(e) if !e.is_gone())).await {
                Ok(true) => return None,
                Ok(false) => {
                    (why, gateway) = match &home {
                        OpenError::Refused(d) => (d.code().to_owned(), true),
                        OpenError::Dial(e) => (e.to_string(), at_gateway(e)),
                    };
                }
                Err(d) => return Some(Over::Refused(d)),
            }
        }
        None
    }

    /// Back to the gateway that holds the streams; one that lost them opens the same desktop anew.
    async fn go_home(&mut self) -> Result<(), OpenError> {
        // Where there are others, this one is not waited for as long.
        let limit = if self.others().is_empty() { Duration::MAX } else { HOME };
        match timeout(limit, self.resume()).await.unwrap_or(Err(DialError::Slow)) {
            Ok(()) => Ok(()),
            Err(DialError::Refused(Denial::UnknownSession | Denial::Secret | Denial::Window)) => {
                let at = self.at.clone();
                let line = self.door.hello(&at).await.map_err(not_opened)?;
                let (begun, leased) = self.anew(&at, line).await?;
                self.moved(at, begun, leased);
                Ok(())
            }
            Err(DialError::Refused(d)) => Err(OpenError::Refused(d)),
            Err(e) => Err(e.into()),
        }
    }

    /// To another gateway, where all streams are new and the viewer has to be started again. If it may have been the
    /// line alone (`unsure`), its return is used for one more look at home. `false` if none is there.
    async fn go_elsewhere(&mut self, unsure: bool) -> Result<bool, Denial> {
        for to in self.others() {
            let line = match self.door.hello(&to).await {
                Ok(line) => line,
                Err(DialError::Refused(d)) if d != Denial::Unavailable => return Err(d),
                Err(_) => continue,
            };
            if unsure && matches!(timeout(LAST_LOOK, self.resume()).await, Ok(Ok(()))) {
                return Ok(true);
            }
            match self.anew(&to, line).await {
                Ok((begun, leased)) => {
                    self.moved(to, begun, leased);
                    return Ok(true);
                }
                Err(OpenError::Refused(d)) if d != Denial::Unavailable => return Err(d),
                Err(_) => {}
            }
        }
        Ok(false)
    }

    fn others(&self) -> Vec<Address> {
        self.door.gateways().into_iter().filter(|g| *g != self.at).collect()
    }

    async fn resume(&mut self) -> Result<(), DialError> {
        let (tunnel, opened) = (&self.begun.tunnel, &mut self.begun.opened);
        let (line, secret, last) = self.door.resume(&self.at, tunnel, opened.session, &opened.secret).await?;
        opened.secret = secret;
        let tunnel = tunnel.clone();
        self.begun.drive = tokio::spawn(async move { tunnel.drive(line, last).await });
        self.shared.say(|s| (s.line, s.resumes) = (LineState::Up, s.resumes + 1));
        Ok(())
    }

    /// The same desktop at a gateway that knows nothing of this tunnel; by the lease, if there is one and the gateway
    /// can't ask about anything else. Whether it was by lease.
    async fn anew(&self, to: &Address, line: Line) -> Result<(Begun, bool), OpenError> {
        let opened = &self.begun.opened;
        let again = ToGateway::Again(Again { session: opened.session, token: opened.again.clone() });
        let refused = match begin_on(line, &again).await {
            Err(OpenError::Refused(Denial::Unavailable)) => OpenError::Refused(Denial::Unavailable),
            other => return other.map(|begun| (begun, false)),
        };
        let Some(lease) = self.shared.lease().clone() else { return Err(refused) };
        match begin(&self.door, to, &ToGateway::Lease(ByLease { lease })).await {
            Ok(begun) => Ok((begun, true)),
            // What the gateway says of the lease is no word about the session: that is asked for again.
            Err(OpenError::Refused(d)) => {
                if d == Denial::Lease {
                    *self.shared.lease() = None;
                }
                Err(refused)
            }
            Err(e) => Err(e),
        }
    }

    fn moved(&mut self, to: Address, begun: Begun, leased: bool) {
        let former = std::mem::replace(&mut self.begun, begun).tunnel;
        self.at = to;
        let tunnel = self.begun.tunnel.clone();
        *self.shared.tunnel.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tunnel;
        // What the other gateway said of support may be over; this one says it anew.
        self.shared
            .say(|s| (s.line, s.generation, s.assist, s.leased) = (LineState::Up, s.generation + 1, None, leased));
        // Only now: a viewer whose streams end goes, and nobody must think that its officer closed it.
        former.close();
        let marks = ToGateway::Marks(Marks { shown: self.shared.marks.load(Ordering::Relaxed) });
        if let Ok(text) = marks.encode() {
            let _ = self.begun.tunnel.send(text.as_bytes());
        }
    }

    async fn say_goodbye(&self) {
        let Ok(leave) = ToGateway::Leave(Leave {}).encode() else { return };
        if self.begun.tunnel.is_up() && self.begun.tunnel.send(leave.as_bytes()).is_ok() {
            self.begun.tunnel.drained(GOODBYE).await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.begun.tunnel.close();
    }
}

/// Whether the other end hung up: what a gateway's machine does for a gateway that died, and no cut line.
fn hung_up(e: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// Whether the gateway's machine was reached, and its gateway was not.
fn at_gateway(e: &DialError) -> bool {
    match e {
        DialError::Io(e) => hung_up(e),
        DialError::Http(_) | DialError::Words | DialError::Refused(_) => true,
        DialError::Slow => false,
    }
}

/// Spreads the endpoints of a district that lost the same line.
struct Jitter(u64);

impl Jitter {
    fn new() -> Self {
        // Without a source of randomness the endpoints come at the same time, but they come.
        Self(getrandom::u64().unwrap_or(1) | 1)
    }

    /// Half to all of a wait that doubles with every try.
    fn next(&mut self, tries: u32) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let wait = (SHORTEST * 2).saturating_mul(1 << tries.min(10)).min(LONGEST);
        let half = wait / 2;
        half + half.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_fifth_of_a_second_to_five_seconds_and_differ() {
        let mut jitter = Jitter::new();
        for _ in 0..1000 {
            let first = jitter.next(0);
            assert!((SHORTEST..=SHORTEST * 2).contains(&first), "{first:?}");
            for tries in 5..100 {
                let later = jitter.next(tries);
                assert!((LONGEST / 2..=LONGEST).contains(&later), "{later:?}");
            }
        }
        assert_ne!(jitter.next(3), jitter.next(3));
    }
}
