//! TLS towards the controller: one private CA, a fixed server name, our certificate.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tram_wire::SERVER_NAME;
use tram_wire::token::EnrolToken;

use crate::config::Address;
use crate::identity::Identity;

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
    let floor = Duration::from_millis(u64::try_from(identity.issued.issued_ms).unwrap_or(0));
    let config = ClientConfig::builder_with_details(provider(), Arc::new(ClockWithFloor(floor)))
        .with_protocol_versions(versions)
        .map_err(invalid)?
        .with_root_certificates(roots(&identity.issued.ca_pem)?)
        .with_client_auth_cert(chain, key)
        .map_err(invalid)?;
    Ok(Arc::new(config))
}

/// For enrolment: trusts the CA in `ca_pem` if given, else the CA the token pins.
pub fn enrol(token: &EnrolToken, ca_pem: Option<&str>) -> io::Result<Arc<ClientConfig>> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(invalid)?;
    let config = match ca_pem {
        Some(pem) => builder.with_root_certificates(roots(pem)?).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCa { token: token.clone(), provider: provider() }))
            .with_no_client_auth(),
    };
    Ok(Arc::new(config))
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
/// certificate proves a later time.
#[derive(Debug)]
struct ClockWithFloor(Duration);

impl TimeProvider for ClockWithFloor {
    fn current_time(&self) -> Option<UnixTime> {
        let now = DefaultTimeProvider.current_time()?;
        let floor = UnixTime::since_unix_epoch(self.0);
        Some(if now.as_secs() < floor.as_secs() { floor } else { now })
    }
}

/// Accepts a chain that ends in the CA whose hash the token carries, checked in full from there.
#[derive(Debug)]
struct PinnedCa {
    token: EnrolToken,
    provider: Arc<CryptoProvider>,
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
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
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
