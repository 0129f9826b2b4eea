//! How a release of the agent spreads: ring by ring, the next one only when the one before is well.
//!
//! Which ring a computer is in never changes with time or chance: it follows from its site and its id.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tram_wire::ids::EndpointId;
use tram_wire::update as wire;

use super::incident::hours::Hours;
use super::time::Time;

text_enum! {
    /// Who gets a release at which time.
    UpdateRing {
        /// Computers of the lab.
        Lab = "lab",
        /// One commune.
        Commune = "commune",
        /// A few computers of each region.
        Canary = "canary",
        /// A share of all.
        Fifth = "fifth",
        /// Everybody else.
        All = "all",
    }
}

text_enum! {
    /// How a release is.
    RolloutState {
        /// It spreads.
        Running = "running",
        /// An operator holds it.
        Paused = "paused",
        /// Too many computers failed.
        Stopped = "stopped",
        /// It has reached everybody it may reach.
        Done = "done",
        /// An operator gave it up; for good.
        Aborted = "aborted",
        /// A newer one took its place.
        Superseded = "superseded",
    }
}

text_enum! {
    /// How far a computer is with a release.
    UpdateStage {
        /// It has not begun.
        Pending = "pending",
        /// It fetches it.
        Fetching = "fetching",
        /// It has it, and waits for its time.
        Ready = "ready",
        /// It runs it and watches.
        Trial = "trial",
        /// It runs it for good.
        Committed = "committed",
        /// It went back to what ran before.
        RolledBack = "rolled_back",
        /// It went back too often and tries no more.
        Banned = "banned",
        /// It does not take it up.
        Refused = "refused",
    }
}

impl From<wire::Ring> for UpdateRing {
    fn from(r: wire::Ring) -> Self {
        match r {
            wire::Ring::Lab => Self::Lab,
            wire::Ring::Commune => Self::Commune,
            wire::Ring::Canary => Self::Canary,
            wire::Ring::Fifth => Self::Fifth,
            wire::Ring::All => Self::All,
        }
    }
}

impl From<UpdateRing> for wire::Ring {
    fn from(r: UpdateRing) -> Self {
        match r {
            UpdateRing::Lab => Self::Lab,
            UpdateRing::Commune => Self::Commune,
            UpdateRing::Canary => Self::Canary,
            UpdateRing::Fifth => Self::Fifth,
            UpdateRing::All => Self::All,
        }
    }
}

impl From<wire::Stage> for UpdateStage {
    fn from(s: wire::Stage) -> Self {
        match s {
            wire::Stage::Idle | wire::Stage::Other => Self::Pending,
            wire::Stage::Fetching => Self::Fetching,
            wire::Stage::Ready => Self::Ready,
            wire::Stage::Trial => Self::Trial,
            wire::Stage::Committed => Self::Committed,
            wire::Stage::RolledBack => Self::RolledBack,
            wire::Stage::Banned => Self::Banned,
            wire::Stage::Refused => Self::Refused,
        }
    }
}

impl UpdateStage {
    /// Whether the computer failed.
    #[must_use]
    pub fn failed(self) -> bool {
        matches!(self, Self::RolledBack | Self::Banned | Self::Refused)
    }
}

impl UpdateRing {
    fn next(self) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| *r > self)
    }
}

/// How releases spread here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Sites of the lab, by code.
    pub lab_sites: Vec<String>,
    /// The one commune; empty: there is none.
    pub pilot_site: String,
    /// Computers of each region, which is the unit above their site.
    pub canaries: usize,
    /// The share of all, in per cent.
    pub share_percent: u8,
    /// More failures of a ring than that stop the release.
    pub failures_percent: u8,
    /// So many of a ring's computers that are heard must run it for good.
    pub settled_percent: u8,
    /// A ring is open at least so long before the next one.
    pub soak: Duration,
    /// Over so long a ring's computers are spread.
    pub spread: Duration,
    /// The same for what is urgent.
    pub hotfix_spread: Duration,
    /// How long a release must run at a computer before it counts.
    pub alive: Duration,
    /// How often computers ask.
    pub again: Duration,
    /// How long the computers of a site wait for the one that keeps a copy for them.
    pub peer_patience: Duration,
}

impl Default for Rings {
    fn default() -> Self {
        Self {
            lab_sites: Vec::new(),
            pilot_site: String::new(),
            canaries: 5,
            share_percent: 20,
            failures_percent: 2,
            settled_percent: 90,
            soak: Duration::from_secs(3600),
            spread: Duration::from_secs(24 * 3600),
            hotfix_spread: Duration::from_secs(4 * 3600),
            alive: Duration::from_secs(600),
            again: Duration::from_secs(10_800),
            peer_patience: Duration::from_secs(1800),
        }
    }
}

/// A computer, for the question which ring it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Computer {
    /// It.
    pub id: EndpointId,
    /// Its site.
    pub site: String,
    /// The unit above.
    pub region: String,
}

/// A number that is a computer's for good, and looks like chance.
fn order(id: EndpointId, salt: &[u8]) -> u64 {
    let sum = Sha256::digest([salt, id.0.as_bytes()].concat());
    sum.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

impl Rings {
    fn by_site(&self, site: &str) -> Option<UpdateRing> {
        if self.lab_sites.iter().any(|l| l == site) {
            Some(UpdateRing::Lab)
        } else {
            (!self.pilot_site.is_empty() && self.pilot_site == site).then_some(UpdateRing::Commune)
        }
    }

    fn by_share(&self, id: EndpointId) -> UpdateRing {
        if order(id, b"share") % 100 < u64::from(self.share_percent) { UpdateRing::Fifth } else { UpdateRing::All }
    }

    /// Which ring each computer is in.
    #[must_use]
    pub fn assign(&self, all: &[Computer]) -> Vec<(EndpointId, UpdateRing)> {
        let mut regions: BTreeMap<&str, Vec<(u64, EndpointId)>> = BTreeMap::new();
        for c in all.iter().filter(|c| self.by_site(&c.site).is_none()) {
            regions.entry(&c.region).or_default().push((order(c.id, b"canary"), c.id));
        }
        let mut canaries = std::collections::HashSet::new();
        for computers in regions.values_mut() {
            computers.sort_unstable();
            canaries.extend(computers.iter().take(self.canaries).map(|(_, id)| *id));
        }
        let ring = |c: &Computer| {
            let canary = canaries.contains(&c.id).then_some(UpdateRing::Canary);
            self.by_site(&c.site).or(canary).unwrap_or_else(|| self.by_share(c.id))
        };
        all.iter().map(|c| (c.id, ring(c))).collect()
    }

    /// The ring of a computer that came after a release had begun to spread. It is never a canary.
    #[must_use]
    pub fn late(&self, id: EndpointId, site: &str) -> UpdateRing {
        self.by_site(site).unwrap_or_else(|| self.by_share(id))
    }

    /// When a computer's turn comes in a ring that opened then.
    #[must_use]
    pub fn due(&self, id: EndpointId, counter: i64, opened: Time, hotfix: bool) -> Time {
        let spread = if hotfix { self.hotfix_spread } else { self.spread };
        // Another computer is the first with every release.
        let part = order(id, &counter.to_be_bytes()) % 10_000;
        opened.plus(spread.mul_f64(f64::from(u16::try_from(part).unwrap_or(0)) / 10_000.0))
    }

    /// How long a computer still waits; zero: it is its turn.
    #[must_use]
    pub fn wait(&self, due: Time, now: Time, office: Option<&Hours>, in_session: bool) -> Duration {
        let until_due = due.since(now);
        // Looked at again after a while: an office closes, somebody signs out.
        let quiet = if in_session || office.is_some_and(|h| h.open(now)) { self.again } else { Duration::ZERO };
        until_due.max(quiet)
    }
}

/// How a ring's computers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// All of them.
    pub total: i64,
    /// Those that run it for good.
    pub committed: i64,
    /// Those that failed since an operator last said to go on.
    pub failed: i64,
    /// Those that are at it.
    pub busy: i64,
    /// Those that have not begun and were not heard for a day.
    pub silent: i64,
}

/// What becomes of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays as it is.
    Stay,
    /// This ring has too many failures.
    Stop(UpdateRing),
    /// The next ring is let in.
    Open(UpdateRing),
    /// Everybody has it.
    Finish,
}

/// What to do with a release that spreads. `counts` by ring; a ring without computers is passed through.
#[must_use]
pub fn decide(
    ring: UpdateRing,
    widest: UpdateRing,
    opened: Time,
    counts: &BTreeMap<UpdateRing, RingCounts>,
    rings: &Rings,
    now: Time,
) -> Step {
    let of = |r: UpdateRing| counts.get(&r).copied().unwrap_or_default();
    // Also of rings that were well once: a release may fall over after days.
    let bad = UpdateRing::ALL.iter().copied().filter(|r| *r <= ring).find(|r| {
        let c = of(*r);
        c.failed * 100 > i64::from(rings.failures_percent) * c.total
    });
    if let Some(bad) = bad {
        return Step::Stop(bad);
    }
    let c = of(ring);
    let heard = c.total - c.silent;
    let settled = c.committed > 0 && c.committed * 100 >= i64::from(rings.settled_percent) * heard;
    let well = c.total == 0 || (settled && now.since(opened) >= rings.soak);
    match ring.next().filter(|n| *n <= widest) {
        _ if !well => Step::Stay,
        Some(next) => Step::Open(next),
        None => Step::Finish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn computers(n: u128) -> Vec<Computer> {
        (0..n)
            .map(|i| Computer {
                id: EndpointId(Uuid::from_u128(i * 7919 + 1)),
                site: format!("{:05}", i % 50),
                region: format!("{:03}", i % 10),
            })
            .collect()
    }

    fn rings() -> Rings {
        Rings { lab_sites: vec!["00001".into()], pilot_site: "00002".into(), ..Rings::default() }
    }

    #[test]
    fn the_ring_of_a_computer_follows_from_what_it_is() {
        let all = computers(5000);
        let rings = rings();
        let assigned = rings.assign(&all);
        let mut again = all.clone();
        again.reverse();
        let mut other = rings.assign(&again);
        other.reverse();
        assert_eq!(assigned, other, "the order of a list is no reason");
        let of = |ring| assigned.iter().filter(|(_, r)| *r == ring).count();
        assert_eq!((of(UpdateRing::Lab), of(UpdateRing::Commune), of(UpdateRing::Canary)), (100, 100, 50));
        let share = of(UpdateRing::Fifth) * 100 / (5000 - 250);
        assert!((17..=23).contains(&share), "{share} %");
        assert!(all.iter().zip(&assigned).all(|(c, (_, r))| (c.site == "00001") == (*r == UpdateRing::Lab)));
        // Who comes late is where it would have been, but for canaries.
        for (c, (id, ring)) in all.iter().zip(&assigned) {
            assert!(*ring == UpdateRing::Canary || rings.late(*id, &c.site) == *ring);
        }
        assert_eq!(Rings::default().assign(&all).iter().filter(|(_, r)| *r <= UpdateRing::Commune).count(), 0);
    }

    #[test]
    fn a_rings_computers_are_spread_over_its_time() {
        let (rings, opened) = (rings(), Time::from_micros(1_000_000_000));
        let due: Vec<Duration> =
            computers(1000).iter().map(|c| rings.due(c.id, 7, opened, false).since(opened)).collect();
        assert!(due.iter().all(|d| *d < rings.spread));
        let early = due.iter().filter(|d| **d < rings.spread / 2).count();
        assert!((430..570).contains(&early), "{early}");
        let id = computers(1)[0].id;
        assert_ne!(rings.due(id, 7, opened, false), rings.due(id, 8, opened, false), "not always the same one first");
        assert!(rings.due(id, 7, opened, true).since(opened) < rings.hotfix_spread);
    }

    #[test]
    fn neither_in_office_hours_nor_in_a_session() {
        let (rings, hours) = (rings(), Hours::default());
        // Wednesday 25 November 2026, 10:00 and 20:00 in Hanoi.
        let at = |t: &str| Time::from_micros(t.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        let (work, evening) = (at("2026-11-25T03:00:00Z"), at("2026-11-25T13:00:00Z"));
        assert_eq!(rings.wait(evening, evening, Some(&hours), false), Duration::ZERO);
        assert_eq!(rings.wait(evening, evening, Some(&hours), true), rings.again);
        assert_eq!(rings.wait(work, work, Some(&hours), false), rings.again);
        assert_eq!(rings.wait(work, work, None, false), Duration::ZERO, "at any time");
        let later = evening.plus(Duration::from_secs(14_400));
        assert_eq!(rings.wait(later, evening, Some(&hours), true), Duration::from_secs(14_400));
    }

    fn step(ring: UpdateRing, counts: &[(UpdateRing, RingCounts)], after: Duration) -> Step {
        let opened = Time::from_micros(0);
        decide(ring, UpdateRing::All, opened, &counts.iter().copied().collect(), &rings(), opened.plus(after))
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn the_next_ring_waits_for_the_one_before() {
        let c = |total, committed, silent| RingCounts { total, committed, silent, ..RingCounts::default() };
        let lab = |counts, after| step(UpdateRing::Lab, &[(UpdateRing::Lab, counts)], after);
        assert_eq!(lab(c(10, 8, 0), DAY), Step::Stay);
        assert_eq!(lab(c(10, 9, 0), DAY), Step::Open(UpdateRing::Commune));
        assert_eq!(lab(c(10, 9, 0), Duration::from_secs(3599)), Step::Stay, "it has to soak");
        assert_eq!(lab(c(10, 5, 5), DAY), Step::Open(UpdateRing::Commune), "who is switched off is not waited for");
        assert_eq!(lab(c(10, 0, 10), DAY), Step::Stay, "nobody has shown that it is well");
        assert_eq!(lab(c(0, 0, 0), Duration::ZERO), Step::Open(UpdateRing::Commune), "there is no lab");
        assert_eq!(step(UpdateRing::All, &[(UpdateRing::All, c(10, 10, 0))], DAY), Step::Finish);
        let narrow = decide(
            UpdateRing::Lab,
            UpdateRing::Lab,
            Time::from_micros(0),
            &[(UpdateRing::Lab, c(1, 1, 0))].into(),
            &rings(),
            Time::from_micros(0).plus(DAY),
        );
        assert_eq!(narrow, Step::Finish, "it was signed for the lab only");
    }

    #[test]
    fn more_than_two_in_a_hundred_stop_it() {
        let c = |total, failed| RingCounts { total, committed: total - failed, failed, ..RingCounts::default() };
        let share = |counts| step(UpdateRing::Fifth, &[(UpdateRing::Fifth, counts)], DAY);
        assert_eq!(share(c(100, 2)), Step::Open(UpdateRing::All));
        assert_eq!(share(c(100, 3)), Step::Stop(UpdateRing::Fifth));
        assert_eq!(share(c(5, 1)), Step::Stop(UpdateRing::Fifth));
        let late = [(UpdateRing::Lab, c(10, 1)), (UpdateRing::Fifth, c(1000, 0))];
        assert_eq!(step(UpdateRing::Fifth, &late, DAY), Step::Stop(UpdateRing::Lab), "also in a ring that was well");
    }
}
