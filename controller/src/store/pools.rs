//! Pools of desktops.

use std::collections::BTreeMap;

use tram_wire::ids::{DesktopId, HostId, ImageId, PoolId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::desktop::{DesiredDesktop, DesktopState};
use crate::domain::policy::PoolPolicy;
use crate::domain::pool::{DesiredPool, Member};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row, with the names of what it refers to.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Pool {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: PoolId,
    /// Unique name.
    pub name: String,
    /// The site it serves.
    pub site_code: String,
    /// That site's name, if the code is known.
    pub site_name: Option<String>,
    /// The district's name.
    pub district_name: Option<String>,
    /// The image its desktops are made from.
    #[sqlx(try_from = "Uuid")]
    pub image_id: ImageId,
    /// That image's name.
    pub image_name: String,
    /// And version.
    pub image_version: String,
    /// And file name.
    pub image_file: String,
    /// Desktops wanted.
    pub size: i64,
    /// Virtual processors of each.
    pub vcpus: i64,
    /// Memory of each, MiB.
    pub memory_mib: i64,
    /// Disk of each, GiB; none keeps the image's size.
    pub disk_gib: Option<i64>,
    /// Desktops keep their disks after a session.
    pub persistent: bool,
    /// Desktops are started as soon as they exist.
    pub start_desktops: bool,
    /// Whether it should exist.
    #[sqlx(try_from = "String")]
    pub desired: DesiredPool,
    /// Counts its changes.
    pub generation: i64,
    /// Code of what holds it up.
    pub problem_code: Option<String>,
    /// The same in words.
    pub problem_text: Option<String>,
    /// When it was made, microseconds.
    pub created_at: i64,
    /// Its own policy for sessions.
    #[sqlx(json)]
    pub policy: PoolPolicy,
}

/// A new pool.
#[derive(Clone, Debug)]
pub struct NewPool {
    /// Id.
    pub id: PoolId,
    /// Unique name.
    pub name: String,
    /// The site it serves.
    pub site_code: String,
    /// The image.
    pub image_id: ImageId,
    /// Desktops wanted.
    pub size: i64,
    /// Virtual processors of each.
    pub vcpus: i64,
    /// Memory of each, MiB.
    pub memory_mib: i64,
    /// Disk of each, GiB.
    pub disk_gib: Option<i64>,
    /// Keep disks after a session.
    pub persistent: bool,
    /// Start desktops at once.
    pub start_desktops: bool,
}

const SELECT: &str = "SELECT p.id, p.name, p.site_code, s.name AS site_name, d.name AS district_name, p.image_id, \
    i.name AS image_name, i.version AS image_version, i.file AS image_file, p.size, p.vcpus, p.memory_mib, p.disk_gib, p.persistent, \
    p.start_desktops, p.desired, p.generation, p.problem_code, p.problem_text, p.created_at, p.policy \
    FROM pools p JOIN images i ON i.id = p.image_id \
    LEFT JOIN sites s ON s.code = p.site_code AND s.valid_to IS NULL \
    LEFT JOIN sites d ON d.code = s.parent_code AND d.valid_to IS NULL";

/// Desktops of a pool by state.
pub type Counts = BTreeMap<DesktopState, i64>;

impl Store {
    /// All pools by name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn pools(&self) -> Result<Vec<Pool>> {
        let sql = format!("{SELECT} ORDER BY p.name");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?)
    }

    /// One pool.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn pool(&self, id: PoolId) -> Result<Option<Pool>> {
        let sql = format!("{SELECT} WHERE p.id = $1");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }

    /// How many desktops of each pool are in which state.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn pool_counts(&self) -> Result<BTreeMap<PoolId, Counts>> {
        let rows: Vec<(Uuid, String, i64)> = on_read!(self, c => sqlx::query_as(
            "SELECT pool_id, state, COUNT(*) FROM desktops GROUP BY pool_id, state").fetch_all(c))?;
        let mut out: BTreeMap<PoolId, Counts> = BTreeMap::new();
        for (pool, state, n) in rows {
            if let Ok(state) = state.parse() {
                out.entry(PoolId(pool)).or_default().insert(state, n);
            }
        }
        Ok(out)
    }

    /// Whether a site with this code exists today.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn site_is_current(&self, code: &str) -> Result<bool> {
        let n: i64 = on_read!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM sites WHERE code = $1 AND valid_to IS NULL").bind(code).fetch_one(c))?;
        Ok(n > 0)
    }

    /// Sessions that hold a desktop of this pool.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn pool_assigned(&self, id: PoolId) -> Result<i64> {
        Ok(on_read!(self, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM desktops WHERE pool_id = $1 AND assigned_user IS NOT NULL AND desired <> 'absent'")
            .bind(id.0).fetch_one(c))?)
    }
}

/// A desktop that has no host yet.
#[derive(Clone, Debug)]
pub struct Unplaced {
    /// Which one.
    pub id: DesktopId,
    /// Memory it will need, MiB; 0 if it shall not run.
    pub memory_mib: i64,
    /// Its pool.
    pub pool: PoolId,
}

impl Tx {
    /// Adds a pool.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if the name is taken.
    pub async fn add_pool(&mut self, p: &NewPool, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO pools (id, name, site_code, image_id, size, vcpus, memory_mib, disk_gib, persistent, start_desktops, \
             desired, generation, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'present', 1, $11, $11)")
            .bind(p.id.0).bind(&p.name).bind(&p.site_code).bind(p.image_id.0).bind(p.size).bind(p.vcpus).bind(p.memory_mib)
            .bind(p.disk_gib).bind(p.persistent).bind(p.start_desktops).bind(now.micros()).execute(c))?;
        self.touch(Kind::Pool, p.id.0);
        Ok(())
    }

    /// Changes the wanted size. `false` if there is no such pool, or it is going away.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn resize_pool(&mut self, id: PoolId, size: i64, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE pools SET size = $2, generation = generation + 1, updated_at = $3, problem_code = NULL, problem_text = NULL \
             WHERE id = $1 AND desired = 'present'")
            .bind(id.0).bind(size).bind(now.micros()).execute(c))?;
        self.touch(Kind::Pool, id.0);
        Ok(rows == 1)
    }

    /// Sets a pool's own policy for sessions to come. `false` if there is no such pool, or it is going away.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn set_pool_policy(&mut self, id: PoolId, policy: &PoolPolicy, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query("UPDATE pools SET policy = $2, updated_at = $3 WHERE id = $1 AND desired = 'present'")
            .bind(id.0).bind(sqlx::types::Json(policy)).bind(now.micros()).execute(c))?;
        self.touch(Kind::Pool, id.0);
        Ok(rows == 1)
    }

    /// Wants a pool gone. `false` if there is none.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn drop_pool(&mut self, id: PoolId, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE pools SET desired = 'absent', size = 0, generation = generation + 1, updated_at = $2 WHERE id = $1")
            .bind(id.0).bind(now.micros()).execute(c))?;
        self.touch(Kind::Pool, id.0);
        Ok(rows == 1)
    }

    /// A pool's wanted size and its desktops, for planning. The pool's row is locked, so that two
    /// controllers never plan the same pool at once. `None` if it is gone.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn pool_members(&mut self, id: PoolId) -> Result<Option<(i64, Vec<Member>)>> {
        let lock = if self.is_postgres() { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT size FROM pools WHERE id = $1{lock}");
        let size: Option<i64> =
            on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?;
        let Some(size) = size else { return Ok(None) };
        let rows: Vec<MemberRow> = on_tx!(self, c => sqlx::query_as(
            "SELECT id, ordinal, state, desired, assigned_user FROM desktops WHERE pool_id = $1").bind(id.0).fetch_all(c))?;
        Ok(Some((size, rows.into_iter().map(Member::from).collect())))
    }

    /// Inserts desktops of a pool; one that exists already is left alone.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_desktops(&mut self, pool: &Pool, new: &[(DesktopId, i64, String)], now: Time) -> Result<()> {
        let desired = if pool.start_desktops { DesiredDesktop::Running } else { DesiredDesktop::Stopped };
        for (id, ordinal, name) in new {
            exec_tx!(self, c => sqlx::query(
                "INSERT INTO desktops (id, pool_id, ordinal, name, desired, state, state_since, disk_generation, force_stop, \
                 reset_asked, addresses, generation, attempts, created_at, updated_at) \
                 VALUES ($1, $2, $3, $4, $5, 'planned', $6, 1, FALSE, FALSE, $7, 1, 0, $6, $6) ON CONFLICT DO NOTHING")
                .bind(id.0).bind(pool.id.0).bind(ordinal).bind(name).bind(desired.as_str()).bind(now.micros())
                .bind(sqlx::types::Json(Vec::<String>::new())).execute(c))?;
            self.touch(Kind::Desktop, id.0);
        }
        Ok(())
    }

    /// Wants these desktops gone.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn drop_desktops(&mut self, ids: &[DesktopId], now: Time) -> Result<()> {
        for id in ids {
            exec_tx!(self, c => sqlx::query(
                "UPDATE desktops SET desired = 'absent', state = 'deleting', state_since = $2, generation = generation + 1, \
                 attempts = 0, next_try_at = $2, updated_at = $2 WHERE id = $1")
                .bind(id.0).bind(now.micros()).execute(c))?;
            self.touch(Kind::Desktop, id.0);
        }
        Ok(())
    }

    /// Removes the row of a pool that should be absent and has no desktop left. `true` if it did.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_pool(&mut self, id: PoolId) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "DELETE FROM pools WHERE id = $1 AND desired = 'absent' AND NOT EXISTS (SELECT 1 FROM desktops WHERE pool_id = $1)")
            .bind(id.0).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Pool, id.0);
        }
        Ok(rows == 1)
    }

    /// What holds a pool up, or nothing. Writes (and tells) only a change.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn pool_problem(&mut self, id: PoolId, problem: Option<(&str, &str)>) -> Result<()> {
        let (code, text) = problem.unzip();
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE pools SET problem_code = $2, problem_text = $3 WHERE id = $1 AND COALESCE(problem_code, '') <> COALESCE($2, '')")
            .bind(id.0).bind(code).bind(text).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Pool, id.0);
        }
        Ok(())
    }

    /// Desktops that need a host, in order of age.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn unplaced(&mut self) -> Result<Vec<Unplaced>> {
        let rows: Vec<(Uuid, i64, Uuid)> = on_tx!(self, c => sqlx::query_as(
            "SELECT d.id, CASE d.desired WHEN 'running' THEN p.memory_mib ELSE 0 END, p.id FROM desktops d \
             JOIN pools p ON p.id = d.pool_id WHERE d.host_id IS NULL AND d.desired <> 'absent' ORDER BY d.created_at, d.ordinal")
            .fetch_all(c))?;
        Ok(rows
            .into_iter()
            .map(|(id, memory_mib, pool)| Unplaced { id: id.into(), memory_mib, pool: pool.into() })
            .collect())
    }

    /// Why a desktop has no host yet. Writes (and tells) only a change; [`Self::place`] takes it back.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn desktop_without_room(&mut self, id: DesktopId, (code, text): (&str, &str)) -> Result<()> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET error_code = $2, error_text = $3 WHERE id = $1 AND host_id IS NULL AND COALESCE(error_code, '') <> $2")
            .bind(id.0).bind(code).bind(text).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Desktop, id.0);
        }
        Ok(())
    }

    /// Gives a desktop its host and makes it due.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn place(&mut self, id: DesktopId, host: HostId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET host_id = $2, next_try_at = $3, error_code = NULL, error_text = NULL WHERE id = $1 AND host_id IS NULL")
            .bind(id.0).bind(host.0).bind(now.micros()).execute(c))?;
        self.touch(Kind::Desktop, id.0);
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct MemberRow {
    id: Uuid,
    ordinal: i64,
    #[sqlx(try_from = "String")]
    state: DesktopState,
    #[sqlx(try_from = "String")]
    desired: DesiredDesktop,
    assigned_user: Option<Uuid>,
}

impl From<MemberRow> for Member {
    fn from(r: MemberRow) -> Self {
        Self {
            id: DesktopId(r.id),
            ordinal: r.ordinal,
            state: r.state,
            desired: r.desired,
            assigned: r.assigned_user.is_some(),
        }
    }
}
