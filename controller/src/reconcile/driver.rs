//! Runs a reconciler: on a nudge, on a timer, and never on top of itself.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;

use super::World;
use crate::nudge::Kind;

/// Something that makes the world follow the database, one look at a time.
pub trait Reconciler: Send + 'static {
    /// Name in logs and metrics.
    const NAME: &'static str;
    /// Whose nudges wake it.
    const KIND: Kind;
    /// How often it looks when nobody nudges.
    const PERIOD: Duration;

    /// The same, where it can be set.
    fn period(&self) -> Duration {
        Self::PERIOD
    }

    /// One look at everything it is for. Running it again right away has no further effect.
    fn pass(&mut self, world: &World) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Runs it until stopped. A failed pass is logged and tried again, a little later each time.
pub async fn run<R: Reconciler>(world: World, mut reconciler: R) {
    let mut failures = 0u32;
    loop {
        let began = Instant::now();
        match reconciler.pass(&world).await {
            Ok(()) => failures = 0,
            Err(e) => {
                failures += 1;
                counter!("reconcile_failures_total", "reconciler" => R::NAME).increment(1);
                tracing::warn!(reconciler = R::NAME, error = %format!("{e:#}"), failures, "pass failed, will be repeated");
            }
        }
        histogram!("reconcile_pass_seconds", "reconciler" => R::NAME).record(began.elapsed().as_secs_f64());
        let period = reconciler.period();
        let wait = if failures == 0 { period } else { Duration::from_millis(500 << failures.min(5)).min(period) };
        tokio::select! {
            () = world.stop.cancelled() => return,
            () = world.app.store.bus().nudged(R::KIND), if failures == 0 => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
