//! The ways out: to the office's router, and from the prober on to the data centre. Bursts of the last minutes as one
//! measurement, because one lost packet of ten is no tenth of a line.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use tram_wire::check::CheckState;
use tram_wire::plan::Plan;
use tram_wire::report::{Probe, Trips};

use crate::host::Burst;

/// Probes of the ways out, by name.
pub const WAYS: [&str; 2] = ["gateway", "controller"];
/// Bursts that count.
const WINDOW: usize = 5;
/// Packets of a burst to the data centre.
pub const PACKETS: u16 = 20;
/// How long its last packet is waited for.
pub const WITHIN: Duration = Duration::from_millis(900);
/// After a burst that lost something the next one comes sooner, to be sure sooner.
const DOUBT: Duration = Duration::from_secs(15);
/// How often in a row: on a line that is bad for hours the doubt is over.
const DOUBTS: u32 = 12;
/// A line that is paid by the byte is looked at as often, and with fewer.
const METERED: Duration = Duration::from_secs(1800);
const METERED_PACKETS: u16 = 5;

/// Packets of a burst to the data centre by this plan.
#[must_use]
pub fn packets(plan: &Plan) -> u16 {
    if plan.metered { METERED_PACKETS } else { PACKETS }
}

/// The last bursts to one host.
#[derive(Debug, Default)]
pub struct Window {
    to: Option<IpAddr>,
    bursts: VecDeque<Burst>,
    /// It answered once: from then on silence is loss, and no habit.
    answered: bool,
}

impl Window {
    /// Takes a burst to `to` in; another host begins anew. `None`: nothing answered.
    pub fn took(&mut self, to: IpAddr, packets: u16, burst: Option<Burst>) {
        if self.to != Some(to) {
            *self = Self { to: Some(to), ..Self::default() };
        }
        let Some(burst) = burst.or_else(|| self.answered.then(|| Burst::lost(packets))) else { return };
        self.answered |= !burst.took_us.is_empty();
        self.bursts.push_back(burst);
        if self.bursts.len() > WINDOW {
            self.bursts.pop_front();
        }
    }

    /// What was seen so far says nothing of now.
    pub fn forget(&mut self) {
        self.bursts.clear();
    }

    /// What they come to; `None` if nothing ever answered.
    #[must_use]
    pub fn trips(&self) -> Option<Trips> {
        (!self.bursts.is_empty()).then(|| Burst::trips(&self.bursts))
    }

    /// As a probe of this name.
    #[must_use]
    pub fn probe(&self, name: &str) -> Option<Probe> {
        let trips = self.trips();
        let state = match trips {
            // What answers nothing at all may have the habit; what its loss means is the check's to say.
            None => CheckState::Unknown,
            Some(t) if u32::from(t.lost) * 20 > u32::from(t.sent) => CheckState::Warn,
            Some(_) => CheckState::Ok,
        };
        let kind = if self.bursts.back().is_some_and(|b| b.tcp) { "tcp" } else { "icmp" };
        self.to.map(|_| Probe { name: name.into(), kind: kind.into(), state, trips, ..Probe::default() })
    }
}

/// The way to the data centre, as a site's prober measures it.
#[derive(Debug, Default)]
pub struct Line {
    window: Window,
    next: Duration,
    doubts: u32,
}

impl Line {
    /// When to send the next burst.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.next
    }

    /// A burst begins.
    pub fn began(&mut self, now: Duration, plan: &Plan) {
        self.next = now + every(plan);
    }

    /// How it went.
    pub fn took(&mut self, now: Duration, plan: &Plan, to: IpAddr, burst: Option<Burst>) {
        let clean = burst.as_ref().is_some_and(|b| b.took_us.len() == usize::from(b.sent));
        self.window.took(to, packets(plan), burst);
        self.doubts = if clean { 0 } else { self.doubts + 1 };
        if !clean && self.doubts <= DOUBTS && !plan.metered {
            self.next = self.next.min(now + DOUBT.min(every(plan)));
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn probe(&self) -> Option<Probe> {
        self.window.trips().and_then(|_| self.window.probe("controller"))
    }

    /// The line is back after it was gone: what was lost meanwhile is known to be, and says nothing of now. It is
    /// measured anew at once.
    pub fn back(&mut self, now: Duration) {
        self.window.forget();
        self.doubts = 0;
        self.next = self.next.min(now);
    }

    /// Somebody else measures from now on.
    pub fn rest(&mut self) {
        *self = Self::default();
    }
}

fn every(plan: &Plan) -> Duration {
    if plan.metered { METERED } else { Duration::from_secs(plan.delta_s.clamp(2, 3600).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const S: Duration = Duration::from_secs(1);

    fn burst(sent: u16, back: usize) -> Option<Burst> {
        Some(Burst { sent, took_us: vec![9000; back], tcp: false })
    }

    #[test]
    fn one_lost_packet_is_no_bad_line_after_a_while() {
        let mut w = Window::default();
        (0..4).for_each(|_| w.took(TO, 20, burst(20, 20)));
        w.took(TO, 20, burst(20, 19));
        let t = w.trips().unwrap();
        assert_eq!((t.sent, t.lost), (100, 1));
        assert_eq!(w.probe("x").unwrap().state, CheckState::Ok);
        (0..5).for_each(|_| w.took(TO, 20, burst(20, 18)));
        assert_eq!((w.trips().unwrap().lost, w.probe("x").unwrap().state), (10, CheckState::Warn));
    }

    #[test]
    fn a_host_that_never_answered_has_the_habit_and_one_that_did_is_gone() {
        let mut w = Window::default();
        w.took(TO, 20, None);
        assert_eq!((w.trips(), w.probe("x").unwrap().state), (None, CheckState::Unknown));
        w.took(TO, 20, burst(20, 20));
        (0..5).for_each(|_| w.took(TO, 20, None));
        assert_eq!(w.trips().map(|t| (t.sent, t.lost)), Some((100, 100)));
        w.took("10.0.0.1".parse().unwrap(), 20, None);
        assert_eq!(w.trips(), None, "another router");
    }

    #[test]
    fn what_an_outage_lost_is_not_held_against_the_line_that_is_back() {
        let (mut line, plan) = (Line::default(), Plan::default());
        line.took(S, &plan, TO, burst(20, 20));
        line.took(S, &plan, TO, None);
        assert_eq!(line.probe().and_then(|p| p.trips).map(|t| t.lost), Some(20));
        line.began(S, &plan);
        line.back(2 * S);
        assert_eq!((line.probe(), line.next()), (None, 2 * S));
        line.took(S, &plan, TO, burst(20, 20));
        assert_eq!(line.probe().map(|p| p.state), Some(CheckState::Ok));
    }

    #[test]
    fn doubt_looks_sooner_and_ends() {
        let (mut line, plan) = (Line::default(), Plan::default());
        line.began(S, &plan);
        line.took(S, &plan, TO, burst(20, 20));
        assert_eq!(line.next(), 61 * S);
        let mut now = 61 * S;
        for _ in 0..DOUBTS {
            line.began(now, &plan);
            line.took(now, &plan, TO, burst(20, 17));
            assert_eq!(line.next(), now + DOUBT);
            now += DOUBT;
        }
        line.began(now, &plan);
        line.took(now, &plan, TO, burst(20, 17));
        assert_eq!(line.next(), now + 60 * S, "it is bad, and known to be");
    }
}
