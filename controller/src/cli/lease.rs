//! `admin lease`: what lets officers in while the database is away.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::admin::{Json, explain, print, say};
use crate::domain::time::Time;
use crate::services::{App, Ctx, leases};

#[derive(Debug, Subcommand)]
pub(super) enum Lease {
    /// List leases that are not over.
    List(Json),
    /// Take every lease back; whoever works by one is cut when the database is back.
    RevokeAll {
        /// Only those of this officer.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sign with a new key from now on; what the former one signed stays good.
    NewKey {
        /// What was signed so far is void at once: for a key that somebody else may have.
        #[arg(long)]
        forget_former: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(app: &App, ctx: &Ctx, l: Lease) -> Result<()> {
    match l {
        Lease::List(how) => {
            let rows = leases::list(app, ctx).await.map_err(explain)?;
            print(
                how,
                rows.iter().map(|l| {
                    let time = Time::from_micros;
                    json!({
                        "id": l.id, "user": l.username, "endpoint": l.endpoint, "desktop": l.desktop, "good": l.live,
                        "issued_at": time(l.issued_at), "expires_at": time(l.expires_at), "revoked": l.revoked_why,
                    })
                }),
            )
        }
        Lease::RevokeAll { user, json } => {
            let n = leases::revoke(app, ctx, user.as_deref()).await.map_err(explain)?;
            if json { say(&json!({"revoked": n}).to_string()) } else { say(&format!("{n} leases are taken back")) }
        }
        Lease::NewKey { forget_former, json } => {
            let keys = leases::new_key(app, ctx, forget_former).await.map_err(explain)?;
            if json { say(&json!({"keys": keys}).to_string()) } else { say(&format!("keys: {}", keys.join(", "))) }
        }
    }
}
