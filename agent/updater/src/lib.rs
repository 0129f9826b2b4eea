//! The updater of an endpoint: a program of its own, so that an agent that falls over can still be mended.
//!
//! Floors, bottom up: `config`, `state`, `proof`, `place` | `watch`, `agent`, `fetch`, `keep` | `run`, `rest` | `main`.
//! [`watch`] is pure: it takes what is seen of the agent and says whether a release stays. What is decided is written
//! down by [`state`] before it is done, so that a power cut anywhere is answered by doing it again.

pub mod agent;
pub mod config;
pub mod fetch;
pub mod keep;
pub mod place;
pub mod proof;
pub mod rest;
pub mod run;
pub mod state;
pub mod watch;
