//! How much may be on its way: enough to fill the line, little enough that its queue stays short.

use std::time::Duration;

use super::estimate::Estimate;
use super::replay::Replay;
use super::{HEADER, Limits, THIN_PAYLOAD, mux::ACK_BYTES};

/// Of what an empty line holds: what waits here, in the kernel or at the bottleneck beyond that can't be overtaken
/// any more. Less would not fill the line, as acknowledgements come in lumps.
const FULL: f64 = 1.8;
/// While it is not known yet what the line carries, the kernel must be able to find out.
const GROWING: f64 = 3.0;
/// Least that may be on its way then.
const FIRST: usize = 64 * 1024;
/// Least that may be on its way ever, and what a short line may hold: what it carries in this time, up to there.
const LEAST: usize = 8 * THIN_PAYLOAD;
const SHORT: f64 = 0.02;
const SHORT_MOST: usize = 1024 * 1024;
/// What the two ends themselves may take until a frame is acknowledged.
const ENDS: f64 = 0.002;
/// Acknowledgements that are late by this much are held up by a lost packet. What was sent behind it has left
/// the line as ever, and is replaced, for at most so many round trips.
const LATE: Duration = Duration::from_millis(10);
const HELD_UP: u32 = 2;

/// A thin line is fed as fast as it delivers, so that a lost packet finds no queue before it. Faster while nothing
/// waits at the bottleneck, which is also how a line that got wider is found out, and slower while too much does:
/// more than it carries in so much of a round trip, and than the other side leaves unacknowledged at least.
const EMPTY_TRIPS: f64 = 0.1;
const ENOUGH_TRIPS: f64 = 0.3;
const UNACKNOWLEDGED: f64 = (ACK_BYTES / 4 + THIN_PAYLOAD) as f64;
const FASTER: f64 = 1.05;
const SLOWER: f64 = 0.9;
/// What a driver that woke late makes up for.
const MADE_UP: Duration = Duration::from_millis(10);

/// What may be on its way.
#[derive(Debug)]
pub(super) struct Window {
    /// When something last was acknowledged.
    acked: Duration,
    /// It is closed, and opens then if nothing is acknowledged before.
    pub(super) opens: Option<Duration>,
    /// How fast a thin line is fed, in what it delivers.
    gain: f64,
    /// When the next frame is due there.
    next: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self { acked: Duration::ZERO, opens: None, gain: 1.0, next: Duration::ZERO }
    }
}

impl Window {
    /// Something was acknowledged.
    pub(super) fn acked(&mut self, now: Duration, held: usize, line: &Estimate) {
        (self.acked, self.opens) = (now, None);
        let (Some(rate), Some(least)) = (line.rate(), line.least()) else { return };
        let carried = rate * least.as_secs_f64();
        let waits = held as f64 - carried - UNACKNOWLEDGED;
        self.gain = match waits / carried {
            w if w < EMPTY_TRIPS => FASTER,
            w if w > ENOUGH_TRIPS => SLOWER,
            _ => 1.0,
        };
    }

    /// Something was sent.
    pub(super) fn sent(&mut self, now: Duration, bytes: usize, line: &Estimate) {
        let Some(rate) = line.rate() else { return };
        let took = Duration::from_secs_f64(bytes as f64 / (rate * self.gain).max(1.0));
        self.next = self.next.max(now.saturating_sub(MADE_UP)) + took;
    }

    /// Whether the next frame is due on a line that is thin and known.
    pub(super) fn due(&mut self, now: Duration, line: &Estimate) -> bool {
        if !line.full() || !line.thin() || self.next <= now {
            return true;
        }
        self.opens = Some(self.next);
        false
    }

    /// Whether more may be sent.
    pub(super) fn open(&mut self, now: Duration, replay: &Replay, line: &Estimate, limits: &Limits) -> bool {
        self.opens = None;
        let held = replay.held();
        let (Some(rate), Some(least)) = (line.rate(), line.least()) else { return held < limits.replay };
        let most = limits.most_replay.max(LEAST);
        let window = size(rate, least, line.full()).min(most);
        if held < window {
            return true;
        }
        // Closed; unless what is missing is late.
        let due = self.acked.max(replay.oldest().unwrap_or(now) + least) + LATE;
        let late = now.saturating_sub(due).min(least * HELD_UP);
        let gone = (rate * late.as_secs_f64()) as usize;
        if held < (window + gone).min(most) {
            return true;
        }
        let next = Duration::from_secs_f64((held - window + HEADER) as f64 / rate);
        self.opens = (next <= least * HELD_UP && held < most).then(|| due + next);
        false
    }
}

fn size(rate: f64, least: Duration, full: bool) -> usize {
    let trip = least.as_secs_f64();
    if !full {
        return ((rate * trip * GROWING) as usize).max(FIRST);
    }
    let short = ((rate * SHORT) as usize).clamp(LEAST, SHORT_MOST);
    ((rate * (trip * FULL + ENDS)) as usize).max(short)
}

#[cfg(test)]
mod tests {
    use super::super::header::{Kind, frame};
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A line of 500 kB/s and 80 ms that is known to be full.
    fn line() -> Estimate {
        let mut line = Estimate::default();
        line.round_trip(MS(0), MS(80));
        for at in (0..2000).step_by(80) {
            line.press();
            line.delivered(MS(at), 40_000, MS(at));
        }
        assert!(line.full());
        line
    }

    /// Sends frames at `now` until the window closes; how many bytes.
    fn fill(now: Duration, window: &mut Window, replay: &mut Replay, line: &Estimate) -> usize {
        let before = replay.held();
        while window.open(now, replay, line, &Limits::default()) {
            replay.push(now, frame(Kind::Data, 0, 1, 0, &[0; THIN_PAYLOAD]));
        }
        replay.held() - before
    }

    #[test]
    fn a_full_line_holds_less_than_two_of_what_it_carries_in_a_round_trip() {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line());
        window.acked(MS(2000));
        let held = fill(MS(2000), &mut window, &mut replay, &line);
        assert!((60_000..82_000).contains(&held), "{held}");
    }

    #[test]
    fn what_waits_behind_a_lost_packet_is_replaced_but_not_for_ever() {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line());
        window.acked(MS(2000));
        let full = fill(MS(2000), &mut window, &mut replay, &line);
        let opens = window.opens.unwrap();
        assert!((MS(2090)..MS(2110)).contains(&opens), "a frame later than the acknowledgement was due: {opens:?}");
        assert!(!window.open(opens - MS(1), &replay, &line, &Limits::default()));
        assert!(window.open(opens + MS(1), &replay, &line, &Limits::default()));
        // A round trip without news: what has left the line by then.
        let more = fill(MS(2170), &mut window, &mut replay, &line);
        assert!((30_000..50_000).contains(&more), "{more}");
        // A line that is dead gets two round trips of it, and then no more.
        let rest = fill(MS(60_000), &mut window, &mut replay, &line);
        assert!(more + rest < full * 3 / 2, "{more} {rest}");
        assert_eq!(window.opens, None);
    }

    #[test]
    fn the_kernel_can_find_out_what_an_unknown_line_carries() {
        let mut line = Estimate::default();
        line.round_trip(MS(0), MS(300));
        line.delivered(MS(600), 100_000, MS(600));
        assert!(!line.full());
        let (mut window, mut replay) = (Window::default(), Replay::default());
        let held = fill(MS(600), &mut window, &mut replay, &line);
        assert!(held > 140_000, "three of what came in a round trip: {held}");
    }
}
