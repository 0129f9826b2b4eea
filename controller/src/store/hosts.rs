//! Hosts.

use sqlx::types::Json;
use tram_hypervisor::HostInfo;
use tram_wire::ids::{DesktopId, HostId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::host::{AccelSetting, HostState, Usage};
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
    /// It is being emptied.
    pub draining: bool,
    /// Desktops placed on it.
    pub desktops: i64,
    /// Of these, running.
    pub running: i64,
}

const SELECT: &str = "SELECT h.id, h.name, h.uri, h.accel_policy, h.state, h.state_reason, h.info, h.unknown_desktops, h.seen_at, h.draining, \
    COUNT(d.id) AS desktops, CAST(COALESCE(SUM(CASE WHEN d.state IN ('running', 'booting') THEN 1 ELSE 0 END), 0) AS BIGINT) AS running \
    FROM hosts h LEFT JOIN desktops d ON d.host_id = h.id";
const GROUP: &str = " GROUP BY h.id, h.name, h.uri, h.accel_policy, h.state, h.state_reason, h.info, h.unknown_desktops, h.seen_at, h.draining ORDER BY h.name";

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
    pub async fn set_host(&mut self, id: HostId, usage: Option<Usage>, accel: Option<AccelSetting>) -> Result<bool> {
        let state = usage.map(|u| if u == Usage::Open { HostState::Connecting } else { HostState::Disabled }.as_str());
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE hosts SET state = CASE WHEN $2 = 'connecting' AND state <> 'disabled' THEN state ELSE COALESCE($2, state) END, \
             accel_policy = COALESCE($3, accel_policy), draining = COALESCE($4, draining) WHERE id = $1")
            .bind(id.0).bind(state).bind(accel.map(AccelSetting::as_str)).bind(usage.map(|u| u == Usage::Drained)).execute(c))?;
        self.touch(Kind::Host, id.0);
        Ok(rows == 1)
    }

    /// Adds a host under a new name.
    ///
    /// # Errors
    /// [`super::StoreError::Duplicate`] if a host has the name.
    pub async fn add_host(&mut self, id: HostId, name: &str, uri: &str, accel: AccelSetting, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO hosts (id, name, uri, accel_policy, state, state_reason, unknown_desktops, created_at) \
             VALUES ($1, $2, $3, $4, 'connecting', '', 0, $5)")
            .bind(id.0).bind(name).bind(uri).bind(accel.as_str()).bind(now.micros()).execute(c))?;
        self.touch(Kind::Host, id.0);
        Ok(())
    }

    /// Forgets a host that carries no desktop. `false` if it carries one, or is not there.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_host(&mut self, id: HostId) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "DELETE FROM hosts WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM desktops WHERE host_id = $1)")
            .bind(id.0).execute(c))?;
        self.touch(Kind::Host, id.0);
        Ok(rows == 1)
    }

    /// Desktops of hosts that are being emptied which nobody uses or keeps, a few at a time: only where another host is
    /// up, and only in pools whose other desktops stand, so that no pool is ever short of more than these.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn to_move_away(&mut self, most: i64) -> Result<Vec<DesktopId>> {
        let ids: Vec<Uuid> = on_tx!(self, c => sqlx::query_scalar(
            "SELECT d.id FROM desktops d JOIN hosts h ON h.id = d.host_id JOIN pools p ON p.id = d.pool_id \
             WHERE h.draining AND d.desired <> 'absent' AND NOT p.persistent AND p.desired = 'present' \
             AND d.assigned_user IS NULL \
             AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.desktop_id = d.id AND s.state <> 'ended') \
             AND EXISTS (SELECT 1 FROM hosts o WHERE o.id <> h.id AND o.state = 'up') \
             AND NOT EXISTS (SELECT 1 FROM desktops o JOIN hosts oh ON oh.id = o.host_id WHERE o.pool_id = d.pool_id \
             AND NOT oh.draining AND o.state NOT IN ('running', 'defined', 'stopped', 'failed')) \
             AND NOT EXISTS (SELECT 1 FROM desktops o WHERE o.pool_id = d.pool_id AND (o.host_id IS NULL OR o.desired = 'absent')) \
             ORDER BY d.ordinal DESC LIMIT $1").bind(most).fetch_all(c))?;
        Ok(ids.into_iter().map(DesktopId).collect())
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
