//! Floor 2: passwords, secrets and certificates. No storage.

pub mod ca;
pub mod password;
pub mod secret;
pub mod tls;
