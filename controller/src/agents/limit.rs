//! How often one endpoint may ask. A computer that is enrolled is still a computer in an open office.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tram_wire::ids::EndpointId;

/// What is limited, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A password is tried: a person types, a guessing program does not.
    SignIn,
    /// A page that waits asks again every second or two.
    Other,
}

impl Kind {
    /// So many at once, and the time after which one more is allowed.
    fn rate(self) -> (u32, Duration) {
        match self {
            Self::SignIn => (10, Duration::from_secs(6)),
            Self::Other => (60, Duration::from_millis(500)),
        }
    }
}

/// Endpoints remembered at once; a full bucket is no memory worth keeping.
const REMEMBERED: usize = 4096;

struct Bucket {
    left: u32,
    since: Instant,
}

/// Buckets of all endpoints.
#[derive(Clone, Default)]
pub(super) struct Limits(Arc<Mutex<HashMap<(EndpointId, Kind), Bucket>>>);

impl Limits {
    /// Takes one, or says how long to wait for it.
    pub(super) fn take(&self, id: EndpointId, kind: Kind, now: Instant) -> Result<(), Duration> {
        let (burst, every) = kind.rate();
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            buckets.retain(|(_, kind), b| {
                let (burst, every) = kind.rate();
                now.duration_since(b.since) < every * (burst - b.left)
            });
        }
        let bucket = buckets.entry((id, kind)).or_insert(Bucket { left: burst, since: now });
        let periods = now.duration_since(bucket.since).as_nanos() / every.as_nanos();
        let gained = u32::try_from(periods).unwrap_or(burst);
        if gained >= burst - bucket.left {
            (bucket.left, bucket.since) = (burst, now);
        } else {
            bucket.left += gained;
            bucket.since += every * gained;
        }
        if bucket.left == 0 {
            return Err(every.saturating_sub(now.duration_since(bucket.since)));
        }
        bucket.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_guesser_is_slowed_down_and_nobody_else_is() {
        let (limits, begun) = (Limits::default(), Instant::now());
        let (a, b) = (EndpointId(Uuid::from_u128(1)), EndpointId(Uuid::from_u128(2)));
        assert!((0..10).all(|_| limits.take(a, Kind::SignIn, begun).is_ok()));
        assert_eq!(limits.take(a, Kind::SignIn, begun), Err(Duration::from_secs(6)));
        assert!(limits.take(b, Kind::SignIn, begun).is_ok() && limits.take(a, Kind::Other, begun).is_ok());
        let later = begun + Duration::from_secs(7);
        assert!(limits.take(a, Kind::SignIn, later).is_ok());
        assert_eq!(limits.take(a, Kind::SignIn, later), Err(Duration::from_secs(5)));
        // A quiet hour gives no more than the burst.
        let hour = begun + Duration::from_secs(3600);
        assert_eq!((0..99).filter(|_| limits.take(a, Kind::SignIn, hour).is_ok()).count(), 10);
    }

    #[test]
    fn memory_is_bounded_by_those_who_ask_now() {
        let (limits, begun) = (Limits::default(), Instant::now());
        for n in 0..3 * REMEMBERED {
            let now = begun + Duration::from_millis(n as u64);
            assert!(limits.take(EndpointId(Uuid::from_u128(n as u128)), Kind::Other, now).is_ok());
        }
        assert!(limits.0.lock().unwrap().len() <= REMEMBERED);
    }
}
