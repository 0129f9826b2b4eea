//! Thirty days of a fleet, look by look, as they happen: clocks that step, a data centre that restarts, links
//! that flap, evenings and weekends; and a few real outages, which must all be named and nothing else.
//!
//! Computers measure their lines and ask a service all the time, also while they are cut off, and tell all of it once
//! they are back, the oldest first: the hardest order for whoever judges.

use std::collections::BTreeMap;
use std::time::Duration;

use tram_wire::check::CheckState;
use tram_wire::ids::EndpointId;
use tram_wire::report::{Probe, Record, Report};
use uuid::Uuid;

use super::super::endpoint::{EndpointState, Pace};
use super::super::health::{Latest, dated, sequence};
use super::super::time::Time;
use super::damping::{Course, Step};
use super::hours::Hours;
use super::picture::{Endpoint, LastWord, Path, Picture, Service, Silence, Site};
use super::{Cause, Judgement, Severity, Thresholds, judge};

const SITES: usize = 30;
const EACH: usize = 2;
const LOOK: u64 = 15;

/// What the controller knows of a computer.
#[derive(Clone)]
struct Known {
    state: EndpointState,
    last_seen: Time,
    back: Time,
    last_word: LastWord,
    latest: Latest,
}

/// A computer at an office. The first of each office measures its line and asks the service.
#[derive(Clone, Default)]
struct Computer {
    linked: bool,
    runs: bool,
    boot: u64,
    boot_s: u64,
    seq: u64,
    /// How wrong its calendar is.
    off_ms: i64,
    next_probe: u64,
    /// What it could not tell yet, with the boot it is from.
    kept: Vec<(u64, Record)>,
}

impl Computer {
    fn wall_ms(&self, s: u64) -> i64 {
        s.cast_signed() * 1000 + self.off_ms
    }

    /// What it measures now.
    fn record(&mut self, s: u64, prober: bool, reached: bool) -> Record {
        self.seq += 1;
        let mut gauges = vec![("gateway_loss", 0.0), ("gateway_p95_ms", 1.0)];
        let mut probes = Vec::new();
        if prober {
            gauges.push(("controller_loss", if reached { 0.0 } else { 100.0 }));
            if s >= self.next_probe {
                self.next_probe = s + 300;
                let state = if reached { CheckState::Ok } else { CheckState::Crit };
                probes.push(Probe { name: "egov".into(), kind: "https".into(), state, ..Probe::default() });
            }
        }
        let gauges = gauges.into_iter().map(|(n, v)| (n.to_owned(), Some(v))).collect();
        let (mono_ms, at_ms) = ((s - self.boot_s) * 1000, self.wall_ms(s));
        Record { seq: self.seq, mono_ms, at_ms, gauges, probes, ..Record::default() }
    }

    fn report(&self, s: u64, boot: u64) -> Report {
        let mono_ms = (boot == self.boot).then(|| (s - self.boot_s) * 1000);
        Report { batch: 0, boot: boot.to_string(), mono_ms, at_ms: self.wall_ms(s), records: Vec::new(), rides: false }
    }
}

impl Known {
    fn take(&mut self, report: &Report, record: &Record, arrived: Time) {
        let at = dated(report, record, arrived);
        if self.latest.is_news(report, sequence(record), at) {
            self.latest.apply(&report.boot, record, at);
        }
    }

    fn path(&self, to: &str) -> Option<Path> {
        let loss_percent = Some(*self.latest.gauges.get(&format!("{to}_loss"))?);
        Some(Path { at: self.latest.at, loss_percent, p95_ms: Some(15.0) })
    }

    fn services(&self) -> Vec<Service> {
        let service = |(name, p): (&String, &super::super::health::Probed)| Service {
            name: name.clone(),
            at: p.at,
            ok: Some(p.probe.state == CheckState::Ok),
            phase: "connect".into(),
        };
        self.latest.probes.iter().map(service).collect()
    }
}

/// What really happens at a second.
struct World {
    began: Time,
    hours: Hours,
}

impl World {
    fn at(&self, s: u64) -> Time {
        self.began.plus(Duration::from_secs(s))
    }

    /// Whether an office's line carries. One falls for 20 min on the 3rd, one on the 17th for 2 h; five flap
    /// for 40 s every 10 min, each on a day of its own.
    fn line(&self, site: usize, s: u64) -> bool {
        let (day, second) = (s / 86_400, s % 86_400);
        let outage = matches!((site, day), (4, 2)) && (20_000..21_200).contains(&second)
            || matches!((site, day), (9, 16)) && (24_000..31_200).contains(&second);
        let flaps = (20..25).contains(&site) && day == site as u64 - 15 && second % 600 < 40;
        !outage && !flaps
    }

    /// Whether a computer runs: from a quarter past seven until half past five, minutes apart.
    fn runs(&self, n: usize, s: u64) -> bool {
        let second = (s + 7 * 3600) % 86_400;
        let (on, off) = (26_100 + n as u64 * 11, 63_000 + n as u64 * 13);
        (on..off).contains(&second)
    }

    /// A computer is started anew in the middle of its office's outage, and comes up with another date.
    fn restarts(&self, n: usize, s: u64) -> bool {
        n / EACH == 9 && (16 * 86_400 + 27_000..16 * 86_400 + 27_060).contains(&s)
    }

    /// Three calendars are set by an hour: forward, back at a restart, and back.
    fn off_ms(&self, n: usize, s: u64) -> i64 {
        const HOUR: i64 = 3_600_000;
        match (n, s / 86_400) {
            (10, 4..) => HOUR,
            (18, _) if s >= 16 * 86_400 + 27_000 => -HOUR,
            (44, 22..) => -HOUR,
            _ => 0,
        }
    }

    /// The data centre restarts on the 10th, for 5 min in the morning; nobody answers then.
    fn controller(&self, s: u64) -> bool {
        let (day, second) = (s / 86_400, s % 86_400);
        !(day == 9 && (10_000..10_300).contains(&second))
    }
}

struct Controller {
    since: Time,
    known: Vec<Known>,
    computers: Vec<Computer>,
    courses: BTreeMap<String, (Severity, Course)>,
    /// What was told, with the look it was told at.
    told: Vec<(u64, String, Step)>,
}

impl Controller {
    /// Beats of half a minute, each computer at a second of its own; with every other one it measures.
    fn hear(&mut self, world: &World, s: u64, up: bool) {
        let second = usize::try_from(s % 30).unwrap_or(0);
        for n in (second..SITES * EACH).step_by(30) {
            let (k, c) = (&mut self.known[n], &mut self.computers[n]);
            let (line, runs) = (world.line(n / EACH, s), world.runs(n, s) && !world.restarts(n, s));
            if !runs {
                (c.runs, c.linked) = (false, false);
                if line && up && k.state == EndpointState::Online && !world.restarts(n, s) {
                    *k = Known { state: EndpointState::Silent, last_word: LastWord::Shutdown, ..k.clone() };
                }
                continue;
            }
            if !c.runs {
                let boot = c.boot + 1;
                (c.runs, c.boot, c.boot_s, c.seq) = (true, boot, s, 0);
            }
            c.off_ms = world.off_ms(n, s);
            if (s / 30).is_multiple_of(2) {
                let record = c.record(s, n % EACH == 0, line && up);
                c.kept.push((c.boot, record));
            }
            if !line || !up {
                c.linked = false;
                continue;
            }
            let now = world.at(s);
            if !c.linked || k.state != EndpointState::Online {
                (c.linked, k.back) = (true, now);
            }
            (k.state, k.last_seen, k.last_word) = (EndpointState::Online, now, LastWord::None);
            for (boot, record) in std::mem::take(&mut c.kept) {
                k.take(&c.report(s, boot), &record, now);
            }
        }
    }

    fn look(&mut self, world: &World, s: u64) {
        let now = world.at(s);
        let Some(before) = Pace::default().silent_before(now, self.since) else { return };
        for k in &mut self.known {
            if k.state == EndpointState::Online && k.last_seen < before {
                k.state = EndpointState::Silent;
            }
        }
        if Pace::default().silent_before(now.minus(Duration::from_secs(2)), self.since).is_none() {
            return;
        }
        let judgements = judge(&self.picture(world, now), &Thresholds::default());
        self.follow(&judgements, s, now);
    }

    fn picture(&self, world: &World, now: Time) -> Picture {
        let open = world.hours.open(now);
        let mut p = Picture { now, ..Picture::default() };
        for site in 0..SITES {
            let known = Site {
                region: Some(format!("r{}", site / 10)),
                carrier: Some("VNPT".into()),
                open,
                maintenance: false,
            };
            p.sites.insert(format!("{site:05}"), known);
        }
        p.endpoints = self
            .known
            .iter()
            .enumerate()
            .filter(|(_, k)| k.state != EndpointState::Never)
            .map(|(n, k)| Endpoint {
                id: EndpointId(Uuid::from_u128(n as u128 + 1)),
                site: format!("{:05}", n / EACH),
                silence: (k.state == EndpointState::Silent)
                    .then_some(Silence { since: k.last_seen, last_word: k.last_word }),
                back: k.back,
                gateway: k.path("gateway"),
                controller: k.path("controller"),
                usual_ms: Some(15.0),
                services: k.services(),
                faults: Vec::new(),
            })
            .collect();
        p
    }

    fn follow(&mut self, judgements: &[Judgement], s: u64, now: Time) {
        let present: BTreeMap<String, Severity> = judgements.iter().map(|j| (j.key(), j.severity)).collect();
        for (key, severity) in &present {
            self.courses.entry(key.clone()).or_insert((*severity, Course::default()));
        }
        for (key, (severity, course)) in &mut self.courses {
            let step = course.look(present.contains_key(key), *severity, now);
            if step != Step::Nothing {
                self.told.push((s, key.clone(), step));
            }
        }
        self.courses.retain(|_, (_, course)| !course.is_forgotten());
    }
}

#[test]
fn thirty_days_name_the_outages_and_nothing_else() {
    // Monday 1 August 2016, midnight UTC.
    let world = World { began: Time::from_micros(1_470_009_600_000_000), hours: Hours::default() };
    let never = Known {
        state: EndpointState::Never,
        last_seen: world.began,
        back: world.began,
        last_word: LastWord::None,
        latest: Latest::default(),
    };
    let mut c = Controller {
        since: world.began,
        known: vec![never; SITES * EACH],
        computers: vec![Computer::default(); SITES * EACH],
        courses: BTreeMap::new(),
        told: Vec::new(),
    };
    let mut was_up = true;
    for s in 1..30 * 86_400 {
        let up = world.controller(s);
        if up && !was_up {
            c.since = world.at(s);
        }
        was_up = up;
        // Nothing happens at night that a look would not see in the morning: half of the seconds are spared.
        if !(0..12 * 3600).contains(&(s % 86_400)) {
            continue;
        }
        c.hear(&world, s, up);
        if up && s % LOOK == 0 {
            c.look(&world, s);
        }
    }
    let opened: Vec<(u64, &str)> = c
        .told
        .iter()
        .filter(|(_, _, step)| *step == Step::Open)
        .map(|(s, key, _)| (s / 86_400, key.as_str()))
        .collect();
    assert_eq!(opened, [(2, "site_line|site:00004|"), (16, "site_line|site:00009|")], "{:?}", c.told);
    let noticed = c.told[0].0 - (2 * 86_400 + 20_000);
    assert!(noticed <= 80 + 2 * LOOK, "noticed after {noticed} s");
    let over = c.told.iter().filter(|(_, _, step)| *step == Step::Clear).count();
    assert_eq!(over, 2);
    assert!(Cause::SiteLine.is_silence());
}
