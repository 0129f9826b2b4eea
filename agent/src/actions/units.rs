//! Services of the fixed lists: how they are, what they said, starting them anew; restart and sign-out.

use std::time::Duration;

use tram_wire::diagnosis::{Restartable, Unit};

use super::redact::redact;
use super::{Desk, Found};
use crate::host::{Host, Ran};

/// What is asked of a unit.
const PROPERTIES: [&str; 6] = ["LoadState", "ActiveState", "SubState", "Result", "NRestarts", "ActiveEnterTimestamp"];

/// How a service is.
pub(super) fn state<H: Host>(d: &Desk<H>, unit: &Unit) -> Found {
    let wanted = format!("--property={}", PROPERTIES.join(","));
    let ran = d.run("systemctl", &["show", "--no-pager", &wanted, "--", unit.as_str()]);
    let Some(out) = ran.out().filter(|o| o.contains("ActiveState=")) else {
        return match ran {
            Ran::Done { .. } => Found::unknown("not_permitted"),
            other => Found::done(&other),
        };
    };
    let facts: Vec<(String, String)> =
        out.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let get = |name: &str| facts.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    let found = match (get("LoadState"), get("ActiveState")) {
        (Some("not-found"), _) => Found::unknown("absent"),
        (_, Some("active")) => Found::ok("running"),
        (_, Some("failed")) => Found::crit("service_failed"),
        // Started by its socket when somebody comes.
        (_, Some("inactive")) => Found::warn("service_stopped"),
        _ => Found::warn("service_changing"),
    };
    found.fact("unit", unit.as_str()).facts(facts)
}

/// What a service said last, without what could name a citizen or open a door.
pub(super) fn journal<H: Host>(d: &Desk<H>, unit: &Unit, lines: u16) -> Found {
    let lines = format!("--lines={lines}");
    let unit_is = format!("--unit={}", unit.as_str());
    let ran = d.run("journalctl", &["--no-pager", "--quiet", "--output=short-iso", "--no-hostname", &lines, &unit_is]);
    match &ran {
        Ran::Done { code: 0, out } if out.trim().is_empty() => Found::unknown("nothing_said"),
        Ran::Done { code: 0 | -1, out } => {
            let text = redact(out);
            Found::ok("done").fact("lines", text.lines().count()).text(text)
        }
        other => Found::done(other),
    }
    .fact("unit", unit.as_str())
}

/// Starts a service anew.
pub(super) fn restart<H: Host>(d: &Desk<H>, unit: &Restartable) -> Found {
    Found::done(&d.run("systemctl", &["restart", "--no-ask-password", "--", unit.as_str()])).fact("unit", unit.as_str())
}

/// Restarts the computer in a minute: who sits there is told by it too.
pub(super) fn reboot<H: Host>(d: &Desk<H>) -> Found {
    Found::done(&d.run("shutdown", &["-r", "+1"]))
}

/// Ends the sessions at this computer's own screen.
pub(super) fn log_out<H: Host>(d: &Desk<H>) -> Found {
    const SHORT: Duration = Duration::from_secs(5);
    let ran = d.run_for("loginctl", &["list-sessions", "--no-legend", "--no-pager"], SHORT);
    let Some(out) = ran.out() else { return Found::done(&ran) };
    let ids: Vec<&str> = out
        .lines()
        .filter(|l| l.split_whitespace().any(|w| w == "seat0"))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric()))
        .collect();
    if ids.is_empty() {
        return Found::unknown("nobody_there");
    }
    let done: Vec<Found> =
        ids.iter().map(|id| Found::done(&d.run_for("loginctl", &["terminate-session", id], SHORT))).collect();
    let worst = done.into_iter().max_by_key(|f| f.state.severity());
    worst.unwrap_or_else(|| Found::unknown("nobody_there")).fact("sessions", ids.len())
}
