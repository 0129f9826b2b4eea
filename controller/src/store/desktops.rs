//! Desktops: what is wanted of them, and the leases under which reconcilers make it so.

use sqlx::types::Json;
use tram_wire::ids::{DesktopId, HostId, PoolId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::desktop::{DesiredDesktop, DesktopState, Wanted};
use crate::domain::image::Guest;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Desktop {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: DesktopId,
    /// Its pool.
    #[sqlx(try_from = "Uuid")]
    pub pool_id: PoolId,
    /// Unique name.
    pub name: String,
    /// Where it lives.
    pub host_id: Option<Uuid>,
    /// What is wanted.
    #[sqlx(try_from = "String")]
    pub desired: DesiredDesktop,
    /// Where it is on its way.
    #[sqlx(try_from = "String")]
    pub state: DesktopState,
    /// Since when, microseconds.
    pub state_since: i64,
    /// Generation its disk should have.
    pub disk_generation: i64,
    /// Cut the power instead of asking.
    pub force_stop: bool,
    /// A reset is to be done.
    pub reset_asked: bool,
    /// When the running shutdown request was sent.
    pub stop_asked_at: Option<i64>,
    /// When it was last started.
    pub started_at: Option<i64>,
    /// How long the last boot took, milliseconds.
    pub boot_ms: Option<i64>,
    /// Who has it.
    pub assigned_user: Option<Uuid>,
    /// Their sign-in name.
    pub assigned_name: Option<String>,
    /// Addresses its guest reported.
    pub addresses: Json<Vec<String>>,
    /// Counts the changes of what is wanted.
    pub generation: i64,
    /// Failures in a row.
    pub attempts: i64,
    /// When it is looked at next; none while settled.
    pub next_try_at: Option<i64>,
    /// Code of the last failure.
    pub error_code: Option<String>,
    /// The same in words.
    pub error_text: Option<String>,
    /// Last change, microseconds.
    pub updated_at: i64,
}

impl Desktop {
    /// What is wanted, for [`crate::domain::desktop::next_step`].
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted {
            desired: self.desired,
            generation: self.disk_generation,
            force_stop: self.force_stop,
            reset: self.reset_asked,
            stop_asked_at: self.stop_asked_at.map(Time::from_micros),
            started_at: self.started_at.map(Time::from_micros),
        }
    }

    /// Moves it to a state; the same state keeps its age.
    pub fn enter(&mut self, state: DesktopState, now: Time) {
        if self.state != state {
            self.state = state;
            self.state_since = now.micros();
        }
    }
}

const COLUMNS: &str = "d.id, d.pool_id, d.name, d.host_id, d.desired, d.state, d.state_since, d.disk_generation, d.force_stop, \
    d.reset_asked, d.stop_asked_at, d.started_at, d.boot_ms, d.assigned_user, d.addresses, d.generation, d.attempts, d.next_try_at, \
    d.error_code, d.error_text, d.updated_at";

/// Which desktops to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this pool.
    pub pool: Option<PoolId>,
    /// Only on this host.
    pub host: Option<HostId>,
    /// Only in this state.
    pub state: Option<DesktopState>,
    /// Only names containing this (lower case).
    pub text: Option<String>,
    /// Only these.
    pub ids: Option<Vec<DesktopId>>,
    /// Only of these pools: those in somebody's scope.
    pub pools: Option<Vec<PoolId>>,
    /// Only names after this one (the cursor).
    pub after: Option<String>,
    /// At most so many.
    pub limit: i64,
}

impl Store {
    /// Desktops by name, and how many match in all.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn desktops(&self, f: &Filter) -> Result<(Vec<Desktop>, i64)> {
        // Text is matched with the wildcard characters of LIKE escaped: people search for `_` too.
        let text = f
            .text
            .as_ref()
            .map(|t| format!("%{}%", t.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")));
        let mut clause = String::from(
            "($1 IS NULL OR d.pool_id = $1) AND ($2 IS NULL OR d.host_id = $2) AND ($3 IS NULL OR d.state = $3) \
             AND ($4 IS NULL OR d.name LIKE $4 ESCAPE '\\')",
        );
        // Typed ids, not text: nothing in them can end the literal.
        let among = |ids: &mut dyn Iterator<Item = Uuid>| {
            let list: Vec<String> = ids.map(|i| self.literal(i)).collect();
            if list.is_empty() { "NULL".into() } else { list.join(",") }
        };
        if let Some(pools) = &f.pools {
            clause.push_str(&format!(" AND d.pool_id IN ({})", among(&mut pools.iter().map(|p| p.0))));
        }
        if let Some(ids) = &f.ids {
            clause.push_str(&format!(" AND d.id IN ({})", among(&mut ids.iter().map(|i| i.0))));
        }
        let rows_sql = format!(
            "SELECT {COLUMNS}, u.username AS assigned_name FROM desktops d LEFT JOIN users u ON u.id = d.assigned_user \
             WHERE {clause} AND ($5 IS NULL OR d.name > $5) ORDER BY d.name LIMIT $6"
        );
        let count_sql = format!("SELECT COUNT(*) FROM desktops d WHERE {clause}");
        let (pool, host, state) = (f.pool.map(|p| p.0), f.host.map(|h| h.0), f.state.map(DesktopState::as_str));
        let rows: Vec<Desktop> = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(rows_sql))
            .bind(pool).bind(host).bind(state).bind(text.clone()).bind(f.after.clone()).bind(f.limit).fetch_all(c))?;
        let all_fetched = f.after.is_none() && i64::try_from(rows.len()).is_ok_and(|n| n < f.limit);
        let total = if all_fetched {
            i64::try_from(rows.len()).unwrap_or(i64::MAX)
        } else {
            on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(count_sql))
                .bind(pool).bind(host).bind(state).bind(text).fetch_one(c))?
        };
        Ok((rows, total))
    }

    /// One desktop.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn desktop(&self, id: DesktopId) -> Result<Option<Desktop>> {
        let (mut rows, _) = self.desktops(&Filter { ids: Some(vec![id]), limit: 1, ..Filter::default() }).await?;
        Ok(rows.pop())
    }

    /// How long desktops usually boot, from the last fifteen boots. `None` before the first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn usual_boot_ms(&self) -> Result<Option<i64>> {
        let mut last: Vec<i64> = on_read!(self, c => sqlx::query_scalar(
            "SELECT boot_ms FROM desktops WHERE boot_ms IS NOT NULL ORDER BY started_at DESC LIMIT 15").fetch_all(c))?;
        last.sort_unstable();
        Ok(last.get(last.len() / 2).copied())
    }

    /// When the next desktop is due, microseconds; `None` when all are settled.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn next_due(&self) -> Result<Option<i64>> {
        Ok(on_read!(self, c => sqlx::query_scalar(
            "SELECT MIN(CASE WHEN COALESCE(lease_until, 0) > next_try_at THEN lease_until ELSE next_try_at END) FROM desktops \
             WHERE host_id IS NOT NULL OR desired = 'absent'").fetch_one(c))?)
    }

    /// Ids and what should be there, of all desktops on a host.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn desktops_on(&self, host: HostId) -> Result<Vec<Desktop>> {
        let filter = Filter { host: Some(host), limit: i64::MAX, ..Filter::default() };
        Ok(self.desktops(&filter).await?.0)
    }

    /// Which of these desktops were removed on purpose.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn removed(&self, ids: &[DesktopId]) -> Result<Vec<DesktopId>> {
        if ids.is_empty() {
            return Ok(vec![]);
        }
        let list: Vec<String> = ids.iter().map(|i| self.literal(i.0)).collect();
        let sql = format!("SELECT id FROM removed_desktops WHERE id IN ({})", list.join(","));
        let rows: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(c))?;
        Ok(rows.into_iter().map(DesktopId).collect())
    }

    /// A UUID as an SQL literal of this database.
    fn literal(&self, id: Uuid) -> String {
        match self.db {
            super::Db::Sqlite { .. } => format!("x'{}'", id.simple()),
            super::Db::Postgres(_) => format!("'{id}'::uuid"),
        }
    }
}

/// A desktop under lease, with what its pool says of it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Claimed {
    /// The row as claimed.
    #[sqlx(flatten)]
    pub desktop: Desktop,
    /// Golden image file.
    pub image_file: String,
    /// The machine the image expects.
    #[sqlx(try_from = "String")]
    pub guest: Guest,
    /// Virtual processors.
    pub vcpus: i64,
    /// Memory, MiB.
    pub memory_mib: i64,
    /// Disk, GiB.
    pub disk_gib: Option<i64>,
}

impl Tx {
    /// Claims up to `limit` due desktops until `until`. Two workers never get the same one.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn claim_desktops(&mut self, owner: Uuid, now: Time, until: Time, limit: i64) -> Result<Vec<Claimed>> {
        let lock = if self.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
        let sql = format!(
            "UPDATE desktops SET lease_owner = $1, lease_until = $2 WHERE id IN (SELECT id FROM desktops \
             WHERE next_try_at <= $3 AND (lease_until IS NULL OR lease_until <= $3) AND (host_id IS NOT NULL OR desired = 'absent') \
             ORDER BY next_try_at LIMIT $4{lock}) RETURNING id"
        );
        let ids: Vec<Uuid> = on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(owner).bind(until.micros()).bind(now.micros()).bind(limit).fetch_all(c))?;
        if ids.is_empty() {
            return Ok(vec![]);
        }
        let sql = format!(
            "SELECT {COLUMNS}, NULL AS assigned_name, i.file AS image_file, i.guest, p.vcpus, p.memory_mib, p.disk_gib FROM desktops d \
             JOIN pools p ON p.id = d.pool_id JOIN images i ON i.id = p.image_id WHERE d.lease_owner = $1 AND d.lease_until = $2"
        );
        let mut rows: Vec<Claimed> = on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(owner).bind(until.micros()).fetch_all(c))?;
        // An earlier claim of the same owner may have ended in the same microsecond.
        rows.retain(|r| ids.contains(&r.desktop.id.0));
        Ok(rows)
    }

    /// Writes back what a worker found, if the lease is still its own and nobody wants something else
    /// by now; `next_try_at` of `None` means settled. Otherwise the desktop is made due at once.
    /// `false` if the lease was lost.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn write_desktop(&mut self, owner: Uuid, d: &Desktop, release: bool, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET state = $4, state_since = $5, reset_asked = $6, stop_asked_at = $7, started_at = $8, boot_ms = $9, \
             addresses = $10, attempts = $11, next_try_at = $12, error_code = $13, error_text = $14, updated_at = $15, \
             lease_owner = CASE WHEN $16 THEN NULL ELSE lease_owner END, lease_until = CASE WHEN $16 THEN NULL ELSE lease_until END \
             WHERE id = $1 AND lease_owner = $2 AND generation = $3")
            .bind(d.id.0).bind(owner).bind(d.generation).bind(d.state.as_str()).bind(d.state_since).bind(d.reset_asked)
            .bind(d.stop_asked_at).bind(d.started_at).bind(d.boot_ms).bind(&d.addresses).bind(d.attempts).bind(d.next_try_at)
            .bind(d.error_code.as_deref()).bind(d.error_text.as_deref()).bind(now.micros()).bind(release).execute(c))?;
        if rows == 0 {
            exec_tx!(self, c => sqlx::query(
                "UPDATE desktops SET lease_owner = NULL, lease_until = NULL, next_try_at = $3 WHERE id = $1 AND lease_owner = $2")
                .bind(d.id.0).bind(owner).bind(now.micros()).execute(c))?;
        }
        self.touch(Kind::Desktop, d.id.0);
        self.touch(Kind::Pool, d.pool_id.0);
        Ok(rows == 1)
    }

    /// Takes a place among the boots of a host; `false` if `limit` are under way.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn take_boot_place(&mut self, owner: Uuid, d: &Desktop, limit: i64, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET state = 'starting', state_since = $3, updated_at = $3 WHERE id = $1 AND lease_owner = $2 AND \
             (SELECT COUNT(*) FROM desktops o WHERE o.host_id = $4 AND o.id <> $1 AND o.state IN ('starting', 'booting')) < $5")
            .bind(d.id.0).bind(owner).bind(now.micros()).bind(d.host_id).bind(limit).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Desktop, d.id.0);
        }
        Ok(rows == 1)
    }

    /// Removes the row of a desktop that is gone from its host, and remembers that it was ours.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_desktop(&mut self, owner: Uuid, d: &Desktop, now: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "DELETE FROM desktops WHERE id = $1 AND lease_owner = $2 AND desired = 'absent'").bind(d.id.0).bind(owner).execute(c))?;
        if rows == 1 {
            exec_tx!(self, c => sqlx::query(
                "INSERT INTO removed_desktops (id, removed_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(d.id.0).bind(now.micros()).execute(c))?;
        }
        self.touch(Kind::Desktop, d.id.0);
        self.touch(Kind::Pool, d.pool_id.0);
        Ok(rows == 1)
    }

    /// Makes a desktop due now, unless it is already.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn poke(&mut self, id: DesktopId, now: Time) -> Result<()> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET next_try_at = $2 WHERE id = $1 AND host_id IS NOT NULL AND (next_try_at IS NULL OR next_try_at > $2)")
            .bind(id.0).bind(now.micros()).execute(c))?;
        if rows == 1 {
            self.bus.nudge(Kind::Desktop);
        }
        Ok(())
    }

    /// Makes every desktop of a host due now: its connection was lost and is back.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn poke_host(&mut self, host: HostId, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE desktops SET next_try_at = $2 WHERE host_id = $1").bind(host.0).bind(now.micros()).execute(c))?;
        self.bus.nudge(Kind::Desktop);
        Ok(())
    }

    /// Takes back all leases: for the one server of a SQLite file, whose former self is dead.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn release_all_leases(&mut self) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE desktops SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL").execute(c))?;
        Ok(())
    }

    /// Records what somebody wants of a desktop and makes it due. `false` if there is none, or it is
    /// on its way out.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn want_desktop(&mut self, id: DesktopId, w: Want, now: Time) -> Result<bool> {
        let (desired, force, reset, rebuild) = match w {
            Want::Start => (Some("running"), false, false, false),
            Want::Stop { force } => (Some("stopped"), force, false, false),
            Want::Reset => (Some("running"), false, true, false),
            Want::Rebuild => (None, false, false, true),
        };
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE desktops SET desired = COALESCE($2, desired), force_stop = $3, reset_asked = $4, stop_asked_at = NULL, \
             disk_generation = disk_generation + CASE WHEN $5 THEN 1 ELSE 0 END, \
             state = CASE WHEN $5 THEN 'rebuilding' WHEN $2 = 'stopped' AND state IN ('running', 'booting') THEN 'stopping' ELSE state END, \
             state_since = $6, generation = generation + 1, attempts = 0, error_code = NULL, error_text = NULL, \
             next_try_at = CASE WHEN host_id IS NULL THEN NULL ELSE $6 END, updated_at = $6 WHERE id = $1 AND desired <> 'absent'")
            .bind(id.0).bind(desired).bind(force).bind(reset).bind(rebuild).bind(now.micros()).execute(c))?;
        self.touch(Kind::Desktop, id.0);
        Ok(rows == 1)
    }
}

/// What somebody wants of a desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Up.
    Start,
    /// Off; `force` cuts the power.
    Stop {
        /// Cut the power instead of asking.
        force: bool,
    },
    /// A hard reset.
    Reset,
    /// A fresh disk.
    Rebuild,
}
