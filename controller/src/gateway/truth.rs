//! Why a display closed by itself: the desktop, its host, or neither. The officer reads it, so it must be true and
//! come within a second.

use std::time::Duration;

use tokio::time::timeout;
use tram_hypervisor::error::Class;
use tram_hypervisor::{Display, Error as HypervisorError};
use tram_wire::ids::{DesktopId, SessionId};

use super::Gateway;
use super::link::Link;
use crate::domain::host::HostState;
use crate::domain::session::{self, Cut};

/// What the database knows, and what the host answers: each within this time, together below a second.
const ASK: Duration = Duration::from_millis(400);

/// What the officer is told of a display that does not open; `None`: the desktop has no such display.
pub(super) fn of_error(e: &HypervisorError) -> Option<Cut> {
    match e {
        HypervisorError::Unsupported(_) => None,
        HypervisorError::Busy(_) | HypervisorError::Invalid(_) => Some(Cut::DesktopGone),
        e if e.class() == Class::Gone => Some(Cut::DesktopGone),
        _ => Some(Cut::HostLost),
    }
}

impl Gateway {
    /// Asks the database what is meant to be, then the host itself whether the desktop is still there.
    /// [`Cut::Restart`] if it is: the viewer comes back at once.
    pub(super) async fn why_closed(&self, session: SessionId, desktop: DesktopId) -> Cut {
        let known = timeout(ASK, self.last_known(session)).await.unwrap_or_default();
        let host = match known {
            Some((Some(cut), _)) => return cut,
            Some((None, host)) => host,
            None => None,
        };
        let probe = async {
            let backend = self.0.fleet.get(host?.into())?;
            Some(backend.open_display(desktop, Display::Vnc).await)
        };
        match timeout(ASK, probe).await {
            Ok(Some(Ok(_))) => Cut::Restart,
            Ok(Some(Err(e))) => of_error(&e).unwrap_or(Cut::DesktopGone),
            // Without a database nobody knows which host to ask.
            Ok(None) if known.is_none() => Cut::DesktopGone,
            Ok(None) | Err(_) => Cut::HostLost,
        }
    }

    /// What the rows say: why it must end, else the host to ask. `None` without a database.
    async fn last_known(&self, session: SessionId) -> Option<(Option<Cut>, Option<uuid::Uuid>)> {
        let store = &self.0.app.store;
        let row = store.session(session).await.ok()?;
        if let Some(cut) = session::verdict(i64::MAX, row.as_ref().map(|r| r.standing()).as_ref()) {
            return Some((Some(cut), None));
        }
        let Some(id) = row.and_then(|r| r.host_id) else { return Some((Some(Cut::DesktopGone), None)) };
        let down = store.host(id.into()).await.ok()?.is_some_and(|h| h.state == HostState::Down);
        Some((down.then_some(Cut::HostLost), Some(id)))
    }

    /// A display of an endpoint's session closed: its tunnel is told why and ends, before the viewer there can show
    /// words of its own. `false` if the desktop is still there.
    pub(super) async fn display_closed(&self, link: &Link) -> bool {
        let why = self.why_closed(link.session, link.desktop).await;
        if why == Cut::Restart {
            return false;
        }
        link.cut(why);
        true
    }
}
