//! The one-time enrolment token: a secret and the pin of the CA to show it to.
//!
//! `tram1-7K2QX-…` is eight groups of five letters from Crockford's alphabet, which has no I, L, O or
//! U and so survives being read out over a telephone. The first four groups are 100 random bits. The
//! last four are the first 100 bits of the SHA-256 of the CA certificate: an agent shows the secret
//! only to a server whose chain ends in that CA, so a token on a slip of paper needs no CA file beside
//! it. A token without the pin is valid too; then the agent must be given the CA in a file.

use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "TRAM1";
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Letters in a secret and in a pin: 100 bits each.
const LETTERS: usize = 20;

/// A parsed token.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolToken {
    secret: String,
    pin: Option<String>,
}

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadToken;

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an enrolment token: expected tram1- and four or eight groups of five letters")
    }
}

impl std::error::Error for BadToken {}

impl EnrolToken {
    /// A token from 13 random bytes (100 bits are used) and the SHA-256 of the CA certificate (DER).
    pub fn new(random: &[u8; 13], ca_sha256: &[u8; 32]) -> Self {
        Self { secret: letters(random), pin: Some(letters(ca_sha256)) }
    }

    /// The secret in its one spelling: what both ends hash.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Does this CA (SHA-256 of its DER) match the pin? `None` if the token carries no pin.
    pub fn pins(&self, ca_sha256: &[u8; 32]) -> Option<bool> {
        self.pin.as_ref().map(|pin| *pin == letters(ca_sha256))
    }
}

/// The first 100 bits in Crockford's base 32.
fn letters(bytes: &[u8]) -> String {
    let bit = |i: usize| usize::from(bytes[i / 8] >> (7 - i % 8) & 1);
    (0..LETTERS).map(|l| ALPHABET[(0..5).fold(0, |v, b| v << 1 | bit(l * 5 + b))] as char).collect()
}

impl FromStr for EnrolToken {
    type Err = BadToken;

    /// Forgiving: case, blanks and hyphens don't matter, and O, I and L read as 0, 1 and 1.
    fn from_str(s: &str) -> Result<Self, BadToken> {
        // Longest good spelling with a blank between all letters; anything longer isn't worth reading.
        if s.len() > 128 {
            return Err(BadToken);
        }
        let plain: String =
            s.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect();
        let body: String = plain
            .strip_prefix(PREFIX)
            .ok_or(BadToken)?
            .chars()
            .map(|c| match c {
                'O' => '0',
                'I' | 'L' => '1',
                c => c,
            })
            .collect();
        let known = body.bytes().all(|b| ALPHABET.contains(&b));
        match body.len() {
            LETTERS if known => Ok(Self { secret: body, pin: None }),
            n if n == 2 * LETTERS && known => {
                Ok(Self { secret: body[..LETTERS].to_owned(), pin: Some(body[LETTERS..].to_owned()) })
            }
            _ => Err(BadToken),
        }
    }
}

impl fmt::Display for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tram1")?;
        for (i, c) in self.secret.chars().chain(self.pin.iter().flat_map(|p| p.chars())).enumerate() {
            if i % 5 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

// A secret: `{:?}` must not show it.
impl fmt::Debug for EnrolToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> EnrolToken {
        EnrolToken::new(&[0xA7; 13], &[0x31; 32])
    }

    #[test]
    fn what_is_printed_reads_back() {
        let t = token();
        let text = t.to_string();
        assert_eq!(text.len(), "tram1".len() + 8 * 6);
        assert_eq!(text.parse(), Ok(t));
    }

    #[test]
    fn a_tired_human_may_type_it() {
        let t = token();
        let sloppy = t.to_string().to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l");
        let sloppy = sloppy.replacen("traml", "tram1", 1);
        assert_eq!(sloppy.parse(), Ok(t));
    }

    #[test]
    fn letters_are_the_leading_bits() {
        assert_eq!(letters(&[0; 13]), "0".repeat(20));
        assert_eq!(letters(&[0xFF; 13]), "Z".repeat(20));
        #[expect(clippy::unusual_byte_groupings, reason = "grouped as the letters take them, five bits each")]
        let bytes = [0b00001_000, 0b10_00011_0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(&letters(&bytes)[..3], "123");
    }

    #[test]
    fn the_pin_tells_the_ca() {
        assert_eq!(token().pins(&[0x31; 32]), Some(true));
        assert_eq!(token().pins(&[0x32; 32]), Some(false));
        let bare: EnrolToken = token().to_string()[..29].parse().unwrap();
        assert_eq!(bare.pins(&[0x31; 32]), None);
        assert_eq!(bare.secret(), token().secret());
    }

    #[test]
    fn rubbish_is_refused() {
        let good = token().to_string();
        for bad in
            ["", "tram1", "tram2-AAAAA", &good[..good.len() - 1], &format!("{good}A"), &good.replace("tram1-", "")]
        {
            assert_eq!(bad.parse::<EnrolToken>(), Err(BadToken), "{bad}");
        }
        assert_eq!("tram1-".repeat(5000).parse::<EnrolToken>(), Err(BadToken));
        assert_eq!(format!("tram1-{}", "Ư".repeat(10)).parse::<EnrolToken>(), Err(BadToken));
    }

    #[test]
    fn debug_keeps_the_secret() {
        assert!(!format!("{:?}", token()).contains(token().secret()));
    }
}
