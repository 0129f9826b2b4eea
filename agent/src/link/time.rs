//! Asking the controller what time it is, when this computer's clock is too wrong to judge its certificate.
//!
//! The connection proves the controller by the pinned CA all the same; only the dates of its certificate are not looked at,
//! and nothing but the time is asked on it. The answer must lie within those dates, and not before what is certain.

use std::io;

use rustls::{CertificateError, Error};
use serde::Deserialize;
use tram_wire::TIME_PATH;

use super::http::{self, HttpError};
use super::tls::{self, Trust};
use crate::config::Address;
use crate::trusted;

#[derive(Deserialize)]
struct Told {
    server_ms: i64,
}

/// Whether a certificate was refused for its dates.
#[must_use]
pub fn is_about_dates(e: &io::Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let inner = e.get_ref().and_then(|e| e.downcast_ref::<Error>());
    matches!(
        inner,
        Some(Error::InvalidCertificate(Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }))
    )
}

/// Asks, and goes by the answer from here on.
///
/// # Errors
/// [`HttpError`], also if the answer can't be right.
pub async fn ask(to: &Address, trust: &Trust, floor_ms: i64) -> Result<(), HttpError> {
    let (config, seen) = tls::undated(trust).map_err(HttpError::Connect)?;
    let request = http::Request { method: "GET", path: TIME_PATH, bearer: None, body: &[] };
    let answer = http::ask(to, config, &request).await?;
    let garbled = |what: &str| HttpError::Garbled(what.to_owned());
    if answer.status != 200 {
        return Err(garbled(&format!("HTTP status {} for the time", answer.status)));
    }
    let told: Told = serde_json::from_slice(&answer.body).map_err(|e| garbled(&e.to_string()))?;
    if told.server_ms < floor_ms || !seen.holds_at(told.server_ms) {
        return Err(garbled("the time it told can't be right"));
    }
    trusted::learn(told.server_ms);
    Ok(())
}
