//! An officer at an endpoint: signs in, gets a desktop, signs out.
//!
//! Any enrolled endpoint serves any officer: the desktop comes from the officer's own site, not from the
//! endpoint's, so that somebody who works in a neighbour's office for a day finds their own desktop there.
//! The audit names the endpoint.

use tram_wire::ids::{EndpointId, SessionId};

use super::sign_in::{self, Door, Opened, Visit};
use super::{App, Error, Result, broker};
use crate::domain::ticket::Binding;
use crate::identity::secret::Secret;
use crate::store::sessions::Filter;

/// The endpoint somebody sits at; its certificate was proved and is not withdrawn.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Which.
    pub id: EndpointId,
    /// SHA-256 of the certificate it showed.
    pub certificate: [u8; 32],
    /// Address of the request.
    pub ip: String,
}

impl Endpoint {
    fn door(&self) -> Door<'_> {
        Door { ip: &self.ip, endpoint: Some(self.id) }
    }

    fn binding(&self) -> Binding {
        Binding::Endpoint { id: self.id, certificate: self.certificate }
    }
}

/// Signs an officer in. The token works from this endpoint only.
///
/// # Errors
/// As [`sign_in::sign_in_at`].
pub async fn sign_in(app: &App, at: &Endpoint, username: &str, password: &Secret) -> Result<Opened> {
    sign_in::sign_in_at(app, at.door(), username, password).await
}

/// Who came with a token.
///
/// # Errors
/// [`Error::Unauthenticated`] A-100.
pub async fn visit(app: &App, at: &Endpoint, token: &str) -> Result<Visit> {
    sign_in::visit_at(app, at.door(), token).await
}

/// The officer's session, with a ticket for this endpoint's certificate once its desktop is ready; moved here
/// from another place only with `take_over`.
///
/// # Errors
/// As [`broker::connect`].
pub async fn connect(
    app: &App,
    at: &Endpoint,
    visit: &Visit,
    take_over: bool,
) -> Result<(broker::View, Option<broker::Ticket>)> {
    match take_over {
        false => broker::connect(app, &visit.ctx, &at.binding()).await,
        true => broker::take_over(app, &visit.ctx, &at.binding()).await,
    }
}

/// The officer's session: the live one, else the one opened last.
///
/// # Errors
/// Only those of the store.
pub async fn session(app: &App, visit: &Visit) -> Result<Option<broker::View>> {
    let newest = |live| Filter { live, limit: 1, ..Filter::all() };
    match broker::list(app, &visit.ctx, newest(true)).await?.0.pop() {
        Some(live) => Ok(Some(live)),
        None => Ok(broker::list(app, &visit.ctx, newest(false)).await?.0.pop()),
    }
}

/// Ends the sign-in, and the session with it if so wished.
///
/// # Errors
/// Only those of the store.
pub async fn sign_out(app: &App, visit: &Visit, end_session: bool) -> Result<()> {
    if end_session && let Some(live) = live(app, visit).await? {
        match broker::end(app, &visit.ctx, live).await {
            // It ended by itself between the two looks.
            Ok(()) | Err(Error::NotFound(..)) => {}
            Err(e) => return Err(e),
        }
    }
    sign_in::sign_out(app, visit).await
}

async fn live(app: &App, visit: &Visit) -> Result<Option<SessionId>> {
    let filter = Filter { live: true, limit: 1, ..Filter::all() };
    Ok(broker::list(app, &visit.ctx, filter).await?.0.pop().map(|v| v.session.id))
}
