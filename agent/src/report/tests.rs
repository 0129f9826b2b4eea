use super::*;
use crate::host::fake::Fake;
use tram_wire::report::Trips;

fn link() -> LinkFacts {
    LinkFacts {
        line: None,
        links: 1,
        rtt: Some(Duration::from_millis(12)),
        skew_ms: Some(20),
        not_after_ms: Some(1_795_000_000_000 + 30 * 86_400_000),
        controller: Reach::Linked,
    }
}

fn gathered() -> Gathered {
    Gathered::default()
}

#[tokio::test]
async fn after_a_snapshot_a_quiet_computer_has_nothing_to_say() {
    let mut r = Reporter::new(Fake::new(), Limits::default());
    let snapshot = r.snapshot(&link(), &gathered()).await;
    assert_eq!(snapshot.network.controller_rtt_ms, Some(12.0));
    assert!(r.change(&link(), &gathered()).await.is_empty());
    assert_eq!(r.findings(), snapshot.findings);
}

#[tokio::test]
async fn a_fault_is_told_once() {
    let mut r = Reporter::new(Fake::new(), Limits::default());
    r.snapshot(&link(), &gathered()).await;
    r.host.gauges.memory_available = 1 << 28;
    let change = r.change(&link(), &gathered()).await;
    assert!(change.network.is_none());
    let memory = change.findings.unwrap().into_iter().find(|f| f.check == "memory").unwrap();
    assert_eq!(memory.code, "memory_out");
    assert!(r.change(&link(), &gathered()).await.is_empty());
}

#[tokio::test]
async fn a_clock_an_hour_ahead_does_not_end_the_certificate_early() {
    let mut host = Fake::new();
    host.wall_ms += 3_600_000;
    let mut r = Reporter::new(host, Limits::default());
    let facts = LinkFacts { skew_ms: Some(3_600_000), not_after_ms: Some(1_795_000_000_000 + 60_000), ..link() };
    let findings = r.snapshot(&facts, &gathered()).await.findings;
    let code = |check: &str| findings.iter().find(|f| f.check == check).unwrap().code.clone();
    assert_eq!((code("clock").as_str(), code("certificate").as_str()), ("clock_wrong", "certificate_ends"));
}

#[tokio::test]
async fn a_keyframe_has_everything_and_a_delta_what_changed() {
    let host = Fake::new().file("/proc/uptime", "100.25 1");
    let mut r = Reporter::new(host, Limits::default());
    let plan = Plan::default();
    let key = r.record(&link(), gathered(), Want::Key, &plan).await.unwrap();
    assert!(key.key && key.hardware.is_some() && key.vitals.is_some() && key.checks.len() >= 30, "{key:?}");
    assert_eq!((key.seq, key.mono_ms), (100_251, 100_250));
    assert_eq!(r.record(&link(), gathered(), Want::Delta, &plan).await, None, "nothing changed");
    r.host.gauges.memory_available = 1 << 28;
    let mut r = Reporter { host: r.host.clone().file("/proc/uptime", "160.25 1"), ..r };
    let delta = r.record(&link(), gathered(), Want::Quick, &plan).await.unwrap();
    assert_eq!(delta.gauges.keys().collect::<Vec<_>>(), ["mem_used"]);
    let said: Vec<_> = delta.checks.iter().map(|c| (c.check.as_str(), c.code.as_str(), c.for_ms)).collect();
    assert_eq!(said, [("memory", "memory_out", 0)]);
    let mut r = Reporter { host: r.host.clone().file("/proc/uptime", "220.25 1"), ..r };
    let key = r.record(&link(), gathered(), Want::Key, &plan).await.unwrap();
    let memory = key.checks.iter().find(|c| c.check == "memory").unwrap();
    assert_eq!((memory.for_ms, key.seq), (60_000, delta.seq + 1));
    assert!(r.repeats(), "all of it was told");
    r.host.gauges.memory_available = 1 << 32;
    r.record(&link(), gathered(), Want::Key, &plan).await.unwrap();
    assert!(!r.repeats(), "a check turned good");
    r.record(&LinkFacts { links: 2, ..link() }, gathered(), Want::Key, &plan).await.unwrap();
    assert!(!r.repeats(), "on this link nothing was told yet");
}

#[tokio::test]
async fn a_section_is_sent_when_it_changes_and_not_when_a_level_wanders() {
    let mut r = Reporter::new(Fake::new(), Limits::default());
    let ups = |charge: &str, status: &str| {
        let facts = [("charge_percent", charge), ("status", status)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let item = Item { id: "u".into(), kind: "ups".into(), facts: facts.into(), ..Item::default() };
        Gathered { inventory: [("power".to_owned(), vec![item])].into(), ..Gathered::default() }
    };
    let plan = Plan::default();
    assert!(r.record(&link(), ups("100", "OL"), Want::Key, &plan).await.is_some());
    assert_eq!(r.record(&link(), ups("99", "OL"), Want::Delta, &plan).await, None);
    let record = r.record(&link(), ups("98", "OB"), Want::Delta, &plan).await.unwrap();
    assert!(record.inventory.contains_key("power"));
    assert_eq!(record.checks[0].code, "ups_on_battery");
}

#[tokio::test]
async fn what_was_lost_before_the_link_came_back_is_unknown_until_it_is_measured_anew() {
    // A router at 192.168.1.1 that has answered and is gone, and a service that fails.
    let route =
        "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000000 0101A8C0 0003 0 0 100 00000000\n";
    let mut host = Fake::new().file("/proc/net/route", route);
    let router = ("192.168.1.1".parse().unwrap(), Duration::from_millis(1));
    host.pings = vec![router];
    let mut r = Reporter::new(host, Limits::default());
    let plan = Plan::default();
    r.record(&link(), gathered(), Want::Key, &plan).await.unwrap();
    r.host.pings.clear();
    let lossy = Probe {
        name: "controller".into(),
        trips: Some(Trips { sent: 20, lost: 20, ..Trips::default() }),
        ..Probe::default()
    };
    r.due.insert("egov".into(), u64::MAX);
    r.probes.insert("egov".into(), Probe { name: "egov".into(), state: CheckState::Crit, ..Probe::default() });
    let cut = LinkFacts { line: Some(lossy), ..link() };
    let told = r.record(&cut, gathered(), Want::Delta, &plan).await.unwrap().gauges;
    assert_eq!((told["gateway_loss"], told["controller_loss"]), (Some(50.0), Some(100.0)));
    // The link is back. A quick look measures nothing, and takes back what was told.
    r.host.pings.push(router);
    let back = LinkFacts { links: 2, ..link() };
    let told = r.record(&back, gathered(), Want::Quick, &plan).await.unwrap().gauges;
    assert_eq!((told["gateway_loss"], told["controller_loss"]), (None, None));
    assert!(r.due.is_empty() && r.probes.is_empty(), "services are asked at once");
    let key = r.record(&back, gathered(), Want::Key, &plan).await.unwrap();
    assert_eq!(key.gauges["gateway_loss"], Some(0.0), "and nothing of the cut is left in it");
    assert!(!key.gauges.contains_key("controller_loss"));
    // Who pays by the byte asks services when they are due.
    r.due.insert("egov".into(), u64::MAX);
    let metered = Plan { metered: true, ..Plan::default() };
    r.record(&LinkFacts { links: 3, ..link() }, gathered(), Want::Key, &metered).await.unwrap();
    assert!(r.due.contains_key("egov"));
}
