//! A key in the computer's TPM 2.0, by the distribution's `tpm2-tools` with fixed arguments.
//!
//! The TPM makes the key under its owner's storage key and gives it out only wrapped: what is kept on disk is good for
//! this TPM alone, and a copied disk has no key. Nothing stays in the TPM, so that nothing fills it up, and a computer
//! that is wiped leaves nothing behind.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::config::{TpmSettings, TpmUse};
use crate::host::{Ran, run};

/// What a wrapped key starts with where else a PEM stands.
const PREFIX: &str = "tpm2:";
/// A TPM on a slow bus takes a second for a key.
const WITHIN: Duration = Duration::from_secs(20);
/// The key never leaves this TPM, signs and does nothing else, and wrong guesses elsewhere don't lock it.
const ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda";
/// Head of a P-256 public key in DER; the point follows.
const SPKI_HEAD: usize = 26;
const POINT: usize = 65;

static SETTINGS: OnceLock<TpmSettings> = OnceLock::new();

/// Says how the TPM is reached, once; until then there is none.
pub fn set(settings: &TpmSettings) {
    let _ = SETTINGS.set(settings.clone());
}

/// Why the TPM did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TpmError {
    /// Nothing to ask.
    #[error("there is no TPM: {0}")]
    None(String),
    /// `tpm2-tools` aren't there.
    #[error("the package tpm2-tools is not installed")]
    Tools,
    /// It said no, or nothing.
    #[error("the TPM refused ({tool}: {why})")]
    Failed {
        /// What was tried.
        tool: &'static str,
        /// The exit code, or that it took too long.
        why: String,
    },
    /// The key on disk isn't one.
    #[error("the key is not one of a TPM's")]
    Damaged,
    /// No folder for what the tools hand over.
    #[error("{0}")]
    Folder(String),
}

impl From<io::Error> for TpmError {
    fn from(e: io::Error) -> Self {
        Self::Folder(e.to_string())
    }
}

/// A key that only this computer's TPM can use.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmKey {
    /// The public part and the wrapped private one, as the TPM gave them.
    public: Vec<u8>,
    wrapped: Vec<u8>,
    /// The public point, uncompressed.
    point: Vec<u8>,
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TpmKey(…)")
    }
}

impl TpmKey {
    /// A new key; `None` if none is wanted, or there is no TPM and none is needed.
    ///
    /// # Errors
    /// [`TpmError`] if one is required, or if there is a TPM that does not do it.
    pub fn make() -> Result<Option<Self>, TpmError> {
        let Some(settings) = SETTINGS.get().filter(|s| s.tpm != TpmUse::Off) else { return Ok(None) };
        match Tools::of(settings).and_then(|t| t.make()) {
            Ok(key) => Ok(Some(key)),
            Err(TpmError::None(_)) if settings.tpm == TpmUse::Auto => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether a key is required to be there.
    #[must_use]
    pub fn is_required() -> bool {
        SETTINGS.get().is_some_and(|s| s.tpm == TpmUse::Required)
    }

    /// The key that was written so; `None` if it is another kind.
    ///
    /// # Errors
    /// [`TpmError::Damaged`].
    pub fn read(text: &str) -> Option<Result<Self, TpmError>> {
        let rest = text.strip_prefix(PREFIX)?;
        let mut parts = rest.trim().split(':').map(unhex);
        let read = match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(public), Some(wrapped), Some(point), None) if point.len() == POINT => {
                Ok(Self { public, wrapped, point })
            }
            _ => Err(TpmError::Damaged),
        };
        Some(read)
    }

    /// As it is kept: nothing of it is of use without the TPM.
    #[must_use]
    pub fn write(&self) -> String {
        format!("{PREFIX}{}:{}:{}", hex(&self.public), hex(&self.wrapped), hex(&self.point))
    }

    fn sign_digest(&self, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let settings = SETTINGS.get().ok_or_else(|| TpmError::None("it is switched off".into()))?;
        Tools::of(settings)?.sign(self, digest)
    }
}

impl PublicKeyData for TpmKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for TpmKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_digest(&Sha256::digest(message).into()).map_err(|e| {
            eprintln!("tram-agent: {e}");
            rcgen::Error::RemoteKeyError
        })
    }
}

/// The key as TLS takes it.
#[derive(Clone, Debug)]
pub struct ForTls(Arc<TpmKey>);

impl ForTls {
    /// Proves who we are by this key.
    #[must_use]
    pub fn new(key: TpmKey) -> Self {
        Self(Arc::new(key))
    }
}

impl SigningKey for ForTls {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P256, &self.0.point))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for ForTls {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let done = self.0.sign_digest(&Sha256::digest(message).into());
        done.map_err(|e| rustls::Error::General(e.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// A key that the TPM has unwrapped, as a saved context that is good until it is switched off.
struct Loaded {
    public: Vec<u8>,
    folder: Folder,
}

/// The last one: links, tunnels and the desk sign one after the other with the same key.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Forgets what was loaded, with the folder it was in: before a process ends.
pub fn let_go() {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// The distribution's tools.
struct Tools<'a> {
    tcti: &'a str,
}

impl<'a> Tools<'a> {
    fn of(settings: &'a TpmSettings) -> Result<Self, TpmError> {
        if let Some(device) = settings.tcti.strip_prefix("device:")
            && let Err(e) = fs::OpenOptions::new().read(true).write(true).open(device)
        {
            return Err(TpmError::None(format!("{device}: {e}")));
        }
        Ok(Self { tcti: &settings.tcti })
    }

    fn run(&self, tool: &'static str, args: &[&str]) -> Result<(), TpmError> {
        let all = [&["-T", self.tcti, "-Q"], args].concat();
        match run(tool, &all, WITHIN) {
            Ran::Done { code: 0, .. } => Ok(()),
            Ran::Absent => Err(TpmError::Tools),
            Ran::TimedOut => Err(TpmError::Failed { tool, why: "it took too long".into() }),
            Ran::Done { code, .. } => Err(TpmError::Failed { tool, why: format!("exit code {code}") }),
        }
    }

    /// Runs one that loads something, and lets go of it: without a resource manager nobody else does.
    fn step(&self, tool: &'static str, args: &[&str]) -> Result<(), TpmError> {
        let done = self.run(tool, args);
        let freed = self.run("tpm2_flushcontext", &["-t"]);
        done.and(freed)
    }

    /// The storage key: the same each time, for it is made of the TPM's own seed.
    fn storage(&self, folder: &Folder) -> Result<(), TpmError> {
        self.step("tpm2_createprimary", &["-C", "o", "-G", "ecc", "-c", &folder.at("storage.ctx")])
    }

    fn make(&self) -> Result<TpmKey, TpmError> {
        let folder = Folder::new()?;
        self.storage(&folder)?;
        let (storage, public, wrapped, der) =
            (folder.at("storage.ctx"), folder.at("key.pub"), folder.at("key.priv"), folder.at("key.der"));
        self.step(
            "tpm2_create",
            &[
                "-C",
                &storage,
                "-G",
                "ecc256:ecdsa-sha256",
                "-a",
                ATTRIBUTES,
                "-u",
                &public,
                "-r",
                &wrapped,
                "-f",
                "der",
                "-o",
                &der,
            ],
        )?;
        let der = fs::read(der)?;
        let point = der.get(SPKI_HEAD..).filter(|p| p.len() == POINT && p[0] == 4).ok_or(TpmError::Damaged)?;
        Ok(TpmKey { public: fs::read(public)?, wrapped: fs::read(wrapped)?, point: point.to_vec() })
    }

    fn sign(&self, key: &TpmKey, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = loaded.as_ref().filter(|l| l.public == key.public)
            && let Ok(signature) = self.sign_with(&there.folder, digest)
        {
            return Ok(signature);
        }
        // Never loaded, or the TPM was switched off since.
        *loaded = None;
        let folder = Folder::new()?;
        let (storage, public, wrapped) = (folder.at("storage.ctx"), folder.at("key.pub"), folder.at("key.priv"));
        fs::write(&public, &key.public)?;
        fs::write(&wrapped, &key.wrapped)?;
        self.storage(&folder)?;
        self.step("tpm2_load", &["-C", &storage, "-u", &public, "-r", &wrapped, "-c", &folder.at("key.ctx")])?;
        let signature = self.sign_with(&folder, digest)?;
        *loaded = Some(Loaded { public: key.public.clone(), folder });
        Ok(signature)
    }

    fn sign_with(&self, folder: &Folder, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let (context, input, output) = (folder.at("key.ctx"), folder.at("digest"), folder.at("signature"));
        fs::write(&input, digest)?;
        self.step("tpm2_sign", &["-c", &context, "-g", "sha256", "-d", "-f", "plain", "-o", &output, &input])?;
        Ok(fs::read(output)?)
    }
}

/// A private folder for what the tools hand over, gone when it is let go of.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, TpmError> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|e| TpmError::Folder(e.to_string()))?;
        let path = std::env::temp_dir().join(format!("tram-tpm-{}", hex(&random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    if let Err(e) = fs::remove_dir_all(path) {
        eprintln!("tram-agent: {}: {e}", path.display());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0 && !d.is_empty())?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back_and_rubbish_does_not() {
        let key = TpmKey { public: vec![1, 0xab], wrapped: vec![2], point: vec![4; POINT] };
        let text = key.write();
        assert!(text.starts_with("tpm2:01ab:02:0404"));
        assert_eq!(TpmKey::read(&text), Some(Ok(key)));
        assert_eq!(TpmKey::read("-----BEGIN PRIVATE KEY-----"), None);
        for bad in ["tpm2:", "tpm2:01:02", "tpm2:01:02:04", "tpm2:0:02:04", "tpm2:01:02:zz", &format!("{text}:00")] {
            assert_eq!(TpmKey::read(bad), Some(Err(TpmError::Damaged)), "{bad}");
        }
    }

    #[test]
    fn without_a_word_there_is_no_tpm() {
        assert_eq!(TpmKey::make(), Ok(None));
        assert!(!TpmKey::is_required());
    }
}
