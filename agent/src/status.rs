//! What the running agent leaves for `tram-agent status`: one small file, rewritten when it matters.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tram_wire::check::Finding;
use tram_wire::ids::EndpointId;

use crate::identity::write_private;

const FILE: &str = "status.json";

/// The state of the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkStatus {
    /// Not open; why, if known.
    Down {
        /// For people.
        reason: String,
        /// What stands in the way, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Refused by the controller.
    Refused {
        /// The refusal's code.
        code: String,
        /// For people.
        reason: String,
    },
    /// Open.
    Up {
        /// Since when.
        since_ms: i64,
        /// What carries it, if it is no WebSocket: `requests`, or `signed` where somebody opens TLS on the way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Open, but several computers show this identity: an operator has to say whose it is.
    Quarantined {
        /// Since when.
        since_ms: i64,
    },
    /// The agent was stopped.
    Stopped,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent that wrote it.
    pub agent_version: String,
    /// Its process.
    pub pid: u32,
    /// When it was written.
    pub at_ms: i64,
    /// Who we are.
    pub endpoint_id: EndpointId,
    /// The controller.
    pub controller: String,
    /// The link.
    pub link: LinkStatus,
    /// A report of this process was acknowledged: what the updater waits for.
    #[serde(default)]
    pub reported: bool,
    /// Where the key is: `tpm` or `file`.
    #[serde(default)]
    pub key: String,
    /// When the certificate ends.
    pub certificate_not_after_ms: i64,
    /// What the last report found.
    pub findings: Vec<Finding>,
}

impl Status {
    /// Writes it.
    pub fn save(&self, state: &Path) -> io::Result<()> {
        write_private(state, FILE, &serde_json::to_vec(self)?)
    }

    /// Reads it.
    pub fn load(state: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(state.join(FILE))?)?)
    }
}
