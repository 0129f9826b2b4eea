//! Becoming an endpoint, and staying one: certificate requests and answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diagnosis::OrderKey;
use crate::heartbeat::Hardware;
use crate::hello::Hello;
use crate::ids::EndpointId;

/// Body of the enrolment call. The private key never leaves the endpoint.
///
/// The same request is sent again while the answer is [`crate::Refusal::Pending`]: the key tells who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The one-time token as it was printed.
    pub token: String,
    /// PKCS#10 request, PEM. Only its public key is used: the controller names the subject.
    pub csr_pem: String,
    /// Who is asking.
    pub hello: Hello,
    /// What the computer is made of, for who approves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
}

// The token is a secret and must not reach a log by way of `{:?}`.
impl fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolRequest").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// The endpoint's new identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    /// Its id, for good.
    pub endpoint_id: EndpointId,
    /// The certificate, and what else a TLS stack and its owner need to know.
    #[serde(flatten)]
    pub issued: Issued,
    /// What proves orders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_keys: Vec<OrderKey>,
}

/// A certificate fresh from the controller's CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The endpoint's certificate, PEM.
    pub certificate_pem: String,
    /// The CA that signed it and that also signs the controller's own certificate, PEM.
    pub ca_pem: String,
    /// When it was issued, by the controller's clock: no later clock reading can be before this.
    pub issued_ms: i64,
    /// When it ends.
    pub not_after_ms: i64,
}

impl Issued {
    /// When to ask for the next one: two thirds through its life.
    pub fn renew_at_ms(&self) -> i64 {
        self.issued_ms + (self.not_after_ms - self.issued_ms) / 3 * 2
    }
}

/// Over an open link: this computer was taken for a copy of another one and is to be an endpoint of its own. It makes
/// a key and asks with [`Renew`]; the answer is an [`EnrolResponse`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIdentity {}

/// Over an open link: a new key wants a certificate for the same endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// PKCS#10 request of the new key, PEM.
    pub csr_pem: String,
}
