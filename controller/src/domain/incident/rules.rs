//! The rules, in their order. Each takes what it explains; the next ones see only what is left.
//!
//! A rule may look at everything (the peers of a computer, the neighbours of an office), but opens nothing
//! for what another one took.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tram_wire::ids::EndpointId;

use super::picture::{Endpoint, LastWord, Path, Picture, Service, Silence};
use super::{Cause, Confidence, Evidence, Judgement, Scope, Severity, Thresholds};

/// Checks that speak of what is plugged in.
const PERIPHERAL: [&str; 8] =
    ["printer", "scanner", "reader", "card_reader", "token", "signing_token", "ups", "monitor"];
/// Checks that speak of the ways and services the rules look at themselves.
const NETWORK: [&str; 13] = [
    "gateway",
    "controller",
    "dns",
    "cable",
    "services",
    "packet_loss",
    "line",
    "wifi",
    "link_flaps",
    "path_mtu",
    "proxy",
    "names",
    "captive_portal",
];

/// One look at a picture.
pub(super) struct Look<'a> {
    picture: &'a Picture,
    t: &'a Thresholds,
    /// Computers by office.
    by_site: BTreeMap<&'a str, Vec<&'a Endpoint>>,
    taken_sites: BTreeSet<&'a str>,
    taken: BTreeSet<EndpointId>,
    found: Vec<Judgement>,
}

/// How an office's silence looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// Somebody is heard, or nobody is expected to be.
    No,
    /// All are silent, and at least one of them without having said why.
    Unexplained,
}

impl<'a> Look<'a> {
    pub(super) fn new(picture: &'a Picture, t: &'a Thresholds) -> Self {
        let mut by_site: BTreeMap<&str, Vec<&Endpoint>> = BTreeMap::new();
        for e in &picture.endpoints {
            by_site.entry(&e.site).or_default().push(e);
        }
        Self { picture, t, by_site, taken_sites: BTreeSet::new(), taken: BTreeSet::new(), found: Vec::new() }
    }

    pub(super) fn all(mut self) -> Vec<Judgement> {
        self.centre();
        self.settle(Cause::DataCentre);
        self.carriers();
        self.settle(Cause::Carrier);
        self.silent_sites();
        self.bad_lines();
        self.bad_lans();
        self.settle_computers();
        self.silent_endpoints();
        self.services();
        self.desktops();
        self.own_faults();
        self.found
    }

    fn open(&self, site: &str) -> bool {
        self.picture.sites.get(site).is_none_or(|s| s.open && !s.maintenance)
    }

    fn quiet(&self, site: &str) -> Quiet {
        let all = &self.by_site[site];
        let silent = all.iter().all(|e| e.silence.is_some());
        let unexplained = all.iter().any(|e| e.silence.is_some_and(|s| unexplained(&s)));
        if silent && unexplained && self.open(site) { Quiet::Unexplained } else { Quiet::No }
    }

    /// Offices all of whose computers are silent without a reason, and that nothing took yet.
    fn quiet_sites(&self) -> Vec<&'a str> {
        let free = self.by_site.keys().filter(|s| !self.taken_sites.contains(*s));
        free.copied().filter(|s| self.quiet(s) == Quiet::Unexplained).collect()
    }

    /// Takes offices with all of their computers into a judgement.
    #[allow(clippy::too_many_arguments)]
    fn blame(
        &mut self,
        cause: Cause,
        scope: Scope,
        severity: Severity,
        confidence: Confidence,
        sites: &[&'a str],
        evidence: Vec<Evidence>,
        doubts: Vec<Evidence>,
    ) {
        let endpoints: Vec<EndpointId> = sites.iter().flat_map(|s| &self.by_site[s]).map(|e| e.id).collect();
        self.taken_sites.extend(sites);
        let sites = sites.iter().map(|s| (*s).to_owned()).collect();
        self.push(Judgement {
            cause,
            scope,
            detail: String::new(),
            severity,
            confidence,
            evidence,
            doubts,
            sites,
            endpoints,
        });
    }

    fn push(&mut self, mut j: Judgement) {
        j.sites.sort();
        j.sites.dedup();
        j.endpoints.sort();
        j.endpoints.dedup();
        self.taken.extend(&j.endpoints);
        self.found.push(j);
    }

    /// Rule 1: a large part of all offices at once, or the controller's own probes.
    fn centre(&mut self) {
        let failed: Vec<&str> =
            self.picture.centre.iter().filter(|p| p.ok == Some(false)).map(|p| p.name.as_str()).collect();
        let quiet = self.quiet_sites();
        let together = self.together(&quiet);
        let open = self.by_site.keys().filter(|s| self.open(s)).count();
        let many = together.len() >= self.t.centre_least && share(together.len(), open) >= self.t.centre_share;
        if !many && failed.is_empty() {
            return;
        }
        let mut evidence = Vec::new();
        if many {
            evidence.push(Evidence::new("silent_sites").with("count", together.len()).with("of", open));
        }
        evidence.extend(failed.iter().map(|name| Evidence::new("own_probe_fails").with("probe", name)));
        let confidence = if many && !failed.is_empty() { Confidence::High } else { Confidence::Medium };
        let doubts = if failed.is_empty() { vec![Evidence::new("own_probes_answer")] } else { Vec::new() };
        let sites = if many { together } else { Vec::new() };
        self.blame(Cause::DataCentre, Scope::Centre, Severity::Crit, confidence, &sites, evidence, doubts);
    }

    /// Those whose silence began within the same few minutes: the largest such group.
    fn together(&self, sites: &[&'a str]) -> Vec<&'a str> {
        let mut began: Vec<(i64, &str)> = sites.iter().map(|s| (self.fell_silent(s), *s)).collect();
        began.sort_unstable();
        let window = i64::try_from(Duration::from_secs(self.t.together_s).as_micros()).unwrap_or(i64::MAX);
        let mut best: &[(i64, &str)] = &[];
        let mut first = 0;
        for last in 0..began.len() {
            while began[last].0 - began[first].0 > window {
                first += 1;
            }
            if last + 1 - first > best.len() {
                best = &began[first..=last];
            }
        }
        best.iter().map(|(_, s)| *s).collect()
    }

    /// When the last computer of an office was heard.
    fn fell_silent(&self, site: &str) -> i64 {
        self.by_site[site].iter().filter_map(|e| e.silence.map(|s| s.since.micros())).max().unwrap_or(0)
    }

    /// Offices that fell silent with many others come back one by one. Those that are still on their way are nobody
    /// else's fault, for a while.
    fn settle(&mut self, cause: Cause) {
        for wide in self.picture.wide.iter().filter(|w| w.cause == cause) {
            let sites = wide.sites.iter().map(String::as_str);
            let on_their_way = |s: &&'a str| {
                let there = self.by_site.contains_key(s) && self.quiet(s) == Quiet::Unexplained;
                there && self.fell_silent(s) <= wide.opened.micros()
            };
            let sites: Vec<&'a str> = sites.filter(on_their_way).collect();
            self.taken.extend(sites.iter().flat_map(|s| &self.by_site[s]).map(|e| e.id));
            self.taken_sites.extend(sites);
        }
    }

    /// The same for computers of an office that is back: each comes when its own wait is over.
    fn settle_computers(&mut self) {
        for wide in &self.picture.wide {
            for site in wide.sites.iter().filter_map(|s| self.by_site.get(s.as_str())) {
                if site.iter().any(|e| e.silence.is_none()) {
                    let late = site.iter().filter(|e| e.silence.is_some_and(|s| s.since <= wide.opened));
                    self.taken.extend(late.map(|e| e.id));
                }
            }
        }
    }

    /// Rule 2: most offices of one carrier, else of one region.
    fn carriers(&mut self) {
        type Of = fn(&super::picture::Site) -> Option<&String>;
        type About = fn(String) -> Scope;
        let kinds: [(Of, About); 2] =
            [(|s| s.carrier.as_ref(), Scope::Carrier), (|s| s.region.as_ref(), Scope::Region)];
        for (of, scope) in kinds {
            let quiet: BTreeSet<&str> = self.quiet_sites().into_iter().collect();
            let mut groups: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
            for site in self.by_site.keys().copied().filter(|s| self.open(s)) {
                if let Some(name) = self.picture.sites.get(site).and_then(of) {
                    groups.entry(name).or_default().push(site);
                }
            }
            for (name, members) in groups {
                let silent: Vec<&str> = members.iter().copied().filter(|s| quiet.contains(s)).collect();
                let silent = self.together(&silent);
                let enough = silent.len() >= self.t.carrier_least;
                if !enough || share(silent.len(), members.len()) < self.t.carrier_share {
                    continue;
                }
                let evidence = vec![
                    Evidence::new("silent_sites_of")
                        .with("count", silent.len())
                        .with("of", members.len())
                        .with("name", name),
                    Evidence::new("others_answer").with("count", self.by_site.len() - silent.len()),
                ];
                let doubts = vec![Evidence::new("power_of_a_region")];
                let all = silent.len() == members.len();
                let confidence = if all { Confidence::High } else { Confidence::Medium };
                self.blame(
                    Cause::Carrier,
                    scope(name.to_owned()),
                    Severity::Crit,
                    confidence,
                    &silent,
                    evidence,
                    doubts,
                );
            }
        }
    }

    /// Rule 3: a whole office. Power if one of its last words says so, else its line. One computer alone
    /// says nothing of its office, unless it ran on battery.
    fn silent_sites(&mut self) {
        for site in self.quiet_sites() {
            let all = self.by_site[site].clone();
            let battery = all.iter().filter(|e| last_word(e) == Some(LastWord::OnBattery)).count();
            if all.len() < 2 && battery == 0 {
                continue;
            }
            let mut evidence = vec![Evidence::new("all_silent").with("count", all.len())];
            let (cause, confidence, doubts) = if battery > 0 {
                evidence.push(Evidence::new("on_battery").with("count", battery));
                (Cause::SitePower, Confidence::High, Vec::new())
            } else {
                (Cause::SiteLine, Confidence::Medium, vec![Evidence::new("power_not_excluded")])
            };
            let scope = Scope::Site(site.to_owned());
            self.blame(cause, scope, Severity::Crit, confidence, &[site], evidence, doubts);
        }
    }

    /// Rule 4: those heard lose or wait on the way to the data centre, and not on the way to their router.
    fn bad_lines(&mut self) {
        let free: Vec<&str> = self.by_site.keys().copied().filter(|s| !self.taken_sites.contains(s)).collect();
        for site in free {
            let heard: Vec<&Endpoint> = self.by_site[site].iter().copied().filter(|e| e.silence.is_none()).collect();
            let router_good = |e: &&Endpoint| e.gateway().is_some_and(|p| self.good(p));
            let witnesses: Vec<&Endpoint> = heard.into_iter().filter(router_good).collect();
            // Where one computer measures the line for all, only it has seen what the line loses.
            let measured = witnesses.iter().any(|e| e.controller().is_some_and(|p| p.loss_percent.is_some()));
            let saw = |e: &&Endpoint| !measured || e.controller().is_some_and(|p| p.loss_percent.is_some());
            let witnesses: Vec<&Endpoint> = witnesses.into_iter().filter(saw).collect();
            let bad: Vec<&Endpoint> = witnesses.iter().copied().filter(|e| self.line_bad(e)).collect();
            // One computer that is slow beside others that are not has a trouble of its own.
            if bad.is_empty() || bad.len() * 2 < witnesses.len() {
                continue;
            }
            let loss = bad.iter().filter_map(|e| e.controller()?.loss_percent).fold(0.0_f32, f32::max);
            let p95 = bad.iter().filter_map(|e| e.controller()?.p95_ms).fold(0.0_f32, f32::max);
            let usual = bad.iter().filter_map(|e| e.usual_ms).fold(0.0_f32, f32::max);
            let mut line =
                Evidence::new("line_bad").with("loss", format!("{loss:.0}")).with("p95", format!("{p95:.0}"));
            if usual > 0.0 {
                line = line.with("usual", format!("{usual:.0}"));
            }
            let evidence = vec![line, Evidence::new("router_good").with("count", witnesses.len())];
            let (endpoints, confidence) =
                (bad.iter().map(|e| e.id).collect(), if bad.len() > 1 { Confidence::High } else { Confidence::Medium });
            self.push(Judgement {
                cause: Cause::LineDegraded,
                scope: Scope::Site(site.to_owned()),
                detail: String::new(),
                severity: Severity::Warn,
                confidence,
                evidence,
                doubts: vec![Evidence::new("own_traffic")],
                sites: vec![site.to_owned()],
                endpoints,
            });
            self.taken_sites.insert(site);
        }
    }

    fn good(&self, p: Path) -> bool {
        p.loss_percent.is_none_or(|l| l < self.t.good_percent) && p.p95_ms.is_some()
    }

    fn line_bad(&self, e: &Endpoint) -> bool {
        let Some(p) = e.controller() else { return false };
        let slow = p
            .p95_ms
            .zip(e.usual_ms)
            .is_some_and(|(now, usual)| now > usual * self.t.slow_times && now > self.t.slow_least_ms);
        p.loss_percent.is_some_and(|l| l >= self.t.loss_percent) || slow
    }

    /// Rule 5: the way to the router is bad for one computer, and good for its peers.
    fn bad_lans(&mut self) {
        for e in &self.picture.endpoints {
            let Some(loss) = e.gateway().and_then(|p| p.loss_percent).filter(|l| *l >= self.t.loss_percent) else {
                continue;
            };
            if e.silence.is_some() || self.taken.contains(&e.id) || self.taken_sites.contains(e.site.as_str()) {
                continue;
            }
            let peers: Vec<Path> = self.by_site[e.site.as_str()]
                .iter()
                .filter(|p| p.id != e.id && p.silence.is_none())
                .filter_map(|p| p.gateway())
                .collect();
            let good = peers.iter().filter(|p| self.good(**p)).count();
            let mut evidence = vec![Evidence::new("router_loss").with("loss", format!("{loss:.0}"))];
            let (confidence, doubts) = if good > 0 {
                evidence.push(Evidence::new("peers_good").with("count", good));
                (Confidence::High, Vec::new())
            } else {
                (Confidence::Low, vec![Evidence::new("no_peer_to_compare")])
            };
            let cable: Vec<&str> = e.faults.iter().filter(|f| f.check == "cable").map(|f| f.code.as_str()).collect();
            evidence.extend(cable.iter().map(|code| Evidence::new("cable_says").with("code", code)));
            self.single(Cause::Lan, e, "", Severity::Warn, confidence, evidence, doubts);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn single(
        &mut self,
        cause: Cause,
        e: &Endpoint,
        detail: &str,
        severity: Severity,
        confidence: Confidence,
        evidence: Vec<Evidence>,
        doubts: Vec<Evidence>,
    ) {
        self.push(Judgement {
            cause,
            scope: Scope::Endpoint(e.id),
            detail: detail.to_owned(),
            severity,
            confidence,
            evidence,
            doubts,
            sites: vec![e.site.clone()],
            endpoints: vec![e.id],
        });
    }

    /// Rule 6: one computer is silent, and its peers are not. Its last word tells why. What was shut down
    /// cleanly is nobody's incident: people switch computers off.
    fn silent_endpoints(&mut self) {
        for e in &self.picture.endpoints {
            let Some(silence) = e.silence else { continue };
            if self.taken.contains(&e.id) || self.taken_sites.contains(e.site.as_str()) || !self.open(&e.site) {
                continue;
            }
            let peers = self.by_site[e.site.as_str()].iter().filter(|p| p.silence.is_none()).count();
            let (cause, confidence, code) = match silence.last_word {
                LastWord::Shutdown => continue,
                LastWord::Stopped => (Cause::Crashed, Confidence::High, "agent_stopped"),
                LastWord::OnBattery => (Cause::EndpointPower, Confidence::High, "was_on_battery"),
                LastWord::None if peers > 0 => (Cause::Crashed, Confidence::Medium, "no_last_word"),
                LastWord::None => (Cause::SiteLine, Confidence::Low, "only_computer"),
            };
            let mut evidence = vec![Evidence::new(code)];
            let mut doubts = Vec::new();
            if peers > 0 {
                evidence.push(Evidence::new("peers_heard").with("count", peers));
            }
            if silence.last_word == LastWord::None {
                doubts.push(Evidence::new("switched_off_hard"));
            }
            if cause == Cause::SiteLine {
                doubts.push(Evidence::new("no_peer_to_compare"));
                let site: &'a str = &e.site;
                let scope = Scope::Site(e.site.clone());
                self.blame(cause, scope, Severity::Crit, confidence, &[site], evidence, doubts);
            } else {
                self.single(cause, e, "", Severity::Warn, confidence, evidence, doubts);
            }
        }
    }

    /// Rules 7 and 8: a service that fails at several offices is to blame itself; at one, what lies between.
    /// Offices whose line or router is in trouble say nothing about services.
    fn services(&mut self) {
        /// Offices at which it fails, with the phase; and those at which it works.
        type Seen<'a> = (Vec<(&'a str, &'a Service)>, BTreeSet<&'a str>);
        let mut seen: BTreeMap<&str, Seen<'a>> = BTreeMap::new();
        for e in &self.picture.endpoints {
            let blind = e.silence.is_some() || self.taken_sites.contains(e.site.as_str()) || self.taken.contains(&e.id);
            if blind {
                continue;
            }
            for s in e.services() {
                let (bad, good) = seen.entry(&s.name).or_default();
                match s.ok {
                    Some(true) => _ = good.insert(&e.site),
                    Some(false) if !bad.iter().any(|(site, _)| *site == e.site) => bad.push((&e.site, s)),
                    Some(false) | None => {}
                }
            }
        }
        for (name, (mut bad, good)) in seen {
            // An office at which one computer reaches it does not fail.
            bad.retain(|(site, _)| !good.contains(site));
            let told = |site: &str, s: &Service| {
                Evidence::new("service_fails").with("service", name).with("site", site).with("phase", &s.phase)
            };
            if bad.len() >= self.t.service_sites {
                let mut evidence = vec![
                    Evidence::new("service_fails_at")
                        .with("service", name)
                        .with("count", bad.len())
                        .with("good", good.len()),
                ];
                evidence.extend(bad.iter().take(3).map(|(site, s)| told(site, s)));
                let confidence = if good.is_empty() { Confidence::High } else { Confidence::Medium };
                self.push(Judgement {
                    cause: Cause::Service,
                    scope: Scope::Service(name.to_owned()),
                    detail: String::new(),
                    severity: Severity::Crit,
                    confidence,
                    evidence,
                    doubts: if good.is_empty() {
                        Vec::new()
                    } else {
                        vec![Evidence::new("works_elsewhere").with("count", good.len())]
                    },
                    sites: bad.iter().map(|(site, _)| (*site).to_owned()).collect(),
                    endpoints: Vec::new(),
                });
                continue;
            }
            for (site, s) in bad {
                if self.failed_for_all(s) {
                    continue;
                }
                let mut evidence = vec![told(site, s)];
                let (confidence, doubts) = if good.is_empty() {
                    (Confidence::Low, vec![Evidence::new("no_site_to_compare")])
                } else {
                    evidence.push(Evidence::new("works_elsewhere").with("count", good.len()));
                    (Confidence::High, Vec::new())
                };
                self.push(Judgement {
                    cause: Cause::SiteService,
                    scope: Scope::Site(site.to_owned()),
                    detail: name.to_owned(),
                    severity: Severity::Warn,
                    confidence,
                    evidence,
                    doubts,
                    sites: vec![site.to_owned()],
                    endpoints: Vec::new(),
                });
            }
        }
    }

    /// Whether an office's failure is from when the service failed for everybody: the last ones to ask it again are not
    /// to blame.
    fn failed_for_all(&self, s: &Service) -> bool {
        self.picture.failed.iter().any(|f| f.service == s.name && f.until.is_none_or(|until| s.at < until))
    }

    /// Rule 9: desktops that do not work, by host where several share one.
    fn desktops(&mut self) {
        let mut by_host: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for d in &self.picture.desktops {
            by_host.entry(&d.host).or_default().push(d);
        }
        for (host, faults) in by_host {
            let whole = faults.iter().find(|d| d.desktop.is_none());
            let sites =
                |of: &[&super::picture::DesktopFault]| of.iter().filter_map(|d| d.site.clone()).collect::<Vec<_>>();
            if let Some(evidence) = match whole {
                Some(h) => Some(vec![Evidence::new("host_fails").with("host", host).with("code", &h.code)]),
                None if faults.len() >= 3 => {
                    Some(vec![Evidence::new("desktops_fail_on").with("host", host).with("count", faults.len())])
                }
                None => None,
            } {
                let confidence = if whole.is_some() { Confidence::High } else { Confidence::Medium };
                self.push(Judgement {
                    cause: Cause::Desktop,
                    scope: Scope::Host(host.to_owned()),
                    detail: String::new(),
                    severity: Severity::Crit,
                    confidence,
                    evidence,
                    doubts: Vec::new(),
                    sites: sites(&faults),
                    endpoints: Vec::new(),
                });
                continue;
            }
            for d in &faults {
                let Some(id) = d.desktop else { continue };
                self.push(Judgement {
                    cause: Cause::Desktop,
                    scope: Scope::Desktop(id),
                    detail: String::new(),
                    severity: Severity::Warn,
                    confidence: Confidence::High,
                    evidence: vec![Evidence::new("desktop_fails").with("host", host).with("code", &d.code)],
                    doubts: Vec::new(),
                    sites: sites(&[d]),
                    endpoints: Vec::new(),
                });
            }
        }
    }

    /// Rule 10: what a computer's own checks complain of and nothing above explains.
    fn own_faults(&mut self) {
        for e in self.picture.endpoints.iter().filter(|e| e.silence.is_none()) {
            for f in e.faults.iter().filter(|f| !NETWORK.contains(&f.check.as_str())) {
                let peripheral = PERIPHERAL.contains(&f.check.as_str());
                let cause = if peripheral { Cause::Peripheral } else { Cause::Computer };
                let severity = if f.crit && !peripheral { Severity::Crit } else { Severity::Warn };
                let mut told = Evidence::new("check_says").with("check", &f.check).with("code", &f.code);
                told.params.extend(f.params.iter().map(|(k, v)| (k.clone(), v.clone())));
                self.single(cause, e, &f.check, severity, Confidence::High, vec![told], Vec::new());
            }
        }
    }
}

fn unexplained(s: &Silence) -> bool {
    !matches!(s.last_word, LastWord::Shutdown | LastWord::Stopped)
}

fn last_word(e: &Endpoint) -> Option<LastWord> {
    e.silence.map(|s| s.last_word)
}

#[allow(clippy::cast_precision_loss)] // counts of offices
fn share(part: usize, of: usize) -> f32 {
    if of == 0 { 0.0 } else { part as f32 / of as f32 }
}
