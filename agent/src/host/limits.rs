//! What this process and those it starts may do.

use std::io;

use nix::sys::resource::{Resource, setrlimit};

/// A crash leaves no picture of the memory on the disk.
pub fn no_core_dumps() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(io::Error::from)
}
