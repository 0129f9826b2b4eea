//! A node of the tests' own, with an authority for its certificates.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tram_hypervisor::node::{Node, Settings, serve};
use tram_hypervisor::{Hypervisor, OpenOptions, open};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { issuer: Issuer::from_ca_cert_der(certificate.der(), key).unwrap(), roots: Arc::new(roots) }
    }

    fn pair(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// As a node has it.
    pub fn server(&self, name: &str) -> Arc<ServerConfig> {
        let (chain, key) = self.pair(name, ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap())
    }

    /// As a controller has it, with a certificate for `usage` from `other`, or none.
    pub fn client(&self, other: Option<(&Self, ExtendedKeyUsagePurpose)>) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(self.roots.clone());
        Arc::new(match other {
            Some((other, usage)) => {
                let (chain, key) = other.pair("controller", usage);
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        })
    }

    /// As a controller should have it.
    pub fn controller(&self) -> Arc<ClientConfig> {
        self.client(Some((self, ExtendedKeyUsagePurpose::ClientAuth)))
    }
}

/// A node that serves; dropped, it ends with all its connections.
pub struct Served {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    pub async fn start(uri: &str, options: OpenOptions, authority: &Authority) -> Self {
        Self::at("127.0.0.1:0", uri, options, authority).await
    }

    pub async fn at(address: &str, uri: &str, options: OpenOptions, authority: &Authority) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let node = Node::open(Settings { uri: uri.to_owned(), options, certificate: None }).unwrap();
        let tls = authority.server("127.0.0.1");
        let task = tokio::spawn(async move { serve(node, listener, tls).await.unwrap() });
        Self { address, task }
    }

    /// Ended for sure: its port is free.
    pub async fn end(mut self) -> SocketAddr {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.address
    }

    /// It, as a controller sees it.
    pub fn backend(&self, options: OpenOptions, authority: &Authority) -> Arc<dyn Hypervisor> {
        let options = OpenOptions { tls: Some(authority.controller().into()), ..options };
        open(&format!("node://{}", self.address), options).unwrap()
    }
}
