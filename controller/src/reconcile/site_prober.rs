//! Who probes for each site, and what of health and diagnosis is old.

use std::time::Duration;

use super::World;
use super::driver::Reconciler;
use crate::nudge::Kind;
use crate::services::{diagnosis, health};

/// The reconciler.
pub struct SiteProber;

impl Reconciler for SiteProber {
    const NAME: &'static str = "site_prober";
    // Endpoints nudge with every report, far too often; sites hardly ever change hands.
    const KIND: Kind = Kind::Host;
    const PERIOD: Duration = Duration::from_secs(5);

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        let now = world.app.clock.now();
        let named = health::elect_probers(&world.app, now).await?;
        if named > 0 {
            tracing::info!(sites = named, "probers were named");
        }
        health::prune(&world.app, now).await?;
        diagnosis::prune(&world.app, now).await?;
        Ok(())
    }
}
