//! Texts that are signed as they are: runbooks, evidence. Ed25519, with the purpose in what is signed, so that a
//! signature of one kind is none of another.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use super::authority::{CaError, create};
use crate::domain::lease::hex;

/// Public keys by id.
pub type PublicKeys = HashMap<String, Vec<u8>>;

/// What a text is signed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A runbook.
    Runbook,
    /// Evidence of a line's outages.
    Evidence,
    /// A release of the agent. Endpoints prove it themselves: [`tram_wire::update::CONTEXT`].
    Release,
}

impl Purpose {
    fn bytes(self, text: &str) -> Vec<u8> {
        let name = match self {
            Self::Runbook => "tram runbook v1\n",
            Self::Evidence => "tram evidence v1\n",
            Self::Release => return [tram_wire::update::CONTEXT, text.as_bytes()].concat(),
        };
        [name.as_bytes(), text.as_bytes()].concat()
    }
}

/// Why a signature proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaperFault {
    /// Signed by a key that is not among those that count.
    #[error("it is signed by a key that is not configured here")]
    Key,
    /// The text, or the signature, was altered.
    #[error("the signature does not fit: the text was altered")]
    Signature,
}

/// A key that was lost by writing another one over it can't be made again.
fn already() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "it exists, and is never written over: give another name")
}

/// A key that signs.
pub struct PaperKey(KeyPair);

impl PaperKey {
    /// Makes a key in a new file, 0600.
    ///
    /// # Errors
    /// [`CaError::File`], also if there is one.
    pub fn make(folder: &Path, name: &str) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        if folder.join(name).exists() {
            return Err(CaError::File(folder.join(name), already()));
        }
        create(folder, name, &key.serialize_pem()).map_err(|e| CaError::File(folder.join(name), e))?;
        Self::open(&folder.join(name))
    }

    /// Opens a key's file.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, CaError> {
        let text = fs::read_to_string(path).map_err(|e| CaError::File(path.to_owned(), e))?;
        let key = KeyPair::from_pem_and_sign_algo(&text, &PKCS_ED25519);
        Ok(Self(key.map_err(|e| CaError::Damaged(path.to_owned(), e.to_string()))?))
    }

    /// Opens a key of a folder, and makes it on first use.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn of(folder: &Path, name: &str) -> Result<Self, CaError> {
        match Self::open(&folder.join(name)) {
            Err(CaError::File(_, e)) if e.kind() == io::ErrorKind::NotFound => {
                match Self::make(folder, name) {
                    // Somebody else was faster: theirs counts.
                    Err(CaError::File(_, e)) if e.kind() == io::ErrorKind::AlreadyExists => {
                        Self::open(&folder.join(name))
                    }
                    made => made,
                }
            }
            opened => opened,
        }
    }

    /// Its public half, in hexadecimal.
    #[must_use]
    pub fn public(&self) -> String {
        hex(self.0.public_key_raw())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> String {
        id(self.0.public_key_raw())
    }

    /// Signs a text.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn sign(&self, purpose: Purpose, text: &str) -> Result<String, CaError> {
        Ok(hex(&self.0.sign(&purpose.bytes(text))?))
    }
}

fn id(public: &[u8]) -> String {
    hex(&Sha256::digest(public)[..8])
}

/// Public keys as they are written in a configuration. The first that is none is the error.
///
/// # Errors
/// That text.
pub fn public_keys<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<PublicKeys, String> {
    let mut keys = PublicKeys::new();
    for text in written {
        let bytes = unhex(text.trim()).filter(|b| b.len() == 32).ok_or_else(|| text.to_owned())?;
        keys.insert(id(&bytes), bytes);
    }
    Ok(keys)
}

/// Whether one of these keys signed exactly this text for this purpose.
///
/// # Errors
/// [`PaperFault`].
pub fn prove(keys: &PublicKeys, key: &str, purpose: Purpose, text: &str, signature: &str) -> Result<(), PaperFault> {
    let public = keys.get(key).ok_or(PaperFault::Key)?;
    let signature = unhex(signature).filter(|s| s.len() == 64).ok_or(PaperFault::Signature)?;
    let proof = UnparsedPublicKey::new(&ED25519, public).verify(&purpose.bytes(text), &signature);
    proof.map_err(|_| PaperFault::Signature)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if text.len() > 256 || !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks(2).map(|p| Some(digit(p[0])? * 16 + digit(p[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_was_signed_is_proved_for_that_purpose_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = PaperKey::of(dir.path(), "k.pem").unwrap();
        assert_eq!(PaperKey::of(dir.path(), "k.pem").unwrap().public(), key.public());
        assert!(PaperKey::make(dir.path(), "k.pem").is_err(), "a key is not made over another");
        let keys = public_keys([key.public().as_str()]).unwrap();
        let signature = key.sign(Purpose::Runbook, "một hai").unwrap();
        let proved = |k: &str, p, text: &str, s: &str| prove(&keys, k, p, text, s);
        assert_eq!(proved(&key.id(), Purpose::Runbook, "một hai", &signature), Ok(()));
        assert_eq!(proved(&key.id(), Purpose::Evidence, "một hai", &signature), Err(PaperFault::Signature));
        assert_eq!(proved(&key.id(), Purpose::Runbook, "một hai ", &signature), Err(PaperFault::Signature));
        assert_eq!(proved(&key.id(), Purpose::Runbook, "một hai", &signature[2..]), Err(PaperFault::Signature));
        assert_eq!(proved("0011223344556677", Purpose::Runbook, "một hai", &signature), Err(PaperFault::Key));
        assert_eq!(public_keys(["zz", "12"]), Err("zz".to_owned()));
    }
}
