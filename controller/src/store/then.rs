//! What was known at a moment, and what came to be known of it later; announced work.

use serde_json::Value;
use sqlx::types::Json;
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read};
use crate::domain::incident::{Cause, Confidence, Evidence, Severity};
use crate::domain::sla::Span;
use crate::domain::time::Time;

/// How an incident was judged from a moment on.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Judged {
    /// Of this incident.
    pub incident_id: Uuid,
    /// From then on, microseconds.
    pub at: i64,
    /// Why.
    #[sqlx(try_from = "String")]
    pub cause: Cause,
    /// How bad.
    #[sqlx(try_from = "String")]
    pub severity: Severity,
    /// How sure.
    #[sqlx(try_from = "String")]
    pub confidence: Confidence,
    /// What spoke for it.
    pub evidence: Json<Vec<Evidence>>,
    /// What would have changed it.
    pub doubts: Json<Vec<Evidence>>,
}

/// A check that said something else from a moment on.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Turned {
    /// Which check.
    pub check_id: String,
    /// How bad.
    pub to_state: String,
    /// Which sentence.
    pub code: String,
    /// Its blanks.
    pub params: Json<Value>,
    /// When, by our clock; microseconds.
    pub at: i64,
    /// When we learnt of it.
    pub arrived_at: i64,
}

/// A record that an endpoint made.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Made {
    /// Under which boot.
    pub boot: String,
    /// When, by our clock; microseconds.
    pub at: i64,
    /// When we learnt of it.
    pub arrived_at: i64,
}

/// Announced work.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Work {
    /// From, microseconds.
    pub from_at: i64,
    /// Until.
    pub until_at: i64,
    /// What for.
    pub reason: String,
    /// Who announced it.
    pub set_by: String,
}

impl Work {
    /// Its time.
    #[must_use]
    pub fn span(&self) -> Span {
        Span { from: Time::from_micros(self.from_at), until: Time::from_micros(self.until_at) }
    }
}

impl Store {
    /// How an incident was judged, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn judgements(&self, id: IncidentId) -> Result<Vec<Judged>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT incident_id, at, cause, severity, confidence, evidence, doubts FROM incident_judgements \
             WHERE incident_id = $1 ORDER BY at, id LIMIT 2000").bind(id.0).fetch_all(c))?)
    }

    /// Incidents of a site that were open within a time.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn incidents_within(&self, site: &str, within: Span) -> Result<Vec<IncidentId>> {
        let ids: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar(
            "SELECT i.id FROM incidents i JOIN incident_sites s ON s.incident_id = i.id WHERE s.site_code = $1 \
             AND i.opened_at < $3 AND (i.over_at IS NULL OR i.over_at > $2) ORDER BY i.opened_at, i.id LIMIT 2000")
            .bind(site).bind(within.from.micros()).bind(within.until.micros()).fetch_all(c))?;
        Ok(ids.into_iter().map(Into::into).collect())
    }

    /// Computers of a site: id, name, enrolment, microseconds.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn computers_of(&self, site: &str) -> Result<Vec<(Uuid, String, i64)>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT id, name, enrolled_at FROM endpoints WHERE site_code = $1 ORDER BY name, id LIMIT 500")
            .bind(site).fetch_all(c))?)
    }

    /// What happened to an endpoint within a time, oldest first: when, what, particulars.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_events_within(&self, id: EndpointId, within: Span) -> Result<Vec<(i64, String, String)>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT at, kind, detail FROM endpoint_events WHERE endpoint_id = $1 AND at >= $2 AND at < $3 ORDER BY id LIMIT 5000")
            .bind(id.0).bind(within.from.micros()).bind(within.until.micros()).fetch_all(c))?)
    }

    /// The last word about an endpoint's presence up to a moment: when, and what.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn presence_at(&self, id: EndpointId, at: Time) -> Result<Option<(i64, String)>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT at, kind FROM endpoint_events WHERE endpoint_id = $1 AND at <= $2 \
             AND kind IN ('enrolled', 'online', 'silent', 'goodbye', 'revoked') ORDER BY at DESC, id DESC LIMIT 1")
            .bind(id.0).bind(at.micros()).fetch_optional(c))?)
    }

    /// What an endpoint's checks had said by a moment, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn turned_by(&self, id: EndpointId, at: Time) -> Result<Vec<Turned>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT check_id, to_state, code, params, at, arrived_at FROM endpoint_transitions WHERE endpoint_id = $1 \
             AND at <= $2 ORDER BY at, id LIMIT 5000").bind(id.0).bind(at.micros()).fetch_all(c))?)
    }

    /// The records next to a moment: the last one before it, and the first one after it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn records_around(&self, id: EndpointId, at: Time) -> Result<(Option<Made>, Option<Made>)> {
        let before = on_read!(self, c => sqlx::query_as(
            "SELECT boot, at, arrived_at FROM endpoint_samples WHERE endpoint_id = $1 AND at <= $2 ORDER BY at DESC LIMIT 1")
            .bind(id.0).bind(at.micros()).fetch_optional(c))?;
        let after = on_read!(self, c => sqlx::query_as(
            "SELECT boot, at, arrived_at FROM endpoint_samples WHERE endpoint_id = $1 AND at > $2 ORDER BY at LIMIT 1")
            .bind(id.0).bind(at.micros()).fetch_optional(c))?;
        Ok((before, after))
    }

    /// Work that was announced for a site and lies within a time, in order.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn site_works(&self, site: &str, within: Span) -> Result<Vec<Work>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT from_at, until_at, reason, set_by FROM site_works WHERE site_code = $1 AND from_at < $3 AND until_at > $2 \
             ORDER BY from_at, id").bind(site).bind(within.from.micros()).bind(within.until.micros()).fetch_all(c))?)
    }
}

impl Tx {
    /// Remembers how an incident is judged from now on, as its row says.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn remember_judgement(&mut self, id: IncidentId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO incident_judgements (incident_id, at, cause, severity, confidence, evidence, doubts, endpoints) \
             SELECT id, $2, cause, severity, confidence, evidence, doubts, endpoints FROM incidents WHERE id = $1")
            .bind(id.0).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Work at a site is announced, called off, or ends at another time: what was to last beyond now ends now.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn announce_work(
        &mut self,
        site: &str,
        until: Option<Time>,
        reason: &str,
        by: &str,
        now: Time,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM site_works WHERE site_code = $1 AND from_at >= $2")
            .bind(site).bind(now.micros()).execute(c))?;
        exec_tx!(self, c => sqlx::query("UPDATE site_works SET until_at = $2 WHERE site_code = $1 AND until_at > $2")
            .bind(site).bind(now.micros()).execute(c))?;
        if let Some(until) = until.filter(|u| *u > now) {
            exec_tx!(self, c => sqlx::query(
                "INSERT INTO site_works (site_code, from_at, until_at, reason, set_by) VALUES ($1, $2, $3, $4, $5)")
                .bind(site).bind(now.micros()).bind(until.micros()).bind(reason).bind(by).execute(c))?;
        }
        Ok(())
    }
}
