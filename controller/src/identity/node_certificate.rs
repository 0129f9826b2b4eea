//! What a node serves with: a certificate that is replaced while it serves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tram_hypervisor::node::Certificate;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{authority, tls};
use crate::clock::Clock;
use crate::domain::time::Time;

/// An answer may get lost: then it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// A node's certificate, key and authority, each in a file.
pub struct NodeCertificate {
    file: PathBuf,
    ca: CertificateDer<'static>,
    clock: Clock,
    current: RwLock<Current>,
    asked: Mutex<Option<Asked>>,
}

#[derive(Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    from: Time,
    to: Time,
}

/// A new key that waits for its certificate.
struct Asked {
    key: KeyPair,
    request: String,
    at: Time,
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeCertificate({})", self.file.display())
    }
}

impl NodeCertificate {
    /// Reads the files `admin node issue` made.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn open(ca: &Path, file: &Path, clock: Clock) -> Result<Arc<Self>, String> {
        let text = std::fs::read_to_string(file).map_err(|e| bad(file, &e))?;
        let der = CertificateDer::from_pem_file(ca).map_err(|e| bad(ca, &e))?;
        let current = Current::read(&text).map_err(|e| bad(file, &e))?;
        Ok(Arc::new(Self {
            file: file.to_owned(),
            ca: der,
            clock,
            current: RwLock::new(current),
            asked: Mutex::default(),
        }))
    }

    /// How the node serves: TLS 1.3, and only clients of the authority.
    ///
    /// # Errors
    /// The authority's file holds another certificate.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, String> {
        let verifier = authority::verifier(&self.ca).map_err(|e| format!("the nodes' authority: {e}"))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Serving(self.clone())));
        Ok(Arc::new(config))
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When to ask for the next one: two thirds through its life.
    #[must_use]
    pub fn renew_at(&self) -> Time {
        let Current { from, to, .. } = self.current();
        from.plus(to.since(from) / 3 * 2)
    }
}

impl Certificate for NodeCertificate {
    fn request(&self) -> Option<String> {
        let now = self.clock.now();
        if now < self.renew_at() {
            return None;
        }
        let mut asked = self.asked();
        if let Some(asked) = asked.as_mut() {
            let again = now.since(asked.at) >= ASK_AGAIN;
            asked.at = if again { now } else { asked.at };
            return again.then(|| asked.request.clone());
        }
        let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).and_then(|key| {
            let request = CertificateParams::default().serialize_request(&key)?.pem()?;
            Ok(Asked { key, request, at: now })
        });
        match made {
            Ok(made) => Some(asked.insert(made).request.clone()),
            Err(e) => {
                tracing::error!(error = %e, "no key for the node's next certificate");
                None
            }
        }
    }

    fn install(&self, pem: &str) -> Result<(), String> {
        let mut asked = self.asked();
        let Some(waiting) = asked.as_ref() else { return Err("nothing was asked for".into()) };
        let text = format!("{}{pem}", waiting.key.serialize_pem());
        let next = Current::read(&text)?;
        let ours = authority::vouches(&self.ca, &next.key.cert[0], self.clock.now());
        let same = authority::names(&next.key.cert[0]) == authority::names(&self.current().key.cert[0]);
        if !ours || !same || next.to <= self.current().to {
            return Err("it is not of the nodes' authority, or ends no later than the one there is".into());
        }
        // In the file first: a node that is killed now comes back with one of the two.
        tls::write(&self.file, text.as_bytes(), 0o600).map_err(|e| e.to_string())?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        *asked = None;
        Ok(())
    }

    fn not_after(&self) -> i64 {
        self.current().to.micros()
    }
}

impl Current {
    /// Key and certificate, PEM.
    fn read(text: &str) -> Result<Self, String> {
        let said = |e: &dyn std::fmt::Display| e.to_string();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|e| said(&e))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|e| said(&e))?;
        let first = chain.first().ok_or("there is no certificate in it")?.clone();
        let (_, parsed) = X509Certificate::from_der(&first).map_err(|e| said(&e))?;
        let at = |t: x509_parser::time::ASN1Time| Time::from_micros(t.timestamp().saturating_mul(1_000_000));
        let (from, to) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
        let key = CertifiedKey::new(chain, any_supported_type(&key).map_err(|e| said(&e))?);
        key.keys_match().map_err(|_| "the key is not the certificate's".to_owned())?;
        Ok(Self { key: Arc::new(key), from, to })
    }
}

/// Whatever name is asked for: there is one certificate, and the caller judges its names.
#[derive(Debug)]
struct Serving(Arc<NodeCertificate>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current().key)
    }
}

fn bad(path: &Path, e: &dyn std::fmt::Display) -> String {
    format!("{}: {e}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::nodes::{NODE_LIFE, NodeCa};

    const NOON: Time = Time::from_micros(1_795_000_000_000_000);

    #[test]
    fn a_certificate_is_renewed_two_thirds_through_its_life_and_never_by_a_stranger() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ca, other) = (NodeCa::open(dir.path(), NOON).unwrap(), NodeCa::open(elsewhere.path(), NOON).unwrap());
        let (root, file) = (dir.path().join("ca.pem"), dir.path().join("node.pem"));
        let names = ["may-2.example".to_owned(), "10.0.0.2".into(), "2001:db8::2".into()];
        std::fs::write(&root, ca.pem()).unwrap();
        let issued = ca.issue(&names, NOON).unwrap();
        std::fs::write(&file, &issued).unwrap();
        let clock = Clock::manual(NOON);
        let node = NodeCertificate::open(&root, &file, clock.clone()).unwrap();
        node.server_config().unwrap();
        let first = node.current().key.cert[0].clone();
        assert_eq!(node.not_after(), NOON.plus(NODE_LIFE).micros());
        assert_eq!(node.request(), None);
        assert!(node.install(&issued).is_err(), "nothing was asked for");

        clock.set(NOON.plus(NODE_LIFE / 2));
        assert_eq!(node.request(), None, "half-way is early");
        let late = NOON.plus(NODE_LIFE / 4 * 3);
        clock.set(late);
        let request = node.request().expect("it is time");
        assert_eq!(node.request(), None, "once");
        clock.set(late.plus(ASK_AGAIN));
        assert_eq!(node.request().as_ref(), Some(&request), "again, for the same key, when no answer came");

        let signed = ca.renew(&first, &request, late).unwrap().0;
        for (what, pem) in [
            ("another authority's", other.renew(&first, &request, late).unwrap().0),
            ("for another key", issued),
            ("no longer than this one", ca.renew(&first, &request, NOON).unwrap().0),
            ("nonsense", "x".into()),
        ] {
            assert!(node.install(&pem).is_err(), "{what}");
            assert_eq!(node.current().key.cert[0], first, "{what}: the former one stays");
        }
        node.install(&signed).unwrap();
        assert_eq!(node.not_after(), late.plus(NODE_LIFE).micros());
        assert_eq!(node.request(), None);
        let again = NodeCertificate::open(&root, &file, clock).unwrap();
        assert_eq!(again.current().key.cert, node.current().key.cert, "and after a restart");

        // The names are those it had, and nothing of the request's.
        assert_eq!(authority::names(&node.current().key.cert[0]).unwrap(), names);
        for bad in ["", "x", &request.replace('A', "B"), &"A".repeat(10_000)] {
            assert!(ca.renew(&first, bad, late).is_err());
        }
        assert!(ca.renew(b"no certificate", &request, late).is_err());
    }
}
