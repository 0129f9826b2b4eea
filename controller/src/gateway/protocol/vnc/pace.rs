//! Paces a desktop's pictures to what the viewer's line carries.
//!
//! QEMU sends one picture for each request and knows neither Fence nor ContinuousUpdates. A viewer that asks
//! again after each picture gets one for each round trip, five a second at 200 ms; one that asks ahead lets
//! pictures pile up in the line, and what was typed shows up behind all of them. So the gateway announces both
//! to a viewer that knows them and asks the desktop itself: never with more than one request open, and for the
//! next picture only while less is under way than the line holds. Each picture is followed by a fence, which
//! the viewer returns when it has drawn it. Rectangles pass untouched.
//!
//! Other viewers are left as they are, but for this: where a cap holds pictures up, they get plainer ones first and
//! fewer of them only then.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::Fault;
use super::line::{Allowance, Line, Thin};
use super::requests::Ask;
use super::updates::{Lost, Updates, followed};

/// Pseudo-encodings of a viewer that can be paced (community RFB specification).
const FENCE: i32 = -312;
const CONTINUOUS_UPDATES: i32 = -313;

/// `EndOfContinuousUpdates`: the first one announces that they are known.
const END_OF_CONTINUOUS: u8 = 150;
/// `ServerFence`, `ClientFence`.
const FENCE_MESSAGE: u8 = 248;
/// Flags of a fence: an answer is asked for; the ones an answer may keep.
const REQUEST: u32 = 1 << 31;
const KEPT: u32 = 0b111;
/// Answered before what follows it is looked at.
const BLOCK_BEFORE: u32 = 1;
/// Most that waits to be said to a viewer. An honest one sets no fences of its own.
const WORDS_LIMIT: usize = 4096;

/// Quality and compression pseudo-encodings begin here: -32 to -23, -256 to -247.
const QUALITY: i32 = -32;
const COMPRESSION: i32 = -256;

/// What one connection's two directions share.
#[derive(Debug)]
pub struct Pacer {
    state: Mutex<State>,
    ask_due: Notify,
    word_due: Notify,
}

/// How a connection is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The viewer asks for its pictures itself.
    Passing,
    /// The gateway asks.
    Paced,
    /// The gateway asks, and can't follow what the desktop sends any more: it asks again whenever that pauses.
    Blind,
}

/// A fence that is under way.
#[derive(Debug)]
struct Mark {
    number: u32,
    at: Instant,
    /// Bytes before it, and of these those that were drawn when it left.
    sent: u64,
    drawn: u64,
    /// A request was held back since the mark before.
    held: bool,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// It may be paced.
    may: bool,
    cap: Allowance,
    updates: Option<Updates>,
    /// Pixels are four bytes and eight bits a colour.
    plain: bool,
    /// What the viewer listed.
    encodings: Vec<i32>,
    /// The area the viewer wants without asking.
    area: Option<[u8; 8]>,
    /// A request is with the desktop.
    open: bool,
    /// Held back since the last mark.
    held: bool,
    /// For the desktop, between two messages of the viewer.
    asks: Vec<u8>,
    /// For the viewer, between two messages of the desktop.
    words: Vec<u8>,
    marks: VecDeque<Mark>,
    number: u32,
    sent: u64,
    drawn: u64,
    line: Line,
    thin: Thin,
    pictures: u64,
}

impl Default for Pacer {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Pacer {
    fn new(may: bool) -> Self {
        let state = State {
            mode: Mode::Passing,
            may,
            cap: Allowance::default(),
            updates: Some(Updates::default()),
            plain: true,
            encodings: Vec::new(),
            area: None,
            open: false,
            held: false,
            asks: Vec::new(),
            words: Vec::new(),
            marks: VecDeque::new(),
            number: 0,
            sent: 0,
            drawn: 0,
            line: Line::default(),
            thin: Thin::No,
            pictures: 0,
        };
        Self { state: Mutex::new(state), ask_due: Notify::new(), word_due: Notify::new() }
    }
}

/// What a piece from the desktop means.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Pictures that ended in it.
    pub pictures: u32,
    /// Pixels are or were in it.
    pub picture: bool,
    /// Words for the viewer, and where in the piece they fit.
    pub put: Option<(usize, Vec<u8>)>,
}

impl Pacer {
    /// One that leaves the viewer to ask for its pictures itself: what it is asked through has a pace of its own.
    #[must_use]
    pub fn following() -> Self {
        Self::new(false)
    }

    /// What caps leave to the connection.
    pub fn cap(&self, cap: Allowance) {
        let mut state = self.state();
        state.cap = cap;
        state.adjust(Instant::now());
        self.tell(&state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The viewer asks; what the desktop shall know of it goes to `out`.
    ///
    /// # Errors
    /// [`Fault`] if no honest viewer asks that.
    pub fn viewer(&self, ask: Ask<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut state = self.state();
        state.viewer(ask, out, Instant::now())?;
        self.tell(&state);
        Ok(())
    }

    /// The next piece from the desktop.
    pub fn desktop(&self, piece: &[u8]) -> Passed {
        let mut state = self.state();
        let passed = state.desktop(piece, Instant::now());
        self.tell(&state);
        passed
    }

    /// The desktop pauses.
    pub fn paused(&self) {
        let mut state = self.state();
        if state.mode == Mode::Blind {
            state.open = false;
            state.release();
            self.tell(&state);
        }
    }

    /// Waits until there is something to ask the desktop.
    pub async fn ask_due(&self) {
        self.ask_due.notified().await;
    }

    /// Appends what there is to ask.
    pub fn take_asks(&self, out: &mut Vec<u8>) {
        out.append(&mut self.state().asks);
    }

    /// Waits until there is something to say to the viewer.
    pub async fn word_due(&self) {
        self.word_due.notified().await;
    }

    /// What there is to say, if the desktop is between two messages.
    pub fn take_words(&self) -> Vec<u8> {
        let mut state = self.state();
        let between = state.updates.as_ref().is_some_and(Updates::between);
        if between { std::mem::take(&mut state.words) } else { Vec::new() }
    }

    /// Pictures passed so far, and whether the gateway asked for them.
    #[must_use]
    pub fn pictures(&self) -> (u64, bool) {
        let state = self.state();
        (state.pictures, state.mode != Mode::Passing)
    }

    fn tell(&self, state: &State) {
        if !state.asks.is_empty() {
            self.ask_due.notify_one();
        }
        if !state.words.is_empty() {
            self.word_due.notify_one();
        }
    }
}

impl State {
    fn viewer(&mut self, ask: Ask<'_>, out: &mut Vec<u8>, now: Instant) -> Result<(), Fault> {
        match ask {
            Ask::Format(message) => {
                self.plain = plain(message);
                if !self.plain && self.mode == Mode::Paced {
                    self.lose();
                }
                out.extend_from_slice(message);
            }
            Ask::Encodings(list) => {
                let able = list.contains(&FENCE) && list.contains(&CONTINUOUS_UPDATES);
                if self.may && self.mode == Mode::Passing && able && self.plain && self.updates.is_some() {
                    self.mode = Mode::Paced;
                    self.words.push(END_OF_CONTINUOUS);
                }
                self.encodings = list;
                out.extend_from_slice(&self.set_encodings());
            }
            Ask::Update(message, changes_only) => {
                // What is open already covers changes; a whole picture was not asked for with it.
                if self.mode == Mode::Passing || !changes_only || !self.open {
                    self.open = true;
                    out.extend_from_slice(message);
                }
            }
            // Nobody was told that these are known, and the desktop does not know them.
            Ask::Continuous(..) if self.mode == Mode::Passing => {}
            Ask::Continuous(true, area) => {
                self.area = Some(area);
                self.release();
            }
            Ask::Continuous(false, _) => {
                self.area = None;
                self.say(&[END_OF_CONTINUOUS])?;
            }
            Ask::Fence(flags, payload) if flags & REQUEST != 0 => {
                if self.mode != Mode::Passing {
                    self.say(&fence(flags & KEPT, payload))?;
                }
            }
            Ask::Fence(_, payload) => {
                if let Ok(number) = payload.try_into().map(u32::from_be_bytes) {
                    self.drawn(number, now);
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, words: &[u8]) -> Result<(), Fault> {
        if self.words.len() + words.len() > WORDS_LIMIT {
            return Err(Fault("too many fences"));
        }
        self.words.extend_from_slice(words);
        Ok(())
    }

    fn desktop(&mut self, piece: &[u8], now: Instant) -> Passed {
        let Some(updates) = &mut self.updates else { return Passed::blind() };
        let fed = updates.feed(piece);
        let begun = updates.in_picture();
        let Ok(seen) = fed.inspect_err(|Lost| self.lose()) else { return Passed::blind() };
        let before = self.sent;
        self.sent += piece.len() as u64;
        if seen.pictures > 0 {
            self.pictures += u64::from(seen.pictures);
            self.open = false;
            if self.mode == Mode::Paced {
                self.mark(before + seen.end.unwrap_or(piece.len()) as u64, now);
                self.release();
            }
        }
        let put = seen.end.filter(|_| !self.words.is_empty()).map(|end| (end, std::mem::take(&mut self.words)));
        Passed { pictures: seen.pictures, picture: begun || seen.pictures > 0, put }
    }

    /// Puts a fence behind a picture.
    fn mark(&mut self, sent: u64, now: Instant) {
        self.number = self.number.wrapping_add(1);
        self.words.extend_from_slice(&fence(REQUEST | BLOCK_BEFORE, &self.number.to_be_bytes()));
        let held = std::mem::take(&mut self.held);
        self.marks.push_back(Mark { number: self.number, at: now, sent, drawn: self.drawn, held });
    }

    /// A fence came back; those before it were passed over.
    fn drawn(&mut self, number: u32, now: Instant) {
        let Some(at) = self.marks.iter().position(|m| m.number == number) else { return };
        let Some(mark) = self.marks.drain(..=at).next_back() else { return };
        self.drawn = mark.sent;
        self.line.sample(mark.sent - mark.drawn, now - mark.at, mark.held, now);
        self.adjust(now);
        self.release();
    }

    /// Asks for plainer or finer pictures if it is time.
    fn adjust(&mut self, now: Instant) {
        let thin = self.line.thin(self.thin, self.cap, now);
        if thin != self.thin {
            self.thin = thin;
            // Who never said what it understands gets what the desktop thinks best.
            if !self.encodings.is_empty() {
                let list = self.set_encodings();
                self.asks.extend_from_slice(&list);
            }
        }
    }

    /// Asks for the next picture if it is time.
    fn release(&mut self) {
        let Some(area) = self.area.filter(|_| !self.open) else { return };
        let under_way = self.marks.back().map_or(0, |m| m.sent).saturating_sub(self.drawn);
        if self.mode == Mode::Paced && under_way >= self.line.holds() {
            self.held = true;
            return;
        }
        self.open = true;
        self.asks.extend_from_slice(&[3, 1]);
        self.asks.extend_from_slice(&area);
    }

    /// The desktop can't be followed any more.
    fn lose(&mut self) {
        self.updates = None;
        self.words.clear();
        self.marks.clear();
        if self.mode == Mode::Paced {
            tracing::warn!("a desktop sent what can't be followed; its viewer is no longer paced");
            self.mode = Mode::Blind;
            self.open = false;
            self.release();
        }
    }

    /// What the desktop is told that the viewer understands.
    fn set_encodings(&self) -> Vec<u8> {
        let paced = self.mode != Mode::Passing;
        let list = self.encodings.iter().filter(|e| !paced || followed(**e) || level(**e).is_some());
        let list: Vec<i32> = list.map(|e| self.thin.level(*e)).collect();
        // A viewer lists at most 512: see the limit of its messages.
        let count = u16::try_from(list.len()).unwrap_or(u16::MAX);
        let mut message = vec![2, 0];
        message.extend_from_slice(&count.to_be_bytes());
        list.iter().take(count.into()).for_each(|e| message.extend_from_slice(&e.to_be_bytes()));
        message
    }
}

impl Passed {
    /// Of a piece nobody can read.
    fn blind() -> Self {
        Self { pictures: 0, picture: true, put: None }
    }
}

/// Where the levels of a pseudo-encoding begin, if it is one of quality or compression.
fn level(encoding: i32) -> Option<i32> {
    [QUALITY, COMPRESSION].into_iter().find(|base| (*base..*base + 10).contains(&encoding))
}

impl Thin {
    /// A level as the viewer wants it, or better for a thin line.
    fn level(self, encoding: i32) -> i32 {
        let (quality, compression) = match self {
            Self::No => return encoding,
            Self::Thin => (QUALITY + 5, COMPRESSION + 6),
            Self::Hair => (QUALITY + 2, COMPRESSION + 9),
        };
        match level(encoding) {
            Some(QUALITY) => encoding.min(quality),
            Some(_) => encoding.max(compression),
            None => encoding,
        }
    }
}

fn fence(flags: u32, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(0);
    [&[FENCE_MESSAGE, 0, 0, 0][..], &flags.to_be_bytes(), &[length], payload].concat()
}

/// Whether rectangles of this `SetPixelFormat` can be followed: 32 bits, true colour, eight bits a colour.
fn plain(message: &[u8]) -> bool {
    matches!(message, [_, _, _, _, 32, _, _, colour, 0, 255, 0, 255, 0, 255, ..] if *colour != 0)
}

#[cfg(test)]
mod tests;
