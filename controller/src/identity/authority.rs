//! A certificate authority in one file of the data folder: key and certificate together, 0600, made on first use.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::domain::time::Time;

pub(super) const DAY: Duration = Duration::from_secs(86_400);
const LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Certificates begin this long before they are made: the other end's clock may run behind.
pub(super) const BACKDATE: Duration = DAY;

/// Why an authority can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its file can't be read or written.
    #[error("{0} can't be used: {1}")]
    File(PathBuf, io::Error),
    /// Its file holds something else.
    #[error(
        "{0} holds no key of the kind that is needed, or is damaged ({1}): name the right file, or restore it from a backup"
    )]
    Damaged(PathBuf, String),
    /// What it gave to this machine is not good any more.
    #[error("{0} was good until {1}; issue it anew with `tram-controller admin gateway issue` on a controller")]
    Over(PathBuf, Time),
    /// A certificate request that isn't one, isn't signed by its own key, or isn't for a P-256 key.
    #[error("the certificate request is not acceptable: {0}")]
    Request(&'static str),
    /// A certificate couldn't be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// An authority, opened.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) der: CertificateDer<'static>,
    /// The certificate alone.
    pub(super) pem: String,
}

impl Authority {
    /// Opens the authority in `file` of a data folder; makes it, under this name, if there is none.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub(super) fn open(data: &Path, file: &str, name: &str, now: Time) -> Result<Self, CaError> {
        let path = data.join(file);
        let fault = |e| CaError::File(path.clone(), e);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create(data, file, &generate(name, now)?).map_err(fault)?;
                // Whoever won the race: this is the one that counts.
                fs::read_to_string(&path).map_err(fault)?
            }
            Err(e) => return Err(fault(e)),
        };
        Self::from_pem(&text).map_err(|why| CaError::Damaged(path, why))
    }

    fn from_pem(text: &str) -> Result<Self, String> {
        let said = |e: &dyn std::fmt::Display| e.to_string();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|e| said(&e))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|e| said(&e))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|e| said(&e))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| said(&e))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err("the key is not the certificate's".to_owned());
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| said(&e))?;
        let begin = text.find("-----BEGIN CERTIFICATE-----").ok_or("no certificate in it")?;
        let end = "-----END CERTIFICATE-----";
        let stop = text[begin..].find(end).ok_or("no whole certificate in it")? + begin + end.len();
        Ok(Self { issuer, der, pem: format!("{}\n", &text[begin..stop]) })
    }
}

/// What an authority's certificate vouches for.
///
/// # Errors
/// It is no authority's.
pub(super) fn roots(der: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(der.clone()).map_err(|e| e.to_string())?;
    Ok(Arc::new(roots))
}

/// Judges clients by an authority.
///
/// # Errors
/// It is no authority's certificate.
pub(super) fn verifier(der: &CertificateDer<'static>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(roots(der)?, provider).build().map_err(|e| e.to_string())
}

/// The key a certificate request is for: all that is ever taken from one.
///
/// # Errors
/// [`CaError::Request`].
pub(super) fn requested_key(csr_pem: &str) -> Result<PublicKey, CaError> {
    if csr_pem.len() > 8 * 1024 {
        return Err(CaError::Request("it is too long"));
    }
    let request = CertificateSigningRequestParams::from_pem(csr_pem)
        .map_err(|_| CaError::Request("it isn't a request signed by its own key"))?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::Request("the key must be of the P-256 kind"));
    }
    Ok(request.public_key)
}

/// The names and addresses of a certificate; `None` if it has none, or others.
pub(super) fn names(der: &[u8]) -> Option<Vec<String>> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let named = parsed.subject_alternative_name().ok()??;
    let name = |n: &GeneralName<'_>| match n {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    named.value.general_names.iter().map(name).collect()
}

/// Whether an authority vouches for a server's certificate, under every name it has, at a time.
pub(super) fn vouches(authority: &CertificateDer<'static>, certificate: &CertificateDer<'_>, at: Time) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Ok(roots) = roots(authority) else { return false };
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(roots, provider).build() else { return false };
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.micros() / 1_000_000).unwrap_or(0)));
    let good = |name: &String| {
        let name = ServerName::try_from(name.as_str());
        name.is_ok_and(|name| verifier.verify_server_cert(certificate, &[], &name, &[], at).is_ok())
    };
    names(certificate).is_some_and(|names| !names.is_empty() && names.iter().all(good))
}

/// A subject of one common name.
pub(super) fn named(common: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, common);
    dn
}

/// From when to when a certificate is good.
pub(super) fn life(params: &mut CertificateParams, from: Time, to: Time) {
    let date = |t: Time| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(t.micros() / 1_000_000).unwrap_or(0))
    };
    params.not_before = date(from);
    params.not_after = date(to);
}

/// A new one: key, then certificate, PEM.
fn generate(name: &str, now: Time) -> Result<String, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    life(&mut params, now.minus(BACKDATE), now.plus(LIFE));
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// Puts the file there whole, unless somebody else just did: a second authority would orphan what the first one
/// signed.
pub(super) fn create(data: &Path, file: &str, text: &str) -> io::Result<()> {
    let part = part(data, file, text)?;
    let linked = match fs::hard_link(&part, data.join(file)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    fs::remove_file(&part)?;
    linked?;
    fs::File::open(data)?.sync_all()
}

/// Puts the file there whole, in place of the former one.
pub(super) fn replace(data: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::rename(part(data, file, text)?, data.join(file))?;
    fs::File::open(data)?.sync_all()
}

/// A file beside the one that is meant, for its owner's eyes only, on the disk for good.
fn part(data: &Path, file: &str, text: &str) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    let part = data.join(format!(".{file}.{}", uuid::Uuid::new_v4()));
    let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    Ok(part)
}
