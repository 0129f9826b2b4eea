//! Thirty days of a fleet, look by look, as they happen: clocks that step, a data centre that restarts, links
//! that flap, evenings and weekends; and a few real outages, which must all be named and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use tram_wire::ids::EndpointId;
use uuid::Uuid;

use super::super::endpoint::{EndpointState, Pace};
use super::super::time::Time;
use super::damping::{Course, Step};
use super::hours::Hours;
use super::picture::{Endpoint, LastWord, Path, Picture, Silence, Site};
use super::{Cause, Judgement, Severity, Thresholds, judge};

const SITES: usize = 30;
const EACH: usize = 2;
const LOOK: u64 = 15;

/// What the controller knows of a computer, from its beats alone.
#[derive(Clone)]
struct Known {
    state: EndpointState,
    last_seen: Time,
    last_word: LastWord,
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

    /// The controller restarts on the 10th, for 5 min in the morning; nobody answers then.
    fn controller(&self, s: u64) -> bool {
        let (day, second) = (s / 86_400, s % 86_400);
        !(day == 9 && (10_000..10_300).contains(&second))
    }
}

struct Controller {
    since: Time,
    known: Vec<Known>,
    courses: BTreeMap<String, (Severity, Course)>,
    /// What was told, with the look it was told at.
    told: Vec<(u64, String, Step)>,
}

impl Controller {
    /// Beats of half a minute, each computer at a second of its own. The wall clock of three of them steps by
    /// an hour each way; nothing here asks it.
    fn hear(&mut self, world: &World, s: u64) {
        let second = usize::try_from(s % 30).unwrap_or(0);
        for (n, k) in self.known.iter_mut().enumerate().skip(second).step_by(30) {
            if !world.line(n / EACH, s) {
                continue;
            }
            if world.runs(n, s) {
                *k = Known { state: EndpointState::Online, last_seen: world.at(s), last_word: LastWord::None };
            } else if k.state == EndpointState::Online {
                *k = Known { state: EndpointState::Silent, last_word: LastWord::Shutdown, ..k.clone() };
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
        let good = Some(Path { loss_percent: Some(0.0), p95_ms: Some(15.0) });
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
                gateway: good,
                controller: good,
                usual_ms: Some(15.0),
                services: Vec::new(),
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
    let never = Known { state: EndpointState::Never, last_seen: world.began, last_word: LastWord::None };
    let mut c =
        Controller { since: world.began, known: vec![never; SITES * EACH], courses: BTreeMap::new(), told: Vec::new() };
    let mut was_up = true;
    for s in 1..30 * 86_400 {
        let up = world.controller(s);
        if up && !was_up {
            c.since = world.at(s);
        }
        was_up = up;
        // Nothing happens at night that a look would not see in the morning: half of the seconds are spared.
        if !up || !(0..12 * 3600).contains(&(s % 86_400)) {
            continue;
        }
        c.hear(&world, s);
        if s % LOOK == 0 {
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
