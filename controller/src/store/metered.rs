//! Lines that are paid by the byte: of offices, and of single computers.

use std::collections::HashSet;

use tram_wire::ids::EndpointId;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read};
use crate::domain::time::Time;
use crate::nudge::Kind;

/// Whether the line of an endpoint is paid by the byte, where `$t` names its table: what is said of it, else of its site.
macro_rules! metered {
    ($t:literal) => {
        concat!(
            "COALESCE(",
            $t,
            ".metered = 'yes', EXISTS (SELECT 1 FROM site_metered sm WHERE sm.site_code = ",
            $t,
            ".site_code))"
        )
    };
}
pub(super) use metered;

impl Store {
    /// Whose line is paid by the byte.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoints_metered(&self) -> Result<HashSet<EndpointId>> {
        let rows: Vec<Uuid> = on_read!(self, c => sqlx::query_scalar(concat!(
            "SELECT e.id FROM endpoints e WHERE e.state <> 'revoked' AND ", metered!("e"))).fetch_all(c))?;
        Ok(rows.into_iter().map(EndpointId).collect())
    }

    /// Whether this one's is.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn endpoint_is_metered(&self, id: EndpointId) -> Result<bool> {
        let row: Option<Uuid> = on_read!(self, c => sqlx::query_scalar(concat!(
            "SELECT e.id FROM endpoints e WHERE e.id = $1 AND ", metered!("e"))).bind(id.0).fetch_optional(c))?;
        Ok(row.is_some())
    }

    /// Sites whose line is.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn sites_metered(&self) -> Result<Vec<String>> {
        Ok(
            on_read!(self, c => sqlx::query_scalar("SELECT site_code FROM site_metered ORDER BY site_code").fetch_all(c))?,
        )
    }
}

impl Tx {
    /// Says of a site that its line is paid by the byte, or is not. `false` if that changed nothing.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_site_metered(&mut self, code: &str, metered: bool, now: Time) -> Result<bool> {
        let rows = if metered {
            exec_tx!(self, c => sqlx::query(
                "INSERT INTO site_metered (site_code, since) VALUES ($1, $2) ON CONFLICT (site_code) DO NOTHING")
                .bind(code).bind(now.micros()).execute(c))?
        } else {
            exec_tx!(self, c => sqlx::query("DELETE FROM site_metered WHERE site_code = $1").bind(code).execute(c))?
        };
        Ok(rows > 0)
    }

    /// Says it of one endpoint; `None`: as its site.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_endpoint_metered(&mut self, id: EndpointId, metered: Option<bool>) -> Result<()> {
        let word = metered.map(|m| if m { "yes" } else { "no" });
        exec_tx!(self, c => sqlx::query("UPDATE endpoints SET metered = $2 WHERE id = $1").bind(id.0).bind(word).execute(c))?;
        self.touch(Kind::Endpoint, id.0);
        Ok(())
    }
}
