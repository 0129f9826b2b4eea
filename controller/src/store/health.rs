//! What endpoints report of their health, who probes for a site, and what is probed.

use std::collections::BTreeMap;

use sqlx::types::Json;
use tram_wire::ids::EndpointId;
use tram_wire::plan::Service;
use tram_wire::report::Item;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::health::{Kept, Latest, Probed, Sample};
use crate::domain::time::Time;

/// What is known of an endpoint, as queries bring it: the parts that seldom change are missing where they were not asked
/// for, and where there are none.
#[derive(sqlx::FromRow)]
pub(super) struct LatestRow {
    pub(super) boot: String,
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) gauges: Json<BTreeMap<String, f32>>,
    pub(super) inventory: Option<Json<BTreeMap<String, Vec<Item>>>>,
    pub(super) probes: Option<Json<BTreeMap<String, Probed>>>,
    pub(super) checks: Option<Json<Vec<Kept>>>,
}

impl From<LatestRow> for Latest {
    fn from(r: LatestRow) -> Self {
        Self {
            boot: r.boot,
            seq: r.seq,
            at: Time::from_micros(r.at),
            gauges: r.gauges.0,
            inventory: r.inventory.map(|j| j.0).unwrap_or_default(),
            probes: r.probes.map(|j| j.0).unwrap_or_default(),
            checks: r.checks.map(|j| j.0).unwrap_or_default(),
        }
    }
}

/// A change of a check, as kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Turn {
    /// When, by our clock.
    pub at: i64,
    /// When we heard of it.
    pub arrived_at: i64,
    /// Which check.
    pub check_id: String,
    /// From which state, if known.
    pub from_state: Option<String>,
    /// To which.
    pub to_state: String,
    /// Which sentence.
    pub code: String,
    /// Its blanks.
    #[sqlx(json)]
    pub params: BTreeMap<String, String>,
}

/// A service that probers probe.
#[derive(Clone, Debug)]
pub struct ProbeService {
    /// Id.
    pub id: Uuid,
    /// As it is sent.
    pub service: Service,
}

#[derive(sqlx::FromRow)]
struct ServiceRow {
    id: Uuid,
    name: String,
    kind: String,
    host: String,
    port: i64,
    path: Option<String>,
    expect: Option<String>,
    every_s: i64,
    budget_ms: i64,
}

impl From<ServiceRow> for ProbeService {
    fn from(r: ServiceRow) -> Self {
        let number = |n: i64| u32::try_from(n).unwrap_or(0);
        let service = Service {
            name: r.name,
            kind: r.kind,
            host: r.host,
            port: u16::try_from(r.port).unwrap_or(0),
            path: r.path,
            expect: r.expect,
            every_s: number(r.every_s),
            budget_ms: number(r.budget_ms),
            ..Service::default()
        };
        Self { id: r.id, service }
    }
}

const LATEST: &str = "SELECT n.boot, n.seq, n.at, n.gauges, h.inventory, h.probes, h.checks FROM endpoint_now n \
     LEFT JOIN endpoint_health h ON h.endpoint_id = n.endpoint_id WHERE n.endpoint_id = $1";

impl Store {
    /// The newest that is known of an endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_health(&self, id: EndpointId) -> Result<Option<Latest>> {
        let row: Option<LatestRow> = on_read!(self, c => sqlx::query_as(LATEST).bind(id.0).fetch_optional(c))?;
        Ok(row.map(Latest::from))
    }

    /// Changes of an endpoint's checks, newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_transitions(&self, id: EndpointId, limit: i64) -> Result<Vec<Turn>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT at, arrived_at, check_id, from_state, to_state, code, params FROM endpoint_transitions \
             WHERE endpoint_id = $1 ORDER BY at DESC, id DESC LIMIT $2")
            .bind(id.0).bind(limit).fetch_all(c))?)
    }

    /// The newest records of a span of time, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_samples(
        &self,
        id: EndpointId,
        from: Time,
        to: Time,
        limit: i64,
    ) -> Result<Vec<(Time, Sample)>> {
        let rows: Vec<(i64, Json<Sample>)> = on_read!(self, c => sqlx::query_as(
            "SELECT at, body FROM endpoint_samples WHERE endpoint_id = $1 AND at >= $2 AND at < $3 \
             ORDER BY at DESC, seq DESC LIMIT $4")
            .bind(id.0).bind(from.micros()).bind(to.micros()).bind(limit).fetch_all(c))?;
        Ok(rows.into_iter().rev().map(|(at, body)| (Time::from_micros(at), body.0)).collect())
    }

    /// Who probes for a site, all of them.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn site_probers(&self) -> Result<Vec<(String, EndpointId)>> {
        let rows: Vec<(String, Uuid)> =
            on_read!(self, c => sqlx::query_as("SELECT site_code, endpoint_id FROM site_probers").fetch_all(c))?;
        Ok(rows.into_iter().map(|(site, id)| (site, EndpointId(id))).collect())
    }

    /// Who is looked at, and until when.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_looked_at(&self, now: Time) -> Result<Vec<(EndpointId, Time)>> {
        let rows: Vec<(Uuid, i64)> = on_read!(self, c => sqlx::query_as(
            "SELECT endpoint_id, until FROM endpoint_live WHERE until > $1").bind(now.micros()).fetch_all(c))?;
        Ok(rows.into_iter().map(|(id, until)| (EndpointId(id), Time::from_micros(until))).collect())
    }

    /// What probers probe, by name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn probe_services(&self) -> Result<Vec<ProbeService>> {
        let rows: Vec<ServiceRow> = on_read!(self, c => sqlx::query_as(
            "SELECT id, name, kind, host, port, path, expect, every_s, budget_ms FROM probe_services ORDER BY name")
            .fetch_all(c))?;
        Ok(rows.into_iter().map(ProbeService::from).collect())
    }
}

impl Tx {
    /// Codes of what an endpoint's checks changed to since a time, heard only later.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn late_turns(&mut self, id: EndpointId, from: Time) -> Result<Vec<String>> {
        /// What comes with the next beat is not late.
        const LATE_US: i64 = 5_000_000;
        Ok(on_tx!(self, c => sqlx::query_scalar(
            "SELECT code FROM endpoint_transitions WHERE endpoint_id = $1 AND at >= $2 AND arrived_at > at + $3")
            .bind(id.0).bind(from.micros()).bind(LATE_US).fetch_all(c))?)
    }

    /// Forgets what came too long ago, a bounded number of rows at a time; how many rows went.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn prune_health(&mut self, samples: Time, transitions: Time, now: Time) -> Result<u64> {
        let mut gone = exec_tx!(self, c => sqlx::query(
            "DELETE FROM endpoint_samples WHERE (endpoint_id, boot, seq) IN \
             (SELECT endpoint_id, boot, seq FROM endpoint_samples WHERE arrived_at < $1 ORDER BY arrived_at LIMIT 5000)")
            .bind(samples.micros()).execute(c))?;
        gone += exec_tx!(self, c => sqlx::query(
            "DELETE FROM endpoint_transitions WHERE id IN \
             (SELECT id FROM endpoint_transitions WHERE at < $1 ORDER BY at LIMIT 5000)")
            .bind(transitions.micros()).execute(c))?;
        gone += exec_tx!(self, c => sqlx::query("DELETE FROM endpoint_live WHERE until <= $1")
            .bind(now.micros()).execute(c))?;
        Ok(gone)
    }

    /// Endpoints that are heard at sites whose prober isn't, with the site.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn sites_without_prober(&mut self) -> Result<Vec<(String, EndpointId)>> {
        let rows: Vec<(String, Uuid)> = on_tx!(self, c => sqlx::query_as(
            "SELECT e.site_code, e.id FROM endpoints e \
             LEFT JOIN site_probers p ON p.site_code = e.site_code \
             LEFT JOIN endpoints c ON c.id = p.endpoint_id AND c.state = 'online' AND c.site_code = e.site_code \
             AND c.quarantined_at IS NULL \
             WHERE e.state = 'online' AND e.quarantined_at IS NULL AND c.id IS NULL").fetch_all(c))?;
        Ok(rows.into_iter().map(|(site, id)| (site, EndpointId(id))).collect())
    }

    /// Names who probes for a site.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_site_prober(&mut self, site: &str, id: EndpointId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO site_probers (site_code, endpoint_id, since) VALUES ($1, $2, $3) \
             ON CONFLICT (site_code) DO UPDATE SET endpoint_id = excluded.endpoint_id, since = excluded.since")
            .bind(site).bind(id.0).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Somebody looks at an endpoint until then.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn look_at_endpoint(&mut self, id: EndpointId, until: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO endpoint_live (endpoint_id, until) VALUES ($1, $2) \
             ON CONFLICT (endpoint_id) DO UPDATE SET until = excluded.until")
            .bind(id.0).bind(until.micros()).execute(c))?;
        Ok(())
    }

    /// Adds a service to probe.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the name is taken, or any other.
    pub async fn add_probe_service(&mut self, id: Uuid, s: &Service, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO probe_services (id, name, kind, host, port, path, expect, every_s, budget_ms, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .bind(id).bind(&s.name).bind(&s.kind).bind(&s.host).bind(i64::from(s.port)).bind(&s.path).bind(&s.expect)
            .bind(i64::from(s.every_s)).bind(i64::from(s.budget_ms)).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Removes a service to probe; its name, if it was there.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn remove_probe_service(&mut self, id: Uuid) -> Result<Option<String>> {
        Ok(on_tx!(self, c => sqlx::query_scalar("DELETE FROM probe_services WHERE id = $1 RETURNING name")
            .bind(id).fetch_optional(c))?)
    }
}
