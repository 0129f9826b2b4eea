//! `admin diagnosis`: has an office computer do something of the closed catalogue, and waits for what it finds.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use tram_wire::check::CheckState;
use tram_wire::diagnosis::{ACTIONS, Bundle};
use tram_wire::ids::OrderId;

use super::admin::{Json, explain, print, say};
use super::endpoint::find;
use crate::domain::diagnosis::DiagnosisState;
use crate::domain::time::Time;
use crate::services::diagnosis::{self, Request};
use crate::services::{App, Ctx};

#[derive(Debug, Subcommand)]
pub(super) enum Diagnosis {
    /// What can be asked for.
    Catalogue(Json),
    /// Ask an office computer, and wait for the end. It fails if that was not done; what was found is in the steps.
    Ask {
        /// Id, or name if only one computer has it.
        endpoint: String,
        /// An action or a bundle of the catalogue.
        action: String,
        /// Its arguments, such as to=gateway count=5.
        arguments: Vec<String>,
        /// Why; needed for what changes something.
        #[arg(long, default_value = "")]
        reason: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// What a computer was asked for.
    List {
        /// Id, or name if only one computer has it.
        endpoint: String,
        #[command(flatten)]
        how: Json,
    },
    /// Stop one, by its id.
    Cancel {
        /// Its id.
        id: OrderId,
    },
    /// Sign orders with a new key from now on; computers hear of it when they link.
    NewKey {
        /// What the former key signed is void at once: for a key that somebody else may have.
        #[arg(long)]
        forget_former: bool,
    },
}

pub(super) async fn run(app: &App, ctx: &Ctx, d: Diagnosis) -> Result<()> {
    match d {
        Diagnosis::Catalogue(how) => {
            let bundles = Bundle::ALL.into_iter().map(|b| {
                json!({"name": b.name(), "class": "silent", "deadline_s": b.deadline_s(), "arguments": "", "bundle": true})
            });
            let actions = ACTIONS.iter().map(|a| {
                let names: Vec<&str> = a.arguments.iter().map(|a| a.name).collect();
                json!({"name": a.name, "class": a.class.name(), "deadline_s": a.deadline_s, "arguments": names.join(" "), "bundle": false})
            });
            print(how, bundles.chain(actions))
        }
        Diagnosis::Ask { endpoint, action, arguments, reason, json } => {
            let id = find(app, ctx, &endpoint).await?;
            let request = Request { name: action, arguments: parse(&arguments)?, reason };
            let asked = diagnosis::ask(app, ctx, id, &request).await.map_err(explain)?;
            wait(app, ctx, asked.id, json).await
        }
        Diagnosis::List { endpoint, how } => {
            let id = find(app, ctx, &endpoint).await?;
            let rows = diagnosis::list(app, ctx, Some(id), false).await.map_err(explain)?;
            print(
                how,
                rows.iter().map(|d| {
                    let at = Time::from_micros(d.asked_at);
                    json!({"id": d.id, "name": d.name, "state": d.state, "outcome": d.outcome, "code": d.code, "asked_by": d.asked_by, "asked_at": at})
                }),
            )
        }
        Diagnosis::Cancel { id } => {
            let d = diagnosis::cancel(app, ctx, id).await.map_err(explain)?;
            say(&format!("{} is {}", d.id, if d.state == DiagnosisState::Ended { "over" } else { "being stopped" }))
        }
        Diagnosis::NewKey { forget_former } => {
            let keys = diagnosis::new_key(app, ctx, forget_former).await.map_err(explain)?;
            say(&format!("keys: {}", keys.join(", ")))
        }
    }
}

fn parse(arguments: &[String]) -> Result<Map<String, Value>> {
    arguments
        .iter()
        .map(|a| {
            let (name, value) = a.split_once('=').with_context(|| format!("`{a}`: write NAME=VALUE"))?;
            Ok((name.to_owned(), value.parse::<u16>().map_or_else(|_| value.into(), Into::into)))
        })
        .collect()
}

/// Every state has an end, so this has one, too.
async fn wait(app: &App, ctx: &Ctx, id: OrderId, as_json: bool) -> Result<()> {
    loop {
        let (d, steps) = diagnosis::get(app, ctx, id).await.map_err(explain)?;
        if d.state != DiagnosisState::Ended {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let outcome = d.outcome.clone().unwrap_or_default();
        let found: Vec<_> = steps.iter().filter_map(|s| Some((s.body.as_ref()?, &s.text))).collect();
        if as_json {
            let steps: Vec<Value> = found
                .iter()
                .map(|(b, text)| json!({"step": b.step, "action": b.action, "state": b.state, "code": b.code, "facts": b.facts, "took_ms": b.took_ms, "text": text}))
                .collect();
            say(&json!({"id": d.id, "name": d.name, "outcome": outcome, "code": d.code, "verdict": d.verdict, "steps": steps}).to_string())?;
        } else {
            for (b, text) in &found {
                let facts: Vec<String> = b.facts.iter().map(|(k, v)| format!("{k}={v}")).collect();
                say(&format!("{} {}: {} {}", b.state.as_str(), b.action, b.code, facts.join(" ")))?;
                text.lines().try_for_each(|l| say(&format!("    {l}")))?;
            }
            if let Some(v) = &d.verdict {
                say(&format!("verdict: {} ({})", v.blame, v.code))?;
            }
        }
        if outcome != "done" {
            bail!("{outcome}{}", d.code.map(|c| format!(" ({c})")).unwrap_or_default());
        }
        let bad = found.iter().any(|(b, _)| matches!(b.state, CheckState::Warn | CheckState::Crit));
        if bad && !as_json {
            say("worth a look")?;
        }
        return Ok(());
    }
}
