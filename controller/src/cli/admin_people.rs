//! `admin user` and `admin site`: accounts and the tree of sites.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::domain::access::{Role, Scope};
use crate::domain::credential::Language;
use crate::domain::day::Day;
use crate::domain::time::Time;
use crate::identity::secret::Secret;
use crate::services::sites::{self, BUILTIN, DEFAULT_FROM, ImportOptions};
use crate::services::users::{self, NewUser, UserChange};
use crate::services::{App, Ctx, Error};
use crate::store::sites::SiteFilter;
use crate::store::users::UserFilter;

/// `admin user …`
#[derive(Debug, Subcommand)]
pub enum User {
    /// Make an account.
    Add {
        /// Sign-in name.
        username: String,
        /// operator, support or officer.
        #[arg(long)]
        role: Role,
        /// Code of the site they work for; an officer's commune.
        #[arg(long)]
        site: Option<String>,
        /// Name for people; the sign-in name if absent.
        #[arg(long)]
        display: Option<String>,
        /// Language: vi or en.
        #[arg(long, default_value = "vi")]
        language: Language,
        /// Read the password from standard input.
        #[arg(long, conflicts_with = "generate", required_unless_present = "generate")]
        password_stdin: bool,
        /// Make a random password and print it once.
        #[arg(long)]
        generate: bool,
        /// Change the account if there is one already, its password too.
        #[arg(long)]
        replace: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Set another password; all sign-ins end.
    Password {
        /// Sign-in name.
        username: String,
        /// Read the password from standard input.
        #[arg(long, conflicts_with = "generate", required_unless_present = "generate")]
        password_stdin: bool,
        /// Make a random password and print it once.
        #[arg(long)]
        generate: bool,
    },
    /// List accounts.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Switch an account off; all its sign-ins end at once.
    Disable {
        /// Sign-in name.
        username: String,
    },
    /// Switch an account on again.
    Enable {
        /// Sign-in name.
        username: String,
    },
    /// Take away the lock of wrong passwords.
    Unlock {
        /// Sign-in name.
        username: String,
    },
}

/// `admin site …`
#[derive(Debug, Subcommand)]
pub enum Site {
    /// Import an official list: all of it or nothing.
    Import {
        /// The CSV file.
        #[arg(required_unless_present = "builtin", conflicts_with = "builtin")]
        file: Option<PathBuf>,
        /// A list that comes with the controller: hanoi-2016.
        #[arg(long)]
        builtin: Option<String>,
        /// The day from which the list is true.
        #[arg(long, default_value = DEFAULT_FROM)]
        valid_from: Day,
        /// End what the list no longer has.
        #[arg(long)]
        close_missing: bool,
        /// Only tell what would happen.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what the line of a site carries, or take a list of them: `site_code,down_kbit`.
    Line {
        /// Code of the site.
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        code: Option<String>,
        /// Towards the site, kbit/s.
        #[arg(long, required_unless_present_any = ["unknown", "file"])]
        kbit: Option<u32>,
        /// It is not known any more: nothing is shaped.
        #[arg(long, conflicts_with = "kbit")]
        unknown: bool,
        /// A CSV file: all of it or nothing.
        #[arg(long, conflicts_with_all = ["kbit", "unknown"])]
        file: Option<PathBuf>,
        /// Only tell what the list would change.
        #[arg(long, requires = "file")]
        dry_run: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say of a site that its line is paid by the byte, or is not: endpoints there say less.
    Metered {
        /// Code of the site.
        code: String,
        /// It is: `true`, `false`.
        #[arg(action = clap::ArgAction::Set)]
        metered: bool,
    },
    /// Look for sites by name, in any spelling.
    Search {
        /// Beginnings of words of the name or of the units above.
        words: Vec<String>,
        /// As it is on this day; today if absent.
        #[arg(long)]
        at: Option<Day>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `admin user …`.
///
/// # Errors
/// What the service refuses, with every fault.
pub async fn user(app: &App, command: User) -> Result<()> {
    let ctx = Ctx::local_admin(app.clock.now());
    match command {
        User::Add { username, role, site, display, language, password_stdin: _, generate, replace, json } => {
            let password = password(generate)?;
            let display_name = display.unwrap_or_else(|| username.clone());
            let new = NewUser { username, display_name, role, site_code: site, language, password: password.clone() };
            let made = add(app, &ctx, new, replace).await?;
            let shown = generate.then(|| password.reveal().to_owned());
            if json {
                let user = json!({"username": made, "role": role, "password": shown});
                println!("{user}");
            } else {
                println!("{made} ({role}){}", shown.map(|p| format!("  password: {p}")).unwrap_or_default());
            }
        }
        User::Password { username, password_stdin: _, generate } => {
            let password = password(generate)?;
            let change = UserChange { password: Some(password.clone()), ..UserChange::default() };
            change_named(app, &ctx, &username, &change).await?;
            if generate {
                println!("{}", password.reveal());
            }
        }
        User::List { json } => list_users(app, &ctx, json).await?,
        User::Disable { username } => {
            let change = UserChange { disabled: Some(true), ..UserChange::default() };
            change_named(app, &ctx, &username, &change).await?;
        }
        User::Enable { username } => {
            let change = UserChange { disabled: Some(false), ..UserChange::default() };
            change_named(app, &ctx, &username, &change).await?;
        }
        User::Unlock { username } => {
            let change = UserChange { unlock: true, ..UserChange::default() };
            change_named(app, &ctx, &username, &change).await?;
        }
    }
    Ok(())
}

/// The new password: random, or the first line of standard input.
fn password(generate: bool) -> Result<Secret> {
    if generate {
        return Ok(Secret::readable());
    }
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text).context("reading the password from standard input")?;
    let first = text.lines().next().unwrap_or_default();
    ensure!(!first.is_empty(), "standard input has no password");
    Ok(Secret::from_text(first))
}

/// Makes the account, or with `replace` brings the one there is to the same state. Its sign-in name.
async fn add(app: &App, ctx: &Ctx, new: NewUser, replace: bool) -> Result<String> {
    match users::create(app, ctx, &new).await {
        Err(Error::Conflict(..)) if replace => {
            let change = UserChange {
                display_name: Some(new.display_name),
                role: Some(new.role),
                site_code: Some(new.site_code),
                language: Some(new.language),
                disabled: Some(false),
                unlock: true,
                password: Some(new.password),
            };
            change_named(app, ctx, &new.username, &change).await
        }
        made => Ok(made.map_err(explained)?.user.username),
    }
}

async fn change_named(app: &App, ctx: &Ctx, username: &str, change: &UserChange) -> Result<String> {
    let user = users::named(app, ctx, username).await.map_err(explained)?;
    users::change(app, ctx, user.id, change).await.map_err(explained)?;
    Ok(user.username)
}

async fn list_users(app: &App, ctx: &Ctx, json: bool) -> Result<()> {
    let mut filter = UserFilter { limit: 1000, ..UserFilter::default() };
    loop {
        let (people, _) = users::list(app, ctx, &filter).await.map_err(explained)?;
        let Some(last) = people.last() else { return Ok(()) };
        filter.after.clone_from(&last.user.username);
        for p in people {
            let (u, site) = (p.user, p.site);
            let locked = u.locked_until.map(Time::from_micros).filter(|until| *until > ctx.now);
            if json {
                let site = site.map(|s| json!({"code": s.code, "name": s.name, "district": s.district}));
                println!(
                    "{}",
                    json!({"id": u.id, "username": u.username, "display_name": u.display_name, "role": u.role,
                    "site": site, "disabled": u.disabled, "locked_until": locked})
                );
            } else {
                let state = if u.disabled {
                    "off"
                } else if locked.is_some() {
                    "locked"
                } else {
                    "on"
                };
                let site = site.map_or_else(|| "all sites".into(), |s| place(&s.name, s.district.as_deref()));
                println!("{:<24} {:<9} {:<7} {site}  {}", u.username, u.role.as_str(), state, u.display_name);
            }
        }
    }
}

fn place(name: &str, district: Option<&str>) -> String {
    district.map_or_else(|| name.to_owned(), |d| format!("{name}, {d}"))
}

/// Runs `admin site …`.
///
/// # Errors
/// What the service refuses, with every fault by line.
pub async fn site(app: &App, command: Site) -> Result<()> {
    let ctx = Ctx::local_admin(app.clock.now());
    match command {
        Site::Import { file, builtin, valid_from, close_missing, dry_run, json } => {
            let csv = read_list(file, builtin.as_deref()).await?;
            let options = ImportOptions { from: valid_from, dry_run, close_missing };
            let plan = sites::import(app, &ctx, &csv, options).await.map_err(explained)?;
            let result = json!({"created": plan.created.len(), "updated": plan.updated.len(),
                "unchanged": plan.unchanged, "closed": plan.closed.len(), "missing": plan.missing});
            if json { println!("{result}") } else { print_plan(&result, dry_run) }
        }
        Site::Line { code, kbit, file, dry_run, json, .. } => {
            let (changed, sites) = match (code, file) {
                (Some(code), _) => {
                    sites::set_line(app, &ctx, &code, kbit).await.map_err(explained)?;
                    (1, 1)
                }
                (None, file) => {
                    let csv = read_list(file, None).await?;
                    sites::import_lines(app, &ctx, &csv, dry_run).await.map_err(explained)?
                }
            };
            let would = if dry_run { "would be: " } else { "" };
            if json {
                println!("{}", json!({"changed": changed, "sites": sites}));
            } else {
                println!("{would}changed {changed} of {sites} lines");
            }
        }
        Site::Metered { code, metered } => {
            sites::set_metered(app, &ctx, &code, metered).await.map_err(explained)?;
            println!("the line of {code} is {}paid by the byte", if metered { "" } else { "not " });
        }
        Site::Search { words, at, json } => search(app, &ctx, &words.join(" "), at, json).await?,
    }
    Ok(())
}

async fn read_list(file: Option<PathBuf>, builtin: Option<&str>) -> Result<Vec<u8>> {
    match (file, builtin) {
        (Some(path), _) => tokio::fs::read(&path).await.with_context(|| format!("reading {}", path.display())),
        (None, Some(name)) => match BUILTIN.iter().find(|(n, _)| *n == name) {
            Some((_, csv)) => Ok(csv.as_bytes().to_vec()),
            None => bail!("there is no built-in list `{name}`; there is: hanoi-2016"),
        },
        (None, None) => bail!("name a file, or --builtin hanoi-2016"),
    }
}

fn print_plan(result: &Value, dry_run: bool) {
    let missing = result["missing"].as_array().map_or(0, Vec::len);
    println!(
        "{}created {}, updated {}, unchanged {}, closed {}, missing from the list {missing}",
        if dry_run { "would be: " } else { "" },
        result["created"],
        result["updated"],
        result["unchanged"],
        result["closed"]
    );
}

async fn search(app: &App, ctx: &Ctx, words: &str, at: Option<Day>, json: bool) -> Result<()> {
    let filter = SiteFilter {
        text: words.to_owned(),
        parent: None,
        level: None,
        code: None,
        scope: Scope::All,
        on: at.unwrap_or_else(|| Day::of(ctx.now)),
        limit: 100,
        offset: 0,
    };
    let (rows, total) = sites::list(app, ctx, filter).await.map_err(explained)?;
    let shown = rows.len();
    for l in rows {
        let above = l.parent.as_ref().map(|(_, name, _)| name.as_str());
        if json {
            println!("{}", json!({"code": l.site.code, "name": l.site.name, "level": l.site.level, "parent": above}));
        } else {
            println!("{:<8} {}", l.site.code, place(&l.site.name, above));
        }
    }
    if i64::try_from(shown).is_ok_and(|n| n < total) {
        eprintln!("… and {} more; type more of the name", total - i64::try_from(shown)?);
    }
    Ok(())
}

/// A refusal with all its faults, for a terminal.
fn explained(error: Error) -> anyhow::Error {
    let mut text = format!("{} {error}", error.code());
    if let Error::Invalid(_, _, faults) = &error {
        for fault in faults.iter().filter(|f| faults.len() > 1 || f.message != error.to_string()) {
            let line = fault.at.bytes().all(|b| b.is_ascii_digit());
            text.push_str(&format!(
                "\n  {}{}: {} {}",
                if line { "line " } else { "" },
                fault.at,
                fault.code,
                fault.message
            ));
        }
    }
    match error {
        // The source says more than the text meant for users, and this user may know it.
        Error::Internal(source) => anyhow::Error::msg(source.to_string()).context(text),
        _ => anyhow::Error::msg(text),
    }
}
