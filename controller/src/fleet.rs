//! Floor 2: the open hypervisor backends, by host.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use tram_hypervisor::Hypervisor;
use tram_wire::ids::HostId;

/// The backends this process has open. The `host_inventory` reconciler keeps it like the `hosts` table.
#[derive(Clone, Default)]
pub struct Fleet(Arc<RwLock<HashMap<HostId, Arc<dyn Hypervisor>>>>);

impl Fleet {
    /// The backend of a host, if it is open.
    #[must_use]
    pub fn get(&self, id: HostId) -> Option<Arc<dyn Hypervisor>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned()
    }

    /// Puts a backend in place of the former one.
    pub fn put(&self, id: HostId, backend: Arc<dyn Hypervisor>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, backend);
    }

    /// Closes a backend once its last user lets go.
    pub fn remove(&self, id: HostId) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&id);
    }
}
