//! Checks that are one rule each: peripherals, the line, the operating system.

use tram_wire::check::CheckState;
use tram_wire::report::{Item, Phase, Probe};

use super::{Check, Facts, Outcome};
use crate::collect::line::WAYS;

/// A check that is a function.
pub(super) struct Rule(pub(super) &'static str, pub(super) fn(&Facts<'_>) -> Outcome);

impl Check for Rule {
    fn id(&self) -> &'static str {
        self.0
    }
    fn look(&self, facts: &Facts<'_>) -> Outcome {
        (self.1)(facts)
    }
}

pub(super) const RULES: [Rule; 25] = [
    Rule("packet_loss", packet_loss),
    Rule("line", line),
    Rule("wifi", wifi),
    Rule("link_flaps", link_flaps),
    Rule("path_mtu", path_mtu),
    Rule("proxy", proxy),
    Rule("names", names),
    Rule("captive_portal", captive_portal),
    Rule("services", services),
    Rule("time_sync", time_sync),
    Rule("inodes", inodes),
    Rule("disk_health", disk_health),
    Rule("pressure", pressure),
    Rule("out_of_memory", out_of_memory),
    Rule("fan", fan),
    Rule("battery", battery),
    Rule("ups", ups),
    Rule("printer", printer),
    Rule("token", token),
    Rule("reader", reader),
    Rule("monitor", monitor),
    Rule("units", units),
    Rule("reboot", reboot),
    Rule("region", region),
    Rule("agent", agent),
];

/// Items of a section; `None` while nobody has looked.
fn items<'a>(f: &Facts<'a>, section: &str, kind: &str) -> Option<Vec<&'a Item>> {
    Some(f.inventory.get(section)?.iter().filter(|i| i.kind == kind).collect())
}

fn fact<'a>(i: &'a Item, name: &str) -> &'a str {
    i.facts.get(name).map_or("", String::as_str)
}

fn number(i: &Item, name: &str) -> Option<f64> {
    i.facts.get(name)?.parse().ok()
}

fn label(i: &Item) -> &str {
    i.name.as_deref().unwrap_or(&i.id)
}

fn packet_loss(f: &Facts<'_>) -> Outcome {
    let Some(t) = f.probes.get("gateway").and_then(|p| p.trips).filter(|t| t.sent > 0) else {
        return Outcome::unknown("loss_unknown");
    };
    let percent = u32::from(t.lost) * 100 / u32::from(t.sent);
    let outcome = match percent {
        0..10 => Outcome::ok("loss_ok"),
        10..50 => Outcome::warn("loss_some"),
        _ => Outcome::crit("loss_heavy"),
    };
    outcome.with("percent", percent).with("jitter_ms", t.jitter_us / 1000)
}

/// What the prober's packets say of the office's line; the others leave it to the prober.
fn line(f: &Facts<'_>) -> Outcome {
    let Some(t) = f.probes.get("controller").and_then(|p| p.trips).filter(|t| t.sent > 0) else {
        return Outcome::unknown("line_unmeasured");
    };
    let percent = u32::from(t.lost) * 100 / u32::from(t.sent);
    let outcome = match percent {
        0..5 => Outcome::ok("line_ok"),
        5..100 => Outcome::warn("line_loss"),
        _ => Outcome::crit("line_dead"),
    };
    outcome.with("percent", percent).with("p95_ms", t.p95_us / 1000).with("jitter_ms", t.jitter_us / 1000)
}

fn wifi(f: &Facts<'_>) -> Outcome {
    match f.gauges.get("wifi_dbm") {
        None => Outcome::ok("wifi_unused"),
        Some(dbm) if *dbm < -75.0 => Outcome::warn("wifi_weak").with("dbm", dbm.round()),
        Some(dbm) => Outcome::ok("wifi_ok").with("dbm", dbm.round()),
    }
}

fn link_flaps(f: &Facts<'_>) -> Outcome {
    // Since boot: a plug pulled now and then is life, twenty times is a bad contact.
    match f.network.interfaces.iter().max_by_key(|i| i.carrier_changes) {
        None => Outcome::unknown("flaps_unknown"),
        Some(i) if i.carrier_changes > 20 => {
            Outcome::warn("flaps_many").with("interface", &i.name).with("times", i.carrier_changes)
        }
        Some(i) => Outcome::ok("flaps_ok").with("times", i.carrier_changes),
    }
}

fn path_mtu(f: &Facts<'_>) -> Outcome {
    let least = f.probes.values().filter_map(|p| p.facts.get("mss")?.parse::<u32>().ok()).min();
    match least {
        None => Outcome::unknown("mtu_unknown"),
        Some(mss) if mss < 1200 => Outcome::warn("mtu_small").with("bytes", mss + 40),
        Some(mss) => Outcome::ok("mtu_ok").with("bytes", mss + 40),
    }
}

fn proxy(f: &Facts<'_>) -> Outcome {
    match items(f, "net", "proxy").as_deref() {
        None => Outcome::unknown("proxy_unknown"),
        Some([]) => Outcome::ok("proxy_none"),
        Some([p, ..]) => Outcome::ok("proxy_set").with("address", fact(p, "address")),
    }
}

fn of_kind<'a>(f: &Facts<'a>, kind: &'a str) -> impl Iterator<Item = &'a Probe> {
    f.probes.values().filter(move |p| p.kind == kind)
}

fn names(f: &Facts<'_>) -> Outcome {
    let mut all = of_kind(f, "dns").peekable();
    if all.peek().is_none() {
        return Outcome::unknown("names_unchecked");
    }
    match all.find(|p| p.failed.is_some()) {
        Some(p) if p.failed == Some(Phase::Expect) => Outcome::crit("names_wrong")
            .with("resolver", p.facts.get("resolver").map_or("?", String::as_str))
            .with("name", &p.name),
        Some(p) => Outcome::warn("names_missing").with("name", &p.name),
        None => Outcome::ok("names_ok"),
    }
}

fn captive_portal(f: &Facts<'_>) -> Outcome {
    match of_kind(f, "captive").next() {
        None => Outcome::unknown("captive_unchecked"),
        Some(p) if p.failed == Some(Phase::Expect) => Outcome::crit("captive_found"),
        Some(p) if p.failed.is_some() => Outcome::unknown("captive_unchecked"),
        Some(_) => Outcome::ok("captive_none"),
    }
}

fn services(f: &Facts<'_>) -> Outcome {
    let mut all = f
        .probes
        .values()
        .filter(|p| !WAYS.contains(&p.name.as_str()) && !["dns", "captive"].contains(&p.kind.as_str()))
        .peekable();
    if all.peek().is_none() {
        return Outcome::unknown("services_unprobed");
    }
    match all.find(|p| p.state == CheckState::Crit) {
        Some(p) => {
            let phase = match p.failed {
                Some(Phase::Resolve) => "resolve",
                Some(Phase::Connect) => "connect",
                Some(Phase::Tls) => "tls",
                Some(Phase::FirstByte) => "first_byte",
                _ => "answer",
            };
            Outcome::warn("services_down")
                .with("service", &p.name)
                .with("phase", phase)
                .with("error", p.error.as_deref().unwrap_or("?"))
        }
        None => Outcome::ok("services_ok"),
    }
}

fn time_sync(f: &Facts<'_>) -> Outcome {
    match items(f, "os", "time").and_then(|t| t.first().copied()) {
        None => Outcome::unknown("time_unknown"),
        Some(t) if fact(t, "keeper") == "none" => Outcome::warn("time_unkept"),
        Some(t) if fact(t, "synchronised") == "true" => Outcome::ok("time_ok").with("keeper", fact(t, "keeper")),
        // No answer is no proof that the clock is right.
        Some(t) if fact(t, "synchronised") == "false" => {
            Outcome::warn("time_unsynchronised").with("keeper", fact(t, "keeper"))
        }
        Some(_) => Outcome::unknown("time_unknown"),
    }
}

fn inodes(f: &Facts<'_>) -> Outcome {
    let worst = f.gauges.iter().filter(|(n, _)| n.starts_with("inodes:")).min_by(|a, b| a.1.total_cmp(b.1));
    match worst {
        None => Outcome::ok("inodes_ok"),
        Some((name, left)) => {
            let outcome = match *left {
                l if l < 2.0 => Outcome::crit("inodes_out"),
                l if l < 10.0 => Outcome::warn("inodes_low"),
                _ => Outcome::ok("inodes_ok"),
            };
            outcome.with("mount", name.trim_start_matches("inodes:")).with("free_percent", left.round())
        }
    }
}

fn disk_health(f: &Facts<'_>) -> Outcome {
    let Some(disks) = items(f, "disks", "disk").filter(|d| !d.is_empty()) else {
        return Outcome::unknown("smart_unknown");
    };
    let bad = |d: &&&Item| fact(d, "smart") == "failing";
    let worn = |d: &&&Item| {
        number(d, "wear_percent").is_some_and(|w| w >= 90.0)
            || number(d, "spare_percent").is_some_and(|s| s <= 10.0)
            || number(d, "pending").is_some_and(|n| n > 0.0)
            || number(d, "reallocated").is_some_and(|n| n > 50.0)
            || fact(d, "smart") == "no_answer"
    };
    if let Some(d) = disks.iter().find(bad) {
        return Outcome::crit("smart_failing").with("disk", label(d));
    }
    if let Some(d) = disks.iter().find(worn) {
        let wear = d.facts.get("wear_percent").map_or("?", String::as_str);
        return Outcome::warn("smart_worn").with("disk", label(d)).with("wear_percent", wear);
    }
    match disks.iter().any(|d| fact(d, "smart") == "passed") {
        true => Outcome::ok("smart_ok"),
        false => Outcome::unknown("smart_unknown"),
    }
}

fn pressure(f: &Facts<'_>) -> Outcome {
    let all = [("psi_mem", 10.0), ("psi_io", 40.0), ("psi_cpu", 60.0)];
    if all.iter().all(|(n, _)| !f.gauges.contains_key(*n)) {
        return Outcome::unknown("pressure_unknown");
    }
    let worst = all.iter().find(|(n, most)| f.gauges.get(*n).is_some_and(|v| v > most));
    match worst {
        Some((name, _)) => Outcome::warn("pressure_high")
            .with("what", name.trim_start_matches("psi_"))
            .with("percent", f.gauges.get(*name).map_or(0.0, |v| v.round())),
        None => Outcome::ok("pressure_ok"),
    }
}

fn out_of_memory(f: &Facts<'_>) -> Outcome {
    match f.gauges.get("oom_kills") {
        None => Outcome::unknown("oom_unknown"),
        Some(n) if *n > 0.0 => Outcome::warn("oom_killed").with("times", n),
        Some(_) => Outcome::ok("oom_none"),
    }
}

fn fan(f: &Facts<'_>) -> Outcome {
    let Some(fans) = items(f, "power", "fan") else { return Outcome::unknown("fan_unknown") };
    // A header without a fan reads 0 for ever: only one with a limit of its own can be too slow.
    let slow = |i: &&&Item| {
        number(i, "rpm").zip(number(i, "least_rpm")).is_some_and(|(rpm, least)| least > 0.0 && rpm < least)
    };
    match fans.iter().find(slow) {
        Some(i) => Outcome::warn("fan_slow").with("fan", label(i)).with("rpm", fact(i, "rpm")),
        None if fans.is_empty() => Outcome::unknown("fan_unknown"),
        None => Outcome::ok("fan_ok"),
    }
}

fn battery(f: &Facts<'_>) -> Outcome {
    let Some(all) = items(f, "power", "battery") else { return Outcome::unknown("battery_unknown") };
    let Some(b) = all.first() else { return Outcome::ok("battery_none") };
    let charge = number(b, "charge_percent").unwrap_or(100.0);
    let outcome = match fact(b, "status") {
        "discharging" if charge < 10.0 => Outcome::crit("battery_empty"),
        "discharging" => Outcome::warn("battery_in_use"),
        _ if number(b, "wear_percent").is_some_and(|w| w > 60.0) => Outcome::warn("battery_worn"),
        _ => Outcome::ok("battery_ok"),
    };
    outcome.with("charge_percent", charge)
}

fn ups(f: &Facts<'_>) -> Outcome {
    let Some(all) = items(f, "power", "ups") else { return Outcome::unknown("ups_unknown") };
    let Some(u) = all.first() else { return Outcome::ok("ups_none") };
    let status = fact(u, "status").to_uppercase();
    let has = |word: &str| status.split_whitespace().any(|w| w == word);
    let outcome = if has("LB") {
        Outcome::crit("ups_empty")
    } else if has("OB") || has("DISCHARGING") {
        Outcome::warn("ups_on_battery")
    } else if has("RB") {
        Outcome::warn("ups_replace")
    } else if status.is_empty() {
        Outcome::unknown("ups_unknown")
    } else {
        Outcome::ok("ups_ok")
    };
    outcome
        .with("charge_percent", fact(u, "charge_percent"))
        .with("minutes", number(u, "runtime_s").unwrap_or(0.0) as u32 / 60)
}

fn printer(f: &Facts<'_>) -> Outcome {
    let Some(all) = items(f, "printers", "printer") else { return Outcome::unknown("printer_unknown") };
    let has = |i: &Item, word: &str| fact(i, "reasons").contains(word);
    let judge = |i: &&Item| {
        let outcome = if has(i, "media-empty") || has(i, "media-needed") {
            Outcome::crit("printer_paper")
        } else if has(i, "media-jam") {
            Outcome::crit("printer_jam")
        } else if has(i, "toner-empty") || has(i, "marker-supply-empty") {
            Outcome::crit("printer_toner_empty")
        } else if has(i, "door-open") || has(i, "cover-open") {
            Outcome::crit("printer_door")
        } else if has(i, "offline") || has(i, "connecting-to-device") {
            Outcome::crit("printer_offline")
        } else if fact(i, "state") == "stopped" || has(i, "paused") {
            Outcome::crit("printer_paused")
        } else if i.facts.contains_key("jobs_stuck") {
            Outcome::warn("printer_stuck").with("jobs", fact(i, "jobs_stuck"))
        } else if has(i, "toner-low")
            || has(i, "marker-supply-low")
            || number(i, "toner_percent").is_some_and(|t| t < 10.0)
        {
            Outcome::warn("printer_toner_low")
        } else {
            Outcome::ok("printer_ok")
        };
        outcome.with("printer", label(i))
    };
    all.iter().map(judge).max_by_key(|o| o.state.severity()).unwrap_or_else(|| Outcome::ok("printer_none"))
}

fn token(f: &Facts<'_>) -> Outcome {
    let Some(usb) = f.inventory.get("usb") else { return Outcome::unknown("token_unknown") };
    let there = usb.iter().find(|i| i.kind == "token");
    let days = items(f, "tokens", "certificate")
        .unwrap_or_default()
        .iter()
        .filter_map(|c| number(c, "days_left"))
        .reduce(f64::min);
    match (there, days) {
        (None, _) => Outcome::ok("token_none"),
        (Some(t), Some(d)) if d < 0.0 => Outcome::crit("token_expired").with("token", label(t)),
        (Some(t), Some(d)) if d < 30.0 => Outcome::warn("token_ends").with("token", label(t)).with("days", d),
        (Some(t), _) => Outcome::ok("token_ok").with("token", label(t)),
    }
}

fn reader(f: &Facts<'_>) -> Outcome {
    let Some(usb) = f.inventory.get("usb") else { return Outcome::unknown("reader_unknown") };
    let there = usb.iter().find(|i| i.kind == "reader" || i.kind == "token");
    let service = items(f, "tokens", "middleware").unwrap_or_default().into_iter().find(|m| m.id == "pcscd");
    match (there, service) {
        (None, _) => Outcome::ok("reader_none"),
        (Some(r), None) => Outcome::warn("reader_no_service").with("reader", label(r)),
        // The service is started by whoever needs it; it isn't a fault that nobody does.
        (Some(r), Some(_)) => Outcome::ok("reader_ok").with("reader", label(r)),
    }
}

fn monitor(f: &Facts<'_>) -> Outcome {
    match items(f, "monitors", "monitor").as_deref() {
        None => Outcome::unknown("monitor_unknown"),
        Some([]) => Outcome::unknown("monitor_none"),
        Some(all) => Outcome::ok("monitor_ok").with("count", all.len()),
    }
}

fn units(f: &Facts<'_>) -> Outcome {
    match items(f, "os", "failed_unit").as_deref() {
        None => Outcome::unknown("units_unknown"),
        Some([]) => Outcome::ok("units_ok"),
        Some([first, ..]) => Outcome::warn("units_failed").with("unit", &first.id),
    }
}

fn reboot(f: &Facts<'_>) -> Outcome {
    match items(f, "os", "system").and_then(|s| s.first().copied()) {
        None => Outcome::unknown("reboot_unknown"),
        Some(s) if fact(s, "reboot_pending") == "true" => Outcome::warn("reboot_pending"),
        Some(_) => Outcome::ok("reboot_none"),
    }
}

/// Time zone and language: documents dated wrongly and Vietnamese that can't be typed are what people notice.
fn region(f: &Facts<'_>) -> Outcome {
    let Some(s) = items(f, "os", "system").and_then(|s| s.first().copied()) else {
        return Outcome::unknown("region_unknown");
    };
    let zone = fact(s, "time_zone");
    if !zone.is_empty() && !["Asia/Ho_Chi_Minh", "Asia/Saigon", "Asia/Bangkok"].contains(&zone) {
        return Outcome::warn("region_zone").with("zone", zone);
    }
    Outcome::ok("region_ok").with("zone", zone)
}

/// The agent itself: what it can't see it must not call healthy.
fn agent(f: &Facts<'_>) -> Outcome {
    match (f.hung, f.stuck) {
        (true, _) => Outcome::warn("agent_files_hang"),
        (false, []) => Outcome::ok("agent_ok"),
        (false, stuck) => Outcome::warn("agent_collector_off").with("collectors", stuck.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tram_wire::heartbeat::{Network, Vitals};
    use tram_wire::report::Trips;

    use super::super::{Limits, Reach};
    use super::*;
    use crate::collect::Inventory;
    use crate::collect::gauges::Gauges;

    fn run(id: &str, inventory: &Inventory, gauges: &Gauges, probes: &BTreeMap<String, Probe>) -> &'static str {
        let facts = Facts {
            vitals: &Vitals::default(),
            network: &Network::default(),
            gauges,
            inventory,
            probes,
            stuck: &[],
            hung: false,
            certificate: None,
            controller: Reach::Linked,
            limits: &Limits::default(),
        };
        RULES.iter().find(|r| r.0 == id).unwrap().look(&facts).code
    }

    fn with(id: &str, section: &str, kind: &str, facts: &[(&str, &str)]) -> &'static str {
        let facts = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let item = Item { id: "x".into(), kind: kind.into(), facts, ..Item::default() };
        run(id, &[(section.to_owned(), vec![item])].into(), &Gauges::new(), &BTreeMap::new())
    }

    #[test]
    fn what_nobody_looked_at_is_unknown_and_what_is_not_there_is_fine() {
        let none = Inventory::new();
        for id in ["printer", "token", "reader", "ups", "battery", "units", "reboot", "time_sync", "disk_health"] {
            assert!(run(id, &none, &Gauges::new(), &BTreeMap::new()).ends_with("_unknown"), "{id}");
        }
        let empty: Inventory = ["usb", "printers", "power"].map(|s| (s.to_owned(), Vec::new())).into();
        for (id, code) in
            [("printer", "printer_none"), ("token", "token_none"), ("ups", "ups_none"), ("battery", "battery_none")]
        {
            assert_eq!(run(id, &empty, &Gauges::new(), &BTreeMap::new()), code);
        }
    }

    #[test]
    fn printers() {
        let p = |facts: &[(&str, &str)]| with("printer", "printers", "printer", facts);
        assert_eq!(p(&[("state", "stopped"), ("reasons", "media-empty-error,paused")]), "printer_paper");
        assert_eq!(p(&[("state", "stopped"), ("reasons", "paused")]), "printer_paused");
        assert_eq!(p(&[("state", "idle"), ("jobs_stuck", "2")]), "printer_stuck");
        assert_eq!(p(&[("state", "idle"), ("toner_percent", "7")]), "printer_toner_low");
        assert_eq!(p(&[("state", "idle"), ("toner_percent", "70")]), "printer_ok");
    }

    #[test]
    fn power_and_disks() {
        let u = |status: &str| with("ups", "power", "ups", &[("status", status)]);
        assert_eq!(
            [u("OL CHRG"), u("OB DISCHRG"), u("OB LB"), u("OL RB")],
            ["ups_ok", "ups_on_battery", "ups_empty", "ups_replace"]
        );
        let d = |facts: &[(&str, &str)]| with("disk_health", "disks", "disk", facts);
        assert_eq!(d(&[("smart", "failing"), ("wear_percent", "3")]), "smart_failing");
        assert_eq!(d(&[("smart", "passed"), ("wear_percent", "93")]), "smart_worn");
        assert_eq!(d(&[("smart", "no_answer")]), "smart_worn");
        assert_eq!(d(&[("smart", "not_installed")]), "smart_unknown");
        assert_eq!(d(&[("smart", "passed"), ("wear_percent", "9")]), "smart_ok");
    }

    #[test]
    fn time_without_an_answer_is_not_right() {
        let t = |facts: &[(&str, &str)]| with("time_sync", "os", "time", facts);
        assert_eq!(t(&[("keeper", "chrony")]), "time_unknown");
        assert_eq!(t(&[("keeper", "chrony"), ("synchronised", "false")]), "time_unsynchronised");
        assert_eq!(t(&[("keeper", "none")]), "time_unkept");
    }

    #[test]
    fn probes_speak_for_the_line_the_names_and_the_services() {
        let said = |id: &str, p: Probe| run(id, &Inventory::new(), &Gauges::new(), &[(p.name.clone(), p)].into());
        let trips = |lost| Some(Trips { sent: 10, lost, ..Trips::default() });
        let gateway =
            |lost| Probe { name: "gateway".into(), kind: "icmp".into(), trips: trips(lost), ..Probe::default() };
        assert_eq!([0, 1, 6].map(|n| said("packet_loss", gateway(n))), ["loss_ok", "loss_some", "loss_heavy"]);
        let failed = |kind: &str, phase| Probe {
            name: "p".into(),
            kind: kind.into(),
            state: CheckState::Crit,
            failed: Some(phase),
            ..Probe::default()
        };
        assert_eq!(said("names", failed("dns", Phase::Expect)), "names_wrong");
        assert_eq!(said("names", failed("dns", Phase::Resolve)), "names_missing");
        assert_eq!(said("captive_portal", failed("captive", Phase::Expect)), "captive_found");
        assert_eq!(said("captive_portal", failed("captive", Phase::Connect)), "captive_unchecked");
        assert_eq!(said("services", failed("https", Phase::Tls)), "services_down");
    }
}
