//! Floor 1: the rules. No I/O; the time, random numbers and ids come in as arguments.

#[macro_use]
mod text_enum;

pub mod access;
pub mod approval;
pub mod assist;
pub mod call;
pub mod copies;
pub mod credential;
pub mod day;
pub mod desktop;
pub mod diagnosis;
pub mod endpoint;
pub mod experience;
pub mod gateway;
pub mod health;
pub mod host;
pub mod image;
pub mod incident;
pub mod lease;
pub mod limits;
pub mod line;
pub mod name;
pub mod notify;
pub mod path;
pub mod placement;
pub mod policy;
pub mod pool;
pub mod rings;
pub mod runbook;
pub mod session;
pub mod site;
pub mod site_import;
pub mod sla;
pub mod text;
pub mod then;
pub mod ticket;
pub mod time;
