//! Endpoints: presence, and what their findings amount to.

use std::time::Duration;

use tram_wire::check::{CheckState, Finding};

use super::time::Time;

/// How often endpoints speak, and how often what they say is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between an agent's beats.
    pub beat: Duration,
    /// Between its full reports.
    pub keyframe: Duration,
    /// Between its reports of what changed, and its bursts of packets.
    pub report: Duration,
    /// Between two looks at the whole fleet.
    pub look: Duration,
    /// How long a computer that must be approved waits, and then may come for its certificate.
    pub approval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(30),
            keyframe: Duration::from_secs(1200),
            report: Duration::from_secs(60),
            look: Duration::from_secs(15),
            approval: super::approval::PATIENCE,
        }
    }
}

impl Pace {
    /// Silence is noticed within this time after the last beat: two beats and some grace.
    #[must_use]
    pub fn silent_within(&self) -> Duration {
        self.beat * 2 + GRACE
    }

    /// The same for who pays for the line by the byte: beats every five minutes and a full report every hour, at the usual
    /// pace.
    #[must_use]
    pub fn metered(self) -> Self {
        Self { beat: self.beat * 10, keyframe: self.keyframe * 3, report: self.report * 5, ..self }
    }

    /// How long an endpoint may say nothing. One look may come a period late; the promise holds all the same.
    fn patience(&self) -> Duration {
        self.silent_within().saturating_sub(PRESENCE_PERIOD + Duration::from_secs(2))
    }

    /// Endpoints last heard before this time are silent. `None` while the controller itself hasn't run for
    /// long enough to have heard anybody: its own absence isn't theirs.
    #[must_use]
    pub fn silent_before(&self, now: Time, controller_since: Time) -> Option<Time> {
        (now.since(controller_since) >= self.patience()).then(|| now.minus(self.patience()))
    }

    /// A word from before this time doesn't bring an endpoint back that is silent: it was written down late.
    #[must_use]
    pub fn back_since(&self, now: Time) -> Time {
        now.minus(self.patience())
    }
}

/// What lines and queues may add to two beats.
const GRACE: Duration = Duration::from_secs(20);

/// Silence is noticed within this time at the usual pace.
pub const SILENT_WITHIN: Duration = Duration::from_secs(80);

/// How often presence is looked at.
pub const PRESENCE_PERIOD: Duration = Duration::from_secs(3);

/// What is written down of an endpoint that said goodbye because it was being shut down.
pub const SHUT_DOWN: &str = "the computer was shut down";

/// A device certificate's life. Agents renew at two thirds of it.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How long after its end a certificate may be renewed by who still has its key: offices close for weeks.
pub const RENEWAL_GRACE: Duration = Duration::from_secs(90 * 86_400);

/// Longest life of an enrolment token.
pub const MAX_TOKEN_HOURS: i64 = 24 * 90;

/// Most endpoints one token may enrol.
pub const MAX_TOKEN_USES: i64 = 500;

text_enum! {
    /// What we know of an endpoint's presence.
    EndpointState {
        /// Enrolled, not yet heard.
        Never = "never",
        /// Heard within the last beats.
        Online = "online",
        /// Not heard any more.
        Silent = "silent",
        /// Withdrawn by an operator; for good.
        Revoked = "revoked",
    }
}

text_enum! {
    /// What carries an endpoint's link.
    LinkWay {
        /// A WebSocket.
        Socket = "websocket",
        /// Requests, because something on the way takes the upgrade away.
        Poll = "poll",
        /// Requests signed at both ends, because somebody opens TLS on the way and can read them.
        Signed = "signed",
    }
}

text_enum! {
    /// How an endpoint is.
    Verdict {
        /// As it should be.
        Ok = "ok",
        /// Somebody should look.
        Warn = "warn",
        /// Doesn't work, or soon won't.
        Crit = "crit",
        /// Can't be told.
        Unknown = "unknown",
    }
}

impl From<CheckState> for Verdict {
    fn from(s: CheckState) -> Self {
        match s {
            CheckState::Ok => Self::Ok,
            CheckState::Warn => Self::Warn,
            CheckState::Crit => Self::Crit,
            CheckState::Unknown => Self::Unknown,
        }
    }
}

/// What findings amount to: the worst of them. What a check couldn't tell doesn't count against the
/// endpoint as long as another check could.
#[must_use]
pub fn verdict(findings: &[Finding]) -> Verdict {
    findings
        .iter()
        .map(|f| f.state)
        .filter(|s| *s != CheckState::Unknown)
        .max_by_key(|s| s.severity())
        .map_or(Verdict::Unknown, Into::into)
}

/// The findings a person should read, worst first.
#[must_use]
pub fn reasons(findings: &[Finding]) -> Vec<&Finding> {
    let mut bad: Vec<&Finding> =
        findings.iter().filter(|f| matches!(f.state, CheckState::Warn | CheckState::Crit)).collect();
    bad.sort_by_key(|f| std::cmp::Reverse(f.state.severity()));
    bad
}

/// Over how many seconds endpoints should spread their return if this controller restarts, so that no
/// second brings more than this many handshakes.
#[must_use]
pub fn reconnect_window(linked: usize) -> u32 {
    const PER_SECOND: usize = 250;
    u32::try_from(linked / PER_SECOND).unwrap_or(u32::MAX).clamp(2, 300)
}

/// A name for lists, from what the computer calls itself. That text comes from outside.
#[must_use]
pub fn display_name(hostname: &str) -> String {
    let name: String = hostname.chars().filter(|c| !c.is_control()).take(63).collect();
    let name = name.trim();
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(check: &str, state: CheckState) -> Finding {
        Finding { check: check.into(), state, code: check.into(), params: Default::default() }
    }

    #[test]
    fn what_can_not_be_told_does_not_hide_or_make_a_fault() {
        use CheckState::*;
        assert_eq!(verdict(&[]), Verdict::Unknown);
        assert_eq!(verdict(&[f("a", Unknown)]), Verdict::Unknown);
        assert_eq!(verdict(&[f("a", Unknown), f("b", Ok)]), Verdict::Ok);
        assert_eq!(verdict(&[f("a", Unknown), f("b", Warn), f("c", Crit)]), Verdict::Crit);
    }

    #[test]
    fn reasons_come_worst_first() {
        use CheckState::*;
        let all = [f("a", Warn), f("b", Ok), f("c", Crit), f("d", Unknown)];
        assert_eq!(reasons(&all).iter().map(|f| f.check.as_str()).collect::<Vec<_>>(), ["c", "a"]);
    }

    #[test]
    fn silence_is_seen_in_time_but_not_by_a_controller_that_was_away() {
        let start = Time::from_micros(0);
        let at = |s| start.plus(Duration::from_secs(s));
        let pace = Pace::default();
        assert_eq!(pace.silent_before(at(60), start), None);
        let now = at(1000);
        let before = pace.silent_before(now, start).unwrap();
        assert_eq!(pace.back_since(now), before, "what makes one silent can't bring it back");
        // Two beats may be lost, and a look may be late.
        assert!(now.since(before) > pace.beat * 2 + Duration::from_secs(10));
        assert!(now.since(before) + PRESENCE_PERIOD < SILENT_WITHIN);
        assert_eq!(pace.silent_within(), SILENT_WITHIN);
    }

    #[test]
    fn a_name_from_outside_is_made_harmless() {
        assert_eq!(display_name("một-cửa-03"), "một-cửa-03");
        assert_eq!(display_name("a\0b\nc"), "abc");
        assert_eq!(display_name(" \t\r\n"), "unnamed");
        assert_eq!(display_name(&"x".repeat(10_000)).len(), 63);
    }

    #[test]
    fn more_endpoints_take_longer_to_return() {
        assert_eq!([0, 150, 10_000, 100_000].map(reconnect_window), [2, 2, 40, 300]);
    }
}
