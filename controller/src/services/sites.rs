//! Sites: looking for them, and importing official lists.

use serde_json::json;

use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::{Role, Scope};
use crate::domain::day::Day;
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
        || Error::NotFound("S-404", format!("there is no site with the code `{}` on {on}", code.escape_debug()));
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

fn refused(faults: Vec<site_import::LineFault>) -> Error {
    let more = if faults.len() >= FAULTS_MAX { " at least" } else { "" };
    let text = format!("nothing was imported: the list has{more} {} faults", faults.len());
    let faults = faults.into_iter().map(|f| Fault { at: f.line.to_string(), code: f.code, message: f.message });
    Error::Invalid("S-200", text, faults.collect())
}
