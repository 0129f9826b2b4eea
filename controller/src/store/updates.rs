//! Releases of the agent, how they spread, and what computers' updaters say.

use std::collections::BTreeMap;

use sqlx::types::Json;
use tram_wire::ids::EndpointId;
use tram_wire::update::{Ask, Signature};
use uuid::Uuid;

use super::{Result, Store, Tx, TxInner, exec_tx, on_read, on_tx};
use crate::domain::rings::{Computer, RingCounts, RolloutState, UpdateRing, UpdateStage};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// A release.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Release {
    /// Id.
    pub id: Uuid,
    /// Every release has a larger one.
    pub counter: i64,
    /// Its name.
    pub version: String,
    /// For which processors.
    pub arch: String,
    /// SHA-256 of its program.
    pub sha256: String,
    /// Its bytes.
    pub size: i64,
    /// The widest ring it was signed for.
    #[sqlx(try_from = "String")]
    pub widest: UpdateRing,
    /// The text that was signed.
    pub manifest: String,
    /// By whom.
    pub signatures: Json<Vec<Signature>>,
    /// It is urgent.
    pub hotfix: bool,
    /// Office hours don't matter.
    pub any_time: bool,
    /// How it is.
    #[sqlx(try_from = "String")]
    pub state: RolloutState,
    /// Why.
    pub reason: String,
    /// The ring that is let in.
    #[sqlx(try_from = "String")]
    pub ring: UpdateRing,
    /// Since when, microseconds.
    pub ring_since: i64,
    /// Failures before that are forgiven.
    pub forgiven_at: i64,
    /// Not taken up after that.
    pub expires_at: i64,
    /// Who published it.
    pub created_by: String,
    /// When.
    pub created_at: i64,
    /// When its row last changed.
    pub changed_at: i64,
}

/// A computer and a release.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Member {
    /// The computer.
    #[sqlx(try_from = "Uuid")]
    pub endpoint_id: EndpointId,
    /// What it calls itself.
    pub endpoint_name: String,
    /// Where it stands.
    pub site_code: String,
    /// Its ring.
    #[sqlx(try_from = "String")]
    pub ring: UpdateRing,
    /// How far it is.
    #[sqlx(try_from = "String")]
    pub stage: UpdateStage,
    /// Why, in one word.
    pub code: String,
    /// For people.
    pub detail: String,
    /// How often it went back.
    pub strikes: i64,
    /// Bytes that came from a computer of its office.
    pub from_peer: i64,
    /// When it failed.
    pub failed_at: Option<i64>,
    /// When that changed.
    pub changed_at: i64,
}

/// What a computer's updater last said.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Keeper {
    /// Where it can be asked.
    pub keeps_at: Option<String>,
    /// For what.
    pub keeps: Option<String>,
    /// When it said so, microseconds.
    pub seen_at: i64,
}

/// How far a computer is, as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// How far.
    pub stage: UpdateStage,
    /// Why.
    pub code: &'a str,
    /// For people.
    pub detail: &'a str,
    /// How often it went back.
    pub strikes: i64,
    /// Bytes that are there.
    pub bytes: i64,
    /// Bytes that came from its office.
    pub from_peer: i64,
}

const COLUMNS: &str = "id, counter, version, arch, sha256, size, widest, manifest, signatures, hotfix, any_time, state, reason, \
    ring, ring_since, forgiven_at, expires_at, created_by, created_at, changed_at";
const MEMBER: &str = "m.endpoint_id, e.name AS endpoint_name, e.site_code, m.ring, m.stage, m.code, m.detail, m.strikes, m.from_peer, \
    m.failed_at, m.changed_at";
const FAILED: &str = "('rolled_back', 'banned', 'refused')";

impl Store {
    /// All releases, the newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn releases(&self) -> Result<Vec<Release>> {
        let sql = format!("SELECT {COLUMNS} FROM agent_releases ORDER BY counter DESC LIMIT 100");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).fetch_all(c))?)
    }

    /// One release.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn release(&self, id: Uuid) -> Result<Option<Release>> {
        let sql = format!("SELECT {COLUMNS} FROM agent_releases WHERE id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id).fetch_optional(c))?)
    }

    /// What computers with these processors shall run: the newest that was neither given up nor replaced.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn release_for(&self, arch: &str) -> Result<Option<Release>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM agent_releases WHERE arch = $1 AND state IN ('running', 'paused', 'stopped', 'done') \
             ORDER BY counter DESC LIMIT 1"
        );
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(arch).fetch_optional(c))?)
    }

    /// A program.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn program(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        Ok(on_read!(self, c => sqlx::query_scalar("SELECT program FROM agent_programs WHERE sha256 = $1")
            .bind(sha256).fetch_optional(c))?)
    }

    /// How the computers of each ring are. `silent`: not heard since then.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn ring_counts(&self, release: &Release, silent: Time) -> Result<BTreeMap<UpdateRing, RingCounts>> {
        let sql = format!(
            "SELECT m.ring, COUNT(*), SUM(CASE WHEN m.stage = 'committed' THEN 1 ELSE 0 END), \
             SUM(CASE WHEN m.stage IN {FAILED} AND m.failed_at >= $2 THEN 1 ELSE 0 END), \
             SUM(CASE WHEN m.stage IN ('fetching', 'ready', 'trial') THEN 1 ELSE 0 END), \
             SUM(CASE WHEN m.stage <> 'committed' AND m.stage NOT IN {FAILED} AND (u.seen_at IS NULL OR u.seen_at < $3) THEN 1 ELSE 0 END) \
             FROM agent_release_members m JOIN endpoints e ON e.id = m.endpoint_id AND e.state <> 'revoked' \
             LEFT JOIN endpoint_updaters u ON u.endpoint_id = m.endpoint_id WHERE m.release_id = $1 GROUP BY m.ring"
        );
        let rows: Vec<(String, i64, i64, i64, i64, i64)> = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone()))
            .bind(release.id).bind(release.forgiven_at).bind(silent.micros()).fetch_all(c))?;
        let counts = rows.into_iter().filter_map(|(ring, total, committed, failed, busy, silent)| {
            Some((ring.parse().ok()?, RingCounts { total, committed, failed, busy, silent }))
        });
        Ok(counts.collect())
    }

    /// Computers that failed, the newest failure first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn release_failures(&self, id: Uuid) -> Result<Vec<Member>> {
        let sql = format!(
            "SELECT {MEMBER} FROM agent_release_members m JOIN endpoints e ON e.id = m.endpoint_id \
             WHERE m.release_id = $1 AND (m.stage IN {FAILED} OR m.code <> '') ORDER BY m.changed_at DESC LIMIT 500"
        );
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id).fetch_all(c))?)
    }

    /// How many computers keep a copy of a program for their office, and how many bytes came from such copies.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn release_copies(&self, r: &Release) -> Result<(i64, i64)> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT (SELECT COUNT(*) FROM endpoint_updaters WHERE keeps = $2 AND keeps_at IS NOT NULL), \
             (SELECT CAST(COALESCE(SUM(from_peer), 0) AS BIGINT) FROM agent_release_members WHERE release_id = $1)")
            .bind(r.id).bind(&r.sha256).fetch_one(c))?)
    }

    /// One computer's part in a release.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn release_member(&self, id: Uuid, endpoint: EndpointId) -> Result<Option<Member>> {
        let sql = format!(
            "SELECT {MEMBER} FROM agent_release_members m JOIN endpoints e ON e.id = m.endpoint_id \
             WHERE m.release_id = $1 AND m.endpoint_id = $2"
        );
        Ok(
            on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).bind(id).bind(endpoint.0).fetch_optional(c))?,
        )
    }

    /// Whether somebody works in a desktop at this computer.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn works_at(&self, endpoint: EndpointId) -> Result<bool> {
        let n: i64 = on_read!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM sessions WHERE holder_endpoint = $1 AND state IN ('starting', 'ready', 'active')")
            .bind(endpoint.0).fetch_one(c))?;
        Ok(n > 0)
    }

    /// The rings of a site's other computers in a release, without those that have it or failed.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn rings_of_site(&self, id: Uuid, site: &str, but: EndpointId) -> Result<Vec<UpdateRing>> {
        let rings: Vec<String> = on_read!(self, c => sqlx::query_scalar(
            "SELECT DISTINCT m.ring FROM agent_release_members m JOIN endpoints e ON e.id = m.endpoint_id \
             WHERE m.release_id = $1 AND e.site_code = $2 AND m.endpoint_id <> $3 AND m.stage IN ('pending', 'fetching')")
            .bind(id).bind(site).bind(but.0).fetch_all(c))?;
        Ok(rings.iter().filter_map(|r| r.parse().ok()).collect())
    }

    /// The computer that keeps a copy for a site, if another one than this.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn keeper_of(&self, site: &str, but: EndpointId) -> Result<Option<Keeper>> {
        Ok(on_read!(self, c => sqlx::query_as(
            "SELECT u.keeps_at, u.keeps, u.seen_at FROM site_probers p JOIN endpoint_updaters u ON u.endpoint_id = p.endpoint_id \
             WHERE p.site_code = $1 AND p.endpoint_id <> $2")
            .bind(site).bind(but.0).fetch_optional(c))?)
    }

    /// Whether this computer is the one that probes for its site, and keeps copies for it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn keeps_for_site(&self, site: &str, endpoint: EndpointId) -> Result<bool> {
        let n: i64 = on_read!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM site_probers WHERE site_code = $1 AND endpoint_id = $2")
            .bind(site).bind(endpoint.0).fetch_one(c))?;
        Ok(n > 0)
    }

    /// Computers that may get a release for these processors.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn update_computers(&self, arch: &str) -> Result<Vec<Computer>> {
        let rows: Vec<(Uuid, String, String)> = on_read!(self, c => sqlx::query_as(
            "SELECT e.id, e.site_code, COALESCE(s.parent_code, '') FROM endpoints e \
             LEFT JOIN sites s ON s.code = e.site_code AND s.valid_to IS NULL \
             LEFT JOIN endpoint_updaters u ON u.endpoint_id = e.id \
             WHERE e.state <> 'revoked' AND (u.arch IS NULL OR u.arch = $1) ORDER BY e.id")
            .bind(arch).fetch_all(c))?;
        Ok(rows.into_iter().map(|(id, site, region)| Computer { id: EndpointId(id), site, region }).collect())
    }

    /// Releases that spread now, or did until something stopped them.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn spreading(&self) -> Result<Vec<Release>> {
        let sql = format!("SELECT {COLUMNS} FROM agent_releases WHERE state = 'running' ORDER BY counter");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql.clone())).fetch_all(c))?)
    }
}

impl Tx {
    /// The largest counter of all releases.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn newest_release(&mut self) -> Result<i64> {
        Ok(on_tx!(self, c => sqlx::query_scalar("SELECT COALESCE(MAX(counter), 0) FROM agent_releases").fetch_one(c))?)
    }

    /// Takes a program in.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_program(&mut self, sha256: &str, program: &[u8]) -> Result<()> {
        exec_tx!(self, c => sqlx::query("INSERT INTO agent_programs (sha256, program) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING")
            .bind(sha256).bind(program).execute(c))?;
        Ok(())
    }

    /// Replaces whatever spreads, or has spread, for these processors.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn supersede_releases(&mut self, arch: &str, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE agent_releases SET state = 'superseded', changed_at = $2 \
             WHERE arch = $1 AND state IN ('running', 'paused', 'stopped', 'done')").bind(arch).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Keeps a release.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if there is one with its counter.
    pub async fn add_release(&mut self, r: &Release) -> Result<()> {
        let sql = format!(
            "INSERT INTO agent_releases ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
             $17, $18, $19, $20)"
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .bind(r.id).bind(r.counter).bind(&r.version).bind(&r.arch).bind(&r.sha256).bind(r.size).bind(r.widest.as_str())
            .bind(&r.manifest).bind(&r.signatures).bind(r.hotfix).bind(r.any_time).bind(r.state.as_str()).bind(&r.reason)
            .bind(r.ring.as_str()).bind(r.ring_since).bind(r.forgiven_at).bind(r.expires_at).bind(&r.created_by)
            .bind(r.created_at).bind(r.changed_at).execute(c))?;
        self.touch(Kind::Update, r.id);
        Ok(())
    }

    /// Says which ring each computer is in. One that is there already stays where it is.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_release_members(
        &mut self,
        release: Uuid,
        members: &[(EndpointId, UpdateRing)],
        now: Time,
    ) -> Result<()> {
        match &mut self.inner {
            TxInner::Sqlite(t) => {
                for (id, ring) in members {
                    sqlx::query(
                        "INSERT INTO agent_release_members (release_id, endpoint_id, ring, stage, code, detail, strikes, bytes, \
                         from_peer, changed_at) VALUES ($1, $2, $3, 'pending', '', '', 0, 0, 0, $4) \
                         ON CONFLICT (release_id, endpoint_id) DO NOTHING",
                    )
                    .bind(release)
                    .bind(id.0)
                    .bind(ring.as_str())
                    .bind(now.micros())
                    .execute(&mut **t)
                    .await?;
                }
            }
            TxInner::Postgres(t) => {
                let (ids, rings): (Vec<Uuid>, Vec<&str>) = members.iter().map(|(id, r)| (id.0, r.as_str())).unzip();
                sqlx::query(
                    "INSERT INTO agent_release_members (release_id, endpoint_id, ring, stage, code, detail, strikes, bytes, \
                     from_peer, changed_at) SELECT $1, id, ring, 'pending', '', '', 0, 0, 0, $4 \
                     FROM UNNEST($2::uuid[], $3::text[]) AS m (id, ring) ON CONFLICT (release_id, endpoint_id) DO NOTHING",
                )
                .bind(release)
                .bind(&ids)
                .bind(&rings)
                .bind(now.micros())
                .execute(&mut **t)
                .await?;
            }
        }
        Ok(())
    }

    /// Notes what an updater said, and when.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn updater_said(&mut self, endpoint: EndpointId, ask: &Ask, now: Time) -> Result<()> {
        let counter = i64::try_from(ask.counter).unwrap_or(i64::MAX);
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO endpoint_updaters (endpoint_id, arch, release, counter, keeps_at, keeps, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (endpoint_id) DO UPDATE SET arch = excluded.arch, \
             release = excluded.release, counter = excluded.counter, keeps_at = excluded.keeps_at, keeps = excluded.keeps, \
             seen_at = excluded.seen_at")
            .bind(endpoint.0).bind(&ask.arch).bind(&ask.release).bind(counter).bind(&ask.keeps_at).bind(&ask.keeps)
            .bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Notes how far a computer is with the release of this counter. A failure dates from when it was first told.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn member_told(&mut self, counter: i64, endpoint: EndpointId, t: &Told<'_>, now: Time) -> Result<bool> {
        let sql = format!(
            "UPDATE agent_release_members SET failed_at = CASE WHEN $3 IN {FAILED} THEN \
             CASE WHEN stage IN {FAILED} AND strikes = $6 THEN failed_at ELSE $9 END ELSE NULL END, \
             stage = $3, code = $4, detail = $5, strikes = $6, bytes = $7, from_peer = $8, changed_at = $9 \
             WHERE endpoint_id = $2 AND release_id = (SELECT id FROM agent_releases WHERE counter = $1) \
             AND (stage <> $3 OR code <> $4 OR strikes <> $6 OR bytes <> $7 OR from_peer <> $8) RETURNING release_id"
        );
        let release: Option<Uuid> = on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()))
            .bind(counter).bind(endpoint.0).bind(t.stage.as_str()).bind(t.code).bind(t.detail).bind(t.strikes)
            .bind(t.bytes).bind(t.from_peer).bind(now.micros()).fetch_optional(c))?;
        if let Some(id) = release {
            self.touch(Kind::Update, id);
        }
        Ok(release.is_some())
    }

    /// Lets a ring in. `false` if the release is not as it was thought to be.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn open_ring(&mut self, id: Uuid, from: UpdateRing, to: UpdateRing, now: Time) -> Result<bool> {
        self.touch(Kind::Update, id);
        Ok(exec_tx!(self, c => sqlx::query(
            "UPDATE agent_releases SET ring = $3, ring_since = $4, changed_at = $4 WHERE id = $1 AND state = 'running' AND ring = $2")
            .bind(id).bind(from.as_str()).bind(to.as_str()).bind(now.micros()).execute(c))?
            == 1)
    }

    /// Moves a release on; with `forgive` failures so far count no more. `false` if it was in none of these states.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn move_release(
        &mut self,
        id: Uuid,
        from: &[RolloutState],
        to: RolloutState,
        reason: &str,
        forgive: bool,
        now: Time,
    ) -> Result<bool> {
        let from = format!(",{},", from.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(","));
        self.touch(Kind::Update, id);
        Ok(exec_tx!(self, c => sqlx::query(
            "UPDATE agent_releases SET state = $3, reason = $4, forgiven_at = CASE WHEN $5 THEN $6 ELSE forgiven_at END, \
             changed_at = $6 WHERE id = $1 AND $2 LIKE '%,' || state || ',%'")
            .bind(id).bind(&from).bind(to.as_str()).bind(reason).bind(forgive).bind(now.micros()).execute(c))?
            == 1)
    }
}
