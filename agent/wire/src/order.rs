//! Orders as they travel: signed, for one endpoint, once; and the news of them. What can be ordered is
//! [`crate::diagnosis`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::CheckState;
use crate::diagnosis::Work;
use crate::ids::{EndpointId, InstallationId, OrderId};

/// The only version so far.
pub const VERSION: u16 = 1;
/// Goes before the text when it is signed: nothing else that is ever signed can be taken for an order.
pub const CONTEXT: &[u8] = b"tram order 1\0";
/// Longest text of a signed order; a longer one is not looked at.
pub const MAX_ORDER: usize = 8 * 1024;

/// What the controller orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// [`VERSION`].
    pub version: u16,
    /// Which; obeyed once.
    pub id: OrderId,
    /// Who signed it.
    pub installation: InstallationId,
    /// The only endpoint it is for.
    pub endpoint: EndpointId,
    /// Whose wish it is: name, for the officer.
    pub by: String,
    /// Who agreed, if two must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<String>,
    /// Why, in their own words.
    pub why: String,
    /// What.
    pub work: Work,
    /// When it was signed, by the controller's clock.
    pub issued_ms: i64,
    /// It must have been begun by then.
    pub expires_ms: i64,
}

/// An order with the proof of who made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOrder {
    /// Which, to answer about it even if it is not understood. The signed text says it again.
    pub id: OrderId,
    /// Which key signed it.
    pub key: String,
    /// The text that was signed: an [`Order`] as JSON.
    pub order: String,
    /// Ed25519 over [`CONTEXT`] and the text, hexadecimal.
    pub signature: String,
}

impl SignedOrder {
    /// The bytes the signature is over.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [CONTEXT, self.order.as_bytes()].concat()
    }
}

/// A key that signs orders: its public half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderKey {
    /// Its id.
    pub id: String,
    /// Ed25519, hexadecimal.
    pub public: String,
}

/// An order is not wanted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancel {
    /// Which.
    pub order: OrderId,
}

/// What became of an order, as it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderNews {
    /// Which.
    pub order: OrderId,
    /// Counts from 0.
    pub n: u32,
    /// What happened.
    pub news: News,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum News {
    /// The officer is being asked.
    Asking,
    /// It runs.
    Begun,
    /// It is not obeyed; it ends with that.
    Refused {
        /// Why.
        code: Refused,
    },
    /// How far a step is.
    Progress {
        /// Which step.
        step: u16,
        /// For people.
        text: String,
    },
    /// A step is done.
    Step(Step),
    /// A piece of a step's text.
    Text {
        /// Which step.
        step: u16,
        /// The piece.
        text: String,
    },
    /// The end.
    Ended {
        /// How.
        outcome: Outcome,
    },
    /// Made after this build.
    #[serde(other)]
    Other,
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number.
    pub step: u16,
    /// Its action.
    pub action: String,
    /// How it looks.
    pub state: CheckState,
    /// In one word.
    pub code: String,
    /// The evidence.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
    /// Milliseconds it took.
    pub took_ms: u32,
    /// Its text was longer than it may be.
    #[serde(default)]
    pub cut: bool,
}

/// Why an order is not obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// Longer than an order may be, or no order.
    Malformed,
    /// Signed by a key this endpoint was not given.
    Key,
    /// The signature is wrong.
    Signature,
    /// It is for another endpoint.
    Endpoint,
    /// Too late, or from the future.
    Expired,
    /// It was obeyed, or refused, before.
    Replayed,
    /// This endpoint does not know the action, or an argument does not fit.
    Unknown,
    /// Forbidden at this computer.
    Denied,
    /// Too many run.
    Busy,
    /// The officer said no, or did not answer.
    Declined,
    /// Nobody is there to be asked.
    NobodyThere,
    /// What was refused can't be remembered or told here.
    Disk,
    /// Somebody on the way reads along, and the answer would be none of their business.
    Inspected,
    /// Made after this build.
    #[serde(other)]
    Other,
}

impl Refused {
    /// Its word on the wire.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Endpoint => "endpoint",
            Self::Expired => "expired",
            Self::Replayed => "replayed",
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::Declined => "declined",
            Self::NobodyThere => "nobody_there",
            Self::Disk => "disk",
            Self::Inspected => "inspected",
            Self::Other => "other",
        }
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// A step ran out of time.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// Made after this build.
    #[serde(other)]
    Other,
}
