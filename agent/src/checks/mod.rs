//! Health checks: pure rules over what was collected.
//!
//! A new check is one file here and one line in [`registry`]. Ids and codes are open strings on the
//! wire, so a controller older than the check still shows it.

use std::collections::BTreeMap;

use tram_wire::check::{CheckState, Finding};
use tram_wire::heartbeat::{Network, Vitals};
use tram_wire::report::Probe;

use crate::collect::Inventory;
use crate::collect::gauges::Gauges;

mod cable;
mod certificate;
mod clock;
mod controller;
mod disk_space;
mod dns;
mod gateway;
mod memory;
mod rules;
mod temperature;

/// Everything a check may look at.
pub struct Facts<'a> {
    /// Gauges, sensors, volumes.
    pub vitals: &'a Vitals,
    /// Interfaces and probes.
    pub network: &'a Network,
    /// The same as series, with pressure and memory kills.
    pub gauges: &'a Gauges,
    /// What the collectors saw; sections nobody looked at yet are missing.
    pub inventory: &'a Inventory,
    /// The newest of each probe.
    pub probes: &'a BTreeMap<String, Probe>,
    /// Collectors that are switched off.
    pub stuck: &'a [&'static str],
    /// This computer's own files don't answer.
    pub hung: bool,
    /// The device certificate, if this computer is enrolled.
    pub certificate: Option<Certificate>,
    /// What is known of the controller.
    pub controller: Reach,
    /// Limits from the configuration.
    pub limits: &'a Limits,
}

/// The life of the device certificate.
#[derive(Clone, Copy, Debug)]
pub struct Certificate {
    /// When it ends.
    pub not_after_ms: i64,
    /// The best guess at the time now.
    pub now_ms: i64,
}

/// How well the controller can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The link is open.
    Linked,
    /// It is, by requests: no WebSocket gets through.
    Polled,
    /// It is, by signed requests: somebody on the way reads along.
    Signed,
    /// Its port answers; whether it accepts this endpoint isn't known here.
    Answers,
    /// It doesn't answer.
    Silent,
    /// Something stands in the way; which check sentence says what.
    Blocked(&'static str),
    /// It answers and refuses; the refusal's code.
    Refused(&'static str),
    /// This computer isn't enrolled.
    NotEnrolled,
}

/// Limits, each from the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Free space below this share is worth a look.
    pub disk_warn_percent: u64,
    /// Free space below this share stops work soon.
    pub disk_crit_percent: u64,
    /// Memory available below this share is worth a look.
    pub memory_warn_percent: u64,
    /// Memory available below this share means swapping or worse.
    pub memory_crit_percent: u64,
    /// Hot, where the sensor has no limit of its own.
    pub celsius_warn: f32,
    /// Too hot, where the sensor has no limit of its own.
    pub celsius_crit: f32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disk_warn_percent: 10,
            disk_crit_percent: 3,
            memory_warn_percent: 10,
            memory_crit_percent: 4,
            celsius_warn: 85.0,
            celsius_crit: 95.0,
        }
    }
}

/// One check.
pub trait Check {
    /// Its id, for good.
    fn id(&self) -> &'static str;
    /// Looks.
    fn look(&self, facts: &Facts<'_>) -> Outcome;
}

/// What a check answers; [`run`] adds its id.
pub struct Outcome {
    state: CheckState,
    code: &'static str,
    params: Vec<(&'static str, String)>,
}

impl Outcome {
    fn ok(code: &'static str) -> Self {
        Self { state: CheckState::Ok, code, params: Vec::new() }
    }
    fn warn(code: &'static str) -> Self {
        Self { state: CheckState::Warn, code, params: Vec::new() }
    }
    fn crit(code: &'static str) -> Self {
        Self { state: CheckState::Crit, code, params: Vec::new() }
    }
    fn unknown(code: &'static str) -> Self {
        Self { state: CheckState::Unknown, code, params: Vec::new() }
    }
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.params.push((name, value.to_string()));
        self
    }
}

/// All checks, in the order they are shown.
#[must_use]
pub fn registry() -> Vec<&'static dyn Check> {
    let mut all: Vec<&'static dyn Check> = vec![
        &controller::Controller,
        &gateway::Gateway,
        &dns::Dns,
        &cable::Cable,
        &clock::Clock,
        &certificate::DeviceCertificate,
        &disk_space::DiskSpace,
        &memory::Memory,
        &temperature::Temperature,
    ];
    all.extend(rules::RULES.iter().map(|r| r as &dyn Check));
    all
}

/// Runs all checks.
#[must_use]
pub fn run(facts: &Facts<'_>) -> Vec<Finding> {
    registry()
        .iter()
        .map(|check| {
            let Outcome { state, code, params } = check.look(facts);
            let params = params.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            Finding { check: check.id().to_owned(), state, code: code.to_owned(), params }
        })
        .collect()
}

/// Whether two sets of findings differ in what a person would act on (numbers may wander).
#[must_use]
pub fn differ(a: &[Finding], b: &[Finding]) -> bool {
    a.len() != b.len() || a.iter().zip(b).any(|(a, b)| (&a.check, a.state, &a.code) != (&b.check, b.state, &b.code))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Looks at a healthy computer after `change` was done to it.
    pub(super) fn look(
        check: &dyn Check,
        change: impl FnOnce(&mut Vitals, &mut Network),
    ) -> (CheckState, &'static str) {
        let mut vitals = Vitals { memory_total_mib: 8000, memory_used_mib: 2000, ..Vitals::default() };
        let mut network = Network::default();
        change(&mut vitals, &mut network);
        let facts = Facts {
            vitals: &vitals,
            network: &network,
            gauges: &Gauges::new(),
            inventory: &Inventory::new(),
            probes: &BTreeMap::new(),
            stuck: &[],
            hung: false,
            certificate: None,
            controller: Reach::Linked,
            limits: &Limits::default(),
        };
        let o = check.look(&facts);
        (o.state, o.code)
    }

    #[test]
    fn ids_are_distinct() {
        let ids: HashSet<_> = registry().iter().map(|c| c.id()).collect();
        assert_eq!(ids.len(), registry().len());
    }

    #[test]
    fn a_computer_that_tells_nothing_is_not_called_faulty() {
        let (vitals, network) = (Vitals::default(), Network::default());
        let facts = Facts {
            vitals: &vitals,
            network: &network,
            gauges: &Gauges::new(),
            inventory: &Inventory::new(),
            probes: &BTreeMap::new(),
            stuck: &[],
            hung: false,
            certificate: None,
            controller: Reach::NotEnrolled,
            limits: &Limits::default(),
        };
        for f in run(&facts) {
            assert!(f.state.severity() <= CheckState::Unknown.severity() || f.check == "gateway", "{f:?}");
        }
    }

    #[test]
    fn wandering_numbers_are_no_news() {
        let f = |state, percent: &str| Finding {
            check: "disk_space".into(),
            state,
            code: "disk_low".into(),
            params: [("free_percent".to_owned(), percent.to_owned())].into(),
        };
        assert!(!differ(&[f(CheckState::Warn, "8")], &[f(CheckState::Warn, "7")]));
        assert!(differ(&[f(CheckState::Warn, "8")], &[f(CheckState::Crit, "8")]));
    }
}
