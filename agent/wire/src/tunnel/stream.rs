//! One stream: what waits to be sent, and what waits to be read.

use std::collections::VecDeque;
use std::time::Duration;

use super::class::Class;
use super::fault::{Fault, StreamError};
use super::header::HEADER;
use super::{FIRST_CREDIT, MOST_CREDIT, WIDE_PAYLOAD};

/// Arriving pieces below this are put together: a byte must not cost a buffer.
const PUT_TOGETHER: usize = 512;
/// Room in a buffer they are put together in.
const TOGETHER: usize = 2048;

/// How far the sending of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// More may come.
    Open,
    /// The end follows what waits.
    Ending,
    /// The end, or a reset, is under way.
    Ended,
}

/// One stream as one side sees it.
#[derive(Debug)]
pub(super) struct Stream {
    /// Of what we send.
    pub(super) class: Class,
    pub(super) sending: Sending,
    /// Frames to be: room for the header, then payload.
    chunks: VecDeque<Vec<u8>>,
    waiting: usize,
    credit: u64,
    /// It stands in the schedule.
    pub(super) scheduled: bool,
    /// The other side has ended or broken it off.
    pub(super) they_ended: bool,
    pub(super) reset: Option<u16>,
    /// Nobody here holds it any more.
    pub(super) dropped: bool,
    pub(super) arrived: Arrived,
}

/// What arrived and was not read.
#[derive(Debug)]
pub(super) struct Arrived {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were read.
    read: usize,
    /// What the other side may still send.
    credit: u64,
    /// What it may send at most before anything is read.
    window: u64,
    /// Read, and not yet given back as credit.
    freed: u64,
    /// Since when the current half of the window is being read.
    since: Option<Duration>,
}

impl Stream {
    pub(super) fn new(class: Class) -> Self {
        Self {
            class,
            sending: Sending::Open,
            chunks: VecDeque::new(),
            waiting: 0,
            credit: FIRST_CREDIT,
            scheduled: false,
            they_ended: false,
            reset: None,
            dropped: false,
            arrived: Arrived::default(),
        }
    }

    /// Whether nothing more can happen to it.
    pub(super) fn over(&self) -> bool {
        self.dropped && self.they_ended && self.sending == Sending::Ended
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes as much of `data` as `room` allows, cut into frames of at most `most`.
    pub(super) fn push(&mut self, data: &[u8], room: usize, most: usize, spare: &mut Vec<Vec<u8>>) -> usize {
        let taken = data.len().min(room);
        let mut left = &data[..taken];
        while !left.is_empty() {
            if let Some(last) = self.chunks.back_mut()
                && last.len() < HEADER + most
            {
                let n = left.len().min(HEADER + most - last.len());
                last.extend_from_slice(&left[..n]);
                left = &left[n..];
                continue;
            }
            let n = left.len().min(most);
            let used = if n == WIDE_PAYLOAD { spare.pop() } else { None };
            let mut chunk = used.unwrap_or_else(|| Vec::with_capacity(HEADER + n));
            chunk.clear();
            chunk.resize(HEADER, 0);
            chunk.extend_from_slice(&left[..n]);
            self.chunks.push_back(chunk);
            left = &left[n..];
        }
        self.waiting += taken;
        taken
    }

    /// Length of the next frame with its header, if one may be sent.
    pub(super) fn next_size(&self) -> Option<usize> {
        match self.chunks.front() {
            Some(c) => {
                let payload = (c.len() - HEADER).min(usize::try_from(self.credit).unwrap_or(usize::MAX));
                (payload > 0).then_some(HEADER + payload)
            }
            None => (self.sending == Sending::Ending).then_some(HEADER),
        }
    }

    /// The next piece of data, with room for the header before it. `None`: only the end is left.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let mut chunk = self.chunks.pop_front()?;
        let may = usize::try_from(self.credit).unwrap_or(usize::MAX);
        if chunk.len() - HEADER > may {
            let mut rest = Vec::with_capacity(chunk.len() - may);
            rest.resize(HEADER, 0);
            rest.extend_from_slice(&chunk[HEADER + may..]);
            chunk.truncate(HEADER + may);
            self.chunks.push_front(rest);
        }
        let payload = chunk.len() - HEADER;
        self.waiting -= payload;
        self.credit -= payload as u64;
        Some(chunk)
    }

    /// Forgets what waits to be sent.
    pub(super) fn discard(&mut self) {
        self.chunks = VecDeque::new();
        self.waiting = 0;
    }

    /// The other side takes more.
    pub(super) fn credited(&mut self, more: u32) -> Result<(), Fault> {
        let sum = self.credit + u64::from(more);
        if more == 0 || sum > MOST_CREDIT {
            return Err(Fault::CreditOverflow);
        }
        self.credit = sum;
        Ok(())
    }
}

impl Default for Arrived {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), read: 0, credit: FIRST_CREDIT, window: FIRST_CREDIT, freed: 0, since: None }
    }
}

impl Arrived {
    /// Data came. `keep`: somebody will read it.
    pub(super) fn push(&mut self, data: Vec<u8>, keep: bool) -> Result<(), Fault> {
        self.credit = self.credit.checked_sub(data.len() as u64).ok_or(Fault::BeyondCredit)?;
        if !keep {
            self.freed += data.len() as u64;
            return Ok(());
        }
        if data.len() < PUT_TOGETHER
            && let Some(last) = self.pieces.back_mut()
            && last.len() + data.len() <= TOGETHER
        {
            last.extend_from_slice(&data);
            return Ok(());
        }
        self.pieces.push_back(data);
        Ok(())
    }

    /// The next bytes; empty if there are none.
    pub(super) fn peek(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |p| &p[self.read..])
    }

    /// So many of them were read.
    pub(super) fn consume(&mut self, n: usize) {
        self.read += n;
        self.freed += n as u64;
        if self.pieces.front().is_some_and(|p| self.read >= p.len()) {
            self.pieces.pop_front();
            self.read = 0;
            if self.pieces.is_empty() {
                self.pieces = VecDeque::new();
            }
        }
    }

    /// The next bytes, handed over; empty if there are none.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let Some(mut piece) = self.pieces.pop_front() else { return Vec::new() };
        if self.read > 0 {
            piece.drain(..self.read);
            self.read = 0;
        }
        self.freed += piece.len() as u64;
        piece
    }

    /// Drops what nobody will read.
    pub(super) fn discard(&mut self) {
        let left: usize = self.pieces.iter().map(Vec::len).sum();
        self.freed += (left - self.read.min(left)) as u64;
        (self.pieces, self.read) = (VecDeque::new(), 0);
    }

    /// Credit to give back, once half a window was read. What is read within a round trip is what the line
    /// holds. Half of the window must be that much and what waits behind a lost packet besides: a window below three
    /// to six times what the line holds doubles, as it may be what holds the reader up.
    pub(super) fn give_back(&mut self, now: Duration, round_trip: Option<Duration>) -> Option<u32> {
        let since = *self.since.get_or_insert(now);
        if self.freed < self.window / 2 {
            return None;
        }
        let mut more = std::mem::take(&mut self.freed);
        let took = now.saturating_sub(since).as_secs_f64();
        if round_trip.is_some_and(|rtt| 6.0 * more as f64 * rtt.as_secs_f64() > self.window as f64 * took) {
            let wider = (self.window * 2).min(MOST_CREDIT);
            more += wider - self.window;
            self.window = wider;
        }
        self.since = Some(now);
        self.credit += more;
        u32::try_from(more).ok()
    }
}

impl Stream {
    /// What a reader finds.
    ///
    /// # Errors
    /// [`StreamError::Reset`] once it was broken off.
    pub(super) fn peek(&self) -> Result<Option<&[u8]>, StreamError> {
        if let Some(code) = self.reset {
            return Err(StreamError::Reset(code));
        }
        let bytes = self.arrived.peek();
        Ok(if bytes.is_empty() && !self.they_ended { None } else { Some(bytes) })
    }
}
