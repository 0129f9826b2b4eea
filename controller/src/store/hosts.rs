//! Hosts.

use sqlx::types::Json;
use tram_hypervisor::HostInfo;
use tram_wire::ids::HostId;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::host::{AccelSetting, HostState};
use crate::domain::placement::Room;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Host {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: HostId,
    /// Unique name.
    pub name: String,
    /// How to reach it, such as `qemu:///system`.
    pub uri: String,
    /// What the operator allows.
    #[sqlx(try_from = "String")]
    pub accel_policy: AccelSetting,
    /// What we know of it.
    #[sqlx(try_from = "String")]
    pub state: HostState,
    /// Why, for people.
    pub state_reason: String,
    /// The last answer to a look.
    pub info: Option<Json<HostInfo>>,
    /// Objects on it that carry our mark but which this database does not know.
    pub unknown_desktops: i64,
    /// When it last answered, microseconds.
    pub seen_at: Option<i64>,
    /// Desktops placed on it.
    pub desktops: i64,
    /// Of these, running.
    pub running: i64,
}

const SELECT: &str = "SELECT h.id, h.name, h.uri, h.accel_policy, h.state, h.state_reason, h.info, h.unknown_desktops, h.seen_at, \
    COUNT(d.id) AS desktops, CAST(COALESCE(SUM(CASE WHEN d.state IN ('running', 'booting') THEN 1 ELSE 0 END), 0) AS BIGINT) AS running \
    FROM hosts h LEFT JOIN desktops d ON d.host_id = h.id";
const GROUP: &str = " GROUP BY h.id, h.name, h.uri, h.accel_policy, h.state, h.state_reason, h.info, h.unknown_desktops, h.seen_at ORDER BY h.name";

impl Store {
    /// All hosts by name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn hosts(&self) -> Result<Vec<Host>> {
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT}{GROUP}"))).fetch_all(c))?)
    }

    /// One host.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn host(&self, id: HostId) -> Result<Option<Host>> {
        let sql = format!("{SELECT} WHERE h.id = $1{GROUP}");
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id.0).fetch_optional(c))?)
    }

    /// Room on every host, for placement.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn rooms(&self) -> Result<Vec<Room>> {
        let promised: Vec<(Uuid, i64)> = on_read!(self, c => sqlx::query_as(
            "SELECT d.host_id, CAST(SUM(p.memory_mib) AS BIGINT) FROM desktops d JOIN pools p ON p.id = d.pool_id \
             WHERE d.host_id IS NOT NULL AND d.desired = 'running' GROUP BY d.host_id").fetch_all(c))?;
        let rooms = self.hosts().await?.into_iter().map(|h| {
            let info = h.info.as_ref();
            Room {
                host: h.id,
                usable: h.state == HostState::Up,
                memory_mib: info.map_or(0, |i| i.memory_mib.cast_signed()),
                promised_mib: promised.iter().find(|(id, _)| *id == h.id.0).map_or(0, |(_, m)| *m),
                disk_free_mib: info.map_or(0, |i| i.disk_free_mib.cast_signed()),
                desktops: h.desktops,
            }
        });
        Ok(rooms.collect())
    }
}

impl Tx {
    /// Adds a host, or changes the address and policy of the one with that name.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_host(
        &mut self,
        id: HostId,
        name: &str,
        uri: &str,
        accel: AccelSetting,
        now: Time,
    ) -> Result<HostId> {
        let id: Uuid = on_tx!(self, c => sqlx::query_scalar(
            "INSERT INTO hosts (id, name, uri, accel_policy, state, state_reason, unknown_desktops, created_at) \
             VALUES ($1, $2, $3, $4, 'connecting', '', 0, $5) \
             ON CONFLICT (name) DO UPDATE SET uri = excluded.uri, accel_policy = excluded.accel_policy RETURNING id")
            .bind(id.0).bind(name).bind(uri).bind(accel.as_str()).bind(now.micros()).fetch_one(c))?;
        self.touch(Kind::Host, id);
        Ok(HostId(id))
    }

    /// Changes what the operator set. `false` if there is no such host.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn set_host(&mut self, id: HostId, enabled: Option<bool>, accel: Option<AccelSetting>) -> Result<bool> {
        let state = enabled.map(|on| if on { HostState::Connecting } else { HostState::Disabled }.as_str());
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE hosts SET state = COALESCE($2, state), accel_policy = COALESCE($3, accel_policy) WHERE id = $1")
            .bind(id.0).bind(state).bind(accel.map(AccelSetting::as_str)).execute(c))?;
        self.touch(Kind::Host, id.0);
        Ok(rows == 1)
    }

    /// Writes down what a look at the host found. A disabled host stays disabled.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn host_seen(&mut self, id: HostId, info: &HostInfo, unknown: i64, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE hosts SET state = CASE state WHEN 'disabled' THEN 'disabled' ELSE 'up' END, state_reason = '', \
             info = $2, unknown_desktops = $3, seen_at = $4 WHERE id = $1")
            .bind(id.0).bind(Json(info)).bind(unknown).bind(now.micros()).execute(c))?;
        self.touch(Kind::Host, id.0);
        Ok(())
    }

    /// The host does not answer, and why.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn host_lost(&mut self, id: HostId, reason: &str) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE hosts SET state = CASE state WHEN 'disabled' THEN 'disabled' ELSE 'down' END, state_reason = $2 WHERE id = $1")
            .bind(id.0).bind(reason).execute(c))?;
        self.touch(Kind::Host, id.0);
        Ok(())
    }
}
