//! Leases on this computer's disk, each sealed with its officer's password.
//!
//! ```text
//! password ── argon2id, salt of the file ──► base ── HKDF with this computer's key ──► seals the lease
//! ```
//! So a lease opens with the password, on this computer, and nowhere else; neither is on the disk. Wrong tries
//! are counted in the file before they are made, and the last one destroys it. Whatever is damaged, over or too
//! much is removed, and nothing here ever stops the agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tram_wire::lease::{Lease, Signed};

use crate::identity::{Identity, write_private};

const FOLDER: &str = "leases";
/// Most that are kept: more officers than share one computer.
const MOST: usize = 8;
/// Wrong passwords until a lease is destroyed.
const TRIES: u32 = 5;
/// One is kept this long after its end: this computer's clock may be wrong, and the gateway judges by its own.
const SLACK_MS: i64 = 3_600_000;
/// As for passwords everywhere: 19 MiB, two passes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// What a password becomes; kept in memory while its officer is signed in, in place of the password.
#[derive(Clone)]
pub struct Key {
    base: [u8; 32],
    salt: [u8; 16],
}

impl Drop for Key {
    fn drop(&mut self) {
        self.base.fill(0);
        // Not to be left out as a write nobody reads.
        std::hint::black_box(&self.base);
    }
}

impl Key {
    /// From a password, with a salt of its own. Takes a tenth of a second of a small computer.
    ///
    /// # Errors
    /// Without random numbers, or memory.
    pub async fn derive(password: &str) -> io::Result<Self> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        Self::with_salt(password, salt).await
    }

    async fn with_salt(password: &str, salt: [u8; 16]) -> io::Result<Self> {
        let mut password = password.as_bytes().to_vec();
        let work = move || {
            let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(io::Error::other)?;
            let mut base = [0; 32];
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let done = argon2.hash_password_into(&password, &salt, &mut base);
            password.fill(0);
            done.map_err(io::Error::other)?;
            Ok(Self { base, salt })
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// What seals: of the password, and of this computer's own key.
    fn seal(&self, device: &Identity) -> io::Result<LessSafeKey> {
        let device = Sha256::digest(device.key_pem.as_bytes());
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &device).extract(&self.base);
        let expanded = extracted.expand(&[b"tram lease seal 1"], &CHACHA20_POLY1305);
        let key = expanded.map(UnboundKey::from).map_err(|_| io::Error::other("no key"))?;
        Ok(LessSafeKey::new(key))
    }
}

/// A file.
#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u16,
    /// Tells a lease of a former key of this computer from a wrong password.
    device: String,
    salt: String,
    nonce: String,
    sealed: String,
    issued_ms: i64,
    expires_ms: i64,
    /// Wrong passwords so far.
    tries: u32,
}

impl Sealed {
    /// What can't be changed without being noticed.
    fn bound(&self, username: &str, device: &Identity) -> Vec<u8> {
        let Self { version, salt, issued_ms, expires_ms, .. } = self;
        format!("{version}|{}|{username}|{salt}|{issued_ms}|{expires_ms}", device.endpoint_id).into_bytes()
    }
}

/// A lease that was opened.
pub struct Open {
    /// For the gateway.
    pub signed: Signed,
    /// What it says; the gateway looks whether that is true.
    pub lease: Lease,
    /// For the next one.
    pub key: Key,
}

/// What came of a try.
pub enum Tried {
    /// There is none for this name.
    None,
    /// The password is wrong; so many tries are left before the lease is destroyed.
    Wrong {
        /// Tries left.
        left: u32,
    },
    /// It opened.
    Open(Box<Open>),
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Vault {
    state: PathBuf,
}

impl Vault {
    /// In the agent's state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    fn folder(&self) -> PathBuf {
        self.state.join(FOLDER)
    }

    /// Whether there is one for this name, good for this computer as it is.
    #[must_use]
    pub fn has(&self, username: &str, device: &Identity) -> bool {
        self.read(username, device).is_some()
    }

    /// Keeps a lease in place of the officer's former one.
    ///
    /// # Errors
    /// The disk's; or the lease is none.
    pub fn keep(&self, signed: &Signed, key: &Key, device: &Identity, now_ms: i64) -> io::Result<Lease> {
        let lease = signed.unproved()?;
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let mut file = Sealed {
            version: 1,
            device: mark(device),
            salt: hex(&key.salt),
            nonce: hex(&nonce),
            sealed: String::new(),
            issued_ms: lease.issued_ms,
            expires_ms: lease.expires_ms,
            tries: 0,
        };
        let aad = Aad::from(file.bound(&lease.username, device));
        let mut bytes = serde_json::to_vec(signed)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let done = key.seal(device)?.seal_in_place_append_tag(nonce, aad, &mut bytes);
        done.map_err(|_| io::Error::other("the lease could not be sealed"))?;
        file.sealed = hex(&bytes);
        write_private(&self.folder(), &name(&lease.username, device), &serde_json::to_vec(&file)?)?;
        self.tidy(now_ms);
        Ok(lease)
    }

    /// Tries a password. Takes as long as [`Key::derive`] if there is a lease for the name.
    ///
    /// # Errors
    /// The disk's: the try must be counted before it is made.
    pub async fn open(&self, username: &str, password: &str, device: &Identity, now_ms: i64) -> io::Result<Tried> {
        self.tidy(now_ms);
        let username = plain(username);
        let Some(mut file) = self.read(&username, device) else { return Ok(Tried::None) };
        file.tries += 1;
        write_private(&self.folder(), &name(&username, device), &serde_json::to_vec(&file)?)?;
        let (Some(salt), Some(nonce), Some(mut bytes)) = (unhex(&file.salt), unhex(&file.nonce), unhex(&file.sealed))
        else {
            self.remove(&username, device);
            return Ok(Tried::None);
        };
        let (Ok(salt), Ok(nonce)) = (salt.try_into(), nonce.try_into()) else {
            self.remove(&username, device);
            return Ok(Tried::None);
        };
        let key = Key::with_salt(password, salt).await?;
        let aad = Aad::from(file.bound(&username, device));
        let opened = key.seal(device)?.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut bytes).ok();
        let opened = opened.and_then(|text| serde_json::from_slice::<Signed>(text).ok());
        let Some((lease, signed)) = opened.and_then(|s| Some((s.unproved().ok()?, s))) else {
            let left = TRIES.saturating_sub(file.tries);
            if left == 0 {
                self.remove(&username, device);
            }
            return Ok(Tried::Wrong { left });
        };
        file.tries = 0;
        write_private(&self.folder(), &name(&username, device), &serde_json::to_vec(&file)?)?;
        Ok(Tried::Open(Box::new(Open { signed, lease, key })))
    }

    /// Destroys the officer's lease.
    pub fn remove(&self, username: &str, device: &Identity) {
        let _ = fs::remove_file(self.folder().join(name(&plain(username), device)));
    }

    /// Destroys all of them.
    pub fn clear(&self) {
        for (path, _) in self.files() {
            let _ = fs::remove_file(path);
        }
    }

    fn read(&self, username: &str, device: &Identity) -> Option<Sealed> {
        let bytes = fs::read(self.folder().join(name(&plain(username), device))).ok()?;
        let file: Sealed = serde_json::from_slice(&bytes).ok()?;
        (file.version == 1 && file.device == mark(device) && file.tries < TRIES).then_some(file)
    }

    /// Removes what is damaged, over, spent or too much.
    fn tidy(&self, now_ms: i64) {
        let mut good = Vec::new();
        for (path, file) in self.files() {
            match file {
                Some(f) if f.expires_ms.saturating_add(SLACK_MS) > now_ms && f.tries < TRIES => {
                    good.push((f.issued_ms, path));
                }
                _ => drop(fs::remove_file(path)),
            }
        }
        good.sort();
        for (_, path) in good.iter().rev().skip(MOST) {
            let _ = fs::remove_file(path);
        }
    }

    fn files(&self) -> Vec<(PathBuf, Option<Sealed>)> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let paths = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json"));
        paths
            .map(|p| {
                let file = fs::read(&p).ok().and_then(|b| serde_json::from_slice(&b).ok());
                (p, file)
            })
            .collect()
    }
}

/// How a sign-in name is compared, as the controller does.
fn plain(username: &str) -> String {
    username.trim().to_lowercase()
}

/// Says nothing of the name to who lists the folder.
fn name(username: &str, device: &Identity) -> String {
    let hash = Sha256::digest(format!("tram lease file|{}|{username}", device.endpoint_id));
    format!("{}.json", hex(&hash[..16]))
}

fn mark(device: &Identity) -> String {
    let hash = Sha256::digest([b"tram lease device|", device.key_pem.as_bytes()].concat());
    hex(&hash[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let pair = |p: &[u8]| Some((digit(*p.first()?)? * 16 + digit(*p.get(1)?)?) as u8);
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use tram_wire::enrol::Issued;
    use tram_wire::lease::Limits;

    const HOUR: i64 = 3_600_000;
    const NIL: &str = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a";

    fn device(key: &str) -> Identity {
        Identity {
            controller: "https://127.0.0.1:8444".into(),
            endpoint_id: NIL.parse().unwrap(),
            key_pem: key.into(),
            issued: Issued { certificate_pem: "c".into(), ca_pem: "a".into(), issued_ms: 1, not_after_ms: 2 },
            connects: 0,
            copy: None,
        }
    }

    fn signed(username: &str, issued_ms: i64) -> Signed {
        let lease = Lease {
            version: 1,
            id: NIL.parse().unwrap(),
            installation: NIL.parse().unwrap(),
            user: NIL.parse().unwrap(),
            username: username.into(),
            display_name: "Lan".into(),
            endpoint: NIL.parse().unwrap(),
            certificate: String::new(),
            site: String::new(),
            session: NIL.parse().unwrap(),
            desktop: NIL.parse().unwrap(),
            desktop_name: "d".into(),
            generation: 1,
            host: NIL.parse().unwrap(),
            protocols: Vec::new(),
            limits: Limits { idle_s: 60, clipboard: true, audio: true, kbit: None },
            issued_ms,
            not_before_ms: issued_ms,
            expires_ms: issued_ms + HOUR,
        };
        Signed { key: "k".into(), lease: serde_json::to_string(&lease).unwrap(), signature: "s".into() }
    }

    fn said(t: io::Result<Tried>) -> String {
        match t.unwrap() {
            Tried::None => "none".into(),
            Tried::Wrong { left } => format!("wrong, {left} left"),
            Tried::Open(o) => format!("open to {}", o.lease.username),
        }
    }

    #[tokio::test]
    async fn it_opens_with_its_password_and_is_destroyed_by_the_fifth_wrong_one() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, here) = (Vault::new(dir.path()), device("key"));
        assert_eq!(said(vault.open("lan", "x", &here, 0).await), "none");
        let key = Key::derive("hoa sen").await.unwrap();
        vault.keep(&signed("lan", 0), &key, &here, 0).unwrap();
        let (path, _) = vault.files().remove(0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("lan") && !path.to_str().unwrap().contains("lan"), "{text}");
        for _ in 0..3 {
            assert_eq!(said(vault.open(" LAN", "hoa sen", &here, 0).await), "open to lan");
        }
        for left in [4, 3] {
            assert_eq!(said(vault.open("lan", "hoa", &here, 0).await), format!("wrong, {left} left"));
        }
        assert_eq!(said(vault.open("lan", "hoa sen", &here, 0).await), "open to lan", "the right one starts anew");
        for left in [4, 3, 2, 1, 0] {
            assert_eq!(said(vault.open("lan", "hoa", &here, 0).await), format!("wrong, {left} left"));
        }
        assert_eq!(said(vault.open("lan", "hoa sen", &here, 0).await), "none");
        assert_eq!(vault.files().len(), 0);
    }

    #[tokio::test]
    async fn what_was_changed_copied_or_is_over_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, here) = (Vault::new(dir.path()), device("key"));
        let key = Key::derive("hoa sen").await.unwrap();
        let fresh = || {
            vault.keep(&signed("lan", 0), &key, &here, 0).unwrap();
            vault.files().remove(0).0
        };
        let path = fresh();
        let good = fs::read_to_string(&path).unwrap();
        // A later end, another salt, another text.
        let at = good.find("\"sealed\":\"").unwrap() + 12;
        let flipped = if &good[at..=at] == "0" { "1" } else { "0" };
        for bad in [
            good.replace(&format!("\"expires_ms\":{HOUR}"), "\"expires_ms\":99999999"),
            good.replace("\"issued_ms\":0", "\"issued_ms\":1"),
            format!("{}{flipped}{}", &good[..at], &good[at + 1..]),
        ] {
            assert_ne!(bad, good);
            fs::write(&path, bad).unwrap();
            assert_eq!(said(vault.open("lan", "hoa sen", &here, 0).await), "wrong, 4 left");
        }
        // Rubbish is removed.
        for bad in ["", "{", "[]", &good[..good.len() / 2], &good.replace("\"version\":1", "\"version\":\"x\"")] {
            fs::write(&path, bad).unwrap();
            assert_eq!(said(vault.open("lan", "hoa sen", &here, 0).await), "none");
            assert!(!path.exists(), "{bad}");
        }
        for bad in [good.replace("\"nonce\":\"", "\"nonce\":\"zz"), good.replace("\"salt\":\"", "\"salt\":\"é")] {
            fs::write(&path, bad).unwrap();
            assert_eq!(said(vault.open("lan", "hoa sen", &here, 0).await), "none");
        }
        // Under another name: its seal names the officer.
        let path = fresh();
        fs::rename(&path, vault.folder().join(name("minh", &here))).unwrap();
        assert_eq!(said(vault.open("minh", "hoa sen", &here, 0).await), "wrong, 4 left");
        // At another computer, or at this one with another key: the mark is not believed either.
        fresh();
        let other = device("another key");
        assert_eq!(said(vault.open("lan", "hoa sen", &other, 0).await), "none");
        let path = fresh();
        let marked = fs::read_to_string(&path).unwrap().replace(&mark(&here), &mark(&other));
        fs::write(&path, marked).unwrap();
        assert_eq!(said(vault.open("lan", "hoa sen", &other, 0).await), "wrong, 4 left");
        // Over; this computer's clock may be an hour ahead.
        fresh();
        assert_eq!(said(vault.open("lan", "hoa sen", &here, 2 * HOUR - 1).await), "open to lan");
        assert_eq!(said(vault.open("lan", "hoa sen", &here, 2 * HOUR).await), "none");
    }

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, here) = (Vault::new(dir.path()), device("key"));
        let key = Key::derive("hoa sen").await.unwrap();
        for n in 0..MOST + 3 {
            vault.keep(&signed(&format!("lan{n}"), n as i64), &key, &here, 0).unwrap();
        }
        assert_eq!(vault.files().len(), MOST);
        assert!(!vault.has("lan2", &here) && vault.has("lan3", &here));
        vault.remove("lan3", &here);
        assert!(!vault.has("lan3", &here));
        vault.clear();
        assert_eq!(vault.files().len(), 0);
    }
}
