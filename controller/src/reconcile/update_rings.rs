//! Lets a release of the agent into its next ring, or stops it.

use std::time::Duration;

use super::World;
use super::driver::Reconciler;
use crate::nudge::Kind;
use crate::services::updates;

/// The reconciler.
pub struct UpdateRings;

impl Reconciler for UpdateRings {
    const NAME: &'static str = "update_rings";
    // Endpoints nudge with every report; a ring takes hours.
    const KIND: Kind = Kind::Host;
    const PERIOD: Duration = Duration::from_secs(5);

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        Ok(updates::advance(&world.app, world.app.clock.now()).await?)
    }
}
