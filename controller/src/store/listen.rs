//! Nudges between controllers and from `tram-controller admin`: PostgreSQL's LISTEN/NOTIFY.
//!
//! SQLite has no such thing; there the server looks at the database's change counter instead.

use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{Postgres, Transaction};

use super::{Db, Result, Store};
use crate::nudge::{Change, Kind};

const CHANNEL: &str = "tram_changes";
/// A payload stays well below PostgreSQL's 8,000 bytes: 49 bytes a change.
const PER_NOTE: usize = 100;

/// Queues the changes for delivery at commit.
pub(super) async fn notify(tx: &mut Transaction<'static, Postgres>, changes: &[Change]) -> Result<()> {
    let note = |part: &[Change]| {
        let text: Vec<String> = part.iter().map(|c| format!("{}:{}", c.kind.as_str(), c.id)).collect();
        text.join(",")
    };
    let notes: Vec<String> = changes.chunks(PER_NOTE).map(note).collect();
    if !notes.is_empty() {
        let sql = "SELECT pg_notify($1, n) FROM UNNEST($2::text[]) AS n";
        sqlx::query(sql).bind(CHANNEL).bind(notes).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Forwards what other processes committed to this process's bus. Runs until dropped.
///
/// On SQLite it watches `PRAGMA data_version`, which moves when another process has written, and then
/// wakes every reconciler; consoles are refreshed by what those find.
pub async fn forward(store: &Store) {
    loop {
        let ended = match store.db() {
            Db::Postgres(pool) => postgres(store, pool).await,
            Db::Sqlite { read, .. } => sqlite(store, read).await,
        };
        if let Err(e) = ended {
            tracing::warn!(error = %e, "listening for changes of other processes failed, trying again");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

async fn postgres(store: &Store, pool: &sqlx::PgPool) -> Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    // What was committed while nobody listened is found by looking at everything once.
    Kind::ALL.into_iter().for_each(|k| store.bus().nudge(k));
    loop {
        let note = listener.recv().await?;
        for part in note.payload().split(',') {
            if let Some((kind, id)) = part.split_once(':')
                && let (Some(kind), Ok(id)) = (Kind::parse(kind), id.parse())
            {
                store.bus().changed(Change { kind, id });
            }
        }
    }
}

async fn sqlite(store: &Store, read: &sqlx::SqlitePool) -> Result<()> {
    let mut conn = read.acquire().await?;
    // Our own writer counts as "another connection" too, so this wakes a little too often: one cheap
    // look per second is the price for needing no second channel.
    let mut last: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *conn).await?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now: i64 = sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *conn).await?;
        if now != last {
            last = now;
            Kind::ALL.into_iter().for_each(|k| store.bus().nudge(k));
        }
    }
}
