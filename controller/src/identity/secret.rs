//! Random secrets. What is given to people or browsers is random text; what is stored is its SHA-256.
//!
//! The secrets here carry 256 (tokens) or 98 (typed codes) random bits, so a plain hash is enough: there
//! is nothing to guess. Passwords, which people choose, are [`super::password`]'s work.

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// Length of a generated token after its prefix.
pub const TOKEN_LEN: usize = 43;

/// Letters and digits of typed codes: no `0 O 1 I L U`, which are read wrongly on paper and telephone.
const READABLE: &[u8; 30] = b"23456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUPS: usize = 5;
const GROUP_LEN: usize = 4;

/// A secret in the clear. It never prints itself and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `prefix` and 43 base64url characters (32 random bytes), for cookies, tickets and the like.
    ///
    /// The prefix tells a leak scanner and a log reader what kind of secret it is.
    #[must_use]
    pub fn generate(prefix: &str) -> Self {
        let mut bytes = random::<32>();
        let secret = Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)));
        bytes.zeroize();
        secret
    }

    /// Five groups of four letters and digits, such as `7KQM-2XVB-…` (98 random bits), for codes that people
    /// read out and type. Compare by [`Secret::normalized`].
    #[must_use]
    pub fn readable() -> Self {
        let mut text = String::with_capacity(GROUPS * (GROUP_LEN + 1));
        let mut count = 0;
        while count < GROUPS * GROUP_LEN {
            // 240 is the largest multiple of 30 in a byte: above it, some letters would come more often.
            for byte in random::<32>().into_iter().filter(|b| *b < 240) {
                if count == GROUPS * GROUP_LEN {
                    break;
                }
                if count > 0 && count % GROUP_LEN == 0 {
                    text.push('-');
                }
                text.push(char::from(READABLE[usize::from(byte) % READABLE.len()]));
                count += 1;
            }
        }
        Self(text)
    }

    /// The one form of a typed code: upper case, no blanks or hyphens. Hash this one.
    #[must_use]
    pub fn normalized(typed: &str) -> Self {
        Self(
            typed
                .chars()
                .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2010}'..='\u{2015}'))
                .take(256)
                .map(|c| c.to_ascii_uppercase())
                .collect(),
        )
    }

    /// Takes a secret from outside.
    #[must_use]
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for the one place that hands it over.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored.
    #[must_use]
    pub fn hashed(&self) -> [u8; 32] {
        hash(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// SHA-256 of a secret's text: what the database keeps and is searched by.
#[must_use]
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The hash as text, such as `sha256:ba78…`.
#[must_use]
pub fn fingerprint(text: &str) -> String {
    hash(text).iter().fold(String::from("sha256:"), |mut out, byte| {
        // Writing to a String can't fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Compares two secrets in a time that does not depend on where they differ.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Whether a text has the shape of [`Secret::generate`] with this prefix. Cheap refusal of rubbish, before
/// any database is asked; says nothing about whether it is valid.
#[must_use]
pub fn has_shape(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        rest.len() == TOKEN_LEN && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

/// Bytes from the operating system.
///
/// # Panics
/// If the system has no random numbers: nothing safe can be done then.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system must provide random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_shape_and_differ() {
        let (a, b) = (Secret::generate("vdt1_"), Secret::generate("vdt1_"));
        assert!(has_shape("vdt1_", a.reveal()), "{}", a.reveal());
        assert_ne!(a.reveal(), b.reveal());
        for bad in ["", "vdt1_", "vdt1_short", "xdt1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(!has_shape("vdt1_", bad), "{bad}");
        }
        assert!(!has_shape("", &"é".repeat(22)));
        assert!(!has_shape("vdt1_", &format!("{} ", &a.reveal()[..47])));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::from_text("hunter2")), "Secret(…)");
    }

    #[test]
    fn a_typed_code_survives_how_people_type_it() {
        let code = Secret::readable();
        assert_eq!(code.reveal().len(), 24);
        assert!(code.reveal().split('-').all(|g| g.len() == 4 && g.bytes().all(|b| READABLE.contains(&b))));
        let plain = Secret::normalized(code.reveal());
        for typed in [code.reveal().to_lowercase(), code.reveal().replace('-', " "), format!(" {}\n", code.reveal())] {
            assert_eq!(Secret::normalized(&typed).hashed(), plain.hashed(), "{typed}");
        }
        assert_ne!(plain.hashed(), Secret::normalized(Secret::readable().reveal()).hashed());
    }

    #[test]
    fn every_readable_letter_comes_about_equally_often() {
        let mut seen = [0_u32; 256];
        for _ in 0..600 {
            for b in Secret::readable().reveal().bytes().filter(|b| *b != b'-') {
                seen[usize::from(b)] += 1;
            }
        }
        // 12,000 letters over 30: 400 each, standard deviation under 20.
        assert!(READABLE.iter().all(|b| (280..520).contains(&seen[usize::from(*b)])), "{seen:?}");
    }

    #[test]
    fn hashes_are_sha256_and_compare() {
        assert_eq!(hash("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert!(fingerprint("abc").starts_with("sha256:ba7816bf") && fingerprint("abc").len() == 71);
        assert!(same(&hash("abc"), &hash("abc")));
        assert!(!same(&hash("abc"), &hash("abd")));
        assert!(!same(b"a", b"ab"));
    }
}
