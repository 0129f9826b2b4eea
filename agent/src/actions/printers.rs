//! Print queues: how they are, a page to try, letting them go on, emptying them. Only queues that CUPS names.

use tram_wire::diagnosis::Printer;
use tram_wire::helper::Request;

use super::machine::{lines, said};
use super::{Desk, Found, helped};
use crate::collect::printers;
use crate::host::Host;

/// The page CUPS itself brings.
const TEST_PAGE: &str = "/usr/share/cups/data/default-testpage.pdf";

/// All queues.
pub(super) fn list<H: Host>(d: &Desk<H>) -> Found {
    let all = printers::collect(&d.host);
    let is = |name: &str, value: &str| all.iter().any(|i| i.facts.get(name).is_some_and(|v| v == value));
    let found = match () {
        () if all.is_empty() => Found::warn("no_printer"),
        () if is("state", "stopped") => Found::crit("printer_stopped"),
        () if all.iter().any(|i| i.facts.contains_key("jobs_stuck")) => Found::crit("jobs_stuck"),
        () if is("accepting", "false") => Found::warn("printer_refuses"),
        () if all.iter().any(|i| i.facts.contains_key("reasons")) => Found::warn("printer_complains"),
        () => Found::ok("done"),
    };
    found.facts(said(&all)).text(lines(&all))
}

/// The queue's name, if CUPS has one of it.
fn known<'a, H: Host>(d: &Desk<H>, printer: &'a Printer) -> Option<&'a str> {
    let all = printers::collect(&d.host);
    all.iter().any(|i| i.id == printer.as_str()).then(|| printer.as_str())
}

pub(super) fn test_page<H: Host>(d: &Desk<H>, printer: &Printer) -> Found {
    let Some(name) = known(d, printer) else { return Found::crit("no_printer") };
    Found::done(&d.run("lp", &["-d", name, "--", TEST_PAGE])).fact("printer", name)
}

pub(super) fn resume<H: Host>(d: &Desk<H>, printer: &Printer) -> Found {
    let Some(name) = known(d, printer) else { return Found::crit("no_printer") };
    helped::done(d, &Request::ResumeQueue { printer: printer.clone() }).fact("printer", name)
}

pub(super) fn clear<H: Host>(d: &Desk<H>, printer: &Printer) -> Found {
    let Some(name) = known(d, printer) else { return Found::crit("no_printer") };
    helped::done(d, &Request::ClearQueue { printer: printer.clone() }).fact("printer", name)
}
