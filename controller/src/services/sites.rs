//! Sites: looking for them, and importing official lists.

use serde_json::json;

use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::{Role, Scope};
use crate::domain::day::Day;
use crate::domain::limits::{self, LINE_KBIT};
use crate::domain::site_import::{self, FAULTS_MAX, Plan};
use crate::store::sites::{Listed, SiteFilter};

/// Hanoi's 584 communes as of 2016, carried inside the binary; `controller/data/README.md` says whence.
pub const HANOI_2016: &str = include_str!("../../data/hanoi-sites.csv");

/// Lists that come with the controller, by name.
pub const BUILTIN: &[(&str, &str)] = &[("hanoi-2016", HANOI_2016)];

/// The day from which the built-in list, and an import that names none, is true.
pub const DEFAULT_FROM: &str = "2016-01-01";

/// How an import is done.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// The day from which the list is true.
    pub from: Day,
    /// Only tell what would happen.
    pub dry_run: bool,
    /// End what the list no longer has.
    pub close_missing: bool,
}

/// A page of sites, and how many match in all.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, filter: SiteFilter) -> Result<(Vec<Listed>, i64)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    Ok(app.store.sites(&SiteFilter { scope: ctx.caller.scope(), ..filter }).await?)
}

/// One site as it is on a day.
///
/// # Errors
/// [`Error::NotFound`] if there is none then, or it is out of the caller's scope.
pub async fn get(app: &App, ctx: &Ctx, code: &str, on: Day) -> Result<Listed> {
    let filter = SiteFilter {
        text: String::new(),
        parent: None,
        level: None,
        code: Some(code.to_owned()),
        scope: Scope::All,
        on,
        limit: 1,
        offset: 0,
    };
    let unknown =
        || Error::NotFound("S-214", format!("there is no site with the code `{}` on {on}", code.escape_debug()));
    if code.is_empty() {
        return Err(unknown());
    }
    list(app, ctx, filter).await?.0.pop().ok_or_else(unknown)
}

/// Imports a list of sites. All of it or nothing.
///
/// # Errors
/// [`Error::Invalid`] S-200 with every fault by line.
pub async fn import(app: &App, ctx: &Ctx, csv: &[u8], options: ImportOptions) -> Result<Plan> {
    ctx.require(&[Role::Operator])?;
    let mut tx = app.store.begin().await?;
    let all = tx.all_sites().await?;
    let known = |code: &str| all.iter().any(|s| s.code == code && s.valid_from <= options.from);
    let wanted = site_import::read(csv, &known, options.from).map_err(refused)?;
    let plan = site_import::plan(&all, &wanted, options.from, options.close_missing);
    if options.dry_run {
        return Ok(plan);
    }
    for site in &plan.write {
        tx.put_site(site).await?;
    }
    let detail = json!({
        "from": options.from,
        "created": plan.created.len(),
        "updated": plan.updated.len(),
        "unchanged": plan.unchanged,
        "closed": plan.closed.len(),
    });
    audit(&mut tx, ctx, "site.import", "sites", detail).await?;
    tx.commit().await?;
    Ok(plan)
}

/// Says what the line of a site carries towards it, kbit/s; `None`: that is not known. Sessions feel it within
/// seconds.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator asks; [`Error::NotFound`] without such a site; [`Error::Invalid`] S-213.
pub async fn set_line(app: &App, ctx: &Ctx, code: &str, kbit: Option<u32>) -> Result<()> {
    ctx.require(&[Role::Operator])?;
    if kbit.is_some_and(|kbit| !LINE_KBIT.contains(&kbit)) {
        let text = format!("give kbit/s, {} to {}", LINE_KBIT.start(), LINE_KBIT.end());
        return Err(Error::field("down_kbit", "S-213", text));
    }
    get(app, ctx, code, Day::of(ctx.now)).await?;
    let mut tx = app.store.begin().await?;
    if tx.put_site_line(code, kbit, ctx.now).await? {
        audit(&mut tx, ctx, "site.line", code, json!({"down_kbit": kbit})).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Says of a site that its line is paid by the byte, or is not: endpoints there are told within seconds, and say less.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator asks; [`Error::NotFound`] without such a site.
pub async fn set_metered(app: &App, ctx: &Ctx, code: &str, metered: bool) -> Result<()> {
    ctx.require(&[Role::Operator])?;
    get(app, ctx, code, Day::of(ctx.now)).await?;
    let mut tx = app.store.begin().await?;
    if tx.put_site_metered(code, metered, ctx.now).await? {
        audit(&mut tx, ctx, "site.metered", code, json!({"metered": metered})).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The same for a list: `site_code,down_kbit`. All of it or nothing; how many changed.
///
/// # Errors
/// [`Error::Invalid`] S-200 with every fault by line.
pub async fn import_lines(app: &App, ctx: &Ctx, csv: &[u8], dry_run: bool) -> Result<(usize, usize)> {
    ctx.require(&[Role::Operator])?;
    let rates = limits::read_lines(csv).map_err(refused)?;
    let known = app.store.site_refs(Day::of(ctx.now)).await?;
    let unknown = rates.iter().filter(|r| !known.contains_key(&r.code)).map(|r| site_import::LineFault {
        line: r.line,
        code: "S-212",
        message: format!("there is no site with the code `{}`", r.code.escape_debug()),
    });
    let unknown: Vec<_> = unknown.take(FAULTS_MAX).collect();
    if !unknown.is_empty() {
        return Err(refused(unknown));
    }
    let mut tx = app.store.begin().await?;
    let mut changed = 0;
    for rate in &rates {
        changed += usize::from(tx.put_site_line(&rate.code, rate.kbit, ctx.now).await?);
    }
    if !dry_run {
        audit(&mut tx, ctx, "site.line", "sites", json!({"changed": changed, "sites": rates.len()})).await?;
        tx.commit().await?;
    }
    Ok((changed, rates.len()))
}

fn refused(faults: Vec<site_import::LineFault>) -> Error {
    let more = if faults.len() >= FAULTS_MAX { " at least" } else { "" };
    let text = format!("nothing was imported: the list has{more} {} faults", faults.len());
    let faults = faults.into_iter().map(|f| Fault { at: f.line.to_string(), code: f.code, message: f.message });
    Error::Invalid("S-200", text, faults.collect())
}
