//! The life of a virtual desktop.
//!
//! ```text
//! planned -> creating -> defined -> starting -> booting -> running
//!                           ^                                 |
//!                           +-- stopped <- stopping <---------+
//! any state: desired = absent -> deleting -> (row gone);  new disk generation -> rebuilding
//! ```
//!
//! [`next_step`] is the whole policy: given what is wanted and what was seen, the one thing to do next.
//! It has no memory of its own, so a crash anywhere is answered by asking it again.

use std::time::Duration;

use tram_hypervisor::{Observed, Power};

use super::time::Time;

text_enum! {
    /// Where a desktop is on its way, as shown to people.
    DesktopState {
        /// A row, nothing on any host yet.
        Planned = "planned",
        /// Its disk is being made.
        Creating = "creating",
        /// Disk and domain exist; it never ran.
        Defined = "defined",
        /// The hypervisor is starting it.
        Starting = "starting",
        /// It runs; its guest agent does not answer yet.
        Booting = "booting",
        /// It runs and its guest agent answers.
        Running = "running",
        /// It was asked to shut down.
        Stopping = "stopping",
        /// Off, as wanted.
        Stopped = "stopped",
        /// It gets a fresh disk.
        Rebuilding = "rebuilding",
        /// Repeated failure; it is still retried, slowly.
        Failed = "failed",
        /// On its way out.
        Deleting = "deleting",
    }
}

text_enum! {
    /// What somebody wants of a desktop.
    DesiredDesktop {
        /// Up and usable.
        Running = "running",
        /// Defined, off.
        Stopped = "stopped",
        /// Gone: domain, disk and row.
        Absent = "absent",
    }
}

/// What is wanted of one desktop, from its row.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The end state.
    pub desired: DesiredDesktop,
    /// Disk generation; a disk of an older one is replaced.
    pub generation: i64,
    /// Cut the power instead of asking.
    pub force_stop: bool,
    /// A hard reset was asked for and not yet done.
    pub reset: bool,
    /// When the running shutdown request was sent, if one was.
    pub stop_asked_at: Option<Time>,
    /// When it was last started, if we know.
    pub started_at: Option<Time>,
}

/// The next thing to do about a desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make (or replace) its disk.
    MakeDisk,
    /// Define the domain.
    Define,
    /// Power on.
    Start,
    /// Running, not answering yet: look again after this long.
    AwaitGuest(Duration),
    /// Hard reset.
    Reset,
    /// Ask the guest to shut down.
    AskToStop,
    /// Asked already: look again after this long.
    AwaitStop(Duration),
    /// Cut the power.
    CutPower,
    /// Remove domain and disk, then the row.
    Remove,
    /// Nothing to do.
    Settled(DesktopState),
}

/// How long a guest may take to shut down before its power is cut.
pub const STOP_PATIENCE: Duration = Duration::from_secs(90);

/// How often a booting guest is looked at when no event comes.
pub const BOOT_POLL: Duration = Duration::from_secs(3);

/// What to do next.
#[must_use]
pub fn next_step(want: &Wanted, seen: &Observed, now: Time) -> Step {
    if want.desired == DesiredDesktop::Absent {
        return Step::Remove;
    }
    let up = matches!(seen.power, Some(Power::Running | Power::Paused));
    let fresh = seen.disk && seen.disk_generation == Some(want.generation);
    if !fresh {
        // A rebuild throws the disk away: no reason to let the guest flush it.
        return if up { Step::CutPower } else { Step::MakeDisk };
    }
    match (seen.power, want.desired) {
        (None, _) => Step::Define,
        (Some(Power::Running), DesiredDesktop::Running) if want.reset => Step::Reset,
        (Some(Power::Running), DesiredDesktop::Running) if seen.guest_ready => Step::Settled(DesktopState::Running),
        (Some(Power::Running), DesiredDesktop::Running) => Step::AwaitGuest(boot_poll(want, now)),
        // Paused usually means an I/O error (disk full): a cut and a start is the way out.
        (Some(Power::Paused), _) => Step::CutPower,
        (Some(Power::Off | Power::Crashed), DesiredDesktop::Running) => Step::Start,
        (Some(Power::Off | Power::Crashed), _) => {
            Step::Settled(if want.started_at.is_some() { DesktopState::Stopped } else { DesktopState::Defined })
        }
        (Some(Power::Running), _) if want.force_stop => Step::CutPower,
        (Some(Power::Running), _) => match want.stop_asked_at {
            None => Step::AskToStop,
            Some(at) if now.since(at) >= STOP_PATIENCE => Step::CutPower,
            Some(_) => Step::AwaitStop(Duration::from_secs(2)),
        },
    }
}

/// A guest that takes long is looked at less often.
fn boot_poll(want: &Wanted, now: Time) -> Duration {
    match want.started_at {
        Some(at) if now.since(at) > Duration::from_secs(300) => Duration::from_secs(30),
        _ => BOOT_POLL,
    }
}

/// How far along, from 0 to 1, and the seconds left, for the person who waits. `None` when settled.
///
/// `usual_boot` is the median of recent boots on that host.
#[must_use]
pub fn progress(state: DesktopState, in_step: Duration, usual_boot: Duration) -> Option<(f64, u64)> {
    let boot = usual_boot.as_secs_f64().max(1.0);
    let (base, span, lasts) = match state {
        DesktopState::Planned => (0.0, 0.05, 2.0),
        DesktopState::Creating | DesktopState::Rebuilding => (0.05, 0.1, 3.0),
        DesktopState::Defined | DesktopState::Stopped => (0.15, 0.05, 2.0),
        DesktopState::Starting => (0.2, 0.1, 3.0),
        DesktopState::Booting => (0.3, 0.7, boot),
        _ => return None,
    };
    let done = in_step.as_secs_f64();
    // Never claims the end before it is there: approaches it ever more slowly.
    let part = 1.0 - (-1.6 * done / lasts).exp();
    let left = (lasts - done).max(1.0) + if base < 0.3 { boot } else { 0.0 };
    Some((base + span * part * 0.98, left.ceil() as u64))
}

/// Wait before attempt `attempts + 1` after a failure: 1, 2, 4 … 60 s.
#[must_use]
pub fn backoff(attempts: i64) -> Duration {
    Duration::from_secs(1 << attempts.clamp(0, 6)).min(Duration::from_secs(60))
}

/// Failures in a row after which a desktop is shown as failed (it is still retried).
pub const FAILED_AFTER: i64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_micros(1_000_000_000_000);

    fn want(desired: DesiredDesktop) -> Wanted {
        Wanted { desired, generation: 1, force_stop: false, reset: false, stop_asked_at: None, started_at: None }
    }

    fn seen(disk: Option<i64>, power: Option<Power>, guest_ready: bool) -> Observed {
        Observed { disk: disk.is_some(), disk_generation: disk, power, guest_ready, addresses: vec![] }
    }

    #[test]
    fn from_nothing_to_running_one_step_at_a_time() {
        let w = want(DesiredDesktop::Running);
        assert_eq!(next_step(&w, &seen(None, None, false), NOW), Step::MakeDisk);
        assert_eq!(next_step(&w, &seen(Some(1), None, false), NOW), Step::Define);
        assert_eq!(next_step(&w, &seen(Some(1), Some(Power::Off), false), NOW), Step::Start);
        assert_eq!(next_step(&w, &seen(Some(1), Some(Power::Running), false), NOW), Step::AwaitGuest(BOOT_POLL));
        assert_eq!(
            next_step(&w, &seen(Some(1), Some(Power::Running), true), NOW),
            Step::Settled(DesktopState::Running)
        );
    }

    #[test]
    fn a_crashed_desktop_is_started_again() {
        let w = want(DesiredDesktop::Running);
        assert_eq!(next_step(&w, &seen(Some(1), Some(Power::Crashed), false), NOW), Step::Start);
    }

    #[test]
    fn a_rebuild_cuts_the_power_then_replaces_the_disk() {
        let w = Wanted { generation: 2, ..want(DesiredDesktop::Running) };
        assert_eq!(next_step(&w, &seen(Some(1), Some(Power::Running), true), NOW), Step::CutPower);
        assert_eq!(next_step(&w, &seen(Some(1), Some(Power::Off), false), NOW), Step::MakeDisk);
        assert_eq!(next_step(&w, &seen(Some(2), Some(Power::Off), false), NOW), Step::Start);
    }

    #[test]
    fn stopping_asks_waits_and_then_cuts() {
        let mut w = want(DesiredDesktop::Stopped);
        let running = seen(Some(1), Some(Power::Running), true);
        assert_eq!(next_step(&w, &running, NOW), Step::AskToStop);
        w.stop_asked_at = Some(NOW.minus(Duration::from_secs(10)));
        assert!(matches!(next_step(&w, &running, NOW), Step::AwaitStop(_)));
        w.stop_asked_at = Some(NOW.minus(STOP_PATIENCE));
        assert_eq!(next_step(&w, &running, NOW), Step::CutPower);
        w.stop_asked_at = None;
        w.force_stop = true;
        assert_eq!(next_step(&w, &running, NOW), Step::CutPower);
    }

    #[test]
    fn absent_wins_over_everything() {
        let w = Wanted { reset: true, ..want(DesiredDesktop::Absent) };
        for power in [None, Some(Power::Running), Some(Power::Paused), Some(Power::Crashed)] {
            assert_eq!(next_step(&w, &seen(Some(1), power, true), NOW), Step::Remove);
        }
    }

    #[test]
    fn every_world_leads_to_a_settled_state_in_few_steps() {
        // Applies each step to a model world: no combination may loop.
        for desired in [DesiredDesktop::Running, DesiredDesktop::Stopped] {
            for disk in [None, Some(1), Some(2)] {
                for power in [None, Some(Power::Off), Some(Power::Running), Some(Power::Paused), Some(Power::Crashed)] {
                    for reset in [false, true] {
                        let mut w = Wanted { generation: 2, reset, ..want(desired) };
                        let mut s = seen(disk, power, false);
                        let mut settled = false;
                        for _ in 0..12 {
                            match next_step(&w, &s, NOW) {
                                Step::MakeDisk => (s.disk, s.disk_generation) = (true, Some(2)),
                                Step::Define => s.power = Some(Power::Off),
                                Step::Start => s.power = Some(Power::Running),
                                Step::AwaitGuest(_) => s.guest_ready = true,
                                Step::Reset => w.reset = false,
                                Step::AskToStop => w.stop_asked_at = Some(NOW),
                                Step::AwaitStop(_) | Step::CutPower => s.power = Some(Power::Off),
                                Step::Remove => unreachable!(),
                                Step::Settled(_) => {
                                    settled = true;
                                    break;
                                }
                            }
                        }
                        assert!(settled, "{desired} {disk:?} {power:?} reset={reset} never settles");
                    }
                }
            }
        }
    }

    #[test]
    fn progress_grows_and_never_reaches_the_end_by_itself() {
        let usual = Duration::from_secs(30);
        let mut last = 0.0;
        for s in 0..300 {
            let (p, left) = progress(DesktopState::Booting, Duration::from_secs(s), usual).unwrap();
            assert!(p >= last && p < 1.0 && left >= 1);
            last = p;
        }
        assert_eq!(progress(DesktopState::Running, Duration::ZERO, usual), None);
    }
}
