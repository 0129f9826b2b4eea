//! Assists: who may look at an officer's session, with what consent, and until when.
//!
//! The officer's word, the supporter's sign-in and the session all end an assist; each end is one row of the
//! audit. The gateway asks [`standing`] and cuts what is over; [`reap`] writes down what nobody said.

pub mod desk;

use metrics::counter;
use serde_json::{Value, json};
use tram_wire::ids::{AssistId, SessionId, UserId};
use uuid::Uuid;

use super::broker::{Ticket, not_found, officer};
use super::gateways::Target;
use super::{App, Ctx, Error, Result, audit, broker, sign_in};
use crate::domain::access::{Caller, Role};
use crate::domain::assist::{
    self, ANSWER_WITHIN, AssistEnd, AssistState, BEGIN_WITHIN, Control, LONGEST, Question, REASON_MOST, Standing,
};
use crate::domain::session::{SessionState, TICKET_KEPT, TICKET_LIFE};
use crate::identity::secret::{self, Secret};
use crate::store::Tx;
use crate::store::assists::{Assist, NewAssist, Opened};
use crate::store::audit::Entry;

/// What a ticket starts with: a session's is told apart before anybody looks it up.
pub const TICKET_PREFIX: &str = "vat1_";
/// Assists of a session that are shown.
const SHOWN: i64 = 20;

/// Asks to look at a session, as the policy it began with wants it. `sign_in`: of the browser that asks; the
/// assist lives no longer than that.
///
/// # Errors
/// [`Error::Conflict`] `S-110` if nobody works in the session, `S-111` if somebody assists already.
pub async fn ask(app: &App, ctx: &Ctx, sign_in: &[u8; 32], id: SessionId, reason: &str) -> Result<Assist> {
    let supporter = supporter(ctx)?;
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_MOST || reason.chars().any(char::is_control) {
        let wanted = format!("say why, in one line of at most {REASON_MOST} characters: the officer reads it");
        return Err(Error::field("reason", "S-114", wanted));
    }
    broker::get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    let session = tx.hold_session(id).await?.ok_or_else(not_found)?;
    if session.state != SessionState::Active {
        return Err(Error::Conflict("S-110", "nobody works in this session now; there is nothing to look at".into()));
    }
    if let Some(other) = tx.hold_assist(id).await? {
        let Some(why) = assist::over(&standing_of(app, &other).await?) else {
            return Err(Error::Conflict("S-111", format!("{} assists in this session already", other.display_name)));
        };
        finish(&mut tx, &Ctx::system(ctx.now), &other, why).await?;
    }
    let consent = session.policy.assist.at(session.place(), session.shows_assists);
    let new = NewAssist { id: AssistId(Uuid::now_v7()), session: id, supporter, sign_in, reason, consent };
    tx.add_assist(&new).await?;
    let made = tx.hold_assist(id).await?.ok_or_else(not_found)?;
    let detail =
        json!({"user": session.username, "desktop": session.desktop_name, "reason": reason, "consent": consent});
    audit(&mut tx, ctx, "assist.ask", &id.to_string(), with_id(&made, detail)).await?;
    if made.state == AssistState::Allowed {
        audit(&mut tx, &Ctx::system(ctx.now), "assist.allow", &id.to_string(), with_id(&made, json!({"by": "policy"})))
            .await?;
    }
    tx.commit().await?;
    counter!("assists_asked_total", "consent" => consent.as_str()).increment(1);
    Ok(made)
}

/// The latest assists of a session the caller may see: its officer finds here who looked.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn list(app: &App, ctx: &Ctx, id: SessionId) -> Result<Vec<Assist>> {
    broker::get(app, ctx, id).await?;
    Ok(app.store.assists_of(id, SHOWN).await?)
}

/// The officer answers. An answer that comes late, twice, or from somebody else changes nothing.
///
/// # Errors
/// [`Error::NotFound`] unless the session is theirs; [`Error::Conflict`] `S-112` if that is not asked, or not
/// any more.
pub async fn answer(
    app: &App,
    ctx: &Ctx,
    id: SessionId,
    which: AssistId,
    question: Question,
    allow: bool,
) -> Result<Assist> {
    let user = officer(ctx)?;
    let mut tx = app.store.begin().await?;
    tx.hold_session(id).await?.filter(|s| s.user_id == user).ok_or_else(not_found)?;
    let open = tx.hold_assist(id).await?.filter(|a| a.id == which && asks(a, question));
    let Some(a) = open else {
        return Err(Error::Conflict("S-112", "this is not asked any more; nothing was changed".into()));
    };
    let action = match (question, allow) {
        (Question::Watch, true) => {
            tx.allow_assist(&a, BEGIN_WITHIN).await?;
            "assist.allow"
        }
        (Question::Watch, false) => {
            finish(&mut tx, ctx, &a, AssistEnd::Refused).await?;
            "assist.refuse"
        }
        (Question::Control, true) => {
            tx.assist_control(&a, Control::Granted, ANSWER_WITHIN).await?;
            "assist.control_grant"
        }
        (Question::Control, false) => {
            tx.assist_control(&a, Control::Refused, ANSWER_WITHIN).await?;
            "assist.control_refuse"
        }
    };
    audit(&mut tx, ctx, action, &id.to_string(), with_id(&a, json!({"supporter": a.username}))).await?;
    tx.commit().await?;
    app.store.assists_of(id, 1).await?.pop().ok_or_else(not_found)
}

fn asks(a: &Assist, question: Question) -> bool {
    match question {
        Question::Watch => a.state == AssistState::Asked && !a.overdue,
        Question::Control => a.state == AssistState::Active && a.control == Control::Asked && !a.control_overdue,
    }
}

/// Who looks asks to type and use the mouse, too.
///
/// # Errors
/// [`Error::Conflict`] `S-113` unless the caller's own assist is under way.
pub async fn ask_control(app: &App, ctx: &Ctx, sign_in: &[u8; 32], id: SessionId) -> Result<Assist> {
    let (mut tx, a) = own(app, ctx, sign_in, id).await?;
    if a.state != AssistState::Active {
        return Err(not_yours());
    }
    let open = a.control == Control::Granted || a.control == Control::Asked && !a.control_overdue;
    if !open {
        let control = a.consent.first_control();
        tx.assist_control(&a, control, ANSWER_WITHIN).await?;
        let detail = with_id(&a, json!({"control": control}));
        audit(&mut tx, ctx, "assist.control_ask", &id.to_string(), detail).await?;
        if control == Control::Granted {
            let detail = with_id(&a, json!({"by": "policy"}));
            audit(&mut tx, &Ctx::system(ctx.now), "assist.control_grant", &id.to_string(), detail).await?;
        }
        tx.commit().await?;
    }
    app.store.assists_of(id, 1).await?.pop().ok_or_else(not_found)
}

/// What opens the second display, once, for the sign-in that asked.
///
/// # Errors
/// [`Error::Conflict`] `S-113` unless the caller's own assist is allowed and not begun.
pub async fn ticket(app: &App, ctx: &Ctx, sign_in: &[u8; 32], id: SessionId) -> Result<Ticket> {
    let (mut tx, a) = own(app, ctx, sign_in, id).await?;
    if a.state != AssistState::Allowed || a.overdue {
        return Err(not_yours());
    }
    let secret = Secret::generate(TICKET_PREFIX);
    tx.put_assist_ticket(&secret.hashed(), a.id, TICKET_LIFE).await?;
    tx.commit().await?;
    let host = app.store.session(id).await?.and_then(|s| s.host_id);
    Ok(Ticket { secret, expires_in: TICKET_LIFE, to: Target { session: id, host, left: None } })
}

/// The live assist of a session, if the caller asked for it with this sign-in.
async fn own(app: &App, ctx: &Ctx, sign_in: &[u8; 32], id: SessionId) -> Result<(Tx, Assist)> {
    let supporter = supporter(ctx)?;
    broker::get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    tx.hold_session(id).await?.ok_or_else(not_found)?;
    let a = tx.hold_assist(id).await?.filter(|a| a.supporter_id == supporter && a.sign_in() == *sign_in);
    Ok((tx, a.ok_or_else(not_yours)?))
}

/// Stops the assist of a session: its officer, who asked for it, or others of support and operators. Stopping
/// what is over does nothing.
///
/// # Errors
/// [`Error::NotFound`] if the session is not there for this caller.
pub async fn end(app: &App, ctx: &Ctx, id: SessionId) -> Result<()> {
    broker::get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    let session = tx.hold_session(id).await?.ok_or_else(not_found)?;
    let Some(a) = tx.hold_assist(id).await? else { return Ok(()) };
    let why = match ctx.caller {
        Caller::User { id, .. } if id == session.user_id => AssistEnd::Officer,
        Caller::User { id, .. } if id == a.supporter_id => AssistEnd::Supporter,
        _ => AssistEnd::Staff,
    };
    finish(&mut tx, ctx, &a, why).await?;
    Ok(tx.commit().await?)
}

/// Ends one, with its audit row and its count.
async fn finish(tx: &mut Tx, ctx: &Ctx, a: &Assist, why: AssistEnd) -> Result<bool> {
    if !tx.end_assist(a, why, ctx.caller.name()).await? {
        return Ok(false);
    }
    let action = if why == AssistEnd::Expired { "assist.expire" } else { "assist.end" };
    let detail = json!({"supporter": a.username, "why": why, "state": a.state, "control": a.control});
    audit(tx, ctx, action, &a.session_id.to_string(), with_id(a, detail)).await?;
    counter!("assists_ended_total", "outcome" => why.as_str()).increment(1);
    Ok(true)
}

/// Redeems what a viewer presented with the sign-in it proved. `None` for whatever is wrong with it.
///
/// # Errors
/// Only those of the store.
pub async fn redeem(app: &App, presented: &str, sign_in: &[u8; 32]) -> Result<Option<Opened>> {
    let mut tx = app.store.begin().await?;
    let opened = tx.redeem_assist_ticket(&ticket_hash(presented), sign_in).await?;
    tx.commit().await?;
    Ok(opened)
}

fn ticket_hash(presented: &str) -> [u8; 32] {
    if secret::has_shape(TICKET_PREFIX, presented) { secret::hash(presented) } else { [0; 32] }
}

/// Why a ticket was refused, for the log; what was one once is audited.
///
/// # Errors
/// Only those of the store.
pub async fn note_refusal(app: &App, presented: &str, ip: &str) -> Result<&'static str> {
    let mut tx = app.store.begin().await?;
    let Some((session, redeemed)) = tx.assist_ticket_fate(&ticket_hash(presented)).await? else {
        return Ok("unknown");
    };
    let reason = if redeemed { "redeemed" } else { "unfit" };
    tx.audit(Entry {
        at: app.clock.now(),
        actor: "",
        role: "",
        action: "assist.ticket_refuse",
        target: &session.to_string(),
        detail: json!({"reason": reason}),
        ip,
        result: "G-101",
    })
    .await?;
    tx.commit().await?;
    Ok(reason)
}

/// A viewer of this assist is through its handshake at this gateway. `false` if it must not look.
///
/// # Errors
/// Only those of the store.
pub async fn began(app: &App, opened: &Opened, gateway: Uuid, ip: &str) -> Result<bool> {
    let mut tx = app.store.begin().await?;
    tx.hold_session(opened.session).await?;
    let Some(a) = tx.hold_assist(opened.session).await?.filter(|a| a.id == opened.assist) else { return Ok(false) };
    let caller = sign_in::caller_of(app, &a.sign_in()).await?.filter(|c| may_look(c, &a));
    let (Some(caller), AssistState::Allowed, true) = (caller, a.state, a.session_live) else { return Ok(false) };
    tx.gateway_alive(gateway).await?;
    tx.begin_assist(&a, gateway, LONGEST).await?;
    let ctx = Ctx { caller, ip: ip.into(), now: app.clock.now() };
    let detail = json!({"reason": a.reason, "until": ctx.now.plus(LONGEST)});
    audit(&mut tx, &ctx, "assist.begin", &a.session_id.to_string(), with_id(&a, detail)).await?;
    tx.commit().await?;
    Ok(true)
}

/// The viewer of an assist went away, or was cut off because it is over.
///
/// # Errors
/// Only those of the store.
pub async fn left(app: &App, opened: &Opened) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.hold_session(opened.session).await?;
    if let Some(a) = tx.hold_assist(opened.session).await?.filter(|a| a.id == opened.assist) {
        let why = assist::over(&standing_of(app, &a).await?).unwrap_or(AssistEnd::Left);
        finish(&mut tx, &Ctx::system(app.clock.now()), &a, why).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Every live assist: whether it must end, and whether its keys and mouse pass.
///
/// # Errors
/// Only those of the store.
pub async fn standings(app: &App) -> Result<Vec<(AssistId, Option<AssistEnd>, bool)>> {
    let mut all = Vec::new();
    for a in app.store.live_assists().await? {
        let over = assist::over(&standing_of(app, &a).await?);
        all.push((a.id, over, a.control == Control::Granted));
    }
    Ok(all)
}

async fn standing_of(app: &App, a: &Assist) -> Result<Standing> {
    let allowed = sign_in::caller_of(app, &a.sign_in()).await?.is_some_and(|c| may_look(&c, a));
    Ok(Standing {
        state: a.state,
        session_live: a.session_live,
        allowed,
        overdue: a.overdue,
        gateway_lives: a.gateway_lives,
    })
}

/// Whether somebody may look at this assist's session today.
fn may_look(caller: &Caller, a: &Assist) -> bool {
    let Caller::User { id, role, scope, .. } = caller else { return false };
    *id == a.supporter_id && *role != Role::Officer && scope.covers(&a.site_code)
}

/// Ends what is over by itself, and forgets old tickets. How many ended.
///
/// # Errors
/// Only those of the store.
pub async fn reap(app: &App) -> Result<usize> {
    let ctx = Ctx::system(app.clock.now());
    let mut changed = 0;
    for seen in app.store.live_assists().await? {
        if assist::over(&standing_of(app, &seen).await?).is_none() {
            continue;
        }
        let mut tx = app.store.begin().await?;
        tx.hold_session(seen.session_id).await?;
        // Looked at again under the lock: its officer may just have answered.
        let Some(a) = tx.hold_assist(seen.session_id).await?.filter(|a| a.id == seen.id) else { continue };
        let Some(why) = assist::over(&standing_of(app, &a).await?) else { continue };
        if finish(&mut tx, &ctx, &a, why).await? {
            tx.commit().await?;
            changed += 1;
        }
    }
    let mut tx = app.store.begin().await?;
    tx.forget_assist_tickets(TICKET_KEPT).await?;
    tx.commit().await?;
    Ok(changed)
}

fn supporter(ctx: &Ctx) -> Result<UserId> {
    ctx.require(&[Role::Support, Role::Operator])?;
    match &ctx.caller {
        Caller::User { id, .. } => Ok(*id),
        _ => Err(Error::Forbidden("A-105", "only a signed-in person can look at a session".into())),
    }
}

fn with_id(a: &Assist, mut detail: Value) -> Value {
    detail["assist"] = json!(a.id);
    detail
}

fn not_yours() -> Error {
    Error::Conflict("S-113", "you have no permission to look at this session now; ask for it anew".into())
}
