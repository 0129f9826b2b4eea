//! An officer calls support: a code to read out on the telephone, and a snapshot of the computer.
//!
//! `POST` [`Call`] at [`CALL_PATH`], proved by the device certificate, answered by [`Kept`]. It may be sent again and
//! again: [`Call::id`] names it for good, and the answer says how far support is with it. The snapshot comes with the
//! first one that arrives; later ones may leave it out.
//!
//! The code is made from what both ends know without talking, the endpoint and how many calls it has made, so that it
//! can be read out while the line is down: the controller works out which computers could show it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::check::{CheckState, Finding};
use crate::ids::{EndpointId, SessionId};

/// `POST` [`Call`], answered by [`Kept`].
pub const CALL_PATH: &str = "/agent/v1/desk/call";
/// Findings of one snapshot.
pub const FINDINGS: usize = 96;
/// Codes of one snapshot.
pub const SHOWN: usize = 16;

/// A call for support.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Names it for good.
    pub id: Uuid,
    /// The endpoint's calls are counted from one.
    pub number: u32,
    /// What the officer reads out: [`code`] of the endpoint and the number.
    pub code: String,
    /// The wall clock when it was made. Evidence, never an order.
    pub at_ms: i64,
    /// The session that was open or asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// How the computer was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

/// How a computer was when its officer called. Nothing of anybody's work is in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The worst of the findings.
    pub verdict: CheckState,
    /// What `doctor` found.
    pub findings: Vec<Finding>,
    /// The cause that stood below the page, such as `router`.
    pub cause: String,
    /// Where the officer was, such as `waiting`.
    pub phase: String,
    /// Codes that the officer had before them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<String>,
    /// Version of the agent.
    pub agent_version: String,
}

/// The controller has the call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// How far support is: `open`, `taken`, `handed_over`, `solved`, `closed`.
    pub state: String,
    /// Who looks after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The number of the endpoint's next call.
    pub next: u32,
}

/// The code of an endpoint's call: six digits. No secret: it finds a call, and lets nobody in.
#[must_use]
pub fn code(endpoint: EndpointId, number: u32) -> String {
    let (high, low) = endpoint.0.as_u64_pair();
    let mixed = mix(mix(mix(high) ^ low) ^ u64::from(number));
    format!("{:06}", mixed % 1_000_000)
}

/// SplitMix64's last step: neighbours come out far apart.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_six_digits_and_rarely_meet() {
        let mut seen = BTreeSet::new();
        for n in 0..2_336_u128 {
            // As they are made: by the millisecond, with little that differs.
            let id = EndpointId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + (n << 80)));
            for number in 1..=4 {
                let code = code(id, number);
                assert!(code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit()), "{code}");
                seen.insert(code);
            }
        }
        // By chance some 43 of 9344 meet another one.
        assert!(seen.len() > 9_250, "{}", seen.len());
    }

    #[test]
    fn a_code_never_changes_with_a_release() {
        let id = EndpointId(Uuid::from_u128(0x0199_2f3a_5c1e_7a4b_8d21_6f0c_9b7e_4a13));
        assert_eq!([code(id, 1), code(id, 2)], CODES.map(str::to_owned));
    }

    const CODES: [&str; 2] = ["203122", "928293"];
}
