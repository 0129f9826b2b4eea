//! What offices' lines carry, and how much of that sessions use.

use std::collections::HashMap;

use tram_wire::ids::SessionId;
use uuid::Uuid;

use super::{Result, Store, Tx, exec_tx, on_read};
use crate::domain::time::Time;

/// How sessions use the line of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct LineUse {
    /// Code of the site.
    pub site_code: String,
    /// What the line carries towards it, kbit/s; `None`: not known.
    pub down_kbit: Option<i64>,
    /// Sessions with a viewer behind it.
    pub sessions: i64,
    /// Those of them that the gateway which asks carries.
    pub ours: i64,
    /// What they got when they were last measured, kbit/s.
    pub used_kbit: i64,
    /// It is paid by the byte.
    #[sqlx(default)]
    pub metered: bool,
}

/// The site a session is used at: the endpoint's, in a browser its officer's.
macro_rules! place {
    () => {
        "COALESCE(e.site_code, u.site_code, s.site_code)"
    };
}

/// Sessions with what says where they are.
macro_rules! placed {
    () => {
        " FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN endpoints e ON e.id = s.holder_endpoint "
    };
}

impl Store {
    /// The lines with somebody behind them; `gateway` is who asks.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn line_uses(&self, gateway: Uuid) -> Result<Vec<LineUse>> {
        Ok(on_read!(self, c => sqlx::query_as(concat!(
            "SELECT x.site_code, l.down_kbit, x.sessions, x.ours, x.used_kbit FROM (SELECT ", place!(), " AS site_code, COUNT(*) AS sessions, \
             CAST(SUM(CASE WHEN s.gateway_id = $1 THEN 1 ELSE 0 END) AS BIGINT) AS ours, \
             CAST(SUM(COALESCE(CAST(s.experience ->> 'kbit' AS BIGINT), 0)) AS BIGINT) AS used_kbit",
            placed!(), "WHERE s.state = 'active' GROUP BY 1) x LEFT JOIN site_lines l ON l.site_code = x.site_code"))
            .bind(gateway).fetch_all(c))?)
    }

    /// Every line there is something to say of, by site.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn lines(&self) -> Result<HashMap<String, LineUse>> {
        let rates: Vec<(String, i64)> =
            on_read!(self, c => sqlx::query_as("SELECT site_code, down_kbit FROM site_lines").fetch_all(c))?;
        let known = rates.into_iter().map(|(site_code, kbit)| {
            let line = LineUse { site_code: site_code.clone(), down_kbit: Some(kbit), ..LineUse::default() };
            (site_code, line)
        });
        let mut lines: HashMap<String, LineUse> = known.collect();
        lines.extend(self.line_uses(Uuid::nil()).await?.into_iter().map(|l| (l.site_code.clone(), l)));
        for site_code in self.sites_metered().await? {
            lines.entry(site_code.clone()).or_insert_with(|| LineUse { site_code, ..LineUse::default() }).metered =
                true;
        }
        Ok(lines)
    }

    /// The site a session is used at, and what its line carries, kbit/s.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn line_of(&self, session: SessionId) -> Result<Option<(String, Option<i64>)>> {
        Ok(on_read!(self, c => sqlx::query_as(concat!(
            "SELECT ", place!(), ", l.down_kbit", placed!(), "LEFT JOIN site_lines l ON l.site_code = ", place!(), " WHERE s.id = $1"))
            .bind(session.0).fetch_optional(c))?)
    }
}

impl Tx {
    /// Writes down what the line of a site carries; `None`: not known any more. `false` if that changed nothing.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn put_site_line(&mut self, code: &str, kbit: Option<u32>, now: Time) -> Result<bool> {
        let rows = match kbit {
            None => {
                exec_tx!(self, c => sqlx::query("DELETE FROM site_lines WHERE site_code = $1").bind(code).execute(c))?
            }
            Some(kbit) => exec_tx!(self, c => sqlx::query(
                "INSERT INTO site_lines (site_code, down_kbit, updated_at) VALUES ($1, $2, $3) ON CONFLICT (site_code) DO UPDATE \
                 SET down_kbit = excluded.down_kbit, updated_at = excluded.updated_at WHERE site_lines.down_kbit <> excluded.down_kbit")
                .bind(code).bind(i64::from(kbit)).bind(now.micros()).execute(c))?,
        };
        Ok(rows > 0)
    }
}
