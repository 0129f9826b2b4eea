//! What is known about the line: its round trip and how fast it delivers.

use std::time::Duration;

/// Rates are remembered for between one and two of these.
const RATE_KEPT: Duration = Duration::from_secs(10);
/// And round trips: a line must have been without a queue for a moment, and a sign of life asked for just then.
const TRIP_KEPT: Duration = Duration::from_secs(60);
/// How long deliveries are counted for one look at the rate, in round trips: while it still grows, and later.
const GROWING_TRIPS: u32 = 1;
const FULL_TRIPS: u32 = 4;
const SHORTEST_COUNT: Duration = Duration::from_millis(20);
const LONGEST_COUNT: Duration = Duration::from_millis(500);
/// A rate grows that is so many times the best before it; after so many looks without that, the line is full.
pub(super) const GROWTH: f64 = 1.25;
const FLAT: u8 = 3;
/// Below this a line is thin: 10 Mbit/s in bytes.
const THIN: f64 = 1_250_000.0;

/// Keeps the best of late.
#[derive(Clone, Copy, Debug)]
struct Best {
    current: Option<f64>,
    former: Option<f64>,
    since: Duration,
    kept: Duration,
    better: fn(f64, f64) -> f64,
}

impl Best {
    fn new(kept: Duration, better: fn(f64, f64) -> f64) -> Self {
        Self { current: None, former: None, since: Duration::ZERO, kept, better }
    }

    fn add(&mut self, now: Duration, value: f64) {
        if now.saturating_sub(self.since) >= self.kept {
            (self.former, self.current, self.since) = (self.current, None, now);
        }
        self.current = Some(self.current.map_or(value, |c| (self.better)(c, value)));
    }

    fn get(&self) -> Option<f64> {
        match (self.current, self.former) {
            (Some(a), Some(b)) => Some((self.better)(a, b)),
            (a, b) => a.or(b),
        }
    }
}

/// Estimates of one line; they outlive a cut, as the line mostly is the same again.
#[derive(Debug)]
pub(super) struct Estimate {
    smooth: Option<Duration>,
    least: Best,
    /// Bytes a second.
    rate: Best,
    /// Delivered since then.
    counted: u64,
    since: Duration,
    /// When the last frame was sent that was delivered before then.
    sent: Duration,
    /// Something had to wait for the line since then, and in the look before. Other looks say only that the line
    /// carries at least so much.
    pressed: [bool; 2],
    /// The rate the next look is compared with, and the looks that did not exceed it, until the line was full.
    grown: f64,
    flat: u8,
    /// The best of those.
    flat_rate: f64,
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            smooth: None,
            least: Best::new(TRIP_KEPT, f64::min),
            rate: Best::new(RATE_KEPT, f64::max),
            counted: 0,
            since: Duration::ZERO,
            sent: Duration::ZERO,
            pressed: [false; 2],
            grown: 0.0,
            flat: 0,
            flat_rate: 0.0,
        }
    }
}

impl Estimate {
    /// A round trip took this long.
    pub(super) fn round_trip(&mut self, now: Duration, took: Duration) {
        self.smooth = Some(self.smooth.map_or(took, |s| (s * 7 + took) / 8));
        self.least.add(now, took.as_secs_f64());
    }

    /// So many bytes were delivered, the last of them sent at `sent`. After a lost packet much arrives at once
    /// that took long: nothing was delivered faster than it was sent.
    pub(super) fn delivered(&mut self, now: Duration, bytes: u64, sent: Duration) {
        let trips = if self.full() { FULL_TRIPS } else { GROWING_TRIPS };
        let counted = self.least().map_or(LONGEST_COUNT, |least| least * trips).clamp(SHORTEST_COUNT, LONGEST_COUNT);
        self.counted += bytes;
        let took = now.saturating_sub(self.since);
        if took >= counted {
            let took = took.max(sent.saturating_sub(self.sent));
            self.look(now, self.counted as f64 / took.as_secs_f64());
            (self.since, self.sent, self.counted) = (now, sent, 0);
        }
    }

    fn look(&mut self, now: Duration, rate: f64) {
        let pressed = self.pressed[0] && self.pressed[1];
        self.pressed = [false, self.pressed[0]];
        if pressed || self.rate().is_none_or(|known| rate > known) {
            self.rate.add(now, rate);
        }
        if rate > GROWTH * self.grown {
            (self.grown, self.flat, self.flat_rate) = (rate, 0, 0.0);
        } else if pressed && !self.full() {
            self.flat += 1;
            self.flat_rate = self.flat_rate.max(rate);
            if self.full() {
                // What was seen on the way there was seen in too short a look.
                self.rate = Best::new(RATE_KEPT, f64::max);
                self.rate.add(now, self.flat_rate);
            }
        }
    }

    /// Something waits for the line.
    pub(super) fn press(&mut self) {
        self.pressed[0] = true;
    }

    /// A new connection: what was delivered before it says nothing about how fast.
    pub(super) fn restart(&mut self, now: Duration) {
        (self.since, self.sent, self.counted) = (now, now, 0);
        self.pressed = [false; 2];
    }

    /// Whether all that the line carries was seen.
    pub(super) fn full(&self) -> bool {
        self.flat >= FLAT
    }

    /// The usual round trip.
    pub(super) fn smooth(&self) -> Option<Duration> {
        self.smooth
    }

    /// The shortest round trip of late: without queues.
    pub(super) fn least(&self) -> Option<Duration> {
        self.least.get().map(Duration::from_secs_f64)
    }

    /// Bytes a second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate.get()
    }

    /// Whether the line is thin, or not known to be wide.
    pub(super) fn thin(&self) -> bool {
        self.rate().is_none_or(|r| r < THIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_forgotten_after_two_epochs() {
        let mut e = Estimate::default();
        let ms = Duration::from_millis;
        e.delivered(ms(1000), 10_000_000, ms(900));
        assert!(!e.thin());
        for s in 2..=23 {
            e.press();
            e.delivered(Duration::from_secs(s), 400_000, Duration::from_secs(s) - ms(100));
        }
        assert!(e.thin());
        assert_eq!(e.rate(), Some(400_000.0));
    }

    #[test]
    fn an_idle_line_is_not_a_slow_one() {
        let mut e = Estimate::default();
        let seconds = Duration::from_secs;
        e.delivered(seconds(1), 400_000, seconds(1));
        for s in 2..=60 {
            e.delivered(seconds(s), 1_000, seconds(s));
        }
        assert_eq!(e.rate(), Some(400_000.0));
    }

    #[test]
    fn what_comes_at_once_behind_a_lost_packet_was_not_delivered_at_once() {
        let mut e = Estimate::default();
        let ms = Duration::from_millis;
        e.round_trip(ms(80), ms(80));
        for n in 1..=100 {
            // Each tenth frame waits for what was lost before it, and so do the nine behind it.
            e.press();
            let at = if n % 10 == 0 { ms(n * 10 + 80) } else { ms(n.next_multiple_of(10) * 10 + 80) };
            e.delivered(at, 5_000, ms(n * 10));
        }
        let rate = e.rate().unwrap();
        assert!((450e3..=505e3).contains(&rate), "{rate}");
    }

    #[test]
    fn a_line_is_full_when_its_rate_no_longer_grows() {
        let mut e = Estimate::default();
        let ms = Duration::from_millis;
        e.round_trip(ms(100), ms(100));
        for (n, bytes) in [14, 40, 120, 400, 400].into_iter().enumerate() {
            let at = ms(100 * n as u64 + 100);
            e.press();
            e.delivered(at, bytes * 1000, at);
            assert!(!e.full(), "after {n}");
        }
        for at in [600, 700] {
            e.press();
            e.delivered(ms(at), 410_000, ms(at));
        }
        assert!(e.full());
    }

    #[test]
    fn queues_are_not_part_of_the_shortest_round_trip() {
        let mut e = Estimate::default();
        let ms = Duration::from_millis;
        for took in [80, 200, 400, 81] {
            e.round_trip(ms(took), ms(took));
        }
        assert_eq!(e.least(), Some(ms(80)));
        assert!(e.smooth() > Some(ms(100)));
    }
}
