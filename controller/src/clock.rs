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
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Inner::System)
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
            Inner::System => Time::from_micros(jiff::Timestamp::now().as_microsecond()),
            Inner::Manual(t) => Time::from_micros(t.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; does nothing to the machine's.
    pub fn set(&self, to: Time) {
        if let Inner::Manual(t) = &self.0 {
            t.store(to.micros(), Ordering::SeqCst);
        }
    }
}
