//! How sessions felt, point by point.

use sqlx::types::Json;
use tram_wire::ids::SessionId;

use super::{Result, Store, Tx, exec_tx, on_read};
use crate::domain::experience::Sample;
use crate::domain::time::Time;

/// One point of a session's course.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Point {
    /// When, microseconds.
    pub at: i64,
    /// Which connection of the session.
    pub epoch: i64,
    /// What it was like since the point before.
    #[sqlx(json)]
    pub sample: Sample,
}

impl Store {
    /// A session's course, oldest first.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn samples(&self, id: SessionId) -> Result<Vec<Point>> {
        Ok(
            on_read!(self, c => sqlx::query_as("SELECT at, epoch, sample FROM session_samples WHERE session_id = $1 ORDER BY at")
            .bind(id.0).fetch_all(c))?,
        )
    }
}

impl Tx {
    /// Adds a point; those of the session that are older than `kept` go.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_sample(
        &mut self,
        id: SessionId,
        epoch: i64,
        sample: &Sample,
        now: Time,
        kept: std::time::Duration,
    ) -> Result<()> {
        exec_tx!(self, c => sqlx::query("DELETE FROM session_samples WHERE session_id = $1 AND at < $2")
            .bind(id.0).bind(now.minus(kept).micros()).execute(c))?;
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO session_samples (session_id, at, epoch, sample) VALUES ($1, $2, $3, $4) ON CONFLICT (session_id, at) DO NOTHING")
            .bind(id.0).bind(now.micros()).bind(epoch).bind(Json(sample)).execute(c))?;
        Ok(())
    }

    /// Removes points from before a time, of every session.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn forget_samples(&mut self, before: Time) -> Result<u64> {
        Ok(
            exec_tx!(self, c => sqlx::query("DELETE FROM session_samples WHERE at < $1").bind(before.micros()).execute(c))?,
        )
    }
}
