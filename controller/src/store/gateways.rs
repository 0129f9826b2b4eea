//! Gateways: the processes that carry display traffic. Whether one lives is judged by the database's clock.

use std::time::Duration;

use tram_wire::ids::SessionId;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::gateway::{GatewayState, KEPT, SILENCE, state};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Name given by the operator, one for each.
    pub name: String,
    /// Where browsers reach it.
    pub web_url: String,
    /// Where endpoints reach it; empty: where they reach their controller.
    pub agent_url: String,
    /// It is part of a controller's process.
    pub embedded: bool,
    /// It reaches hosts that only the controller's own machine reaches.
    pub local_hosts: bool,
}

/// One row.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Gateway {
    /// The process.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Where browsers reach it.
    pub web_url: String,
    /// Where endpoints reach it; empty: where they reach their controller.
    pub agent_url: String,
    /// Its release.
    pub version: String,
    /// It is part of a controller's process.
    pub embedded: bool,
    /// It reaches hosts that only the controller's own machine reaches.
    pub local_hosts: bool,
    /// Connections it said it carries, assists included.
    pub connections: i64,
    /// What it did by leases without the database and has not written down yet: connections and events.
    pub untold: i64,
    /// An operator wants it empty.
    pub draining: bool,
    /// When it started, microseconds.
    pub started_at: i64,
    /// When it was heard last, microseconds.
    pub seen_at: i64,
    /// When it was stopped.
    pub stopped_at: Option<i64>,
    /// How long it has been silent, microseconds.
    pub silent: i64,
    /// Sessions that are counted at it.
    pub sessions: i64,
}

impl Gateway {
    /// Where it is.
    #[must_use]
    pub fn state(&self) -> GatewayState {
        state(self.silent(), self.draining, self.stopped_at.is_some())
    }

    /// How long nothing was heard of it.
    #[must_use]
    pub fn silent(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.silent).unwrap_or(0))
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// Whether the gateway `g` lives, as an SQL condition.
pub(super) fn lives(now: &str) -> String {
    format!("g.stopped_at IS NULL AND g.seen_at >= {now} - {}", micros(SILENCE))
}

impl Store {
    /// All gateways that said who they are, by name; the newest process of a name first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn gateways(&self) -> Result<Vec<Gateway>> {
        let sql = format!(
            "SELECT g.id, g.name, g.web_url, g.agent_url, g.version, g.embedded, g.local_hosts, g.connections, g.untold, g.draining, g.started_at, \
             g.seen_at, g.stopped_at, {} - g.seen_at AS silent, \
             (SELECT COUNT(*) FROM sessions s WHERE s.state = 'active' AND s.gateway_id = g.id) AS sessions \
             FROM gateways g WHERE g.name <> '' ORDER BY g.name, g.started_at DESC",
            self.db_now()
        );
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?)
    }

    /// How much gateways that live have still to tell of what they did without the database.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn untold(&self) -> Result<i64> {
        let sql =
            format!("SELECT CAST(COALESCE(SUM(g.untold), 0) AS BIGINT) FROM gateways g WHERE {}", lives(self.db_now()));
        Ok(on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(c))?)
    }
}

impl Tx {
    /// A gateway lives; nothing else of it is said.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn gateway_alive(&mut self, id: Uuid) -> Result<()> {
        let sql = format!(
            "INSERT INTO gateways (id, started_at, seen_at) VALUES ($1, {0}, {0}) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).execute(c))?;
        Ok(())
    }

    /// What a gateway has still to tell of its time without the database.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn gateway_untold(&mut self, id: Uuid, untold: i64) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE gateways SET untold = $2 WHERE id = $1 AND untold <> $2")
            .bind(id).bind(untold).execute(c))?;
        Ok(())
    }

    /// A process takes a name over from the one that had it, which is gone. Whether that one was to be empty.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn take_gateway_name(&mut self, name: &str, id: Uuid) -> Result<bool> {
        let former: Vec<bool> = on_tx!(self, c => sqlx::query_scalar("DELETE FROM gateways WHERE name = $1 AND id <> $2 RETURNING draining")
            .bind(name).bind(id).fetch_all(c))?;
        Ok(former.contains(&true))
    }

    /// A gateway lives, is so and carries so many; whether it is to be empty. `draining` counts only for a new row.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn gateway_beat(&mut self, id: Uuid, me: &Me, connections: i64, draining: bool) -> Result<bool> {
        let sql = format!(
            "INSERT INTO gateways (id, name, web_url, agent_url, version, embedded, local_hosts, connections, draining, started_at, seen_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, {0}, {0}) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             web_url = excluded.web_url, agent_url = excluded.agent_url, version = excluded.version, embedded = excluded.embedded, \
             local_hosts = excluded.local_hosts, connections = excluded.connections, seen_at = excluded.seen_at RETURNING draining",
            self.db_now()
        );
        Ok(on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(id).bind(&me.name).bind(&me.web_url)
            .bind(&me.agent_url).bind(env!("CARGO_PKG_VERSION")).bind(me.embedded).bind(me.local_hosts).bind(connections)
            .bind(draining).fetch_one(c))?)
    }

    /// A gateway is about to stop: nothing new is sent to it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn gateway_stopped(&mut self, id: Uuid) -> Result<()> {
        let sql = format!("UPDATE gateways SET stopped_at = {} WHERE id = $1", self.db_now());
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).execute(c))?;
        self.touch(Kind::Gateway, id);
        Ok(())
    }

    /// Whether a gateway is to be empty; its name. `None`: no such gateway.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn drain_gateway(&mut self, id: Uuid, draining: bool) -> Result<Option<String>> {
        let name = on_tx!(self, c => sqlx::query_scalar("UPDATE gateways SET draining = $2 WHERE id = $1 RETURNING name")
            .bind(id).bind(draining).fetch_optional(c))?;
        self.touch(Kind::Gateway, id);
        Ok(name)
    }

    /// Sessions whose gateway is gone wait for their viewers; gateways gone for long are forgotten.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn orphaned_sessions(&mut self, now: Time) -> Result<usize> {
        let db_now = self.db_now();
        let forget = format!("DELETE FROM gateways WHERE seen_at < {db_now} - $1");
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(forget)).bind(micros(KEPT)).execute(c))?;
        let sql = format!(
            "UPDATE sessions SET state = 'disconnected', gateway_id = NULL, disconnected_at = $1 WHERE state = 'active' \
             AND NOT EXISTS (SELECT 1 FROM gateways g WHERE g.id = sessions.gateway_id AND {}) RETURNING id",
            lives(db_now)
        );
        let ids: Vec<Uuid> =
            on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(now.micros()).fetch_all(c))?;
        ids.iter().for_each(|id| self.touch(Kind::Session, *id));
        Ok(ids.len())
    }

    /// A connection that was taken for lost goes on: its session is where it was, if nobody else connected since.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn reclaim_session(&mut self, id: SessionId, epoch: i64, gateway: Uuid) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET state = 'active', gateway_id = $3, disconnected_at = NULL \
             WHERE id = $1 AND epoch = $2 AND state = 'disconnected'")
            .bind(id.0).bind(epoch).bind(gateway).execute(c))?;
        if rows == 1 {
            self.touch(Kind::Session, id.0);
        }
        Ok(rows == 1)
    }

    /// Forgets the gateways of controllers: for the one server of a SQLite file, whose former self is dead.
    /// Gateways of their own live on.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_embedded_gateways(&mut self) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM gateways WHERE embedded").execute(c))?;
        Ok(())
    }
}
