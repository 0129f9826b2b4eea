//! The link where somebody opens TLS on the way (`tram_wire::signed`): by requests, each signed at both ends.
//!
//! Who ends TLS here is not looked at: whoever it is, they can read and nothing else, and their certificate would make them no
//! more trustworthy. The controller is proved by its signatures, with a certificate of the authority this computer enrolled
//! with; this computer by its own, with the key of its certificate, wherever that key is.

use std::io;
use std::sync::Arc;

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use sha2::{Digest, Sha256};
use tram_wire::poll::Ask;
use tram_wire::signed::{Begun, By, CHALLENGE_PATH, Challenge, Open, SIGNED_PATH, Sealed, Signed, Talk};

use super::poll::{DEADLINE, Poll, Requests};
use super::way::Blocked;
use super::{LinkError, tls};
use crate::config::Address;
use crate::identity::Identity;

/// Head of a P-256 public key in DER; the point follows.
const SPKI_HEAD: usize = 26;

/// What proves both ends.
#[derive(Debug)]
pub struct Signer {
    key: Arc<dyn SigningKey>,
    /// A TPM takes its time.
    slow: bool,
    certificate: CertificateDer<'static>,
    ca_pem: String,
    authority: [u8; 32],
    issued_ms: i64,
}

impl Signer {
    /// With the identity this computer has now.
    ///
    /// # Errors
    /// If its key or a certificate can't be used.
    pub fn new(identity: &Identity) -> io::Result<Arc<Self>> {
        let first = |pem: &str| {
            let none = || io::Error::new(io::ErrorKind::InvalidData, "the identity has no certificate");
            tls::certificates(pem)?.into_iter().next().ok_or_else(none)
        };
        let (key, slow) = tls::key(identity)?;
        Ok(Arc::new(Self {
            key,
            slow,
            certificate: first(&identity.issued.certificate_pem)?,
            authority: Sha256::digest(first(&identity.issued.ca_pem)?).into(),
            ca_pem: identity.issued.ca_pem.clone(),
            issued_ms: identity.issued.issued_ms,
        }))
    }

    async fn sign(self: &Arc<Self>, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let this = self.clone();
        let work = move || {
            let signer = this.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
            let signer = signer.ok_or_else(|| io::Error::other("this computer's key can't sign requests"))?;
            signer.sign(&bytes).map_err(io::Error::other)
        };
        // Beats and deadlines must not wait for a TPM.
        if self.slow { tokio::task::spawn_blocking(work).await.map_err(io::Error::other)? } else { work() }
    }
}

/// Begins a link.
///
/// # Errors
/// If whoever is on the way lets no such requests through, or the controller knows none.
pub async fn open(to: &Address, signer: Arc<Signer>) -> Result<Poll, LinkError> {
    let config = tls::unproved()?;
    let mut requests = Requests::new(to, config.clone(), None);
    let challenge: Challenge = match requests.raw(CHALLENGE_PATH, &[], DEADLINE).await? {
        (200, body) => serde_json::from_slice(&body).map_err(|_| garbled())?,
        (status, _) => return Err(unsigned(status).into()),
    };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let endpoint = Sha256::digest(&signer.certificate).into();
    let talk = Talk { authority: signer.authority, endpoint, challenge: challenge.challenge, nonce };
    let open = Open { certificate: signer.certificate.to_vec(), challenge: talk.challenge, nonce };
    let body = serde_json::to_vec(&open).map_err(io::Error::other)?;
    // Sent once: a challenge is good once.
    let asked = sealed(&signer, &talk, 0, SIGNED_PATH, &body).await?;
    let answer = match requests.raw(SIGNED_PATH, &asked, DEADLINE).await? {
        (200, answer) => answer,
        (status, _) => return Err(unsigned(status).into()),
    };
    let begun: Begun = Sealed::read(&answer).and_then(|s| serde_json::from_slice(s.body).ok()).ok_or_else(garbled)?;
    let key = controllers_key(&signer, begun.certificate)?;
    let session = Arc::new(Session { signer, talk, key });
    let (200, _) = opened(&session, 0, SIGNED_PATH, &answer)? else { return Err(garbled().into()) };
    let lane = |counter| Some(Lane { session: session.clone(), counter });
    requests.lane = lane(0);
    Poll::begin(requests, Requests::new(to, config, lane(0)), begun.link, begun.hold_s)
}

/// What two ends agreed on for one link.
struct Session {
    signer: Arc<Signer>,
    talk: Talk,
    /// The controller's.
    key: Vec<u8>,
}

/// One way of a link, up or down: its requests are counted.
pub(super) struct Lane {
    session: Arc<Session>,
    counter: u64,
}

impl Lane {
    /// The next request for this: its path and its body.
    pub(super) async fn request(&mut self, ask: &Ask<'_>, body: &[u8]) -> io::Result<(String, Vec<u8>)> {
        // One that was sent may have arrived, whatever became of its answer: its number is never used again.
        self.counter += 1;
        let path = ask.path_below(SIGNED_PATH);
        let Session { signer, talk, .. } = &*self.session;
        let sealed = sealed(signer, talk, self.counter, &path, body).await?;
        Ok((path, sealed))
    }

    /// The answer to the last one: status and body, if it is the controller's.
    pub(super) fn answer(&self, path: &str, (status, bytes): (u16, Vec<u8>)) -> io::Result<(u16, Vec<u8>)> {
        match status {
            200 => opened(&self.session, self.counter, path, &bytes),
            // Whoever says so is not proved: it ends the link and means nothing else.
            status => Err(unsigned(status)),
        }
    }
}

async fn sealed(signer: &Arc<Signer>, talk: &Talk, counter: u64, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let signed = Signed { by: By::Agent, talk, counter, status: 0, path, body: Sha256::digest(body).into() };
    let signature = signer.sign(signed.bytes()).await?;
    Ok(Sealed { counter, status: 0, signature: &signature, body }.write())
}

/// Proves an answer: it is the controller's, to this request.
fn opened(session: &Session, counter: u64, path: &str, answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let sealed = Sealed::read(answer).ok_or(Blocked::Forged)?;
    let (talk, status) = (&session.talk, sealed.status);
    let signed = Signed { by: By::Controller, talk, counter, status, path, body: Sha256::digest(sealed.body).into() };
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &session.key);
    key.verify(&signed.bytes(), sealed.signature).map_err(|_| Blocked::Forged)?;
    Ok((status, sealed.body.to_vec()))
}

/// The key of the controller's listener, if its certificate is what TLS would take it for.
fn controllers_key(signer: &Signer, certificate: Vec<u8>) -> io::Result<Vec<u8>> {
    let certificate = CertificateDer::from(certificate);
    tls::is_controllers(&certificate, &signer.ca_pem, signer.issued_ms).map_err(|_| Blocked::Forged)?;
    let parsed = ParsedCertificate::try_from(&certificate).map_err(|_| Blocked::Forged)?;
    let spki = parsed.subject_public_key_info();
    Ok(spki.get(SPKI_HEAD..).ok_or(Blocked::Forged)?.to_vec())
}

fn unsigned(status: u16) -> io::Error {
    io::Error::other(format!("a signed request was answered with HTTP {status}"))
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer to a signed request makes no sense")
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
        SigningKey as _,
    };
    use tram_wire::SERVER_NAME;
    use tram_wire::enrol::Issued;

    use super::*;

    const PATH: &str = "/agent/v1/signed/a/down/3";

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let (key, mut params) = (key(), CertificateParams::default());
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self { pem, issuer: Issuer::new(params, key) }
        }

        fn server(&self, name: &str, purpose: ExtendedKeyUsagePurpose, key: &KeyPair) -> Vec<u8> {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            params.signed_by(key, &self.issuer).unwrap().der().to_vec()
        }
    }

    fn signer(authority: &Authority) -> Arc<Signer> {
        let key = key();
        let der = CertificateParams::default().signed_by(&key, &authority.issuer).unwrap();
        Signer::new(&Identity {
            controller: "https://127.0.0.1:8444".into(),
            endpoint_id: "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap(),
            key_pem: key.serialize_pem(),
            issued: Issued {
                certificate_pem: der.pem(),
                ca_pem: authority.pem.clone(),
                issued_ms: 1_795_000_000_000,
                not_after_ms: 1_797_000_000_000,
            },
            connects: 0,
            copy: None,
        })
        .unwrap()
    }

    fn session(controller: &KeyPair) -> Session {
        let authority = Authority::new();
        let talk = Talk { authority: [1; 32], endpoint: [2; 32], challenge: [3; 32], nonce: [4; 32] };
        Session { signer: signer(&authority), talk, key: controller.public_key_raw().to_vec() }
    }

    fn said(key: &KeyPair, signed: &Signed<'_>, body: &[u8]) -> Vec<u8> {
        let signature = key.sign(&signed.bytes()).unwrap();
        Sealed { counter: signed.counter, status: signed.status, signature: &signature, body }.write()
    }

    #[test]
    fn an_answer_is_the_controllers_to_this_request_or_none() {
        let (controller, stranger) = (key(), key());
        let session = session(&controller);
        let body = Sha256::digest(b"abc").into();
        let good = Signed { by: By::Controller, talk: &session.talk, counter: 7, status: 200, path: PATH, body };
        let read = |bytes: &[u8]| opened(&session, 7, PATH, bytes).map_err(|e| Blocked::within(&e).map(Blocked::code));
        let forged = Err(Some("answer_forged"));
        assert_eq!(read(&said(&controller, &good, b"abc")), Ok((200, b"abc".to_vec())));
        assert_eq!(read(&said(&controller, &good, b"abd")), forged, "changed");
        assert_eq!(read(&said(&stranger, &good, b"abc")), forged, "somebody else's");
        let other = Talk { challenge: [9; 32], ..session.talk };
        for (why, other) in [
            ("of another request", Signed { counter: 8, ..good }),
            ("of an earlier request", Signed { counter: 6, ..good }),
            ("to another path", Signed { path: "/agent/v1/signed/a/up/3", ..good }),
            ("of another link", Signed { talk: &other, ..good }),
            ("our own words", Signed { by: By::Agent, ..good }),
        ] {
            assert_eq!(read(&said(&controller, &other, b"abc")), forged, "{why}");
        }
        let mut lied = said(&controller, &good, b"abc");
        lied[9] ^= 1;
        assert_eq!(read(&lied), forged, "another status");
        assert_eq!(read(b"no"), forged);
    }

    #[tokio::test]
    async fn a_number_is_used_once_even_if_no_answer_came() {
        let controller = key();
        let mut lane = Lane { session: Arc::new(session(&controller)), counter: 0 };
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (path, bytes) = lane.request(&Ask::Down("a", 3), &[]).await.unwrap();
            let sealed = Sealed::read(&bytes).unwrap();
            let body = Sha256::digest(b"").into();
            let talk = &lane.session.talk;
            let signed = Signed { by: By::Agent, talk, counter: sealed.counter, status: 0, path: PATH, body };
            let own = ParsedCertificate::try_from(&lane.session.signer.certificate).unwrap().subject_public_key_info();
            let own = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, own[SPKI_HEAD..].to_vec());
            own.verify(&signed.bytes(), sealed.signature).unwrap();
            assert_eq!(path, PATH);
            seen.push(sealed.counter);
        }
        assert_eq!(seen, [1, 2, 3]);
        // What is not signed is nobody's word, whatever its status.
        for status in [204, 404, 410, 502] {
            assert!(lane.answer(PATH, (status, Vec::new())).is_err());
        }
    }

    #[test]
    fn only_the_authoritys_listener_is_the_controller() {
        let (ours, theirs, key) = (Authority::new(), Authority::new(), key());
        let signer = signer(&ours);
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let good = controllers_key(&signer, ours.server(SERVER_NAME, server.clone(), &key)).unwrap();
        assert_eq!(good, key.public_key_raw());
        for (why, certificate) in [
            ("another authority's", theirs.server(SERVER_NAME, server.clone(), &key)),
            ("another name", ours.server("tram.example", server, &key)),
            ("an endpoint's", ours.server(SERVER_NAME, ExtendedKeyUsagePurpose::ClientAuth, &key)),
            ("rubbish", vec![1, 2, 3]),
        ] {
            assert!(controllers_key(&signer, certificate).is_err(), "{why}");
        }
    }
}
