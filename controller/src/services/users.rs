//! Accounts: making, changing, switching off.

use serde_json::json;
use tram_wire::ids::UserId;
use uuid::Uuid;

use super::sign_in::{Person, Visit, person};
use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::{Caller, Role};
use crate::domain::credential::{self, Language};
use crate::domain::day::Day;
use crate::domain::site::{Level, SiteRef};
use crate::domain::text;
use crate::identity::secret::Secret;
use crate::store::StoreError;
use crate::store::leases::LeasesOf;
use crate::store::users::{User, UserFilter, UserRow};

/// Longest name for people, in characters.
const DISPLAY_NAME_MAX: usize = 100;

/// A new account.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Sign-in name.
    pub username: String,
    /// Name for people.
    pub display_name: String,
    /// What they may do.
    pub role: Role,
    /// Where; `None` is everywhere.
    pub site_code: Option<String>,
    /// The language they read.
    pub language: Language,
    /// First password.
    pub password: Secret,
}

/// What changes of an account; `None` leaves it.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Name for people.
    pub display_name: Option<String>,
    /// What they may do.
    pub role: Option<Role>,
    /// Where; `Some(None)` is everywhere.
    pub site_code: Option<Option<String>>,
    /// The language they read.
    pub language: Option<Language>,
    /// Switched off or on. Off ends every sign-in at once.
    pub disabled: Option<bool>,
    /// Takes the lock of wrong passwords away.
    pub unlock: bool,
    /// New password. Ends every other sign-in at once.
    pub password: Option<Secret>,
}

/// A page of accounts with their sites, and how many match in all.
///
/// # Errors
/// [`Error::Forbidden`].
pub async fn list(app: &App, ctx: &Ctx, filter: &UserFilter) -> Result<(Vec<Person>, i64)> {
    ctx.require(&[Role::Operator])?;
    let (users, total) = app.store.users(filter).await?;
    let refs = app.store.site_refs(Day::of(ctx.now)).await?;
    let site =
        |u: &User| u.site_code.as_ref().map(|code| refs.get(code).cloned().unwrap_or_else(|| unknown_site(code)));
    Ok((users.into_iter().map(|user| Person { site: site(&user), user }).collect(), total))
}

fn unknown_site(code: &str) -> SiteRef {
    SiteRef { code: code.into(), name: code.into(), district: None }
}

/// Makes an account.
///
/// # Errors
/// [`Error::Invalid`] with every fault; [`Error::Conflict`] U-109 if the sign-in name is taken.
pub async fn create(app: &App, ctx: &Ctx, new: &NewUser) -> Result<Person> {
    ctx.require(&[Role::Operator])?;
    let username = credential::username(&new.username);
    let display_name = text::tidy(&new.display_name);
    let password = Secret::from_text(credential::password(new.password.reveal()));
    let mut faults = Vec::new();
    note(&mut faults, "username", "U-101", credential::check_username(&username));
    note(&mut faults, "display_name", "U-102", check_display_name(&new.display_name));
    note(&mut faults, "password", "U-103", credential::check_password(password.reveal(), &username));
    let site = check_site(app, ctx, new.role, new.site_code.as_deref()).await?;
    note(&mut faults, "site_code", "U-104", site);
    refuse_if_any(faults)?;
    let hash = app.passwords.hash(&password).await?;
    let row = UserRow {
        id: UserId(Uuid::now_v7()),
        username: &username,
        display_name: &display_name,
        role: new.role,
        site_code: new.site_code.as_deref(),
        language: new.language,
        disabled: false,
    };
    let mut tx = app.store.begin().await?;
    tx.add_user(&row, &hash, ctx.now).await.map_err(|e| match e {
        StoreError::Duplicate(_) => Error::Conflict("U-109", format!("there is an account `{username}` already")),
        other => other.into(),
    })?;
    // Guesses made at the name before it existed are not its owner's.
    tx.unlock(&username).await?;
    audit(&mut tx, ctx, "user.create", &username, json!({"role": new.role, "site": new.site_code})).await?;
    tx.commit().await?;
    get(app, ctx, row.id).await
}

/// Changes an account.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`]; [`Error::Conflict`] U-105 for what would shut the caller out.
pub async fn change(app: &App, ctx: &Ctx, id: UserId, change: &UserChange) -> Result<Person> {
    ctx.require(&[Role::Operator])?;
    let old = app.store.user(id).await?.ok_or_else(not_found)?;
    let row = changed(&old, change);
    let mut faults = Vec::new();
    if let Some(name) = &change.display_name {
        note(&mut faults, "display_name", "U-102", check_display_name(name));
    }
    if change.role.is_some() || change.site_code.is_some() {
        let site = check_site(app, ctx, row.role, row.site_code.as_deref()).await?;
        note(&mut faults, "site_code", "U-104", site);
    }
    let password = change.password.as_ref().map(|p| Secret::from_text(credential::password(p.reveal())));
    if let Some(password) = &password {
        note(&mut faults, "password", "U-103", credential::check_password(password.reveal(), &old.username));
    }
    refuse_if_any(faults)?;
    let own = matches!(&ctx.caller, Caller::User { id: caller, .. } if *caller == id);
    if own && (row.disabled || row.role != old.role) {
        return Err(Error::Conflict("U-105", "you can't switch off your own account or change its role".into()));
    }
    let hash = match &password {
        Some(password) => Some(app.passwords.hash(password).await?),
        None => None,
    };
    write(app, ctx, id, change, hash.as_deref()).await?;
    get(app, ctx, id).await
}

/// The account as the change leaves it.
fn changed(old: &User, change: &UserChange) -> User {
    User {
        display_name: change.display_name.as_deref().map_or_else(|| old.display_name.clone(), text::tidy),
        role: change.role.unwrap_or(old.role),
        site_code: change.site_code.clone().unwrap_or_else(|| old.site_code.clone()),
        language: change.language.unwrap_or(old.language),
        disabled: change.disabled.unwrap_or(old.disabled),
        ..old.clone()
    }
}

async fn write(app: &App, ctx: &Ctx, id: UserId, change: &UserChange, hash: Option<&str>) -> Result<()> {
    let mut tx = app.store.begin().await?;
    // Read again under the transaction: two operators may change different things of one account.
    let old = tx.user_for_change(id).await?.ok_or_else(not_found)?;
    let new = changed(&old, change);
    let row = UserRow {
        id,
        username: &new.username,
        display_name: &new.display_name,
        role: new.role,
        site_code: new.site_code.as_deref(),
        language: new.language,
        disabled: new.disabled,
    };
    tx.set_user(&row, ctx.now).await?;
    if let Some(hash) = hash {
        tx.set_password(id, hash, ctx.now).await?;
    }
    if hash.is_some() || new.disabled {
        tx.end_web_sessions(id, None).await?;
        tx.revoke_leases(LeasesOf::User(id), if new.disabled { "disabled" } else { "password" }).await?;
    }
    if change.unlock || hash.is_some() {
        tx.unlock(&new.username).await?;
    }
    let detail = json!({
        "display_name": change.display_name,
        "role": change.role,
        "site": change.site_code.as_ref().map(|code| code.as_deref().unwrap_or("(all)")),
        "language": change.language,
        "disabled": change.disabled,
        "unlock": change.unlock.then_some(true),
        "password": hash.map(|_| "changed"),
    });
    audit(&mut tx, ctx, "user.change", &new.username, only_set(detail)).await?;
    Ok(tx.commit().await?)
}

/// What somebody may change of their own account, whatever their role: the language, and the password if
/// they know the present one. Other browsers are signed out by a new password.
///
/// # Errors
/// [`Error::Invalid`] U-106 if the present password is wrong, U-103 if the new one is weak.
pub async fn change_own(
    app: &App,
    visit: &Visit,
    language: Option<Language>,
    password: Option<(&Secret, &Secret)>,
) -> Result<Person> {
    let (ctx, user) = (&visit.ctx, &visit.user);
    let hash = match password {
        Some((present, new)) => Some(checked_own_password(app, user, present, new).await?),
        None => None,
    };
    let mut tx = app.store.begin().await?;
    let old = tx.user_for_change(user.id).await?.ok_or_else(not_found)?;
    let row = UserRow {
        id: old.id,
        username: &old.username,
        display_name: &old.display_name,
        role: old.role,
        site_code: old.site_code.as_deref(),
        language: language.unwrap_or(old.language),
        disabled: old.disabled,
    };
    tx.set_user(&row, ctx.now).await?;
    if let Some(hash) = &hash {
        tx.set_password(user.id, hash, ctx.now).await?;
        tx.end_web_sessions(user.id, Some(&visit.token_hash)).await?;
        tx.revoke_leases(LeasesOf::User(user.id), "password").await?;
    }
    let detail = json!({"language": language, "password": hash.as_ref().map(|_| "changed")});
    audit(&mut tx, ctx, "user.change_own", &user.username, only_set(detail)).await?;
    tx.commit().await?;
    let user = app.store.user(user.id).await?.ok_or_else(not_found)?;
    person(app, user, ctx.now).await
}

async fn checked_own_password(app: &App, user: &User, present: &Secret, new: &Secret) -> Result<String> {
    let new = Secret::from_text(credential::password(new.reveal()));
    credential::check_password(new.reveal(), &user.username).map_err(|m| Error::field("new_password", "U-103", m))?;
    let stored = app.store.credential(&user.username).await?.map(|c| c.password_hash);
    let present = Secret::from_text(credential::password(present.reveal()));
    if !app.passwords.verify(stored.as_deref(), &present).await? {
        return Err(Error::field("password", "U-106", "the present password is wrong"));
    }
    Ok(app.passwords.hash(&new).await?)
}

/// The account with a sign-in name, for the command line.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn named(app: &App, ctx: &Ctx, username: &str) -> Result<User> {
    ctx.require(&[Role::Operator])?;
    app.store.user_named(&credential::username(username)).await?.ok_or_else(not_found)
}

async fn get(app: &App, ctx: &Ctx, id: UserId) -> Result<Person> {
    let user = app.store.user(id).await?.ok_or_else(not_found)?;
    person(app, user, ctx.now).await
}

/// Where somebody with this role may work.
async fn check_site(app: &App, ctx: &Ctx, role: Role, site_code: Option<&str>) -> Result<Result<(), String>> {
    let Some(code) = site_code else {
        return Ok(match role {
            Role::Officer => Err("an officer works in one commune: give its code".into()),
            Role::Operator | Role::Support => Ok(()),
        });
    };
    if role == Role::Operator {
        return Ok(Err("an operator works for all sites; leave the site out".into()));
    }
    let site = app.store.site(code, Day::of(ctx.now)).await?;
    Ok(match site {
        None => Err(format!("there is no site with the code `{}` today", code.escape_debug())),
        Some(s) if role == Role::Officer && s.level != Level::Commune => Err(format!("{} is not a commune", s.name)),
        Some(_) => Ok(()),
    })
}

fn check_display_name(name: &str) -> Result<(), String> {
    text::fault(name, DISPLAY_NAME_MAX).map_or(Ok(()), |fault| Err(format!("the name {fault}")))
}

fn note(faults: &mut Vec<Fault>, at: &str, code: &'static str, checked: Result<(), String>) {
    if let Err(message) = checked {
        faults.push(Fault { at: at.into(), code, message });
    }
}

fn refuse_if_any(faults: Vec<Fault>) -> Result<()> {
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::Invalid(one.code, one.message.clone(), faults)),
        [_, ..] => Err(Error::Invalid("U-100", "several fields of the account are wrong".into(), faults)),
    }
}

/// The audit shows what was asked, not what was left alone.
fn only_set(mut detail: serde_json::Value) -> serde_json::Value {
    if let Some(map) = detail.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
    detail
}

fn not_found() -> Error {
    Error::NotFound("U-404", "there is no such account".into())
}
