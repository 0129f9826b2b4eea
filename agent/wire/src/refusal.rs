//! Why the controller would not talk, in a form an agent can act on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A typed refusal. It decides what the agent does next, so a new reason is a new variant.
///
/// No refusal makes an agent throw its identity away: an operator decides that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// The certificate isn't from this controller, or names an endpoint it doesn't have.
    Unknown,
    /// An operator withdrew this endpoint.
    Revoked,
    /// The certificate's life is over.
    Expired,
    /// The certificate isn't valid yet by the controller's clock.
    Clock {
        /// The controller's time.
        server_ms: i64,
    },
    /// No common protocol version; these are the controller's.
    Version {
        /// Oldest version the controller speaks.
        min: u16,
        /// Newest version the controller speaks.
        max: u16,
    },
    /// Too many at once: come back after this long, plus jitter.
    Busy {
        /// Seconds to stay away.
        retry_after_s: u32,
    },
    /// The same certificate opened a newer link.
    Superseded,
    /// Several computers show this identity; an operator decides which one it belongs to.
    Clone,
    /// The enrolment token is wrong, used up or too old. One answer for all three.
    Token,
    /// Not yet: a person has to approve this computer. Ask again with the same request.
    Pending {
        /// Six digits that stand on this computer's screen and in the console's queue.
        digits: String,
        /// Until when it waits, by the controller's clock.
        until_ms: i64,
        /// Seconds to the next question.
        ask_again_s: u32,
    },
    /// A person refused this computer.
    NotApproved {
        /// Why, as they wrote it.
        reason: String,
    },
    /// Nobody approved this computer in time, or it came too late for its certificate.
    Unanswered,
    /// The message couldn't be understood.
    Malformed {
        /// What was wrong, in English, without echoing the input.
        detail: String,
    },
    /// A reason made after this build.
    #[serde(other)]
    Other,
}

/// What an agent does after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Try again with the usual backoff.
    Backoff,
    /// Try again after this many seconds.
    After(u32),
    /// Only a person can mend this: ask rarely, and say so.
    Rarely,
}

impl Refusal {
    /// The code on the wire; also the metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Clock { .. } => "clock",
            Self::Version { .. } => "version",
            Self::Busy { .. } => "busy",
            Self::Superseded => "superseded",
            Self::Clone => "clone",
            Self::Token => "token",
            Self::Pending { .. } => "pending",
            Self::NotApproved { .. } => "not_approved",
            Self::Unanswered => "unanswered",
            Self::Malformed { .. } => "malformed",
            Self::Other => "other",
        }
    }

    /// How to go on.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Busy { retry_after_s } => Retry::After(*retry_after_s),
            Self::Clock { .. } | Self::Malformed { .. } | Self::Other => Retry::Backoff,
            // Two agents with one identity would push each other off the link for ever.
            Self::Superseded => Retry::After(60),
            Self::Pending { ask_again_s, .. } => Retry::After(*ask_again_s),
            Self::Unknown
            | Self::Revoked
            | Self::Expired
            | Self::Version { .. }
            | Self::Clone
            | Self::Token
            | Self::NotApproved { .. }
            | Self::Unanswered => Retry::Rarely,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the controller doesn't know this certificate; enrol again with a new token"),
            Self::Revoked => f.write_str("this endpoint was revoked by an operator"),
            Self::Expired => f.write_str("the certificate has expired; enrol again with a new token"),
            Self::Clock { .. } => f.write_str("the certificate isn't valid yet by the controller's clock"),
            Self::Version { min, max } => {
                write!(f, "no common protocol version; the controller speaks {min} to {max}: update the agent")
            }
            Self::Busy { retry_after_s } => write!(f, "the controller is busy; try again in {retry_after_s} s"),
            Self::Superseded => f.write_str("a newer link took over: is this disk a copy of another endpoint's?"),
            Self::Clone => {
                f.write_str("several computers show this identity; an operator has to say which one it belongs to")
            }
            Self::Token => f.write_str("the token is wrong, already used or too old; ask for a new one"),
            Self::Pending { digits, .. } => {
                write!(f, "this computer waits for approval; its code is {digits}")
            }
            Self::NotApproved { reason } => write!(f, "this computer was refused: {reason}"),
            Self::Unanswered => f.write_str("this computer wasn't approved in time; ask for a new token"),
            Self::Malformed { detail } => write!(f, "the controller couldn't read the message: {detail}"),
            Self::Other => f.write_str("the controller refused for a reason this agent is too old to know"),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_from_the_future_is_still_a_refusal() {
        let r: Refusal = serde_json::from_str(r#"{"code":"quota","limit":3}"#).unwrap();
        assert_eq!(r, Refusal::Other);
    }

    #[test]
    fn the_code_is_what_travels() {
        for r in [
            Refusal::Unknown,
            Refusal::Clock { server_ms: 1 },
            Refusal::Busy { retry_after_s: 9 },
            Refusal::Pending { digits: "048213".into(), until_ms: 1, ask_again_s: 3 },
            Refusal::NotApproved { reason: "not ours".into() },
            Refusal::Unanswered,
            Refusal::Malformed { detail: "x".into() },
        ] {
            let json = serde_json::to_value(&r).unwrap();
            assert_eq!(json["code"], r.code());
        }
    }
}
