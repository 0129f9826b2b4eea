//! People, their sign-ins and what guards them.

use tram_wire::ids::{EndpointId, UserId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::access::Role;
use crate::domain::credential::Language;
use crate::domain::text;
use crate::domain::time::Time;

/// A person who may sign in. The password's hash is not in it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct User {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: UserId,
    /// Unique sign-in name.
    pub username: String,
    /// Name for people.
    pub display_name: String,
    /// What they may do.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// Where they may do it; `None` is everywhere.
    pub site_code: Option<String>,
    /// The language they read.
    #[sqlx(try_from = "String")]
    pub language: Language,
    /// Switched off.
    pub disabled: bool,
    /// Locked out for wrong passwords until then, microseconds.
    pub locked_until: Option<i64>,
    /// Last time the right password was given, microseconds.
    pub last_sign_in_at: Option<i64>,
    /// Microseconds.
    pub created_at: i64,
    /// Microseconds.
    pub updated_at: i64,
}

/// A new or changed person.
#[derive(Clone, Debug)]
pub struct UserRow<'a> {
    /// Id.
    pub id: UserId,
    /// Sign-in name, in its one form.
    pub username: &'a str,
    /// Name for people.
    pub display_name: &'a str,
    /// What they may do.
    pub role: Role,
    /// Where.
    pub site_code: Option<&'a str>,
    /// The language they read.
    pub language: Language,
    /// Switched off.
    pub disabled: bool,
}

impl UserRow<'_> {
    fn search_key(&self) -> String {
        text::search_key(&[self.username, self.display_name])
    }
}

/// What a password is checked against.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Credential {
    /// Whose.
    #[sqlx(try_from = "Uuid")]
    pub id: UserId,
    /// Argon2 hash in PHC form.
    pub password_hash: String,
}

/// The count of wrong passwords of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Guard {
    /// Wrong ones in a row.
    pub failures: i64,
    /// Locked until then, microseconds.
    pub locked_until: Option<i64>,
}

/// A browser's sign-in, with its person.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct WebSession {
    /// Guards changes against foreign pages.
    pub csrf: String,
    /// Microseconds.
    pub last_used_at: i64,
    /// Microseconds.
    pub expires_at: i64,
    /// The endpoint it is bound to; `None` is a browser's.
    pub endpoint_id: Option<Uuid>,
    /// Who.
    #[sqlx(flatten)]
    pub user: User,
}

/// A new sign-in.
#[derive(Clone, Debug)]
pub struct NewWebSession<'a> {
    /// SHA-256 of the cookie.
    pub token_hash: [u8; 32],
    /// Who.
    pub user: UserId,
    /// Guards changes against foreign pages.
    pub csrf: &'a str,
    /// When it ends at the latest.
    pub expires_at: Time,
    /// Where it was opened from.
    pub ip: &'a str,
    /// The endpoint it is bound to; `None` is a browser's.
    pub endpoint: Option<EndpointId>,
}

/// Which people a list wants.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Beginnings of words of the sign-in or display name, in any spelling.
    pub text: String,
    /// Only this role.
    pub role: Option<Role>,
    /// Only after this sign-in name.
    pub after: String,
    /// At most so many.
    pub limit: i64,
}

macro_rules! user_columns {
    () => {
        "u.id, u.username, u.display_name, u.role, u.site_code, u.language, u.disabled, g.locked_until, \
         u.last_sign_in_at, u.created_at, u.updated_at"
    };
}
macro_rules! users_from {
    () => {
        " FROM users u LEFT JOIN sign_in_guards g ON g.name_key = u.username "
    };
}
macro_rules! users_where {
    () => {
        " WHERE u.search_key LIKE $1 AND u.search_key LIKE $2 AND u.search_key LIKE $3 AND u.search_key LIKE $4 \
         AND ($5 = '' OR u.role = $5) "
    };
}

impl Store {
    /// One page of people by sign-in name, and how many match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn users(&self, filter: &UserFilter) -> Result<(Vec<User>, i64)> {
        let [a, b, e, d] = text::patterns::<4>(&filter.text);
        let role = filter.role.map_or("", Role::as_str);
        let rows = on_read!(self, c => sqlx::query_as(concat!("SELECT ", user_columns!(), users_from!(), users_where!(),
            "AND u.username > $6 ORDER BY u.username LIMIT $7"))
            .bind(&a).bind(&b).bind(&e).bind(&d).bind(role).bind(&filter.after).bind(filter.limit).fetch_all(c))?;
        let total = on_read!(self, c => sqlx::query_scalar(concat!("SELECT COUNT(*)", users_from!(), users_where!()))
            .bind(&a).bind(&b).bind(&e).bind(&d).bind(role).fetch_one(c))?;
        Ok((rows, total))
    }

    /// One person.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn user(&self, id: UserId) -> Result<Option<User>> {
        Ok(on_read!(self, c => sqlx::query_as(concat!("SELECT ", user_columns!(), users_from!(), "WHERE u.id = $1"))
            .bind(id.0).fetch_optional(c))?)
    }

    /// The person with a sign-in name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn user_named(&self, username: &str) -> Result<Option<User>> {
        Ok(
            on_read!(self, c => sqlx::query_as(concat!("SELECT ", user_columns!(), users_from!(), "WHERE u.username = $1"))
            .bind(username).fetch_optional(c))?,
        )
    }

    /// What the password of a sign-in name is checked against.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn credential(&self, username: &str) -> Result<Option<Credential>> {
        Ok(on_read!(self, c => sqlx::query_as("SELECT id, password_hash FROM users WHERE username = $1")
            .bind(username).fetch_optional(c))?)
    }

    /// The count of wrong passwords of a name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn guard(&self, name_key: &str) -> Result<Option<Guard>> {
        Ok(on_read!(self, c => sqlx::query_as("SELECT failures, locked_until FROM sign_in_guards WHERE name_key = $1")
            .bind(name_key).fetch_optional(c))?)
    }

    /// When the `nth` latest refused sign-in from an address happened, if it was after `since`.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn nth_refusal(&self, ip: &str, nth: i64, since: Time) -> Result<Option<Time>> {
        let at: Option<i64> = on_read!(self, c => sqlx::query_scalar(
            "SELECT at FROM audit WHERE ip = $1 AND at > $2 AND result <> 'ok' AND action = 'user.sign_in' \
             ORDER BY at DESC LIMIT 1 OFFSET $3")
            .bind(ip).bind(since.micros()).bind(nth - 1).fetch_optional(c))?;
        Ok(at.map(Time::from_micros))
    }

    /// The sign-in behind a cookie, whatever its age and whoever is switched off: the caller judges.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn web_session(&self, token_hash: &[u8; 32]) -> Result<Option<WebSession>> {
        Ok(
            on_read!(self, c => sqlx::query_as(concat!("SELECT w.csrf, w.last_used_at, w.expires_at, w.endpoint_id, ", user_columns!(),
            " FROM web_sessions w JOIN users u ON u.id = w.user_id LEFT JOIN sign_in_guards g ON g.name_key = u.username \
             WHERE w.token_hash = $1"))
            .bind(token_hash.as_slice()).fetch_optional(c))?,
        )
    }
}

impl Tx {
    /// Adds a person.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the sign-in name is taken.
    pub async fn add_user(&mut self, user: &UserRow<'_>, password_hash: &str, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO users (id, username, display_name, role, site_code, language, disabled, search_key, password_hash, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)")
            .bind(user.id.0).bind(user.username).bind(user.display_name).bind(user.role.as_str()).bind(user.site_code)
            .bind(user.language.as_str()).bind(user.disabled).bind(user.search_key()).bind(password_hash).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Writes a person's new particulars. The sign-in name never changes. `false` if there is no such person.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn set_user(&mut self, user: &UserRow<'_>, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE users SET display_name = $2, role = $3, site_code = $4, language = $5, disabled = $6, search_key = $7, updated_at = $8 WHERE id = $1")
            .bind(user.id.0).bind(user.display_name).bind(user.role.as_str()).bind(user.site_code)
            .bind(user.language.as_str()).bind(user.disabled).bind(user.search_key()).bind(now.micros()).execute(c))?;
        Ok(rows == 1)
    }

    /// Sets a person's password hash.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn set_password(&mut self, id: UserId, password_hash: &str, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1")
            .bind(id.0).bind(password_hash).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// The person as this transaction sees it, its row held until the end on PostgreSQL (on SQLite nobody
    /// else writes anyway).
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn user_for_change(&mut self, id: UserId) -> Result<Option<User>> {
        let sql = if self.is_postgres() {
            concat!("SELECT ", user_columns!(), users_from!(), "WHERE u.id = $1 FOR UPDATE OF u")
        } else {
            concat!("SELECT ", user_columns!(), users_from!(), "WHERE u.id = $1")
        };
        Ok(on_tx!(self, c => sqlx::query_as(sql).bind(id.0).fetch_optional(c))?)
    }

    /// Counts a wrong password. The count begins anew once a lock has run out, or when the last wrong one was
    /// before `forget_before`; a lock that still holds is left as it is.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn count_failure(
        &mut self,
        name_key: &str,
        lock_after: i64,
        lock_until: Time,
        forget_before: Time,
        now: Time,
    ) -> Result<Guard> {
        let guard: Guard = on_tx!(self, c => sqlx::query_as(
            "INSERT INTO sign_in_guards (name_key, failures, last_failure_at) VALUES ($1, 1, $2) \
             ON CONFLICT (name_key) DO UPDATE SET last_failure_at = $2, \
               failures = CASE WHEN sign_in_guards.last_failure_at < $3 OR sign_in_guards.locked_until <= $2 THEN 1 \
                               ELSE sign_in_guards.failures + 1 END, \
               locked_until = CASE WHEN sign_in_guards.locked_until > $2 THEN sign_in_guards.locked_until END \
             RETURNING failures, locked_until")
            .bind(name_key).bind(now.micros()).bind(forget_before.micros()).fetch_one(c))?;
        if guard.locked_until.is_some() || guard.failures < lock_after {
            return Ok(guard);
        }
        exec_tx!(self, c => sqlx::query("UPDATE sign_in_guards SET locked_until = $2 WHERE name_key = $1")
            .bind(name_key).bind(lock_until.micros()).execute(c))?;
        Ok(Guard { locked_until: Some(lock_until.micros()), ..guard })
    }

    /// Forgets the wrong passwords of a name, unless it is locked at this time; the lock then.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn clear_failures(&mut self, name_key: &str, now: Time) -> Result<Option<Time>> {
        exec_tx!(self, c => sqlx::query(
            "DELETE FROM sign_in_guards WHERE name_key = $1 AND (locked_until IS NULL OR locked_until <= $2)")
            .bind(name_key).bind(now.micros()).execute(c))?;
        let left: Option<Option<i64>> = on_tx!(self, c => sqlx::query_scalar(
            "SELECT locked_until FROM sign_in_guards WHERE name_key = $1").bind(name_key).fetch_optional(c))?;
        Ok(left.flatten().map(Time::from_micros))
    }

    /// Takes a lock away.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn unlock(&mut self, name_key: &str) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM sign_in_guards WHERE name_key = $1").bind(name_key).execute(c))?;
        Ok(())
    }

    /// Forgets counts and sign-ins that no longer mean anything.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn sweep_sign_ins(&mut self, forget_before: Time, idle_before: Time, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "DELETE FROM sign_in_guards WHERE last_failure_at < $1 AND (locked_until IS NULL OR locked_until <= $2)")
            .bind(forget_before.micros()).bind(now.micros()).execute(c))?;
        exec_tx!(self, c => sqlx::query("DELETE FROM web_sessions WHERE expires_at <= $1 OR last_used_at <= $2")
            .bind(now.micros()).bind(idle_before.micros()).execute(c))?;
        Ok(())
    }

    /// Opens a sign-in.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_web_session(&mut self, s: &NewWebSession<'_>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO web_sessions (token_hash, user_id, csrf, created_at, last_used_at, expires_at, ip, endpoint_id) \
             VALUES ($1, $2, $3, $4, $4, $5, $6, $7)")
            .bind(s.token_hash.as_slice()).bind(s.user.0).bind(s.csrf).bind(now.micros())
            .bind(s.expires_at.micros()).bind(s.ip).bind(s.endpoint.map(|e| e.0)).execute(c))?;
        exec_tx!(self, c => sqlx::query("UPDATE users SET last_sign_in_at = $2 WHERE id = $1")
            .bind(s.user.0).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// A sign-in of the browser that had the former one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn follow_web_session(&mut self, token_hash: &[u8; 32], former: &[u8; 32]) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE web_sessions SET browser = COALESCE((SELECT f.browser FROM web_sessions f WHERE f.token_hash = $2), $2) \
             WHERE token_hash = $1")
            .bind(token_hash.as_slice()).bind(former.as_slice()).execute(c))?;
        Ok(())
    }

    /// Notes that a sign-in is in use.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn touch_web_session(&mut self, token_hash: &[u8; 32], now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE web_sessions SET last_used_at = $2 WHERE token_hash = $1")
            .bind(token_hash.as_slice()).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Ends one sign-in. `false` if there is none.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn end_web_session(&mut self, token_hash: &[u8; 32]) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query("DELETE FROM web_sessions WHERE token_hash = $1")
            .bind(token_hash.as_slice()).execute(c))?;
        Ok(rows == 1)
    }

    /// Ends all sign-ins of a person but perhaps one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn end_web_sessions(&mut self, user: UserId, except: Option<&[u8; 32]>) -> Result<u64> {
        let keep = except.map_or(&[][..], |hash| hash.as_slice());
        Ok(exec_tx!(self, c => sqlx::query("DELETE FROM web_sessions WHERE user_id = $1 AND token_hash <> $2")
            .bind(user.0).bind(keep).execute(c))?)
    }
}
