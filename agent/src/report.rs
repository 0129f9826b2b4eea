//! Turns what is collected into messages: everything, or what changed since it was last told.

use std::time::Duration;

use tram_wire::check::Finding;
use tram_wire::heartbeat::{Change, Network, Snapshot, Vitals};

use crate::checks::{self, Certificate, Facts, Limits, Reach};
use crate::collect::{hardware, network, vitals};
use crate::config::Config;
use crate::host::Host;

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
}

/// Collects, judges, and remembers what was told.
pub struct Reporter<H> {
    host: H,
    limits: Limits,
    told: Option<(Vitals, Network, Vec<Finding>)>,
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

impl<H: Host> Reporter<H> {
    /// A reporter that has told nothing yet.
    pub fn new(host: H, limits: Limits) -> Self {
        Self { host, limits, told: None }
    }

    /// The computer.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Everything.
    pub async fn snapshot(&mut self, link: &LinkFacts) -> Snapshot {
        let hardware = hardware::collect(&mut self.host);
        let (vitals, network, findings) = self.look(link).await;
        self.told = Some((vitals.clone(), network.clone(), findings.clone()));
        Snapshot { at_ms: self.host.wall_ms(), hardware, vitals, network, findings }
    }

    /// What changed since the last report; empty if nothing worth the line did.
    pub async fn change(&mut self, link: &LinkFacts) -> Change {
        let (vitals, network, findings) = self.look(link).await;
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

    /// What the last report found.
    pub fn findings(&self) -> &[Finding] {
        self.told.as_ref().map_or(&[], |t| &t.2)
    }

    async fn look(&mut self, link: &LinkFacts) -> (Vitals, Network, Vec<Finding>) {
        let vitals = vitals::collect(&mut self.host);
        let mut network = network::collect(&self.host).await;
        network.controller_rtt_ms = link.rtt.map(network::millis);
        network.skew_ms = link.skew_ms;
        // The controller's clock decides when our certificate ends, so take our error off.
        let now_ms = self.host.wall_ms().saturating_sub(link.skew_ms.unwrap_or(0));
        let findings = checks::run(&Facts {
            vitals: &vitals,
            network: &network,
            certificate: link.not_after_ms.map(|not_after_ms| Certificate { not_after_ms, now_ms }),
            controller: link.controller.clone(),
            limits: &self.limits,
        });
        (vitals, network, findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn link() -> LinkFacts {
        LinkFacts {
            rtt: Some(Duration::from_millis(12)),
            skew_ms: Some(20),
            not_after_ms: Some(1_795_000_000_000 + 30 * 86_400_000),
            controller: Reach::Linked,
        }
    }

    #[tokio::test]
    async fn after_a_snapshot_a_quiet_computer_has_nothing_to_say() {
        let mut r = Reporter::new(Fake::new(), Limits::default());
        let snapshot = r.snapshot(&link()).await;
        assert_eq!(snapshot.network.controller_rtt_ms, Some(12.0));
        assert!(r.change(&link()).await.is_empty());
        assert_eq!(r.findings(), snapshot.findings);
    }

    #[tokio::test]
    async fn a_fault_is_told_once() {
        let mut r = Reporter::new(Fake::new(), Limits::default());
        r.snapshot(&link()).await;
        r.host.gauges.memory_available = 1 << 28;
        let change = r.change(&link()).await;
        assert!(change.network.is_none());
        let memory = change.findings.unwrap().into_iter().find(|f| f.check == "memory").unwrap();
        assert_eq!(memory.code, "memory_out");
        assert!(r.change(&link()).await.is_empty());
    }

    #[tokio::test]
    async fn a_clock_an_hour_ahead_does_not_end_the_certificate_early() {
        let mut host = Fake::new();
        host.wall_ms += 3_600_000;
        let mut r = Reporter::new(host, Limits::default());
        let facts = LinkFacts { skew_ms: Some(3_600_000), not_after_ms: Some(1_795_000_000_000 + 60_000), ..link() };
        let findings = r.snapshot(&facts).await.findings;
        let code = |check: &str| findings.iter().find(|f| f.check == check).unwrap().code.clone();
        assert_eq!((code("clock").as_str(), code("certificate").as_str()), ("clock_wrong", "certificate_ends"));
    }
}
