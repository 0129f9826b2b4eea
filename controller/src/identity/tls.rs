//! The controller's own TLS: a certificate authority and a server certificate made by `admin init-tls`,
//! or files an operator brings.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why TLS files could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A file does not hold what it should.
    #[error("{0} is not usable: {1}")]
    Content(PathBuf, String),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// A name to certify is neither a DNS name nor an address.
    #[error("`{0}` is neither a host name nor an IP address")]
    Name(String),
}

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificate of the authority, for browsers and agents to trust.
    pub ca: PathBuf,
    /// Server certificate chain.
    pub cert: PathBuf,
    /// Server key, 0600.
    pub key: PathBuf,
}

impl Files {
    /// The usual places below a data folder.
    #[must_use]
    pub fn below(data: &Path) -> Self {
        let dir = data.join("tls");
        Self { ca: dir.join("ca.pem"), cert: dir.join("server.pem"), key: dir.join("server.key") }
    }
}

/// Makes an authority and a server certificate for these names, unless they are there already. The
/// authority's key is not kept: it signs this one certificate and is gone. `true` if files were made.
///
/// # Errors
/// [`TlsError`].
pub fn init(files: &Files, names: &[String]) -> Result<bool, TlsError> {
    if files.cert.exists() && files.key.exists() && files.ca.exists() {
        return Ok(false);
    }
    let named = |common: &str| {
        let mut dn = DistinguishedName::new();
        dn.push(DnType::CommonName, common);
        dn
    };
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name = named("Tram controller authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_cert = ca.self_signed(&ca_key)?;
    let issuer = Issuer::from_params(&ca, &ca_key);

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::default();
    server.distinguished_name = named(names.first().map_or("tram", String::as_str));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    for name in names {
        server.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| TlsError::Name(name.clone()))?),
        });
    }
    let cert = server.signed_by(&key, &issuer)?;
    write(&files.ca, ca_cert.pem().as_bytes(), 0o644)?;
    write(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
    write(&files.cert, cert.pem().as_bytes(), 0o644)?;
    Ok(true)
}

/// A TLS 1.2/1.3 server configuration from the files, speaking HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`TlsError`] naming the file that is missing or wrong.
pub fn server_config(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = load(files)?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| TlsError::Content(files.cert.clone(), e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The server's certificate chain and key.
///
/// # Errors
/// [`TlsError`].
pub fn load(files: &Files) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let bad = |p: &Path, e: rustls::pki_types::pem::Error| match e {
        rustls::pki_types::pem::Error::Io(e) => TlsError::File(p.to_owned(), e),
        other => TlsError::Content(p.to_owned(), other.to_string()),
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .map_err(|e| bad(&files.cert, e))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad(&files.cert, e))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, e))?;
    Ok((chain, key))
}

/// Whether the server certificate is for this host, an address or a name.
///
/// # Errors
/// [`TlsError`].
pub fn covers(files: &Files, host: &str) -> Result<bool, TlsError> {
    let (chain, _) = load(files)?;
    let names = chain.first().and_then(|c| super::authority::names(c)).unwrap_or_default();
    let same = |name: &String| match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    };
    Ok(names.iter().any(same))
}

/// Writes a file whole or not at all.
///
/// # Errors
/// [`TlsError::File`].
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), TlsError> {
    let fault = |e| TlsError::File(path.to_owned(), e);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(fault)?;
    }
    let part = path.with_extension("part");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part).map_err(fault)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fault)?;
    fs::rename(&part, path).map_err(fault)
}
