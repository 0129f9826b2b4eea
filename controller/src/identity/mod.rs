//! Floor 2: passwords, secrets and certificates. No storage.

mod authority;
pub mod ca;
pub mod lease_keys;
pub mod node_certificate;
pub mod nodes;
pub mod papers;
mod pass;
pub mod password;
pub mod secret;
pub mod shelf;
pub mod tls;
