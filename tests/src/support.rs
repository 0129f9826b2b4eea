//! Somebody of support, signed in in a browser, who looks at officers' sessions.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_tungstenite::tungstenite::Error as WsError;
use tram_controller::domain::access::{Role, Scope};
use tram_controller::identity::secret;
use tram_controller::services::{Ctx, assists};
use tram_controller::store::assists::Assist;
use tram_wire::ids::{SessionId, UserId};

use crate::gate::{Gate, Viewer};

/// The machine may be slow and busy; the time is no part of any claim.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Their browser's sign-in.
pub const COOKIE: &str = "the-browser-of-support";

/// Them.
#[derive(Clone, Copy)]
pub struct Support(UserId);

impl Support {
    /// Signs one in.
    ///
    /// # Errors
    /// The database's.
    pub async fn sign_in(gate: &Gate) -> Result<Self> {
        let id = gate.office.add_user("support", Role::Support, None).await?;
        gate.office.sign_in(id, COOKIE).await?;
        Ok(Self(id))
    }

    /// On whose behalf they ask.
    #[must_use]
    pub fn ctx(&self, gate: &Gate) -> Ctx {
        gate.office.caller(self.0, "support", Role::Support, Scope::All)
    }

    /// Asks to look.
    ///
    /// # Errors
    /// The refusal.
    pub async fn ask(&self, gate: &Gate, session: SessionId, why: &str) -> Result<Assist> {
        Ok(assists::ask(&gate.office.app, &self.ctx(gate), &secret::hash(COOKIE), session, why).await?)
    }

    /// Asks for keyboard and mouse.
    ///
    /// # Errors
    /// The refusal.
    pub async fn ask_control(&self, gate: &Gate, session: SessionId) -> Result<Assist> {
        Ok(assists::ask_control(&gate.office.app, &self.ctx(gate), &secret::hash(COOKIE), session).await?)
    }

    /// What opens the display, once they may.
    ///
    /// # Errors
    /// The refusal.
    pub async fn ticket(&self, gate: &Gate, session: SessionId) -> Result<String> {
        let ticket = assists::ticket(&gate.office.app, &self.ctx(gate), &secret::hash(COOKIE), session).await?;
        Ok(ticket.secret.reveal().to_owned())
    }

    /// Knocks at a door of the gateway.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock(gate: &Gate, door: &str, ticket: &str, cookie: &str) -> Result<Viewer, WsError> {
        gate.knock_at(door, ticket, cookie, &format!("http://{}", gate.address)).await
    }

    /// Looks, once they may.
    ///
    /// # Errors
    /// The refusal.
    pub async fn look(&self, gate: &Gate, session: SessionId) -> Result<Viewer> {
        let ticket = self.ticket(gate, session).await?;
        let mut viewer = Self::knock(gate, "assist", &ticket, &format!("tram_session={COOKIE}")).await?;
        viewer.shake_hands().await?;
        let since = Instant::now();
        while gate.gateway.assists() != 1 {
            anyhow::ensure!(since.elapsed() < PATIENCE, "the assist never began");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(viewer)
    }

    /// The session's latest assist, once this is so.
    ///
    /// # Errors
    /// If it never is.
    pub async fn until(gate: &Gate, session: SessionId, so: impl Fn(&Assist) -> bool) -> Result<Assist> {
        let since = Instant::now();
        loop {
            let last = gate.office.app.store.assists_of(session, 1).await?.pop().context("an assist")?;
            if so(&last) {
                return Ok(last);
            }
            anyhow::ensure!(since.elapsed() < PATIENCE, "waited in vain: {last:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
