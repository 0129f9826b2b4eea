//! Floor 4: reconcilers, the only part that changes the outside world.
//!
//! Each takes no input, may run twice, and has one path for the happy and the failing case. A nudge
//! makes it look sooner; losing one costs at most a timer period.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fleet::Fleet;
use crate::services::App;

pub mod desktop_lifecycle;
pub mod driver;
pub mod endpoint_presence;
pub mod host_inventory;
pub mod incident_judge;
pub mod notify_outbox;
pub mod pool_size;
pub mod session_reaper;
pub mod site_prober;
pub mod update_rings;

/// What reconcilers share.
#[derive(Clone)]
pub struct World {
    /// Use cases' surroundings.
    pub app: App,
    /// Open backends.
    pub fleet: Fleet,
    /// This process, for leases.
    pub worker: Uuid,
    /// How backends are opened.
    pub open: Arc<dyn Fn(&crate::store::hosts::Host) -> tram_hypervisor::OpenOptions + Send + Sync>,
    /// Set when the process is to end.
    pub stop: CancellationToken,
}
