//! Whether a release that is being tried stays. Pure: what is seen comes in, with the time since boot.
//!
//! ```text
//! switched ── its process runs ── alive long enough, and a report of it was acknowledged ──► it stays
//!    │             │
//!    │             ├── the process is gone, or another one runs ──► back: crashed
//!    │             └── no report for long, although the controller answers us ──► back: no_report
//!    └── no process in time ──► back: not_started
//! ```
//! A lost line alone takes nothing back: without an answer of the controller nothing can be held against a release.
//! An agent that was stopped, or a computer that was restarted, is waited for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::Release;

/// Between two looks no more than this counts, however long ago the last one was: the computer may have slept.
const LOOK: u64 = 60_000;
/// So many restarts of the computer during one try, and the release is suspected of them.
const RESTARTS: u8 = 3;

/// A process, told from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it began, milliseconds since boot.
    pub began_ms: u64,
}

/// A release that is being tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// It.
    pub release: Release,
    /// What ran before; absent: the package's own.
    pub before: Option<Release>,
    /// How long it must run.
    pub alive_s: u32,
    /// The process that ran before the switch.
    pub old: Option<Process>,
    /// The boot of the computer this is in.
    pub boot: String,
    /// Since when a process is waited for, milliseconds since boot.
    pub since_ms: u64,
    /// The process that is watched.
    pub process: Option<Process>,
    /// It was stopped by somebody, and is waited for.
    pub stopped: bool,
    /// So long it ran without a report while the controller answered us.
    pub mute_ms: u64,
    /// When that was reckoned last, milliseconds since boot.
    pub seen_ms: u64,
    /// Restarts of the computer so far.
    pub restarts: u8,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            release: Release { version: String::new(), counter: 0, sha256: String::new() },
            before: None,
            alive_s: 600,
            old: None,
            boot: String::new(),
            since_ms: 0,
            process: None,
            stopped: false,
            mute_ms: 0,
            seen_ms: 0,
            restarts: 0,
        }
    }
}

/// What is seen at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The agent's process, if there is one.
    pub process: Option<Process>,
    /// A report of that process was acknowledged.
    pub reported: bool,
    /// The process that wrote last said that it was told to stop.
    pub stopped: Option<i32>,
    /// The controller answered us when it was asked last.
    pub answered: bool,
    /// Which boot of the computer this is.
    pub boot: String,
    /// Milliseconds since boot.
    pub up_ms: u64,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// That can't be told yet.
    Wait,
    /// It stays.
    Commit,
    /// It is taken back, for this reason.
    Back(&'static str),
}

/// How patient the watch is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until a process runs.
    pub start: Duration,
    /// Until a report is acknowledged, while the controller answers us.
    pub report: Duration,
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Trial {
    /// Looks once.
    pub fn look(&mut self, seen: &Seen, patience: Patience) -> Verdict {
        if self.boot != seen.boot {
            self.restarted(seen);
            if self.restarts > RESTARTS {
                return Verdict::Back("restarts");
            }
        }
        let passed = seen.up_ms.saturating_sub(self.seen_ms).min(LOOK);
        self.seen_ms = seen.up_ms;
        match seen.process {
            Some(p) if Some(p) == self.old => self.not_yet(seen, patience, "not_stopped"),
            Some(p) => self.runs(p, seen, passed, patience),
            None => match self.process {
                Some(was) if seen.stopped == Some(was.pid) => {
                    (self.process, self.stopped) = (None, true);
                    Verdict::Wait
                }
                Some(_) => Verdict::Back("crashed"),
                None if self.stopped => Verdict::Wait,
                None => self.not_yet(seen, patience, "not_started"),
            },
        }
    }

    fn restarted(&mut self, seen: &Seen) {
        if !self.boot.is_empty() {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.boot.clone_from(&seen.boot);
        (self.since_ms, self.seen_ms) = (seen.up_ms, seen.up_ms);
        (self.process, self.old, self.stopped) = (None, None, false);
    }

    fn not_yet(&self, seen: &Seen, patience: Patience, code: &'static str) -> Verdict {
        let waited = seen.up_ms.saturating_sub(self.since_ms);
        if waited >= ms(patience.start) { Verdict::Back(code) } else { Verdict::Wait }
    }

    fn runs(&mut self, p: Process, seen: &Seen, passed: u64, patience: Patience) -> Verdict {
        match self.process {
            // The one that was watched is gone, and nobody told it to go.
            Some(was) if was != p && seen.stopped != Some(was.pid) => return Verdict::Back("crashed"),
            _ => (self.process, self.stopped) = (Some(p), false),
        }
        if seen.reported {
            let alive = seen.up_ms.saturating_sub(p.began_ms);
            return if alive >= u64::from(self.alive_s) * 1000 { Verdict::Commit } else { Verdict::Wait };
        }
        if seen.answered {
            self.mute_ms = self.mute_ms.saturating_add(passed);
        }
        if self.mute_ms >= ms(patience.report) { Verdict::Back("no_report") } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { start: Duration::from_secs(45), report: Duration::from_secs(1800) };
    const OLD: Process = Process { pid: 10, began_ms: 1000 };
    const NEW: Process = Process { pid: 20, began_ms: 101_000 };

    fn trial() -> Trial {
        let boot = "b".to_owned();
        Trial { old: Some(OLD), boot, since_ms: 100_000, seen_ms: 100_000, ..Trial::default() }
    }

    fn at(s: u64, process: Option<Process>) -> Seen {
        Seen { process, boot: "b".into(), up_ms: s * 1000, answered: true, ..Seen::default() }
    }

    fn look(t: &mut Trial, seen: Seen) -> Verdict {
        t.look(&seen, PATIENCE)
    }

    #[test]
    fn it_stays_after_its_time_with_a_report_and_not_before() {
        let mut t = trial();
        assert_eq!(look(&mut t, at(100, Some(OLD))), Verdict::Wait);
        assert_eq!(look(&mut t, at(101, None)), Verdict::Wait, "between the two");
        assert_eq!(look(&mut t, at(102, Some(NEW))), Verdict::Wait);
        let reported = |s| Seen { reported: true, ..at(s, Some(NEW)) };
        assert_eq!(look(&mut t, reported(103)), Verdict::Wait);
        assert_eq!(look(&mut t, reported(700)), Verdict::Wait);
        assert_eq!(look(&mut t, reported(701)), Verdict::Commit);
    }

    #[test]
    fn what_falls_over_goes_back_at_once() {
        let mut t = trial();
        look(&mut t, at(102, Some(NEW)));
        assert_eq!(look(&mut t.clone(), at(103, None)), Verdict::Back("crashed"));
        let again = Process { pid: 21, began_ms: 112_000 };
        assert_eq!(look(&mut t.clone(), at(113, Some(again))), Verdict::Back("crashed"), "it was brought up again");
        let same_number = Process { pid: NEW.pid, began_ms: 112_000 };
        assert_eq!(look(&mut t, at(113, Some(same_number))), Verdict::Back("crashed"));
    }

    #[test]
    fn what_never_begins_goes_back() {
        let mut t = trial();
        assert_eq!(look(&mut t, at(144, None)), Verdict::Wait);
        assert_eq!(look(&mut t, at(145, None)), Verdict::Back("not_started"));
        assert_eq!(look(&mut trial(), at(145, Some(OLD))), Verdict::Back("not_stopped"));
    }

    #[test]
    fn a_lost_line_alone_takes_nothing_back() {
        let mut t = trial();
        let dark = |s| Seen { answered: false, ..at(s, Some(NEW)) };
        for hour in 0..200 {
            assert_eq!(look(&mut t, dark(102 + hour * 3600)), Verdict::Wait);
        }
        // The line is back, for others too: from now on its silence is its own.
        let base = 102 + 200 * 3600;
        assert_eq!(look(&mut t, at(base, Some(NEW))), Verdict::Wait);
        let mut t = trial();
        look(&mut t, dark(102));
        assert_eq!(look(&mut t, dark(base)), Verdict::Wait);
        assert_eq!(look(&mut t, Seen { reported: true, ..at(base + 1, Some(NEW)) }), Verdict::Commit);
    }

    #[test]
    fn mute_while_the_controller_answers_others_goes_back() {
        let mut t = trial();
        t.seen_ms = 102_000;
        for minute in 0..30 {
            assert_eq!(look(&mut t, at(102 + minute * 60, Some(NEW))), Verdict::Wait);
        }
        assert_eq!(look(&mut t, at(102 + 1800, Some(NEW))), Verdict::Back("no_report"));
    }

    #[test]
    fn who_stops_it_is_waited_for() {
        let mut t = trial();
        look(&mut t, at(102, Some(NEW)));
        let stopped = |s, p| Seen { stopped: Some(NEW.pid), ..at(s, p) };
        assert_eq!(look(&mut t, stopped(103, None)), Verdict::Wait);
        assert_eq!(look(&mut t, stopped(90_000, None)), Verdict::Wait, "for as long as it takes");
        let next = Process { pid: 30, began_ms: 90_000_500 };
        assert_eq!(look(&mut t, at(90_001, Some(next))), Verdict::Wait);
        assert_eq!(look(&mut t, Seen { reported: true, ..at(90_601, Some(next)) }), Verdict::Commit);
        // Stopped and begun again between two looks.
        let mut t = trial();
        look(&mut t, at(102, Some(NEW)));
        assert_eq!(look(&mut t, stopped(104, Some(Process { pid: 31, began_ms: 103_500 }))), Verdict::Wait);
    }

    #[test]
    fn a_restart_of_the_computer_is_no_crash_but_many_are() {
        let mut t = trial();
        look(&mut t, at(102, Some(NEW)));
        let boot = |n: u8, s, process| Seen { boot: format!("b{n}"), ..at(s, process) };
        for n in 1..=3 {
            assert_eq!(look(&mut t, boot(n, 20, None)), Verdict::Wait);
            assert_eq!(look(&mut t, boot(n, 30, Some(Process { pid: 700, began_ms: 25_000 }))), Verdict::Wait);
        }
        assert_eq!(look(&mut t, boot(4, 20, None)), Verdict::Back("restarts"));
    }
}
