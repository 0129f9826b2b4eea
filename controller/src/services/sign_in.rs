//! Signing in and out, and who a cookie belongs to.
//!
//! Whether a name exists is nobody's business: an unknown one costs the same time, is counted and locked
//! like a known one, and gets the same answers.

use serde_json::json;
use tram_wire::ids::{EndpointId, UserId};

use super::{App, Ctx, Error, Result};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::credential::{self, BRAKE_AFTER, BRAKE_WINDOW, FORGET_AFTER, LOCK_AFTER, LOCK_FOR};
use crate::domain::credential::{SESSION_IDLE, SESSION_MAX, SESSION_TOUCH};
use crate::domain::day::Day;
use crate::domain::site::SiteRef;
use crate::domain::time::Time;
use crate::identity::password::PasswordError;
use crate::identity::secret::{self, Secret};
use crate::store::audit::Entry;
use crate::store::users::{NewWebSession, User, WebSession};

/// What a session cookie begins with.
pub const COOKIE_PREFIX: &str = "tws1_";

/// What the token of a sign-in at an endpoint begins with.
pub const DESK_PREFIX: &str = "tds1_";

/// Where somebody signs in, or comes back to.
#[derive(Clone, Copy, Debug)]
pub struct Door<'a> {
    /// Address of the request.
    pub ip: &'a str,
    /// The endpoint that was proved; `None` for a browser.
    pub endpoint: Option<EndpointId>,
}

impl<'a> Door<'a> {
    /// A browser.
    #[must_use]
    pub fn browser(ip: &'a str) -> Self {
        Self { ip, endpoint: None }
    }

    /// So that a token of one kind of door can't even be looked up at the other.
    fn prefix(self) -> &'static str {
        if self.endpoint.is_some() { DESK_PREFIX } else { COOKIE_PREFIX }
    }
}

/// A sign-in just opened.
#[derive(Debug)]
pub struct Opened {
    /// For the cookie.
    pub token: Secret,
    /// For the `x-tram-csrf` header.
    pub csrf: String,
    /// Who.
    pub person: Person,
}

/// A signed-in person as the console shows them.
#[derive(Clone, Debug)]
pub struct Person {
    /// The account.
    pub user: User,
    /// Their site.
    pub site: Option<SiteRef>,
}

/// Somebody who came with a good cookie.
#[derive(Clone, Debug)]
pub struct Visit {
    /// For services.
    pub ctx: Ctx,
    /// The account.
    pub user: User,
    /// What changes must carry in `x-tram-csrf`.
    pub csrf: String,
    /// Which sign-in it is.
    pub token_hash: [u8; 32],
}

/// Signs somebody in at a browser.
///
/// # Errors
/// As [`sign_in_at`].
pub async fn sign_in(app: &App, ip: &str, typed_name: &str, password: &Secret) -> Result<Opened> {
    sign_in_at(app, Door::browser(ip), typed_name, password).await
}

/// Signs somebody in. Wrong passwords count the same wherever they were typed.
///
/// # Errors
/// [`Error::WrongPassword`] A-101; [`Error::Unauthenticated`] A-109 (right, but switched off); [`Error::Locked`] A-102 (account) or
/// A-104 (address); [`Error::Forbidden`] A-110 (an endpoint is for officers); [`Error::Unavailable`] A-103 (too many at once).
pub async fn sign_in_at(app: &App, door: Door<'_>, typed_name: &str, password: &Secret) -> Result<Opened> {
    let outcome = attempt(app, door, typed_name, password).await;
    let result = outcome.as_ref().map_or_else(Error::code, |_| "ok");
    metrics::counter!("signins_total", "result" => result).increment(1);
    outcome
}

async fn attempt(app: &App, door: Door<'_>, typed_name: &str, password: &Secret) -> Result<Opened> {
    let now = app.clock.now();
    if let Some(until) = braked(app, door.ip, now).await? {
        return Err(Error::Locked(
            "A-104",
            "too many failed sign-ins from this address; wait a few minutes".into(),
            until,
        ));
    }
    let name = Name::typed(typed_name);
    let locked = app.store.guard(&name.key).await?.and_then(|g| g.locked_until).map(Time::from_micros);
    if let Some(until) = locked.filter(|until| *until > now) {
        refuse(app, door, &name, "A-102", now).await?;
        return Err(locked_out(until));
    }
    let known = app.store.credential(&name.text).await?;
    let password = Secret::from_text(bounded(&credential::password(password.reveal())));
    let right = app.passwords.verify(known.as_ref().map(|k| k.password_hash.as_str()), &password).await?;
    match known {
        Some(known) if right => open(app, door, &name, known.id, now).await,
        _ => Err(count_wrong(app, door, &name, now).await?),
    }
}

/// A sign-in name as typed.
struct Name {
    /// In its one form.
    text: String,
    /// What wrong passwords are counted by.
    key: String,
    /// What the audit may show: people type passwords into this field, so only names that could exist.
    shown: String,
}

impl Name {
    fn typed(typed: &str) -> Self {
        let text = credential::username(typed);
        let possible = credential::check_username(&text).is_ok();
        // Names nobody can have share one count each by hash: the table must not keep what was typed.
        let key = if possible { text.clone() } else { secret::fingerprint(&text) };
        let shown = if possible { text.clone() } else { "(not a sign-in name)".into() };
        Self { text, key, shown }
    }
}

/// No stored password is longer, so nothing longer can be right.
fn bounded(password: &str) -> &str {
    if password.len() > credential::PASSWORD_MAX { "" } else { password }
}

/// Until when an address must wait, if it must.
async fn braked(app: &App, ip: &str, now: Time) -> Result<Option<Time>> {
    if ip.is_empty() {
        return Ok(None);
    }
    let nth = app.store.nth_refusal(ip, BRAKE_AFTER, now.minus(BRAKE_WINDOW)).await?;
    Ok(nth.map(|at| at.plus(BRAKE_WINDOW)))
}

async fn refuse(app: &App, door: Door<'_>, name: &Name, code: &'static str, now: Time) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.audit(entry(door, name, code, now)).await?;
    Ok(tx.commit().await?)
}

fn entry<'a>(door: Door<'a>, name: &'a Name, result: &'a str, at: Time) -> Entry<'a> {
    Entry {
        at,
        actor: &name.shown,
        role: "",
        action: "user.sign_in",
        target: &name.shown,
        detail: door.endpoint.map_or_else(|| json!({}), |id| json!({"endpoint": id})),
        ip: door.ip,
        result,
    }
}

/// Writes down a wrong password; what to answer.
async fn count_wrong(app: &App, door: Door<'_>, name: &Name, now: Time) -> Result<Error> {
    let mut tx = app.store.begin().await?;
    let guard = tx.count_failure(&name.key, LOCK_AFTER, now.plus(LOCK_FOR), now.minus(FORGET_AFTER), now).await?;
    let answer = match guard.locked_until {
        Some(until) => locked_out(Time::from_micros(until)),
        None => Error::WrongPassword { remaining: LOCK_AFTER - guard.failures },
    };
    tx.audit(entry(door, name, answer.code(), now)).await?;
    tx.commit().await?;
    Ok(answer)
}

fn locked_out(until: Time) -> Error {
    Error::Locked("A-102", "the account is locked for a while after several wrong passwords".into(), until)
}

/// The password was right: opens the sign-in unless something else forbids it.
async fn open(app: &App, door: Door<'_>, name: &Name, id: UserId, now: Time) -> Result<Opened> {
    let token = Secret::generate(door.prefix());
    let csrf = Secret::generate("").reveal().to_owned();
    let mut tx = app.store.begin().await?;
    // Asked again inside the transaction: guesses that ran side by side may have locked it meanwhile, and a
    // lock that many guesses can race past is none.
    let locked = tx.clear_failures(&name.key, now).await?;
    let user = tx.user_for_change(id).await?;
    let admitted = match (user, locked) {
        (_, Some(until)) => Err(locked_out(until)),
        // Removed between the two looks.
        (None, None) => Err(Error::WrongPassword { remaining: LOCK_AFTER - 1 }),
        (Some(u), None) if u.disabled => {
            Err(Error::Unauthenticated("A-109", "this account is switched off; ask the operator".into()))
        }
        (Some(u), None) if door.endpoint.is_some() && u.role != Role::Officer => Err(Error::Forbidden(
            "A-110",
            "this computer is for officers' desktops; use the web console in a browser".into(),
        )),
        (Some(u), None) => Ok(u),
    };
    let user = match admitted {
        Ok(user) => user,
        Err(refusal) => {
            tx.audit(entry(door, name, refusal.code(), now)).await?;
            tx.commit().await?;
            return Err(refusal);
        }
    };
    tx.sweep_sign_ins(now.minus(FORGET_AFTER), now.minus(SESSION_IDLE), now).await?;
    let expires_at = now.plus(SESSION_MAX);
    let new = NewWebSession {
        token_hash: token.hashed(),
        user: user.id,
        csrf: &csrf,
        expires_at,
        ip: door.ip,
        endpoint: door.endpoint,
    };
    tx.open_web_session(&new, now).await?;
    tx.audit(Entry { role: user.role.as_str(), ..entry(door, name, "ok", now) }).await?;
    tx.commit().await?;
    Ok(Opened { token, csrf, person: person(app, user, now).await? })
}

/// A browser signs in that had another sign-in before: it stays the same browser, so that its own session does
/// not look open elsewhere. `former` is the cookie it still had, good or not.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn same_browser(app: &App, token: &Secret, former: &str) -> Result<()> {
    if !secret::has_shape(COOKIE_PREFIX, former) {
        return Ok(());
    }
    let mut tx = app.store.begin().await?;
    tx.follow_web_session(&token.hashed(), &secret::hash(former)).await?;
    Ok(tx.commit().await?)
}

/// Who a cookie belongs to, if it is still good.
///
/// # Errors
/// [`Error::Unauthenticated`] A-100 for whatever reason it is not.
pub async fn visit(app: &App, ip: &str, token: &str) -> Result<Visit> {
    visit_at(app, Door::browser(ip), token).await
}

/// Who came with a token: a browser's cookie, or what an endpoint got when its officer signed in. It is good
/// at the door it was made for, nowhere else.
///
/// # Errors
/// [`Error::Unauthenticated`] A-100 for whatever reason it is not.
pub async fn visit_at(app: &App, door: Door<'_>, token: &str) -> Result<Visit> {
    if !secret::has_shape(door.prefix(), token) {
        return Err(not_signed_in());
    }
    let (visit, last_used) = look_up(app, door, &secret::hash(token)).await?;
    if visit.ctx.now.since(last_used) >= SESSION_TOUCH {
        let mut tx = app.store.begin().await?;
        tx.touch_web_session(&visit.token_hash, visit.ctx.now).await?;
        tx.commit().await?;
    }
    Ok(visit)
}

/// Looks again at a browser's sign-in that was good, for what stays open for long. This does not count as use:
/// a page left open is not a person.
///
/// # Errors
/// [`Error::Unauthenticated`] A-100 when it has ended, or the account was switched off.
pub async fn still(app: &App, visit: &Visit) -> Result<Visit> {
    Ok(look_up(app, Door::browser(&visit.ctx.ip), &visit.token_hash).await?.0)
}

/// Who a browser's sign-in stands for now: with the role and the sites of today, not of when it began. `None`
/// once it is over.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn caller_of(app: &App, token_hash: &[u8; 32]) -> Result<Option<Caller>> {
    match look_up(app, Door::browser(""), token_hash).await {
        Ok((visit, _)) => Ok(Some(visit.ctx.caller)),
        Err(Error::Unauthenticated(..)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A sign-in that is good at this door, and when it was last used.
async fn look_up(app: &App, door: Door<'_>, token_hash: &[u8; 32]) -> Result<(Visit, Time)> {
    let now = app.clock.now();
    let session = app.store.web_session(token_hash).await?.filter(|s| good(s, door, now)).ok_or_else(not_signed_in)?;
    let user = session.user;
    let caller = Caller::User {
        id: user.id,
        username: user.username.clone(),
        role: user.role,
        scope: scope(app, user.role, user.site_code.as_deref(), now).await?,
    };
    let ctx = Ctx { caller, ip: door.ip.to_owned(), now };
    let visit = Visit { ctx, user, csrf: session.csrf, token_hash: *token_hash };
    Ok((visit, Time::from_micros(session.last_used_at)))
}

fn good(s: &WebSession, door: Door<'_>, now: Time) -> bool {
    !s.user.disabled
        && s.endpoint_id == door.endpoint.map(|e| e.0)
        && Time::from_micros(s.expires_at) > now
        && Time::from_micros(s.last_used_at).plus(SESSION_IDLE) > now
}

fn not_signed_in() -> Error {
    Error::Unauthenticated("A-100", "you are not signed in, or were away too long; sign in again".into())
}

/// The sites somebody works for. A site that is no longer valid leaves them nothing rather than everything.
async fn scope(app: &App, role: Role, site_code: Option<&str>, now: Time) -> Result<Scope> {
    match (role, site_code) {
        (Role::Operator, _) | (_, None) => Ok(Scope::All),
        (_, Some(code)) => Ok(Scope::Sites(app.store.site_codes_below(code, Day::of(now)).await?)),
    }
}

/// The account with its site, for `/me`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn person(app: &App, user: User, now: Time) -> Result<Person> {
    let site = match &user.site_code {
        Some(code) => app.store.site_ref(code, Day::of(now)).await?,
        None => None,
    };
    Ok(Person { user, site })
}

/// Signs out this browser.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn sign_out(app: &App, visit: &Visit) -> Result<()> {
    let mut tx = app.store.begin().await?;
    if tx.end_web_session(&visit.token_hash).await? {
        super::audit(&mut tx, &visit.ctx, "user.sign_out", &visit.user.username, json!({})).await?;
        // Nobody is kept a place for who went home.
        tx.leave_line(visit.user.id, visit.ctx.now).await?;
    }
    Ok(tx.commit().await?)
}

impl From<PasswordError> for Error {
    fn from(e: PasswordError) -> Self {
        match e {
            PasswordError::Busy => {
                Self::Unavailable("A-103", "too many people sign in at this moment; try again in a few seconds".into())
            }
            PasswordError::Broken(_) => Self::Internal(Box::new(e)),
        }
    }
}
