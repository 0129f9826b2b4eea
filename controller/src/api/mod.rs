//! Floor 4: the HTTP API. Handlers take apart, call one service, map.

use std::sync::Arc;

use crate::fleet::Fleet;
use crate::services::App;

mod again;
pub mod console;
pub mod error;
pub mod events;
pub mod extract;
mod refused;
pub mod router;
pub mod v1;

/// What handlers share.
#[derive(Clone)]
pub struct Api {
    /// Use cases' surroundings.
    pub app: App,
    /// Open backends: for screenshots and displays only.
    pub fleet: Fleet,
    /// Live changes for consoles.
    pub events: Arc<events::Hub>,
    /// Renders `/metrics`.
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
}
