//! Who waits and may be served, sessions nobody came back to, sessions whose desktop or gateway is gone, support that
//! may not look any more, and old tickets.

use std::time::Duration;

use metrics::gauge;
use tokio::time::Instant;

use super::World;
use super::driver::Reconciler;
use crate::domain::gateway::{GatewayState, SILENCE};
use crate::nudge::Kind;
use crate::services::{App, Result, assists, broker};

/// The reconciler.
#[derive(Default)]
pub struct SessionReaper {
    /// Since when the database has answered without a break.
    answers: Option<Instant>,
}

impl Reconciler for SessionReaper {
    const NAME: &'static str = "session_reaper";
    const KIND: Kind = Kind::Session;
    // Short, because a desktop that comes up nudges its own kind, and its officer waits.
    const PERIOD: Duration = Duration::from_secs(2);

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        // When the database was away, gateways could not say that they live: they get the time to do so.
        let judged = self.answers.is_some_and(|since| since.elapsed() > SILENCE);
        match look(&world.app, judged).await {
            Ok(_) => {
                count_gateways(&world.app).await?;
                self.answers.get_or_insert_with(Instant::now);
                Ok(())
            }
            Err(e) => {
                self.answers = None;
                Err(e.into())
            }
        }
    }
}

/// One look at all live sessions and at the waiting line; how many changed. A second one at the same time
/// changes nothing.
///
/// # Errors
/// Only those of the store.
pub async fn pass(app: &App) -> Result<usize> {
    look(app, true).await
}

async fn look(app: &App, judged: bool) -> Result<usize> {
    let changed = broker::reap(app, judged).await? + broker::serve_line(app).await? + assists::reap(app).await?;
    if changed > 0 {
        tracing::info!(changed, "sessions changed by themselves");
    }
    Ok(changed)
}

async fn count_gateways(app: &App) -> Result<()> {
    let all = app.store.gateways().await?;
    for state in GatewayState::ALL {
        let n = all.iter().filter(|g| g.state() == *state).count();
        gauge!("gateways", "state" => state.as_str()).set(n as f64);
    }
    gauge!("gateways_untold").set(app.store.untold().await? as f64);
    Ok(())
}
