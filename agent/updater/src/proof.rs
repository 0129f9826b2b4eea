//! Whether a manifest counts: enough signatures, still good, for this computer, and never back to an older release.

use std::collections::BTreeMap;

use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use tram_wire::update::{Manifest, Ring, SignedManifest};

/// Whose signatures count, and how many are needed.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    public: BTreeMap<String, Vec<u8>>,
    needed: usize,
}

/// Why a manifest is not taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In one word.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// The computer a manifest has to fit.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its processors.
    pub arch: &'a str,
    /// The ring it is in.
    pub ring: Ring,
    /// What time it is at least, Unix milliseconds.
    pub now_ms: i64,
    /// The largest counter that ever ran for good.
    pub counter: u64,
    /// The newest protocol its updater knows.
    pub protocol: u16,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if text.len() != 2 * bytes {
        return None;
    }
    text.as_bytes().chunks(2).map(|p| Some(digit(p[0])? * 16 + digit(p[1])?)).collect()
}

/// SHA-256, hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The same of what was hashed piece by piece.
#[must_use]
pub fn finished(hash: Sha256) -> String {
    hex(&hash.finalize())
}

impl Keys {
    /// From public keys as they are written, 64 hexadecimal digits each.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(written: &[String], needed: usize) -> Result<Self, String> {
        let mut public = BTreeMap::new();
        for text in written {
            let key = unhex(text.trim(), 32).ok_or_else(|| format!("`{text}` is not 64 hexadecimal digits"))?;
            if public.insert(hex(&Sha256::digest(&key)[..8]), key).is_some() {
                return Err(format!("`{text}` is there twice"));
            }
        }
        if needed == 0 || (!public.is_empty() && needed > public.len()) {
            return Err(format!("signatures = {needed}: give 1 to the number of keys, which is {}", public.len()));
        }
        Ok(Self { public, needed })
    }

    /// Whether anything can be proved at all.
    #[must_use]
    pub fn can_prove(&self) -> bool {
        !self.public.is_empty()
    }

    /// Proves a manifest for a computer.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn prove(&self, signed: &SignedManifest, here: &Here<'_>) -> Result<Manifest, Refusal> {
        if !self.can_prove() {
            return Err(Refusal::new("no_keys", "this computer was not told whose signatures count: updater.toml"));
        }
        // Nothing of a text is believed before its signatures are.
        let bytes = signed.signed_bytes();
        let mut by = std::collections::BTreeSet::new();
        for s in signed.signatures.iter().take(tram_wire::update::MAX_SIGNATURES) {
            let (Some(public), Some(signature)) = (self.public.get(&s.key), unhex(&s.signature, 64)) else { continue };
            if UnparsedPublicKey::new(&ED25519, public).verify(&bytes, &signature).is_ok() {
                by.insert(&s.key);
            }
        }
        if by.len() < self.needed {
            let detail = format!("{} of {} signatures count", by.len(), self.needed);
            return Err(Refusal::new("signatures", detail));
        }
        let manifest = signed.read().map_err(|(code, detail)| Refusal { code, detail })?;
        if manifest.expires_ms <= here.now_ms {
            return Err(Refusal::new("expired", "the manifest is too old to be taken up"));
        }
        if manifest.arch != here.arch {
            return Err(Refusal::new("arch", format!("it is for {}, this is {}", manifest.arch, here.arch)));
        }
        if manifest.min_protocol > here.protocol {
            return Err(Refusal::new("protocol", "it needs a newer updater: install the package"));
        }
        if manifest.ring < here.ring {
            let detail =
                format!("it is for {} at most, this computer is in {}", manifest.ring.as_str(), here.ring.as_str());
            return Err(Refusal::new("ring", detail));
        }
        if manifest.counter < here.counter {
            let detail =
                format!("its counter {} is below {}: it is older than what ran here", manifest.counter, here.counter);
            return Err(Refusal::new("counter", detail));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use tram_wire::update::{FORM, Signature};

    use super::*;

    pub(crate) struct Signer(Ed25519KeyPair);

    impl Signer {
        pub(crate) fn new(seed: u8) -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
        }

        pub(crate) fn public(&self) -> String {
            hex(self.0.public_key().as_ref())
        }

        fn sign(&self, text: &str) -> Signature {
            let bytes = SignedManifest { manifest: text.into(), signatures: Vec::new() }.signed_bytes();
            let key = hex(&Sha256::digest(self.0.public_key().as_ref())[..8]);
            Signature { key, signature: hex(self.0.sign(&bytes).as_ref()) }
        }
    }

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            form: FORM,
            version: "2.0".into(),
            counter: 7,
            arch: "x86_64".into(),
            sha256: "0".repeat(64),
            size: 10,
            min_protocol: 1,
            ring: Ring::All,
            expires_ms: 1000,
        }
    }

    pub(crate) fn signed(manifest: &Manifest, by: &[&Signer]) -> SignedManifest {
        let text = serde_json::to_string(manifest).unwrap();
        SignedManifest { signatures: by.iter().map(|k| k.sign(&text)).collect(), manifest: text }
    }

    const HERE: Here<'static> = Here { arch: "x86_64", ring: Ring::Lab, now_ms: 999, counter: 7, protocol: 1 };

    #[test]
    fn two_of_three_are_enough_and_one_of_them_twice_is_not() {
        let [a, b, c, stranger] = [1, 2, 3, 4].map(Signer::new);
        let keys = Keys::new(&[a.public(), b.public(), c.public()], 2).unwrap();
        let m = manifest();
        assert_eq!(keys.prove(&signed(&m, &[&a, &c]), &HERE), Ok(m.clone()));
        let code = |s: &SignedManifest| keys.prove(s, &HERE).unwrap_err().code;
        assert_eq!(code(&signed(&m, &[])), "signatures");
        assert_eq!(code(&signed(&m, &[&a])), "signatures");
        assert_eq!(code(&signed(&m, &[&a, &a])), "signatures");
        assert_eq!(code(&signed(&m, &[&a, &stranger])), "signatures");
        let mut other = signed(&m, &[&a, &b]);
        other.manifest = other.manifest.replace("\"size\":10", "\"size\":11");
        assert_eq!(code(&other), "signatures", "altered after it was signed");
        let mut cut = signed(&m, &[&a, &b]);
        cut.signatures[1].signature.truncate(126);
        assert_eq!(code(&cut), "signatures");
        // Signed for another purpose: without the words that go before a release.
        let text = serde_json::to_string(&m).unwrap();
        let bare = |k: &Signer| Signature { signature: hex(k.0.sign(text.as_bytes()).as_ref()), ..k.sign(&text) };
        assert_eq!(
            code(&SignedManifest { signatures: vec![bare(&a), bare(&b)], manifest: text.clone() }),
            "signatures"
        );
        assert_eq!(Keys::default().prove(&signed(&m, &[&a, &b]), &HERE).unwrap_err().code, "no_keys");
        assert!(keys.prove(&signed(&m, &[&stranger, &a, &b]), &HERE).is_ok(), "a signature too many does no harm");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_reason() {
        let [a, b] = [1, 2].map(Signer::new);
        let keys = Keys::new(&[a.public(), b.public()], 2).unwrap();
        let code = |change: &dyn Fn(&mut Manifest)| {
            let mut m = manifest();
            change(&mut m);
            keys.prove(&signed(&m, &[&a, &b]), &HERE).unwrap_err().code
        };
        assert_eq!(code(&|m| m.expires_ms = 999), "expired");
        assert_eq!(code(&|m| m.arch = "aarch64".into()), "arch");
        assert_eq!(code(&|m| m.min_protocol = 2), "protocol");
        assert_eq!(code(&|m| m.counter = 6), "counter");
        assert_eq!(code(&|m| m.version = "2/../../x".into()), "version");
        assert_eq!(code(&|m| m.size = 0), "size");
        assert_eq!(code(&|m| m.form = 9), "form");
        let mut lab = manifest();
        lab.ring = Ring::Lab;
        let far = Here { ring: Ring::Fifth, ..HERE };
        assert_eq!(keys.prove(&signed(&lab, &[&a, &b]), &far).unwrap_err().code, "ring");
        assert_eq!(keys.prove(&signed(&lab, &[&a, &b]), &HERE), Ok(lab));
    }
}
