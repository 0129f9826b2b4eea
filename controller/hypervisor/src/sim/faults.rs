//! Controls for tests: delay, failures, and the points at which the process may be killed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};

use crate::{Error, Result};

/// What goes wrong on the simulated host, and when.
#[derive(Debug, Default)]
pub struct Faults {
    calls: AtomicU64,
    points: AtomicU64,
    fail_every: AtomicU64,
    halt_at: AtomicU64,
    kill_at: AtomicU64,
    delay_ms: AtomicU64,
    offline: AtomicBool,
}

impl Faults {
    /// Every call takes this long.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Every `n`th call is refused before it does anything; 0 for never.
    pub fn set_fail_every(&self, n: u64) {
        self.fail_every.store(n, Ordering::Relaxed);
    }

    /// From the `n`th point on nothing changes any more and every call says unreachable, as if the
    /// controller had died there; 0 lets the host go on.
    pub fn set_halt_at(&self, n: u64) {
        self.points.store(0, Ordering::Relaxed);
        self.halt_at.store(n, Ordering::Relaxed);
    }

    /// At the `n`th point this whole process gets SIGKILL; 0 for never.
    pub fn set_kill_at(&self, n: u64) {
        self.kill_at.store(n, Ordering::Relaxed);
    }

    /// How many points were passed so far: a test tries every one of them.
    #[must_use]
    pub fn points_passed(&self) -> u64 {
        self.points.load(Ordering::Relaxed)
    }

    pub(super) fn set_offline(&self, offline: bool) -> bool {
        self.offline.swap(offline, Ordering::Relaxed) != offline
    }

    /// The start of every call.
    pub(super) async fn enter(&self, deadline: Duration) -> Result<()> {
        if self.offline.load(Ordering::Relaxed) {
            return Err(Error::Unreachable("the simulated host is switched off".into()));
        }
        let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
        if delay > deadline {
            tokio::time::sleep(deadline).await;
            return Err(Error::Timeout(deadline));
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.fail_every.load(Ordering::Relaxed) {
            n if n > 0 && call.is_multiple_of(n) => Err(Error::Refused(format!("simulated failure of call {call}"))),
            _ => Ok(()),
        }
    }

    /// Before and after every change of the world.
    pub(super) fn point(&self) -> Result<()> {
        let n = self.points.fetch_add(1, Ordering::Relaxed) + 1;
        if self.kill_at.load(Ordering::Relaxed) == n {
            // Not abort(): no handler, no core file, exactly what `kill -9` does.
            let _ = raise(Signal::SIGKILL);
        }
        match self.halt_at.load(Ordering::Relaxed) {
            at if at > 0 && n >= at => Err(Error::Unreachable("the simulated host was halted".into())),
            _ => Ok(()),
        }
    }
}
