//! Floor 2: passwords, secrets and certificates. No storage.

mod authority;
pub mod ca;
mod key_file;
pub mod lease_keys;
pub mod node_certificate;
pub mod nodes;
pub mod order_keys;
pub mod papers;
mod pass;
pub mod password;
pub mod qr;
pub mod releases;
pub mod secret;
pub mod shelf;
pub mod tls;
