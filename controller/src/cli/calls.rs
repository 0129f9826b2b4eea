//! `admin call`: looking at calls of officers for support.

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::admin::{Json, explain, print, say};
use crate::domain::time::Time;
use crate::services::{App, Ctx, calls};
use crate::store::calls::{Call, Filter};

#[derive(Debug, Subcommand)]
pub(super) enum Calls {
    /// List calls, the newest first.
    List {
        /// Those that are over, too.
        #[arg(long)]
        all: bool,
        /// How to print it.
        #[command(flatten)]
        json: Json,
    },
    /// Show a call with its snapshot and what happened to it. JSON.
    Show {
        /// Its id, or the code that is read out.
        call: String,
    },
}

pub(super) async fn run(app: &App, ctx: &Ctx, what: Calls) -> Result<()> {
    match what {
        Calls::List { all, json } => {
            let filter = Filter { over: (!all).then_some(false), limit: i64::MAX, ..Filter::default() };
            print(json, calls::list(app, ctx, &filter).await.map_err(explain)?.0.iter().map(row))
        }
        Calls::Show { call } => {
            let id = match call.parse() {
                Ok(id) => id,
                Err(_) => {
                    let found = calls::find(app, ctx, &call).await.map_err(explain)?;
                    found.calls.first().context("no call has arrived with this code")?.id
                }
            };
            let (call, events, incidents) = calls::get(app, ctx, id).await.map_err(explain)?;
            let events: Vec<Value> = events
                .iter()
                .map(|e| json!({"at": Time::from_micros(e.at), "kind": e.kind, "actor": e.actor, "detail": e.detail.0}))
                .collect();
            let incidents: Vec<Value> = incidents
                .iter()
                .map(|i| json!({"id": i.id, "cause": i.cause, "scope": i.scope, "open": i.open}))
                .collect();
            let mut shown = row(&call);
            shown["snapshot"] = call.snapshot.clone().unwrap_or_default();
            shown["events"] = events.into();
            shown["incidents"] = incidents.into();
            say(&serde_json::to_string_pretty(&shown)?)
        }
    }
}

fn row(c: &Call) -> Value {
    json!({"code": c.code, "state": c.state, "computer": c.endpoint_name, "site": c.site_code, "taken_by": c.taken_by,
        "opened_at": Time::from_micros(c.opened_at), "arrived": c.arrived_at.is_some(), "incident": c.incident_id,
        "id": c.id})
}
