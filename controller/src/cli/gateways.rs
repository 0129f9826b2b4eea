//! `admin gateway`: looking at gateways and emptying one.

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::admin::{Json, print};
use super::gateway_issue;
use crate::config::Config;
use crate::domain::time::Time;
use crate::services::{App, Ctx, gateways};
use crate::store::gateways::Gateway;

#[derive(Debug, Subcommand)]
pub(super) enum Gateways {
    /// List gateways; one that is gone is shown for a day.
    List(Json),
    /// Write what a gateway on another machine needs into a folder: its settings and certificates.
    Issue(Box<gateway_issue::Issue>),
    /// Empty a gateway: it takes nothing new, and its sessions go on at another one.
    Drain {
        /// Its name.
        name: String,
        /// How to print it.
        #[command(flatten)]
        json: Json,
    },
    /// Let a gateway take connections again.
    Undrain {
        /// Its name.
        name: String,
        /// How to print it.
        #[command(flatten)]
        json: Json,
    },
}

pub(super) async fn run(config: &Config, app: &App, ctx: &Ctx, what: Gateways) -> Result<()> {
    let (name, json, draining) = match what {
        Gateways::List(json) => return print(json, gateways::list(app, ctx).await?.iter().map(row)),
        Gateways::Issue(wanted) => return gateway_issue::run(config, app, ctx, *wanted).await,
        Gateways::Drain { name, json } => (name, json, true),
        Gateways::Undrain { name, json } => (name, json, false),
    };
    let unknown = || format!("there is no gateway named {name}; see `admin gateway list`");
    let id = gateways::by_name(app, ctx, &name).await.with_context(unknown)?.id;
    let done = gateways::drain(app, ctx, id, draining).await?;
    print(json, std::iter::once(row(&done)))
}

fn row(g: &Gateway) -> Value {
    json!({"name": g.name, "state": g.state(), "draining": g.draining, "sessions": g.sessions, "connections": g.connections, "untold": g.untold,
        "silent_s": g.silent().as_secs(), "version": g.version, "embedded": g.embedded, "local_hosts": g.local_hosts,
        "web_url": g.web_url, "agent_url": g.agent_url, "started_at": Time::from_micros(g.started_at), "id": g.id})
}
