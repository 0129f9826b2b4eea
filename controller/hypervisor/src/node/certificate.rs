//! A node's certificate renews itself before it ends, over the connection a controller keeps with the node.
//!
//! The node makes a new key, which never leaves it, and asks whoever calls it: only controllers can. The controller
//! signs it for the names the certificate has that the node proves itself with, and for no others.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use rustls::ClientConfig;

/// What a node serves with.
pub trait Certificate: fmt::Debug + Send + Sync {
    /// A request for the next one (PEM), if it is time to ask.
    fn request(&self) -> Option<String>;

    /// Serves with what was signed from now on (PEM).
    ///
    /// # Errors
    /// Why it is not taken; the former one stays.
    fn install(&self, pem: &str) -> Result<(), String>;

    /// The last moment it is good, microseconds since 1970.
    fn not_after(&self) -> i64;
}

/// Signs what nodes ask for.
#[async_trait]
pub trait Signer: fmt::Debug + Send + Sync {
    /// The next certificate (PEM) for the node that proved itself with `current` (DER).
    ///
    /// # Errors
    /// Why not, for the log.
    async fn sign(&self, current: &[u8], request: &str) -> Result<String, String>;
}

/// How a controller meets nodes.
#[derive(Clone, Debug)]
pub struct Access {
    /// Its own certificate, and the authority it trusts.
    pub tls: Arc<ClientConfig>,
    /// Who signs for nodes; without one their certificates are not renewed.
    pub signer: Option<Arc<dyn Signer>>,
}

impl From<Arc<ClientConfig>> for Access {
    fn from(tls: Arc<ClientConfig>) -> Self {
        Self { tls, signer: None }
    }
}
