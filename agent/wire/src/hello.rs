//! The first words on a link.

use serde::{Deserialize, Serialize};

use crate::diagnosis::OrderKey;
use crate::instance::Instance;
use crate::version::Versions;

/// Who is calling and what it speaks. First message of the agent; also part of enrolment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions the agent speaks.
    pub versions: Versions,
    /// The agent's own version, for people.
    pub agent_version: String,
    /// The agent's wall clock.
    pub at_ms: i64,
    /// The computer's own name. Evidence, not identity.
    pub hostname: String,
    /// Distribution, such as `Debian GNU/Linux 12`.
    #[serde(default)]
    pub os: String,
    /// Kernel release.
    #[serde(default)]
    pub kernel: String,
    /// Processor architecture, such as `x86_64`.
    #[serde(default)]
    pub arch: String,
    /// The kernel's boot id: tells a restart of the agent from a restart of the computer.
    #[serde(default)]
    pub boot_id: String,
    /// How often this identity has connected; a restored disk image shows an old count.
    #[serde(default)]
    pub connects: u64,
    /// Which computer and which run of the agent this is; agents that can't tell say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// Where its private key is; agents that don't know say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyPlace>,
}

/// Where a private key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    /// In the computer's TPM.
    Tpm,
    /// In a file.
    File,
    /// Somewhere that was thought of after this build.
    #[serde(other)]
    Other,
}

impl KeyPlace {
    /// The word that stands for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tpm => "tpm",
            Self::File => "file",
            Self::Other => "other",
        }
    }
}

/// The controller's answer: the link is open, and this is how to behave on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The version both ends use from here on.
    pub version: u16,
    /// The controller's wall clock.
    pub server_ms: i64,
    /// Seconds between beats.
    pub beat_s: u32,
    /// Seconds between full snapshots.
    pub snapshot_s: u32,
    /// If the link drops, wait a random part of this many seconds before the first try.
    pub reconnect_window_s: u32,
    /// What proves orders from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_keys: Vec<OrderKey>,
    /// Several computers show this identity: reports are kept apart, and nothing is asked of any of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
}
