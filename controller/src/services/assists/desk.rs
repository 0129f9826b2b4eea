//! The officer's part of an assist, said at an endpoint's own screen and carried by its tunnel.
//!
//! The tunnel proves who says it: it was opened with the officer's ticket, from the endpoint's certificate, and
//! is cut when somebody else takes the session over.

use std::collections::HashMap;

use tram_wire::assist::{Assist as Shown, AssistAnswer, Question as Asked, Stage};
use tram_wire::ids::{AssistId, SessionId};

use super::{App, Ctx, Error, Result, answer, finish, not_found};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::assist::{AssistEnd, AssistState, Control, Question};
use crate::domain::session;
use crate::store::assists::Assist;

/// A connection of a session that ends at an endpoint.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Which session.
    pub session: SessionId,
    /// Which connection of it.
    pub epoch: i64,
    /// Address of the endpoint.
    pub ip: String,
}

/// What the officers of these sessions are to be shown.
///
/// # Errors
/// Only those of the store.
pub async fn shown(app: &App) -> Result<HashMap<SessionId, Shown>> {
    let live = app.store.live_assists().await?;
    Ok(live.iter().map(|a| (a.session_id, of(a))).collect())
}

fn of(a: &Assist) -> Shown {
    let stage = match (a.state, a.control) {
        (AssistState::Asked, _) if a.overdue => Stage::Over,
        (AssistState::Asked, _) => Stage::Asked,
        (AssistState::Allowed, _) => Stage::Allowed,
        (AssistState::Active, Control::Granted) => Stage::Controlling,
        (AssistState::Active, Control::Asked) if !a.control_overdue => Stage::ControlAsked,
        (AssistState::Active, _) => Stage::Watching,
        (AssistState::Ended, _) => Stage::Over,
    };
    let asked = if stage == Stage::ControlAsked { Question::Control } else { Question::Watch };
    let left_s = if stage.question().is_some() { a.seconds_left(asked) } else { 0 };
    Shown { assist: a.id, stage, who: a.display_name.clone(), why: a.reason.clone(), left_s }
}

/// The seat's officer answers.
///
/// # Errors
/// As [`super::answer`]; [`Error::NotFound`] if the session is somewhere else by now.
pub async fn say(app: &App, seat: &Seat, said: AssistAnswer) -> Result<()> {
    let ctx = officer_at(app, seat).await?;
    let question = match said.question {
        Asked::Watch => Question::Watch,
        Asked::Control => Question::Control,
        Asked::Other => return Err(Error::Conflict("S-112", "nothing of this kind is asked".into())),
    };
    answer(app, &ctx, seat.session, said.assist, question, said.allow).await.map(|_| ())
}

/// The seat's officer stops this assist. What is over stays as it ended.
///
/// # Errors
/// Only those of the store, or [`Error::NotFound`] without a session.
pub async fn stop(app: &App, session: SessionId, assist: AssistId, ip: &str) -> Result<()> {
    let mut tx = app.store.begin().await?;
    let row = tx.hold_session(session).await?.ok_or_else(not_found)?;
    let Some(a) = tx.hold_assist(session).await?.filter(|a| a.id == assist) else { return Ok(()) };
    let ctx = Ctx { caller: caller(row.user_id, row.username), ip: ip.to_owned(), now: app.clock.now() };
    finish(&mut tx, &ctx, &a, AssistEnd::Officer).await?;
    Ok(tx.commit().await?)
}

/// Whether the seat's screen can show that somebody looks.
///
/// # Errors
/// Only those of the store.
pub async fn can_show(app: &App, seat: &Seat, shown: bool) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.session_shows_assists(seat.session, seat.epoch, shown).await?;
    Ok(tx.commit().await?)
}

async fn officer_at(app: &App, seat: &Seat) -> Result<Ctx> {
    let row = app.store.session(seat.session).await?.ok_or_else(not_found)?;
    if session::verdict(seat.epoch, Some(&row.standing())).is_some() {
        return Err(not_found());
    }
    Ok(Ctx { caller: caller(row.user_id, row.username), ip: seat.ip.clone(), now: app.clock.now() })
}

/// An officer who works in their own session and sees nobody else's.
fn caller(id: tram_wire::ids::UserId, username: String) -> Caller {
    Caller::User { id, username, role: Role::Officer, scope: Scope::Sites(Vec::new()) }
}
