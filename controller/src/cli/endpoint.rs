//! `admin endpoint`: tokens and office computers.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;

use super::admin::{Json, explain, print, say};
use crate::services::endpoints::{self, TokenRequest};
use crate::services::{App, Ctx};
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
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List office computers.
    List(Json),
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
        Endpoint::Token { site, count, ttl_hours, note, json } => {
            let request = TokenRequest { site_code: site, count, ttl_hours, note };
            let (token, expires_at) = endpoints::create_token(app, ctx, &request).await.map_err(explain)?;
            if json { say(&json!({"token": token, "expires_at": expires_at}).to_string()) } else { say(&token) }
        }
        Endpoint::List(how) => {
            let (rows, _) = endpoints::list(app, ctx, &Filter { limit: i64::MAX, ..Filter::default() }).await?;
            print(
                how,
                rows.iter().map(|e| {
                    let last_seen = e.last_seen_at.map(crate::domain::time::Time::from_micros);
                    json!({"id": e.id, "name": e.name, "site": e.site_code, "state": e.state, "verdict": e.verdict, "last_seen_at": last_seen})
                }),
            )
        }
        Endpoint::Revoke { endpoint, reason } => {
            let id = match endpoint.parse() {
                Ok(id) => id,
                Err(_) => by_name(app, ctx, &endpoint).await?,
            };
            let (row, _) = endpoints::revoke(app, ctx, id, &reason).await.map_err(explain)?;
            say(&format!("{} ({}) is withdrawn", row.name, row.id))
        }
    }
}

async fn by_name(app: &App, ctx: &Ctx, name: &str) -> Result<tram_wire::ids::EndpointId> {
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
