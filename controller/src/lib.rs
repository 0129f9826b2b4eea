//! The Tram controller.
//!
//! Floors, bottom up; a module uses only floors below its own, never sideways, and only `cli` builds
//! objects (`tests/floors.rs` reads the `use` lines and fails on a breach):
//!
//! 1. [`domain`], [`nudge`], [`clock`]: pure rules and wake-ups
//! 2. [`store`], [`identity`], [`notify`], [`fleet`]: all SQL; passwords, secrets, certificates; mail and SMS; open hypervisor backends
//! 3. [`services`]: use cases, each one transaction with its audit row
//! 4. [`reconcile`], [`agents`], [`gateway`], [`api`]: what runs and what listens
//! 5. [`cli`]: the composition root

pub mod agents;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod fleet;
pub mod gateway;
pub mod identity;
pub mod notify;
pub mod nudge;
pub mod reconcile;
pub mod services;
pub mod store;
pub mod telemetry;
