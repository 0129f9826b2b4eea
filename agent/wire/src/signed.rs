//! The link where somebody opens TLS on the way: the requests of [`crate::poll`], each signed at both ends.
//!
//! ```text
//! POST /agent/v1/signed/challenge     → {"challenge":[…]}    chosen by the controller, good once and not for long
//! POST /agent/v1/signed               → a link begins        [`Open`] → [`Begun`]
//! POST /agent/v1/signed/LINK/up/N     → as in [`crate::poll`]
//! POST /agent/v1/signed/LINK/down/N
//! ```
//! TLS proves nobody here: each body is a [`Sealed`] one, whose signature is over [`Signed::bytes`]. The agent signs with the
//! key of its certificate, the controller with the key of its listener's, whose certificate ends in the authority the
//! agent enrolled with. Whoever is between can read, hold back and cut. It can't
//!
//! - make or change a message: it has neither key;
//! - replay a request: its counter is used up, and in another link the challenge is another one;
//! - exchange answers, or keep one for later: an answer is signed for the path and the counter of its request;
//! - take one end's words for the other's, or a signature of TLS for one of these: [`LABEL`], [`By`].

use serde::{Deserialize, Serialize};

use crate::poll::MAX_BATCH;

/// Where a link begins: `POST`.
pub const SIGNED_PATH: &str = "/agent/v1/signed";

/// Where a challenge is got: `POST`, without a body.
pub const CHALLENGE_PATH: &str = "/agent/v1/signed/challenge";

/// What everything that is signed here begins with.
///
/// The same keys sign handshakes of TLS. What those sign begins with 64 spaces (TLS 1.3), with the client's and the server's
/// random numbers, 32 bytes each (TLS 1.2, server), or with a message of the handshake (TLS 1.2, client). This is longer than
/// the two numbers together, so that nobody who chooses one of them can have such a signature made.
pub const LABEL: &[u8; 80] = b"Tram signed link, version 1: from one end to the other where TLS ends on the way";

/// Most bytes a sealed body has more than what is in it.
pub const OVERHEAD: usize = HEAD + MAX_SIGNATURE;

/// Longest P-256 signature in DER.
const MAX_SIGNATURE: usize = 72;
/// Counter, status, length of the signature.
const HEAD: usize = 8 + 2 + 1;

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The endpoint, a request.
    Agent,
    /// The controller, the answer to it.
    Controller,
}

/// What two ends have in common for one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    /// Which installation: SHA-256 of the authority's certificate.
    pub authority: [u8; 32],
    /// Which endpoint: SHA-256 of its certificate, which names it.
    pub endpoint: [u8; 32],
    /// The controller's choice for this link.
    pub challenge: [u8; 32],
    /// The agent's choice for this link.
    pub nonce: [u8; 32],
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// By whom.
    pub by: By,
    /// In which link.
    pub talk: &'a Talk,
    /// The request's number on its way, up or down: each larger than the one before. 0 begins a link.
    pub counter: u64,
    /// The answer's HTTP status; 0 in requests.
    pub status: u16,
    /// What is asked, as it stands in the request: link, way and the batch's number.
    pub path: &'a str,
    /// SHA-256 of what is in the body.
    pub body: [u8; 32],
}

impl Signed<'_> {
    /// One string of bytes for one meaning: every part has a fixed length but the path, which says its own.
    ///
    /// ```text
    /// LABEL  by(1)  authority(32)  endpoint(32)  challenge(32)  nonce(32)  counter(8)  status(2)  length(2) path  body(32)
    /// ```
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let Talk { authority, endpoint, challenge, nonce } = self.talk;
        let by = match self.by {
            By::Agent => 1,
            By::Controller => 2,
        };
        // No path of ours is near that long; one that were would not be signed as a shorter one.
        let length = u16::try_from(self.path.len()).unwrap_or(u16::MAX);
        [
            LABEL,
            &[by][..],
            authority,
            endpoint,
            challenge,
            nonce,
            &self.counter.to_be_bytes(),
            &self.status.to_be_bytes(),
            &length.to_be_bytes(),
            self.path.as_bytes(),
            &self.body,
        ]
        .concat()
    }
}

/// A body with its signature.
///
/// ```text
/// counter(8)  status(2)  length(1) signature  body
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// As it was signed.
    pub counter: u64,
    /// As it was signed.
    pub status: u16,
    /// ECDSA over P-256 with SHA-256, DER.
    pub signature: &'a [u8],
    /// What is in it.
    pub body: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// As it travels.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let length = u8::try_from(self.signature.len()).unwrap_or(u8::MAX);
        [&self.counter.to_be_bytes()[..], &self.status.to_be_bytes(), &[length], self.signature, self.body].concat()
    }

    /// Reads one; `None` for what is none, or too large.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (counter, rest) = bytes.split_first_chunk()?;
        let (status, rest) = rest.split_first_chunk()?;
        let (&length, rest) = rest.split_first()?;
        let (signature, body) = rest.split_at_checked(length.into())?;
        let fits = (8..=MAX_SIGNATURE).contains(&signature.len()) && body.len() <= MAX_BATCH;
        fits.then_some(Self {
            counter: u64::from_be_bytes(*counter),
            status: u16::from_be_bytes(*status),
            signature,
            body,
        })
    }
}

/// What a link is to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The controller's choice.
    pub challenge: [u8; 32],
}

/// A link is to begin: in a sealed body, signed by the key of the certificate in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The endpoint's certificate, DER.
    pub certificate: Vec<u8>,
    /// As the controller gave it.
    pub challenge: [u8; 32],
    /// The agent's choice.
    pub nonce: [u8; 32],
}

/// A link began: in a sealed body, signed by the key of the certificate in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its name in the paths that follow.
    pub link: String,
    /// How long the controller holds a request for which it has nothing yet, seconds.
    pub hold_s: u32,
    /// The certificate of the controller's listener, DER. Its key signs all answers of this link.
    pub certificate: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: Talk = Talk { authority: [0xa1; 32], endpoint: [0xe2; 32], challenge: [0xc3; 32], nonce: [0x94; 32] };

    fn request() -> Signed<'static> {
        Signed {
            by: By::Agent,
            talk: &TALK,
            counter: 0x0102_0304,
            status: 0,
            path: "/agent/v1/signed/a1/up/7",
            body: [0xb5; 32],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// These bytes never change: a signature over others is another protocol.
    #[test]
    fn what_is_signed_are_these_bytes() {
        let parts = [
            // Tram signed link, version 1: from one end to the other where TLS ends on the way
            "5472616d207369676e6564206c696e6b2c2076657273696f6e20313a2066726f6d206f6e6520656e6420746f20746865206f74686572",
            "20776865726520544c5320656e6473206f6e2074686520776179",
            "01",
            &"a1".repeat(32),
            &"e2".repeat(32),
            &"c3".repeat(32),
            &"94".repeat(32),
            "0000000001020304",
            "0000",
            "0018",
            "2f6167656e742f76312f7369676e65642f61312f75702f37",
            &"b5".repeat(32),
        ];
        assert_eq!(hex(&request().bytes()), parts.concat());
        let answer = Signed { by: By::Controller, status: 204, ..request() };
        let mut parts = parts;
        (parts[2], parts[8]) = ("02", "00cc");
        assert_eq!(hex(&answer.bytes()), parts.concat());
    }

    #[test]
    fn whatever_differs_is_signed_differently() {
        let other = |change: fn(&mut Talk)| {
            let mut talk = TALK;
            change(&mut talk);
            Signed { talk: &talk, ..request() }.bytes()
        };
        let all = [
            request().bytes(),
            Signed { by: By::Controller, ..request() }.bytes(),
            Signed { counter: 1, ..request() }.bytes(),
            Signed { status: 200, ..request() }.bytes(),
            Signed { path: "/agent/v1/signed/a1/down/7", ..request() }.bytes(),
            Signed { path: "/agent/v1/signed/a1/up/77", ..request() }.bytes(),
            Signed { body: [0; 32], ..request() }.bytes(),
            other(|t| t.authority[0] ^= 1),
            other(|t| t.endpoint[31] ^= 1),
            other(|t| t.challenge[0] ^= 1),
            other(|t| t.nonce[0] ^= 1),
            other(|t| std::mem::swap(&mut t.challenge, &mut t.nonce)),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(one.starts_with(LABEL));
            assert!(!all[..n].contains(one), "{n}");
        }
    }

    #[test]
    fn no_signature_of_tls_is_one_of_these() {
        // Longer than the random numbers of both ends, and not the spaces of TLS 1.3.
        const { assert!(LABEL.len() > 64) };
        assert!(LABEL[..64] != [b' '; 64]);
        // No certificate request, no message of a handshake.
        assert!(LABEL[0] != 0x30 && LABEL[0] > 24);
    }

    #[test]
    fn sealed_bodies_come_back_as_they_went_and_rubbish_does_not() {
        let whole = Sealed { counter: 7, status: 200, signature: &[9; 70], body: b"abc" };
        let bytes = whole.write();
        assert_eq!(hex(&bytes), format!("{}00c846{}616263", "0000000000000007", "09".repeat(70)));
        assert_eq!(Sealed::read(&bytes), Some(whole));
        for cut in 0..bytes.len() - 3 {
            assert_eq!(Sealed::read(&bytes[..cut]), None, "{cut}");
        }
        for signature in [&[][..], &[1; 7], &[1; 73]] {
            assert_eq!(Sealed::read(&Sealed { counter: 1, status: 0, signature, body: &[] }.write()), None);
        }
        let large = vec![0; MAX_BATCH + 1];
        assert_eq!(Sealed::read(&Sealed { counter: 1, status: 0, signature: &[1; 70], body: &large }.write()), None);
        let most = Sealed { counter: 1, status: 0, signature: &[1; 72], body: &large[1..] }.write();
        assert!(most.len() == MAX_BATCH + OVERHEAD && Sealed::read(&most).is_some());
    }
}
