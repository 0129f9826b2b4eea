//! Computers that asked to be approved, and what was decided.

use serde_json::Value;
use sqlx::types::Json;
use tram_wire::heartbeat::Hardware;
use tram_wire::ids::EndpointId;
use tram_wire::instance::Marks;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::approval::{Approval, EnrolmentState};
use crate::domain::copies::Known;
use crate::domain::endpoint::EndpointState;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Enrolment {
    /// Id; also the endpoint's, once it has its certificate.
    #[sqlx(try_from = "Uuid")]
    pub id: EndpointId,
    /// What the token is for.
    pub note: String,
    /// How the token lets computers in.
    #[sqlx(try_from = "String")]
    pub approval: Approval,
    /// Who made the token.
    pub token_by: String,
    /// Where it will stand.
    pub site_code: String,
    /// That site's name, if the code is known.
    pub site_name: Option<String>,
    /// That site's district.
    pub district_name: Option<String>,
    /// What it calls itself.
    pub name: String,
    /// How far it is.
    #[sqlx(try_from = "String")]
    pub state: EnrolmentState,
    /// What stands on both screens.
    pub digits: String,
    /// Who it says it is.
    #[sqlx(json)]
    pub hello: Value,
    /// What it says it is made of.
    #[sqlx(json(nullable))]
    pub hardware: Option<Hardware>,
    /// Its serial numbers.
    #[sqlx(json)]
    pub marks: Marks,
    /// Address it comes from.
    pub address: String,
    /// Serial numbers the token expected when it asked.
    #[sqlx(json)]
    pub expected: Vec<String>,
    /// When it asked, microseconds.
    pub asked_at: i64,
    /// When it last asked again.
    pub heard_at: i64,
    /// Until when it waits, for a person or for its certificate.
    pub expires_at: i64,
    /// When somebody decided.
    pub decided_at: Option<i64>,
    /// Who.
    pub decided_by: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// When it came for its certificate.
    pub collected_at: Option<i64>,
}

/// A computer that has to wait.
#[derive(Clone, Debug)]
pub struct NewEnrolment<'a> {
    /// Id.
    pub id: EndpointId,
    /// The token it showed.
    pub token: Uuid,
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// Where it will stand.
    pub site_code: &'a str,
    /// What it calls itself.
    pub name: &'a str,
    /// What stands on both screens.
    pub digits: &'a str,
    /// Who it says it is.
    pub hello: &'a Value,
    /// What it says it is made of.
    pub hardware: Option<&'a Value>,
    /// Its serial numbers.
    pub marks: &'a Marks,
    /// Address it comes from.
    pub address: &'a str,
    /// Serial numbers the token still expects.
    pub expected: &'a [String],
    /// Until when it waits.
    pub expires_at: Time,
}

/// An endpoint of a site, as far as a newcomer is compared with it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Neighbour {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: EndpointId,
    /// What it calls itself.
    pub name: String,
    /// Presence.
    #[sqlx(try_from = "String")]
    pub state: EndpointState,
    /// What it is made of.
    #[sqlx(json(nullable))]
    pub hardware: Option<Hardware>,
    /// Who showed its identity last.
    #[sqlx(json(nullable))]
    pub known: Option<Known>,
}

const SELECT: &str = "SELECT n.id, t.note, t.approval, t.created_by AS token_by, n.site_code, s.name AS site_name, \
    d.name AS district_name, n.name, n.state, n.digits, n.hello, n.hardware, n.marks, n.address, n.expected, n.asked_at, \
    n.heard_at, n.expires_at, n.decided_at, n.decided_by, n.reason, n.collected_at \
    FROM enrolments n JOIN endpoint_tokens t ON t.id = n.token_id \
    LEFT JOIN sites s ON s.code = n.site_code AND s.valid_to IS NULL \
    LEFT JOIN sites d ON d.code = s.parent_code AND d.valid_to IS NULL";

impl Store {
    /// Computers that wait, the first first; or those that were decided about, the last first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn enrolments(&self, sites: Option<&[String]>, waiting: bool, limit: i64) -> Result<Vec<Enrolment>> {
        let sites = sites.map(|codes| format!(",{},", codes.join(",")));
        let order = if waiting {
            "n.state = 'pending' ORDER BY n.asked_at, n.id"
        } else {
            "n.state <> 'pending' ORDER BY n.asked_at DESC, n.id"
        };
        let sql = format!("{SELECT} WHERE ($1 IS NULL OR $1 LIKE '%,' || n.site_code || ',%') AND {order} LIMIT $2");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(&sites).bind(limit).fetch_all(c))?)
    }

    /// One of them.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn enrolment(&self, id: EndpointId) -> Result<Option<Enrolment>> {
        let sql = format!("{SELECT} WHERE n.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id.0).fetch_optional(c))?)
    }

    /// The one that waits with these digits.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn enrolment_waiting(&self, digits: &str) -> Result<Option<Enrolment>> {
        let sql = format!("{SELECT} WHERE n.digits = $1 AND n.state = 'pending'");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(digits).fetch_optional(c))?)
    }

    /// The one that asked with this token and this key.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn enrolment_of(&self, token_hash: &[u8; 32], key: &[u8; 32]) -> Result<Option<Enrolment>> {
        let sql = format!("{SELECT} WHERE t.token_hash = $1 AND n.key_hash = $2");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone()))
            .bind(token_hash.as_slice()).bind(key.as_slice()).fetch_optional(c))?)
    }

    /// How many wait.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn enrolments_pending(&self) -> Result<i64> {
        Ok(
            on_read!(self, c => sqlx::query_scalar("SELECT COUNT(*) FROM enrolments WHERE state = 'pending'").fetch_one(c))?,
        )
    }

    /// Endpoints of a site that a newcomer may be compared with.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn site_neighbours(&self, site_code: &str, limit: i64) -> Result<Vec<Neighbour>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT e.id, e.name, e.state, e.hardware, k.known FROM endpoints e \
             LEFT JOIN endpoint_known k ON k.endpoint_id = e.id \
             WHERE e.site_code = $1 AND e.state <> 'revoked' ORDER BY e.name, e.id LIMIT $2")
            .bind(site_code).bind(limit).fetch_all(c))?)
    }
}

impl Tx {
    /// A serial number of a token was shown: it expects the others.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_token_serials(&mut self, token: Uuid, serials: &[String]) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE endpoint_tokens SET serials = $2 WHERE id = $1")
            .bind(token).bind(Json(serials)).execute(c))?;
        Ok(())
    }

    /// Whether somebody waits with these digits.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn digits_taken(&mut self, digits: &str) -> Result<bool> {
        let n: i64 = on_tx!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM enrolments WHERE digits = $1 AND state = 'pending'").bind(digits).fetch_one(c))?;
        Ok(n > 0)
    }

    /// Keeps a computer that has to wait.
    ///
    /// # Errors
    /// Any [`super::StoreError`], also if the same computer asked in the same moment.
    pub async fn add_enrolment(&mut self, n: &NewEnrolment<'_>, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO enrolments (id, token_id, key_hash, site_code, name, state, digits, hello, hardware, marks, address, \
             expected, asked_at, heard_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, $8, $9, $10, $11, $12, $12, $13)")
            .bind(n.id.0).bind(n.token).bind(n.key.as_slice()).bind(n.site_code).bind(n.name).bind(n.digits)
            .bind(Json(n.hello)).bind(n.hardware.map(Json)).bind(Json(n.marks)).bind(n.address).bind(Json(n.expected))
            .bind(now.micros()).bind(n.expires_at.micros()).execute(c))?;
        self.touch(Kind::Enrolment, n.id.0);
        Ok(())
    }

    /// It asked again.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn enrolment_heard(&mut self, id: EndpointId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE enrolments SET heard_at = $2 WHERE id = $1")
            .bind(id.0).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Decides about a computer that waits. `false` if somebody did already, or it waited too long. One statement, so
    /// two people can't both decide. `until`: how long it may come for its certificate.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn decide_enrolment(
        &mut self,
        id: EndpointId,
        state: EnrolmentState,
        (by, reason): (&str, &str),
        until: Time,
        now: Time,
    ) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE enrolments SET state = $2, decided_by = $3, reason = $4, decided_at = $5, expires_at = $6 \
             WHERE id = $1 AND state = 'pending' AND expires_at > $5")
            .bind(id.0).bind(state.as_str()).bind(by).bind(reason).bind(now.micros()).bind(until.micros()).execute(c))?;
        self.touch(Kind::Enrolment, id.0);
        Ok(rows == 1)
    }

    /// An approved computer comes for its certificate. `None` if it isn't approved, or too late; else whether this is the
    /// first time: the answer may have been lost on the way.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn collect_enrolment(&mut self, id: EndpointId, now: Time) -> Result<Option<bool>> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE enrolments SET collected_at = $2, heard_at = $2 \
             WHERE id = $1 AND state = 'approved' AND expires_at > $2 AND collected_at IS NULL")
            .bind(id.0).bind(now.micros()).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Enrolment, id.0);
            return Ok(Some(true));
        }
        let again: i64 = on_tx!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM enrolments WHERE id = $1 AND state = 'approved' AND expires_at > $2 AND collected_at IS NOT NULL")
            .bind(id.0).bind(now.micros()).fetch_one(c))?;
        Ok((again == 1).then_some(false))
    }

    /// Ends the wait of who waited too long, for a person or for coming for the certificate; whose.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn expire_enrolments(&mut self, now: Time) -> Result<Vec<EndpointId>> {
        let ids: Vec<Uuid> = on_tx!(self, c => sqlx::query_scalar(
            "UPDATE enrolments SET state = 'expired' WHERE expires_at <= $1 \
             AND (state = 'pending' OR (state = 'approved' AND collected_at IS NULL)) RETURNING id")
            .bind(now.micros()).fetch_all(c))?;
        ids.iter().for_each(|id| self.touch(Kind::Enrolment, *id));
        Ok(ids.into_iter().map(EndpointId).collect())
    }
}
