//! The Tram endpoint agent.
//!
//! One process, one thread, one outbound link. Floors, bottom up; a floor uses only those below it:
//! `wire` | `host`, `config` | `identity`, `trusted`, `collect`, `deny`, `queue`, `ledger`, `generalize`, `helper`, `checks`, `link::machine` |
//! `link`, `report`, `actions` | `status`, `doctor`, `enrolling` | `session`, `app` | `main`. `helper` is what runs in processes of its own.

pub mod actions;
pub mod app;
pub mod checks;
pub mod collect;
pub mod config;
pub mod deny;
pub mod doctor;
pub mod enrolling;
pub mod generalize;
pub mod helper;
pub mod host;
pub mod identity;
pub mod ledger;
pub mod link;
pub mod outbox;
pub mod queue;
pub mod report;
pub mod session;
pub mod status;
pub mod trusted;
