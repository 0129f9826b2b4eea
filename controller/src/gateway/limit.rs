//! How fast pictures may leave: a bucket that fills at the rate of a policy.
//!
//! Taken before the desktop is read, so that a display waits where it can degrade, in QEMU, and nothing queues
//! behind it. What an officer types never waits: only pictures do.

use std::time::Duration;

/// How long a display that was quiet may send at full speed.
const BURST: Duration = Duration::from_millis(250);
/// Least that is let through at once: less would be all headers.
const LEAST: f64 = 1024.0;

/// Bytes that may leave, by a clock that somebody else reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Bytes in a second.
    rate: f64,
    /// Bytes it holds.
    most: f64,
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full one for so many kbit/s; at least 1.
    #[must_use]
    pub fn new(kbit: u32, now: Duration) -> Self {
        Self::with_burst(kbit, BURST, now)
    }

    /// The same that saves up no more than so long.
    #[must_use]
    pub fn with_burst(kbit: u32, burst: Duration, now: Duration) -> Self {
        let rate = f64::from(kbit.max(1)) * 125.0;
        let most = (rate * burst.as_secs_f64()).max(LEAST);
        Self { rate, most, level: most, at: now }
    }

    /// Bytes a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    fn fill(&mut self, now: Duration) {
        let gained = now.saturating_sub(self.at).as_secs_f64() * self.rate;
        self.level = (self.level + gained).min(self.most);
        self.at = self.at.max(now);
    }

    /// Bytes that may leave now, or how long until some may.
    ///
    /// # Errors
    /// The time to wait.
    pub fn room(&mut self, now: Duration) -> Result<usize, Duration> {
        self.fill(now);
        if self.level >= LEAST {
            return Ok(self.level as usize);
        }
        // Rounded up: waking a moment early would be waking twice.
        Err(Duration::from_secs_f64((LEAST - self.level) / self.rate) + Duration::from_millis(1))
    }

    /// So many left. More than there was room for is made good by waiting longer.
    pub fn spend(&mut self, bytes: usize, now: Duration) {
        self.fill(now);
        self.level -= bytes as f64;
    }

    /// So many of those spent did not leave.
    pub fn give_back(&mut self, bytes: usize) {
        self.level = (self.level + bytes as f64).min(self.most);
    }

    /// So many left that nobody could hold back. They are made good, but for no longer than a second: what never
    /// waits must not keep what waits from ever leaving.
    pub fn owe(&mut self, bytes: usize, now: Duration) {
        self.fill(now);
        self.level = (self.level - bytes as f64).max(self.level.min(-self.rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Bytes that leave within `time` when there is always more, in pieces of at most `piece`.
    fn sent(kbit: u32, time: Duration, piece: usize) -> usize {
        let (mut bucket, mut now, mut all) = (Bucket::new(kbit, Duration::ZERO), Duration::ZERO, 0);
        while now < time {
            match bucket.room(now) {
                Ok(room) => {
                    let n = room.min(piece);
                    bucket.spend(n, now);
                    all += n;
                }
                Err(wait) => {
                    assert!(wait > Duration::ZERO && wait < 2 * SECOND, "{wait:?}");
                    now += wait;
                }
            }
        }
        all
    }

    #[test]
    fn the_rate_holds_whatever_is_sent() {
        for kbit in [64, 512, 4000, 1_000_000] {
            for piece in [1, 1500, 65_536] {
                let (got, fair) = (sent(kbit, 10 * SECOND, piece) as f64, f64::from(kbit) * 1250.0);
                assert!((0.95..1.1).contains(&(got / fair)), "{kbit} kbit/s in pieces of {piece}: {got} of {fair}");
            }
        }
    }

    #[test]
    fn quiet_saves_up_no_more_than_a_moment() {
        let mut bucket = Bucket::new(1000, Duration::ZERO);
        assert_eq!(bucket.room(3600 * SECOND), Ok(31_250));
        bucket.spend(31_250 + 125_000, 3600 * SECOND);
        let Err(wait) = bucket.room(3600 * SECOND) else { panic!("a debt is waited for") };
        assert!(wait >= SECOND && wait < SECOND + Duration::from_millis(20), "{wait:?}");
        // A clock that steps back gives nothing and takes nothing.
        assert!(bucket.room(Duration::ZERO).is_err());
        assert!(bucket.room(3602 * SECOND).is_ok());
    }
}
