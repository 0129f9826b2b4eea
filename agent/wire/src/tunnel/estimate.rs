//! What is known about the line: its round trip and how fast it delivers.

use std::time::Duration;

/// Best values are remembered for between one and two of these.
const EPOCH: Duration = Duration::from_secs(10);
/// How long deliveries are counted for one look at the rate.
const SHORTEST_COUNT: Duration = Duration::from_millis(20);
const LONGEST_COUNT: Duration = Duration::from_millis(500);
/// Below this a line is thin: 10 Mbit/s in bytes.
const THIN: f64 = 1_250_000.0;

/// Keeps the best of the last one to two epochs.
#[derive(Clone, Copy, Debug)]
struct Best {
    current: Option<f64>,
    former: Option<f64>,
    since: Duration,
    better: fn(f64, f64) -> f64,
}

impl Best {
    fn new(better: fn(f64, f64) -> f64) -> Self {
        Self { current: None, former: None, since: Duration::ZERO, better }
    }

    fn add(&mut self, now: Duration, value: f64) {
        if now.saturating_sub(self.since) >= EPOCH {
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
}

impl Default for Estimate {
    fn default() -> Self {
        Self { smooth: None, least: Best::new(f64::min), rate: Best::new(f64::max), counted: 0, since: Duration::ZERO }
    }
}

impl Estimate {
    /// A round trip took this long.
    pub(super) fn round_trip(&mut self, now: Duration, took: Duration) {
        self.smooth = Some(self.smooth.map_or(took, |s| (s * 7 + took) / 8));
        self.least.add(now, took.as_secs_f64());
    }

    /// So many bytes were delivered. Counted over several round trips: after a lost packet much arrives at once
    /// that took long.
    pub(super) fn delivered(&mut self, now: Duration, bytes: u64) {
        let counted = self.least().map_or(LONGEST_COUNT, |least| least * 4).clamp(SHORTEST_COUNT, LONGEST_COUNT);
        self.counted += bytes;
        let took = now.saturating_sub(self.since);
        if took >= counted {
            self.rate.add(now, self.counted as f64 / took.as_secs_f64());
            (self.since, self.counted) = (now, 0);
        }
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

    /// What an empty line holds: rate times the shortest round trip, in bytes.
    pub(super) fn holds(&self) -> Option<usize> {
        Some((self.rate()? * self.least()?.as_secs_f64()) as usize)
    }

    /// What fits into the line: rate times the usual round trip, in bytes.
    pub(super) fn in_flight(&self) -> u64 {
        let seconds = self.smooth.map_or(0.0, |d| d.as_secs_f64());
        (self.rate().unwrap_or(0.0) * seconds) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_forgotten_after_two_epochs() {
        let mut e = Estimate::default();
        let ms = Duration::from_millis;
        e.delivered(ms(1000), 10_000_000);
        assert!(!e.thin());
        for s in 2..=23 {
            e.delivered(Duration::from_secs(s), 400_000);
        }
        assert!(e.thin());
        assert_eq!(e.rate(), Some(400_000.0));
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
