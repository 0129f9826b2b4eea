//! The nodes' authority: its certificates prove hypervisor hosts to controllers, and controllers to them.
//!
//! It lives beside the device authority and is another one, so that no endpoint's certificate means anything to a
//! node. Controllers sign themselves one at each start; a node's is issued by an operator and serves only.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::authority::{self, Authority, BACKDATE, CaError, life, named};
use crate::domain::time::Time;

const FILE: &str = "node-ca.pem";
/// Signed at every start, so this only bounds the longest uptime.
const CONTROLLER_LIFE: Duration = Duration::from_secs(3 * 365 * 86_400);
/// How long a node's certificate is good.
pub const NODE_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);

/// The nodes' authority, opened.
pub struct NodeCa(Authority);

impl std::fmt::Debug for NodeCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeCa(…)")
    }
}

impl NodeCa {
    /// Opens the authority of a data folder; makes it if there is none.
    ///
    /// # Errors
    /// [`CaError::File`], [`CaError::Damaged`].
    pub fn open(data: &Path, now: Time) -> Result<Self, CaError> {
        Authority::open(data, FILE, "Tram node authority", now).map(Self)
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0.pem
    }

    /// How a controller meets nodes: it trusts this authority only, and has a certificate of it.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn controller(&self, now: Time) -> Result<Arc<ClientConfig>, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Tram controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let chain = self.sign(params, &key, now, CONTROLLER_LIFE)?;
        let unfit = |_| CaError::Request("the controller's own certificate was not accepted");
        let roots = authority::roots(&self.0.der).map_err(|_| CaError::Request("the node authority is none"))?;
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .and_then(|b| {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                b.with_root_certificates(roots).with_client_auth_cert(vec![chain.der().clone()], key)
            })
            .map(Arc::new)
            .map_err(unfit)
    }

    /// Key and certificate, PEM, of the node that is reached by these names.
    ///
    /// # Errors
    /// [`CaError::Request`] for a name that is none; [`CaError::Make`].
    pub fn issue(&self, names: &[String], now: Time) -> Result<String, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Tram node");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) if is_name(name) => SanType::DnsName(name.as_str().try_into()?),
                Err(_) => return Err(CaError::Request("a node is reached by a host's name or an address")),
            });
        }
        if params.subject_alt_names.is_empty() {
            return Err(CaError::Request("a node is reached by some name"));
        }
        let certificate = self.sign(params, &key, now, NODE_LIFE)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &KeyPair,
        now: Time,
        good_for: Duration,
    ) -> Result<rcgen::Certificate, CaError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        life(&mut params, now.minus(BACKDATE), now.plus(good_for));
        Ok(params.signed_by(key, &self.0.issuer)?)
    }
}

fn is_name(name: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// How a node serves: TLS 1.3, and only clients of the authority.
///
/// # Errors
/// What is wrong with which file.
pub fn server_config(ca: &Path, certificate: &Path) -> Result<Arc<ServerConfig>, String> {
    let bad = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let der = CertificateDer::from_pem_file(ca).map_err(|e| bad(ca, &e))?;
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|e| bad(certificate, &e))?.collect();
    let chain = chain.map_err(|e| bad(certificate, &e))?;
    let key = PrivateKeyDer::from_pem_file(certificate).map_err(|e| bad(certificate, &e))?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(authority::verifier(&der).map_err(|e| bad(ca, &e))?)
        .with_single_cert(chain, key)
        .map(Arc::new)
        .map_err(|e| bad(certificate, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = Time::from_micros(1_795_000_000_000_000);

    #[test]
    fn a_node_gets_what_it_serves_with_and_nothing_for_a_name_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let ca = NodeCa::open(dir.path(), NOON).unwrap();
        assert_eq!(NodeCa::open(dir.path(), NOON).unwrap().pem(), ca.pem());
        ca.controller(NOON).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let names = ["may-2.example".to_owned(), "10.0.0.2".into(), "2001:db8::2".into()];
        let (root, node) = (write("ca.pem", ca.pem()), write("node.pem", &ca.issue(&names, NOON).unwrap()));
        server_config(&root, &node).unwrap();
        let empty = write("empty.pem", "");
        for (ca, node) in [(&empty, &node), (&root, &empty), (&root, &root)] {
            let why = server_config(ca, node).unwrap_err();
            assert!(why.contains(".pem"), "{why}");
        }
        for bad in ["", "-a", "a b", "a/b", "a_b", "../x", "a\0", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(ca.issue(&[bad.to_owned()], NOON).is_err(), "{bad:?}");
        }
        assert!(ca.issue(&[], NOON).is_err());
    }
}
