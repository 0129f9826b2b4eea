//! What the desk asks of the controller.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tram_wire::call::{CALL_PATH, Call, Kept};
use tram_wire::desk::{
    CONNECT_PATH, Connect, Connected, Current, LEASE_PATH, Leased, Problem, SESSION_PATH, SIGN_IN_PATH, SIGN_OUT_PATH,
    SUPPORT_PATH, SignIn, SignOut, SignedIn, Support,
};

use crate::config::{Address, ConfigError};
use crate::identity::Identity;
use crate::link::http::{self, HttpError};
use crate::link::tls;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The controller can't be reached, or whoever answers is not the controller.
    #[error("the controller can't be reached: {0}")]
    Unreachable(#[from] HttpError),
    /// The controller said no.
    #[error("{0}")]
    Refused(Problem),
    /// This computer's identity can't be used.
    #[error("{0}")]
    Identity(String),
}

impl ControlError {
    /// The code a person reads and searches for.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Unreachable(_) => "D-101",
            Self::Refused(p) => &p.code,
            Self::Identity(_) => "D-102",
        }
    }

    /// Whether the controller or its database could not be asked, so that a lease may do: it said neither yes nor no.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.code(), "D-101" | "X-503" | "E-305")
    }
}

impl From<io::Error> for ControlError {
    fn from(e: io::Error) -> Self {
        Self::Identity(e.to_string())
    }
}

impl From<ConfigError> for ControlError {
    fn from(e: ConfigError) -> Self {
        Self::Identity(e.to_string())
    }
}

/// The controller, as this endpoint proves itself to it.
#[derive(Clone)]
pub struct Control {
    to: Address,
    tls: Arc<ClientConfig>,
}

impl Control {
    /// With this identity; made anew for each sign-in, because certificates are renewed.
    ///
    /// # Errors
    /// [`ControlError::Identity`].
    pub fn new(identity: &Identity) -> Result<Self, ControlError> {
        Ok(Self { to: identity.controller.parse()?, tls: tls::link(identity)? })
    }

    /// Signs an officer in.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sign_in(&self, who: &SignIn) -> Result<SignedIn, ControlError> {
        self.ask("POST", SIGN_IN_PATH, None, who).await
    }

    /// Asks for the officer's desktop.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn connect(&self, token: &str, take_over: bool) -> Result<Connected, ControlError> {
        self.ask("POST", CONNECT_PATH, Some(token), &Connect { take_over }).await
    }

    /// The officer's session; also tells the controller that they are still here.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn session(&self, token: &str) -> Result<Current, ControlError> {
        self.ask("GET", SESSION_PATH, Some(token), &()).await
    }

    /// Asks for what takes the session up again while the controller is away.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn lease(&self, token: &str) -> Result<Leased, ControlError> {
        self.ask("POST", LEASE_PATH, Some(token), &()).await
    }

    /// Whom officers of this computer call.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn support(&self) -> Result<Support, ControlError> {
        self.ask("GET", SUPPORT_PATH, None, &()).await
    }

    /// Calls support, or asks how far it is with a call.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn call(&self, call: &Call) -> Result<Kept, ControlError> {
        self.ask("POST", CALL_PATH, None, call).await
    }

    /// Ends the sign-in, perhaps with the session.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sign_out(&self, token: &str, end_session: bool) -> Result<(), ControlError> {
        let _: Option<()> = self.ask("POST", SIGN_OUT_PATH, Some(token), &SignOut { end_session }).await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &'static str,
        bearer: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let garbled = |e: serde_json::Error| HttpError::Garbled(e.to_string());
        let body = serde_json::to_vec(body).map_err(garbled)?;
        let request = http::Request { method, path, bearer, body: &body };
        let answer = http::ask(&self.to, self.tls.clone(), &request).await?;
        match answer.status {
            200 => Ok(serde_json::from_slice(&answer.body).map_err(garbled)?),
            204 => Ok(serde_json::from_slice(b"null").map_err(garbled)?),
            status => match serde_json::from_slice(&answer.body) {
                Ok(problem) => Err(ControlError::Refused(problem)),
                Err(_) => Err(HttpError::Garbled(format!("HTTP status {status}")).into()),
            },
        }
    }
}
