//! `admin enrolment`: computers that wait for approval.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::admin::{Json, explain, print, say};
use crate::domain::time::Time;
use crate::services::{App, Ctx, enrolments};
use crate::store::enrolments::Enrolment;

#[derive(Debug, Subcommand)]
pub(super) enum Enrolments {
    /// List computers that wait for approval, the first first.
    Pending {
        /// Those that were decided about instead, the newest first.
        #[arg(long)]
        decided: bool,
        /// How to print it.
        #[command(flatten)]
        json: Json,
    },
    /// Show a computer that waits, and the endpoints of its site beside it. JSON.
    Show {
        /// The six digits of its screen.
        code: String,
    },
    /// Approve a computer; it gets its certificate when it asks next.
    Approve {
        /// The six digits of its screen.
        code: String,
    },
    /// Refuse a computer.
    Refuse {
        /// The six digits of its screen.
        code: String,
        /// Why; it stands on the computer's screen.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(app: &App, ctx: &Ctx, e: Enrolments) -> Result<()> {
    match e {
        Enrolments::Pending { decided, json } => {
            print(json, enrolments::list(app, ctx, !decided).await.map_err(explain)?.iter().map(row))
        }
        Enrolments::Show { code } => {
            let found = enrolments::find(app, ctx, &code).await.map_err(explain)?;
            let (found, beside) = enrolments::get(app, ctx, found.id).await.map_err(explain)?;
            let mut shown = row(&found);
            shown["hardware"] = json!(found.hardware);
            shown["marks"] = json!(found.marks);
            shown["expected"] = json!(found.expected);
            let neighbours = beside.iter().map(|n| {
                json!({"id": n.id, "name": n.name, "state": n.state, "hardware": n.hardware,
                    "marks": n.known.as_ref().map(|k| &k.last.instance.marks), "same_hardware": enrolments::is_same_hardware(&found, n)})
            });
            shown["beside"] = neighbours.collect::<Vec<_>>().into();
            say(&serde_json::to_string_pretty(&shown)?)
        }
        Enrolments::Approve { code } => {
            let found = enrolments::find(app, ctx, &code).await.map_err(explain)?;
            let done = enrolments::approve(app, ctx, found.id, &code).await.map_err(explain)?;
            say(&format!("{} is approved; it becomes endpoint {} when it asks next", done.name, done.id))
        }
        Enrolments::Refuse { code, reason } => {
            let found = enrolments::find(app, ctx, &code).await.map_err(explain)?;
            let done = enrolments::refuse(app, ctx, found.id, &reason).await.map_err(explain)?;
            say(&format!("{} is refused", done.name))
        }
    }
}

fn row(e: &Enrolment) -> Value {
    let serial = e.hardware.as_ref().and_then(|h| h.serial.as_ref());
    json!({"code": e.digits, "name": e.name, "site": e.site_code, "state": e.state, "serial": serial, "address": e.address,
        "asked_at": Time::from_micros(e.asked_at), "expires_at": Time::from_micros(e.expires_at),
        "decided_by": e.decided_by, "id": e.id})
}
