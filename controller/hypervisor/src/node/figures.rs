//! What a node counts of itself, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start, and what is there now.
#[derive(Debug, Default)]
pub struct Figures {
    /// Connections that are open, of controllers and gateways.
    pub connections: AtomicU64,
    /// Displays that are carried.
    pub displays: AtomicU64,
    /// Calls that were answered.
    pub calls: AtomicU64,
    /// Calls the hypervisor did not do.
    pub calls_failed: AtomicU64,
    /// Connections that came to nothing: no certificate of ours, another installation, nonsense.
    pub refused: AtomicU64,
    /// Golden images that came in.
    pub images: AtomicU64,
}

impl Figures {
    /// One more.
    pub(super) fn add(n: &AtomicU64) {
        n.fetch_add(1, Ordering::Relaxed);
    }

    /// One more until dropped.
    pub(super) fn held(n: &AtomicU64) -> Held<'_> {
        Self::add(n);
        Held(n)
    }

    /// All of them by name; those that end in `_total` only grow.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 6] {
        let now = |n: &AtomicU64| n.load(Ordering::Relaxed);
        [
            ("node_connections", now(&self.connections)),
            ("node_displays", now(&self.displays)),
            ("node_calls_total", now(&self.calls)),
            ("node_calls_failed_total", now(&self.calls_failed)),
            ("node_refused_total", now(&self.refused)),
            ("node_images_total", now(&self.images)),
        ]
    }
}

/// Counted as long as it is there.
pub(super) struct Held<'a>(&'a AtomicU64);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
