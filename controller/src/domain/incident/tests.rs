//! One test a row of the table of causes, and the mornings and evenings on which nothing is wrong.

use std::time::Duration;

use tram_wire::ids::{DesktopId, EndpointId};
use uuid::Uuid;

use super::super::time::Time;
use super::picture::{
    DesktopFault, Endpoint, Failed, Fault, LastWord, Path, Picture, Probe, Service, Silence, Site, Wide,
};
use super::{Cause, Confidence, Judgement, Scope, Severity, Thresholds, judge};

const NOW: Time = Time::from_micros(1_000_000_000_000);
const GOOD: Path = path(0.0, 2.0);

/// A way measured a minute ago.
const fn path(loss_percent: f32, p95_ms: f32) -> Path {
    let at = Time::from_micros(NOW.micros() - 60_000_000);
    Path { at, loss_percent: Some(loss_percent), p95_ms: Some(p95_ms) }
}

fn id(n: usize) -> EndpointId {
    EndpointId(Uuid::from_u128(n as u128 + 1))
}

/// `sites` offices of `each` computers; ten offices a region, two carriers in turn.
fn fleet(sites: usize, each: usize) -> Picture {
    let mut p = Picture { now: NOW, ..Picture::default() };
    for s in 0..sites {
        let code = format!("{s:05}");
        let carrier = if s % 2 == 0 { "VNPT" } else { "Viettel" };
        let site = Site {
            region: Some(format!("r{}", s / 10)),
            carrier: Some(carrier.into()),
            open: true,
            maintenance: false,
        };
        p.sites.insert(code.clone(), site);
        p.endpoints.extend((0..each).map(|e| Endpoint {
            id: id(s * each + e),
            site: code.clone(),
            silence: None,
            back: Time::default(),
            gateway: Some(GOOD),
            controller: Some(path(0.0, 20.0)),
            usual_ms: Some(18.0),
            services: Vec::new(),
            faults: Vec::new(),
        }));
    }
    p.centre.push(Probe { name: "uplink".into(), ok: Some(true) });
    p
}

fn silence(p: &mut Picture, which: impl Fn(usize) -> bool, seconds: u64, last_word: LastWord) {
    for (n, e) in p.endpoints.iter_mut().enumerate().filter(|(n, _)| which(*n)) {
        // A beat may have been sent at any time of half a minute.
        let since = NOW.minus(Duration::from_secs(seconds + n as u64 % 30));
        e.silence = Some(Silence { since, last_word });
    }
}

fn look(p: &Picture) -> Vec<Judgement> {
    judge(p, &Thresholds::default())
}

fn causes(p: &Picture) -> Vec<(Cause, String)> {
    look(p).into_iter().map(|j| (j.cause, j.scope.key())).collect()
}

#[test]
fn all_well_says_nothing() {
    assert_eq!(causes(&fleet(40, 2)), []);
}

#[test]
fn many_silent_offices_at_once_are_the_data_centre() {
    let mut p = fleet(40, 2);
    silence(&mut p, |n| n / 2 < 16, 100, LastWord::None);
    let found = look(&p);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].cause, found[0].sites.len(), found[0].endpoints.len()), (Cause::DataCentre, 16, 32));
    // The same number, one by one over hours, is no such thing.
    for (n, e) in p.endpoints.iter_mut().enumerate() {
        if let Some(s) = &mut e.silence {
            s.since = NOW.minus(Duration::from_secs(1_000 * (n as u64 / 2 + 1)));
        }
    }
    assert!(causes(&p).iter().all(|(c, _)| *c == Cause::SiteLine), "{:?}", causes(&p));
}

#[test]
fn its_own_probes_are_enough_for_the_data_centre() {
    let mut p = fleet(10, 2);
    p.centre[0].ok = Some(false);
    assert_eq!(causes(&p), [(Cause::DataCentre, "centre".into())]);
    p.centre[0].ok = None;
    assert_eq!(causes(&p), [], "what can't be told is no fault");
}

#[test]
fn the_offices_of_one_carrier_are_one_ticket() {
    let mut p = fleet(60, 2);
    // All of Viettel's in the first 30 offices: a quarter of all.
    for s in (0..60).filter(|s| s % 2 == 1 && *s >= 30) {
        p.sites.get_mut(&format!("{s:05}")).unwrap().carrier = Some("VNPT".into());
    }
    silence(&mut p, |n| n / 2 % 2 == 1 && n / 2 < 30, 100, LastWord::None);
    let found = look(&p);
    assert_eq!(found.iter().map(|j| j.scope.clone()).collect::<Vec<_>>(), [Scope::Carrier("Viettel".into())]);
    assert_eq!(found[0].sites.len(), 15);
}

#[test]
fn offices_that_are_still_on_their_way_back_are_nobodys_fault_for_a_while() {
    let mut p = fleet(40, 2);
    silence(&mut p, |n| n / 2 < 4, 400, LastWord::None);
    // Four of sixteen are still silent; a fifth fell silent afterwards.
    silence(&mut p, |n| n / 2 == 20, 100, LastWord::None);
    let sites: Vec<String> = (0..16).map(|s| format!("{s:05}")).collect();
    for cause in [Cause::DataCentre, Cause::Carrier] {
        let opened = NOW.minus(Duration::from_secs(310));
        p.wide = vec![Wide { cause, opened, sites: Vec::clone(&sites) }];
        assert_eq!(causes(&p), [(Cause::SiteLine, "site:00020".into())], "{cause}");
    }
    p.wide.clear();
    assert_eq!(causes(&p).len(), 5, "the while is over");
}

#[test]
fn a_silent_region_is_not_blamed_on_its_communes() {
    // 139 communes of a first phase among 584.
    let mut p = fleet(584, 2);
    for (n, site) in p.sites.values_mut().enumerate() {
        site.carrier = None;
        site.region = Some(if n < 139 { "r1".into() } else { format!("s{}", n / 20) });
    }
    silence(&mut p, |n| n / 2 < 139, 90, LastWord::None);
    assert_eq!(causes(&p), [(Cause::Carrier, "region:r1".into())]);
}

#[test]
fn a_silent_office_is_its_line_or_its_power() {
    let mut p = fleet(40, 2);
    silence(&mut p, |n| n / 2 == 7, 100, LastWord::None);
    let found = look(&p);
    assert_eq!((found[0].cause, found[0].scope.clone()), (Cause::SiteLine, Scope::Site("00007".into())));
    assert_eq!(found[0].severity, Severity::Crit);
    silence(&mut p, |n| n == 15, 100, LastWord::OnBattery);
    assert_eq!(causes(&p), [(Cause::SitePower, "site:00007".into())]);
}

#[test]
fn an_only_computer_on_battery_speaks_for_its_office() {
    let mut p = fleet(40, 1);
    silence(&mut p, |n| n == 3, 100, LastWord::OnBattery);
    assert_eq!(causes(&p), [(Cause::SitePower, "site:00003".into())]);
    silence(&mut p, |n| n == 3, 100, LastWord::None);
    let found = look(&p);
    assert_eq!((found[0].cause, found[0].confidence), (Cause::SiteLine, Confidence::Low), "it may be either");
}

#[test]
fn a_bad_line_behind_a_good_router_is_the_line() {
    let mut p = fleet(40, 2);
    for e in p.endpoints.iter_mut().filter(|e| e.site == "00004") {
        e.controller = Some(path(8.0, 40.0));
    }
    let found = look(&p);
    assert_eq!((found[0].cause, found[0].confidence, found.len()), (Cause::LineDegraded, Confidence::High, 1));
    // Slow against what it usually takes counts, slow by nature does not.
    for e in p.endpoints.iter_mut().filter(|e| e.site == "00004") {
        e.controller = Some(path(0.0, 300.0));
        e.usual_ms = Some(280.0);
    }
    assert_eq!(causes(&p), []);
    p.endpoints.iter_mut().for_each(|e| e.usual_ms = Some(18.0));
    assert_eq!(causes(&p), [(Cause::LineDegraded, "site:00004".into())]);
}

#[test]
fn a_bad_cable_is_one_computers() {
    let mut p = fleet(40, 3);
    p.endpoints[4].gateway = Some(path(12.0, 30.0));
    p.endpoints[4].controller = Some(path(12.0, 60.0));
    let found = look(&p);
    assert_eq!((found.len(), found[0].cause, found[0].confidence), (1, Cause::Lan, Confidence::High));
    assert_eq!(found[0].scope, Scope::Endpoint(p.endpoints[4].id));
}

#[test]
fn one_silent_computer_is_told_apart_by_its_last_word() {
    for (word, cause) in [
        (LastWord::None, Some(Cause::Crashed)),
        (LastWord::Stopped, Some(Cause::Crashed)),
        (LastWord::OnBattery, Some(Cause::EndpointPower)),
        (LastWord::Shutdown, None),
    ] {
        let mut p = fleet(40, 3);
        silence(&mut p, |n| n == 5, 100, word);
        assert_eq!(causes(&p).iter().map(|(c, _)| *c).collect::<Vec<_>>(), Vec::from_iter(cause), "{word:?}");
    }
}

fn ask(p: &mut Picture, ok: impl Fn(usize) -> bool) {
    for (n, e) in p.endpoints.iter_mut().enumerate() {
        let phase = if ok(n) { "answer" } else { "tls" };
        let at = NOW.minus(Duration::from_secs(60));
        e.services = vec![Service { name: "egov".into(), at, ok: Some(ok(n)), phase: phase.into() }];
    }
}

/// These computers were away and are heard again, so many seconds ago.
fn back(p: &mut Picture, which: impl Fn(usize) -> bool, seconds: u64) {
    for (_, e) in p.endpoints.iter_mut().enumerate().filter(|(n, _)| which(*n)) {
        e.back = NOW.minus(Duration::from_secs(seconds));
    }
}

#[test]
fn what_was_lost_before_a_line_came_back_is_no_bad_line() {
    let mut p = fleet(40, 2);
    for e in p.endpoints.iter_mut().filter(|e| e.site == "00004") {
        e.controller = Some(path(40.0, 900.0));
    }
    back(&mut p, |n| n / 2 == 4, 30);
    assert_eq!(causes(&p), [], "measured a minute ago, back since half of one");
    for e in p.endpoints.iter_mut().filter(|e| e.site == "00004") {
        e.controller = Some(Path { at: NOW, ..path(40.0, 900.0) });
    }
    assert_eq!(causes(&p), [], "the router was not measured anew: it may be the way there");
    p.endpoints.iter_mut().for_each(|e| e.gateway = Some(Path { at: NOW, ..GOOD }));
    assert_eq!(causes(&p), [(Cause::LineDegraded, "site:00004".into())], "it still loses");
}

#[test]
fn what_was_lost_before_a_computer_came_back_is_no_bad_cable() {
    let mut p = fleet(40, 3);
    p.endpoints[4].gateway = Some(path(50.0, 30.0));
    back(&mut p, |n| n == 4, 30);
    assert_eq!(causes(&p), []);
    back(&mut p, |n| n == 4, 90);
    assert_eq!(causes(&p).len(), 1);
    // Peers that were not measured anew are none to compare with.
    back(&mut p, |n| n == 3 || n == 5, 30);
    assert_eq!(look(&p)[0].confidence, Confidence::Low);
}

#[test]
fn a_probe_from_before_an_office_came_back_blames_neither_office_nor_service() {
    let mut p = fleet(40, 1);
    ask(&mut p, |n| n != 2);
    back(&mut p, |n| n == 2, 30);
    assert_eq!(causes(&p), []);
    // Three offices that come back do not make a service's failure.
    ask(&mut p, |n| n > 2);
    back(&mut p, |n| n < 3, 30);
    assert_eq!(causes(&p), []);
    back(&mut p, |n| n < 3, 90);
    assert_eq!(causes(&p), [(Cause::Service, "service:egov".into())]);
    // Nor does what worked before speak against a service now.
    back(&mut p, |n| n > 2, 30);
    assert_eq!(look(&p)[0].confidence, Confidence::High);
}

#[test]
fn the_last_offices_that_ask_a_mended_service_again_are_not_to_blame() {
    let mut p = fleet(40, 1);
    ask(&mut p, |n| n > 1);
    let failed = |until: Option<u64>| {
        let until = until.map(|s| NOW.minus(Duration::from_secs(s)));
        vec![Failed { service: "egov".into(), until }]
    };
    p.failed = failed(None);
    assert_eq!(causes(&p), [], "two of many are left, and asked before it worked again");
    p.failed = failed(Some(20));
    assert_eq!(causes(&p), [], "asked a minute ago");
    p.failed = failed(Some(120));
    assert_eq!(causes(&p).len(), 2, "asked afterwards: that is their own");
    p.failed[0].service = "portal".into();
    assert_eq!(causes(&p).len(), 2, "another service");
}

#[test]
fn a_service_that_fails_at_three_offices_is_to_blame_itself() {
    let mut p = fleet(40, 1);
    ask(&mut p, |n| n > 2);
    assert_eq!(causes(&p), [(Cause::Service, "service:egov".into())]);
}

#[test]
fn a_service_that_fails_at_one_office_is_not() {
    let mut p = fleet(40, 1);
    ask(&mut p, |n| n != 2);
    let found = look(&p);
    assert_eq!((found.len(), found[0].cause, found[0].detail.as_str()), (1, Cause::SiteService, "egov"));
    assert!(found[0].evidence.iter().any(|e| e.params.get("phase").is_some_and(|p| p == "tls")));
    // An office without a line says nothing about services.
    silence(&mut p, |n| n == 2, 100, LastWord::OnBattery);
    assert_eq!(causes(&p), [(Cause::SitePower, "site:00002".into())]);
}

#[test]
fn desktops_are_their_hosts_where_several_share_one() {
    let mut p = fleet(10, 2);
    let fault = |n: u128, host: &str| DesktopFault {
        host: host.into(),
        desktop: Some(DesktopId(Uuid::from_u128(n))),
        site: Some("00001".into()),
        code: "agent_silent".into(),
    };
    p.desktops = vec![fault(1, "kvm1")];
    assert_eq!(causes(&p)[0].0, Cause::Desktop);
    p.desktops = vec![fault(1, "kvm1"), fault(2, "kvm1"), fault(3, "kvm1"), fault(4, "kvm2")];
    assert_eq!(causes(&p).len(), 2, "{:?}", causes(&p));
    assert_eq!(causes(&p)[0].1, "host:kvm1");
}

#[test]
fn a_missing_token_is_a_peripheral_and_a_dying_disk_is_the_computer() {
    let mut p = fleet(10, 2);
    let fault = |check: &str| Fault { check: check.into(), code: check.into(), params: Default::default(), crit: true };
    p.endpoints[3].faults =
        ["token", "disk_health", "controller", "packet_loss", "line", "names", "captive_portal"].map(fault).into();
    let found = look(&p);
    assert_eq!(found.iter().map(|j| j.cause).collect::<Vec<_>>(), [Cause::Peripheral, Cause::Computer]);
    assert_eq!(found[1].severity, Severity::Crit);
}

#[test]
fn the_evening_is_no_outage() {
    let mut p = fleet(139, 2);
    p.sites.values_mut().for_each(|s| s.open = false);
    silence(&mut p, |_| true, 100, LastWord::None);
    assert_eq!(causes(&p), []);
    // Nor is closing time, when everybody shuts down within minutes.
    p.sites.values_mut().for_each(|s| s.open = true);
    silence(&mut p, |_| true, 100, LastWord::Shutdown);
    assert_eq!(causes(&p), []);
}

#[test]
fn announced_work_is_no_incident() {
    let mut p = fleet(10, 2);
    silence(&mut p, |n| n / 2 == 4, 100, LastWord::None);
    p.sites.get_mut("00004").unwrap().maintenance = true;
    assert_eq!(causes(&p), []);
}

#[test]
fn two_offices_are_never_the_whole_city() {
    let mut p = fleet(2, 2);
    p.sites.values_mut().for_each(|s| (s.carrier, s.region) = (None, None));
    silence(&mut p, |n| n < 2, 100, LastWord::None);
    assert_eq!(causes(&p), [(Cause::SiteLine, "site:00000".into())]);
}
