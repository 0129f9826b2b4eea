//! Leases, the public keys that prove them, and what gateways did with them while this database was away.

use std::collections::HashSet;
use std::time::Duration;

use tram_wire::ids::{DesktopId, EndpointId, HostId, LeaseId, SessionId, UserId};
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// A lease as it was just issued.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Issued {
    /// Which; the former id if this renews one.
    #[sqlx(try_from = "Uuid")]
    pub id: LeaseId,
    /// By the database's clock, microseconds.
    pub issued_at: i64,
    /// When it is over.
    pub expires_at: i64,
}

/// What a lease is issued for.
#[derive(Clone, Copy, Debug)]
pub struct NewLease {
    /// Its id, unless it renews one.
    pub id: LeaseId,
    /// Whose.
    pub user: UserId,
    /// Where.
    pub endpoint: EndpointId,
    /// SHA-256 of the endpoint's certificate.
    pub certificate: [u8; 32],
    /// The session.
    pub session: SessionId,
    /// Its desktop.
    pub desktop: DesktopId,
    /// How long.
    pub life: Duration,
}

/// What a gateway keeps in mind for the time the database is away.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// The database's time.
    pub now: Time,
    /// Every lease that opens something now.
    pub live: HashSet<LeaseId>,
    /// Those that would not be over yet, and open nothing.
    pub void: HashSet<LeaseId>,
    /// What proves leases.
    pub keys: Vec<(String, Vec<u8>)>,
}

/// A lease for people.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct LeaseRow {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: LeaseId,
    /// Whose.
    pub username: String,
    /// Where.
    pub endpoint: String,
    /// Which desktop.
    pub desktop: String,
    /// When, microseconds.
    pub issued_at: i64,
    /// Until when.
    pub expires_at: i64,
    /// Why it opens nothing any more, if it was taken back.
    pub revoked_why: Option<String>,
    /// It opens something now.
    pub live: bool,
}

/// Which leases are taken back.
#[derive(Clone, Copy, Debug)]
pub enum LeasesOf {
    /// All there are.
    All,
    /// One officer's.
    User(UserId),
    /// A session's, at every place but this one.
    OtherPlaces(SessionId, Option<EndpointId>),
}

/// A lease opens something: it is not over or taken back, its session, officer, endpoint and desktop are as they
/// were. `l` is the lease.
const LIVE: &str = "l.revoked_at IS NULL AND l.expires_at > {now} AND EXISTS (SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id \
    JOIN desktops d ON d.id = s.desktop_id JOIN endpoints e ON e.id = l.endpoint_id WHERE s.id = l.session_id AND s.state <> 'ended' \
    AND s.user_id = l.user_id AND NOT u.disabled AND e.revoked_at IS NULL AND e.quarantined_at IS NULL AND d.id = l.desktop_id \
    AND d.assigned_user = l.user_id AND d.desired <> 'absent')";

fn live(db_now: &str) -> String {
    LIVE.replace("{now}", db_now)
}

impl Store {
    /// What a gateway needs to know of leases while the database is away, as of now.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn lease_sight(&self) -> Result<Sight> {
        let now = format!("SELECT {}", self.db_now());
        // The time comes first: what is issued after it is newer than what is seen.
        let now: i64 = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(now)).fetch_one(c))?;
        let sql = format!(
            "SELECT l.id, ({}) AS live FROM leases l WHERE l.expires_at > {}",
            live(self.db_now()),
            self.db_now()
        );
        let rows: Vec<(Uuid, bool)> = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?;
        let of = |wanted| rows.iter().filter(move |(_, live)| *live == wanted).map(|(id, _)| LeaseId(*id));
        let (live, void) = (of(true).collect(), of(false).collect());
        let keys = on_read!(self, c => sqlx::query_as("SELECT id, public FROM lease_keys").fetch_all(c))?;
        Ok(Sight { now: Time::from_micros(now), live, void, keys })
    }

    /// Leases that are not over, the newest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn leases(&self) -> Result<Vec<LeaseRow>> {
        let sql = format!(
            "SELECT l.id, u.username, e.name AS endpoint, s.desktop_name AS desktop, l.issued_at, l.expires_at, l.revoked_why, ({}) AS live \
             FROM leases l JOIN users u ON u.id = l.user_id JOIN endpoints e ON e.id = l.endpoint_id \
             JOIN sessions s ON s.id = l.session_id WHERE l.expires_at > {} ORDER BY l.issued_at DESC, l.id",
            live(self.db_now()),
            self.db_now()
        );
        Ok(on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?)
    }
}

impl Tx {
    /// The host of a desktop and which making of its disk it has, if it runs.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn running_desktop(&mut self, id: DesktopId) -> Result<Option<(HostId, i64)>> {
        let found: Option<(Uuid, i64)> = on_tx!(self, c => sqlx::query_as(
            "SELECT host_id, disk_generation FROM desktops WHERE id = $1 AND state = 'running' AND host_id IS NOT NULL")
            .bind(id.0).fetch_optional(c))?;
        Ok(found.map(|(host, generation)| (HostId(host), generation)))
    }

    /// Issues a lease, or renews the one of this session at this endpoint; one that was taken back is not renewed
    /// but replaced, so that its copies stay void.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_lease(&mut self, l: &NewLease) -> Result<Issued> {
        let life = i64::try_from(l.life.as_micros()).unwrap_or(i64::MAX);
        let sql = format!(
            "INSERT INTO leases (id, user_id, endpoint_id, session_id, desktop_id, certificate, issued_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, {0}, {0} + $7) ON CONFLICT (session_id, endpoint_id) DO UPDATE SET \
             id = CASE WHEN leases.revoked_at IS NULL THEN leases.id ELSE excluded.id END, desktop_id = excluded.desktop_id, \
             certificate = excluded.certificate, issued_at = excluded.issued_at, expires_at = excluded.expires_at, \
             revoked_at = NULL, revoked_why = NULL RETURNING id, issued_at, expires_at",
            self.db_now()
        );
        Ok(on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(l.id.0).bind(l.user.0).bind(l.endpoint.0)
            .bind(l.session.0).bind(l.desktop.0).bind(&l.certificate[..]).bind(life).fetch_one(c))?)
    }

    /// Lets gateways know a key that signs leases.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_lease_key(&mut self, id: &str, public: &[u8]) -> Result<()> {
        let sql = format!(
            "INSERT INTO lease_keys (id, public, made_at) VALUES ($1, $2, {}) ON CONFLICT (id) DO NOTHING",
            self.db_now()
        );
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).bind(public).execute(c))?;
        Ok(())
    }

    /// Forgets every key that signs leases.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_lease_keys(&mut self) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM lease_keys").execute(c))?;
        Ok(())
    }

    /// Whether a lease opens something now, for this certificate of its endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn lease_live(&mut self, id: LeaseId, endpoint: EndpointId, certificate: &[u8; 32]) -> Result<bool> {
        let sql = format!(
            "SELECT COUNT(*) FROM leases l WHERE l.id = $1 AND l.endpoint_id = $2 AND l.certificate = $3 AND {}",
            live(self.db_now())
        );
        let n: i64 = on_tx!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(id.0).bind(endpoint.0).bind(&certificate[..]).fetch_one(c))?;
        Ok(n > 0)
    }

    /// Takes leases back; how many.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn revoke_leases(&mut self, which: LeasesOf, why: &str) -> Result<u64> {
        let (clause, a, b) = match which {
            LeasesOf::All => ("$1 IS NULL AND $2 IS NULL", None, None),
            LeasesOf::User(id) => ("user_id = $1 AND $2 IS NULL", Some(id.0), None),
            LeasesOf::OtherPlaces(id, here) => {
                ("session_id = $1 AND ($2 IS NULL OR endpoint_id <> $2)", Some(id.0), here.map(|e| e.0))
            }
        };
        let sql = format!(
            "UPDATE leases SET revoked_at = {}, revoked_why = $3 WHERE revoked_at IS NULL AND {clause}",
            self.db_now()
        );
        Ok(exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(a).bind(b).bind(why).execute(c))?)
    }

    /// Removes leases, and notes of what was done with them, that were over longer than this ago.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_leases(&mut self, kept: Duration) -> Result<()> {
        let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let sql = format!("DELETE FROM leases WHERE expires_at < {} - $1", self.db_now());
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(kept).execute(c))?;
        // A gateway that was away for a year may still tell of it.
        let sql = format!("DELETE FROM lease_events WHERE at < {} - $1", self.db_now());
        exec_tx!(self, c => sqlx::query(sqlx::AssertSqlSafe(sql)).bind(kept.saturating_mul(366)).execute(c))?;
        Ok(())
    }

    /// Takes in what happened while the database was away. `false` if it was taken in before.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn take_in_lease_event(&mut self, id: Uuid, at: Time) -> Result<bool> {
        let rows = exec_tx!(self, c => sqlx::query(
            "INSERT INTO lease_events (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
            .bind(id).bind(at.micros()).execute(c))?;
        Ok(rows == 1)
    }

    /// A session was entered by a lease, at this time.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_leased(&mut self, id: SessionId, at: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query("UPDATE sessions SET leased_at = $2 WHERE id = $1 AND (leased_at IS NULL OR leased_at < $2)")
            .bind(id.0).bind(at.micros()).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(())
    }

    /// Somebody worked in a session until this time without the database: its wait for a viewer counts from then.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn session_worked(&mut self, id: SessionId, at: Time, up: i64, down: i64) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "UPDATE sessions SET bytes_up = bytes_up + $3, bytes_down = bytes_down + $4, \
             last_active_at = CASE WHEN last_active_at < $2 THEN $2 ELSE last_active_at END, \
             disconnected_at = CASE WHEN disconnected_at < $2 THEN $2 ELSE disconnected_at END WHERE id = $1 AND state <> 'ended'")
            .bind(id.0).bind(at.micros()).bind(up).bind(down).execute(c))?;
        self.touch(Kind::Session, id.0);
        Ok(())
    }

    /// The endpoint whose viewer a session has now, if any, and the gateway that carries it.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn carried_by(&mut self, id: SessionId) -> Result<Option<(Option<Uuid>, Option<Uuid>)>> {
        Ok(on_tx!(self, c => sqlx::query_as(
            "SELECT holder_endpoint, gateway_id FROM sessions WHERE id = $1 AND state = 'active'")
            .bind(id.0).fetch_optional(c))?)
    }
}

impl Store {
    /// Sessions that may be carried by lease at a gateway this database has not heard of: those with a live lease.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn sessions_with_leases(&self) -> Result<HashSet<SessionId>> {
        let sql = format!("SELECT l.session_id FROM leases l WHERE {}", live(self.db_now()));
        let ids: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(c))?;
        Ok(ids.into_iter().map(SessionId).collect())
    }
}
