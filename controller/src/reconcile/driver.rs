//! Runs a reconciler: on a nudge, on a timer, and never on top of itself.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nudge::{Bus, Kind};

/// Calls `pass` whenever `kind` is nudged and at least every `period`, until stopped. A failed pass is
/// logged and tried again, a little later each time.
pub async fn run<F>(name: &'static str, bus: &Bus, kind: Kind, period: Duration, stop: &CancellationToken, mut pass: F)
where
    F: AsyncFnMut() -> anyhow::Result<()>,
{
    let mut failures = 0u32;
    loop {
        let began = Instant::now();
        match pass().await {
            Ok(()) => failures = 0,
            Err(e) => {
                failures += 1;
                counter!("reconcile_failures_total", "reconciler" => name).increment(1);
                tracing::warn!(reconciler = name, error = %format!("{e:#}"), failures, "pass failed, will be repeated");
            }
        }
        histogram!("reconcile_pass_seconds", "reconciler" => name).record(began.elapsed().as_secs_f64());
        let wait = if failures == 0 { period } else { Duration::from_millis(500 << failures.min(5)).min(period) };
        tokio::select! {
            () = stop.cancelled() => return,
            () = bus.nudged(kind), if failures == 0 => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
