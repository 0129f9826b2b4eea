//! What many endpoints report, written down together: one statement for all of a kind on PostgreSQL, and one for every
//! [`ROWS`] of them on SQLite, where each statement costs a word with the thread that runs it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder, Sqlite};
use tram_wire::ids::EndpointId;
use tram_wire::report::Item;
use uuid::Uuid;

use super::endpoints::Report;
use super::health::LatestRow;
use super::{Result, Tx, TxInner};
use crate::domain::health::{Kept, Latest, Probed, Sample, Transition};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// Rows of one statement on SQLite. Most values of one are 32,766.
const ROWS: usize = 250;

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

/// Which parts of what is known of an endpoint are wanted, or new.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    /// Its inventory.
    pub inventory: bool,
    /// Its probes.
    pub probes: bool,
    /// Its checks.
    pub checks: bool,
}

impl Parts {
    /// All.
    pub const ALL: Self = Self { inventory: true, probes: true, checks: true };

    /// Whether there are any.
    #[must_use]
    pub fn any(self) -> bool {
        self.inventory || self.probes || self.checks
    }
}

/// The newest that is known of an endpoint, to be written down.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    /// Whose.
    pub id: EndpointId,
    /// What.
    pub latest: &'a Latest,
    /// What of it is new besides the gauges.
    pub parts: Parts,
    /// When its newest record came.
    pub arrived: Time,
}

/// Names a record for good: endpoint, boot and number.
pub type RecordKey = (EndpointId, String, i64);

#[derive(sqlx::FromRow)]
struct NowRow {
    id: Uuid,
    boot: Option<String>,
    seq: Option<i64>,
    at: Option<i64>,
    gauges: Option<Json<BTreeMap<String, f32>>>,
}

#[derive(sqlx::FromRow)]
struct PartsRow {
    endpoint_id: Uuid,
    inventory: Json<BTreeMap<String, Vec<Item>>>,
    probes: Json<BTreeMap<String, Probed>>,
    checks: Json<Vec<Kept>>,
}

const NOW: &str = "SELECT e.id, n.boot, n.seq, n.at, n.gauges FROM endpoints e \
     LEFT JOIN endpoint_now n ON n.endpoint_id = e.id WHERE e.state <> 'revoked' AND e.id ";
const PARTS: &str = "SELECT endpoint_id, inventory, probes, checks FROM endpoint_health WHERE endpoint_id ";

impl Tx {
    /// The newest that is known of some endpoints, and of those in `whole` the parts that seldom change, too; those that
    /// are not there, or withdrawn, are missing.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn latest_healths(
        &mut self,
        ids: &BTreeSet<EndpointId>,
        whole: &BTreeSet<EndpointId>,
    ) -> Result<HashMap<EndpointId, Latest>> {
        let now = self.of_endpoints::<NowRow>(NOW, ids).await?;
        let mut all: HashMap<EndpointId, Latest> =
            now.into_iter().map(|r| (EndpointId(r.id), r.into_latest().unwrap_or_default())).collect();
        for r in self.of_endpoints::<PartsRow>(PARTS, whole).await? {
            if let Some(latest) = all.get_mut(&EndpointId(r.endpoint_id)) {
                (latest.inventory, latest.probes, latest.checks) = (r.inventory.0, r.probes.0, r.checks.0);
            }
        }
        Ok(all)
    }

    /// Rows of some endpoints. `sql` ends before what tells which.
    async fn of_endpoints<R>(&mut self, sql: &str, ids: &BTreeSet<EndpointId>) -> Result<Vec<R>>
    where
        R: Send
            + Unpin
            + for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>
            + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let mut all = Vec::new();
        if ids.is_empty() {
            return Ok(all);
        }
        match &mut self.inner {
            TxInner::Sqlite(t) => {
                for part in ids.chunks(ROWS) {
                    let mut query = QueryBuilder::<Sqlite>::new(sql);
                    query.push("IN (");
                    let mut list = query.separated(", ");
                    for id in part {
                        list.push_bind(*id);
                    }
                    query.push(")");
                    all.extend(query.build_query_as().fetch_all(&mut **t).await?);
                }
            }
            TxInner::Postgres(t) => {
                let mut query = QueryBuilder::<Postgres>::new(sql);
                query.push("= ANY(").push_bind(ids).push(")");
                all = query.build_query_as().fetch_all(&mut **t).await?;
            }
        }
        Ok(all)
    }

    /// Keeps records; those that were not kept before.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_samples(&mut self, rows: &[NewSample<'_>]) -> Result<HashSet<RecordKey>> {
        let mut kept = HashSet::new();
        match &mut self.inner {
            TxInner::Sqlite(t) => {
                for part in rows.chunks(ROWS) {
                    let mut query = QueryBuilder::<Sqlite>::new(
                        "INSERT INTO endpoint_samples (endpoint_id, boot, seq, at, arrived_at, body) ",
                    );
                    query.push_values(part, |mut row, r| {
                        row.push_bind(r.id.0).push_bind(r.boot).push_bind(r.seq).push_bind(r.at.micros());
                        row.push_bind(r.arrived.micros()).push_bind(Json(&r.body));
                    });
                    query.push(" ON CONFLICT (endpoint_id, boot, seq) DO NOTHING RETURNING endpoint_id, boot, seq");
                    let new: Vec<(Uuid, String, i64)> = query.build_query_as().fetch_all(&mut **t).await?;
                    kept.extend(new.into_iter().map(|(id, boot, seq)| (EndpointId(id), boot, seq)));
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
            TxInner::Sqlite(t) => {
                for part in turns.chunks(ROWS) {
                    let mut query = QueryBuilder::<Sqlite>::new(
                        "INSERT INTO endpoint_transitions (endpoint_id, at, arrived_at, check_id, from_state, to_state, code, params) ",
                    );
                    query.push_values(part, |mut row, (id, turn, arrived)| {
                        row.push_bind(id.0).push_bind(turn.at.micros()).push_bind(arrived.micros());
                        row.push_bind(&turn.to.check).push_bind(turn.from.map(|s| s.as_str()));
                        row.push_bind(turn.to.state.as_str()).push_bind(&turn.to.code).push_bind(Json(&turn.to.params));
                    });
                    query.build().execute(&mut **t).await?;
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
    pub async fn put_latest_healths(&mut self, all: &[News<'_>]) -> Result<()> {
        let parts: Vec<&News<'_>> = all.iter().filter(|n| n.parts.any()).collect();
        match &mut self.inner {
            TxInner::Sqlite(t) => {
                for part in all.chunks(ROWS) {
                    let mut query = QueryBuilder::<Sqlite>::new(
                        "INSERT INTO endpoint_now (endpoint_id, boot, seq, at, arrived_at, gauges) ",
                    );
                    query.push_values(part, |mut row, n| {
                        row.push_bind(n.id.0).push_bind(&n.latest.boot).push_bind(n.latest.seq);
                        row.push_bind(n.latest.at.micros())
                            .push_bind(n.arrived.micros())
                            .push_bind(Json(&n.latest.gauges));
                    });
                    query.push(REPLACE_NOW);
                    query.build().execute(&mut **t).await?;
                }
                for n in parts {
                    sqlx::query(PUT_PARTS)
                        .bind(n.id.0)
                        .bind(n.parts.inventory.then_some(Json(&n.latest.inventory)))
                        .bind(n.parts.probes.then_some(Json(&n.latest.probes)))
                        .bind(n.parts.checks.then_some(Json(&n.latest.checks)))
                        .execute(&mut **t)
                        .await?;
                }
            }
            TxInner::Postgres(t) => {
                if !all.is_empty() {
                    let ids: Vec<Uuid> = all.iter().map(|n| n.id.0).collect();
                    let boots: Vec<&str> = all.iter().map(|n| n.latest.boot.as_str()).collect();
                    let seqs: Vec<i64> = all.iter().map(|n| n.latest.seq).collect();
                    let at: Vec<i64> = all.iter().map(|n| n.latest.at.micros()).collect();
                    let arrived: Vec<i64> = all.iter().map(|n| n.arrived.micros()).collect();
                    let gauges: Vec<_> = all.iter().map(|n| Json(&n.latest.gauges)).collect();
                    let sql = format!(
                        "INSERT INTO endpoint_now (endpoint_id, boot, seq, at, arrived_at, gauges) SELECT * FROM \
                         UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::jsonb[]){REPLACE_NOW}"
                    );
                    sqlx::query(sqlx::AssertSqlSafe(sql))
                        .bind(&ids)
                        .bind(&boots)
                        .bind(&seqs)
                        .bind(&at)
                        .bind(&arrived)
                        .bind(&gauges)
                        .execute(&mut **t)
                        .await?;
                }
                if !parts.is_empty() {
                    let ids: Vec<Uuid> = parts.iter().map(|n| n.id.0).collect();
                    let inventory: Vec<_> =
                        parts.iter().map(|n| n.parts.inventory.then_some(Json(&n.latest.inventory))).collect();
                    let probes: Vec<_> =
                        parts.iter().map(|n| n.parts.probes.then_some(Json(&n.latest.probes))).collect();
                    let checks: Vec<_> =
                        parts.iter().map(|n| n.parts.checks.then_some(Json(&n.latest.checks))).collect();
                    sqlx::query(PUT_MANY_PARTS)
                        .bind(&ids)
                        .bind(&inventory)
                        .bind(&probes)
                        .bind(&checks)
                        .execute(&mut **t)
                        .await?;
                }
            }
        }
        for n in all {
            self.touch(Kind::Endpoint, n.id.0);
        }
        Ok(())
    }

    /// Writes down what endpoints reported besides, in the order of their ids. When they reported stands with their
    /// newest records.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_endpoint_reports(&mut self, all: &[(EndpointId, Report)]) -> Result<()> {
        match &mut self.inner {
            _ if all.is_empty() => {}
            TxInner::Sqlite(t) => {
                for (id, r) in all {
                    sqlx::query(
                        "UPDATE endpoints SET hardware = COALESCE($2, hardware), vitals = COALESCE($3, vitals), \
                         network = COALESCE($4, network), findings = COALESCE($5, findings), \
                         verdict = COALESCE($6, verdict) WHERE id = $1",
                    )
                    .bind(id.0)
                    .bind(r.hardware.as_ref().map(Json))
                    .bind(r.vitals.as_ref().map(Json))
                    .bind(r.network.as_ref().map(Json))
                    .bind(r.findings.as_ref().map(|(f, _)| Json(f)))
                    .bind(r.findings.as_ref().map(|(_, v)| v.as_str()))
                    .execute(&mut **t)
                    .await?;
                }
            }
            TxInner::Postgres(t) => {
                let ids: Vec<Uuid> = all.iter().map(|(id, ..)| id.0).collect();
                let hardware: Vec<_> = all.iter().map(|(_, r)| r.hardware.as_ref().map(Json)).collect();
                let vitals: Vec<_> = all.iter().map(|(_, r)| r.vitals.as_ref().map(Json)).collect();
                let network: Vec<_> = all.iter().map(|(_, r)| r.network.as_ref().map(Json)).collect();
                let findings: Vec<_> = all.iter().map(|(_, r)| r.findings.as_ref().map(|(f, _)| Json(f))).collect();
                let verdicts: Vec<Option<&str>> =
                    all.iter().map(|(_, r)| r.findings.as_ref().map(|(_, v)| v.as_str())).collect();
                sqlx::query(
                    "UPDATE endpoints e SET hardware = COALESCE(n.hardware, e.hardware), vitals = COALESCE(n.vitals, e.vitals), \
                     network = COALESCE(n.network, e.network), findings = COALESCE(n.findings, e.findings), \
                     verdict = COALESCE(n.verdict, e.verdict) \
                     FROM UNNEST($1::uuid[], $2::jsonb[], $3::jsonb[], $4::jsonb[], $5::jsonb[], $6::text[]) \
                     AS n (id, hardware, vitals, network, findings, verdict) WHERE e.id = n.id",
                )
                .bind(&ids)
                .bind(&hardware)
                .bind(&vitals)
                .bind(&network)
                .bind(&findings)
                .bind(&verdicts)
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

impl NowRow {
    /// `None` if it never reported.
    fn into_latest(self) -> Option<Latest> {
        let (boot, seq, at, gauges) = (self.boot?, self.seq?, self.at?, self.gauges?);
        Some(LatestRow { boot, seq, at, gauges, inventory: None, probes: None, checks: None }.into())
    }
}

const REPLACE_NOW: &str = " ON CONFLICT (endpoint_id) DO UPDATE SET boot = excluded.boot, seq = excluded.seq, \
     at = excluded.at, arrived_at = excluded.arrived_at, gauges = excluded.gauges";

const PUT_PARTS: &str = "INSERT INTO endpoint_health (endpoint_id, inventory, probes, checks) \
     VALUES ($1, COALESCE($2, '{}'), COALESCE($3, '{}'), COALESCE($4, '[]')) \
     ON CONFLICT (endpoint_id) DO UPDATE SET inventory = COALESCE($2, endpoint_health.inventory), \
     probes = COALESCE($3, endpoint_health.probes), checks = COALESCE($4, endpoint_health.checks)";

/// Two statements in one: what is there is changed, what is not is added.
const PUT_MANY_PARTS: &str = "WITH n AS (SELECT * FROM UNNEST($1::uuid[], $2::jsonb[], $3::jsonb[], $4::jsonb[]) \
     AS n (id, inventory, probes, checks)), \
     u AS (UPDATE endpoint_health h SET inventory = COALESCE(n.inventory, h.inventory), \
     probes = COALESCE(n.probes, h.probes), checks = COALESCE(n.checks, h.checks) FROM n WHERE h.endpoint_id = n.id \
     RETURNING h.endpoint_id) \
     INSERT INTO endpoint_health (endpoint_id, inventory, probes, checks) \
     SELECT id, COALESCE(inventory, '{}'), COALESCE(probes, '{}'), COALESCE(checks, '[]') \
     FROM n WHERE id NOT IN (SELECT endpoint_id FROM u) ON CONFLICT (endpoint_id) DO NOTHING";
