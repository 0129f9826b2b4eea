//! Ed25519 keys that sign what others prove: one file of the data folder for each purpose, 0600, made on first use.
//!
//! The first key in the file signs; those behind it only prove what they signed before, until the file loses them.
//! It is read anew by whoever signs, so that a new key needs no restart.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::authority::{CaError, create, replace};
use crate::domain::lease::hex;

/// The keys of one purpose.
pub(super) struct KeyFile(Vec<KeyPair>);

impl KeyFile {
    /// Opens the keys; makes one if there is none.
    pub(super) fn open(data: &Path, file: &str) -> Result<Self, CaError> {
        let path = data.join(file);
        let fault = |e| CaError::File(path.clone(), e);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(data, file, &KeyPair::generate_for(&PKCS_ED25519)?.serialize_pem()).map_err(fault)?;
                // Whoever won the race: this is the one that counts.
                fs::read_to_string(&path).map_err(fault)?
            }
            Err(e) => return Err(fault(e)),
        };
        Self::from_pem(&text).map_err(|why| CaError::Damaged(path, why))
    }

    /// Puts a new key before the one that signs now; older ones go, and all of them if `forget`.
    pub(super) fn renew(data: &Path, file: &str, forget: bool) -> Result<Self, CaError> {
        let mut keys = vec![KeyPair::generate_for(&PKCS_ED25519)?];
        if !forget {
            keys.extend(Self::open(data, file)?.0.into_iter().take(1));
        }
        let text: String = keys.iter().map(KeyPair::serialize_pem).collect();
        replace(data, file, &text).map_err(|e| CaError::File(data.join(file), e))?;
        Ok(Self(keys))
    }

    fn from_pem(text: &str) -> Result<Self, String> {
        let keys = PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()).map(|der| {
            let der = der.map_err(|e| e.to_string())?;
            KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(|e| e.to_string())
        });
        let keys = keys.collect::<Result<Vec<_>, String>>()?;
        if keys.is_empty() { Err("no key in it".to_owned()) } else { Ok(Self(keys)) }
    }

    /// The one that signs.
    pub(super) fn first(&self) -> Result<&KeyPair, CaError> {
        self.0.first().ok_or(CaError::Request("there is no key"))
    }

    /// Its id.
    pub(super) fn id(&self) -> Result<String, CaError> {
        Ok(id(self.first()?.public_key_raw()))
    }

    /// Ids and public halves, the one that signs first.
    pub(super) fn public(&self) -> Vec<(String, Vec<u8>)> {
        self.0.iter().map(|k| (id(k.public_key_raw()), k.public_key_raw().to_vec())).collect()
    }

    /// Signs, in hexadecimal.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<String, CaError> {
        Ok(hex(&self.first()?.sign(bytes)?))
    }
}

/// A key's id.
pub(super) fn id(public: &[u8]) -> String {
    hex(&Sha256::digest(public)[..8])
}
