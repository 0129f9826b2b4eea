//! Office hours and holidays: when silence is a fault, and when it is the evening.

use std::collections::BTreeSet;

use super::super::day::Day;
use super::super::time::Time;

/// Vietnam keeps UTC+7 all year.
const OFFSET_S: i64 = 7 * 3600;
const DAY_S: i64 = 86_400;

/// When people work, in minutes after midnight in the offices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// From.
    pub opens: u16,
    /// Until before.
    pub closes: u16,
    /// Weekdays on which they do, Monday first.
    pub days: [bool; 7],
    /// Days on which they don't.
    pub holidays: BTreeSet<Day>,
    /// Days on which they do although they usually don't (made-up working days).
    pub working: BTreeSet<Day>,
}

impl Default for Hours {
    /// 07:30 to 17:00, Monday to Friday.
    fn default() -> Self {
        Self {
            opens: 7 * 60 + 30,
            closes: 17 * 60,
            days: [true, true, true, true, true, false, false],
            holidays: BTreeSet::new(),
            working: BTreeSet::new(),
        }
    }
}

impl Hours {
    /// When people come in next, if they are not in now.
    #[must_use]
    pub fn opens_after(&self, now: Time) -> Time {
        let step = std::time::Duration::from_secs(60);
        // Whole minutes by the clock of the offices; two weeks of holidays are the most.
        let mut at = Time::from_micros(now.micros() - now.micros().rem_euclid(60_000_000));
        for _ in 0..14 * 24 * 60 {
            if self.open(at) {
                return at.max(now);
            }
            at = at.plus(step);
        }
        at
    }

    /// Whether people work at this time.
    #[must_use]
    pub fn open(&self, now: Time) -> bool {
        let local = now.micros().div_euclid(1_000_000) + OFFSET_S;
        let minute = local.rem_euclid(DAY_S) / 60;
        if minute < i64::from(self.opens) || minute >= i64::from(self.closes) {
            return false;
        }
        let day = Day::of(now);
        // 1970-01-01 was a Thursday.
        let weekday = usize::try_from((local.div_euclid(DAY_S) + 3).rem_euclid(7)).unwrap_or(0);
        self.working.contains(&day) || (self.days[weekday] && !self.holidays.contains(&day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn offices_open_by_their_own_clock() {
        let h = Hours::default();
        // Wednesday 25 November 2026, 07:30 in Hanoi is 00:30 UTC.
        assert!(!h.open(at("2026-11-25T00:29:59Z")));
        assert!(h.open(at("2026-11-25T00:30:00Z")));
        assert!(h.open(at("2026-11-25T09:59:59Z")));
        assert!(!h.open(at("2026-11-25T10:00:00Z")));
        assert!(!h.open(at("2026-11-28T03:00:00Z")), "Saturday");
        assert!(h.open(at("2026-11-30T03:00:00Z")), "Monday");
    }

    #[test]
    fn what_waits_for_the_morning_comes_when_the_office_opens() {
        let h = Hours::default();
        // Friday evening: Monday, half past seven.
        assert_eq!(h.opens_after(at("2026-11-27T12:00:00Z")), at("2026-11-30T00:30:00Z"));
        assert_eq!(h.opens_after(at("2026-11-25T03:00:10Z")), at("2026-11-25T03:00:10Z"), "now");
    }

    #[test]
    fn holidays_are_quiet_and_made_up_days_are_not() {
        let mut h = Hours::default();
        h.holidays.insert("2026-09-02".parse().unwrap());
        h.working.insert("2026-09-05".parse().unwrap());
        assert!(!h.open(at("2026-09-02T03:00:00Z")));
        assert!(h.open(at("2026-09-05T03:00:00Z")), "a Saturday that is worked");
    }
}
