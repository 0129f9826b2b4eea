//! The keys that sign leases: one file of the data folder, 0600, made on first use.
//!
//! The first key in the file signs; those behind it only prove what they signed before, until the file loses
//! them. The file is read for each signature (a lease is signed every half hour an officer works), so a new key
//! needs no restart. Gateways get the public halves through the database.

use std::collections::HashMap;
use std::path::Path;

use ring::signature::{ED25519, UnparsedPublicKey};
use tram_wire::lease::{Lease, Signed};

use super::authority::CaError;
use super::key_file::KeyFile;
use crate::domain::lease::Fault;

const FILE: &str = "lease-keys.pem";

/// Public keys by id.
pub type PublicKeys = HashMap<String, Vec<u8>>;

/// The keys, opened.
pub struct LeaseKeys(KeyFile);

impl LeaseKeys {
    /// Opens the keys of a data folder; makes one if there is none.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn open(data: &Path) -> Result<Self, CaError> {
        KeyFile::open(data, FILE).map(Self)
    }

    /// Puts a new key before the one that signs now; older ones go, and all of them if `forget`.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn renew(data: &Path, forget: bool) -> Result<Self, CaError> {
        KeyFile::renew(data, FILE, forget).map(Self)
    }

    /// What proves leases.
    #[must_use]
    pub fn public(&self) -> PublicKeys {
        self.0.public().into_iter().collect()
    }

    /// Signs a lease.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn sign(&self, lease: &Lease) -> Result<Signed, CaError> {
        let text = serde_json::to_string(lease).map_err(|_| CaError::Request("the lease can't be written"))?;
        let mut signed = Signed { key: self.0.id()?, lease: text, signature: String::new() };
        signed.signature = self.0.sign(&signed.signed_bytes())?;
        Ok(signed)
    }
}

/// What a lease says, if one of these keys signed exactly that.
///
/// # Errors
/// [`Fault::Key`], [`Fault::Signature`], [`Fault::Garbled`].
pub fn prove(signed: &Signed, keys: &PublicKeys) -> Result<Lease, Fault> {
    let public = keys.get(&signed.key).ok_or(Fault::Key)?;
    let signature = unhex(&signed.signature).ok_or(Fault::Signature)?;
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(&signed.signed_bytes(), &signature).map_err(|_| Fault::Signature)?;
    signed.unproved().map_err(|_| Fault::Garbled)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    if text.len() != 128 {
        return None;
    }
    text.as_bytes().chunks(2).map(|p| Some((digit(p[0])? * 16 + digit(p[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
    use tram_wire::lease::Limits;
    use uuid::Uuid;

    use super::super::key_file::id;
    use super::*;
    use crate::domain::lease::hex;

    fn lease() -> Lease {
        let nil = Uuid::nil();
        Lease {
            version: 1,
            id: nil.into(),
            installation: nil.into(),
            user: nil.into(),
            username: "lan".into(),
            display_name: "Lan".into(),
            endpoint: nil.into(),
            certificate: String::new(),
            site: String::new(),
            session: nil.into(),
            desktop: nil.into(),
            desktop_name: "d".into(),
            generation: 1,
            host: nil.into(),
            protocols: Vec::new(),
            limits: Limits { idle_s: 60, clipboard: true, audio: true, kbit: None },
            issued_ms: 1,
            not_before_ms: 1,
            expires_ms: 2,
        }
    }

    #[test]
    fn what_was_signed_is_proved_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let keys = LeaseKeys::open(dir.path()).unwrap();
        let good = keys.sign(&lease()).unwrap();
        assert_eq!(prove(&good, &keys.public()), Ok(lease()));
        // One bit anywhere.
        for at in [0, good.lease.len() / 2, good.lease.len() - 1] {
            let mut bytes = good.lease.clone().into_bytes();
            bytes[at] ^= 1;
            let bad = Signed { lease: String::from_utf8(bytes).unwrap(), ..good.clone() };
            assert_eq!(prove(&bad, &keys.public()), Err(Fault::Signature));
        }
        let mut signature = good.signature.clone();
        signature.replace_range(..1, if signature.starts_with('0') { "1" } else { "0" });
        for bad in [signature, String::new(), "zz".repeat(64), "é".repeat(64), "0".repeat(1 << 20)] {
            assert_eq!(prove(&Signed { signature: bad, ..good.clone() }, &keys.public()), Err(Fault::Signature));
        }
        // The same text and id under somebody else's key; and a signature without the context.
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let forged = Signed { signature: hex(&other.sign(&good.signed_bytes()).unwrap()), ..good.clone() };
        assert_eq!(prove(&forged, &keys.public()), Err(Fault::Signature));
        assert_eq!(prove(&Signed { key: id(other.public_key_raw()), ..forged }, &keys.public()), Err(Fault::Key));
        let bare = hex(&keys.0.first().unwrap().sign(good.lease.as_bytes()).unwrap());
        assert_eq!(prove(&Signed { signature: bare, ..good }, &keys.public()), Err(Fault::Signature));
    }

    #[test]
    fn a_new_key_signs_and_the_former_one_still_proves_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let first = LeaseKeys::open(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode, fs::read_dir(dir.path()).unwrap().count()), (0o600, 1));
        assert_eq!(LeaseKeys::open(dir.path()).unwrap().public(), first.public());
        let old = first.sign(&lease()).unwrap();
        LeaseKeys::renew(dir.path(), false).unwrap();
        let second = LeaseKeys::open(dir.path()).unwrap();
        assert_ne!(second.sign(&lease()).unwrap().key, old.key);
        assert!(prove(&old, &second.public()).is_ok());
        LeaseKeys::renew(dir.path(), false).unwrap();
        assert_eq!(prove(&old, &LeaseKeys::open(dir.path()).unwrap().public()), Err(Fault::Key));
        let kept = LeaseKeys::renew(dir.path(), true).unwrap().public();
        assert_eq!((kept.len(), fs::read_dir(dir.path()).unwrap().count()), (1, 1));
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "rubbish").unwrap();
        let e = LeaseKeys::open(dir.path()).err().unwrap().to_string();
        assert!(e.contains(FILE), "{e}");
    }
}
