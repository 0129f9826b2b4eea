//! The link as a pure state machine: what is due, and what an answer means.
//!
//! It owns no socket and asks no clock: `now` is time since any fixed start, passed in. The shell
//! ([`super`], driven by `app`) calls [`Machine::due`] until it says nothing, sleeps until
//! [`Machine::wake`], and reports what happened.
//!
//! ```text
//!            opened            hello_ack
//! Waiting ──► Opening ──► Greeting ──► Up
//!    ▲           │            │         │
//!    └───────────┴── lost ────┴─────────┘   (backoff with full jitter, or what the refusal asks for)
//! ```

use std::time::Duration;

use tram_wire::ControllerMessage;
use tram_wire::diagnosis::SignedOrder;
use tram_wire::enrol::{EnrolResponse, Issued};
use tram_wire::hello::HelloAck;
use tram_wire::ids::OrderId;
use tram_wire::plan::{Live, Plan};
use tram_wire::refusal::{Refusal, Retry};

/// From TCP to an open WebSocket.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);
/// From `hello` to its answer.
const GREET_DEADLINE: Duration = Duration::from_secs(15);
/// How often what changed is told: on every second beat at the usual pace.
const CHANGE_EVERY: Duration = Duration::from_secs(60);
/// What a try that is worth while waits for at most.
const HURRY: Duration = Duration::from_secs(3);
const BACKOFF_BASE: Duration = Duration::from_secs(1);
const BACKOFF_CAP: Duration = Duration::from_secs(300);
/// When only a person can help, asking often is noise.
const RARELY: Duration = Duration::from_secs(900);
/// A renewal that went unanswered is asked again.
const RENEW_AGAIN: Duration = Duration::from_secs(3600);

/// What the shell should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Open the link, then call [`Machine::opened`] or [`Machine::lost`].
    Open,
    /// Send `hello`.
    Hello,
    /// Send a beat.
    Beat {
        /// Its number.
        seq: u64,
        /// Round trip of an earlier one.
        rtt_us: Option<u32>,
    },
    /// Collect everything and send a snapshot.
    Snapshot,
    /// Collect, and send what changed, if anything.
    Change,
    /// Make a new key and ask for its certificate.
    Renew,
    /// Drop the socket: the other end doesn't answer. The machine is waiting again.
    Drop(&'static str),
}

/// What a message meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The link is open.
    Welcome,
    /// The link is open, but this identity is shown by several computers.
    Quarantined,
    /// A beat came back.
    Answered,
    /// It answers nothing that is open: late, doubled or out of place. Ignored.
    Stale,
    /// A new certificate.
    Renewed(Issued),
    /// This computer is to ask for an identity of its own.
    NewIdentity,
    /// The identity of its own.
    Reborn(EnrolResponse),
    /// A batch of records was kept.
    Kept(u64),
    /// How to report.
    Plan(Plan),
    /// Somebody looks.
    Live(Live),
    /// Something to do, once.
    Order(SignedOrder),
    /// It is not wanted any more.
    Cancel(OrderId),
    /// The controller ends the link. The machine is waiting again.
    Refused(Refusal),
}

#[derive(Debug)]
enum State {
    Waiting { until: Duration },
    Opening { since: Duration },
    Greeting { since: Duration, said: bool },
    Up(Up),
}

#[derive(Debug)]
struct Up {
    beat_every: Duration,
    snapshot_every: Duration,
    next_beat: Duration,
    next_change: Duration,
    next_snapshot: Duration,
    seq: u64,
    /// The newest beat without an answer.
    open: Option<(u64, Duration)>,
    /// When something was last heard.
    heard: Duration,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    state: State,
    jitter: Jitter,
    /// Failed tries since the link was last up.
    failures: u32,
    /// Asked for by the controller; spreads the return of many endpoints after its restart.
    reconnect_window: Duration,
    renew_at: Option<Duration>,
    rtt: Option<Duration>,
    skew_ms: Option<i64>,
}

impl Machine {
    /// A machine that opens its first link soon after `now`. `seed` should differ between endpoints.
    #[must_use]
    pub fn new(now: Duration, seed: u64) -> Self {
        let mut jitter = Jitter(seed);
        let until = now + jitter.below(BACKOFF_BASE);
        Self {
            state: State::Waiting { until },
            jitter,
            failures: 0,
            reconnect_window: Duration::from_secs(2),
            renew_at: None,
            rtt: None,
            skew_ms: None,
        }
    }

    /// When a new certificate should be asked for.
    pub fn renew_at(&mut self, at: Duration) {
        self.renew_at = Some(at);
    }

    /// Whether the link is open.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Smoothed round trip of the beats.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Our clock less the controller's, as of the last answer.
    #[must_use]
    pub fn skew_ms(&self) -> Option<i64> {
        self.skew_ms
    }

    /// One thing to do now; call again until there is none.
    pub fn due(&mut self, now: Duration) -> Option<Due> {
        match &mut self.state {
            State::Waiting { until } if now >= *until => {
                self.state = State::Opening { since: now };
                Some(Due::Open)
            }
            State::Opening { since } if now >= *since + OPEN_DEADLINE => Some(self.drop(now, "no connection in time")),
            State::Greeting { said, .. } if !*said => {
                *said = true;
                Some(Due::Hello)
            }
            State::Greeting { since, .. } if now >= *since + GREET_DEADLINE => {
                Some(self.drop(now, "no answer to hello in time"))
            }
            State::Up(up) => {
                if now >= up.heard + up.silence() {
                    return Some(self.drop(now, "the controller fell silent"));
                }
                let due = up.due(now, self.rtt);
                let renew = self.renew_at.is_some_and(|at| now >= at);
                if due.is_none() && renew {
                    self.renew_at = Some(now + RENEW_AGAIN);
                    return Some(Due::Renew);
                }
                due
            }
            _ => None,
        }
    }

    /// When to call [`Machine::due`] again at the latest.
    #[must_use]
    pub fn wake(&self) -> Duration {
        match &self.state {
            State::Waiting { until } => *until,
            State::Opening { since } => *since + OPEN_DEADLINE,
            State::Greeting { said: false, since } => *since,
            State::Greeting { since, .. } => *since + GREET_DEADLINE,
            State::Up(up) => {
                let next = up.next_beat.min(up.next_change).min(up.next_snapshot).min(up.heard + up.silence());
                self.renew_at.map_or(next, |at| next.min(at))
            }
        }
    }

    /// The WebSocket is open.
    pub fn opened(&mut self, now: Duration) {
        if matches!(self.state, State::Opening { .. }) {
            self.state = State::Greeting { since: now, said: false };
        }
    }

    /// A try beside the link was refused.
    pub fn rest(&mut self, now: Duration, refusal: &Refusal) {
        self.refused(now, refusal);
    }

    /// Something changed that makes the next try worth while: it comes soon.
    pub fn hurry(&mut self, now: Duration) {
        if let State::Waiting { until } = &mut self.state {
            *until = (*until).min(now + self.jitter.below(HURRY));
        }
    }

    /// The link couldn't be opened, or broke.
    pub fn lost(&mut self, now: Duration) {
        let delay = match self.state {
            State::Waiting { .. } => return,
            // It worked until now, so probably everybody lost it together: come back spread out.
            State::Up(_) => self.jitter.below(self.reconnect_window),
            State::Opening { .. } | State::Greeting { .. } => self.backoff(),
        };
        self.state = State::Waiting { until: now + delay };
    }

    /// A message came. `wall_ms` is our wall clock now.
    pub fn heard(&mut self, now: Duration, wall_ms: i64, message: ControllerMessage) -> Heard {
        match (message, &mut self.state) {
            (ControllerMessage::Refused(refusal), State::Greeting { .. } | State::Up(_)) => {
                self.refused(now, &refusal);
                Heard::Refused(refusal)
            }
            (ControllerMessage::HelloAck(ack), State::Greeting { since, said: true }) => {
                let took = now.saturating_sub(*since);
                self.skew_ms = Some(skew(wall_ms, ack.server_ms, took));
                self.failures = 0;
                self.reconnect_window = Duration::from_secs(ack.reconnect_window_s.clamp(1, 3600).into());
                self.state = State::Up(Up::new(now, &ack));
                if ack.quarantined { Heard::Quarantined } else { Heard::Welcome }
            }
            (ControllerMessage::BeatAck(ack), State::Up(up)) => {
                up.heard = now;
                let Some((seq, sent)) = up.open else { return Heard::Stale };
                if seq != ack.seq {
                    return Heard::Stale;
                }
                up.open = None;
                let took = now.saturating_sub(sent);
                self.skew_ms = Some(skew(wall_ms, ack.server_ms, took));
                self.rtt = Some(self.rtt.map_or(took, |old| (old * 3 + took) / 4));
                Heard::Answered
            }
            (ControllerMessage::ReportAck(ack), State::Up(up)) => {
                up.heard = now;
                Heard::Kept(ack.batch)
            }
            (ControllerMessage::Plan(plan), State::Up(up)) => {
                up.heard = now;
                up.pace(now, plan.beat_s);
                Heard::Plan(*plan)
            }
            (ControllerMessage::Live(live), State::Up(up)) => {
                up.heard = now;
                Heard::Live(live)
            }
            (ControllerMessage::Order(order), State::Up(up)) => {
                up.heard = now;
                Heard::Order(*order)
            }
            (ControllerMessage::OrderCancel(cancel), State::Up(up)) => {
                up.heard = now;
                Heard::Cancel(cancel.order)
            }
            (ControllerMessage::NewIdentity(_), State::Up(up)) => {
                up.heard = now;
                Heard::NewIdentity
            }
            (ControllerMessage::Reborn(answer), State::Up(up)) => {
                up.heard = now;
                Heard::Reborn(answer)
            }
            (ControllerMessage::Renewed(issued), State::Up(up)) => {
                up.heard = now;
                Heard::Renewed(issued)
            }
            _ => Heard::Stale,
        }
    }

    fn drop(&mut self, now: Duration, why: &'static str) -> Due {
        self.lost(now);
        Due::Drop(why)
    }

    fn refused(&mut self, now: Duration, refusal: &Refusal) {
        let delay = match refusal.retry() {
            Retry::Backoff => self.backoff(),
            Retry::Rarely => RARELY + self.jitter.below(RARELY),
            // Everybody who was sent away is told the same number: spread the return.
            Retry::After(s) => {
                let asked = Duration::from_secs(s.clamp(1, 3600).into());
                asked + self.jitter.below(asked)
            }
        };
        self.state = State::Waiting { until: now + delay };
    }

    /// Full jitter: anything from almost nothing to the doubling bound.
    fn backoff(&mut self) -> Duration {
        // Where many come back at once, who found the door closed still leaves room for the others.
        let bound =
            BACKOFF_BASE.saturating_mul(1 << self.failures.min(16)).max(self.reconnect_window / 2).min(BACKOFF_CAP);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(200) + self.jitter.below(bound)
    }
}

impl Up {
    fn new(now: Duration, ack: &HelloAck) -> Self {
        // A mad controller must not make us spin or sleep for ever.
        let beat_every = Duration::from_secs(ack.beat_s.clamp(1, 300).into());
        let snapshot_every = Duration::from_secs(ack.snapshot_s.clamp(60, 86_400).into());
        Self {
            beat_every,
            snapshot_every,
            next_beat: now,
            next_change: now + CHANGE_EVERY,
            next_snapshot: now,
            seq: 0,
            open: None,
            heard: now,
        }
    }

    /// Beats so often from now on; 0: as the greeting said.
    fn pace(&mut self, now: Duration, beat_s: u32) {
        if beat_s > 0 {
            self.beat_every = Duration::from_secs(beat_s.clamp(1, 300).into());
            self.next_beat = self.next_beat.min(now + self.beat_every);
        }
    }

    /// How long the controller may say nothing: two beats unanswered and some grace.
    fn silence(&self) -> Duration {
        self.beat_every * 2 + Duration::from_secs(10)
    }

    fn due(&mut self, now: Duration, rtt: Option<Duration>) -> Option<Due> {
        if now >= self.next_beat {
            self.seq += 1;
            self.open = Some((self.seq, now));
            // After a long sleep (suspend) one beat is enough.
            self.next_beat = (self.next_beat + self.beat_every).max(now + self.beat_every / 2);
            let rtt_us = rtt.map(|r| u32::try_from(r.as_micros()).unwrap_or(u32::MAX));
            return Some(Due::Beat { seq: self.seq, rtt_us });
        }
        if now >= self.next_snapshot {
            self.next_snapshot = now + self.snapshot_every;
            self.next_change = now + CHANGE_EVERY;
            return Some(Due::Snapshot);
        }
        if now >= self.next_change {
            self.next_change = now + CHANGE_EVERY;
            return Some(Due::Change);
        }
        None
    }
}

/// Our clock less theirs, taking the answer to be half a round trip old.
fn skew(wall_ms: i64, server_ms: i64, round_trip: Duration) -> i64 {
    let half = i64::try_from(round_trip.as_millis() / 2).unwrap_or(0);
    wall_ms.saturating_sub(server_ms.saturating_add(half))
}

/// A small generator (SplitMix64): spreading retries needs no secrets.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn below(&mut self, bound: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        #[allow(clippy::cast_precision_loss)] // 53 bits are plenty of spread
        bound.mul_f64((z >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
