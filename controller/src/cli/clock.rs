//! One time for all controllers: that of the database they share.
//!
//! Rules compare times that different controllers and gateways wrote. With a machine's clock an hour off, a viewer that
//! goes away there would have been away for an hour already to the others. SQLite has no time of its own.

use std::time::Duration;

use tokio::time::Instant;

use crate::services::App;
use crate::store::Db;

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(30);
/// An answer that took longer says too little of when it was given.
const SOON: Duration = Duration::from_secs(1);

/// Puts this process's clock right, now.
pub(super) async fn look(app: &App) {
    if matches!(app.store.db(), Db::Sqlite { .. }) {
        return;
    }
    let asked = Instant::now();
    match app.store.time().await {
        Ok(time) if asked.elapsed() < SOON => {
            if let Some(seconds) = app.clock.follow(time.plus(asked.elapsed() / 2)) {
                tracing::warn!(
                    seconds,
                    "this machine's clock differs from the database's, which counts: see that both are set by NTP"
                );
            }
        }
        Ok(_) => {}
        Err(e) => tracing::debug!(error = %e, "the database's clock could not be asked"),
    }
}

/// Keeps it right; runs until dropped.
pub(super) async fn follow(app: &App) {
    loop {
        tokio::time::sleep(EVERY).await;
        look(app).await;
    }
}
