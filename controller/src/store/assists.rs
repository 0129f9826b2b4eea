//! Assists and the tickets that open their displays. Every time in these tables is the database's own.

use std::time::Duration;

use tram_wire::ids::{AssistId, DesktopId, SessionId, UserId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, gateways, on_read, on_tx};
use crate::domain::assist::{AssistEnd, AssistState, Consent, Control, Question};
use crate::nudge::Kind;

/// One row, with who asked for it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Assist {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: AssistId,
    /// The session that is looked at.
    #[sqlx(try_from = "Uuid")]
    pub session_id: SessionId,
    /// Who asked for it.
    #[sqlx(try_from = "Uuid")]
    pub supporter_id: UserId,
    /// Their sign-in name.
    pub username: String,
    /// Their name, as the officer sees it.
    pub display_name: String,
    sign_in: Vec<u8>,
    /// Why.
    pub reason: String,
    /// What the officer says first.
    #[sqlx(try_from = "String")]
    pub consent: Consent,
    /// Where it is.
    #[sqlx(try_from = "String")]
    pub state: AssistState,
    /// Whether keys and mouse pass.
    #[sqlx(try_from = "String")]
    pub control: Control,
    /// Times, microseconds.
    pub asked_at: i64,
    /// When the state it is in runs out.
    pub due_at: i64,
    /// When the officer's time to answer for control runs out.
    pub control_due_at: Option<i64>,
    /// When somebody began to look.
    pub began_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Why it ended.
    pub end_reason: Option<String>,
    /// Who ended it.
    pub ended_by: Option<String>,
    /// The state it is in has run out.
    pub overdue: bool,
    /// So has the time to answer for control.
    pub control_overdue: bool,
    /// Microseconds until then; negative afterwards.
    time_left: i64,
    control_left: i64,
    /// The gateway that carries it lives, if one does.
    pub gateway_lives: bool,
    /// Its session is not over.
    pub session_live: bool,
    /// Site of the session.
    pub site_code: String,
}

impl Assist {
    /// Hash of the sign-in it was asked with. One that is damaged is nobody's.
    #[must_use]
    pub fn sign_in(&self) -> [u8; 32] {
        self.sign_in.as_slice().try_into().unwrap_or([0; 32])
    }

    /// Seconds the officer still has to answer, by the database's clock.
    #[must_use]
    pub fn seconds_left(&self, question: Question) -> u32 {
        let micros = if question == Question::Watch { self.time_left } else { self.control_left };
        u32::try_from(micros.max(0) / 1_000_000).unwrap_or(u32::MAX)
    }
}

/// What a new row is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewAssist<'a> {
    /// Id.
    pub id: AssistId,
    /// The session to look at.
    pub session: SessionId,
    /// Who asks.
    pub supporter: UserId,
    /// Hash of their sign-in cookie.
    pub sign_in: &'a [u8; 32],
    /// Why.
    pub reason: &'a str,
    /// What the officer says first.
    pub consent: Consent,
}

/// What a redeemed ticket opens.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Opened {
    /// The assist.
    #[sqlx(try_from = "Uuid")]
    pub assist: AssistId,
    /// Its session.
    #[sqlx(try_from = "Uuid")]
    pub session: SessionId,
    /// The desktop that is shown.
    #[sqlx(try_from = "Uuid")]
    pub desktop: DesktopId,
}

fn select(now: &str) -> String {
    let lives = gateways::lives(now);
    format!(
        "SELECT a.id, a.session_id, a.supporter_id, u.username, u.display_name, a.sign_in, a.reason, a.consent, a.state, a.control, a.asked_at, \
         a.due_at, a.control_due_at, a.began_at, a.ended_at, a.end_reason, a.ended_by, a.due_at <= {now} AS overdue, \
         COALESCE(a.control_due_at <= {now}, FALSE) AS control_overdue, \
         a.due_at - {now} AS time_left, COALESCE(a.control_due_at - {now}, 0) AS control_left, \
         (a.gateway_id IS NULL OR EXISTS (SELECT 1 FROM gateways g WHERE g.id = a.gateway_id AND {lives})) AS gateway_lives, \
         s.state <> 'ended' AS session_live, s.site_code \
         FROM assists a JOIN sessions s ON s.id = a.session_id JOIN users u ON u.id = a.supporter_id"
    )
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

impl Store {
    /// Every assist that is not over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn live_assists(&self) -> Result<Vec<Assist>> {
        let sql = format!("{} WHERE a.state <> 'ended' ORDER BY a.id", select(self.db_now()));
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?)
    }

    /// The latest assists of a session, newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn assists_of(&self, session: SessionId, limit: i64) -> Result<Vec<Assist>> {
        let sql = format!("{} WHERE a.session_id = $1 ORDER BY a.id DESC LIMIT $2", select(self.db_now()));
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(session.0).bind(limit).fetch_all(c))?)
    }
}

impl Tx {
    /// Writes down that somebody asks, or may begin at once.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the session has a live one.
    pub async fn add_assist(&mut self, new: &NewAssist<'_>) -> Result<()> {
        let (state, life) = new.consent.first_state();
        let sql = format!(
            "INSERT INTO assists (id, session_id, supporter_id, sign_in, reason, consent, state, control, asked_at, due_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'none', {0}, {0} + $8)",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(new.id.0).bind(new.session.0).bind(new.supporter.0)
            .bind(&new.sign_in[..]).bind(new.reason).bind(new.consent.as_str()).bind(state.as_str()).bind(micros(life)).execute(c))?;
        self.touch(Kind::Session, new.session.0);
        Ok(())
    }

    /// The session's live assist, held against other writers. The session is held first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn hold_assist(&mut self, session: SessionId) -> Result<Option<Assist>> {
        let lock = if self.is_postgres() { " FOR NO KEY UPDATE OF a" } else { "" };
        let sql = format!("{} WHERE a.session_id = $1 AND a.state <> 'ended'{lock}", select(self.db_now()));
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(session.0).fetch_optional(c))?)
    }

    /// The officer said yes.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn allow_assist(&mut self, a: &Assist, life: Duration) -> Result<()> {
        let sql = format!(
            "UPDATE assists SET state = 'allowed', due_at = {} + $2 WHERE id = $1 AND state = 'asked'",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(a.id.0).bind(micros(life)).execute(c))?;
        self.touch(Kind::Session, a.session_id.0);
        Ok(())
    }

    /// Somebody looks, by this gateway.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn begin_assist(&mut self, a: &Assist, gateway: Uuid, life: Duration) -> Result<()> {
        let sql = format!(
            "UPDATE assists SET state = 'active', gateway_id = $2, began_at = {0}, due_at = {0} + $3 WHERE id = $1 AND state = 'allowed'",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(a.id.0).bind(gateway).bind(micros(life)).execute(c))?;
        self.touch(Kind::Session, a.session_id.0);
        Ok(())
    }

    /// Where control stands; `life`: the officer's time to answer.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn assist_control(&mut self, a: &Assist, control: Control, life: Duration) -> Result<()> {
        let sql = format!(
            "UPDATE assists SET control = $2, control_due_at = CASE WHEN $2 = 'asked' THEN {} + $3 END WHERE id = $1",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(a.id.0).bind(control.as_str()).bind(micros(life)).execute(c))?;
        self.touch(Kind::Session, a.session_id.0);
        Ok(())
    }

    /// Ends an assist and takes back its ticket. `false` if it was over.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn end_assist(&mut self, a: &Assist, why: AssistEnd, by: &str) -> Result<bool> {
        let sql = format!(
            "UPDATE assists SET state = 'ended', ended_at = {}, end_reason = $2, ended_by = $3, gateway_id = NULL, \
             control = CASE WHEN control = 'asked' THEN 'refused' ELSE control END, control_due_at = NULL WHERE id = $1 AND state <> 'ended'",
            self.db_now()
        );
        let rows = exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(a.id.0).bind(why.as_str()).bind(by).execute(c))?;
        if rows == 1 {
            self.revoke_assist_tickets(a.id).await?;
            self.touch(Kind::Session, a.session_id.0);
        }
        Ok(rows == 1)
    }

    async fn revoke_assist_tickets(&mut self, id: AssistId) -> Result<()> {
        let sql = format!(
            "UPDATE assist_tickets SET revoked_at = {} WHERE assist_id = $1 AND redeemed_at IS NULL AND revoked_at IS NULL",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.0).execute(c))?;
        Ok(())
    }

    /// Writes a ticket down; the assist's earlier ones are void.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_assist_ticket(&mut self, hash: &[u8; 32], id: AssistId, life: Duration) -> Result<()> {
        self.revoke_assist_tickets(id).await?;
        let sql = format!(
            "INSERT INTO assist_tickets (hash, assist_id, issued_at, expires_at) VALUES ($1, $2, {0}, {0} + $3)",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&hash[..]).bind(id.0).bind(micros(life)).execute(c))?;
        Ok(())
    }

    /// Redeems a ticket with the sign-in that was proved: this one statement is the whole decision.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn redeem_assist_ticket(&mut self, hash: &[u8; 32], sign_in: &[u8; 32]) -> Result<Option<Opened>> {
        let sql = format!(
            "UPDATE assist_tickets SET redeemed_at = {0} WHERE hash = $1 AND redeemed_at IS NULL AND revoked_at IS NULL AND expires_at > {0} \
             AND EXISTS (SELECT 1 FROM assists a JOIN sessions s ON s.id = a.session_id JOIN users u ON u.id = a.supporter_id \
                 JOIN web_sessions w ON w.token_hash = a.sign_in AND w.user_id = a.supporter_id \
                 WHERE a.id = assist_tickets.assist_id AND a.state = 'allowed' AND a.sign_in = $2 AND s.state <> 'ended' \
                 AND s.desktop_id IS NOT NULL AND NOT u.disabled) \
             RETURNING assist_id AS assist, (SELECT a.session_id FROM assists a WHERE a.id = assist_tickets.assist_id) AS session, \
                 (SELECT s.desktop_id FROM sessions s JOIN assists a ON a.session_id = s.id WHERE a.id = assist_tickets.assist_id) AS desktop",
            self.db_now()
        );
        Ok(
            on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&hash[..]).bind(&sign_in[..]).fetch_optional(c))?,
        )
    }

    /// Whose session a refused ticket was for, if it ever was one, and whether it was redeemed before.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn assist_ticket_fate(&mut self, hash: &[u8; 32]) -> Result<Option<(SessionId, bool)>> {
        let found: Option<(Uuid, bool)> = on_tx!(self, c => sqlx::query_as(
            "SELECT a.session_id, t.redeemed_at IS NOT NULL FROM assist_tickets t JOIN assists a ON a.id = t.assist_id WHERE t.hash = $1")
            .bind(&hash[..]).fetch_optional(c))?;
        Ok(found.map(|(id, redeemed)| (id.into(), redeemed)))
    }

    /// Removes tickets that expired longer than this ago.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_assist_tickets(&mut self, kept: Duration) -> Result<()> {
        let sql = format!("DELETE FROM assist_tickets WHERE expires_at < {} - $1", self.db_now());
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(micros(kept)).execute(c))?;
        Ok(())
    }
}
