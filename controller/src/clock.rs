//! The only place that asks the machine for the time.
//!
//! Everything else is handed a [`Time`], so that a test can move it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::time::Time;

/// A source of the current time; cheap to clone.
#[derive(Clone)]
pub struct Clock(Inner);

#[derive(Clone)]
enum Inner {
    /// Microseconds it is behind the clock that counts.
    System(Arc<AtomicI64>),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Inner::System(Arc::default()))
    }

    /// A clock that stands still until [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start: Time) -> Self {
        Self(Inner::Manual(Arc::new(AtomicI64::new(start.micros()))))
    }

    /// The current time, UTC, to the microsecond.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place the others are sent to")]
    pub fn now(&self) -> Time {
        match &self.0 {
            Inner::System(behind) => {
                Time::from_micros(jiff::Timestamp::now().as_microsecond() + behind.load(Ordering::SeqCst))
            }
            Inner::Manual(t) => Time::from_micros(t.load(Ordering::SeqCst)),
        }
    }

    /// Puts the machine's clock right for this process: another one counts, and this is its time now. Differences
    /// below a second are the way between them. The seconds it was off until now, if it was; a manual clock never is.
    pub fn follow(&self, other: Time) -> Option<f64> {
        let Inner::System(behind) = &self.0 else { return None };
        let off = other.micros() - self.now().micros();
        if off.abs() < 1_000_000 {
            return None;
        }
        behind.fetch_add(off, Ordering::SeqCst);
        Some(-(off as f64) / 1e6)
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn set(&self, to: Time) {
        if let Inner::Manual(t) = &self.0 {
            t.store(to.micros(), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_follows_the_one_that_counts() {
        let (clock, other) = (Clock::system(), Clock::system());
        let copy = clock.clone();
        assert_eq!(clock.follow(Time::from_micros(other.now().micros() + 300_000)), None, "that is no difference");
        let right = |hours: i64| Time::from_micros(other.now().micros() + hours * 3_600_000_000);
        for hours in [1, -1, 0] {
            let off = clock.follow(right(hours)).unwrap();
            assert!(off.abs() > 3000.0, "{off}");
            assert!((copy.now().micros() - right(hours).micros()).abs() < 10_000_000, "copies follow, too");
        }
        assert_eq!(Clock::manual(right(0)).follow(right(1)), None);
    }
}
