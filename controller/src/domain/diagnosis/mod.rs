//! Remote diagnosis: who may ask for what, how long each state lasts, and what the steps of a bundle come to.
//!
//! ```text
//! asked (a second person must agree) ─► queued ─► sent ─► asking (the officer) ─► running
//!      any of them ───────────────────────────────────────────────────────────────► ended
//! ```
//! What can be asked for at all is `tram_wire::diagnosis`.

pub mod verdict;

use std::time::Duration;

use tram_wire::diagnosis::{ANSWER_S, Right, Work};

use super::access::{Caller, Role};

text_enum! {
    /// Where one is.
    DiagnosisState {
        /// A second person has to agree.
        Asked = "asked",
        /// It waits to be sent.
        Queued = "queued",
        /// The endpoint has it.
        Sent = "sent",
        /// The officer has the question before them.
        Asking = "asking",
        /// It runs.
        Running = "running",
        /// Over.
        Ended = "ended",
    }
}

text_enum! {
    /// How one ended.
    DiagnosisEnd {
        /// Everything was done.
        Done = "done",
        /// A step ran out of time.
        TimedOut = "timed_out",
        /// Somebody of support did not want it any more.
        Cancelled = "cancelled",
        /// The endpoint, or its officer, refused it; the code says why.
        Refused = "refused",
        /// The second person said no.
        Denied = "denied",
        /// Nobody agreed in time.
        Expired = "expired",
        /// The endpoint could not be told.
        Unreachable = "unreachable",
        /// The endpoint was lost in the middle, or fell silent about it.
        Lost = "lost",
    }
}

/// How long a second person has.
pub const AGREE_WITHIN: Duration = Duration::from_secs(900);
/// How long an order waits for its endpoint.
pub const SEND_WITHIN: Duration = Duration::from_secs(20);
/// How long a signed order is good.
pub const GOOD_FOR: Duration = Duration::from_secs(30);
/// How long an endpoint may take to say that it begins, beyond what the law of its action gives it.
pub const SLACK: Duration = Duration::from_secs(10);
/// Orders for one endpoint within a minute.
pub const PER_MINUTE: i64 = 12;
/// Longest reason.
pub const REASON_MOST: usize = 200;
/// How long results are kept.
pub const KEEP: Duration = Duration::from_secs(30 * 86_400);
/// Longest line of progress.
pub const PROGRESS_MOST: usize = 256;
/// Steps of one.
pub const STEPS_MOST: u16 = 16;

/// Whether the caller's role may ask for it.
#[must_use]
pub fn may(caller: &Caller, work: &Work) -> bool {
    match work.right() {
        Right::Support => caller.is(Role::Support) || caller.is(Role::Operator),
        Right::Operator => caller.is(Role::Operator),
    }
}

/// Whether the caller may agree to what somebody else asked for: a person, and another one.
#[must_use]
pub fn may_agree(caller: &Caller, work: &Work, asked_by: &str) -> bool {
    matches!(caller, Caller::User { username, .. } if username != asked_by) && may(caller, work)
}

impl DiagnosisState {
    /// How long one may stay in this state.
    #[must_use]
    pub fn lasts(self, work: &Work) -> Duration {
        match self {
            Self::Asked => AGREE_WITHIN,
            Self::Queued => SEND_WITHIN,
            Self::Sent => SLACK,
            Self::Asking => Duration::from_secs(ANSWER_S.into()) + SLACK,
            Self::Running => Duration::from_secs(work.deadline_s().into()) + SLACK,
            Self::Ended => Duration::ZERO,
        }
    }

    /// What it means that this state ran out; `None` for what is over.
    #[must_use]
    pub fn ran_out(self) -> Option<DiagnosisEnd> {
        match self {
            Self::Asked => Some(DiagnosisEnd::Expired),
            Self::Queued => Some(DiagnosisEnd::Unreachable),
            Self::Sent | Self::Asking | Self::Running => Some(DiagnosisEnd::Lost),
            Self::Ended => None,
        }
    }

    /// The endpoint has it.
    #[must_use]
    pub fn is_there(self) -> bool {
        matches!(self, Self::Sent | Self::Asking | Self::Running)
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Scope;
    use super::*;
    use serde_json::Map;
    use tram_wire::ids::UserId;
    use uuid::Uuid;

    fn person(name: &str, role: Role) -> Caller {
        Caller::User { id: UserId(Uuid::nil()), username: name.into(), role, scope: Scope::All }
    }

    fn work(name: &str) -> Work {
        Work::parse(name, Map::new(), Vec::new()).unwrap()
    }

    #[test]
    fn officers_ask_for_nothing_and_restarts_are_for_operators() {
        for name in ["line", "health", "capture", "flush_dns"] {
            assert!(!may(&person("lan", Role::Officer), &work(name)), "{name}");
            assert!(may(&person("hoa", Role::Support), &work(name)), "{name}");
        }
        assert!(!may(&person("hoa", Role::Support), &work("reboot")));
        assert!(may(&person("an", Role::Operator), &work("reboot")));
    }

    #[test]
    fn two_persons_are_two_persons() {
        let capture = work("capture");
        assert!(capture.two_persons());
        assert!(!may_agree(&person("hoa", Role::Support), &capture, "hoa"));
        assert!(may_agree(&person("an", Role::Operator), &capture, "hoa"));
        assert!(!may_agree(&person("lan", Role::Officer), &capture, "hoa"));
        // A shell is nobody in particular.
        assert!(!may_agree(&Caller::LocalAdmin, &capture, "hoa"));
    }

    #[test]
    fn every_state_has_an_end() {
        for s in DiagnosisState::ALL {
            assert_eq!(s.ran_out().is_none(), *s == DiagnosisState::Ended);
            assert!(s.lasts(&work("line")) <= AGREE_WITHIN);
        }
        // What an order may last is more than what its agent may take.
        assert!(GOOD_FOR > SLACK);
    }
}
