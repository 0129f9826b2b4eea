//! The agent-controller protocol: ids, versions, frames and messages.
//!
//! No I/O and no runtime: both ends, the golden samples and the load simulator share these types.

pub mod ids;
