//! Renewal after weeks off: the certificate has ended, its key is still ours.

use std::sync::Arc;

use rustls::ClientConfig;
use tram_wire::RENEW_PATH;
use tram_wire::enrol::{Issued, Renew};
use tram_wire::refusal::Refusal;

use super::http::{self, HttpError};
use crate::config::Address;

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No answer.
    #[error("{0}")]
    Http(#[from] HttpError),
    /// No.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Shows the ended certificate, proves its key, and asks for one for a new key.
///
/// # Errors
/// [`RenewError`].
pub async fn renew(to: &Address, config: Arc<ClientConfig>, csr_pem: &str) -> Result<Issued, RenewError> {
    let garbled = |e: serde_json::Error| HttpError::Garbled(e.to_string());
    let body = serde_json::to_vec(&Renew { csr_pem: csr_pem.to_owned() }).map_err(garbled)?;
    let request = http::Request { method: "POST", path: RENEW_PATH, bearer: None, body: &body };
    let answer = http::ask(to, config, &request).await?;
    match answer.status {
        200 => Ok(serde_json::from_slice(&answer.body).map_err(garbled)?),
        status => match serde_json::from_slice::<Refusal>(&answer.body) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(HttpError::Garbled(format!("HTTP status {status}")).into()),
        },
    }
}
