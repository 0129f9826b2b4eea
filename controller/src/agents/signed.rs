//! Links of endpoints where somebody opens TLS on the way (`tram_wire::signed`).
//!
//! No client certificate gets through to here, so what TLS proves elsewhere is proved by each request: that the other end has
//! the key of the certificate it shows. Whether that certificate is good, whose it is and what it may do is asked where it is
//! always asked ([`conn`](super::conn)), and refused in the same words. Nothing is done for a link, and no time of it begins
//! anew, before a request for it is proved.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use metrics::counter;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::Signer;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tram_wire::poll::{Ask, MAX_BATCH};
use tram_wire::signed::{Begun, By, CHALLENGE_PATH, Challenge, OVERHEAD, Open, SIGNED_PATH, Sealed, Signed, Talk};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Agents;
use super::accept::{json, status};
use super::poll::{self, HOLD_S};
use crate::identity::ca::CaError;

/// How long a challenge is good: the way there and back, and a TPM that takes its time.
const GOOD: Duration = Duration::from_secs(60);
/// Challenges that were used, remembered at once: for as long as they would be good.
const USED: usize = 65_536;
/// Most bytes of what begins a link.
const OPEN: usize = 16 * 1024;

/// What proves this controller, and what it asked endpoints to prove.
pub(super) struct Signing {
    authority: [u8; 32],
    /// The listener's.
    certificate: CertificateDer<'static>,
    signer: Box<dyn Signer>,
    /// Makes challenges that need not be remembered: anybody may ask for one.
    mac: hmac::Key,
    random: SystemRandom,
    begun: Instant,
    used: Mutex<HashMap<[u8; 32], Instant>>,
}

/// Why nothing was done. The other end is told a status and no more: it is not proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum No {
    /// There is no such link, or not any more.
    Unknown,
    /// It makes no sense.
    Malformed,
    /// It is not signed by who it should be.
    Signature,
    /// The challenge is not ours, too old, or was used.
    Challenge,
    /// Its counter was used.
    Replayed,
    /// Too much at once.
    Overload,
}

impl No {
    fn answer(self) -> Response<Body> {
        let (code, reason) = match self {
            Self::Unknown => (StatusCode::NOT_FOUND, "unknown"),
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed"),
            Self::Signature => (StatusCode::FORBIDDEN, "signature"),
            Self::Challenge => (StatusCode::CONFLICT, "challenge"),
            Self::Replayed => (StatusCode::CONFLICT, "replayed"),
            Self::Overload => (StatusCode::SERVICE_UNAVAILABLE, "overload"),
        };
        counter!("agent_signed_refusals_total", "reason" => reason).increment(1);
        status(code)
    }
}

/// One link's proofs: for whom they count, and which were used, up and down.
pub(super) struct Lanes {
    talk: Talk,
    /// The public point of the endpoint's key.
    key: Vec<u8>,
    up: Mutex<u64>,
    down: Mutex<u64>,
}

pub(super) async fn answer(agents: Agents, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let done = match Ask::below(SIGNED_PATH, &path) {
        Some(Ask::Open) => begin(&agents, peer, request).await,
        Some(ask) => go_on(&agents, &ask, &path, request).await,
        None if path == CHALLENGE_PATH => {
            let made = agents.signing.challenge(Instant::now());
            made.map(|challenge| json(StatusCode::OK, &Challenge { challenge })).ok_or(No::Overload)
        }
        None => Err(No::Unknown),
    };
    poll::unkept(done.unwrap_or_else(No::answer))
}

/// Begins a link for whoever has the key of the certificate it shows.
async fn begin(agents: &Agents, peer: SocketAddr, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let signing = &agents.signing;
    let bytes = poll::body(request, OPEN).await.ok_or(No::Malformed)?;
    let sealed = Sealed::read(&bytes).filter(|s| s.counter == 0 && s.status == 0).ok_or(No::Malformed)?;
    let open: Open = serde_json::from_slice(sealed.body).map_err(|_| No::Malformed)?;
    let now = Instant::now();
    if !signing.is_ours(&open.challenge, now) {
        return Err(No::Challenge);
    }
    let certificate = CertificateDer::from(open.certificate);
    let key = key_of(&certificate).ok_or(No::Malformed)?;
    let (challenge, nonce) = (open.challenge, open.nonce);
    let talk = Talk { authority: signing.authority, endpoint: poll::digest(&certificate), challenge, nonce };
    let lanes = Lanes { talk, key, up: Mutex::new(0), down: Mutex::new(0) };
    lanes.proves(SIGNED_PATH, &sealed)?;
    signing.first(challenge, now)?;
    let link = poll::open(agents, certificate, peer, Some(lanes)).await.ok_or(No::Overload)?;
    let begun = Begun { link, hold_s: HOLD_S, certificate: signing.certificate.to_vec() };
    let body = serde_json::to_vec(&begun).map_err(|_| No::Overload)?;
    Ok(signing.seal(&talk, 0, SIGNED_PATH, StatusCode::OK, &body))
}

/// Frames up or down, once for each proof.
async fn go_on(agents: &Agents, ask: &Ask<'_>, path: &str, request: Request<Incoming>) -> Result<Response<Body>, No> {
    let (Ask::Up(name, n) | Ask::Down(name, n)) = *ask else { return Err(No::Unknown) };
    let up = matches!(ask, Ask::Up(..));
    let link = agents.polls.find_signed(name).ok_or(No::Unknown)?;
    let lanes = link.lanes().ok_or(No::Unknown)?;
    let most = OVERHEAD + if up { MAX_BATCH } else { 0 };
    let bytes = poll::body(request, most).await.ok_or(No::Malformed)?;
    let sealed = Sealed::read(&bytes).filter(|s| s.status == 0).ok_or(No::Malformed)?;
    lanes.admit(up, path, &sealed)?;
    link.touch();
    let (code, body) = if up { (link.up(n, sealed.body).await, Vec::new()) } else { link.down(n).await };
    Ok(agents.signing.seal(&lanes.talk, sealed.counter, path, code, &body))
}

impl Lanes {
    fn proves(&self, path: &str, sealed: &Sealed<'_>) -> Result<(), No> {
        let body = Sha256::digest(sealed.body).into();
        let signed = Signed { by: By::Agent, talk: &self.talk, counter: sealed.counter, status: 0, path, body };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.key);
        key.verify(&signed.bytes(), sealed.signature).map_err(|_| No::Signature)
    }

    /// Takes a request that is proved, and that comes after the one before it.
    fn admit(&self, up: bool, path: &str, sealed: &Sealed<'_>) -> Result<(), No> {
        self.proves(path, sealed)?;
        let mut last = if up { &self.up } else { &self.down }.lock().unwrap_or_else(PoisonError::into_inner);
        if sealed.counter <= *last {
            return Err(No::Replayed);
        }
        *last = sealed.counter;
        Ok(())
    }
}

impl Signing {
    /// With what proves the listener.
    pub(super) fn new(
        authority: [u8; 32],
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, CaError> {
        let fault = CaError::Request("the listener's key can't sign");
        let random = SystemRandom::new();
        let mac = hmac::Key::generate(hmac::HMAC_SHA256, &random);
        let key = any_ecdsa_type(key).ok().and_then(|k| k.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]));
        let (Some(signer), Ok(mac), Some(certificate)) = (key, mac, chain.first().cloned()) else { return Err(fault) };
        Ok(Self { authority, certificate, signer, mac, random, begun: Instant::now(), used: Mutex::default() })
    }

    fn seal(&self, talk: &Talk, counter: u64, path: &str, code: StatusCode, body: &[u8]) -> Response<Body> {
        let digest = Sha256::digest(body).into();
        let signed = Signed { by: By::Controller, talk, counter, status: code.as_u16(), path, body: digest };
        match self.signer.sign(&signed.bytes()) {
            Ok(signature) => {
                poll::bytes(Sealed { counter, status: code.as_u16(), signature: &signature, body }.write())
            }
            Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// When it was made (8), what makes it another one (8), and what shows that it is ours (16).
    fn challenge(&self, now: Instant) -> Option<[u8; 32]> {
        let mut challenge = [0; 32];
        let made = u64::try_from(now.duration_since(self.begun).as_millis()).ok()?;
        challenge[..8].copy_from_slice(&made.to_be_bytes());
        self.random.fill(&mut challenge[8..16]).ok()?;
        let tag = hmac::sign(&self.mac, &challenge[..16]);
        challenge[16..].copy_from_slice(&tag.as_ref()[..16]);
        Some(challenge)
    }

    /// Whether it was made here, not long ago.
    fn is_ours(&self, challenge: &[u8; 32], now: Instant) -> bool {
        let tag = hmac::sign(&self.mac, &challenge[..16]);
        let ours = bool::from(subtle::ConstantTimeEq::ct_eq(&tag.as_ref()[..16], &challenge[16..]));
        let made = challenge.first_chunk().map_or(0, |ms| u64::from_be_bytes(*ms));
        let age = now.duration_since(self.begun).checked_sub(Duration::from_millis(made));
        ours && age.is_some_and(|age| age < GOOD)
    }

    /// Uses a challenge up.
    fn first(&self, challenge: [u8; 32], now: Instant) -> Result<(), No> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= USED {
            used.retain(|_, at| now.duration_since(*at) < GOOD);
        }
        if used.len() >= USED {
            return Err(No::Overload);
        }
        if used.insert(challenge, now).is_some() { Err(No::Challenge) } else { Ok(()) }
    }
}

/// The public point of a certificate's key.
fn key_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    let key = parsed.public_key().subject_public_key.data.to_vec();
    rest.is_empty().then_some(key)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
    use rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    const PATH: &str = "/agent/v1/signed/a/up/1";

    fn signing() -> Signing {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Signing::new([1; 32], &[certificate], &key).unwrap()
    }

    fn lanes(key: &KeyPair) -> Lanes {
        let certificate = CertificateParams::default().self_signed(key).unwrap();
        let talk = Talk { authority: [1; 32], endpoint: [2; 32], challenge: [3; 32], nonce: [4; 32] };
        Lanes { talk, key: key_of(certificate.der()).unwrap(), up: Mutex::new(0), down: Mutex::new(0) }
    }

    fn signature(key: &KeyPair, talk: &Talk, by: By, counter: u64, path: &str, body: &[u8]) -> Vec<u8> {
        let body = Sha256::digest(body).into();
        key.sign(&Signed { by, talk, counter, status: 0, path, body }.bytes()).unwrap()
    }

    #[test]
    fn a_challenge_is_ours_new_and_good_once() {
        let (ours, now) = (signing(), Instant::now());
        let challenge = ours.challenge(now).unwrap();
        assert_ne!(ours.challenge(now), Some(challenge));
        assert!(ours.is_ours(&challenge, now) && ours.is_ours(&challenge, now + GOOD / 2));
        assert!(!ours.is_ours(&challenge, now + GOOD + Duration::from_millis(1)), "too old");
        for bit in 0..256 {
            let mut other = challenge;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!ours.is_ours(&other, now), "{bit}");
        }
        let theirs = signing().challenge(now + Duration::from_secs(1)).unwrap();
        assert!(!ours.is_ours(&theirs, now + Duration::from_secs(2)), "another controller's");
        assert_eq!(ours.first(challenge, now), Ok(()));
        assert_eq!(ours.first(challenge, now), Err(No::Challenge), "used");
    }

    #[test]
    fn used_challenges_are_remembered_as_long_as_they_are_good() {
        let (ours, now) = (signing(), Instant::now());
        let numbered = |n: usize| {
            let mut c = [0; 32];
            c[..8].copy_from_slice(&n.to_be_bytes());
            c
        };
        assert!((0..USED).all(|n| ours.first(numbered(n), now).is_ok()));
        assert_eq!(ours.first(numbered(USED), now), Err(No::Overload));
        assert_eq!(ours.first(numbered(USED), now + GOOD), Ok(()), "none of them is good any more");
        assert_eq!(ours.used.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_request_counts_once_and_only_as_it_was_signed() {
        let (key, other) = (
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        );
        let lanes = lanes(&key);
        let admit = |up, path, counter, signature: &[u8], body: &[u8]| {
            lanes.admit(up, path, &Sealed { counter, status: 0, signature, body })
        };
        let good = signature(&key, &lanes.talk, By::Agent, 5, PATH, b"abc");
        assert_eq!(admit(true, PATH, 5, &good, b"abd"), Err(No::Signature), "a bit of the body");
        assert_eq!(admit(true, PATH, 6, &good, b"abc"), Err(No::Signature), "another counter");
        assert_eq!(admit(true, "/agent/v1/signed/a/up/2", 5, &good, b"abc"), Err(No::Signature), "another path");
        let foreign = signature(&other, &lanes.talk, By::Agent, 5, PATH, b"abc");
        assert_eq!(admit(true, PATH, 5, &foreign, b"abc"), Err(No::Signature), "another key");
        let answer = signature(&key, &lanes.talk, By::Controller, 5, PATH, b"abc");
        assert_eq!(admit(true, PATH, 5, &answer, b"abc"), Err(No::Signature), "the other direction");
        let elsewhere = Talk { challenge: [9; 32], ..lanes.talk };
        let old = signature(&key, &elsewhere, By::Agent, 5, PATH, b"abc");
        assert_eq!(admit(true, PATH, 5, &old, b"abc"), Err(No::Signature), "another link");
        assert_eq!(admit(true, PATH, 5, &good, b"abc"), Ok(()), "what was refused uses nothing up");
        assert_eq!(admit(true, PATH, 5, &good, b"abc"), Err(No::Replayed));
        let before = signature(&key, &lanes.talk, By::Agent, 4, PATH, b"abc");
        assert_eq!(admit(true, PATH, 4, &before, b"abc"), Err(No::Replayed), "out of order");
        let down = "/agent/v1/signed/a/down/0";
        let beside = signature(&key, &lanes.talk, By::Agent, 1, down, b"");
        assert_eq!(admit(false, down, 1, &beside, b""), Ok(()), "the other way counts for itself");
    }
}
