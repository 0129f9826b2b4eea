//! What the controller asks of an endpoint's reports: how often, and what to probe.
//!
//! An agent that got a [`Plan`] sends `report`s; one that never got any talks to a controller older than
//! itself and sends `snapshot` and `change`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most services of a plan.
pub const MAX_SERVICES: usize = 32;

/// How to report. After `hello_ack`, and again whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Seconds between beats; 0: as the greeting said.
    #[serde(skip_serializing_if = "nought")]
    pub beat_s: u32,
    /// Seconds between deltas.
    pub delta_s: u32,
    /// Seconds between keyframes.
    pub keyframe_s: u32,
    /// The line is paid by the byte: keyframes and probes become rare, deltas coarse.
    pub metered: bool,
    /// This endpoint probes for its whole site; the others only look at their own router.
    pub prober: bool,
    /// The controller reads binary frames: short beats ([`crate::short`]) and packed messages ([`crate::packed`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// The dictionary it reads messages with ([`crate::packed`]); 0: none.
    #[serde(skip_serializing_if = "is_zero")]
    pub dictionary: u8,
    /// What the prober probes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            beat_s: 0,
            delta_s: 60,
            keyframe_s: 900,
            metered: false,
            prober: false,
            binary: false,
            dictionary: 0,
            services: Vec::new(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn nought(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(n: &u8) -> bool {
    *n == 0
}

/// One service to probe. Read-only, without credentials, and nothing about citizens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name in results.
    pub name: String,
    /// `tcp`, `tls`, `http`, `https`, `dns`, `captive`; an agent skips what it doesn't know.
    pub kind: String,
    /// Host, or the name to resolve.
    pub host: String,
    /// Port; 0: the kind's own.
    pub port: u16,
    /// Path of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What must come back: a status for `http`, addresses for `dns` separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Seconds between probes.
    pub every_s: u32,
    /// Milliseconds it may take in all.
    pub budget_ms: u32,
    /// For kinds made after this build.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, String>,
}

/// Somebody looks at this endpoint: deltas every second for a while, then it falls back by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// For how many seconds; an agent caps it at [`MAX_LIVE_S`]. 0: no longer.
    pub for_s: u32,
}

/// Longest live view without being asked again.
pub const MAX_LIVE_S: u32 = 300;
