//! TLS towards the controller: one private CA, a fixed server name, our certificate.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tram_wire::SERVER_NAME;
use tram_wire::token::EnrolToken;

use crate::config::Address;
use crate::identity::Identity;
use crate::trusted;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn invalid(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

fn roots(ca_pem: &str) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(der.map_err(invalid)?).map_err(invalid)?;
    }
    if roots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in the CA file"));
    }
    Ok(roots)
}

/// What proves the controller.
#[derive(Clone, Debug)]
pub enum Trust {
    /// This CA, PEM.
    Ca(String),
    /// The CA this token names.
    Token(EnrolToken),
}

/// For the link: trusts the CA we enrolled with, shows our certificate.
pub fn link(identity: &Identity) -> io::Result<Arc<ClientConfig>> {
    with_versions(identity, rustls::DEFAULT_VERSIONS)
}

/// For tunnels: the same, by TLS 1.3 only.
pub fn tunnel(identity: &Identity) -> io::Result<Arc<ClientConfig>> {
    with_versions(identity, &[&rustls::version::TLS13])
}

fn with_versions(
    identity: &Identity,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> io::Result<Arc<ClientConfig>> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(identity.issued.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(invalid)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(invalid)?;
    let config = ClientConfig::builder_with_details(provider(), Arc::new(Trusted(identity.issued.issued_ms)))
        .with_protocol_versions(versions)
        .map_err(invalid)?
        .with_root_certificates(roots(&identity.issued.ca_pem)?)
        .with_client_auth_cert(chain, key)
        .map_err(invalid)?;
    Ok(Arc::new(config))
}

/// For enrolment: trusts the CA in `ca_pem` if given, else the CA the token pins.
pub fn enrol(token: &EnrolToken, ca_pem: Option<&str>) -> io::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Trusted(0)))
        .with_safe_default_protocol_versions()
        .map_err(invalid)?;
    let config = match ca_pem {
        Some(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCa { token: token.clone(), provider: provider(), undated: None }))
            .with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// For asking the time and nothing else: the controller is proved, the dates of its certificate are not looked at.
pub(super) fn undated(trust: &Trust) -> io::Result<(Arc<ClientConfig>, Arc<Dates>)> {
    let dates = Arc::new(Dates::default());
    let verifier = match trust {
        Trust::Token(token) => {
            Arc::new(PinnedCa { token: token.clone(), provider: provider(), undated: Some(dates.clone()) })
                as Arc<dyn ServerCertVerifier>
        }
        Trust::Ca(pem) => Arc::new(Undated { roots: Arc::new(roots(pem)?), provider: provider(), dates: dates.clone() }),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok((Arc::new(config), dates))
}

/// Connects. The name that is proved is fixed; the address only says where to knock.
pub async fn connect(to: &Address, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect((to.host.as_str(), to.port)).await?;
    tcp.set_nodelay(true)?;
    over(tcp, config).await
}

/// TLS over a connection that is there.
pub async fn over(tcp: TcpStream, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(SERVER_NAME).map_err(invalid)?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// A computer with an empty clock battery wakes in 1970, when no certificate is valid yet. Our own
/// certificate proves a later time, and the controller's last word a better one.
#[derive(Debug)]
struct Trusted(i64);

impl TimeProvider for Trusted {
    fn current_time(&self) -> Option<UnixTime> {
        unix(trusted::now_ms(self.0))
    }
}

fn unix(ms: i64) -> Option<UnixTime> {
    Some(UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(ms).ok()?)))
}

/// The dates of a certificate that was accepted without them, Unix seconds.
#[derive(Debug, Default)]
pub(super) struct Dates(Mutex<Option<(u64, u64)>>);

impl Dates {
    /// Whether the certificate is good at this time.
    pub(super) fn holds_at(&self, ms: i64) -> bool {
        let seconds = u64::try_from(ms / 1000).unwrap_or(0);
        let dates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dates.is_some_and(|(from, to)| (from..=to).contains(&seconds))
    }

    /// Verifies at a time within the certificate's own dates.
    fn verify(
        &self,
        verifier: &dyn ServerCertVerifier,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
    ) -> Result<ServerCertVerified, Error> {
        let (from, to) = dates_of(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, to));
        let at = UnixTime::since_unix_epoch(Duration::from_secs(from + (to.saturating_sub(from)) / 2));
        verifier.verify_server_cert(end_entity, intermediates, server_name, &[], at)
    }
}

/// The controller by its CA, whatever the date.
#[derive(Debug)]
struct Undated {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    dates: Arc<Dates>,
}

impl ServerCertVerifier for Undated {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = by_roots(self.roots.clone(), &self.provider)?;
        self.dates.verify(&*verifier, end_entity, intermediates, server_name)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn by_roots(roots: Arc<RootCertStore>, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|e| Error::General(e.to_string()))
}

/// Accepts a chain that ends in the CA whose hash the token carries, checked in full from there.
#[derive(Debug)]
struct PinnedCa {
    token: EnrolToken,
    provider: Arc<CryptoProvider>,
    /// Whatever the date; where its dates go.
    undated: Option<Arc<Dates>>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = |der: &&CertificateDer<'_>| self.token.pins(&Sha256::digest(der).into()) == Some(true);
        let ca = intermediates.iter().find(pinned).ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = by_roots(Arc::new(roots), &self.provider)?;
        match &self.undated {
            Some(dates) => dates.verify(&*verifier, end_entity, intermediates, server_name),
            None => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// When a certificate begins and ends, Unix seconds: the two times of its validity, found by walking its outer fields. No
/// parser of the agent's graph gives them, and these few bytes need none.
fn dates_of(der: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate, _) = element(der)?;
    let (_, tbs, _) = element(certificate)?;
    let mut rest = tbs;
    loop {
        let (tag, body, after) = element(rest)?;
        rest = after;
        // The only sequence of the outer fields that begins with a time.
        if tag == 0x30
            && let Some((kind, from, tail)) = element(body)
            && let Some((kind_to, to, _)) = element(tail)
            && let (Some(from), Some(to)) = (moment(kind, from), moment(kind_to, to))
        {
            return Some((from, to));
        }
    }
}

/// Tag, content and what follows of one DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let n = usize::from(first & 0x7f);
        let (bytes, rest) = rest.split_at_checked(n).filter(|_| (1..=3).contains(&n))?;
        (bytes.iter().fold(0, |all, b| all << 8 | usize::from(*b)), rest)
    };
    let (body, after) = rest.split_at_checked(length)?;
    Some((tag, body, after))
}

/// `UTCTime` or `GeneralizedTime` in the only form certificates use.
fn moment(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let (y, rest) = text.split_at_checked(2)?;
            let y: i64 = y.parse().ok()?;
            (if y < 50 { 2000 + y } else { 1900 + y }, rest)
        }
        0x18 => {
            let (y, rest) = text.split_at_checked(4)?;
            (y.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    // Days since 1970 of the proleptic Gregorian calendar, counted from a March.
    let y = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(((days * 24 + part(4)?) * 60 + part(6)?) * 60 + part(8)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dates_of_a_certificate_are_read() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        for (from, to) in [((2026, 2, 28), (2029, 12, 31)), ((2024, 2, 29), (2051, 3, 1)), ((1999, 1, 1), (2000, 1, 1))] {
            let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
            let der = params.self_signed(&key).unwrap();
            let told = dates_of(der.der()).unwrap();
            let meant = [params.not_before, params.not_after].map(|t| u64::try_from(t.unix_timestamp()).unwrap());
            assert_eq!([told.0, told.1], meant);
            for cut in 0..60 {
                assert_eq!(dates_of(&der.der()[..cut]), None);
            }
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [&b"991332000000"[..], b"9901", b"x", b"", "ếếếếếZ".as_bytes()] {
            assert_eq!(moment(0x17, bad), None);
        }
        assert_eq!(moment(0x17, b"700101000000Z"), Some(0));
    }
}
