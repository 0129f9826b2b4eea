//! The device certificate authority: signs endpoints' certificates and the agent listener's own.
//!
//! It lives in one file of the data folder (key and certificate together, 0600), made on first use.
//! Agents trust this CA and nothing else, so losing the file means enrolling every endpoint again: it
//! belongs into every backup. Several controllers on one PostgreSQL must share it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType,
};
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use tram_wire::SERVER_NAME;
use tram_wire::enrol::Issued;
use tram_wire::ids::EndpointId;
use tram_wire::refusal::Refusal;
use x509_parser::prelude::{FromDer, X509Certificate};

pub use super::authority::CaError;
use super::authority::{self, Authority, BACKDATE, life, named};
use super::pass::{self, Pass};
use crate::domain::endpoint::{CERTIFICATE_LIFE, RENEWAL_GRACE};
use crate::domain::time::Time;

/// Its file in the data folder.
pub const FILE: &str = "device-ca.pem";

/// What it gives to a gateway on another machine, in that one's data folder.
pub const PASS: &str = "gateway-endpoints.pem";

/// Whether the authority was made.
#[must_use]
pub fn made(data: &Path) -> bool {
    data.join(FILE).exists()
}

/// Whether this is the folder of a gateway that the authority gave its pass.
#[must_use]
pub fn passed(data: &Path) -> bool {
    data.join(PASS).exists()
}

/// A controller makes its listener's certificate at every start, so this only bounds the longest uptime; and how
/// long a gateway's pass is good.
const SERVER_LIFE: Duration = Duration::from_secs(3 * 365 * 86_400);

/// The CA, opened.
pub struct DeviceCa {
    means: Means,
    der: CertificateDer<'static>,
    pem: String,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// What can be done with it here.
enum Means {
    /// Everything.
    Sign(Box<Issuer<'static, KeyPair>>),
    /// Endpoints are proved and served with what it gave.
    Serve(Box<Pass>),
}

impl std::fmt::Debug for DeviceCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceCa(…)")
    }
}

impl DeviceCa {
    /// Opens the CA of a data folder; makes it if there is none.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn open(data: &Path, now: Time) -> Result<Self, CaError> {
        let Authority { issuer, der, pem } = Authority::open(data, FILE, "Tram device authority", now)?;
        let verifier = authority::verifier(&der).map_err(|e| CaError::Damaged(data.join(FILE), e))?;
        Ok(Self { means: Means::Sign(Box::new(issuer)), der, pem, verifier })
    }

    /// What a gateway needs of it: the authority itself, or the pass it gave to this machine.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`], [`CaError::Over`].
    pub fn open_to_serve(data: &Path, now: Time) -> Result<Self, CaError> {
        if made(data) {
            return Self::open(data, now);
        }
        let pass = Pass::open(&data.join(PASS), now)?;
        let der = pass.authority.clone();
        let verifier = authority::verifier(&der).map_err(|e| CaError::Damaged(data.join(PASS), e))?;
        Ok(Self { means: Means::Serve(Box::new(pass)), der, pem: String::new(), verifier })
    }

    /// Until when this machine may serve, if it was given a pass.
    #[must_use]
    pub fn serves_until(&self) -> Option<Time> {
        match &self.means {
            Means::Sign(_) => None,
            Means::Serve(pass) => Some(pass.not_after),
        }
    }

    /// The CA certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA certificate: what tokens pin.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// What tells the key of a request from others: SHA-256 of its public part. Nothing is signed.
    ///
    /// # Errors
    /// [`CaError::Request`].
    pub fn asked_key(csr_pem: &str) -> Result<[u8; 32], CaError> {
        Ok(Sha256::digest(authority::requested_key(csr_pem)?.der_bytes()).into())
    }

    /// Signs the key of a request for an endpoint. Nothing but the key is taken from the request: the
    /// subject, the uses and the life are ours to say.
    ///
    /// # Errors
    /// [`CaError::Request`].
    pub fn sign(&self, csr_pem: &str, id: EndpointId, now: Time) -> Result<Issued, CaError> {
        let key = authority::requested_key(csr_pem)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&id.to_string());
        params.subject_alt_names = vec![SanType::URI(format!("tram:endpoint:{id}").try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let not_after = now.plus(CERTIFICATE_LIFE);
        life(&mut params, now.minus(BACKDATE), not_after);
        let Means::Sign(issuer) = &self.means else {
            return Err(CaError::Request("this machine only serves; its controller signs"));
        };
        let certificate = params.signed_by(&key, issuer)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            ca_pem: self.pem.clone(),
            issued_ms: now.micros() / 1000,
            not_after_ms: not_after.micros() / 1000,
        })
    }

    /// Key and certificate chain for the agent listener: fresh ones, or those this machine was given.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn listener(&self, now: Time) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        // The CA goes along: an agent that enrols knows only its hash.
        let (certificate, key) = match &self.means {
            Means::Sign(issuer) => {
                let (key, certificate) = listening(issuer, now)?;
                (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
            }
            Means::Serve(pass) => (pass.certificate.clone(), pass.key.clone_key()),
        };
        Ok((vec![certificate, self.der.clone()], key))
    }

    /// A pass for a gateway on another machine, and until when it is good.
    ///
    /// # Errors
    /// [`CaError::Request`] where there is no authority; [`CaError::Make`].
    pub fn pass(&self, now: Time) -> Result<(String, Time), CaError> {
        let Means::Sign(issuer) = &self.means else {
            return Err(CaError::Request("this machine only serves; its controller signs"));
        };
        let (key, certificate) = listening(issuer, now)?;
        Ok((pass::written(&key, &certificate, &self.pem), now.plus(SERVER_LIFE)))
    }

    /// Whose certificate this is, if it ended not long ago, or is good still; also when it ends. Possession of its key is
    /// TLS's part.
    ///
    /// # Errors
    /// As [`DeviceCa::check`].
    pub fn check_ended(&self, certificate: &CertificateDer<'_>, now: Time) -> Result<(EndpointId, Time), Refusal> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Refusal::Unknown)?;
        let end = Time::from_micros(parsed.validity().not_after.timestamp().saturating_mul(1_000_000));
        let long_ago = now > end && now.since(end) > RENEWAL_GRACE;
        let at = if now > end && !long_ago { end } else { now };
        Ok((self.check(certificate, at)?, end))
    }

    /// Whose certificate this is, or why it isn't good now. Possession of its key is TLS's part.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Expired`] or [`Refusal::Clock`].
    pub fn check(&self, certificate: &CertificateDer<'_>, now: Time) -> Result<EndpointId, Refusal> {
        let seconds = u64::try_from(now.micros() / 1_000_000).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        match self.verifier.verify_client_cert(certificate, &[], at) {
            Ok(_) => {}
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                return Err(Refusal::Expired);
            }
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => {
                return Err(Refusal::Clock { server_ms: now.micros() / 1000 });
            }
            Err(_) => return Err(Refusal::Unknown),
        }
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Refusal::Unknown)?;
        let name = parsed.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok());
        name.and_then(|n| n.parse().ok()).ok_or(Refusal::Unknown)
    }
}

/// A fresh key and certificate for whoever serves endpoints.
fn listening(issuer: &Issuer<'static, KeyPair>, now: Time) -> Result<(KeyPair, rcgen::Certificate), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    params.distinguished_name = named("Tram agent listener");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    life(&mut params, now.minus(BACKDATE), now.plus(SERVER_LIFE));
    let certificate = params.signed_by(&key, issuer)?;
    Ok((key, certificate))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{BasicConstraints, IsCa};
    use rustls::pki_types::pem::PemObject;

    use super::super::authority::DAY;
    use super::*;

    const NOON: Time = Time::from_micros(1_795_000_000_000_000);

    fn request(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    fn der(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
    }

    fn id() -> EndpointId {
        "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap()
    }

    #[test]
    fn the_ca_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = DeviceCa::open(dir.path(), NOON).unwrap().fingerprint();
        assert_eq!(DeviceCa::open(dir.path(), NOON.plus(DAY)).unwrap().fingerprint(), first);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode, fs::read_dir(dir.path()).unwrap().count()), (0o600, 1));
        assert!(!DeviceCa::open(dir.path(), NOON).unwrap().pem().contains("PRIVATE"));
    }

    #[test]
    fn a_race_makes_one_ca() {
        let dir = tempfile::tempdir().unwrap();
        let prints: std::collections::HashSet<_> = std::thread::scope(|s| {
            let open = || DeviceCa::open(dir.path(), NOON).unwrap().fingerprint();
            let all: Vec<_> = (0..8).map(|_| s.spawn(open)).collect();
            all.into_iter().map(|h| h.join().unwrap()).collect()
        });
        assert_eq!(prints.len(), 1);
    }

    #[test]
    fn a_damaged_file_is_named_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "rubbish").unwrap();
        let e = DeviceCa::open(dir.path(), NOON).unwrap_err().to_string();
        assert!(e.contains(FILE) && e.contains("backup"), "{e}");
    }

    #[test]
    fn a_certificate_has_a_beginning_and_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let ca = DeviceCa::open(dir.path(), NOON).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issued = ca.sign(&request(&key), id(), NOON).unwrap();
        let at = |d: Time| ca.check(&der(&issued), d);
        assert_eq!(at(NOON), Ok(id()));
        assert_eq!(at(NOON.plus(DAY * 29)), Ok(id()));
        assert_eq!(at(NOON.plus(DAY * 31)), Err(Refusal::Expired));
        assert!(matches!(at(NOON.minus(DAY * 3)), Err(Refusal::Clock { .. })));
        let ended = |d: Time| ca.check_ended(&der(&issued), d).map(|(id, _)| id);
        assert_eq!(ended(NOON), Ok(id()));
        assert_eq!(ended(NOON.plus(DAY * 119)), Ok(id()));
        assert_eq!(ended(NOON.plus(DAY * 121)), Err(Refusal::Expired));
        assert!(matches!(ended(NOON.minus(DAY * 3)), Err(Refusal::Clock { .. })));
    }

    #[test]
    fn another_cas_certificate_and_the_listeners_own_are_unknown() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = DeviceCa::open(a.path(), NOON).unwrap();
        let theirs = DeviceCa::open(b.path(), NOON).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let foreign = theirs.sign(&request(&key), id(), NOON).unwrap();
        assert_eq!(ours.check(&der(&foreign), NOON), Err(Refusal::Unknown));
        // Right CA, wrong purpose.
        let (chain, _) = ours.listener(NOON).unwrap();
        assert_eq!(ours.check(&chain[0], NOON), Err(Refusal::Unknown));
        assert_eq!(ours.check(&CertificateDer::from(vec![1, 2, 3]), NOON), Err(Refusal::Unknown));
    }

    #[test]
    fn a_gateway_serves_with_its_pass_and_signs_nothing() {
        let (dir, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ca = DeviceCa::open(dir.path(), NOON).unwrap();
        let (text, until) = ca.pass(NOON).unwrap();
        assert!(DeviceCa::open_to_serve(far.path(), NOON).is_err(), "nothing is there, and nothing is made");
        assert!(!made(far.path()) && !passed(far.path()));
        fs::write(far.path().join(PASS), &text).unwrap();
        let there = DeviceCa::open_to_serve(far.path(), NOON).unwrap();
        assert_eq!((there.serves_until(), ca.serves_until()), (Some(until), None));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issued = ca.sign(&request(&key), id(), NOON).unwrap();
        assert_eq!(there.check(&der(&issued), NOON), Ok(id()), "it knows the endpoints");
        let (chain, _) = there.listener(NOON).unwrap();
        assert_eq!(chain[1], ca.listener(NOON).unwrap().0[1], "endpoints know it");
        assert!(there.sign(&request(&key), id(), NOON).is_err() && there.pass(NOON).is_err());
        let own = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let secret = own.lines().nth(1).unwrap();
        assert!(!text.contains(secret), "the authority's key went along");
        let late = DeviceCa::open_to_serve(far.path(), until).unwrap_err().to_string();
        assert!(late.contains(PASS) && late.contains("gateway issue"), "{late}");
        fs::write(far.path().join(PASS), own).unwrap();
        assert!(matches!(DeviceCa::open_to_serve(far.path(), NOON), Err(CaError::Damaged(..))));
    }

    #[test]
    fn a_request_can_not_choose_its_name_or_powers() {
        let dir = tempfile::tempdir().unwrap();
        let ca = DeviceCa::open(dir.path(), NOON).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut greedy = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        greedy.distinguished_name = named("11111111-1111-7111-8111-111111111111");
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = greedy.serialize_request(&key).unwrap().pem().unwrap();
        let issued = ca.sign(&csr, id(), NOON).unwrap();
        let der = der(&issued);
        let (_, c) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(ca.check(&der, NOON), Ok(id()));
        assert!(!c.is_ca());
        assert!(!format!("{:?}", c.subject_alternative_name().unwrap()).contains(SERVER_NAME));
    }

    #[test]
    fn bad_requests_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ca = DeviceCa::open(dir.path(), NOON).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let good = request(&key);
        // One letter of the signed part.
        let at = good.find('\n').unwrap() + 90;
        let letter = if &good[at..=at] == "A" { "B" } else { "A" };
        let broken = format!("{}{letter}{}", &good[..at], &good[at + 1..]);
        assert!(ca.sign(&good, id(), NOON).is_ok());
        for bad in ["", "x", &"x".repeat(100_000), &broken, &request(&other)] {
            assert!(matches!(ca.sign(bad, id(), NOON), Err(CaError::Request(_))));
        }
    }
}
