//! One connection of a tunnel, from its first numbered frame to its end.

use std::collections::VecDeque;
use std::future::Future;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::time::{Instant, Sleep};
use tram_wire::tunnel::{Decoder, Frame, Header};

use super::{Line, LineEnd, Tunnel};

/// Bytes read before others get a turn.
const READ_TURN: usize = 256 * 1024;
/// Frames handed over under one lock.
const FRAMES: usize = 16;
/// Frames written with one call.
const SLICES: usize = 16;

impl Tunnel {
    /// Carries the tunnel over a connection until it ends. The other end has all frames up to `their_last`.
    /// Cutting this short, by dropping it, loses nothing.
    pub async fn drive<L: Line>(&self, io: L, their_last: u64) -> LineEnd {
        let line = {
            let now = self.now();
            let mut inner = self.lock();
            if inner.closed {
                return LineEnd::Closed;
            }
            if let Err(fault) = inner.mux.attach(now, their_last) {
                return fault.into();
            }
            inner.line += 1;
            inner.wake_driver();
            inner.line
        };
        let mut driver = Driver {
            tunnel: self,
            io,
            line,
            decoder: Decoder::default(),
            arrived: Vec::with_capacity(FRAMES),
            batch: VecDeque::new(),
            written: 0,
            wide: false,
            unsent: 0,
            dirty: false,
            room: false,
            sleep: Box::pin(tokio::time::sleep_until(Instant::now())),
        };
        match poll_fn(|cx| driver.poll(cx)).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }
}

enum Never {}

struct Driver<'a, L> {
    tunnel: &'a Tunnel,
    io: L,
    line: u64,
    decoder: Decoder,
    arrived: Vec<(Header, Vec<u8>)>,
    /// Frames chosen for the line; of the first, `written` bytes are out.
    batch: VecDeque<Frame>,
    written: usize,
    wide: bool,
    /// What the line was told to hold unsent.
    unsent: usize,
    /// Something was written since the last flush.
    dirty: bool,
    /// The socket takes more without making it wait.
    room: bool,
    sleep: Pin<Box<Sleep>>,
}

impl<L> Drop for Driver<'_, L> {
    fn drop(&mut self) {
        let mut inner = self.tunnel.lock();
        if inner.line == self.line {
            inner.mux.detach();
        }
    }
}

impl<L: Line> Driver<'_, L> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Never, LineEnd>> {
        let more = self.read(cx)?;
        self.write(cx)?;
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads and hands over. `true`: there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, LineEnd> {
        let mut turn = 0;
        loop {
            let mut buf = ReadBuf::new(self.decoder.space());
            let n = match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Pending => {
                    self.hand_over()?;
                    return Ok(false);
                }
                Poll::Ready(Err(e)) => {
                    self.hand_over()?;
                    return Err(e.into());
                }
                Poll::Ready(Ok(())) => buf.filled().len(),
            };
            if n == 0 {
                self.hand_over()?;
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            turn += n;
            match self.decoder.filled(n) {
                Ok(None) => {}
                Ok(Some(frame)) => self.arrived.push(frame),
                Err(fault) => {
                    self.hand_over()?;
                    return Err(fault.into());
                }
            }
            if self.arrived.len() >= FRAMES || turn >= READ_TURN {
                self.hand_over()?;
                if turn >= READ_TURN {
                    return Ok(true);
                }
            }
        }
    }

    fn hand_over(&mut self) -> Result<(), LineEnd> {
        if self.arrived.is_empty() {
            return Ok(());
        }
        let now = self.tunnel.now();
        let mut inner = self.tunnel.lock();
        if inner.line != self.line {
            return Err(LineEnd::Superseded);
        }
        let mut all = Ok(());
        for (header, payload) in self.arrived.drain(..) {
            all = inner.mux.arrived(now, header, payload);
            if all.is_err() {
                break;
            }
        }
        // What arrived before a fault is good.
        inner.news()?;
        self.decoder.supply(|| inner.mux.spare(), FRAMES);
        Ok(all?)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), LineEnd> {
        loop {
            if self.batch.is_empty() {
                // The next frames are chosen when the last ones are out, TLS's own buffer included: whatever
                // waits there can't be overtaken.
                if self.dirty {
                    match Pin::new(&mut self.io).poll_flush(cx) {
                        Poll::Pending => return self.rest(cx),
                        Poll::Ready(done) => done?,
                    }
                    self.dirty = false;
                }
                self.room = self.wide || self.io.poll_room(cx).is_ready();
                self.rest(cx)?;
                if self.batch.is_empty() {
                    return Ok(());
                }
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut n = 0;
            for (slot, frame) in slices.iter_mut().zip(&self.batch) {
                *slot = IoSlice::new(if n == 0 { &frame[self.written..] } else { frame });
                n += 1;
            }
            match Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..n]) {
                Poll::Pending => return self.rest(cx),
                Poll::Ready(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(n)) => self.advance(n),
                Poll::Ready(Err(e)) => return Err(e.into()),
            }
        }
    }

    fn advance(&mut self, mut n: usize) {
        self.dirty = true;
        while let Some(frame) = self.batch.front() {
            let left = frame.len() - self.written;
            if n < left {
                self.written += n;
                return;
            }
            n -= left;
            self.written = 0;
            self.batch.pop_front();
        }
    }

    /// Under the lock: the time, the next frames if there is place for them, and when to look again.
    fn rest(&mut self, cx: &mut Context<'_>) -> Result<(), LineEnd> {
        loop {
            let now = self.tunnel.now();
            let mut inner = self.tunnel.lock();
            if inner.closed {
                return Err(LineEnd::Closed);
            }
            if inner.line != self.line {
                return Err(LineEnd::Superseded);
            }
            if !inner.mux.tick(now) {
                return Err(LineEnd::Silent);
            }
            if self.sleep.is_elapsed() {
                self.decoder.shrink();
            }
            let room = self.room && self.batch.is_empty() && !self.dirty;
            if !room {
                inner.mux.blocked();
            } else {
                inner.mux.batch(&mut self.batch);
                inner.news()?;
            }
            let unsent = inner.mux.unsent();
            self.wide = !inner.mux.thin();
            if !inner.driver.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                inner.driver = Some(cx.waker().clone());
            }
            let due = inner.mux.due();
            drop(inner);
            // Not for every change: each is a call of the kernel.
            if unsent > self.unsent / 4 * 5 || unsent < self.unsent / 4 * 3 {
                self.unsent = unsent;
                self.io.hold(unsent);
            }
            let Some(due) = due else { return Ok(()) };
            let due = self.tunnel.0.began + due;
            // Later is no reason to set it again: it wakes up early then, and looks.
            if due < self.sleep.deadline() || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(due);
            }
            if room && !self.batch.is_empty() || self.sleep.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }
}
