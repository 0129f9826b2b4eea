//! The tunnel's two ends against each other, and against an end that breaks the rules.

mod faults;
mod flow;
mod resume;

use std::collections::VecDeque;
use std::time::Duration;

use tram_wire::tunnel::{Decoder, Event, Fault, Frame, Limits, Mux, Role};

/// A repeatable source of numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Line {
    frames: VecDeque<Frame>,
    bytes: VecDeque<u8>,
    decoder: Decoder,
}

impl Line {
    /// Moves at most `most` bytes from one end to the other; how many.
    fn carry(&mut self, now: Duration, from: &mut Mux, to: &mut Mux, most: usize) -> Result<usize, Fault> {
        let mut moved = 0;
        while moved < most {
            if self.bytes.is_empty() {
                from.batch(&mut self.frames);
                self.bytes.extend(self.frames.drain(..).flat_map(|f| f.to_vec()));
            }
            let n = self.bytes.len().min(most - moved);
            if n == 0 {
                break;
            }
            let piece: Vec<u8> = self.bytes.drain(..n).collect();
            self.feed(now, to, &piece)?;
            moved += n;
        }
        Ok(moved)
    }

    fn feed(&mut self, now: Duration, to: &mut Mux, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let space = self.decoder.space();
            let n = space.len().min(bytes.len());
            space[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if let Some((header, payload)) = self.decoder.filled(n)? {
                to.arrived(now, header, payload)?;
            }
        }
        Ok(())
    }
}

fn feed(now: Duration, to: &mut Mux, bytes: &[u8]) -> Result<(), Fault> {
    Line::default().feed(now, to, bytes)
}

/// Both ends of a tunnel, and the time.
struct Pair {
    agent: Mux,
    gateway: Mux,
    now: Duration,
    up: Line,
    down: Line,
}

impl Pair {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let mut pair = Self {
            agent: Mux::new(Role::Agent, limits),
            gateway: Mux::new(Role::Gateway, limits),
            now: Duration::from_secs(1),
            up: Line::default(),
            down: Line::default(),
        };
        pair.attach();
        pair
    }

    /// A connection, new or again, as the handshake makes it. What was under way on the old one is lost.
    fn attach(&mut self) {
        (self.up, self.down) = (Line::default(), Line::default());
        let (a, g) = (self.agent.received(), self.gateway.received());
        self.gateway.attach(self.now, a).unwrap();
        self.agent.attach(self.now, g).unwrap();
    }

    /// Carries both ways until nothing moves.
    fn settle(&mut self) {
        loop {
            self.now += Duration::from_millis(1);
            assert!(self.agent.tick(self.now) && self.gateway.tick(self.now));
            if self.upward(usize::MAX) + self.downward(usize::MAX) == 0 {
                return;
            }
        }
    }
}

impl Pair {
    fn upward(&mut self, most: usize) -> usize {
        self.up.carry(self.now, &mut self.agent, &mut self.gateway, most).unwrap()
    }

    fn downward(&mut self, most: usize) -> usize {
        self.down.carry(self.now, &mut self.gateway, &mut self.agent, most).unwrap()
    }
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.event()).collect()
}

/// Reads at most `most` bytes of what is there; `true`: the end.
fn read(now: Duration, mux: &mut Mux, id: u32, most: usize, into: &mut Vec<u8>) -> bool {
    let mut left = most;
    while left > 0 {
        match mux.peek(id).unwrap() {
            None => return false,
            Some([]) => return true,
            Some(bytes) => {
                let n = bytes.len().min(left);
                into.extend_from_slice(&bytes[..n]);
                mux.consume(now, id, n);
                left -= n;
            }
        }
    }
    false
}
