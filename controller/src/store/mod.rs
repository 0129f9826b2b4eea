//! Floor 2: all SQL. One repository for two databases.
//!
//! SQLite (one controller, the default) and PostgreSQL (several) run the same statements: both accept
//! `$1`, `ON CONFLICT`, `RETURNING` and `BIGINT`. What differs (claims, bulk inserts, notifications)
//! stands in small `match` arms. `tests/store.rs` runs every function on both.
//!
//! Writing happens in a [`Tx`]; what changed is remembered there and told to the [`Bus`] after the commit.

use std::collections::HashSet;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, PgPool, Postgres, Sqlite, SqlitePool, Transaction};
use tokio_util::sync::CancellationToken;
use tram_wire::ids::InstallationId;
use uuid::Uuid;

use crate::domain::access::Scope;
use crate::domain::ticket::Binding;
use crate::domain::time::Time;
use crate::nudge::{Bus, Change, Kind};

pub mod assists;
pub mod audit;
pub mod calls;
pub mod copies;
pub mod desktops;
pub mod diagnosis;
pub mod endpoints;
pub mod enrolments;
pub mod gateways;
pub mod health;
pub mod health_batch;
pub mod hosts;
pub mod images;
pub mod incidents;
pub mod leases;
pub mod line;
pub mod listen;
mod lock;
mod metered;
pub mod notify;
pub mod pools;
pub mod returns;
pub mod runbooks;
pub mod samples;
pub mod sessions;
pub mod site_lines;
pub mod site_paths;
pub mod sites;
pub mod then;
pub mod tickets;
pub mod updates;
pub mod users;

pub use lock::ServerLock;

/// Why a statement failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique value exists already.
    #[error("{0} exists already")]
    Duplicate(String),
    /// Something still refers to the row, or the row refers to nothing.
    #[error("the row is referred to, or refers to nothing: {0}")]
    Reference(String),
    /// The database can't be reached, is full, read-only or too slow.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database broke off one of two transactions that waited for each other: repeating it helps.
    #[error("the transaction met another one and was broken off: {0}")]
    Contended(String),
    /// The database was made by a newer version.
    #[error(
        "this database was made by a newer version of Tram (it has migration {0}); run that version, or restore a backup made before the upgrade"
    )]
    Newer(i64),
    /// Another server uses this SQLite file.
    #[error(
        "another tram-controller (process {pid}) already serves this SQLite database; stop it first, or use PostgreSQL to run several controllers"
    )]
    InUse {
        /// Process that holds it, 0 if unknown.
        pid: u32,
    },
    /// A gateway of this name runs already.
    #[error("a gateway named {name} (process {pid}) runs on this data folder already; give each its own gateway.name")]
    Named {
        /// The name.
        name: String,
        /// Process that has it, 0 if unknown.
        pid: u32,
    },
    /// The data folder can't be written.
    #[error("the data folder {0} can't be used: {1}")]
    Folder(String, std::io::Error),
    /// A fault of ours: bad SQL or a value that does not decode.
    #[error("internal database error: {0}")]
    Internal(String),
}

/// Shorthand for this floor's results.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        match &e {
            sqlx::Error::Database(d) => match d.kind() {
                ErrorKind::UniqueViolation => Self::Duplicate(d.message().to_owned()),
                ErrorKind::ForeignKeyViolation => Self::Reference(d.message().to_owned()),
                _ => {
                    let code = d.code().unwrap_or_default();
                    // SQLite primary codes: 5 busy, 6 locked, 8 read-only, 10 I/O, 13 full, 14 can't open.
                    let primary = code.parse::<i64>().map(|c| c & 0xff);
                    let sqlite_down = d.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
                        && matches!(primary, Ok(5 | 6 | 8 | 10 | 13 | 14));
                    // PostgreSQL classes: 08 connection, 53 resources, 57 operator intervention.
                    let pg_down = d.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some()
                        && ["08", "53", "57", "25006"].iter().any(|c| code.starts_with(c));
                    // PostgreSQL: serialization failure, deadlock detected.
                    if matches!(&*code, "40001" | "40P01") {
                        Self::Contended(d.message().to_owned())
                    } else if sqlite_down || pg_down {
                        Self::Unavailable(d.message().to_owned())
                    } else {
                        Self::Internal(e.to_string())
                    }
                }
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unavailable(e.to_string())
            }
            _ => Self::Internal(e.to_string()),
        }
    }
}

/// The connection pools.
#[derive(Clone, Debug)]
pub enum Db {
    /// One writer, several readers, WAL.
    Sqlite {
        /// Pool of exactly one connection: SQLite has one writer at a time anyway.
        write: SqlitePool,
        /// Readers never wait for the writer.
        read: SqlitePool,
    },
    /// A shared server.
    Postgres(PgPool),
}

/// The database.
#[derive(Clone)]
pub struct Store {
    db: Db,
    bus: Bus,
}

/// Runs a statement on the transaction, whichever database it is: `on_tx!(tx, c => query.execute(c))`.
macro_rules! on_tx {
    ($tx:expr, $c:ident => $body:expr) => {
        match &mut $tx.inner {
            $crate::store::TxInner::Sqlite(t) => {
                let $c = &mut **t;
                $body.await
            }
            $crate::store::TxInner::Postgres(t) => {
                let $c = &mut **t;
                $body.await
            }
        }
    };
}

/// Runs a read on a pool: `on_read!(store, c => query.fetch_all(c))`.
macro_rules! on_read {
    ($store:expr, $c:ident => $body:expr) => {
        match &$store.db {
            $crate::store::Db::Sqlite { read, .. } => {
                let $c = read;
                $body.await
            }
            $crate::store::Db::Postgres(p) => {
                let $c = p;
                $body.await
            }
        }
    };
}

/// Runs a statement that returns no rows on the transaction; the number of rows it changed.
macro_rules! exec_tx {
    ($tx:expr, $c:ident => $body:expr) => {
        match &mut $tx.inner {
            $crate::store::TxInner::Sqlite(t) => {
                let $c = &mut **t;
                $body.await.map(|done| done.rows_affected())
            }
            $crate::store::TxInner::Postgres(t) => {
                let $c = &mut **t;
                $body.await.map(|done| done.rows_affected())
            }
        }
    };
}

pub(crate) use {exec_tx, on_read, on_tx};

/// PostgreSQL connections of one process at most.
const MOST: u32 = 16;
/// Those that a serving process keeps open. A controller and four gateways keep 40 of the 100 that PostgreSQL allows.
const WARM: u32 = 8;
/// How often they are looked after.
const WARM_AGAIN: Duration = Duration::from_secs(300);
/// A connection is made anew at this age, so that what its server keeps for it does not grow for ever.
const AGE: Duration = Duration::from_secs(6 * 3600);

/// Migrations for SQLite.
pub static SQLITE_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");
/// Migrations for PostgreSQL: same numbers, same tables and columns.
pub static POSTGRES_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

impl Store {
    /// Opens the database a URL names: `sqlite:///path/file.db` or `postgres://…`. Does not migrate.
    ///
    /// # Errors
    /// [`StoreError::Folder`] or [`StoreError::Unavailable`].
    pub async fn open(url: &str, bus: Bus) -> Result<Self> {
        Self::open_with(url, bus, 0).await
    }

    /// The same for a server that is asked at any moment: on PostgreSQL it keeps [`WARM`] connections open, day and
    /// night, for [`Self::warm`]. Else those are closed by and by, and the first officers of the morning wait while each is
    /// made anew (measured: 160 to 290 ms at the 99th percentile of 200 sign-ins a second).
    ///
    /// # Errors
    /// Like [`Self::open`].
    pub async fn open_to_serve(url: &str, bus: Bus) -> Result<Self> {
        Self::open_with(url, bus, WARM).await
    }

    async fn open_with(url: &str, bus: Bus, warm: u32) -> Result<Self> {
        let db = if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url).map_err(|e| StoreError::Unavailable(e.to_string()))?;
            Db::Postgres(
                PgPoolOptions::new()
                    .max_connections(MOST)
                    .min_connections(warm)
                    .max_lifetime(AGE)
                    // To make one takes a handshake and a password's hashing: seconds, where the machine is slow and busy.
                    .acquire_timeout(Duration::from_secs(10))
                    .connect_with(options)
                    .await?,
            )
        } else {
            let path = sqlite_path(url).ok_or_else(|| {
                StoreError::Unavailable(format!("`{url}` is neither sqlite:///FILE nor postgres://…"))
            })?;
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| StoreError::Folder(parent.display().to_string(), e))?;
            }
            // It holds password hashes: for the owner's eyes only (SQLite gives its side files the same mode).
            let private = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            private.map_err(|e| StoreError::Folder(path.display().to_string(), e))?;
            let options = SqliteConnectOptions::new()
                .filename(path)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // Intent must survive a power cut: an acknowledged request is on disk.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(Duration::from_secs(5))
                // Rows cross from SQLite's thread in batches; with the default of 50 a list of thousands is
                // mostly waking each other up.
                .row_buffer_size(1024)
                .foreign_keys(true);
            let write = SqlitePoolOptions::new()
                .max_connections(1)
                .acquire_timeout(Duration::from_secs(10))
                // Out of room, SQLite rolls back by itself; the driver's count of open transactions then never
                // comes down, and the one writer would refuse every later one. Such a connection is replaced.
                .before_acquire(|c, _| Box::pin(async move { Ok(!c.is_in_transaction()) }))
                .connect_with(options.clone())
                .await
                .map_err(|e| folder_fault(path, e))?;
            let read = SqlitePoolOptions::new()
                .max_connections(4)
                .acquire_timeout(Duration::from_secs(10))
                .connect_with(options)
                .await
                .map_err(|e| folder_fault(path, e))?;
            Db::Sqlite { write, read }
        };
        Ok(Self { db, bus })
    }

    /// Brings the tables up to this version. Repeatable.
    ///
    /// # Errors
    /// [`StoreError::Newer`] if the database has a migration this version does not know.
    pub async fn migrate(&self) -> Result<()> {
        let done = match &self.db {
            Db::Sqlite { write, .. } => SQLITE_MIGRATIONS.run(write).await,
            Db::Postgres(p) => POSTGRES_MIGRATIONS.run(p).await,
        };
        done.map_err(|e| match e {
            MigrateError::VersionMissing(v) => StoreError::Newer(v),
            MigrateError::Execute(e) => e.into(),
            other => StoreError::Internal(other.to_string()),
        })
    }

    /// Whether the tables are those of this version. A gateway waits for the controller to bring them there.
    ///
    /// # Errors
    /// [`StoreError::Newer`] if they are a later version's; [`StoreError::Unavailable`].
    pub async fn is_current(&self) -> Result<bool> {
        let ours: Vec<i64> = SQLITE_MIGRATIONS.iter().map(|m| m.version).collect();
        let sql = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
        let found: Result<Vec<i64>, _> = on_read!(self, c => sqlx::query_scalar(sql).fetch_all(c));
        match found.map_err(StoreError::from) {
            Ok(found) => match found.iter().find(|v| !ours.contains(v)) {
                Some(later) => Err(StoreError::Newer(*later)),
                None => Ok(found == ours),
            },
            // There is no such table yet.
            Err(StoreError::Internal(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// This installation's id, made on first use.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn installation(&self, fresh: InstallationId, now: Time) -> Result<InstallationId> {
        let mut tx = self.begin().await?;
        let found: Option<Uuid> = on_tx!(tx, c => sqlx::query_scalar("SELECT id FROM installation").fetch_optional(c))?;
        if let Some(id) = found {
            return Ok(InstallationId(id));
        }
        exec_tx!(tx, c => sqlx::query("INSERT INTO installation (id, created_at) VALUES ($1, $2)")
            .bind(fresh.0).bind(now.micros()).execute(c))?;
        tx.commit().await?;
        Ok(fresh)
    }

    /// Begins a transaction that may write. On SQLite it takes the write lock at once, so that it can't
    /// fail half-way for another writer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin(&self) -> Result<Tx> {
        let inner = match &self.db {
            Db::Sqlite { write, .. } => TxInner::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Db::Postgres(p) => TxInner::Postgres(p.begin().await?),
        };
        Ok(Tx { inner, bus: self.bus.clone(), changes: Vec::new(), told: HashSet::new() })
    }

    /// Lets [`WARM`] connections learn the statements of a way in: the first officers of the morning need not wait for
    /// each of them to do so. On SQLite there is nothing to do.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn warm(&self) -> Result<()> {
        if matches!(self.db, Db::Sqlite { .. }) {
            return Ok(());
        }
        let mut open = Vec::new();
        for _ in 0..WARM {
            // Held together, so that each is another one; nothing is committed.
            open.push(self.begin().await?);
        }
        let (user, session, desktop) = (Uuid::nil().into(), Uuid::nil().into(), Uuid::nil().into());
        let (stranger, nowhere) = (Binding::Browser([0; 32]), Scope::Sites(vec![String::new()]));
        for tx in &mut open {
            tx.lock_user(user).await?;
            tx.live_session_of(user).await?;
            tx.kept_desktop(user, &nowhere).await?;
            tx.line().await?;
            tx.free_desktop(user, &nowhere, false).await?;
            tx.assign_desktop(desktop, user, Time::from_micros(0)).await?;
            tx.place_key(&stranger).await?;
            tx.redeem_ticket(&[0; 32], &stranger, None).await?;
            tx.hold_at(session, &stranger).await?;
            tx.hold_session(session).await?;
        }
        for tx in open {
            // Not by dropping it: that gives the connection back some time later.
            if let TxInner::Postgres(t) = tx.inner {
                t.rollback().await?;
            }
        }
        Ok(())
    }

    /// Does so every few minutes until stopped: connections that ended, of age or of a fault, have successors that know
    /// nothing yet.
    pub async fn keep_warm(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(WARM_AGAIN)).await.is_some() {
            // In a busy hour they know all of it, and are not to be had. That the database is gone others say.
            if matches!(&self.db, Db::Postgres(p) if p.num_idle() >= WARM as usize) {
                let _ = self.warm().await;
            }
        }
    }

    /// The bus that commits are told to.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Which database it is, for people: `SQLite` or `PostgreSQL`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match &self.db {
            Db::Sqlite { .. } => "SQLite",
            Db::Postgres(_) => "PostgreSQL",
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ping(&self) -> Result<()> {
        let _: i64 = on_read!(self, c => sqlx::query_scalar("SELECT CAST(1 AS BIGINT)").fetch_one(c))?;
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite { write, read } => {
                read.close().await;
                write.close().await;
            }
            Db::Postgres(p) => p.close().await,
        }
    }

    /// The pools, for the rare statement that needs one (notifications, tests).
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }
}

/// The file behind a `sqlite:` URL.
#[must_use]
pub fn sqlite_path(url: &str) -> Option<&Path> {
    let rest = url.strip_prefix("sqlite:")?;
    Some(Path::new(rest.strip_prefix("//").unwrap_or(rest)))
}

fn folder_fault(path: &Path, e: sqlx::Error) -> StoreError {
    match StoreError::from(e) {
        StoreError::Unavailable(text) | StoreError::Internal(text) => {
            StoreError::Folder(path.display().to_string(), std::io::Error::other(text))
        }
        other => other,
    }
}

enum TxInner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A transaction. Dropped without [`Tx::commit`], it leaves no trace.
pub struct Tx {
    inner: TxInner,
    bus: Bus,
    changes: Vec<Change>,
    /// The same, to be found.
    told: HashSet<Change>,
}

impl Tx {
    /// Remembers that a row changed; told to the bus (and to other controllers) at commit.
    pub fn touch(&mut self, kind: Kind, id: Uuid) {
        let change = Change { kind, id };
        if self.told.insert(change) {
            self.changes.push(change);
        }
    }

    /// Whether this is PostgreSQL, for the few statements that differ.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.inner, TxInner::Postgres(_))
    }

    /// Makes it last, then wakes whoever looks after what changed.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing was written then.
    pub async fn commit(mut self) -> Result<()> {
        if let TxInner::Postgres(t) = &mut self.inner {
            listen::notify(t, &self.changes).await?;
        }
        match self.inner {
            TxInner::Sqlite(t) => t.commit().await?,
            TxInner::Postgres(t) => t.commit().await?,
        }
        for c in self.changes {
            self.bus.changed(c);
        }
        Ok(())
    }
}

/// A text as itself inside a `LIKE … ESCAPE '\'` pattern.
pub(crate) fn like_literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
