//! When a judgement becomes an incident, when it is over, and when it only flaps.
//!
//! Creation is damped, resolution never: what is good again for [`CLEAR`] looks is over. The raw judgements
//! are what they are; only what people are told of is damped.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::time::Time;
use super::Severity;

/// Bad looks in a row until something critical is told.
const RAISE_CRIT: u32 = 2;
/// Bad ones among the last [`WINDOW`] looks until something less is told.
const RAISE_WARN: u32 = 3;
const WINDOW: u32 = 5;
/// Good looks in a row until it is over.
const CLEAR: u32 = 3;
/// It flaps when it began more often than this within [`FLAP_WITHIN`].
const FLAPS: usize = 4;
const FLAP_WITHIN: Duration = Duration::from_secs(30 * 60);
/// How long what began twice must stay good; doubles with each further beginning.
const HOLD: Duration = Duration::from_secs(60);
const HOLD_MOST: Duration = FLAP_WITHIN;

/// The course of one possible incident; kept with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// The last looks, newest in the lowest bit: 1 is bad.
    looks: u32,
    /// Whether people were told.
    open: bool,
    /// Since when it has been good.
    good_since: Option<Time>,
    /// When it began, of late, oldest first.
    begun: Vec<Time>,
    /// Whether people were told that it flaps.
    flapping: bool,
}

/// What follows from one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to tell.
    Nothing,
    /// It is an incident now.
    Open,
    /// It is over.
    Clear,
    /// It comes and goes: told once, until it has been quiet.
    Flapping,
}

impl Course {
    /// One look: is it there?
    pub fn look(&mut self, bad: bool, severity: Severity, now: Time) -> Step {
        let was_bad = self.looks & 1 == 1;
        self.looks = (self.looks << 1) | u32::from(bad);
        self.begun.retain(|at| now.since(*at) < FLAP_WITHIN);
        if bad {
            self.good_since = None;
            if !was_bad {
                // More would say nothing more.
                self.begun.truncate(15);
                self.begun.push(now);
            }
        } else if was_bad || self.good_since.is_none() {
            self.good_since = Some(now);
        }
        if !self.open {
            if !self.raised(severity) {
                return Step::Nothing;
            }
            self.open = true;
        } else if self.good_for(now) {
            (self.open, self.flapping) = (false, false);
            return Step::Clear;
        } else if self.flapping || self.begun.len() <= FLAPS {
            return Step::Nothing;
        }
        self.flapping = self.begun.len() > FLAPS;
        if self.flapping { Step::Flapping } else { Step::Open }
    }

    /// Whether people were told.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether people were told that it comes and goes.
    #[must_use]
    pub fn is_flapping(&self) -> bool {
        self.flapping
    }

    /// Whether nothing is left to remember of it.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        !self.open && self.begun.is_empty()
    }

    fn raised(&self, severity: Severity) -> bool {
        match severity {
            Severity::Crit => self.looks.trailing_ones() >= RAISE_CRIT,
            Severity::Warn => (self.looks & ((1 << WINDOW) - 1)).count_ones() >= RAISE_WARN,
        }
    }

    fn good_for(&self, now: Time) -> bool {
        let long_enough = self.good_since.is_some_and(|at| now.since(at) >= self.hold());
        self.looks.trailing_zeros() >= CLEAR && long_enough
    }

    /// How long it must stay good to be over.
    fn hold(&self) -> Duration {
        match u32::try_from(self.begun.len()).unwrap_or(u32::MAX) {
            _ if self.flapping => HOLD_MOST,
            0 | 1 => Duration::ZERO,
            n => HOLD.saturating_mul(1 << (n - 2).min(10)).min(HOLD_MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 15 s; what was told, with the number of the look.
    fn told(severity: Severity, bad: impl IntoIterator<Item = bool>) -> Vec<(usize, Step)> {
        let mut course = Course::default();
        let at = |n: usize| Time::from_micros(0).plus(Duration::from_secs(15 * n as u64));
        let steps = bad.into_iter().enumerate().map(|(n, bad)| (n, course.look(bad, severity, at(n))));
        steps.filter(|(_, s)| *s != Step::Nothing).collect()
    }

    fn pattern(text: &str) -> Vec<bool> {
        text.chars().map(|c| c == '#').collect()
    }

    #[test]
    fn one_bad_look_is_nothing_and_good_ones_end_it() {
        use Step::*;
        assert_eq!(told(Severity::Crit, pattern("..#..#..")), []);
        assert_eq!(told(Severity::Crit, pattern("..##....")), [(3, Open), (6, Clear)]);
        assert_eq!(
            told(Severity::Crit, pattern("..##..#....")),
            [(3, Open)],
            "two beginnings must stay good for a minute"
        );
        assert_eq!(told(Severity::Crit, pattern("..##..#......")), [(3, Open), (11, Clear)]);
        assert_eq!(told(Severity::Warn, pattern(".##..")), [], "two of five");
        assert_eq!(told(Severity::Warn, pattern(".#.##...")), [(4, Open)]);
    }

    #[test]
    fn a_day_of_flapping_is_told_once_and_ends_half_an_hour_after_it() {
        use Step::*;
        // 30 s bad, 30 s good, for a day; then good.
        let day = (0..5_760).map(|n| n / 2 % 2 == 0).chain(std::iter::repeat_n(false, 200));
        let told = told(Severity::Crit, day);
        assert_eq!(told.iter().map(|(_, s)| *s).collect::<Vec<_>>(), [Open, Flapping, Clear], "{told:?}");
        assert!(told[1].0 < 20, "told soon that it flaps");
        assert!((5_760 + 118..5_760 + 124).contains(&told[2].0), "{told:?}");
    }

    #[test]
    fn what_is_over_is_forgotten_in_time() {
        let mut course = Course::default();
        let at = |s| Time::from_micros(0).plus(Duration::from_secs(s));
        course.look(true, Severity::Crit, at(0));
        assert!(!course.is_forgotten());
        course.look(false, Severity::Crit, at(1_801));
        assert!(course.is_forgotten());
    }
}
