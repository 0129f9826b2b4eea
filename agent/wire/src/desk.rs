//! Signing in at an endpoint and asking for a desktop: plain requests on the agents' listener.
//!
//! ```text
//! endpoint                                             controller
//!   POST /agent/v1/desk/sign-in  {username, password} → token, who
//!   POST /agent/v1/desk/connect  Bearer token         → session, ticket once the desktop is ready
//!   GET  /agent/v1/desk/session  Bearer token         → session, or none
//!   POST /agent/v1/desk/lease    Bearer token         → a lease, if leases are on
//!   POST /agent/v1/desk/sign-out Bearer token         → nothing
//! ```
//! Each one is made with the device certificate; a token works only from the endpoint it was made for, and
//! so does a ticket. What is refused is answered by a [`Problem`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::SessionId;
use crate::lease::Signed;

/// `POST` [`SignIn`], answered by [`SignedIn`].
pub const SIGN_IN_PATH: &str = "/agent/v1/desk/sign-in";
/// `POST` [`Connect`], answered by [`Connected`].
pub const CONNECT_PATH: &str = "/agent/v1/desk/connect";
/// `GET`, answered by [`Current`].
pub const SESSION_PATH: &str = "/agent/v1/desk/session";
/// `POST` without a body, answered by [`Leased`].
pub const LEASE_PATH: &str = "/agent/v1/desk/lease";
/// `POST` [`SignOut`], answered without a body.
pub const SIGN_OUT_PATH: &str = "/agent/v1/desk/sign-out";
/// `GET`, answered by [`Support`]; the device certificate is enough.
pub const SUPPORT_PATH: &str = "/agent/v1/desk/support";

/// Whom officers call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// Telephone of the helpdesk; empty: none is known.
    #[serde(default)]
    pub phone: String,
}

/// An officer signs in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignIn {
    /// Sign-in name as typed.
    pub username: String,
    /// Password as typed.
    pub password: String,
}

/// Signed in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// For `Authorization: Bearer …`. Kept in memory only.
    pub token: String,
    /// Name for people.
    pub display_name: String,
    /// The language they read: `vi` or `en`.
    pub language: String,
}

/// Asks for the officer's desktop: the one they have, else one that is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The officer was asked, and wants the session although it is open at another place.
    #[serde(default)]
    pub take_over: bool,
}

/// The session, and the way in if its desktop is ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    /// The session.
    pub session: Session,
    /// Absent while the desktop is not ready: ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
    /// Gateways for the ticket, the best first; the controller's own address is not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
}

/// The officer's session, if they have one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Current {
    /// The live one, else the one that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// Gateways for it, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
}

/// A session as its officer sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Id.
    pub id: SessionId,
    /// `starting`, `ready`, `active`, `disconnected` or `ended`.
    pub state: String,
    /// The desktop's name.
    pub desktop: String,
    /// What the desktop is doing while one waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// Why it ended, as a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
}

/// What one waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The desktop's state, for translation.
    pub code: String,
    /// Seconds left, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_s: Option<u64>,
    /// Part of the way that is done, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<f64>,
    /// Place in the queue for a desktop, the next one is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
}

/// Opens the session's display once, from this endpoint.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// To be redeemed in the tunnel.
    pub ticket: String,
    /// Seconds it may be redeemed.
    pub expires_s: u64,
}

/// What takes the session up again from this endpoint while the controller can't be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The lease; absent if there are none, or none for this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Signed>,
    /// Ask again after this many seconds.
    pub renew_s: u64,
}

/// Ends the sign-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignOut {
    /// The session ends too; otherwise its desktop waits as its policy says.
    #[serde(default)]
    pub end_session: bool,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Short code to search for, such as `A-101`.
    pub code: String,
    /// What happened and what to do, in English; the endpoint translates by the code.
    pub detail: String,
    /// Tries left before the account is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,
    /// Try again after this many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

impl std::error::Error for Problem {}

// Passwords, tokens and tickets must not reach a log by way of `{:?}`.
impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignIn { .. }")
    }
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("display_name", &self.display_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("expires_s", &self.expires_s).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret = || "geheim".to_owned();
        let a = SignIn { username: secret(), password: secret() };
        let b = SignedIn { token: secret(), display_name: "Lan".into(), language: "vi".into() };
        let c = Ticket { ticket: secret(), expires_s: 30 };
        assert!(!format!("{a:?}{b:?}{c:?}").contains("geheim"));
    }

    #[test]
    fn an_older_or_newer_end_is_understood() {
        assert_eq!(serde_json::from_str::<Connect>("{}").unwrap(), Connect::default());
        let more = r#"{"code":"A-101","detail":"no","remaining":2,"moon":true}"#;
        assert_eq!(serde_json::from_str::<Problem>(more).unwrap().remaining, Some(2));
    }
}
