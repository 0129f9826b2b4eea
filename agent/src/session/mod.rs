//! Floor 6: an officer's session on this endpoint.
//!
//! ```text
//! kiosk browser ── page ── desk ── control ── controller        who, which desktop, a ticket, a lease
//!                           ├── vault                            leases, for when the controller is away
//!                           └── show ── tunnel ── gateway       the way there, over cuts and lost gateways
//!                                ├── viewer ── listen           a program of the distribution, on its own socket
//!                                └── assist ── mark             that support looks, over all of it
//! page, terminal ── call ── control                            support is called, with a code to read out
//! page ── privacy ── ledger                                    what was sent, and what support did
//! ```

pub mod assist;
pub mod call;
mod cause;
pub mod control;
pub mod desk;
pub mod gateways;
pub mod kiosk;
mod lease;
pub mod listen;
pub mod mark;
pub mod orders;
pub mod page;
pub mod privacy;
mod screen;
mod show;
mod support;
mod terminal;
pub mod texts;
pub mod tunnel;
pub mod vault;
pub mod view;
pub mod viewer;
