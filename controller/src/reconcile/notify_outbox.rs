//! Sends what is on its way to people.

use std::time::Duration;

use super::World;
use super::driver::Reconciler;
use crate::domain::incident::hours::Hours;
use crate::notify::Ways;
use crate::nudge::Kind;
use crate::services::{calls, notify};

/// Messages of one pass: an outage of everything must not keep a pass for hours.
const MOST: usize = 50;

/// The reconciler.
pub struct NotifyOutbox {
    /// How the ways are reached.
    pub ways: Ways,
    /// Office hours.
    pub hours: Hours,
}

impl Reconciler for NotifyOutbox {
    const NAME: &'static str = "notify_outbox";
    const KIND: Kind = Kind::Notify;
    const PERIOD: Duration = Duration::from_secs(10);

    async fn pass(&mut self, world: &World) -> anyhow::Result<()> {
        notify::tell_overdue(&world.app, &self.hours, world.app.clock.now()).await?;
        calls::tell(&world.app, &self.hours, world.app.clock.now()).await?;
        for _ in 0..MOST {
            if !notify::send_one(&world.app, &self.ways, world.app.clock.now()).await? {
                break;
            }
        }
        Ok(())
    }
}
