//! What was known of a computer at a moment, and what its own records tell of that moment later.

use std::time::Duration;

use super::time::Time;

text_enum! {
    /// How a computer was known to be.
    Presence {
        /// It was heard.
        Online = "online",
        /// Nobody heard it.
        Silent = "silent",
        /// It had said goodbye.
        Gone = "gone",
        /// It had been withdrawn.
        Revoked = "revoked",
        /// It had not been heard yet.
        Unknown = "unknown",
    }
}

text_enum! {
    /// How it was, as far as is known now.
    Truth {
        /// It ran, and was heard.
        Heard = "heard",
        /// It ran, and its line did not carry: its own records of that time came later.
        RanUnheard = "ran_unheard",
        /// It did not run: it was started anew afterwards.
        Off = "off",
        /// Nothing tells.
        Unknown = "unknown",
    }
}

/// Two records of a computer that runs are no further apart; keyframes come every few minutes.
const GAP: Duration = Duration::from_secs(15 * 60);
/// A record that arrives later than this was queued.
const QUEUED: Duration = Duration::from_secs(60);
/// Silence becomes an incident within this time.
pub const NOTICED: Duration = Duration::from_secs(5 * 60);

impl Presence {
    /// What an event makes of a computer.
    #[must_use]
    pub fn of(kind: &str) -> Self {
        match kind {
            "online" => Self::Online,
            "silent" => Self::Silent,
            "goodbye" => Self::Gone,
            "revoked" => Self::Revoked,
            _ => Self::Unknown,
        }
    }
}

/// A record that a computer made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Under which boot.
    pub boot: String,
    /// When.
    pub at: Time,
    /// When it came.
    pub arrived: Time,
}

/// What is known now of a moment, and when that became known if it was later.
#[must_use]
pub fn truth(then: Presence, before: Option<Record>, after: Option<Record>, at: Time) -> (Truth, Option<Time>) {
    let heard = if then == Presence::Online { Truth::Heard } else { Truth::Unknown };
    let (Some(before), Some(after)) = (before, after) else { return (heard, None) };
    if before.boot != after.boot {
        // It was started anew between the two: whether it still ran at this moment, the nearer end of it tells.
        let ran_on = at.since(before.at) < QUEUED;
        return if then == Presence::Online || ran_on { (heard, None) } else { (Truth::Off, Some(after.arrived)) };
    }
    if after.at.since(before.at) > GAP {
        return (heard, None);
    }
    // One boot, and records on both sides: it ran.
    let late = [&before, &after].into_iter().filter(|r| r.arrived.since(r.at) > QUEUED).map(|r| r.arrived).max();
    match late {
        Some(learnt) if then != Presence::Online || learnt > at => (Truth::RanUnheard, Some(learnt)),
        _ if then == Presence::Online => (Truth::Heard, None),
        _ => (Truth::RanUnheard, Some(after.arrived)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn record(boot: &str, at: i64, arrived: i64) -> Option<Record> {
        Some(Record { boot: boot.into(), at: s(at), arrived: s(arrived) })
    }

    #[test]
    fn the_backlog_tells_a_cut_line_from_a_dark_office() {
        let at = s(1000);
        // Silent then; its records of the time came an hour later, of one boot: it was the line.
        let told = truth(Presence::Silent, record("a", 960, 4600), record("a", 1020, 4600), at);
        assert_eq!(told, (Truth::RanUnheard, Some(s(4600))));
        // Silent then, started anew afterwards: it was the power.
        let told = truth(Presence::Silent, record("a", 700, 701), record("b", 2000, 2001), at);
        assert_eq!(told, (Truth::Off, Some(s(2001))));
        // Heard as it should be.
        assert_eq!(truth(Presence::Online, record("a", 960, 961), record("a", 1020, 1021), at), (Truth::Heard, None));
        // It had fallen silent, and nobody had noticed yet.
        let told = truth(Presence::Online, record("a", 990, 4600), record("a", 1050, 4600), at);
        assert_eq!(told, (Truth::RanUnheard, Some(s(4600))));
    }

    #[test]
    fn what_nothing_tells_is_not_made_up() {
        let at = s(1000);
        assert_eq!(truth(Presence::Silent, None, None, at), (Truth::Unknown, None));
        assert_eq!(truth(Presence::Silent, record("a", 960, 961), None, at), (Truth::Unknown, None));
        assert_eq!(truth(Presence::Online, None, None, at), (Truth::Heard, None));
        // Of one boot, and hours apart: it may have slept.
        assert_eq!(truth(Presence::Silent, record("a", 100, 101), record("a", 9000, 9001), at), (Truth::Unknown, None));
    }
}
