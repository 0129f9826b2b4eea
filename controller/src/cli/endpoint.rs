//! `admin endpoint`: tokens and office computers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;
use tram_wire::ids::EndpointId;
use tram_wire::plan::Service;

use super::admin::{Json, explain, print, say};
use crate::domain::approval::Approval;
use crate::identity::qr::Code;
use crate::identity::tls;
use crate::services::endpoints::{self, TokenRequest};
use crate::services::{App, Ctx, copies, health};
use crate::store::endpoints::Filter;

#[derive(Debug, Subcommand)]
pub(super) enum Endpoint {
    /// Make a one-time token for `tram-agent enrol`; it is shown this once.
    Token {
        /// Code of the site the computers stand in.
        #[arg(long)]
        site: String,
        /// How many computers it may enrol.
        #[arg(long, default_value_t = 1)]
        count: i64,
        /// How long it works.
        #[arg(long, default_value_t = 72)]
        ttl_hours: i64,
        /// What it is for.
        #[arg(long, default_value = "")]
        note: String,
        /// Who decides: auto (the token is enough), serial (a serial number of --serials, else a person) or manual (a person).
        #[arg(long, default_value = "auto")]
        approval: Approval,
        /// Serial numbers the token expects, with commas between: of the computer, its board, a disk or a network card.
        #[arg(long, default_value = "")]
        serials: String,
        /// Also make its QR code: FILE.svg, FILE.png or FILE.txt; - prints it with what a person may type underneath.
        #[arg(long, value_name = "FILE")]
        qr: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List office computers.
    List(Json),
    /// Show how an office computer is: gauges, inventory, probes, checks with their evidence. JSON.
    Show {
        /// Id, or name if only one computer has it.
        endpoint: String,
    },
    /// List computers that show the identity of an office computer in quarantine. JSON, one a line.
    Copies {
        /// Id, or name if only one computer has it.
        endpoint: String,
    },
    /// Say that a copy is another computer: it gets an identity of its own.
    NewMachine {
        /// The endpoint in quarantine: id, or name if only one computer has it.
        endpoint: String,
        /// The copy, as `copies` names it.
        #[arg(long)]
        copy: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Say that it is one computer after all: the quarantine is over.
    SameMachine {
        /// The endpoint in quarantine: id, or name if only one computer has it.
        endpoint: String,
        /// The computer the identity belongs to [default: whichever comes next].
        #[arg(long)]
        copy: Option<String>,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Say of an office computer that its line is paid by the byte, or is not.
    Metered {
        /// Id, or name if only one computer has it.
        endpoint: String,
        /// It is: `true`, `false`, or as its `site`.
        #[arg(value_parser = ["true", "false", "site"])]
        metered: String,
    },
    /// Withdraw an office computer for good; its link is cut within seconds.
    Revoke {
        /// Id, or name if only one computer has it.
        endpoint: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(app: &App, ctx: &Ctx, e: Endpoint) -> Result<()> {
    match e {
        Endpoint::Token { site, count, ttl_hours, note, approval, serials, qr, json } => {
            let request = TokenRequest { site_code: site, count, ttl_hours, note, approval, serials: vec![serials] };
            let (token, expires_at) = endpoints::create_token(app, ctx, &request).await.map_err(explain)?;
            let (code, picture) = endpoints::enrol_code(app, &token).map_err(explain)?;
            let shown = qr.as_deref().is_some_and(|p| p == Path::new("-"));
            if let Some(path) = qr.filter(|_| !shown) {
                draw(&picture, &path)?;
            }
            match (json, shown) {
                (true, _) => say(&json!({"token": token, "code": code, "expires_at": expires_at}).to_string()),
                (false, true) => say(&format!("{}\n{}", picture.text(), underneath(app, &token))),
                (false, false) => say(&token),
            }
        }
        Endpoint::List(how) => {
            let (rows, _) = endpoints::list(app, ctx, &Filter { limit: i64::MAX, ..Filter::default() }).await?;
            print(
                how,
                rows.iter().map(|e| {
                    let last_seen = e.last_seen_at.map(crate::domain::time::Time::from_micros);
                    json!({"id": e.id, "name": e.name, "site": e.site_code, "state": e.state, "verdict": e.verdict, "last_seen_at": last_seen, "quarantined": e.quarantined_at.is_some()})
                }),
            )
        }
        Endpoint::Show { endpoint } => {
            let id = find(app, ctx, &endpoint).await?;
            let (latest, ..) = health::get(app, ctx, id).await.map_err(explain)?;
            let l = latest.context("its agent has sent no health report yet")?;
            let all = json!({"at": l.at, "gauges": l.gauges, "inventory": l.inventory, "probes": l.probes, "checks": l.checks});
            say(&serde_json::to_string_pretty(&all)?)
        }
        Endpoint::Copies { endpoint } => {
            let id = find(app, ctx, &endpoint).await?;
            let (row, _) = endpoints::get(app, ctx, id).await.map_err(explain)?;
            for c in copies::of(app, &row).await.map_err(explain)? {
                let [first_at, last_at] = [c.first_at, c.last_at].map(crate::domain::time::Time::from_micros);
                let line = json!({"copy": c.copy, "claim": c.claim, "first_seen_at": first_at, "last_seen_at": last_at, "reports": c.reports, "became": c.became});
                say(&line.to_string())?;
            }
            Ok(())
        }
        Endpoint::NewMachine { endpoint, copy, reason } => {
            let id = find(app, ctx, &endpoint).await?;
            let (row, _, new) = copies::new_machine(app, ctx, id, &copy, &reason).await.map_err(explain)?;
            say(&format!("the copy becomes endpoint {new}; {} ({}) {}", row.name, row.id, standing(&row)))
        }
        Endpoint::SameMachine { endpoint, copy, reason } => {
            let id = find(app, ctx, &endpoint).await?;
            let (row, _) = copies::same_machine(app, ctx, id, copy.as_deref(), &reason).await.map_err(explain)?;
            say(&format!("{} ({}) {}", row.name, row.id, standing(&row)))
        }
        Endpoint::Metered { endpoint, metered } => {
            let id = find(app, ctx, &endpoint).await?;
            let (row, _) = endpoints::set_metered(app, ctx, id, metered.parse().ok()).await.map_err(explain)?;
            let how = if row.metered { "" } else { "not " };
            say(&format!("the line of {} ({}) is {how}paid by the byte", row.name, row.id))
        }
        Endpoint::Revoke { endpoint, reason } => {
            let id = find(app, ctx, &endpoint).await?;
            let (row, _) = endpoints::revoke(app, ctx, id, &reason).await.map_err(explain)?;
            say(&format!("{} ({}) is withdrawn", row.name, row.id))
        }
    }
}

/// Writes a QR code; it is as secret as the token.
fn draw(code: &Code, path: &Path) -> Result<()> {
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("svg") => code.svg().into_bytes(),
        Some("png") => code.png()?,
        Some("txt") => code.text().into_bytes(),
        _ => bail!("{}: give a name that ends in .svg, .png or .txt, or - for the terminal", path.display()),
    };
    Ok(tls::write(path, &bytes, 0o600)?)
}

/// What a person may type instead of scanning.
fn underneath(app: &App, token: &str) -> String {
    let mut groups = token.split('-');
    let prefix = groups.next().unwrap_or_default();
    let groups: Vec<&str> = groups.collect();
    let of = |range: &[&str]| range.join(" ");
    let (secret, authority) = groups.split_at(groups.len().min(4));
    format!("address    {}\ntoken      {prefix} {}\nauthority  {}", app.agent_url, of(secret), of(authority))
}

fn standing(row: &crate::store::endpoints::Endpoint) -> &'static str {
    if row.quarantined_at.is_some() { "is still in quarantine" } else { "is out of quarantine" }
}

pub(super) async fn find(app: &App, ctx: &Ctx, endpoint: &str) -> Result<EndpointId> {
    match endpoint.parse() {
        Ok(id) => Ok(id),
        Err(_) => by_name(app, ctx, endpoint).await,
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Probe {
    /// Let one computer of each site probe a service.
    Add {
        /// Its name in results.
        name: String,
        /// tcp, tls, http, https, dns or captive.
        #[arg(long)]
        kind: String,
        /// Host, or the name to resolve.
        #[arg(long)]
        host: String,
        /// Port; 0: the kind's own.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Path of a request.
        #[arg(long)]
        path: Option<String>,
        /// What must come back: a status, or addresses separated by commas.
        #[arg(long)]
        expect: Option<String>,
        /// Seconds between probes.
        #[arg(long, default_value_t = 300)]
        every_s: u32,
        /// Milliseconds a probe may take.
        #[arg(long, default_value_t = 5000)]
        budget_ms: u32,
    },
    /// List what is probed.
    List(Json),
    /// Stop probing a service.
    Remove {
        /// Its name.
        name: String,
    },
}

pub(super) async fn run_probe(app: &App, ctx: &Ctx, p: Probe) -> Result<()> {
    match p {
        Probe::Add { name, kind, host, port, path, expect, every_s, budget_ms } => {
            let service = Service { name, kind, host, port, path, expect, every_s, budget_ms, ..Service::default() };
            let added = health::add_service(app, ctx, service).await.map_err(explain)?;
            say(&format!("{} is probed", added.service.name))
        }
        Probe::List(how) => {
            let all = health::services(app, ctx).await.map_err(explain)?;
            print(how, all.iter().map(|s| json!(s.service)))
        }
        Probe::Remove { name } => {
            let all = health::services(app, ctx).await.map_err(explain)?;
            let found = all.iter().find(|s| s.service.name == name);
            let found = found.with_context(|| format!("no service named {name} is probed; see `admin probe list`"))?;
            health::remove_service(app, ctx, found.id).await.map_err(explain)?;
            say(&format!("{name} is no longer probed"))
        }
    }
}

async fn by_name(app: &App, ctx: &Ctx, name: &str) -> Result<EndpointId> {
    let filter = Filter { text: Some(name.to_owned()), limit: i64::MAX, ..Filter::default() };
    let (rows, _) = endpoints::list(app, ctx, &filter).await?;
    let mut exact = rows.iter().filter(|e| e.name == name);
    let first =
        exact.next().with_context(|| format!("there is no endpoint named {name}; see `admin endpoint list`"))?;
    if exact.next().is_some() {
        bail!("several endpoints are named {name}; give the id from `admin endpoint list`");
    }
    Ok(first.id)
}
