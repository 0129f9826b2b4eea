//! What many endpoints report, written down together: on PostgreSQL one statement for all of a kind, on SQLite one
//! prepared one each, where a round trip costs nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::types::Json;
use tram_wire::ids::EndpointId;
use uuid::Uuid;

use super::endpoints::Report;
use super::health::{LATEST_COLUMNS, LatestRow};
use super::{Result, Tx, TxInner};
use crate::domain::health::{Latest, Sample, Transition};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// A record to keep.
#[derive(Clone, Debug)]
pub struct NewSample<'a> {
    /// Whose.
    pub id: EndpointId,
    /// Of which boot.
    pub boot: &'a str,
    /// Its number there.
    pub seq: i64,
    /// When it was made.
    pub at: Time,
    /// When it came.
    pub arrived: Time,
    /// What of it is kept.
    pub body: Sample,
}

/// Which parts of what is known of an endpoint are new.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fresh {
    /// Its inventory.
    pub inventory: bool,
    /// Its probes.
    pub probes: bool,
    /// Its checks.
    pub checks: bool,
}

/// Names a record for good: endpoint, boot and number.
pub type RecordKey = (EndpointId, String, i64);

#[derive(sqlx::FromRow)]
struct OfEndpoint {
    endpoint_id: Uuid,
    #[sqlx(flatten)]
    row: LatestRow,
}

impl Tx {
    /// The newest that is known of some endpoints; those that are not there, or withdrawn, are missing.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn latest_healths(&mut self, ids: &BTreeSet<EndpointId>) -> Result<HashMap<EndpointId, Latest>> {
        match &mut self.inner {
            TxInner::Sqlite(_) => {
                let mut all = HashMap::new();
                for id in ids {
                    if let Some(latest) = self.latest_health(*id).await? {
                        all.insert(*id, latest);
                    }
                }
                Ok(all)
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
                let there: Vec<Uuid> =
                    sqlx::query_scalar("SELECT id FROM endpoints WHERE id = ANY($1) AND state <> 'revoked'")
                        .bind(&ids)
                        .fetch_all(&mut **t)
                        .await?;
                let mut all: HashMap<EndpointId, Latest> =
                    there.into_iter().map(|id| (EndpointId(id), Latest::default())).collect();
                let sql =
                    format!("SELECT endpoint_id, {LATEST_COLUMNS} FROM endpoint_health WHERE endpoint_id = ANY($1)");
                let rows: Vec<OfEndpoint> =
                    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&ids).fetch_all(&mut **t).await?;
                for r in rows {
                    if let Some(latest) = all.get_mut(&EndpointId(r.endpoint_id)) {
                        *latest = r.row.into();
                    }
                }
                Ok(all)
            }
        }
    }

    /// Keeps records; those that were not kept before.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_samples(&mut self, rows: &[NewSample<'_>]) -> Result<HashSet<RecordKey>> {
        let mut kept = HashSet::new();
        match &mut self.inner {
            TxInner::Sqlite(_) => {
                for r in rows {
                    if self.add_sample(r.id, (r.boot, r.seq), r.at, r.arrived, &r.body).await? {
                        kept.insert((r.id, r.boot.to_owned(), r.seq));
                    }
                }
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = rows.iter().map(|r| r.id.0).collect();
                let boots: Vec<&str> = rows.iter().map(|r| r.boot).collect();
                let seqs: Vec<i64> = rows.iter().map(|r| r.seq).collect();
                let at: Vec<i64> = rows.iter().map(|r| r.at.micros()).collect();
                let arrived: Vec<i64> = rows.iter().map(|r| r.arrived.micros()).collect();
                let bodies: Vec<Json<&Sample>> = rows.iter().map(|r| Json(&r.body)).collect();
                let new: Vec<(Uuid, String, i64)> = sqlx::query_as(
                    "INSERT INTO endpoint_samples (endpoint_id, boot, seq, at, arrived_at, body) \
                     SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::jsonb[]) \
                     ON CONFLICT (endpoint_id, boot, seq) DO NOTHING RETURNING endpoint_id, boot, seq",
                )
                .bind(&ids)
                .bind(&boots)
                .bind(&seqs)
                .bind(&at)
                .bind(&arrived)
                .bind(&bodies)
                .fetch_all(&mut **t)
                .await?;
                kept.extend(new.into_iter().map(|(id, boot, seq)| (EndpointId(id), boot, seq)));
            }
        }
        Ok(kept)
    }

    /// Keeps changes of checks, each with when it came.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_transitions(&mut self, turns: &[(EndpointId, Transition, Time)]) -> Result<()> {
        match &mut self.inner {
            _ if turns.is_empty() => {}
            TxInner::Sqlite(_) => {
                for (id, turn, arrived) in turns {
                    self.add_transition(*id, turn, *arrived).await?;
                }
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = turns.iter().map(|(id, ..)| id.0).collect();
                let at: Vec<i64> = turns.iter().map(|(_, t, _)| t.at.micros()).collect();
                let arrived: Vec<i64> = turns.iter().map(|(_, _, a)| a.micros()).collect();
                let checks: Vec<&str> = turns.iter().map(|(_, t, _)| t.to.check.as_str()).collect();
                let from: Vec<Option<&str>> = turns.iter().map(|(_, t, _)| t.from.map(|s| s.as_str())).collect();
                let to: Vec<&str> = turns.iter().map(|(_, t, _)| t.to.state.as_str()).collect();
                let codes: Vec<&str> = turns.iter().map(|(_, t, _)| t.to.code.as_str()).collect();
                let params: Vec<Json<&BTreeMap<String, String>>> =
                    turns.iter().map(|(_, t, _)| Json(&t.to.params)).collect();
                sqlx::query(
                    "INSERT INTO endpoint_transitions (endpoint_id, at, arrived_at, check_id, from_state, to_state, code, params) \
                     SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
                     $7::text[], $8::jsonb[])",
                )
                .bind(&ids)
                .bind(&at)
                .bind(&arrived)
                .bind(&checks)
                .bind(&from)
                .bind(&to)
                .bind(&codes)
                .bind(&params)
                .execute(&mut **t)
                .await?;
            }
        }
        Ok(())
    }

    /// Writes down the newest that is known of some endpoints, in the order of their ids: what did not change in it
    /// is not written again.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_latest_healths(&mut self, all: &[(EndpointId, &Latest, Fresh)]) -> Result<()> {
        match &mut self.inner {
            _ if all.is_empty() => {}
            TxInner::Sqlite(t) => {
                for (id, l, fresh) in all {
                    sqlx::query(PUT_ONE)
                        .bind(id.0)
                        .bind(&l.boot)
                        .bind(l.seq)
                        .bind(l.at.micros())
                        .bind(Json(&l.gauges))
                        .bind(fresh.inventory.then_some(Json(&l.inventory)))
                        .bind(fresh.probes.then_some(Json(&l.probes)))
                        .bind(fresh.checks.then_some(Json(&l.checks)))
                        .execute(&mut **t)
                        .await?;
                }
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = all.iter().map(|(id, ..)| id.0).collect();
                let boots: Vec<&str> = all.iter().map(|(_, l, _)| l.boot.as_str()).collect();
                let seqs: Vec<i64> = all.iter().map(|(_, l, _)| l.seq).collect();
                let at: Vec<i64> = all.iter().map(|(_, l, _)| l.at.micros()).collect();
                let gauges: Vec<_> = all.iter().map(|(_, l, _)| Json(&l.gauges)).collect();
                let inventory: Vec<_> = all.iter().map(|(_, l, f)| f.inventory.then_some(Json(&l.inventory))).collect();
                let probes: Vec<_> = all.iter().map(|(_, l, f)| f.probes.then_some(Json(&l.probes))).collect();
                let checks: Vec<_> = all.iter().map(|(_, l, f)| f.checks.then_some(Json(&l.checks))).collect();
                sqlx::query(PUT_MANY)
                    .bind(&ids)
                    .bind(&boots)
                    .bind(&seqs)
                    .bind(&at)
                    .bind(&gauges)
                    .bind(&inventory)
                    .bind(&probes)
                    .bind(&checks)
                    .execute(&mut **t)
                    .await?;
            }
        }
        for (id, ..) in all {
            self.touch(Kind::Endpoint, id.0);
        }
        Ok(())
    }

    /// Writes down what endpoints reported besides, in the order of their ids.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_endpoint_reports(&mut self, all: &[(EndpointId, Report, Time)]) -> Result<()> {
        match &mut self.inner {
            _ if all.is_empty() => {}
            TxInner::Sqlite(t) => {
                for (id, r, at) in all {
                    sqlx::query(
                        "UPDATE endpoints SET hardware = COALESCE($2, hardware), vitals = COALESCE($3, vitals), \
                         network = COALESCE($4, network), findings = COALESCE($5, findings), \
                         verdict = COALESCE($6, verdict), reported_at = $7 WHERE id = $1",
                    )
                    .bind(id.0)
                    .bind(r.hardware.as_ref().map(Json))
                    .bind(r.vitals.as_ref().map(Json))
                    .bind(r.network.as_ref().map(Json))
                    .bind(r.findings.as_ref().map(|(f, _)| Json(f)))
                    .bind(r.findings.as_ref().map(|(_, v)| v.as_str()))
                    .bind(at.micros())
                    .execute(&mut **t)
                    .await?;
                }
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = all.iter().map(|(id, ..)| id.0).collect();
                let hardware: Vec<_> = all.iter().map(|(_, r, _)| r.hardware.as_ref().map(Json)).collect();
                let vitals: Vec<_> = all.iter().map(|(_, r, _)| r.vitals.as_ref().map(Json)).collect();
                let network: Vec<_> = all.iter().map(|(_, r, _)| r.network.as_ref().map(Json)).collect();
                let findings: Vec<_> = all.iter().map(|(_, r, _)| r.findings.as_ref().map(|(f, _)| Json(f))).collect();
                let verdicts: Vec<Option<&str>> =
                    all.iter().map(|(_, r, _)| r.findings.as_ref().map(|(_, v)| v.as_str())).collect();
                let at: Vec<i64> = all.iter().map(|(.., at)| at.micros()).collect();
                sqlx::query(
                    "UPDATE endpoints e SET hardware = COALESCE(n.hardware, e.hardware), vitals = COALESCE(n.vitals, e.vitals), \
                     network = COALESCE(n.network, e.network), findings = COALESCE(n.findings, e.findings), \
                     verdict = COALESCE(n.verdict, e.verdict), reported_at = n.at \
                     FROM UNNEST($1::uuid[], $2::jsonb[], $3::jsonb[], $4::jsonb[], $5::jsonb[], $6::text[], $7::bigint[]) \
                     AS n (id, hardware, vitals, network, findings, verdict, at) WHERE e.id = n.id",
                )
                .bind(&ids)
                .bind(&hardware)
                .bind(&vitals)
                .bind(&network)
                .bind(&findings)
                .bind(&verdicts)
                .bind(&at)
                .execute(&mut **t)
                .await?;
            }
        }
        for (id, ..) in all {
            self.touch(Kind::Endpoint, id.0);
        }
        Ok(())
    }
}

const PUT_ONE: &str = "INSERT INTO endpoint_health (endpoint_id, boot, seq, at, gauges, inventory, probes, checks) \
     VALUES ($1, $2, $3, $4, $5, COALESCE($6, '{}'), COALESCE($7, '{}'), COALESCE($8, '[]')) \
     ON CONFLICT (endpoint_id) DO UPDATE SET boot = excluded.boot, seq = excluded.seq, at = excluded.at, \
     gauges = excluded.gauges, inventory = COALESCE($6, endpoint_health.inventory), \
     probes = COALESCE($7, endpoint_health.probes), checks = COALESCE($8, endpoint_health.checks)";

/// Two statements in one: what is there is changed, what is not is added.
const PUT_MANY: &str = "WITH n AS (SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::jsonb[], \
     $6::jsonb[], $7::jsonb[], $8::jsonb[]) AS n (id, boot, seq, at, gauges, inventory, probes, checks)), \
     u AS (UPDATE endpoint_health h SET boot = n.boot, seq = n.seq, at = n.at, gauges = n.gauges, \
     inventory = COALESCE(n.inventory, h.inventory), probes = COALESCE(n.probes, h.probes), \
     checks = COALESCE(n.checks, h.checks) FROM n WHERE h.endpoint_id = n.id RETURNING h.endpoint_id) \
     INSERT INTO endpoint_health (endpoint_id, boot, seq, at, gauges, inventory, probes, checks) \
     SELECT id, boot, seq, at, gauges, COALESCE(inventory, '{}'), COALESCE(probes, '{}'), COALESCE(checks, '[]') \
     FROM n WHERE id NOT IN (SELECT endpoint_id FROM u) ON CONFLICT (endpoint_id) DO NOTHING";
