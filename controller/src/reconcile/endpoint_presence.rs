//! Endpoints that fell silent, and computers that waited too long to become one.

use std::time::Duration;

use super::World;
use super::driver::Reconciler;
use crate::domain::endpoint::PRESENCE_PERIOD;
use crate::domain::time::Time;
use crate::nudge::Kind;
use crate::services::{endpoints, enrolments};

/// The reconciler. It knows when this controller began: silence while nobody listened proves nothing.
pub struct EndpointPresence {
    /// When this controller began to listen.
    pub since: Time,
}

impl Reconciler for EndpointPresence {
    const NAME: &'static str = "endpoint_presence";
    const KIND: Kind = Kind::Endpoint;
    const PERIOD: Duration = PRESENCE_PERIOD;

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        let silent = endpoints::mark_silent(&world.app, self.since, world.app.clock.now()).await?;
        if silent > 0 {
            tracing::info!(silent, "endpoints fell silent");
        }
        let expired = enrolments::expire(&world.app, world.app.clock.now()).await?;
        if expired > 0 {
            tracing::info!(expired, "computers waited too long for approval");
        }
        Ok(())
    }
}
