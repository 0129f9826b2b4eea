//! Frames: bytes to messages and back, with a limit before anything is parsed.

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::diagnosis::{OrderCancel, OrderNews, SignedOrder};
use crate::enrol::{EnrolResponse, Issued, NewIdentity, Renew};
use crate::heartbeat::{Beat, BeatAck, Change, Goodbye, Snapshot};
use crate::hello::{Hello, HelloAck};
use crate::plan::{Live, Plan};
use crate::refusal::Refusal;
use crate::report::{Report, ReportAck};

/// The largest frame either end accepts. A full snapshot of a rich computer is below 8 KiB.
pub const MAX_FRAME: usize = 64 * 1024;

/// Why bytes are not a message.
#[derive(Debug)]
pub enum WireError {
    /// Over [`MAX_FRAME`].
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON, or not an object with a `kind`.
    NotAMessage(serde_json::Error),
    /// A known kind with a wrong body.
    BadBody {
        /// The kind.
        kind: &'static str,
        /// What was wrong.
        source: serde_json::Error,
    },
}

impl WireError {
    /// A short stable code, for metrics and support.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotAMessage(_) => "not_a_message",
            Self::BadBody { .. } => "bad_body",
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(f, "frame of {bytes} bytes is over the limit of {MAX_FRAME}"),
            Self::NotAMessage(e) => write!(f, "not a message: {e}"),
            Self::BadBody { kind, source } => write!(f, "bad {kind} message: {source}"),
        }
    }
}

impl std::error::Error for WireError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooLarge { .. } => None,
            Self::NotAMessage(e) | Self::BadBody { source: e, .. } => Some(e),
        }
    }
}

/// What a well-formed frame held.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming<M> {
    /// A message this build knows.
    Message(M),
    /// A kind made after this build: skip it and count it.
    Unknown {
        /// Its name, cut to a sane length.
        kind: String,
    },
}

#[derive(Deserialize)]
pub(crate) struct Tag<'a> {
    #[serde(borrow)]
    pub(crate) kind: Cow<'a, str>,
}

pub(crate) fn body<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|source| WireError::BadBody { kind, source })
}

/// One direction of the protocol: an enum with one variant a message kind.
///
/// Decoding is by hand (find the kind, then parse that one body) rather than by serde's tagged
/// enums: those copy every field through a generic buffer and can't tell a kind they don't know from
/// a body that is wrong.
macro_rules! direction {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $kind:literal => $variant:ident($ty:ty)),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "kind")]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $kind)] $variant($ty)),*
        }

        impl $name {
            /// Every kind this build knows.
            pub const KINDS: &'static [&'static str] = &[$($kind),*];

            /// The message's kind.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$variant(_) => $kind),* }
            }

            /// The frame of this message.
            pub fn encode(&self) -> Result<String, WireError> {
                let text = serde_json::to_string(self).map_err(WireError::NotAMessage)?;
                if text.len() > MAX_FRAME {
                    return Err(WireError::TooLarge { bytes: text.len() });
                }
                Ok(text)
            }

            /// The message of this frame.
            pub fn decode(bytes: &[u8]) -> Result<Incoming<Self>, WireError> {
                if bytes.len() > MAX_FRAME {
                    return Err(WireError::TooLarge { bytes: bytes.len() });
                }
                let tag: Tag<'_> = serde_json::from_slice(bytes).map_err(WireError::NotAMessage)?;
                match &*tag.kind {
                    $($kind => body($kind, bytes).map(|b| Incoming::Message(Self::$variant(b))),)*
                    other => Ok(Incoming::Unknown { kind: other.chars().take(40).collect() }),
                }
            }
        }
    };
}
pub(crate) use direction;

direction! {
    /// From the agent to the controller.
    AgentMessage {
        /// First message on a link.
        "hello" => Hello(Hello),
        /// "I am here."
        "beat" => Beat(Beat),
        /// Everything.
        "snapshot" => Snapshot(Box<Snapshot>),
        /// What changed.
        "change" => Change(Box<Change>),
        /// Records of health, kept until they are acknowledged.
        "report" => Report(Box<Report>),
        /// A new key wants a certificate.
        "renew" => Renew(Renew),
        /// A clean end.
        "goodbye" => Goodbye(Goodbye),
        /// What becomes of an order.
        "order_news" => OrderNews(OrderNews),
    }
}

direction! {
    /// From the controller to the agent.
    ControllerMessage {
        /// The link is open.
        "hello_ack" => HelloAck(HelloAck),
        /// A beat was heard.
        "beat_ack" => BeatAck(BeatAck),
        /// Records were kept.
        "report_ack" => ReportAck(ReportAck),
        /// How to report, and what to probe.
        "plan" => Plan(Box<Plan>),
        /// Somebody looks: report every second for a while.
        "live" => Live(Live),
        /// A new certificate.
        "renewed" => Renewed(Issued),
        /// This was a copy: ask for an identity of its own.
        "new_identity" => NewIdentity(NewIdentity),
        /// The identity of its own.
        "reborn" => Reborn(EnrolResponse),
        /// The controller ends the link, and why.
        "refused" => Refused(Refusal),
        /// Something to do, once.
        "order" => Order(Box<SignedOrder>),
        /// It is not wanted any more.
        "order_cancel" => OrderCancel(OrderCancel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_skipped_not_fatal() {
        let got = AgentMessage::decode(br#"{"kind":"hologram","size":[1,2]}"#).unwrap();
        assert_eq!(got, Incoming::Unknown { kind: "hologram".into() });
    }

    #[test]
    fn an_unknown_field_is_ignored_wherever_the_kind_stands() {
        let got = AgentMessage::decode(br#"{"seq":7,"colour":"red","at_ms":5,"kind":"beat"}"#).unwrap();
        assert_eq!(got, Incoming::Message(AgentMessage::Beat(Beat { seq: 7, at_ms: 5, rtt_us: None })));
    }

    #[test]
    fn a_wrong_body_is_told_apart_from_noise() {
        let codes: Vec<_> =
            [&br#"{"kind":"beat","seq":-1,"at_ms":5}"#[..], b"{}", b"\xff\xfe", b"", b"[]", b"{\"kind\":3}"]
                .into_iter()
                .map(|b| AgentMessage::decode(b).unwrap_err().code())
                .collect();
        assert_eq!(
            codes,
            ["bad_body", "not_a_message", "not_a_message", "not_a_message", "not_a_message", "not_a_message"]
        );
    }

    #[test]
    fn the_limit_comes_before_the_parser() {
        // Deep nesting over the limit: must be refused by size, not by the parser's recursion guard.
        let bomb = vec![b'['; MAX_FRAME + 1];
        assert_eq!(AgentMessage::decode(&bomb).unwrap_err().code(), "too_large");
    }

    #[test]
    fn deep_nesting_below_the_limit_is_an_error_not_a_crash() {
        let mut deep = br#"{"kind":"beat","x":"#.to_vec();
        deep.extend(std::iter::repeat_n(b'[', MAX_FRAME - deep.len()));
        assert!(AgentMessage::decode(&deep).is_err());
    }

    #[test]
    fn a_frame_over_the_limit_is_not_sent() {
        let huge = ControllerMessage::Refused(Refusal::Malformed { detail: "x".repeat(MAX_FRAME) });
        assert_eq!(huge.encode().unwrap_err().code(), "too_large");
    }

    #[test]
    fn a_long_unknown_kind_is_cut() {
        let frame = format!(r#"{{"kind":"{}"}}"#, "ế".repeat(5000));
        let Ok(Incoming::Unknown { kind }) = AgentMessage::decode(frame.as_bytes()) else { panic!() };
        assert_eq!(kind.chars().count(), 40);
    }
}
