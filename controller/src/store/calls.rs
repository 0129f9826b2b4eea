//! Calls of officers for support, and what happened to them.

use std::time::Duration;

use serde_json::Value;
use sqlx::types::Json;
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::call::CallState;
use crate::domain::incident::Party;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row, with the computer it came from.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Call {
    /// Id.
    pub id: Uuid,
    /// The computer.
    #[sqlx(try_from = "Uuid")]
    pub endpoint_id: EndpointId,
    /// What it calls itself.
    pub endpoint_name: String,
    /// Its own id of the call; `None`: not arrived yet.
    pub desk_id: Option<Uuid>,
    /// Its calls are counted.
    pub number: i64,
    /// What the officer reads out.
    pub code: String,
    /// Where the computer stood then.
    pub site_code: String,
    /// How far it is.
    #[sqlx(try_from = "String")]
    pub state: CallState,
    /// The session the officer was in.
    pub session_id: Option<Uuid>,
    /// How the computer was.
    #[sqlx(json(nullable))]
    pub snapshot: Option<Value>,
    /// When it was made, by the computer's clock; microseconds.
    pub made_at: Option<i64>,
    /// When it came.
    pub arrived_at: Option<i64>,
    /// When support knew of it.
    pub opened_at: i64,
    /// When its row last changed.
    pub changed_at: i64,
    /// Who looks after it, by sign-in name.
    pub taken_by: Option<String>,
    /// Their name, as the officer sees it.
    pub taken_name: Option<String>,
    /// Who has to act.
    pub party: Option<String>,
    /// Until when they should answer.
    pub answer_by: Option<i64>,
    /// When it was over.
    pub over_at: Option<i64>,
    /// The incident it belongs to.
    pub incident_id: Option<Uuid>,
}

/// Something that happened to a call.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Event {
    /// When, microseconds.
    pub at: i64,
    /// What: `arrived`, `expected`, `taken`, `handed_over`, `solved`, `closed`, `attached`, `detached`, `note`.
    pub kind: String,
    /// Who, by sign-in name; `desk` for the officer, `system` for the rules.
    pub actor: String,
    /// The particulars.
    pub detail: Json<Value>,
}

/// A call that support learns of.
#[derive(Clone, Debug)]
pub struct NewCall<'a> {
    /// Id.
    pub id: Uuid,
    /// The computer.
    pub endpoint: EndpointId,
    /// Its own id of it.
    pub desk_id: Option<Uuid>,
    /// Its number.
    pub number: u32,
    /// What is read out.
    pub code: &'a str,
    /// Where the computer stands.
    pub site_code: &'a str,
    /// The incident it belongs to.
    pub incident: Option<IncidentId>,
}

/// What comes with a call that arrives.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The computer's own id of it.
    pub desk_id: Uuid,
    /// The session the officer was in.
    pub session: Option<Uuid>,
    /// How the computer was.
    pub snapshot: Option<Value>,
    /// When it was made, by the computer's clock.
    pub made_at: Time,
}

/// Which calls to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of these sites.
    pub sites: Option<Vec<String>>,
    /// Only of this site.
    pub site: Option<String>,
    /// Only of this computer.
    pub endpoint: Option<EndpointId>,
    /// Only of this incident.
    pub incident: Option<IncidentId>,
    /// Only with this code.
    pub code: Option<String>,
    /// Only those that are over, or not.
    pub over: Option<bool>,
    /// Only after this one in the list (the cursor).
    pub after: Option<Uuid>,
    /// At most so many.
    pub limit: i64,
}

/// What is changed of a call.
#[derive(Clone, Debug)]
pub struct Move<'a> {
    /// From this state; another one means that somebody was faster.
    pub from: CallState,
    /// To this one.
    pub to: CallState,
    /// Who looks after it: sign-in name and name.
    pub by: Option<(&'a str, &'a str)>,
    /// Who has to act, and until when.
    pub party: Option<(Party, Time)>,
}

const COLUMNS: &str = "c.id, c.endpoint_id, e.name AS endpoint_name, c.desk_id, c.number, c.code, c.site_code, c.state, \
    c.session_id, c.snapshot, c.made_at, c.arrived_at, c.opened_at, c.changed_at, c.taken_by, c.taken_name, c.party, \
    c.answer_by, c.over_at, c.incident_id";
const FROM: &str = "FROM support_calls c JOIN endpoints e ON e.id = c.endpoint_id";
/// Binds: 1 sites in scope as `,a,b,`, 2 site, 3 endpoint, 4 incident, 5 code, 6 over.
const WHERE: &str = "($1 IS NULL OR $1 LIKE '%,' || c.site_code || ',%') AND ($2 IS NULL OR c.site_code = $2) \
    AND ($3 IS NULL OR c.endpoint_id = $3) AND ($4 IS NULL OR c.incident_id = $4) AND ($5 IS NULL OR c.code = $5) \
    AND ($6 IS NULL OR (c.over_at IS NOT NULL) = $6)";

impl Store {
    /// Calls, the newest first; and how many match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn calls(&self, f: &Filter) -> Result<(Vec<Call>, i64)> {
        let sites = f.sites.as_ref().map(|codes| format!(",{},", codes.join(",")));
        let (endpoint, incident) = (f.endpoint.map(|e| e.0), f.incident.map(|i| i.0));
        let count = format!("SELECT COUNT(*) {FROM} WHERE {WHERE}");
        let total: i64 = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(count.clone()))
            .bind(&sites).bind(&f.site).bind(endpoint).bind(incident).bind(&f.code).bind(f.over).fetch_one(c))?;
        let list = format!(
            "SELECT {COLUMNS} {FROM} WHERE {WHERE} AND ($7 IS NULL OR (-c.opened_at, c.id) > \
             (SELECT -a.opened_at, a.id FROM support_calls a WHERE a.id = $7)) ORDER BY c.opened_at DESC, c.id LIMIT $8"
        );
        let rows = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(list.clone()))
            .bind(&sites).bind(&f.site).bind(endpoint).bind(incident).bind(&f.code).bind(f.over).bind(f.after)
            .bind(f.limit).fetch_all(c))?;
        Ok((rows, total))
    }

    /// One call.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn call(&self, id: Uuid) -> Result<Option<Call>> {
        let sql = format!("SELECT {COLUMNS} {FROM} WHERE c.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id).fetch_optional(c))?)
    }

    /// What happened to a call, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn call_events(&self, id: Uuid) -> Result<Vec<Event>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT at, kind, actor, detail FROM support_call_events WHERE call_id = $1 ORDER BY id LIMIT 1000")
            .bind(id).fetch_all(c))?)
    }

    /// The computers that may call, each with its site and the number of its last call.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn callers(&self) -> Result<Vec<(Uuid, String, i64)>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT e.id, e.site_code, COALESCE((SELECT MAX(c.number) FROM support_calls c WHERE c.endpoint_id = e.id), 0) \
             FROM endpoints e WHERE e.state <> 'revoked'").fetch_all(c))?)
    }

    /// Calls of which nobody was told.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn untold_calls(&self) -> Result<Vec<Call>> {
        let sql = format!("SELECT {COLUMNS} {FROM} WHERE NOT c.told ORDER BY c.opened_at, c.id LIMIT 100");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).fetch_all(c))?)
    }
}

impl Tx {
    /// The call with the computer's own id, or the one that support opened by its code before it came.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn call_of_desk(&mut self, endpoint: EndpointId, desk_id: Uuid, number: u32) -> Result<Option<Call>> {
        let sql = format!(
            "SELECT {COLUMNS} {FROM} WHERE c.endpoint_id = $1 AND (c.desk_id = $2 OR c.desk_id IS NULL AND c.number = $3) \
             ORDER BY c.desk_id IS NULL LIMIT 1"
        );
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone()))
            .bind(endpoint.0).bind(desk_id).bind(i64::from(number)).fetch_optional(c))?)
    }

    /// The number of a computer's last call, and how many came within a time before now.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn calls_of(&mut self, endpoint: EndpointId, within: Duration, now: Time) -> Result<(i64, i64)> {
        Ok(on_tx!(self, c => sqlx::query_as(
            "SELECT COALESCE(MAX(number), 0), COALESCE(SUM(CASE WHEN arrived_at > $2 THEN 1 ELSE 0 END), 0) \
             FROM support_calls WHERE endpoint_id = $1")
            .bind(endpoint.0).bind(now.minus(within).micros()).fetch_one(c))?)
    }

    /// Keeps a new call. Its particulars come by [`Tx::call_arrived`].
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the computer's id of it is known.
    pub async fn add_call(&mut self, n: &NewCall<'_>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO support_calls (id, endpoint_id, desk_id, number, code, site_code, state, arrived_at, opened_at, \
             changed_at, incident_id, told) VALUES ($1, $2, $3, $4, $5, $6, 'open', CASE WHEN $3 IS NULL THEN NULL ELSE $7 END, $7, $7, $8, $9)")
            .bind(n.id).bind(n.endpoint.0).bind(n.desk_id).bind(i64::from(n.number)).bind(n.code).bind(n.site_code)
            .bind(now.micros()).bind(n.incident.map(|i| i.0)).bind(n.desk_id.is_none()).execute(c))?;
        self.touch(Kind::Notify, n.id);
        self.touch(Kind::Call, n.id);
        Ok(())
    }

    /// Fills in what came with a call.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn call_arrived(&mut self, id: Uuid, a: &Arrived, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE support_calls SET desk_id = $2, session_id = $3, snapshot = COALESCE($4, snapshot), made_at = $5, \
             arrived_at = COALESCE(arrived_at, $6), changed_at = $6 WHERE id = $1")
            .bind(id).bind(a.desk_id).bind(a.session).bind(a.snapshot.as_ref().map(Json)).bind(a.made_at.micros())
            .bind(now.micros()).execute(c))?;
        self.touch(Kind::Call, id);
        Ok(())
    }

    /// Moves a call on. `false` if it is not in the state it was thought to be in.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn move_call(&mut self, id: Uuid, m: &Move<'_>, now: Time) -> Result<bool> {
        let (by, name) = m.by.unzip();
        let (party, answer_by) = m.party.unzip();
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE support_calls SET state = $3, taken_by = COALESCE($4, taken_by), taken_name = COALESCE($5, taken_name), \
             party = COALESCE($6, party), answer_by = COALESCE($7, answer_by), over_at = $8, changed_at = $9 \
             WHERE id = $1 AND state = $2")
            .bind(id).bind(m.from.as_str()).bind(m.to.as_str()).bind(by).bind(name).bind(party.map(Party::as_str))
            .bind(answer_by.map(Time::micros)).bind(m.to.is_over().then_some(now.micros())).bind(now.micros()).execute(c))?;
        self.touch(Kind::Call, id);
        Ok(rows == 1)
    }

    /// Says which incident a call belongs to, if any.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn attach_call(&mut self, id: Uuid, incident: Option<IncidentId>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE support_calls SET incident_id = $2, changed_at = $3 WHERE id = $1")
            .bind(id).bind(incident.map(|i| i.0)).bind(now.micros()).execute(c))?;
        self.touch(Kind::Call, id);
        Ok(())
    }

    /// Whoever wants to know of a call was told. `false` if they were before.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn call_told(&mut self, id: Uuid) -> Result<bool> {
        let sql = "UPDATE support_calls SET told = TRUE WHERE id = $1 AND NOT told";
        Ok(exec_tx!(self, c => sqlx::query(sql).bind(id).execute(c))? == 1)
    }

    /// Writes down what happened to a call.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn call_event(&mut self, id: Uuid, kind: &str, actor: &str, detail: Value, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO support_call_events (call_id, at, kind, actor, detail) VALUES ($1, $2, $3, $4, $5)")
            .bind(id).bind(now.micros()).bind(kind).bind(actor).bind(Json(detail)).execute(c))?;
        self.touch(Kind::Call, id);
        Ok(())
    }
}
