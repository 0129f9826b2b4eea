//! The tree of sites, day by day.

use std::collections::HashMap;

use super::site_lines::LineUse;
use super::{Result, Store, StoreError, Tx, exec_tx, on_read, on_tx};
use crate::domain::access::Scope;
use crate::domain::day::Day;
use crate::domain::site::{Level, Site, SiteRef};
use crate::domain::text;

/// A row as it is in the table.
#[derive(sqlx::FromRow)]
struct Row {
    code: String,
    valid_from: String,
    valid_to: Option<String>,
    name: String,
    short_name: String,
    #[sqlx(rename = "type")]
    kind: String,
    level: String,
    parent_code: Option<String>,
    phase: Option<String>,
    alt_name: Option<String>,
}

impl TryFrom<Row> for Site {
    type Error = StoreError;

    fn try_from(r: Row) -> Result<Self> {
        let bad = StoreError::Internal;
        Ok(Self {
            kind: r.kind.parse().map_err(bad)?,
            level: r.level.parse().map_err(bad)?,
            phase: r.phase.map(|p| p.parse()).transpose().map_err(bad)?,
            valid_from: r.valid_from.parse().map_err(bad)?,
            valid_to: r.valid_to.map(|d| d.parse()).transpose().map_err(bad)?,
            code: r.code,
            name: r.name,
            short_name: r.short_name,
            parent_code: r.parent_code,
            alt_name: r.alt_name,
        })
    }
}

/// A site with the two units above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The site.
    pub site: Site,
    /// The unit above: code, full name, level.
    pub parent: Option<(String, String, Level)>,
    /// The one above that.
    pub grandparent: Option<(String, String, Level)>,
    /// How much stands in it and below it.
    pub counts: Counts,
    /// Its line, and what sessions use of it.
    pub line: LineUse,
}

/// What stands in a site and below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Enrolled computers.
    pub endpoints: i64,
    /// Pools of desktops.
    pub pools: i64,
}

/// Which sites a list wants.
#[derive(Clone, Debug)]
pub struct SiteFilter {
    /// Beginnings of words of its name, kind, code or of the units above, in any spelling.
    pub text: String,
    /// Only directly below this one.
    pub parent: Option<String>,
    /// Only this level.
    pub level: Option<Level>,
    /// Only this one.
    pub code: Option<String>,
    /// Only in here.
    pub scope: Scope,
    /// As it is on this day.
    pub on: Day,
    /// At most so many.
    pub limit: i64,
    /// Leave out so many.
    pub offset: i64,
}

#[derive(sqlx::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    site: Row,
    p_code: Option<String>,
    p_name: Option<String>,
    p_level: Option<String>,
    g_code: Option<String>,
    g_name: Option<String>,
    g_level: Option<String>,
}

impl TryFrom<ListedRow> for Listed {
    type Error = StoreError;

    fn try_from(r: ListedRow) -> Result<Self> {
        let unit = |code: Option<String>, name: Option<String>, level: Option<String>| match (code, name, level) {
            (Some(c), Some(n), Some(l)) => Ok(Some((c, n, l.parse().map_err(StoreError::Internal)?))),
            _ => Ok::<_, StoreError>(None),
        };
        Ok(Self {
            site: r.site.try_into()?,
            parent: unit(r.p_code, r.p_name, r.p_level)?,
            grandparent: unit(r.g_code, r.g_name, r.g_level)?,
            counts: Counts::default(),
            line: LineUse::default(),
        })
    }
}

const COLUMNS: &str = "code, valid_from, valid_to, name, short_name, type, level, parent_code, phase, alt_name";

/// `$1` is the day, everywhere here. The three alike conditions keep each join on the rows of that day.
macro_rules! tree {
    () => {
        " FROM sites s \
         LEFT JOIN sites p ON p.code = s.parent_code AND p.valid_from <= $1 AND (p.valid_to IS NULL OR p.valid_to > $1) \
         LEFT JOIN sites g ON g.code = p.parent_code AND g.valid_from <= $1 AND (g.valid_to IS NULL OR g.valid_to > $1) "
    };
}
/// What a site is found by: its own words and those of the units above. Of a province only its name counts: its kind
/// stands above everything, so that `thành` would find all of a city for its `thành phố`.
macro_rules! words {
    () => {
        "s.search_key || CASE WHEN p.level = 'province' THEN REPLACE(REPLACE(p.search_key, '| thanh pho tp ', '| '), '| tinh ', '| ') \
         ELSE COALESCE(p.search_key, '') END || COALESCE(REPLACE(REPLACE(g.search_key, '| thanh pho tp ', '| '), '| tinh ', '| '), '') "
    };
}
macro_rules! wanted {
    () => {
        concat!(
            "WHERE s.valid_from <= $1 AND (s.valid_to IS NULL OR s.valid_to > $1) \
             AND ($2 = '' OR s.parent_code = $2) AND ($3 = '' OR s.level = $3) AND ($4 = '' OR s.code = $4) \
             AND ($5 = '' OR $5 LIKE '%,' || s.code || ',%') AND ",
            words!(),
            "LIKE $6 AND ",
            words!(),
            "LIKE $7 AND ",
            words!(),
            "LIKE $8 AND ",
            words!(),
            "LIKE $9 AND ",
            words!(),
            "LIKE $10 AND ",
            words!(),
            "LIKE $11 AND ",
            words!(),
            "LIKE $12 AND ",
            words!(),
            "LIKE $13 ",
        )
    };
}

impl Store {
    /// One page of sites and how many match in all. Whole names come first, then names that begin so, then
    /// what matches by the units above; within that from the top of the tree, by code.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn sites(&self, filter: &SiteFilter) -> Result<(Vec<Listed>, i64)> {
        let on = filter.on.to_string();
        let scope = match &filter.scope {
            Scope::All => String::new(),
            Scope::Sites(codes) => format!(",{},", codes.join(",")),
        };
        let patterns = text::patterns::<8>(&filter.text);
        let typed = text::words(&filter.text).join(" ");
        macro_rules! bound {
            ($sql:expr) => {{
                let mut query = $sql
                    .bind(&on)
                    .bind(filter.parent.as_deref().unwrap_or_default())
                    .bind(filter.level.map_or("", Level::as_str))
                    .bind(filter.code.as_deref().unwrap_or_default())
                    .bind(&scope);
                for pattern in &patterns {
                    query = query.bind(pattern);
                }
                query
            }};
        }
        let rows: Vec<ListedRow> = on_read!(self, c => bound!(sqlx::query_as(concat!(
            "SELECT s.code, s.valid_from, s.valid_to, s.name, s.short_name, s.type, s.level, s.parent_code, s.phase, s.alt_name, \
             p.code AS p_code, p.name AS p_name, p.level AS p_level, g.code AS g_code, g.name AS g_name, g.level AS g_level",
            tree!(), wanted!(),
            "ORDER BY CASE WHEN s.search_key LIKE $14 THEN 0 WHEN s.search_key LIKE $15 THEN 1 ELSE 2 END, \
             CASE s.level WHEN 'province' THEN 0 WHEN 'district' THEN 1 ELSE 2 END, s.code LIMIT $16 OFFSET $17")))
            .bind(format!(" {typed} |%")).bind(format!(" {typed}%")).bind(filter.limit).bind(filter.offset).fetch_all(c))?;
        let total: i64 = on_read!(self, c => bound!(sqlx::query_scalar(concat!("SELECT COUNT(*)", tree!(), wanted!()))).fetch_one(c))?;
        let counts = self.site_counts(filter.on).await?;
        let mut lines = self.lines().await?;
        let listed = rows.into_iter().map(|row| {
            let mut listed = Listed::try_from(row)?;
            listed.counts = counts.get(&listed.site.code).copied().unwrap_or_default();
            listed.line = lines.remove(&listed.site.code).unwrap_or_default();
            Ok(listed)
        });
        Ok((listed.collect::<Result<_>>()?, total))
    }

    /// Counts for every site that has anything in or below it.
    async fn site_counts(&self, on: Day) -> Result<HashMap<String, Counts>> {
        type Line = (String, Option<String>, Option<String>, i64);
        let on = on.to_string();
        let pools: Vec<Line> = on_read!(self, c => sqlx::query_as(concat!(
            "SELECT s.code, p.code, g.code, COUNT(*)", tree!(),
            "JOIN pools x ON x.site_code = s.code WHERE s.valid_from <= $1 AND (s.valid_to IS NULL OR s.valid_to > $1) \
             GROUP BY s.code, p.code, g.code")).bind(&on).fetch_all(c))?;
        let endpoints: Vec<Line> = on_read!(self, c => sqlx::query_as(concat!(
            "SELECT s.code, p.code, g.code, COUNT(*)", tree!(),
            "JOIN endpoints x ON x.site_code = s.code AND x.revoked_at IS NULL \
             WHERE s.valid_from <= $1 AND (s.valid_to IS NULL OR s.valid_to > $1) \
             GROUP BY s.code, p.code, g.code")).bind(&on).fetch_all(c))?;
        let mut counts: HashMap<String, Counts> = HashMap::new();
        let lines = pools.into_iter().map(|l| (l, true)).chain(endpoints.into_iter().map(|l| (l, false)));
        for ((own, parent, grandparent, n), is_pool) in lines {
            for code in [Some(own), parent, grandparent].into_iter().flatten() {
                let c = counts.entry(code).or_default();
                *(if is_pool { &mut c.pools } else { &mut c.endpoints }) += n;
            }
        }
        Ok(counts)
    }

    /// One site as it is on a day.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn site(&self, code: &str, on: Day) -> Result<Option<Site>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM sites WHERE code = $1 AND valid_from <= $2 AND (valid_to IS NULL OR valid_to > $2)"
        );
        let row: Option<Row> = on_read!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(code).bind(on.to_string()).fetch_optional(c))?;
        row.map(Site::try_from).transpose()
    }

    /// A site and all below it on a day: codes, the site itself first. Empty if there is no such site then.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn site_codes_below(&self, code: &str, on: Day) -> Result<Vec<String>> {
        // UNION, not UNION ALL: a cycle in the table could not make it endless.
        Ok(on_read!(self, c => sqlx::query_scalar(
            "WITH RECURSIVE below (code) AS ( \
               SELECT s.code FROM sites s WHERE s.code = $1 AND s.valid_from <= $2 AND (s.valid_to IS NULL OR s.valid_to > $2) \
               UNION SELECT s.code FROM sites s JOIN below b ON s.parent_code = b.code \
               WHERE s.valid_from <= $2 AND (s.valid_to IS NULL OR s.valid_to > $2)) \
             SELECT code FROM below ORDER BY CASE code WHEN $1 THEN 0 ELSE 1 END, code")
            .bind(code).bind(on.to_string()).fetch_all(c))?)
    }

    /// Every site as others show it, by code. One that is no longer (or not yet) valid on the day is shown as
    /// it was last: what happened there stays there.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn site_refs(&self, on: Day) -> Result<HashMap<String, SiteRef>> {
        let rows: Vec<(String, String, Option<String>, i64)> = on_read!(self, c => sqlx::query_as(
            "SELECT s.code, s.name, p.name, CAST(CASE WHEN s.valid_from <= $1 AND (s.valid_to IS NULL OR s.valid_to > $1) THEN 1 ELSE 0 END AS BIGINT) AS current \
             FROM sites s LEFT JOIN sites p ON p.code = s.parent_code AND p.level = 'district' \
               AND p.valid_from <= s.valid_from AND (p.valid_to IS NULL OR p.valid_to > s.valid_from) \
             ORDER BY 4, s.valid_from")
            .bind(on.to_string()).fetch_all(c))?;
        // The row that counts comes last for each code.
        Ok(rows.into_iter().map(|(code, name, district, _)| (code.clone(), SiteRef { code, name, district })).collect())
    }

    /// One site as others show it.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn site_ref(&self, code: &str, on: Day) -> Result<Option<SiteRef>> {
        Ok(self.site_refs(on).await?.remove(code))
    }
}

impl Store {
    /// The site above each, as it is now.
    ///
    /// # Errors
    /// Any [`super::StoreError`].
    pub async fn site_parents(&self) -> Result<HashMap<String, String>> {
        let rows: Vec<(String, String)> = on_read!(self, c => sqlx::query_as(
            "SELECT code, parent_code FROM sites WHERE valid_to IS NULL AND parent_code IS NOT NULL").fetch_all(c))?;
        Ok(rows.into_iter().collect())
    }
}

impl Tx {
    /// Every row there is, by code and first day.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn all_sites(&mut self) -> Result<Vec<Site>> {
        if self.is_postgres() {
            // Two imports at once would each plan against what the other is about to change.
            exec_tx!(self, c => sqlx::query("LOCK TABLE sites IN SHARE ROW EXCLUSIVE MODE").execute(c))?;
        }
        let sql = format!("SELECT {COLUMNS} FROM sites ORDER BY code, valid_from");
        let rows: Vec<Row> = on_tx!(self, c => sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(c))?;
        rows.into_iter().map(Site::try_from).collect()
    }

    /// Writes a row, in place of the one with that code and first day if there is one.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub async fn put_site(&mut self, s: &Site) -> Result<()> {
        exec_tx!(self, c => sqlx::query(
            "INSERT INTO sites (code, valid_from, valid_to, name, short_name, type, level, parent_code, phase, alt_name, search_key) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (code, valid_from) DO UPDATE SET valid_to = excluded.valid_to, name = excluded.name, \
               short_name = excluded.short_name, type = excluded.type, level = excluded.level, parent_code = excluded.parent_code, \
               phase = excluded.phase, alt_name = excluded.alt_name, search_key = excluded.search_key")
            .bind(&s.code).bind(s.valid_from.to_string()).bind(s.valid_to.map(|d| d.to_string())).bind(&s.name)
            .bind(&s.short_name).bind(s.kind.as_str()).bind(s.level.as_str()).bind(&s.parent_code)
            .bind(s.phase.map(|p| p.as_str())).bind(&s.alt_name).bind(s.search_key()).execute(c))?;
        Ok(())
    }
}
