//! What this computer is made of and how it feels: the collectors' own eyes, looking now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tram_wire::check::{CheckState, worst};
use tram_wire::helper::{Disk, Request, UsbPort};
use tram_wire::report::Item;

use super::{Desk, Found, helped};
use crate::collect::{disks as smart_disks, os, tokens, usb as usb_tree, vitals};
use crate::host::Host;

/// Between the two looks at processes.
const BETWEEN: Duration = Duration::from_millis(500);
/// Share of a disk that should be free: warn, crit.
const FREE_PERCENT: (u64, u64) = (10, 3);
/// A clock that far from the controller's breaks certificates and signatures.
const SKEW_MS: (u64, u64) = (2_000, 60_000);

/// What the checks found last.
pub(super) fn health<H: Host>(d: &Desk<H>) -> Found {
    let all = &d.here.findings;
    let mut text = String::new();
    for f in all {
        let params: Vec<String> = f.params.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let _ = writeln!(text, "{} {} {} {}", f.state.as_str(), f.check, f.code, params.join(" "));
    }
    let bad = all.iter().filter(|f| matches!(f.state, CheckState::Warn | CheckState::Crit));
    let found = Found::of(worst(all), if all.is_empty() { "nothing_yet" } else { "done" });
    found.facts(bad.map(|f| (f.check.clone(), f.code.clone()))).fact("checks", all.len()).text(text)
}

/// The busiest programs, by name only: their arguments are nobody's business.
pub(super) fn top<H: Host>(d: &mut Desk<H>, count: u16) -> Found {
    let before = times(&d.host);
    let _ = d.host.gauges();
    std::thread::sleep(BETWEEN);
    let after = times(&d.host);
    let mut used: BTreeMap<&str, u64> = BTreeMap::new();
    for (pid, (name, ticks)) in &after {
        let old = before.get(pid).map_or(0, |(_, t)| *t);
        *used.entry(name).or_default() += ticks.saturating_sub(old);
    }
    let all: u64 = used.values().sum();
    let mut order: Vec<(&str, u64)> = used.into_iter().collect();
    order.sort_by_key(|(name, ticks)| (std::cmp::Reverse(*ticks), *name));
    let g = d.host.gauges();
    let free = g.memory_available.saturating_mul(100).checked_div(g.memory_total);
    let shares = order.iter().take(count.into()).filter(|(_, t)| *t > 0);
    let text = shares.fold(String::new(), |mut text, (name, t)| {
        let _ = writeln!(text, "{:>3} % {name}", t * 100 / all.max(1));
        text
    });
    let busy = g.cpu_percent > 90.0;
    let starved = free.is_some_and(|f| f < 5);
    let found = match (starved, busy) {
        (true, _) => Found::crit("memory_short"),
        (false, true) => Found::warn("cpu_busy"),
        (false, false) => Found::ok("done"),
    };
    found
        .fact("cpu_percent", format!("{:.0}", g.cpu_percent))
        .facts(free.map(|f| ("memory_free_percent".to_owned(), f)))
        .fact("busiest", order.first().map_or("", |(name, _)| name))
        .text(text)
}

/// Ticks of each process, with its name.
fn times(host: &impl Host) -> BTreeMap<String, (String, u64)> {
    let numbers = host.list("/proc").into_iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let one = |pid: String| {
        let stat = host.read(&format!("/proc/{pid}/stat"))?;
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let f: Vec<&str> = rest.split_whitespace().collect();
        let ticks = f.get(11)?.parse::<u64>().ok()? + f.get(12)?.parse::<u64>().ok()?;
        Some((pid, (name, ticks)))
    };
    numbers.filter_map(one).collect()
}

/// How full the disks are.
pub(super) fn disks<H: Host>(d: &mut Desk<H>) -> Found {
    let all = vitals::collect(&mut d.host).volumes;
    let (mut state, mut code, mut facts) = (CheckState::Ok, "done", Vec::new());
    for v in &all {
        let percent = v.free_mib.saturating_mul(100) / v.total_mib.max(1);
        let (own, why) = match percent {
            _ if v.read_only && v.mount == "/" => (CheckState::Crit, "read_only"),
            p if p < FREE_PERCENT.1 => (CheckState::Crit, "disk_full"),
            p if p < FREE_PERCENT.0 => (CheckState::Warn, "disk_low"),
            _ => (CheckState::Ok, "done"),
        };
        if own.severity() > state.severity() {
            (state, code) = (own, why);
        }
        facts.push((v.mount.clone(), format!("{percent} % free of {} GiB", v.total_mib / 1024)));
    }
    Found::of(state, code).facts(facts)
}

/// How long the disks will last.
pub(super) fn smart<H: Host>(d: &Desk<H>) -> Found {
    let all = smart_disks::collect(&d.host);
    let says = |word: &str| all.iter().any(|i| i.facts.get("smart").is_some_and(|s| s == word));
    let found = match () {
        () if says("failing") => Found::crit("disk_failing"),
        () if says("no_answer") => Found::crit("no_answer"),
        () if says("passed") => Found::ok("done"),
        () if says("not_allowed") => Found::unknown("not_permitted"),
        () => Found::unknown("absent"),
    };
    found.facts(said(&all)).text(lines(&all))
}

/// Has a disk test itself; `smart` says what came of it.
pub(super) fn smart_test<H: Host>(d: &Desk<H>, disk: &Disk) -> Found {
    let asked = match helped::ask(d, &Request::SmartTest { disk: disk.clone() }) {
        Ok(asked) => asked,
        Err(found) => return found.fact("disk", disk.as_str()),
    };
    let found = asked.map(|out| {
        let said = serde_json::from_str::<serde_json::Value>(&out).unwrap_or_default();
        let minutes = said.pointer("/ata_smart_data/self_test/polling_minutes/short").cloned();
        Found::ok("begun").facts(minutes.map(|m| ("minutes".to_owned(), m)))
    });
    found.fact("disk", disk.as_str())
}

/// Has the device at a port begin anew.
pub(super) fn usb_cycle<H: Host>(d: &Desk<H>, port: &UsbPort) -> Found {
    let name = |all: Vec<Item>| all.into_iter().find(|i| i.id == port.as_str()).and_then(|i| i.name);
    let before = name(usb_tree::collect(&d.host)).unwrap_or_default();
    let found = helped::done(d, &Request::UsbCycle { port: port.clone() });
    found.fact("port", port.as_str()).fact("device", before)
}

/// What is plugged in.
pub(super) fn usb<H: Host>(d: &Desk<H>) -> Found {
    let all = usb_tree::collect(&d.host);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    all.iter().for_each(|i| *kinds.entry(i.kind.clone()).or_default() += 1);
    Found::ok("done").facts(kinds).text(lines(&all))
}

/// Card readers and signing tokens: what is there and until when its certificates are good, never whose.
pub(super) fn readers<H: Host>(d: &Desk<H>) -> Found {
    let mut all: Vec<Item> = usb_tree::collect(&d.host);
    all.retain(|i| matches!(i.kind.as_str(), "token" | "reader"));
    let plugged = all.len();
    all.extend(tokens::collect(&d.host));
    let stopped = all.iter().any(|i| i.id == "pcscd" && i.facts.get("running").is_some_and(|r| r == "false"));
    let found = match plugged {
        0 => Found::warn("no_reader"),
        _ if stopped => Found::crit("service_stopped"),
        _ => Found::ok("done"),
    };
    found.fact("plugged", plugged).text(lines(&all))
}

/// Our clock beside the controller's.
pub(super) fn clock<H: Host>(d: &Desk<H>) -> Found {
    let Some(skew) = d.here.skew_ms else { return Found::unknown("no_answer") };
    let found = match skew.unsigned_abs() {
        s if s > SKEW_MS.1 => Found::crit("clock_wrong"),
        s if s > SKEW_MS.0 => Found::warn("clock_off"),
        _ => Found::ok("done"),
    };
    found.fact("skew_ms", skew)
}

/// Who keeps the clock.
pub(super) fn ntp<H: Host>(d: &Desk<H>) -> Found {
    let all = os::collect(&d.host);
    let Some(time) = all.into_iter().find(|i| i.kind == "time") else { return Found::unknown("absent") };
    let get = |name: &str| time.facts.get(name).map(String::as_str);
    let found = match (get("keeper"), get("synchronised")) {
        (None | Some("none"), _) => Found::warn("clock_unkept"),
        (_, Some("false")) => Found::warn("clock_unsynchronised"),
        // No answer is not a good answer.
        (_, None) => Found::unknown("no_answer"),
        _ => Found::ok("done"),
    };
    found.facts(time.facts)
}

/// Goes by what the configuration says of the proxy now.
pub(super) fn reread_proxy<H: Host>(d: &Desk<H>) -> Found {
    match d.here.reread_proxy.map(|reread| reread()) {
        None => Found::unknown("absent"),
        Some(Ok(way)) => Found::ok("done").fact("proxy", way),
        Some(Err(e)) => Found::crit("failed").fact("error", e),
    }
}

/// Everything is told anew.
pub(super) fn resend<H: Host>(d: &Desk<H>) -> Found {
    d.here.resend.store(true, Ordering::Relaxed);
    Found::ok("done")
}

/// The facts of all items, each under its item's name.
pub(super) fn said(all: &[Item]) -> Vec<(String, String)> {
    all.iter().flat_map(|i| i.facts.iter().map(move |(k, v)| (format!("{}.{k}", i.id), v.clone()))).collect()
}

/// A line an item.
pub(super) fn lines(all: &[Item]) -> String {
    all.iter().fold(String::new(), |mut text, i| {
        let facts: Vec<String> = i.facts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let _ = writeln!(text, "{} {} {} {}", i.kind, i.id, i.name.as_deref().unwrap_or_default(), facts.join(" "));
        text
    })
}
