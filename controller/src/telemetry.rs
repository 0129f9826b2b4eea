//! Logging and metrics set-up.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error: `json` for machines, else lines for people. `TRAM_LOG` (or the
/// level) filters, in the form of `tracing`'s directives.
pub fn logging(format: &str, level: &str) {
    let filter = std::env::var("TRAM_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second call (tests start several servers) is not an error.
    let _ = match format {
        "json" => builder.json().try_init(),
        _ => builder.with_target(false).try_init(),
    };
}

/// Installs the metrics recorder; `/metrics` renders it. Once per process; later calls share the first.
///
/// # Errors
/// If another recorder is installed.
pub fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    // Held while it is made: of two that start at once, only one may install.
    let mut handle = HANDLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(h) = &*handle {
        return Ok(h.clone());
    }
    // From a millisecond to ten minutes: requests and boots share the scale.
    let buckets =
        [0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0];
    let made = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &buckets)?
        .install_recorder()?;
    Ok(handle.insert(made).clone())
}
