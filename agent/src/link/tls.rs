//! TLS towards the controller: one private CA, a fixed server name, our certificate.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tram_wire::SERVER_NAME;
use tram_wire::token::EnrolToken;

use super::der;
use super::way::{self, Blocked};
use crate::config::Address;
use crate::identity::Identity;
use crate::identity::tpm::{ForTls, TpmKey};
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
    let chain = certificates(&identity.issued.certificate_pem)?;
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Trusted(identity.issued.issued_ms)))
        .with_protocol_versions(versions)
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Proof::new(&Trust::Ca(identity.issued.ca_pem.clone()), None)?));
    let (key, _) = key(identity)?;
    let own = CertifiedKey::new(chain, key);
    own.keys_match().map_err(invalid)?;
    Ok(Arc::new(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))))
}

pub(super) fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(invalid)
}

/// The key of an identity, and whether it takes its time.
pub(super) fn key(identity: &Identity) -> io::Result<(Arc<dyn SigningKey>, bool)> {
    match TpmKey::read(&identity.key_pem) {
        None => {
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(invalid)?;
            Ok((any_ecdsa_type(&key).map_err(invalid)?, false))
        }
        Some(key) => Ok((Arc::new(ForTls::new(key.map_err(invalid)?)), true)),
    }
}

/// For signed requests: whoever is there, is not proved and may read.
pub(super) fn unproved() -> io::Result<Arc<ClientConfig>> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Whether this is a controller's listener, as TLS would judge: of this authority, in its name, for servers, at this time.
pub(super) fn is_controllers(certificate: &CertificateDer<'_>, ca_pem: &str, floor_ms: i64) -> io::Result<()> {
    let name = ServerName::try_from(SERVER_NAME).map_err(invalid)?;
    let now = Trusted(floor_ms).current_time().ok_or_else(|| io::Error::other("the time is not known"))?;
    let verifier = by_roots(Arc::new(roots(ca_pem)?), &provider()).map_err(invalid)?;
    verifier.verify_server_cert(certificate, &[], &name, &[], now).map(drop).map_err(invalid)
}

/// For enrolment: trusts the CA in `ca_pem` if given, else the CA the token pins.
pub fn enrol(token: &EnrolToken, ca_pem: Option<&str>) -> io::Result<Arc<ClientConfig>> {
    let trust = ca_pem.map_or_else(|| Trust::Token(token.clone()), |pem| Trust::Ca(pem.to_owned()));
    let config = ClientConfig::builder_with_details(provider(), Arc::new(Trusted(0)))
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Proof::new(&trust, None)?))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// For asking the time and nothing else: the controller is proved, the dates of its certificate are not looked at.
pub(super) fn undated(trust: &Trust) -> io::Result<(Arc<ClientConfig>, Arc<Dates>)> {
    let dates = Arc::new(Dates::default());
    let verifier = Arc::new(Proof::new(trust, Some(dates.clone()))?);
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok((Arc::new(config), dates))
}

/// Connects, has the controller proved, and leaves again: whether it is the controller that answers.
///
/// # Errors
/// What the network says, or who stands in the way.
pub async fn prove(to: &Address, ca_pem: &str) -> io::Result<()> {
    let (config, _) = undated(&Trust::Ca(ca_pem.to_owned()))?;
    connect(to, config).await.map(drop)
}

/// Connects. The name that is proved is fixed; the address only says where to knock.
pub async fn connect(to: &Address, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let tcp = way::tcp(to).await?;
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
        let (from, to) = der::dates(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, to));
        let at = UnixTime::since_unix_epoch(Duration::from_secs(from + (to.saturating_sub(from)) / 2));
        verifier.verify_server_cert(end_entity, intermediates, server_name, &[], at)
    }
}

/// Takes anybody's certificate. Whoever shows it has its key, so that at least nobody else reads along.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What the controller's authority calls itself.
const AUTHORITY: &str = "Tram device authority";

/// What proves the controller, and by which time. Whoever stands in its place is named.
#[derive(Debug)]
struct Proof {
    by: By,
    provider: Arc<CryptoProvider>,
    /// Whatever the date; where its dates go.
    undated: Option<Arc<Dates>>,
}

#[derive(Debug)]
enum By {
    /// This authority.
    Ca(Arc<WebPkiServerVerifier>),
    /// A chain that ends in the authority whose hash the token carries, checked in full from there.
    Token(EnrolToken),
}

impl Proof {
    fn new(trust: &Trust, undated: Option<Arc<Dates>>) -> io::Result<Self> {
        let provider = provider();
        let by = match trust {
            Trust::Ca(pem) => By::Ca(by_roots(Arc::new(roots(pem)?), &provider).map_err(invalid)?),
            Trust::Token(token) => By::Token(token.clone()),
        };
        Ok(Self { by, provider, undated })
    }

    fn verifier(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, Error> {
        match &self.by {
            By::Ca(verifier) => Ok(verifier.clone()),
            By::Token(token) => {
                let pinned = |der: &&CertificateDer<'_>| token.pins(&Sha256::digest(der).into()) == Some(true);
                let unknown = || name_issuer(Error::InvalidCertificate(CertificateError::UnknownIssuer), end_entity);
                let ca = intermediates.iter().find(pinned).ok_or_else(unknown)?;
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone().into_owned())?;
                by_roots(Arc::new(roots), &self.provider)
            }
        }
    }
}

/// Another authority's certificate means somebody in between, unless it is another controller's.
fn name_issuer(e: Error, end_entity: &CertificateDer<'_>) -> Error {
    if !matches!(e, Error::InvalidCertificate(CertificateError::UnknownIssuer)) {
        return e;
    }
    match der::issuer(end_entity).filter(|issuer| issuer != AUTHORITY) {
        Some(issuer) => {
            let why = OtherError(Arc::new(Blocked::Intercepted(issuer)));
            Error::InvalidCertificate(CertificateError::Other(why))
        }
        None => e,
    }
}

impl ServerCertVerifier for Proof {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = self.verifier(end_entity, intermediates)?;
        let done = match &self.undated {
            Some(dates) => dates.verify(&*verifier, end_entity, intermediates, server_name),
            None => verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now),
        };
        done.map_err(|e| name_issuer(e, end_entity))
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
