//! Sessions nobody came back to, sessions whose desktop or gateway is gone, and old tickets.

use std::time::Duration;

use super::World;
use super::driver::Reconciler;
use crate::domain::session::Policy;
use crate::nudge::Kind;
use crate::services::{App, Result, broker};

/// The reconciler.
#[derive(Default)]
pub struct SessionReaper {
    /// How long sessions may last.
    pub policy: Policy,
}

impl Reconciler for SessionReaper {
    const NAME: &'static str = "session_reaper";
    const KIND: Kind = Kind::Session;
    // Short, because a desktop that comes up nudges its own kind, and its officer waits.
    const PERIOD: Duration = Duration::from_secs(2);

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        pass(&world.app, &self.policy).await?;
        Ok(())
    }
}

/// One look at all live sessions; how many changed. A second one at the same time changes nothing.
///
/// # Errors
/// Only those of the store.
pub async fn pass(app: &App, policy: &Policy) -> Result<usize> {
    let changed = broker::reap(app, policy).await?;
    if changed > 0 {
        tracing::info!(changed, "sessions changed by themselves");
    }
    Ok(changed)
}
