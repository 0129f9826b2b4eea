//! Who waits and may be served, sessions nobody came back to, sessions whose desktop or gateway is gone, support that
//! may not look any more, and old tickets.

use std::time::Duration;

use super::World;
use super::driver::Reconciler;
use crate::nudge::Kind;
use crate::services::{App, Result, assists, broker};

/// The reconciler.
pub struct SessionReaper;

impl Reconciler for SessionReaper {
    const NAME: &'static str = "session_reaper";
    const KIND: Kind = Kind::Session;
    // Short, because a desktop that comes up nudges its own kind, and its officer waits.
    const PERIOD: Duration = Duration::from_secs(2);

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        pass(&world.app).await?;
        Ok(())
    }
}

/// One look at all live sessions and at the waiting line; how many changed. A second one at the same time
/// changes nothing.
///
/// # Errors
/// Only those of the store.
pub async fn pass(app: &App) -> Result<usize> {
    let changed = broker::reap(app).await? + broker::serve_line(app).await? + assists::reap(app).await?;
    if changed > 0 {
        tracing::info!(changed, "sessions changed by themselves");
    }
    Ok(changed)
}
