//! Turns what is collected into messages: records of health, or snapshots and changes for an older controller.

use std::collections::BTreeMap;
use std::time::Duration;

use tram_wire::check::{CheckState, Finding};
use tram_wire::heartbeat::{Change, Hardware, Network, Snapshot, Vitals};
use tram_wire::plan::Plan;
use tram_wire::report::{CheckResult, Event, Item, Note, Probe, Record};

use crate::checks::{self, Certificate, Facts, Limits, Reach};
use crate::collect::gauges::{self, Gauges};
use crate::collect::keeper::{aside, steady};
use crate::collect::line::{WAYS, Window};
use crate::collect::{Inventory, hardware, network, vitals};
use crate::config::Config;
use crate::host::Host;
use crate::host::probe;

/// Longest that reading this computer's own files may take.
const READ: Duration = Duration::from_secs(5);

/// What only the link knows.
#[derive(Clone, Debug)]
pub struct LinkFacts {
    /// Round trip of the beats.
    pub rtt: Option<Duration>,
    /// Our clock less the controller's.
    pub skew_ms: Option<i64>,
    /// When our certificate ends.
    pub not_after_ms: Option<i64>,
    /// How well the controller is reached.
    pub controller: Reach,
    /// The way to it, where this endpoint measures it.
    pub line: Option<Probe>,
    /// How often the link came up: what was lost or failed before it came back says nothing of now.
    pub links: u64,
}

/// What the collectors have to say since the last record.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Sections as they were seen last.
    pub inventory: Inventory,
    /// What came and went.
    pub events: Vec<Event>,
    /// What there is to say of collectors and queue.
    pub notes: Vec<Note>,
    /// Collectors that are switched off.
    pub off: Vec<&'static str>,
}

/// Which record is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Everything.
    Key,
    /// What changed, with the probes that are due.
    Delta,
    /// What changed, and quick: somebody looks, or something was plugged in.
    Quick,
}

/// Everything seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Gauges, sensors, volumes.
    pub vitals: Vitals,
    /// Interfaces and their times.
    pub network: Network,
    /// As series.
    pub gauges: Gauges,
    /// Probes made now.
    pub probes: Vec<Probe>,
    /// What the checks found.
    pub findings: Vec<Finding>,
}

#[derive(Default)]
struct Told {
    gauges: Gauges,
    inventory: Inventory,
    network: Network,
    findings: Vec<Finding>,
}

/// Collects, judges, and remembers what was told.
pub struct Reporter<H> {
    host: H,
    limits: Limits,
    told: Option<(Vitals, Network, Vec<Finding>)>,
    records: Told,
    /// Since when each check says what it says, boot clock.
    since: BTreeMap<String, (CheckState, String, u64)>,
    /// The newest of each probe.
    probes: BTreeMap<String, Probe>,
    /// The last bursts to the router.
    router: Window,
    /// When each service is due, boot clock.
    due: BTreeMap<String, u64>,
    seq: u64,
    /// This computer's files did not answer.
    hung: bool,
    /// The link of the last look.
    links: u64,
    /// What the ways are like was not measured yet on this link.
    unmeasured: bool,
    /// The last record repeats what was told on this link.
    repeats: bool,
}

impl From<&Config> for Limits {
    fn from(c: &Config) -> Self {
        Self {
            disk_warn_percent: c.disk_free_percent.0,
            disk_crit_percent: c.disk_free_percent.1,
            memory_warn_percent: c.memory_free_percent.0,
            memory_crit_percent: c.memory_free_percent.1,
            celsius_warn: c.celsius.0,
            celsius_crit: c.celsius.1,
        }
    }
}

impl<H: Host + Send + 'static> Reporter<H> {
    /// A reporter that has told nothing yet.
    pub fn new(host: H, limits: Limits) -> Self {
        // Grows over restarts of the agent within a boot without being kept anywhere: records are rarer than
        // milliseconds.
        let seq = host.boot_ms();
        Self {
            host,
            limits,
            told: None,
            records: Told::default(),
            since: BTreeMap::new(),
            probes: BTreeMap::new(),
            router: Window::default(),
            due: BTreeMap::new(),
            seq,
            hung: false,
            links: 0,
            unmeasured: false,
            repeats: false,
        }
    }

    /// The computer.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Everything, for an older controller.
    pub async fn snapshot(&mut self, link: &LinkFacts, gathered: &Gathered) -> Snapshot {
        let (seen, hardware) = self.look(link, gathered, Want::Key, &Plan::default()).await;
        self.told = Some((seen.vitals.clone(), seen.network.clone(), seen.findings.clone()));
        let Seen { vitals, network, findings, .. } = seen;
        Snapshot { at_ms: self.host.wall_ms(), hardware, vitals, network, findings }
    }

    /// What changed since the last report, for an older controller; empty if nothing worth the line did.
    pub async fn change(&mut self, link: &LinkFacts, gathered: &Gathered) -> Change {
        let (Seen { vitals, network, findings, .. }, _) =
            self.look(link, gathered, Want::Delta, &Plan::default()).await;
        let mut change = Change { at_ms: self.host.wall_ms(), ..Change::default() };
        let Some(told) = &mut self.told else {
            self.told = Some((vitals.clone(), network.clone(), findings.clone()));
            return Change { vitals: Some(vitals), network: Some(network), findings: Some(findings), ..change };
        };
        if vitals::differs(&told.0, &vitals) {
            told.0 = vitals.clone();
            change.vitals = Some(vitals);
        }
        if network::differs(&told.1, &network) {
            told.1 = network.clone();
            change.network = Some(network);
        }
        if checks::differ(&told.2, &findings) {
            told.2 = findings.clone();
            change.findings = Some(findings);
        }
        change
    }

    /// A record of now; `None` if there is nothing worth the line.
    pub async fn record(&mut self, link: &LinkFacts, gathered: Gathered, want: Want, plan: &Plan) -> Option<Record> {
        let same_link = link.links == self.links;
        let (seen, hardware) = self.look(link, &gathered, want, plan).await;
        let (mono_ms, at_ms) = (self.host.boot_ms(), self.host.wall_ms());
        let key = want == Want::Key;
        let told = &mut self.records;
        let news = |section: &String, items: &[Item]| {
            told.inventory.get(section).is_none_or(|old| steady(old) != steady(items))
        };
        let (rewired, judged) = (rewired(&told.network, &seen.network), checks::differ(&told.findings, &seen.findings));
        self.repeats = key
            && same_link
            && !rewired
            && !judged
            && gathered.events.is_empty()
            && gathered.notes.is_empty()
            && !gathered.inventory.iter().any(|(s, items)| news(s, items));
        let inventory: Inventory = gathered.inventory.into_iter().filter(|(s, items)| key || news(s, items)).collect();
        told.inventory.extend(inventory.clone());
        let moved = if key {
            seen.gauges.iter().map(|(k, v)| (k.clone(), Some(*v))).collect()
        } else {
            gauges::moved(&told.gauges, &seen.gauges, plan.metered)
        };
        for (name, value) in &moved {
            match value {
                Some(v) => drop(told.gauges.insert(name.clone(), *v)),
                None => drop(told.gauges.remove(name)),
            }
        }
        let network = (key || rewired).then(|| seen.network.clone());
        if let Some(n) = &network {
            told.network.clone_from(n);
        }
        let checks = Self::results(&mut self.since, &told.findings, &seen.findings, key, mono_ms);
        told.findings.clone_from(&seen.findings);
        let record = Record {
            seq: self.seq + 1,
            mono_ms,
            at_ms,
            key,
            gauges: moved,
            hardware: key.then_some(hardware),
            vitals: key.then_some(seen.vitals),
            network,
            inventory,
            events: gathered.events,
            // The ways are gauges, too: as such they cost the line less.
            probes: seen.probes.into_iter().filter(|p| key || !WAYS.contains(&p.name.as_str())).collect(),
            checks,
            notes: gathered.notes,
            gap: None,
        };
        let empty = Record { seq: record.seq, mono_ms, at_ms, ..Record::default() };
        if record == empty {
            return None;
        }
        self.seq += 1;
        Some(record)
    }

    /// The last record is a keyframe that tells nothing that was not told on this link, but for gauges.
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// What the last look found.
    pub fn findings(&self) -> &[Finding] {
        if self.records.findings.is_empty() { self.told.as_ref().map_or(&[], |t| &t.2) } else { &self.records.findings }
    }

    fn results(
        since: &mut BTreeMap<String, (CheckState, String, u64)>,
        told: &[Finding],
        now: &[Finding],
        all: bool,
        mono_ms: u64,
    ) -> Vec<CheckResult> {
        let result = |f: &Finding| {
            let old = since.get(&f.check).filter(|(state, code, _)| (*state, code) == (f.state, &f.code));
            let begun = old.map_or(mono_ms, |(_, _, at)| *at);
            since.insert(f.check.clone(), (f.state, f.code.clone(), begun));
            let new = told.iter().find(|t| t.check == f.check).is_none_or(|t| (t.state, &t.code) != (f.state, &f.code));
            (all || new).then(|| CheckResult {
                check: f.check.clone(),
                state: f.state,
                code: f.code.clone(),
                params: f.params.clone(),
                for_ms: mono_ms.saturating_sub(begun),
            })
        };
        now.iter().filter_map(result).collect()
    }

    /// Looks at everything. Files are read aside: a mount that hangs must not hold the link.
    pub async fn look(&mut self, link: &LinkFacts, gathered: &Gathered, want: Want, plan: &Plan) -> (Seen, Hardware) {
        let spare = self.host.again();
        let mut host = std::mem::replace(&mut self.host, spare);
        let read = move || {
            let vitals = vitals::collect(&mut host);
            let hardware = if want == Want::Key { hardware::collect(&mut host) } else { Hardware::default() };
            let (network, mut pressure) = (network::read(&host), gauges::pressure(&host));
            pressure.extend(vitals::inodes(&mut host));
            (host, vitals, hardware, network, pressure)
        };
        let (vitals, hardware, mut network, pressure) = match aside(READ, read).await {
            Some((host, v, h, n, p)) => {
                self.host = host;
                self.hung = false;
                (v, h, n, p)
            }
            None => {
                self.hung = true;
                Default::default()
            }
        };
        if link.links != self.links {
            self.links = link.links;
            self.back(plan);
        }
        let mut probes = if want == Want::Quick { Vec::new() } else { self.probe(&mut network, plan).await };
        self.unmeasured &= want == Want::Quick;
        probes.extend(link.line.clone());
        if link.line.is_none() {
            self.probes.remove("controller");
        }
        network.controller_rtt_ms = link.rtt.map(network::millis);
        network.skew_ms = link.skew_ms;
        for p in &probes {
            self.probes.insert(p.name.clone(), p.clone());
        }
        let power = gathered.inventory.get("power").map_or(&[][..], Vec::as_slice);
        let mut gauges = gauges::of(&vitals, &network, &probes, power);
        if want == Want::Quick {
            // What was not probed is as it was.
            let fresh = |n: &str| n.starts_with("controller_") && link.line.is_some();
            let timed = |n: &str| (n.ends_with("_ms") || n.ends_with("_loss")) && !fresh(n) && !self.unmeasured;
            gauges.extend(self.records.gauges.iter().filter(|(n, _)| timed(n)).map(|(n, v)| (n.clone(), *v)));
            network = Network {
                gateway_rtt_ms: self.records.network.gateway_rtt_ms,
                dns_ms: self.records.network.dns_ms,
                ..network
            };
        }
        gauges.extend(pressure);
        // The controller's clock decides when our certificate ends, so take our error off.
        let now_ms = self.host.wall_ms().saturating_sub(link.skew_ms.unwrap_or(0));
        let findings = checks::run(&Facts {
            vitals: &vitals,
            network: &network,
            gauges: &gauges,
            inventory: &gathered.inventory,
            probes: &self.probes,
            stuck: &gathered.off,
            hung: self.hung,
            certificate: link.not_after_ms.map(|not_after_ms| Certificate { not_after_ms, now_ms }),
            controller: link.controller.clone(),
            limits: &self.limits,
        });
        (Seen { vitals, network, gauges, probes, findings }, hardware)
    }

    /// The link is back: ways and services are unknown until they are measured anew, which they are at once.
    fn back(&mut self, plan: &Plan) {
        self.unmeasured = true;
        self.router.forget();
        self.probes.clear();
        if !plan.metered {
            self.due.clear();
        }
    }

    async fn probe(&mut self, network: &mut Network, plan: &Plan) -> Vec<Probe> {
        let mut probes: Vec<Probe> = network::probe(&self.host, network, &mut self.router).await.into_iter().collect();
        let now = self.host.boot_ms();
        let resolvers: Vec<_> = network.resolver.iter().filter_map(|r| r.parse().ok()).collect();
        let services = plan.services.iter().filter(|_| plan.prober);
        let due: Vec<_> = services.filter(|s| self.due.get(&s.name).is_none_or(|at| now >= *at)).collect();
        for s in &due {
            self.due.insert(s.name.clone(), now + u64::from(s.every_s.max(30)) * 1000);
        }
        // One at a time would add their budgets up.
        let all = due.iter().map(|s| probe::service(s, &resolvers));
        probes.extend(futures_util::future::join_all(all).await.into_iter().flatten());
        probes
    }
}

/// Whether the network is another one, whatever its times.
fn rewired(told: &Network, now: &Network) -> bool {
    let shape = |n: &Network| {
        let nic = |i: &tram_wire::heartbeat::Interface| {
            (i.name.clone(), i.up, i.addresses.clone(), i.speed_mbit, i.duplex.clone())
        };
        (n.gateway.clone(), n.resolver.clone(), n.interfaces.iter().map(nic).collect::<Vec<_>>())
    };
    shape(told) != shape(now)
}

#[cfg(test)]
mod tests;
