//! Beats, snapshots and changes: what an endpoint reports.

use serde::{Deserialize, Serialize};

use crate::check::Finding;

/// "I am here." Small, frequent, and never written to a database one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Counts up from 1 on each link.
    pub seq: u64,
    /// The agent's wall clock when it sent this.
    pub at_ms: i64,
    /// Round trip of the previous beat, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
}

/// The answer to one beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatAck {
    /// The beat it answers.
    pub seq: u64,
    /// The controller's wall clock.
    pub server_ms: i64,
}

/// Everything, after each connect and then rarely.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The agent's wall clock.
    pub at_ms: i64,
    /// What the computer is made of.
    pub hardware: Hardware,
    /// How it feels.
    pub vitals: Vitals,
    /// How its network is.
    pub network: Network,
    /// What the checks found.
    pub findings: Vec<Finding>,
}

/// What changed since the last report; parts that stayed within their dead band are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The agent's wall clock.
    pub at_ms: i64,
    /// New vitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vitals: Option<Vitals>,
    /// New network state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// All findings, if any differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
}

impl Change {
    /// True if there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.vitals.is_none() && self.network.is_none() && self.findings.is_none()
    }
}

/// What the computer is made of. A missing value is unknown: vendors' placeholders are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// Maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Serial number, if the agent may read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Firmware version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<String>,
    /// Processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Logical processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// Disks.
    pub disks: Vec<Disk>,
}

/// One block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Kernel name, such as `nvme0n1`.
    pub name: String,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Size.
    pub size_mib: u64,
    /// Spinning disk.
    pub rotational: bool,
}

/// How the computer feels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vitals {
    /// Processor use of the last interval, all cores together, 0 to 100.
    pub cpu_percent: f32,
    /// Memory.
    pub memory_total_mib: u64,
    /// Memory in use (total less available).
    pub memory_used_mib: u64,
    /// One-minute load average.
    pub load1: f32,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Sensors.
    pub temperatures: Vec<Temperature>,
    /// Local file systems.
    pub volumes: Vec<Volume>,
}

/// One sensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Temperature {
    /// Its label.
    pub sensor: String,
    /// Degrees Celsius.
    pub celsius: f32,
    /// Where the maker says it gets critical.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical: Option<f32>,
}

/// One local file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Where it is mounted.
    pub mount: String,
    /// Size.
    pub total_mib: u64,
    /// Room for ordinary users.
    pub free_mib: u64,
    /// Mounted read-only (which is how Linux answers a dying disk).
    pub read_only: bool,
}

/// How the network is, as seen from the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Interfaces without loopback.
    pub interfaces: Vec<Interface>,
    /// Default gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Round trip to the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_rtt_ms: Option<f32>,
    /// Resolver asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<String>,
    /// Time of one DNS answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ms: Option<f32>,
    /// Round trip to the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_rtt_ms: Option<f32>,
    /// The endpoint's clock less the controller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skew_ms: Option<i64>,
}

/// One network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// The cable is in, or the radio is joined.
    pub up: bool,
    /// Link speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbit: Option<u32>,
    /// `full` or `half`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplex: Option<String>,
    /// How often the carrier came or went since boot.
    pub carrier_changes: u64,
    /// Receive and transmit errors since boot.
    pub errors: u64,
}

/// Why an agent says goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoodbyeReason {
    /// The agent was told to stop.
    Stopped,
    /// The computer is shutting down or restarting.
    Shutdown,
    /// A reason made after this build.
    #[serde(other)]
    Other,
}

/// A clean end, so that silence afterwards is explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why.
    pub reason: GoodbyeReason,
}
