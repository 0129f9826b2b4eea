//! All streams of a tunnel on one numbered line.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::class::Class;
use super::estimate::Estimate;
use super::fault::{Fault, StreamError};
use super::header::{HEADER, Header, Kind, frame};
use super::replay::Replay;
use super::schedule::Schedule;
use super::stream::{Sending, Stream};
use super::window::Window;
use super::{OPEN_LIMIT, THIN_PAYLOAD, WIDE_PAYLOAD};

mod arrive;
mod streams;

/// Bytes handed to a thin line at once: one frame, so that the next one is chosen as late as can be.
const THIN_BATCH: usize = 1;
/// Bytes handed to a wide line at once: what it carries in this time, up to where a write gets no cheaper.
const BATCH_TIME: f64 = 0.005;
const WIDE_BATCH: usize = 128 * 1024;
/// Unsent data in the kernel: what the line carries in this time, or in a round trip while the kernel still finds
/// out how much that is.
const UNSENT_TIME: f64 = 0.02;
const LEAST_UNSENT: usize = 16 * 1024;
const MOST_UNSENT: usize = 1024 * 1024;
/// An acknowledgement is due after so many bytes at the latest.
const ACK_BYTES: usize = 32 * 1024;
/// Or after this long.
const ACK_WITHIN: Duration = Duration::from_millis(50);
/// Buffers kept for use again.
const SPARE: usize = 64;
/// Messages that may wait to be sent or read.
const MESSAGES: usize = 64;

/// Which end this is. Only the agent's opens streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The agent.
    Agent,
    /// The gateway.
    Gateway,
}

/// What may be tuned.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How often a sign of life is asked for. Metered lines want 15 s.
    pub ping: Duration,
    /// A line that is silent for this long is lost.
    pub silence: Duration,
    /// Streams that may be open.
    pub streams: usize,
    /// Bytes that may be on their way before the line is known.
    pub replay: usize,
    /// Bytes that may be on their way at most.
    pub most_replay: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            streams: 64,
            replay: 256 * 1024,
            most_replay: 8 * 1024 * 1024,
        }
    }
}

/// What a user of the tunnel has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The other side opened a stream; its header.
    Opened(u32, Vec<u8>),
    /// There is something to read, an end or a reset.
    Readable(u32),
    /// There is room again, or a reset.
    Writable(u32),
    /// A control message.
    Message(Vec<u8>),
}

/// Numbers of a tunnel, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// The usual round trip.
    pub round_trip: Option<Duration>,
    /// Bytes a second the line delivers to the other side, of late.
    pub rate: Option<f64>,
    /// Bytes kept until they are acknowledged.
    pub held: usize,
    /// Bytes of frames that arrived.
    pub received: u64,
    /// Bytes of frames that were handed to lines.
    pub sent: u64,
    /// Streams that are not over.
    pub streams: usize,
}

/// Keeps a buffer for use again, as it is.
fn keep(spare: &mut Vec<Vec<u8>>, buffer: Vec<u8>) {
    if buffer.capacity() == HEADER + WIDE_PAYLOAD && spare.len() < SPARE {
        spare.push(buffer);
    }
}

/// A whole frame, ready for the line.
pub type Frame = Arc<Vec<u8>>;

/// One end of a tunnel. Times count from any moment, the same for all calls.
#[derive(Debug)]
pub struct Mux {
    role: Role,
    limits: Limits,
    streams: BTreeMap<u32, Stream>,
    last_stream: u32,
    schedule: Schedule,
    /// Control frames that wait for a number.
    urgent: VecDeque<Vec<u8>>,
    replay: Replay,
    spare: Vec<Vec<u8>>,
    estimate: Estimate,
    window: Window,
    events: VecDeque<Event>,
    /// Messages among the events.
    unread_messages: usize,
    /// Number of the last frame that arrived.
    received: u64,
    /// What the other side knows of it.
    told: u64,
    untold_bytes: usize,
    ack_at: Option<Duration>,
    ack_now: bool,
    up: bool,
    /// The latest time that was told.
    now: Duration,
    /// Acknowledgements and signs of life.
    raw: VecDeque<[u8; HEADER]>,
    /// Number of the next frame for the line: all below it were handed to this connection.
    next: u64,
    heard: Duration,
    ping_at: Duration,
    pinged: Option<Duration>,
    stats: Stats,
}

impl Mux {
    /// An end without a connection.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            streams: BTreeMap::new(),
            last_stream: 0,
            schedule: Schedule::default(),
            urgent: VecDeque::new(),
            replay: Replay::default(),
            spare: Vec::new(),
            estimate: Estimate::default(),
            window: Window::default(),
            events: VecDeque::new(),
            unread_messages: 0,
            received: 0,
            told: 0,
            untold_bytes: 0,
            ack_at: None,
            ack_now: false,
            up: false,
            now: Duration::ZERO,
            raw: VecDeque::new(),
            next: 1,
            heard: Duration::ZERO,
            ping_at: Duration::ZERO,
            pinged: None,
            stats: Stats::default(),
        }
    }

    /// Number of the last frame that arrived: what a resumption names.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the other side may come back with this number. Changes nothing.
    ///
    /// # Errors
    /// [`Fault::Window`].
    pub fn reaches(&self, their_last: u64) -> Result<(), Fault> {
        self.replay.reaches(their_last)
    }

    /// A connection is there; the other side has all frames up to `their_last` and was told
    /// [`Mux::received`]. What it lacks is sent again.
    ///
    /// # Errors
    /// [`Fault::Window`]; then nothing was changed.
    pub fn attach(&mut self, now: Duration, their_last: u64) -> Result<(), Fault> {
        self.replay.reaches(their_last)?;
        self.detach();
        self.estimate.restart(now);
        self.replay.ack(their_last, now, &mut Estimate::default(), |_| {})?;
        self.window.restart(now);
        self.now = now;
        self.next = their_last + 1;
        self.told = self.received;
        (self.heard, self.ping_at) = (now, now);
        self.up = true;
        self.wake_writers();
        Ok(())
    }

    /// The connection is gone. Nothing is lost: streams wait.
    pub fn detach(&mut self) {
        self.up = false;
        self.raw.clear();
        (self.ack_at, self.ack_now, self.untold_bytes) = (None, false, 0);
        self.pinged = None;
    }

    fn wake_writers(&mut self) {
        let ids = self.streams.iter().filter(|(_, s)| s.sending == Sending::Open).map(|(id, _)| Event::Writable(*id));
        self.events.extend(ids);
    }

    /// What happened since the last call.
    pub fn event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if matches!(event, Event::Message(_)) {
            self.unread_messages -= 1;
        }
        Some(event)
    }

    fn raw(&mut self, kind: Kind, number: u64) {
        self.raw.push_back(Header { kind, class: 0, length: 0, stream: 0, number }.encode());
    }

    /// Chooses the next frames for the line and adds them to `out`: one on a thin line, so that the one after
    /// it is chosen as late as can be. To be called when all before them were written.
    pub fn batch(&mut self, out: &mut VecDeque<Frame>) {
        if !self.up {
            return;
        }
        let (batch, quantum) = if self.estimate.thin() {
            (THIN_BATCH, HEADER + THIN_PAYLOAD)
        } else {
            (self.carried_in(BATCH_TIME).clamp(HEADER + WIDE_PAYLOAD, WIDE_BATCH), HEADER + WIDE_PAYLOAD)
        };
        let mut bytes = 0;
        let raw_at = out.len();
        while bytes < batch {
            // What the other side lacks since a cut goes before anything new.
            if self.next > self.replay.last() && !self.number_one(quantum) {
                break;
            }
            let Some(frame) = self.replay.get(self.next) else { break };
            self.next += 1;
            bytes += frame.len();
            self.stats.sent += frame.len() as u64;
            out.push_back(frame);
        }
        if self.ack_now || bytes > 0 && self.untold_bytes > 0 {
            self.ack();
        }
        for raw in self.raw.drain(..).rev() {
            self.stats.sent += HEADER as u64;
            out.insert(raw_at, Arc::new(raw.to_vec()));
        }
    }

    /// The line takes nothing now.
    pub fn blocked(&mut self) {
        if !self.schedule.is_empty() {
            self.estimate.press();
        }
    }

    /// A buffer for what arrives or is to be sent, used before; or none.
    pub fn spare(&mut self) -> Option<Vec<u8>> {
        self.spare.pop()
    }

    /// A buffer that is not needed any more. The largest are kept for a while: to ask the system for memory and
    /// give it back for every frame costs as much as to encrypt it.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        keep(&mut self.spare, buffer);
    }

    /// What the line carries in so many seconds.
    fn carried_in(&self, seconds: f64) -> usize {
        (self.estimate.rate().unwrap_or(0.0) * seconds) as usize
    }

    /// How much unsent data the kernel should hold: what is there can't be overtaken any more, but a line must
    /// not run dry before the driver was woken.
    #[must_use]
    pub fn unsent(&self) -> usize {
        let growing = self.estimate.least().filter(|_| !self.estimate.full()).map_or(0.0, |least| least.as_secs_f64());
        self.carried_in(UNSENT_TIME.max(growing)).clamp(LEAST_UNSENT, MOST_UNSENT)
    }

    /// Numbers one more frame, if one may be sent.
    fn number_one(&mut self, quantum: usize) -> bool {
        if let Some(frame) = self.urgent.pop_front() {
            self.keep_frame(frame);
            return true;
        }
        if self.schedule.is_empty() {
            return false;
        }
        if !self.window.open(self.now, &self.replay, &self.estimate, &self.limits) {
            self.estimate.press();
            return false;
        }
        let streams = &self.streams;
        let size = |id| streams.get(&id).and_then(Stream::next_size).unwrap_or(HEADER);
        let Some(id) = self.schedule.next(quantum, size) else { return false };
        self.take_frame(id);
        true
    }

    fn keep_frame(&mut self, frame: Vec<u8>) {
        let left = self.window.sent(self.now, frame.len(), &self.estimate);
        self.replay.push(self.now, left, frame);
    }

    fn take_frame(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = stream.waiting();
        let bytes = match stream.take() {
            Some(mut chunk) => {
                let length = u16::try_from(chunk.len() - HEADER).unwrap_or(u16::MAX);
                let header = Header { kind: Kind::Data, class: 0, length, stream: id, number: 0 };
                chunk[..HEADER].copy_from_slice(&header.encode());
                chunk
            }
            None => {
                stream.sending = Sending::Ended;
                if stream.dropped && !stream.they_ended {
                    stream.reset = Some(0);
                    self.urgent.push_back(frame(Kind::Reset, 0, id, 0, &0_u16.to_be_bytes()));
                }
                frame(Kind::End, 0, id, 0, &[])
            }
        };
        let left = stream.waiting();
        self.keep_frame(bytes);
        self.reschedule(id);
        let most = if self.estimate.thin() { 2 * THIN_PAYLOAD } else { 8 * WIDE_PAYLOAD };
        // Not for every frame: a writer that is woken for half a buffer writes large pieces.
        if before > most && left <= most || left == 0 {
            self.events.push_back(Event::Writable(id));
        }
        self.forget(id);
    }

    fn ack(&mut self) {
        self.raw(Kind::Ack, self.received);
        self.told = self.received;
        (self.ack_at, self.ack_now, self.untold_bytes) = (None, false, 0);
    }

    /// When to call [`Mux::tick`] at the latest.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        if !self.up {
            return None;
        }
        let alive = self.heard + self.limits.silence;
        Some(self.ack_at.into_iter().chain(self.window.opens).fold(alive.min(self.ping_at), Duration::min))
    }

    /// Time passed. `false`: the line is silent for too long, it is lost.
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> bool {
        if !self.up {
            return true;
        }
        self.now = now;
        if self.ack_at.is_some_and(|at| now >= at) {
            self.ack_now = true;
            self.ack_at = None;
        }
        if now >= self.ping_at {
            self.ping_at = now + self.limits.ping;
            // An idle tunnel holds nothing.
            self.spare = Vec::new();
            self.pinged = Some(now);
            self.raw(Kind::Ping, u64::try_from(now.as_micros()).unwrap_or(0));
        }
        now < self.heard + self.limits.silence
    }

    /// How long nothing has come over the line that is there.
    #[must_use]
    pub fn silent_for(&self, now: Duration) -> Option<Duration> {
        self.up.then(|| now.saturating_sub(self.heard))
    }

    /// Whether a connection is there.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether something besides data waits to be sent.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Whether the other side is known to have all that was chosen for it, and nothing but data waits.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.urgent.is_empty() && self.replay.held() == 0
    }

    /// Numbers of the tunnel.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            round_trip: self.estimate.smooth(),
            rate: self.estimate.rate(),
            held: self.replay.held(),
            streams: self.streams.len(),
            ..self.stats
        }
    }

    /// Whether the line is thin, or not known to be wide.
    #[must_use]
    pub fn thin(&self) -> bool {
        self.estimate.thin()
    }
}
