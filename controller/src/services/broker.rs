//! The connection broker: which officer gets which desktop, and the ticket that opens it.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tram_wire::ids::{SessionId, UserId};
use uuid::Uuid;

pub use self::carried::{attached, closing, detached, experienced, first_frame, note_refusal, redeem, standings};
pub use self::waiting::{Queue, serve_line};
use super::gateways::Target;
use super::{App, Ctx, Error, Result, audit, patiently};
use crate::domain::access::{Caller, Role};
use crate::domain::desktop::{DesiredDesktop, DesktopState, progress};
use crate::domain::line;
use crate::domain::policy::SessionPolicy;
use crate::domain::session::{self, Course, EndReason, Limit, SessionState, TICKET_KEPT, TICKET_LIFE};
use crate::domain::ticket::Binding;
use crate::domain::time::Time;
use crate::identity::secret::Secret;
use crate::store::Tx;
use crate::store::assists::Assist;
use crate::store::desktops::Want;
use crate::store::samples::Point;
use crate::store::sessions::{Candidate, Filter, Session};
use crate::store::site_lines::LineUse;

mod carried;
mod waiting;

/// What a ticket starts with.
pub const TICKET_PREFIX: &str = "vdt1_";

/// Leases that are over are kept this long, for the list of them.
const LEASES_KEPT: Duration = Duration::from_secs(86_400);

/// What is kept of the course of a session that is over, and for how long.
const COURSE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A boot is guessed to take this long until one was measured.
const FIRST_BOOT: Duration = Duration::from_secs(60);

/// What opens a display, once.
#[derive(Debug)]
pub struct Ticket {
    /// For the viewer. Only its hash is stored.
    pub secret: Secret,
    /// How long it may be redeemed.
    pub expires_in: Duration,
    /// What its gateway must reach.
    pub to: Target,
}

/// A session as its officer sees it.
#[derive(Debug)]
pub struct View {
    /// The row.
    pub session: Session,
    /// Its state now.
    pub state: SessionState,
    /// What its desktop is doing, while there is something to wait for.
    pub step: Option<Step>,
    /// Where it stands in line, while there is no desktop for it.
    pub queue: Option<Queue>,
    /// The limit that is near, and when it is reached.
    pub closing: Option<(Limit, Time)>,
    /// Support that looks at it, or asks to.
    pub assist: Option<Assist>,
}

/// What a waiting officer is told.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The desktop's state.
    pub code: DesktopState,
    /// Since when.
    pub started_at: Time,
    /// Seconds left, as far as known.
    pub estimate_s: Option<u64>,
    /// Part of the way that is done, 0 to 1.
    pub progress: Option<f64>,
}

/// The caller's live session with a desktop: the one they have, else a new one on the desktop of their site
/// that is ready soonest. Comes with a ticket if the desktop runs; the ticket is valid for `binding` only. When
/// no desktop is free, the session stands in line, and asking again says that its officer is still there.
///
/// # Errors
/// [`Error::Capacity`] if there is no desktop for their site at all; [`Error::Elsewhere`] if somebody works in
/// the session at another place: only [`take_over`] moves it.
pub async fn connect(app: &App, ctx: &Ctx, binding: &Binding) -> Result<(View, Option<Ticket>)> {
    // At eight o'clock everybody asks at once, and many of them from endpoints, not through the API.
    patiently(|| try_connect(app, ctx, binding, false)).await
}

/// Like [`connect`], and moves a session that is open at another place to this one.
///
/// # Errors
/// [`Error::Capacity`] if there is no desktop for their site at all.
pub async fn take_over(app: &App, ctx: &Ctx, binding: &Binding) -> Result<(View, Option<Ticket>)> {
    patiently(|| try_connect(app, ctx, binding, true)).await
}

async fn try_connect(app: &App, ctx: &Ctx, binding: &Binding, take_over: bool) -> Result<(View, Option<Ticket>)> {
    let user = officer(ctx)?;
    let mut tx = app.store.begin().await?;
    if tx.lock_user(user).await? != Some(true) {
        return Err(Error::Forbidden("A-105", "this account is disabled".into()));
    }
    let id = match resume(&mut tx, user, ctx.now).await? {
        Resumed::Session(id) => id,
        Resumed::Nothing(since) => open(&mut tx, app, ctx, user, since).await?,
    };
    let row = tx.hold_session(id).await?.ok_or_else(not_found)?;
    not_elsewhere(&mut tx, ctx, &row, binding, take_over).await?;
    let ticket = if ready(&row) { Some(mint(&mut tx, &row, binding).await?) } else { None };
    tx.commit().await?;
    Ok((view(app, row, ctx.now).await?, ticket))
}

/// Refuses what would throw somebody out of the session unasked.
async fn not_elsewhere(tx: &mut Tx, ctx: &Ctx, row: &Session, binding: &Binding, take_over: bool) -> Result<()> {
    let key = tx.place_key(binding).await?;
    let Some(elsewhere) = row.elsewhere(&key) else { return Ok(()) };
    if !take_over {
        return Err(Error::Elsewhere(elsewhere));
    }
    let detail =
        json!({"desktop": row.desktop_name, "from": elsewhere.place, "name": elsewhere.name, "to": binding.place()});
    audit(tx, ctx, "session.take_over", &row.id.to_string(), detail).await
}

/// What became of the session the officer had.
enum Resumed {
    /// It goes on.
    Session(SessionId),
    /// There is none. Its place in line, if it never got a working desktop.
    Nothing(Option<i64>),
}

/// The live session, if its desktop is still good; the desktop is started if it is off.
async fn resume(tx: &mut Tx, user: UserId, now: Time) -> Result<Resumed> {
    let Some(s) = tx.live_session_of(user).await? else { return Ok(Resumed::Nothing(None)) };
    if s.state == SessionState::Waiting {
        tx.still_waiting(s.id, now).await?;
        return Ok(Resumed::Session(s.id));
    }
    let never_seen = s.first_frame_at.is_none() && !s.persistent();
    match (s.desktop_id, s.desktop_state(), s.desktop_desired()) {
        (Some(_), Some(DesktopState::Failed), _) if never_seen => {}
        (Some(desktop), Some(_), Some(desired)) if desired != DesiredDesktop::Absent && s.standing().assigned => {
            if desired != DesiredDesktop::Running {
                tx.want_desktop(desktop.into(), Want::Start, now).await?;
            }
            return Ok(Resumed::Session(s.id));
        }
        _ => {}
    }
    finish(tx, &s, EndReason::DesktopGone, now).await?;
    Ok(Resumed::Nothing(s.queued_at.filter(|_| s.epoch == 0)))
}

async fn open(tx: &mut Tx, app: &App, ctx: &Ctx, user: UserId, since: Option<i64>) -> Result<SessionId> {
    let scope = ctx.caller.scope();
    let id = SessionId(Uuid::now_v7());
    let mut found = tx.kept_desktop(user, &scope).await?;
    // Whoever waits for the same desktops came first.
    let line = tx.line().await?.iter().any(|p| line::compete(&p.scope, &scope));
    for wait in [false, true] {
        if found.is_none() && !line {
            found = tx.free_desktop(user, &scope, wait).await?;
        }
    }
    let Some(desktop) = found else {
        if tx.desktops_in(&scope).await? == 0 {
            return Err(no_desktops());
        }
        tx.queue_session(id, user, &scope, since, &ctx.ip, ctx.now).await?;
        audit(tx, ctx, "session.wait", &id.to_string(), json!({})).await?;
        return Ok(id);
    };
    give(tx, &desktop, user, ctx.now).await?;
    let policy = SessionPolicy::of(&app.policy, &desktop.policy, desktop.persistent);
    tx.open_session(id, user, &desktop, &policy, since, &ctx.ip, ctx.now).await?;
    audit(tx, ctx, "session.open", &id.to_string(), json!({"desktop": desktop.name, "site": desktop.site_code}))
        .await?;
    Ok(id)
}

async fn give(tx: &mut Tx, desktop: &Candidate, user: UserId, now: Time) -> Result<()> {
    if !tx.assign_desktop(desktop.id, user, now).await? {
        // Its row is held since it was chosen.
        return Err(Error::Internal("a desktop was assigned behind its lock".into()));
    }
    if desktop.desired != DesiredDesktop::Running {
        tx.want_desktop(desktop.id, Want::Start, now).await?;
    }
    Ok(())
}

fn no_desktops() -> Error {
    Error::Capacity(
        "S-101",
        "there are no desktops for your site yet; ask the data centre to make a pool for it".into(),
    )
}

/// A new ticket for a session of the caller.
///
/// # Errors
/// [`Error::Conflict`] `S-104` while the desktop is not ready, `S-105` if the session is over;
/// [`Error::Elsewhere`] if somebody works in it at another place.
pub async fn ticket(app: &App, ctx: &Ctx, id: SessionId, binding: &Binding) -> Result<Ticket> {
    let user = officer(ctx)?;
    let mut tx = app.store.begin().await?;
    let row = tx.hold_session(id).await?.filter(|s| s.user_id == user).ok_or_else(not_found)?;
    if row.state == SessionState::Ended {
        return Err(Error::Conflict("S-105", "this session has ended; connect again".into()));
    }
    if !ready(&row) {
        let state = row.desktop_state().map_or("gone", DesktopState::as_str);
        return Err(Error::Conflict("S-104", format!("the desktop is not ready yet, it is {state}")));
    }
    not_elsewhere(&mut tx, ctx, &row, binding, false).await?;
    let ticket = mint(&mut tx, &row, binding).await?;
    tx.commit().await?;
    Ok(ticket)
}

fn ready(s: &Session) -> bool {
    session::verdict(i64::MAX, Some(&s.standing())).is_none()
        && s.desktop_state().is_some_and(|d| session::display_ready(d, s.first_frame_at.is_some()))
}

async fn mint(tx: &mut Tx, s: &Session, binding: &Binding) -> Result<Ticket> {
    let desktop = s.desktop_id.ok_or_else(not_found)?;
    let secret = Secret::generate(TICKET_PREFIX);
    tx.put_ticket(&secret.hashed(), s.id, s.user_id, desktop.into(), binding, TICKET_LIFE).await?;
    Ok(Ticket { secret, expires_in: TICKET_LIFE, to: target(s) })
}

/// What a gateway for this session must reach.
pub(super) fn target(s: &Session) -> Target {
    Target { session: s.id, host: s.host_id, left: s.gateway_id }
}

/// Sessions the caller may see: officers their own, support and operators those of their sites.
///
/// # Errors
/// Only those of the store.
pub async fn list(app: &App, ctx: &Ctx, mut filter: Filter) -> Result<(Vec<View>, i64)> {
    filter.scope = ctx.caller.scope();
    if ctx.caller.is(Role::Officer)
        && let Caller::User { id, .. } = ctx.caller
    {
        filter.user = Some(id);
        // Their own session is theirs wherever their desktop stands.
        filter.scope = crate::domain::access::Scope::All;
    }
    let (rows, total) = app.store.sessions(&filter).await?;
    let boot = usual_boot(app).await?;
    let queues = waiting::queues(app, &rows, boot, ctx.now).await?;
    let mut assists = app.store.live_assists().await?;
    let views = rows.into_iter().zip(queues).map(|(s, q)| {
        let assist = assists.iter().position(|a| a.session_id == s.id).map(|at| assists.swap_remove(at));
        View { assist, ..view_at(s, q, boot, ctx.now) }
    });
    Ok((views.collect(), total))
}

/// One session the caller may see.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(app: &App, ctx: &Ctx, id: SessionId) -> Result<View> {
    let filter = Filter { ids: Some(vec![id]), limit: 1, ..Filter::all() };
    list(app, ctx, filter).await?.0.pop().ok_or_else(not_found)
}

/// Ends a session: the officer's own, or by support and operators in their scope. Its viewer is cut off,
/// and a desktop that is not kept for its user gets a fresh disk before anybody else can have it.
///
/// # Errors
/// [`Error::NotFound`] if there is none, or not for this caller.
pub async fn end(app: &App, ctx: &Ctx, id: SessionId) -> Result<()> {
    end_because(app, ctx, id, None).await
}

/// Longest reason given for an end.
const NOTE_MOST: usize = 200;

/// Like [`end`], with what to tell the officer.
///
/// # Errors
/// [`Error::NotFound`] as for [`end`]; [`Error::Invalid`] if the reason is too long.
pub async fn end_because(app: &App, ctx: &Ctx, id: SessionId, note: Option<&str>) -> Result<()> {
    let note = note.map(str::trim).filter(|n| !n.is_empty());
    if note.is_some_and(|n| n.chars().count() > NOTE_MOST || n.chars().any(char::is_control)) {
        return Err(Error::field("reason", "S-107", format!("a reason is one line of at most {NOTE_MOST} characters")));
    }
    get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    let row = tx.hold_session(id).await?.ok_or_else(not_found)?;
    let own = matches!(ctx.caller, Caller::User { id, .. } if id == row.user_id);
    let reason = if own { EndReason::User } else { EndReason::Staff };
    // Ending what is over is no fault: the page and the sign-out may both ask.
    if finish(&mut tx, &row, reason, ctx.now).await? {
        if !own {
            tx.session_ended_by(id, ctx.caller.name(), note).await?;
        }
        let detail = json!({"user": row.username, "desktop": row.desktop_name, "reason": reason, "note": note});
        audit(&mut tx, ctx, "session.end", &id.to_string(), detail).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The officer of a session says that they are still there: the idle limit counts anew.
///
/// # Errors
/// [`Error::NotFound`] unless it is theirs.
pub async fn present(app: &App, ctx: &Ctx, id: SessionId) -> Result<()> {
    let user = officer(ctx)?;
    let mut tx = app.store.begin().await?;
    tx.hold_session(id).await?.filter(|s| s.user_id == user).ok_or_else(not_found)?;
    tx.session_present(id, ctx.now).await?;
    Ok(tx.commit().await?)
}

/// Ends a session and takes its desktop back. `false` if it was over.
async fn finish(tx: &mut Tx, s: &Session, reason: EndReason, now: Time) -> Result<bool> {
    if !tx.end_session(s.id, reason, now).await? {
        return Ok(false);
    }
    let Some(desktop) = s.desktop_id else { return Ok(true) };
    if s.persistent() || !s.standing().assigned {
        return Ok(true);
    }
    let used = s.epoch > 0;
    tx.unassign_desktop(desktop.into(), s.user_id, now).await?;
    if !s.start_desktops() {
        tx.want_desktop(desktop.into(), Want::Stop { force: used }, now).await?;
    }
    if used {
        // In this transaction already: from here on nobody finds it running with what was left on it.
        tx.want_desktop(desktop.into(), Want::Rebuild, now).await?;
    }
    Ok(true)
}

/// A session's course: the line it is used over, and how it felt point by point.
///
/// # Errors
/// [`Error::NotFound`] if there is none, or not for this caller; [`Error::Forbidden`] for officers.
pub async fn course(app: &App, ctx: &Ctx, id: SessionId) -> Result<(Option<LineUse>, Vec<Point>)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    get(app, ctx, id).await?;
    let line = match app.store.line_of(id).await? {
        Some((code, _)) => {
            let known = app.store.lines().await?.remove(&code);
            Some(known.unwrap_or_else(|| LineUse { site_code: code, ..LineUse::default() }))
        }
        None => None,
    };
    Ok((line, app.store.samples(id).await?))
}

/// What time does to sessions: some become ready, some lost their gateway (if gateways can be `judged` now), some are
/// over. How many changed. A session whose officer may have worked by lease without the database is not over for
/// want of a viewer until gateways had the time to say so, and have said all they know.
///
/// # Errors
/// Only those of the store.
pub async fn reap(app: &App, judged: bool) -> Result<usize> {
    let ctx = Ctx::system(app.clock.now());
    let mut tx = app.store.begin().await?;
    let mut changed = tx.ready_sessions().await?;
    if judged {
        changed += tx.orphaned_sessions(ctx.now).await?;
    }
    tx.forget_tickets(TICKET_KEPT).await?;
    tx.forget_samples(ctx.now.minus(COURSE_KEPT)).await?;
    tx.forget_leases(LEASES_KEPT).await?;
    tx.commit().await?;
    let heard = judged && app.store.untold().await? == 0;
    let by_lease = if heard { HashSet::new() } else { app.store.sessions_with_leases().await? };
    for s in app.store.sessions(&Filter::live()).await?.0 {
        match end_reason(&s, ctx.now) {
            None => continue,
            Some(EndReason::Expired) if by_lease.contains(&s.id) => continue,
            Some(_) => {}
        }
        let mut tx = app.store.begin().await?;
        // Looked at again under the lock: its viewer may just have come back.
        let Some(s) = tx.hold_session(s.id).await? else { continue };
        let Some(reason) = end_reason(&s, ctx.now) else { continue };
        if finish(&mut tx, &s, reason, ctx.now).await? {
            let detail = json!({"user": s.username, "desktop": s.desktop_name, "reason": reason});
            audit(&mut tx, &ctx, "session.end", &s.id.to_string(), detail).await?;
            tx.commit().await?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn end_reason(s: &Session, now: Time) -> Option<EndReason> {
    let (standing, policy) = (&s.standing(), &s.policy);
    session::over(&Course { standing, policy, assigned: s.assigned(), alone_since: s.alone_since() }, now)
}

async fn usual_boot(app: &App) -> Result<Duration> {
    let ms = app.store.usual_boot_ms().await?.and_then(|ms| u64::try_from(ms).ok());
    Ok(ms.map_or(FIRST_BOOT, Duration::from_millis))
}

async fn view(app: &App, row: Session, now: Time) -> Result<View> {
    let boot = usual_boot(app).await?;
    let queue = waiting::queues(app, std::slice::from_ref(&row), boot, now).await?.pop().flatten();
    let assist = app.store.live_assists().await?.into_iter().find(|a| a.session_id == row.id);
    Ok(View { assist, ..view_at(row, queue, boot, now) })
}

fn view_at(row: Session, queue: Option<Queue>, boot: Duration, now: Time) -> View {
    let state = session::shown(row.state, row.desktop_state());
    let waiting = state != SessionState::Ended;
    let step = row.desktop_state().zip(row.desktop_since).filter(|(d, _)| waiting && *d != DesktopState::Running);
    let step = step.map(|(code, since)| {
        let started_at = Time::from_micros(since);
        let (progress, estimate_s) = progress(code, now.since(started_at), boot).unzip();
        Step { code, started_at, estimate_s, progress }
    });
    View { closing: row.closing(now), session: row, state, step, queue, assist: None }
}

pub(super) fn officer(ctx: &Ctx) -> Result<UserId> {
    match &ctx.caller {
        Caller::User { id, role: Role::Officer, .. } => Ok(*id),
        _ => Err(Error::Forbidden("A-105", "only officers have desktops".into())),
    }
}

pub(super) fn not_found() -> Error {
    Error::NotFound("S-404", "there is no such session".into())
}
