//! `/sites`: the tree of administrative units.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Page;
use crate::api::Api;
use crate::api::error::{ApiError, Problem};
use crate::api::extract::{RawBody, Signed, ValidJson, ValidQuery};
use crate::domain::access::Scope;
use crate::domain::day::Day;
use crate::domain::limits::Limits;
use crate::domain::site::{Level, Phase, UnitType};
use crate::services::sites::{self, DEFAULT_FROM, ImportOptions};
use crate::services::{Ctx, Error};
use crate::store::site_lines::LineUse;
use crate::store::sites::{Listed, SiteFilter};

/// An administrative unit as it is from one day until before another.
#[derive(Debug, Serialize, ToSchema)]
pub struct Site {
    /// Official code.
    pub code: String,
    /// Full name.
    pub name: String,
    /// Name without its kind.
    pub short_name: String,
    /// Official kind.
    #[serde(rename = "type")]
    pub kind: UnitType,
    /// Place in the tree.
    pub level: Level,
    /// The unit above.
    pub parent_code: Option<String>,
    /// The district it lies in; show it, for names repeat.
    pub district: Option<SiteUnit>,
    /// The province it lies in.
    pub province: Option<SiteUnit>,
    /// When the programme reaches it.
    pub phase: Option<Phase>,
    /// Another spelling in use.
    pub alt_name: Option<String>,
    /// First day.
    pub valid_from: Day,
    /// First day it is no longer so.
    pub valid_to: Option<Day>,
    /// Enrolled computers in it and below it.
    pub endpoints: i64,
    /// Pools in it and below it.
    pub pools: i64,
    /// Its line, and how it is used.
    pub line: SiteLine,
}

/// The line of a site, and how sessions use it.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteLine {
    /// What it carries towards the site, kbit/s; absent: not known, and nothing is shaped.
    pub down_kbit: Option<i64>,
    /// What sessions may fill of it, kbit/s.
    pub budget_kbit: Option<i64>,
    /// What they got when they were last measured, kbit/s.
    pub used_kbit: i64,
    /// Sessions with a viewer behind it.
    pub sessions: i64,
    /// It is paid by the byte: endpoints there say less.
    pub metered: bool,
}

impl SiteLine {
    /// With the budget it has by the configuration.
    pub(super) fn of(l: &LineUse, limits: &Limits) -> Self {
        let rate = l.down_kbit.and_then(|kbit| u32::try_from(kbit).ok());
        Self {
            down_kbit: l.down_kbit,
            budget_kbit: rate.map(|kbit| limits.budget(kbit).into()),
            used_kbit: l.used_kbit,
            sessions: l.sessions,
            metered: l.metered,
        }
    }
}

/// What a line carries.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteLineRequest {
    /// Towards the site, kbit/s, 64 to 10000000; null: that is not known.
    pub down_kbit: Option<u32>,
    /// It is paid by the byte, or is not; absent: that stays as it is.
    #[serde(default)]
    pub metered: Option<bool>,
}

/// What a list of lines changed, or would change.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteLineImport {
    /// Sites whose line is another now.
    pub changed: usize,
    /// Sites in the list.
    pub sites: usize,
}

/// How to take a list of lines.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SiteLineQuery {
    /// Only tell what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// A unit above a site.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteUnit {
    /// Official code.
    pub code: String,
    /// Full name.
    pub name: String,
}

impl Site {
    fn of(l: Listed, limits: &Limits) -> Self {
        let above = |wanted: Level| {
            let unit = [&l.parent, &l.grandparent].into_iter().flatten().find(|(_, _, level)| *level == wanted);
            unit.map(|(code, name, _)| SiteUnit { code: code.clone(), name: name.clone() })
        };
        Self {
            line: SiteLine::of(&l.line, limits),
            district: above(Level::District),
            province: above(Level::Province),
            code: l.site.code,
            name: l.site.name,
            short_name: l.site.short_name,
            kind: l.site.kind,
            level: l.site.level,
            parent_code: l.site.parent_code,
            phase: l.site.phase,
            alt_name: l.site.alt_name,
            valid_from: l.site.valid_from,
            valid_to: l.site.valid_to,
            endpoints: l.counts.endpoints,
            pools: l.counts.pools,
        }
    }
}

/// Which sites.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SiteQuery {
    /// Beginnings of words of its name, kind, code or of the units above; marks and case do not matter.
    #[serde(default)]
    q: String,
    /// Only directly below this one.
    parent: Option<String>,
    /// Only this level.
    level: Option<Level>,
    /// As it is on this day; today if absent.
    at: Option<Day>,
    /// At most so many, up to 5000.
    limit: Option<i64>,
    /// `next` of the page before.
    #[serde(default)]
    cursor: i64,
}

/// How to import.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SiteImportQuery {
    /// Only tell what would happen.
    #[serde(default)]
    dry_run: bool,
    /// The day from which the list is true; 2016-01-01 if absent.
    valid_from: Option<Day>,
    /// End what the list no longer has.
    #[serde(default)]
    close_missing: bool,
}

/// What an import did, or would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct SiteImport {
    /// Sites that were not there.
    pub created: usize,
    /// Sites whose facts changed.
    pub updated: usize,
    /// Sites that stay as they are.
    pub unchanged: usize,
    /// Sites that ended.
    pub closed: usize,
    /// Codes of sites the list does not have, left as they are.
    pub missing: Vec<String>,
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get_one))
        .routes(routes!(import))
        .routes(routes!(set_line))
        .routes(routes!(import_lines))
}

/// Sites of a day: best matches first.
#[utoipa::path(get, path = "/sites", tag = "sites", params(SiteQuery), responses(
    (status = 200, body = Page<Site>), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn list(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(query): ValidQuery<SiteQuery>,
) -> Result<Json<Page<Site>>, ApiError> {
    let (limit, offset) = (super::limit(query.limit), query.cursor.max(0));
    let filter = SiteFilter {
        text: query.q,
        parent: query.parent,
        level: query.level,
        code: None,
        scope: Scope::All,
        on: day(&ctx, query.at),
        limit,
        offset,
    };
    let (rows, total) = sites::list(&api.app, &ctx, filter).await?;
    let shown = offset.saturating_add(i64::try_from(rows.len()).unwrap_or(i64::MAX));
    let next = (shown < total && !rows.is_empty()).then(|| shown.to_string());
    Ok(Json(Page { items: rows.into_iter().map(|l| Site::of(l, &api.app.policy.limits)).collect(), total, next }))
}

fn day(ctx: &Ctx, asked: Option<Day>) -> Day {
    asked.unwrap_or_else(|| Day::of(ctx.now))
}

/// The day of a site.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SiteDay {
    /// As it is on this day; today if absent.
    at: Option<Day>,
}

/// One site.
#[utoipa::path(get, path = "/sites/{code}", tag = "sites", params(("code" = String, Path), SiteDay), responses(
    (status = 200, body = Site), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem, description = "S-214")))]
async fn get_one(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(code): Path<String>,
    ValidQuery(query): ValidQuery<SiteDay>,
) -> Result<Json<Site>, ApiError> {
    let site = sites::get(&api.app, &ctx, &code, day(&ctx, query.at)).await?;
    Ok(Json(Site::of(site, &api.app.policy.limits)))
}

/// Says what the line of a site carries. Running sessions feel it within seconds.
#[utoipa::path(put, path = "/sites/{code}/line", tag = "sites", params(("code" = String, Path)), request_body = SiteLineRequest, responses(
    (status = 200, body = Site), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem, description = "S-214"), (status = 422, body = Problem, description = "S-213")))]
async fn set_line(
    State(api): State<Api>,
    Signed(ctx): Signed,
    Path(code): Path<String>,
    ValidJson(body): ValidJson<SiteLineRequest>,
) -> Result<Json<Site>, ApiError> {
    sites::set_line(&api.app, &ctx, &code, body.down_kbit).await?;
    if let Some(metered) = body.metered {
        sites::set_metered(&api.app, &ctx, &code, metered).await?;
    }
    let site = sites::get(&api.app, &ctx, &code, day(&ctx, None)).await?;
    Ok(Json(Site::of(site, &api.app.policy.limits)))
}

/// The same for a list, `site_code,down_kbit`; an empty rate means that it is not known. All of it or nothing.
#[utoipa::path(post, path = "/sites/lines", tag = "sites", params(SiteLineQuery),
    request_body(content = String, content_type = "text/csv"), responses(
    (status = 200, body = SiteLineImport), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 413, body = Problem), (status = 422, body = Problem, description = "S-200 with every fault by line; nothing was changed")))]
async fn import_lines(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(query): ValidQuery<SiteLineQuery>,
    RawBody(csv): RawBody,
) -> Result<Json<SiteLineImport>, ApiError> {
    let (changed, sites) = sites::import_lines(&api.app, &ctx, &csv, query.dry_run).await?;
    Ok(Json(SiteLineImport { changed, sites }))
}

/// Imports a list of sites: all of it or nothing.
#[utoipa::path(post, path = "/sites/import", tag = "sites", params(SiteImportQuery),
    request_body(content = String, content_type = "text/csv"), responses(
    (status = 200, body = SiteImport), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 413, body = Problem), (status = 422, body = Problem, description = "S-200 with every fault by line; nothing was imported"),
    (status = 503, body = Problem)))]
async fn import(
    State(api): State<Api>,
    Signed(ctx): Signed,
    ValidQuery(query): ValidQuery<SiteImportQuery>,
    RawBody(csv): RawBody,
) -> Result<Json<SiteImport>, ApiError> {
    let from = match query.valid_from {
        Some(day) => day,
        None => DEFAULT_FROM.parse().map_err(|e: String| Error::field("valid_from", "X-400", e))?,
    };
    let options = ImportOptions { from, dry_run: query.dry_run, close_missing: query.close_missing };
    let plan = sites::import(&api.app, &ctx, &csv, options).await?;
    Ok(Json(SiteImport {
        created: plan.created.len(),
        updated: plan.updated.len(),
        unchanged: plan.unchanged,
        closed: plan.closed.len(),
        missing: plan.missing,
    }))
}
