//! Tells an officer in time that nobody seems to be there, and listens when they say that they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tram_wire::ids::SessionId;

use super::Gateway;
use super::link::Link;
use crate::domain::session::{Standing, warn_before};
use crate::services::broker;

impl Gateway {
    /// Follows what the database says of each connection's limits, and writes down which of them is near.
    pub(super) async fn warn(&self, links: &[Arc<Link>], standings: &HashMap<SessionId, Standing>) {
        for link in links {
            let Some(s) = standings.get(&link.session) else { continue };
            let idle = Duration::from_secs(s.idle_s);
            link.follow(idle, s.present_at);
            link.warn(s.near(link.idle(), self.0.app.clock.now()));
            let left = idle.saturating_sub(link.idle());
            let near = left <= warn_before(idle);
            if near == s.closing {
                continue;
            }
            let at = near.then(|| self.0.app.clock.now().plus(left));
            if let Err(e) = broker::closing(&self.0.app, link.session, link.epoch(), at).await {
                tracing::warn!(session = %link.session, error = %e, "a warning could not be written down");
            }
        }
    }
}
