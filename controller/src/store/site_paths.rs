//! How offices' lines to the data centre did, hour by hour, and what is usual there.

use tram_wire::ids::EndpointId;

use super::{Result, Store, Tx, exec_tx, on_read, on_tx};
use crate::domain::path::Measured;
use crate::domain::time::Time;

impl Store {
    /// What a round trip to the data centre usually takes, microseconds, by site; sites that were not measured for
    /// long enough are missing.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn usual_paths(&self) -> Result<Vec<(String, i64)>> {
        Ok(on_read!(self, c => sqlx::query_as("SELECT site_code, p95_us FROM site_path_usual").fetch_all(c))?)
    }

    /// The same for the site of an endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn usual_path_of(&self, id: EndpointId) -> Result<Option<i64>> {
        Ok(on_read!(self, c => sqlx::query_scalar(
            "SELECT u.p95_us FROM site_path_usual u JOIN endpoints e ON e.site_code = u.site_code WHERE e.id = $1")
            .bind(id.0).fetch_optional(c))?)
    }
}

impl Tx {
    /// Adds a measurement of an endpoint to an hour of its site. `None` if there is no such endpoint.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn add_path_hour(&mut self, id: EndpointId, hour: Time, m: &Measured) -> Result<Option<String>> {
        Ok(on_tx!(self, c => sqlx::query_scalar(
            "INSERT INTO site_path_hours (site_code, hour, n, p50_us, p95_us, jitter_us, loss_ppm) \
             SELECT site_code, $2, 1, $3, $4, $5, $6 FROM endpoints WHERE id = $1 \
             ON CONFLICT (site_code, hour) DO UPDATE SET n = site_path_hours.n + 1, \
             p50_us = site_path_hours.p50_us + excluded.p50_us, p95_us = site_path_hours.p95_us + excluded.p95_us, \
             jitter_us = site_path_hours.jitter_us + excluded.jitter_us, \
             loss_ppm = site_path_hours.loss_ppm + excluded.loss_ppm RETURNING site_code")
            .bind(id.0).bind(hour.micros()).bind(m.p50_us).bind(m.p95_us).bind(m.jitter_us).bind(m.loss_ppm)
            .fetch_optional(c))?)
    }

    /// The mean 95th percentile of a site's hours in a span of time, microseconds.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn path_hours(&mut self, site: &str, from: Time, to: Time) -> Result<Vec<i64>> {
        Ok(on_tx!(self, c => sqlx::query_scalar(
            "SELECT p95_us / n FROM site_path_hours WHERE site_code = $1 AND hour >= $2 AND hour < $3")
            .bind(site).bind(from.micros()).bind(to.micros()).fetch_all(c))?)
    }

    /// Writes down what is usual at a site.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_usual_path(&mut self, site: &str, p95_us: i64, hours: usize, now: Time) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO site_path_usual (site_code, p95_us, hours, at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (site_code) DO UPDATE SET p95_us = excluded.p95_us, hours = excluded.hours, at = excluded.at")
            .bind(site).bind(p95_us).bind(i64::try_from(hours).unwrap_or(i64::MAX)).bind(now.micros()).execute(c))?;
        Ok(())
    }

    /// Forgets hours from before a time; how many.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn prune_path_hours(&mut self, before: Time) -> Result<u64> {
        Ok(
            exec_tx!(self, c => sqlx::query("DELETE FROM site_path_hours WHERE hour < $1").bind(before.micros()).execute(c))?,
        )
    }
}
