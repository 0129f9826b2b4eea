//! Whether a line may be filled for a moment: only under an order that runs, and never while somebody works at a desktop
//! of that office.

use tram_wire::diagnosis::{Action, Work};
use tram_wire::ids::{EndpointId, OrderId};
use uuid::Uuid;

use super::{App, Error, Result};
use crate::domain::diagnosis::DiagnosisState;
use crate::store::site_lines::LineUse;

/// The office whose line it is, if this endpoint has this order now.
///
/// # Errors
/// [`Error::NotFound`] if it was not ordered, [`Error::Conflict`] while somebody works.
pub async fn ordered(app: &App, endpoint: EndpointId, order: OrderId) -> Result<String> {
    let found = app.store.diagnosis(order).await?.filter(|d| {
        let wanted = matches!(d.work, Work::Action(Action::Bandwidth {})) && d.endpoint_id == endpoint;
        let now = matches!(d.state, DiagnosisState::Sent | DiagnosisState::Running) && !d.cancelled;
        wanted && now && d.due_at > app.clock.now().micros()
    });
    let d = found.ok_or(Error::NotFound("Q-410", "this was not ordered, or is over".into()))?;
    quiet(app, &d.site_code).await?;
    Ok(d.site_code)
}

/// Whether nobody works at a desktop of this office: they share its line.
///
/// # Errors
/// [`Error::Conflict`] if somebody does.
pub async fn quiet(app: &App, site: &str) -> Result<()> {
    let busy = app.store.line_uses(Uuid::nil()).await?.into_iter().find(|l| l.site_code == site && l.sessions > 0);
    match busy {
        None => Ok(()),
        Some(LineUse { sessions, .. }) => {
            let why =
                format!("desktops open at this office: {sessions}; they share its line: measure when nobody works");
            Err(Error::Conflict("Q-110", why))
        }
    }
}
