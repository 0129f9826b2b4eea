//! What a viewer's line carries, from fences that come back. The shape is BBR's: the most that was delivered
//! in a while, times the least a round trip took, is what the line holds without a queue.

use std::time::Duration;

use tokio::time::Instant;

/// Allowed to be under way before anything is known, bytes, and the least ever.
const FIRST: u64 = 64 * 1024;
const LEAST: u64 = 16 * 1024;
/// More than the line holds is allowed to be under way: how else should a faster line be noticed?
const GAIN: f64 = 1.25;
/// A round trip so many times the shortest one was spent in a queue.
const QUEUE: f64 = 1.1;
/// The most delivered is looked for over the last one to two of these.
const RATE_KEPT: Duration = Duration::from_secs(5);
/// A round trip is forgotten after this: routes change.
const TRIP_KEPT: Duration = Duration::from_secs(60);
/// Bytes a second below which a line is thin, and a hair.
const THIN: f64 = 1e6;
const HAIR: f64 = 250e3;
/// A line is no longer thin at so many times the rate below which it is.
const RECOVERED: f64 = 1.5;
/// Quality changes at most this often: each change sends parts of the screen again.
const CHANGES: Duration = Duration::from_secs(3);

/// How little a line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Thin {
    /// Enough for what the viewer wants.
    No,
    /// Below 8 Mbit/s.
    Thin,
    /// Below 2 Mbit/s.
    Hair,
}

/// What caps leave to a connection: its own, its site's, its gateway's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    /// Bytes a second; `None`: uncapped.
    pub rate: Option<f64>,
    /// Pictures wait because of it.
    pub pressed: bool,
}

/// An estimate of a line.
#[derive(Debug, Default)]
pub struct Line {
    /// Most bytes a second, in this while and the one before, and since when.
    rates: [f64; 2],
    rates_since: Option<Instant>,
    /// The shortest round trip, and when.
    trip: Option<(Duration, Instant)>,
    /// The latest sample stood in a queue: the line carries no more.
    filled: bool,
    changed: Option<Instant>,
    /// It is a cap that makes the pictures plainer, not the line.
    by_cap: bool,
}

impl Line {
    /// So many bytes were under way when a picture left that was drawn a round trip later. `held`: pictures
    /// had to wait for room, so it was the line that set the pace.
    pub fn sample(&mut self, bytes: u64, trip: Duration, held: bool, now: Instant) {
        if self.trip.is_none_or(|(least, at)| trip <= least || now - at > TRIP_KEPT) {
            self.trip = Some((trip, now));
        }
        let rate = bytes as f64 / trip.as_secs_f64().max(1e-6);
        // A quiet screen says little about the line, but at least that it carries so much.
        if held || rate > self.rate() {
            if self.rates_since.is_none_or(|since| now - since > RATE_KEPT) {
                self.rates = [0.0, self.rates[0]];
                self.rates_since = Some(now);
            }
            self.rates[0] = self.rates[0].max(rate);
            self.filled = held && self.trip.is_some_and(|(least, _)| trip.as_secs_f64() > QUEUE * least.as_secs_f64());
        }
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.rates[0].max(self.rates[1])
    }

    /// Bytes that may be under way.
    #[must_use]
    pub fn holds(&self) -> u64 {
        match self.trip {
            Some((trip, _)) if self.filled => ((self.rate() * trip.as_secs_f64() * GAIN) as u64).max(LEAST),
            Some((trip, _)) => ((self.rate() * trip.as_secs_f64() * GAIN) as u64).max(FIRST),
            None => FIRST,
        }
    }

    /// How thin it is, with what caps leave of it, if it was so thin before.
    pub fn thin(&mut self, before: Thin, cap: Allowance, now: Instant) -> Thin {
        let line = self.filled.then(|| self.rate());
        let capped = (cap.pressed || self.by_cap).then(|| cap.rate.unwrap_or(f64::INFINITY));
        // Without pictures that wait nobody knows, and nothing has to change.
        let Some(rate) = [line, capped].into_iter().flatten().min_by(f64::total_cmp) else { return before };
        let over = |limit: f64, at_least: Thin| rate >= if before >= at_least { limit * RECOVERED } else { limit };
        let is = match () {
            () if !over(HAIR, Thin::Hair) => Thin::Hair,
            () if !over(THIN, Thin::Thin) => Thin::Thin,
            () => Thin::No,
        };
        // A cap that holds nothing up takes nothing away; it may have become wider, though.
        let idle_cap = line.is_none() && !cap.pressed && is > before;
        if is == before || idle_cap || self.changed.is_some_and(|at| now - at < CHANGES) {
            return before;
        }
        self.changed = Some(now);
        self.by_cap = is != Thin::No && capped.is_some_and(|c| line.is_none_or(|l| c <= l));
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_filled_holds_its_rate_times_its_trip() {
        let mut line = Line::default();
        assert_eq!(line.holds(), FIRST);
        let trip = Duration::from_millis(200);
        line.sample(2_000, trip, false, Instant::now());
        assert_eq!(line.holds(), FIRST, "a quiet screen takes nothing back");
        line.sample(40_000, trip, true, Instant::now());
        assert_eq!(line.holds(), FIRST, "what waits for room, but in no queue, asks for more of it");
        line.sample(60_000, trip * 3 / 2, true, Instant::now());
        assert_eq!(line.holds(), 50_000);
        line.sample(40_000, 2 * trip, true, Instant::now());
        assert_eq!(line.holds(), 50_000, "one slow picture changes nothing");
        for _ in 0..3 {
            tokio::time::advance(RATE_KEPT + Duration::from_secs(1)).await;
            line.sample(40_000, 2 * trip, true, Instant::now());
        }
        assert_eq!(line.holds(), 25_000, "the line has become slower");
    }

    #[tokio::test(start_paused = true)]
    async fn quality_follows_the_line_and_does_not_flutter() {
        let mut line = Line::default();
        let second = Duration::from_secs(1);
        line.sample(1_000, second, false, Instant::now());
        line.sample(900_000, second, true, Instant::now());
        let free = Allowance::default();
        assert_eq!(line.thin(Thin::No, free, Instant::now()), Thin::No, "no queue");
        line.sample(1_900_000, 2 * second, true, Instant::now());
        assert_eq!(line.thin(Thin::No, free, Instant::now()), Thin::Thin);
        line.sample(2_400_000, 2 * second, true, Instant::now());
        tokio::time::advance(2 * CHANGES).await;
        assert_eq!(line.thin(Thin::Thin, free, Instant::now()), Thin::Thin, "a little more is no reason");
        line.sample(3_200_000, 2 * second, true, Instant::now());
        assert_eq!(line.thin(Thin::Thin, free, Instant::now()), Thin::No);
        for _ in 0..3 {
            tokio::time::advance(RATE_KEPT + second).await;
            line.sample(100_000, 2 * second, true, Instant::now());
        }
        assert_eq!(line.thin(Thin::No, free, Instant::now()), Thin::Hair);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cap_counts_where_it_holds_pictures_up_and_is_let_go_when_it_widens() {
        let mut line = Line::default();
        let cap = |rate: f64, pressed| Allowance { rate: Some(rate), pressed };
        let now = Instant::now;
        assert_eq!(line.thin(Thin::No, cap(100e3, false), now()), Thin::No, "it holds nothing up");
        assert_eq!(line.thin(Thin::No, cap(500e3, true), now()), Thin::Thin);
        assert_eq!(line.thin(Thin::Thin, cap(100e3, true), now()), Thin::Thin, "not so soon again");
        tokio::time::advance(CHANGES).await;
        assert_eq!(line.thin(Thin::Thin, cap(100e3, true), now()), Thin::Hair);
        tokio::time::advance(CHANGES).await;
        assert_eq!(line.thin(Thin::Hair, cap(300e3, false), now()), Thin::Hair, "it fits because it is plain");
        assert_eq!(line.thin(Thin::Hair, cap(500e3, false), now()), Thin::Thin, "others went");
        tokio::time::advance(CHANGES).await;
        assert_eq!(line.thin(Thin::Thin, Allowance::default(), now()), Thin::No, "the cap is gone");
        assert_eq!(line.thin(Thin::No, Allowance::default(), now()), Thin::No);
    }
}
