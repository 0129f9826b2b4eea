//! libvirt hosts.

use std::sync::Arc;

use crate::{Error, Hypervisor, OpenOptions, Result};

/// Opens a libvirt host.
///
/// # Errors
/// [`Error::Unsupported`] until the backend lands.
pub fn open(_uri: &str, _options: OpenOptions) -> Result<Arc<dyn Hypervisor>> {
    Err(Error::Unsupported("libvirt hosts are not built yet".into()))
}
