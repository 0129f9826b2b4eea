//! The nodes' authority: its certificates prove hypervisor hosts to controllers, and controllers to them.
//!
//! It lives beside the device authority and is another one, so that no endpoint's certificate means anything to a
//! node. Controllers sign themselves one at each start; a node's is issued by an operator and serves only.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;

use super::authority::{self, Authority, BACKDATE, CaError, life, named};
use super::pass::{self, Pass};
use crate::domain::time::Time;

/// Its file in the data folder.
pub const FILE: &str = "node-ca.pem";

/// Whether the authority was made.
#[must_use]
pub fn made(data: &Path) -> bool {
    data.join(FILE).exists()
}

/// What it gives to a gateway on another machine, in that one's data folder.
pub const PASS: &str = "gateway-nodes.pem";

/// Whether this is the folder of a gateway that the authority gave its pass.
#[must_use]
pub fn passed(data: &Path) -> bool {
    data.join(PASS).exists()
}

/// How a gateway on another machine meets nodes: with the pass it was given.
///
/// # Errors
/// [`CaError::File`], [`CaError::Damaged`], [`CaError::Over`].
pub fn with_pass(data: &Path, now: Time) -> Result<Arc<ClientConfig>, CaError> {
    let Pass { key, certificate, authority, .. } = Pass::open(&data.join(PASS), now)?;
    meets(&authority, certificate, key)
}

/// A controller signs itself one at every start, so this only bounds the longest uptime; and how long a pass is good.
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
        let (key, certificate) = self.client("Tram controller", now)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        meets(&self.0.der, certificate.der().clone(), key)
    }

    /// A pass for a gateway on another machine.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn pass(&self, now: Time) -> Result<String, CaError> {
        let (key, certificate) = self.client("Tram gateway", now)?;
        Ok(pass::written(&key, &certificate, &self.0.pem))
    }

    fn client(&self, name: &str, now: Time) -> Result<(KeyPair, rcgen::Certificate), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = self.sign(params, &key, now, CONTROLLER_LIFE)?;
        Ok((key, certificate))
    }

    /// Key and certificate, PEM, of the node that is reached by these names.
    ///
    /// # Errors
    /// [`CaError::Request`] for a name that is none; [`CaError::Make`].
    pub fn issue(&self, names: &[String], now: Time) -> Result<String, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign(serves(names)?, &key, now, NODE_LIFE)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    }

    /// The next certificate, PEM, of a node that proved itself with this one (DER); and its names. Nothing but the
    /// key is taken from the request: a node can't become another.
    ///
    /// # Errors
    /// [`CaError::Request`], [`CaError::Make`].
    pub fn renew(&self, current: &[u8], request: &str, now: Time) -> Result<(String, Vec<String>), CaError> {
        let names = authority::names(current).ok_or(CaError::Request("it is of a node without a name"))?;
        let key = authority::requested_key(request)?;
        let certificate = self.sign(serves(&names)?, &key, now, NODE_LIFE)?;
        Ok((certificate.pem(), names))
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        now: Time,
        good_for: Duration,
    ) -> Result<rcgen::Certificate, CaError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        life(&mut params, now.minus(BACKDATE), now.plus(good_for));
        Ok(params.signed_by(key, &self.0.issuer)?)
    }
}

/// TLS towards nodes: this authority only is trusted, and this certificate shown.
fn meets(
    authority: &CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, CaError> {
    let roots = authority::roots(authority).map_err(|_| CaError::Request("the node authority is none"))?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|b| b.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key))
        .map(Arc::new)
        .map_err(|_| CaError::Request("the certificate for nodes was not accepted"))
}

/// What a node's certificate says: that it serves under these names.
fn serves(names: &[String]) -> Result<CertificateParams, CaError> {
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
    Ok(params)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::identity::node_certificate::NodeCertificate;

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
        let open = |ca: &Path, node: &Path| {
            NodeCertificate::open(ca, node, Clock::manual(NOON)).and_then(|c| c.server_config())
        };
        open(&root, &node).unwrap();
        let empty = write("empty.pem", "");
        for (ca, node) in [(&empty, &node), (&root, &empty), (&root, &root)] {
            let why = open(ca, node).unwrap_err();
            assert!(why.contains(".pem"), "{why}");
        }
        for bad in ["", "-a", "a b", "a/b", "a_b", "../x", "a\0", &"a".repeat(64), &"a.".repeat(200)] {
            assert!(ca.issue(&[bad.to_owned()], NOON).is_err(), "{bad:?}");
        }
        assert!(ca.issue(&[], NOON).is_err());
        let far = tempfile::tempdir().unwrap();
        assert!(with_pass(far.path(), NOON).is_err() && !passed(far.path()));
        std::fs::write(far.path().join(PASS), ca.pass(NOON).unwrap()).unwrap();
        assert!(with_pass(far.path(), NOON).is_ok() && passed(far.path()));
        assert!(with_pass(far.path(), NOON.plus(CONTROLLER_LIFE)).is_err(), "over");
    }
}
