//! A lease: with it an officer reaches the desktop they have while the controller can't be asked.
//!
//! ```text
//! controller ── signs ──► endpoint: sealed on disk with the officer's password
//!                             └── shows it, over the tunnel it proved its certificate for ──► gateway
//! ```
//! The controller signs a text; whoever reads it checks the signature over that very text first, so there is
//! no second way to write the same lease. It names ids, never an address, and holds no password.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{DesktopId, EndpointId, HostId, InstallationId, LeaseId, SessionId, UserId};
use crate::session::Protocol;

/// The only version so far.
pub const VERSION: u16 = 1;

/// Goes before the text when it is signed: nothing else that is ever signed can be taken for a lease.
pub const CONTEXT: &[u8] = b"tram lease 1\0";

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// [`VERSION`].
    pub version: u16,
    /// Which lease; the same for every renewal of one session at one endpoint.
    pub id: LeaseId,
    /// Who signed it.
    pub installation: InstallationId,
    /// Whose it is.
    pub user: UserId,
    /// Their sign-in name.
    pub username: String,
    /// Their name for people.
    pub display_name: String,
    /// The only endpoint it works at.
    pub endpoint: EndpointId,
    /// SHA-256 of that endpoint's certificate, hexadecimal.
    pub certificate: String,
    /// Site of the desktop.
    pub site: String,
    /// The session it takes up again.
    pub session: SessionId,
    /// The session's desktop.
    pub desktop: DesktopId,
    /// Its name for people.
    pub desktop_name: String,
    /// Which making of the desktop's disk: a desktop that was made anew for somebody else is not opened.
    pub generation: i64,
    /// The host it runs on.
    pub host: HostId,
    /// What may be opened.
    pub protocols: Vec<Protocol>,
    /// What the session may do.
    pub limits: Limits,
    /// When it was signed, by the database's clock.
    pub issued_ms: i64,
    /// Good from then on.
    pub not_before_ms: i64,
    /// Good until then.
    pub expires_ms: i64,
}

/// The part of a session's policy that a gateway enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds without a key or the mouse after which the viewer is disconnected.
    pub idle_s: u64,
    /// Text may be copied between the desktop and the endpoint.
    pub clipboard: bool,
    /// Sound is carried.
    pub audio: bool,
    /// Bandwidth cap towards the viewer, kbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kbit: Option<u32>,
}

/// A lease with the proof of who made it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Which key signed it.
    pub key: String,
    /// The text that was signed: a [`Lease`] as JSON.
    pub lease: String,
    /// Ed25519 over [`CONTEXT`] and the text, hexadecimal.
    pub signature: String,
}

impl Signed {
    /// The bytes the signature is over.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [CONTEXT, self.lease.as_bytes()].concat()
    }

    /// What it says, whether that is true or not.
    ///
    /// # Errors
    /// If it is no lease.
    pub fn unproved(&self) -> Result<Lease, serde_json::Error> {
        serde_json::from_str(&self.lease)
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_does_not_print_what_opens_a_desktop() {
        let signed = Signed { key: "k".into(), lease: "geheim".into(), signature: "geheim".into() };
        assert!(!format!("{signed:?}").contains("geheim"));
        assert!(signed.signed_bytes().starts_with(b"tram lease 1\0geheim"));
    }
}
