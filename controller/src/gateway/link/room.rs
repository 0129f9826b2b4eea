//! How fast pictures may leave for a viewer: its own cap and its part of the line it shares, and whether they wait.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Link;
use crate::gateway::limit::Bucket;
use crate::gateway::protocol::vnc::line::Allowance;
use crate::gateway::shape::Grant;

/// Most that is read at once for a viewer.
const PIECE: usize = 64 * 1024;
/// Waiting for room is looked at over this long.
const PRESSURE: Duration = Duration::from_millis(1500);

/// How much of the time pictures wait for room.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    since: Duration,
    waited: Duration,
    before: bool,
}

impl Pressure {
    fn turn(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        if passed >= PRESSURE {
            // A while in which nobody asked says nothing of the time before it.
            self.before = passed < 2 * PRESSURE && self.waited * 4 >= passed;
            (self.since, self.waited) = (now, Duration::ZERO);
        }
    }

    fn waited(&mut self, time: Duration, now: Duration) {
        self.turn(now);
        self.waited += time;
    }

    /// A quarter of the time.
    fn pressed(&mut self, now: Duration) -> bool {
        self.turn(now);
        self.before
    }
}

impl Link {
    /// What its own cap lets through.
    fn own_room(&self) -> Result<usize, Duration> {
        match &mut *self.bucket() {
            Some(bucket) => bucket.room(self.began.elapsed()).map(|bytes| bytes.min(PIECE)),
            None => Ok(PIECE),
        }
    }

    /// Bytes of pictures that may be read now for the viewer.
    pub fn room_now(&self) -> Option<Grant<'_>> {
        let most = self.own_room().ok()?;
        match self.site.get() {
            Some(site) => site.take_now(&self.taker, most),
            None => Some(Grant::free(most)),
        }
    }

    /// The same, waited for; asked when the desktop has something.
    pub async fn room(&self) -> Grant<'_> {
        let began = Instant::now();
        let most = loop {
            match self.own_room() {
                Ok(bytes) => break bytes,
                Err(wait) => {
                    metrics::counter!("gateway_capped_waits_total").increment(1);
                    tokio::time::sleep(wait).await;
                }
            }
        };
        let grant = match self.site.get() {
            Some(site) => site.take(&self.taker, most).await,
            None => Grant::free(most),
        };
        let waited = began.elapsed();
        if waited > Duration::ZERO {
            self.pressure().waited(waited, self.began.elapsed());
        }
        grant
    }

    fn pressure(&self) -> MutexGuard<'_, Pressure> {
        self.pressure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the caps leave to this connection, and whether it is them that hold its pictures up.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        let own = self.bucket().as_ref().map(Bucket::rate);
        let site = self.site.get().and_then(|s| s.part(&self.taker));
        let rate = [own, site].into_iter().flatten().min_by(f64::total_cmp);
        Allowance { rate, pressed: rate.is_some() && self.pressure().pressed(self.began.elapsed()) }
    }

    /// Bytes that left without asking for room: sound, a cursor, words of the gateway.
    pub fn unasked(&self, bytes: usize) {
        if let Some(site) = self.site.get() {
            site.owe(bytes);
        }
    }
}
