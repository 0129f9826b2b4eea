//! Floor 5: an officer's session on this endpoint.
//!
//! [`control`] asks the controller; [`tunnel`] keeps the way to the desktop open, over cuts and over gateways
//! that go away.

pub mod control;
pub mod listen;
pub mod tunnel;
pub mod viewer;
