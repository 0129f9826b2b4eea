//! What an authority gives to a gateway on another machine: one file with a key, its certificate and the authority's
//! certificate. The authority's own key stays where it is, so whoever gets hold of that machine can sign nothing.

use std::fs;
use std::path::Path;

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::CaError;
use crate::domain::time::Time;

/// One, opened.
pub(super) struct Pass {
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) authority: CertificateDer<'static>,
    pub(super) not_after: Time,
}

/// The text of a pass: key, certificate, authority.
pub(super) fn written(key: &KeyPair, certificate: &rcgen::Certificate, authority_pem: &str) -> String {
    format!("{}{}{authority_pem}", key.serialize_pem(), certificate.pem())
}

impl Pass {
    /// Reads one that is good now.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`]; [`CaError::Over`] if its time is over.
    pub(super) fn open(path: &Path, now: Time) -> Result<Self, CaError> {
        let text = fs::read(path).map_err(|e| CaError::File(path.to_owned(), e))?;
        let pass = Self::read(&text).map_err(|why| CaError::Damaged(path.to_owned(), why))?;
        if now >= pass.not_after {
            return Err(CaError::Over(path.to_owned(), pass.not_after));
        }
        Ok(pass)
    }

    fn read(text: &[u8]) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|e| e.to_string())?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let Ok([certificate, authority]) = <[_; 2]>::try_from(certificates.map_err(|e| e.to_string())?) else {
            return Err("it holds a key, its certificate and the authority's, in this order".to_owned());
        };
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|e| e.to_string())?;
        let not_after = Time::from_micros(parsed.validity().not_after.timestamp().saturating_mul(1_000_000));
        Ok(Self { key, certificate, authority, not_after })
    }
}
