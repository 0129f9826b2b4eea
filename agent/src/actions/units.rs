//! Services of the fixed lists: how they are, what they said, starting them anew; restart and sign-out.

use tram_wire::diagnosis::{Restartable, Unit};
use tram_wire::helper::{Lines, Request};

use super::redact::redact;
use super::{Desk, Found, helped};
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
    let Ok(lines) = Lines::try_from(lines) else { return Found::unknown("absent") };
    let asked = match helped::ask(d, &Request::Journal { unit: unit.clone(), lines }) {
        Ok(asked) => asked,
        Err(found) => return found.fact("unit", unit.as_str()),
    };
    match &asked.ran {
        Ran::Done { code: 0, out } if out.trim().is_empty() => Found::unknown("nothing_said"),
        Ran::Done { code: 0 | -1, out } => {
            let text = redact(out);
            Found::ok("done").fact("lines", text.lines().count()).text(text)
        }
        _ => asked.found(),
    }
    .fact("unit", unit.as_str())
}

/// Starts a service anew.
pub(super) fn restart<H: Host>(d: &Desk<H>, unit: &Restartable) -> Found {
    helped::done(d, &Request::RestartUnit { unit: unit.clone() }).fact("unit", unit.as_str())
}

/// Restarts the computer in a minute: who sits there is told by it too.
pub(super) fn reboot<H: Host>(d: &Desk<H>) -> Found {
    helped::done(d, &Request::Reboot {})
}

/// Ends the sessions at this computer's own screen.
pub(super) fn log_out<H: Host>(d: &Desk<H>) -> Found {
    let asked = match helped::ask(d, &Request::LogOut {}) {
        Ok(asked) => asked,
        Err(found) => return found,
    };
    asked.map(|ended| match ended.trim() {
        "0" => Found::unknown("nobody_there"),
        n => Found::ok("done").fact("sessions", n),
    })
}
