//! Who this endpoint is: a key made here, and a certificate from the controller.
//!
//! The key is in the computer's TPM where there is one ([`tpm`]), else in the file. Key and certificate live in one file, replaced by one rename, so that no crash can leave a key with
//! another key's certificate. The private key never leaves the computer.

pub mod tpm;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use tram_wire::enrol::Issued;
use tram_wire::hello::KeyPlace;
use tram_wire::ids::EndpointId;

use self::tpm::{TpmError, TpmKey};

const FILE: &str = "identity.json";

/// Held by the agent that runs.
pub const LOCK: &str = "agent.lock";

/// Why an identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("this computer isn't enrolled: {0} doesn't exist; run `tram-agent enrol` with a token from an operator")]
    Missing(PathBuf),
    /// It can't be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// It was damaged.
    #[error("{0} is damaged ({1}); enrol again with a new token")]
    Damaged(PathBuf, serde_json::Error),
    /// The key couldn't be made.
    #[error("no key could be made: {0}")]
    Key(#[from] rcgen::Error),
    /// It must be in a TPM, and there is none to be used.
    #[error("no key could be made where the configuration wants it: {0}")]
    Tpm(#[from] TpmError),
}

/// An enrolled endpoint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The controller, `https://host:port`.
    pub controller: String,
    /// The id the controller gave.
    pub endpoint_id: EndpointId,
    /// Private key, PKCS#8 PEM; or what only this computer's TPM can use, see [`TpmKey`].
    pub key_pem: String,
    /// Certificate and its life.
    #[serde(flatten)]
    pub issued: Issued,
    /// How often this identity has connected. A restored disk image shows an old count.
    #[serde(default)]
    pub connects: u64,
    /// What tells this computer from others that show the same identity, until an operator settled whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
}

/// A new key and the request for its certificate.
pub struct Request {
    key_pem: String,
    /// PKCS#10 request, PEM.
    pub csr_pem: String,
}

impl Request {
    /// Makes a P-256 key, in the TPM if there is one. The request names nobody: the controller decides who this is.
    pub fn new() -> Result<Self, IdentityError> {
        match Self::in_tpm() {
            Ok(Some(made)) => return Ok(made),
            Ok(None) => {}
            Err(e) if TpmKey::is_required() => return Err(e),
            Err(e) => eprintln!("tram-agent: {e}; the key is kept in a file"),
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { csr_pem: csr(&key)?, key_pem: key.serialize_pem() })
    }

    fn in_tpm() -> Result<Option<Self>, IdentityError> {
        let Some(key) = TpmKey::make()? else { return Ok(None) };
        Ok(Some(Self { csr_pem: csr(&key)?, key_pem: key.write() }))
    }

    /// The private key, PKCS#8 PEM, or what stands for it.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key_pem.clone()
    }
}

fn csr(key: &impl rcgen::SigningKey) -> Result<String, rcgen::Error> {
    CertificateParams::default().serialize_request(key)?.pem()
}

impl Identity {
    /// Where its key is.
    #[must_use]
    pub fn key_place(&self) -> KeyPlace {
        if TpmKey::read(&self.key_pem).is_some() { KeyPlace::Tpm } else { KeyPlace::File }
    }

    /// Reads the identity in `state`.
    pub fn load(state: &Path) -> Result<Self, IdentityError> {
        let path = state.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| IdentityError::Damaged(path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(IdentityError::Missing(path)),
            Err(e) => Err(IdentityError::Io(path, e)),
        }
    }

    /// Replaces the identity in `state`.
    pub fn save(&self, state: &Path) -> Result<(), IdentityError> {
        let path = state.join(FILE);
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| IdentityError::Damaged(path.clone(), e))?;
        write_private(state, FILE, &bytes).map_err(|e| IdentityError::Io(path, e))
    }

    /// The same endpoint with a new key.
    #[must_use]
    pub fn renewed(&self, request: &Request, issued: Issued) -> Self {
        Self { key_pem: request.key_pem(), issued, ..self.clone() }
    }

    /// An endpoint of its own, at the same controller: this computer was a copy.
    #[must_use]
    pub fn reborn(&self, request: &Request, id: EndpointId, issued: Issued) -> Self {
        Self { endpoint_id: id, connects: 0, copy: None, ..self.renewed(request, issued) }
    }

    /// Tells this computer from others with the same identity from here on.
    pub fn mark_as_copy(&mut self) -> io::Result<()> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        self.copy = Some(u128::from_le_bytes(random).to_string());
        Ok(())
    }
}

/// Takes the state folder for this process, for as long as the file is open; `None` if another agent has it. Two agents
/// on one folder would look like two computers with one identity.
///
/// # Errors
/// If the file can't be made.
pub fn hold(state: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(state.join(LOCK))?;
    // Made by root, the agent's own user must be able to open it later.
    let (made, home) = (file.metadata()?, fs::metadata(state)?);
    if made.uid() != home.uid() {
        fchown(&file, Some(home.uid()), Some(home.gid()))?;
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

/// Writes `name` in `folder` so that a reader sees the old bytes or the new ones, and so that only its
/// owner can read it. The folder is made if need be; in somebody else's folder root writes for that somebody,
/// or `enrol` typed as root would make a key that the agent's own user can't read.
pub fn write_private(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join(format!(".{name}.new"));
    // A rest of an earlier crash might have another mode.
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let (made, home) = (file.metadata()?, fs::metadata(folder)?);
    if made.uid() != home.uid() {
        fchown(&file, Some(home.uid()), Some(home.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    // Without this a power cut may bring the old name back.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn identity() -> Identity {
        Identity {
            controller: "https://127.0.0.1:8444".into(),
            endpoint_id: "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap(),
            key_pem: "k".into(),
            issued: Issued { certificate_pem: "c".into(), ca_pem: "a".into(), issued_ms: 1, not_after_ms: 2 },
            connects: 3,
            copy: None,
        }
    }

    #[test]
    fn what_is_saved_loads_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        identity().save(&state).unwrap();
        identity().save(&state).unwrap();
        assert!(Identity::load(&state).unwrap() == identity());
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(FILE))), (0o700, 0o600));
    }

    #[test]
    fn root_writes_for_the_folders_owner() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not shown: this needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65_534), Some(65_534)).unwrap();
        identity().save(dir.path()).unwrap();
        let file = fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (65_534, 65_534, 0o600));
    }

    #[test]
    fn a_rest_of_a_crash_with_a_wide_mode_does_not_leak_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let rest = dir.path().join(".identity.json.new");
        fs::write(&rest, "half").unwrap();
        fs::set_permissions(&rest, fs::Permissions::from_mode(0o666)).unwrap();
        identity().save(dir.path()).unwrap();
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!rest.exists());
    }

    #[test]
    fn missing_and_damaged_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Missing(_))));
        fs::write(dir.path().join(FILE), "{\"controller\":").unwrap();
        assert!(matches!(Identity::load(dir.path()), Err(IdentityError::Damaged(..))));
    }

    #[test]
    fn each_request_has_its_own_key() {
        let (a, b) = (Request::new().unwrap(), Request::new().unwrap());
        assert_ne!(a.key_pem(), b.key_pem());
        assert!(a.csr_pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        assert!(!a.csr_pem.contains("PRIVATE"));
    }
}
