//! Releases of the agent, and how the updater of an endpoint learns of them.
//!
//! `POST` [`Ask`] at [`UPDATE_PATH`], proved by the device certificate, answered by [`Answer`]: what this endpoint shall
//! run, if anything, and when to ask again. The program itself is `GET` [`RELEASE_PATH`] and its SHA-256, with
//! `Range: bytes=N-`; the same path is served by the endpoint of a site that keeps a copy for the others.
//!
//! The controller carries releases, it can't make them: the manifest is a text signed offline by several people, and the
//! endpoint knows whose signatures count. What is signed is what travels, so there is nothing to canonicalize.

use serde::{Deserialize, Serialize};

/// `POST` [`Ask`], answered by [`Answer`].
pub const UPDATE_PATH: &str = "/agent/v1/update";
/// `GET` with the SHA-256 of a release behind it.
pub const RELEASE_PATH: &str = "/agent/v1/release/";
/// Goes before the text when it is signed: nothing else that is ever signed can be taken for a release.
pub const CONTEXT: &[u8] = b"tram release v1\n";
/// Longest text of a manifest; a longer one is not looked at.
pub const MAX_MANIFEST: usize = 4 * 1024;
/// Largest program.
pub const MAX_SIZE: u64 = 64 * 1024 * 1024;
/// Signatures of one manifest.
pub const MAX_SIGNATURES: usize = 16;
/// Longest name of a release.
pub const MAX_NAME: usize = 64;
/// The only form of a manifest so far.
pub const FORM: u16 = 1;

/// How far a release has spread. Each ring is let in when the one before it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ring {
    /// Computers of the lab.
    Lab,
    /// One commune.
    Commune,
    /// A few computers of each region.
    Canary,
    /// A fifth of them all.
    Fifth,
    /// Everybody.
    All,
}

impl Ring {
    /// All, in order.
    pub const EVERY: [Self; 5] = [Self::Lab, Self::Commune, Self::Canary, Self::Fifth, Self::All];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Commune => "commune",
            Self::Canary => "canary",
            Self::Fifth => "fifth",
            Self::All => "all",
        }
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::EVERY.into_iter().find(|r| *r > self)
    }
}

impl std::str::FromStr for Ring {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let known = Self::EVERY.into_iter().find(|r| r.as_str() == s);
        known.ok_or_else(|| format!("`{s}` is none of lab, commune, canary, fifth, all"))
    }
}

/// What a release is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORM`].
    pub form: u16,
    /// Its name, such as `1.4.2`; see [`name_is_good`].
    pub version: String,
    /// Every release has a larger one than those before it; an endpoint never goes back.
    pub counter: u64,
    /// For which processors, such as `x86_64`.
    pub arch: String,
    /// SHA-256 of the program, hexadecimal.
    pub sha256: String,
    /// Its bytes.
    pub size: u64,
    /// The oldest protocol its endpoint's updater must know.
    pub min_protocol: u16,
    /// The widest ring it may reach.
    pub ring: Ring,
    /// Not taken up after that, Unix milliseconds.
    pub expires_ms: i64,
}

/// A name that is a folder's name and nothing else: letters, digits, `.+~-`, beginning with a digit.
#[must_use]
pub fn name_is_good(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~' | '-');
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(good)
        && !name.contains("..")
}

/// Whether this is a SHA-256 as it is written here: small letters.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Manifest {
    /// What is wrong with it whoever reads it: a short code and the particulars.
    ///
    /// # Errors
    /// Those.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.form != FORM {
            return Err(("form", format!("form {} of a manifest is not known here", self.form)));
        }
        if !name_is_good(&self.version) {
            return Err(("version", "the version is no name of a release".to_owned()));
        }
        if !is_sha256(&self.sha256) {
            return Err(("sha256", "sha256 is not 64 hexadecimal digits".to_owned()));
        }
        if self.size == 0 || self.size > MAX_SIZE {
            return Err(("size", format!("a program has 1 to {MAX_SIZE} bytes, not {}", self.size)));
        }
        if self.counter == 0 {
            return Err(("counter", "the counter begins with 1".to_owned()));
        }
        Ok(())
    }
}

/// A signature of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Id of the key.
    pub key: String,
    /// Ed25519 over [`CONTEXT`] and the text, hexadecimal.
    pub signature: String,
}

/// A manifest with the proof of who agreed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedManifest {
    /// The text that was signed: a [`Manifest`] as JSON.
    pub manifest: String,
    /// By whom.
    pub signatures: Vec<Signature>,
}

impl SignedManifest {
    /// The bytes the signatures are over.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [CONTEXT, self.manifest.as_bytes()].concat()
    }

    /// What it says. This proves nothing.
    ///
    /// # Errors
    /// Code and particulars.
    pub fn read(&self) -> Result<Manifest, (&'static str, String)> {
        if self.manifest.len() > MAX_MANIFEST || self.signatures.len() > MAX_SIGNATURES {
            return Err(("malformed", "the manifest is too long".to_owned()));
        }
        let manifest: Manifest = serde_json::from_str(&self.manifest).map_err(|e| ("malformed", e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }
}

/// How far an endpoint is with a release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing is going on.
    #[default]
    Idle,
    /// It is being fetched.
    Fetching,
    /// It is here, and waits for its time.
    Ready,
    /// It runs, and is watched.
    Trial,
    /// It runs for good.
    Committed,
    /// It did not run well; the one before runs again.
    RolledBack,
    /// It did so too often and is not tried again.
    Banned,
    /// It is not taken up.
    Refused,
    /// Made after this build.
    #[serde(other)]
    Other,
}

/// What is told of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which, by its counter.
    pub counter: u64,
    /// How far.
    pub stage: Stage,
    /// Why, in one word; empty: all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How often it was rolled back.
    #[serde(default)]
    pub strikes: u8,
    /// Bytes of it that are here.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes of it that came from a computer of the office.
    #[serde(default)]
    pub from_peer: u64,
}

/// An updater asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The newest protocol it knows: [`crate::version::CURRENT`].
    pub protocol: u16,
    /// For which processors it is.
    pub arch: String,
    /// The release that runs; absent: the one of the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The largest counter that was ever run for good.
    #[serde(default)]
    pub counter: u64,
    /// How far it is with the newest that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Where computers of its office can fetch what it keeps, such as `192.168.1.5:7445`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps_at: Option<String>,
    /// What it keeps, by SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeps: Option<String>,
}

/// What it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What it shall run; absent: nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// Ask again after so many seconds.
    pub again_s: u32,
    /// It keeps a copy for the computers of its office.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
}

/// A release for this endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// It.
    pub signed: SignedManifest,
    /// The ring this endpoint is in.
    pub ring: Ring,
    /// Not before so many seconds; absent: it is only kept for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
    /// How long it must run, in seconds, before it counts.
    pub alive_s: u32,
    /// Computers of the office that have it, in the order to try them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_folder_and_nothing_else() {
        for good in ["1.4.2", "0.1.0~rc1", "2026.11.25+git.abc"] {
            assert!(name_is_good(good), "{good}");
        }
        let long = "1".repeat(MAX_NAME + 1);
        for bad in ["", ".", "..", "../x", "1/2", "1..2", "/etc", "-1", "v1", "1\0", "1 2", "1\n", long.as_str()] {
            assert!(!name_is_good(bad), "{bad:?}");
        }
    }

    #[test]
    fn rings_follow_one_another() {
        let mut all = vec![Ring::Lab];
        while let Some(next) = all.last().and_then(|r| r.next()) {
            all.push(next);
        }
        assert_eq!(all, Ring::EVERY);
        assert!(Ring::EVERY.iter().all(|r| r.as_str().parse() == Ok(*r)));
        assert_eq!(serde_json::to_value(Ring::Fifth).unwrap(), "fifth");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let good = Manifest {
            form: FORM,
            version: "1.0".into(),
            counter: 1,
            arch: "x86_64".into(),
            sha256: "0".repeat(64),
            size: 1,
            min_protocol: 1,
            ring: Ring::All,
            expires_ms: 1,
        };
        assert_eq!(good.check(), Ok(()));
        let bad = |change: &dyn Fn(&mut Manifest)| {
            let mut m = good.clone();
            change(&mut m);
            m.check().unwrap_err().0
        };
        assert_eq!(bad(&|m| m.form = 2), "form");
        assert_eq!(bad(&|m| m.version = "../../bin".into()), "version");
        assert_eq!(bad(&|m| m.sha256 = "../../../etc/shadow".into()), "sha256");
        assert_eq!(bad(&|m| m.sha256 = "A".repeat(64)), "sha256");
        assert_eq!(bad(&|m| m.size = 0), "size");
        assert_eq!(bad(&|m| m.size = u64::MAX), "size");
        assert_eq!(bad(&|m| m.counter = 0), "counter");
        let text = |manifest: &str| SignedManifest { manifest: manifest.into(), signatures: Vec::new() };
        assert_eq!(text("{").read().unwrap_err().0, "malformed");
        assert_eq!(text(&" ".repeat(MAX_MANIFEST + 1)).read().unwrap_err().0, "malformed");
    }
}
