//! Printers as the local CUPS knows them: paper, toner, a paused queue, jobs that got stuck.

use std::time::Duration;

use tram_wire::report::Item;

use super::ipp::{self, Group, Operation};
use super::{Fill, item};
use crate::host::Host;

const DEADLINE: Duration = Duration::from_secs(3);
const DOORS: [&str; 3] = ["/run/cups/cups.sock", "/var/run/cups/cups.sock", "127.0.0.1:631"];
/// A job that isn't done after this time is stuck.
const STUCK_S: i64 = 300;

const PRINTER: [&str; 8] = [
    "printer-name",
    "printer-info",
    "printer-make-and-model",
    "printer-state",
    "printer-state-reasons",
    "printer-is-accepting-jobs",
    "marker-levels",
    "marker-names",
];
/// Neither its name nor its owner: a document's name says whom it is about.
const JOB: [&str; 4] = ["job-id", "job-state", "job-printer-uri", "time-at-creation"];

/// Asks CUPS. A section without items: there is no CUPS, or no printer.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    let ask = |operation, wanted: &[&str], tag| {
        let request = ipp::request(operation, wanted);
        let http = DOORS.iter().find_map(|at| host.ask(at, &request, DEADLINE))?;
        ipp::answer(&http, tag)
    };
    let Some(printers) = ask(Operation::Printers, &PRINTER, 4) else { return Vec::new() };
    let jobs = if printers.is_empty() { None } else { ask(Operation::Jobs, &JOB, 2) }.unwrap_or_default();
    let now_s = host.wall_ms() / 1000;
    printers.iter().filter_map(|p| printer(p, &jobs, now_s)).take(16).collect()
}

fn printer(p: &Group, jobs: &[Group], now_s: i64) -> Option<Item> {
    let name = ipp::texts(p, "printer-name").into_iter().next()?;
    let state = match ipp::number(p, "printer-state") {
        Some(3) => "idle",
        Some(4) => "printing",
        Some(5) => "stopped",
        _ => "unknown",
    };
    let mut reasons = ipp::texts(p, "printer-state-reasons");
    reasons.retain(|r| r != "none");
    let levels: Vec<i32> = p.get("marker-levels").into_iter().flatten().filter_map(level).collect();
    let own = format!("/{name}");
    let waiting: Vec<i64> = jobs
        .iter()
        .filter(|j| ipp::texts(j, "job-printer-uri").iter().any(|u| u.ends_with(&own)))
        .filter_map(|j| ipp::number(j, "time-at-creation"))
        .map(|at| now_s - i64::from(at))
        .collect();
    let stuck = waiting.iter().filter(|age| **age > STUCK_S).count();
    let text = |n: &str| ipp::texts(p, n).into_iter().next().filter(|t| !t.is_empty());
    Some(
        item("printer", &name)
            .named(text("printer-info").or_else(|| text("printer-make-and-model")))
            .fact("model", text("printer-make-and-model"))
            .fact("state", Some(state.to_owned()))
            .fact("reasons", (!reasons.is_empty()).then(|| reasons.join(",")))
            .fact("accepting", ipp::number(p, "printer-is-accepting-jobs").map(|n| (n != 0).to_string()))
            .fact("toner_percent", levels.iter().min().map(ToString::to_string))
            .fact("jobs", (!waiting.is_empty()).then(|| waiting.len().to_string()))
            .fact("jobs_stuck", (stuck > 0).then(|| stuck.to_string()))
            .fact("oldest_job_s", waiting.iter().max().filter(|_| stuck > 0).map(|s| (s / 60 * 60).to_string())),
    )
}

/// Negative levels mean that it can't tell.
fn level(v: &ipp::Value) -> Option<i32> {
    match v {
        ipp::Value::Number(n) if (0..=100).contains(n) => Some(*n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ipp::tests::said;
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn a_printer_out_of_paper_says_so() {
        let mut host = Fake::new();
        let printers = said(
            4,
            &[&[
                (0x42, "printer-name", b"mot-cua".to_vec()),
                (0x41, "printer-make-and-model", b"Canon LBP2900".to_vec()),
                (0x23, "printer-state", 5_i32.to_be_bytes().to_vec()),
                (0x44, "printer-state-reasons", b"media-empty-error".to_vec()),
                (0x22, "printer-is-accepting-jobs", vec![1]),
                (0x21, "marker-levels", 80_i32.to_be_bytes().to_vec()),
                (0x21, "", 7_i32.to_be_bytes().to_vec()),
                (0x21, "", (-2_i32).to_be_bytes().to_vec()),
            ]],
        );
        host.services = vec![("/run/cups/cups.sock".into(), printers)];
        let p = collect(&host).remove(0);
        let get = |n: &str| p.facts.get(n).map(String::as_str);
        assert_eq!(
            (p.name.as_deref(), get("state"), get("reasons")),
            (Some("Canon LBP2900"), Some("stopped"), Some("media-empty-error"))
        );
        assert_eq!((get("toner_percent"), get("jobs_stuck")), (Some("7"), None));
    }

    #[test]
    fn a_job_older_than_five_minutes_is_stuck() {
        let group = |name: &str| Group::from([("printer-name".to_owned(), vec![ipp::Value::Text(name.to_owned())])]);
        let job = |printer: &str, at: i32| {
            Group::from([
                ("job-printer-uri".to_owned(), vec![ipp::Value::Text(format!("ipp://localhost/printers/{printer}"))]),
                ("time-at-creation".to_owned(), vec![ipp::Value::Number(at)]),
            ])
        };
        let jobs = [job("a", 1000), job("a", 1290), job("bb-a", 0)];
        let p = printer(&group("a"), &jobs, 1302).unwrap();
        assert_eq!(
            (p.facts["jobs"].as_str(), p.facts["jobs_stuck"].as_str(), p.facts["oldest_job_s"].as_str()),
            ("2", "1", "300")
        );
    }

    #[test]
    fn without_cups_there_are_no_printers_and_no_names_are_asked_for() {
        assert!(collect(&Fake::new()).is_empty());
        let asked = String::from_utf8_lossy(&ipp::request(Operation::Jobs, &JOB)).into_owned();
        assert!(!asked.contains("job-name") && !asked.contains("user-name"));
    }
}
