//! Health reports: what an endpoint measured, noticed and judged, as records that survive a cut line.
//!
//! A record is written to disk before it is sent and deleted when a [`ReportAck`] names its batch, so it
//! arrives at least once. `(endpoint, boot, seq)` names it for good: a controller that has it already
//! skips it. Its time is worked out by the controller from its age on the endpoint's boot clock, because
//! wall clocks of office computers are wrong ([`Report::mono_ms`]).
//!
//! Names in here (gauges, sections, item kinds, facts, checks, codes, probes) are open strings: a new
//! collector needs no new controller. What may come is bounded by [`limits`]; a controller keeps the
//! first ones in order and counts the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{CheckState, Finding};
use crate::heartbeat::{Hardware, Network, Vitals};

/// How much of each thing a record may hold.
pub mod limits {
    /// Records of one report.
    pub const RECORDS: usize = 128;
    /// Gauges an endpoint may have, whatever their names: cardinality can't explode.
    pub const GAUGES: usize = 96;
    /// Sections of an inventory.
    pub const SECTIONS: usize = 24;
    /// Items of one section.
    pub const ITEMS: usize = 128;
    /// Facts of one item, probe or note.
    pub const FACTS: usize = 32;
    /// Checks of an endpoint.
    pub const CHECKS: usize = 96;
    /// Events, probes or notes of one record.
    pub const EVENTS: usize = 64;
    /// Characters of a name.
    pub const NAME: usize = 64;
    /// Characters of a text.
    pub const TEXT: usize = 256;
}

/// Some records of one boot of the endpoint. Newest state first after a cut, then what was missed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Counts up on each link; [`ReportAck`] answers with it.
    pub batch: u64,
    /// The kernel's boot id under which the records were made.
    pub boot: String,
    /// The boot clock (milliseconds since boot, sleep included) when this was sent. Absent: that boot is
    /// over, and the age of its records can only be guessed from the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mono_ms: Option<u64>,
    /// The wall clock when this was sent.
    pub at_ms: i64,
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Nothing waits for the answer: it may come with the answer to the next beat, in its short form
    /// ([`crate::short::kept`]), instead of in a packet of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rides: bool,
}

/// The controller has kept the batch, or has had it before: the agent may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAck {
    /// Which.
    pub batch: u64,
}

/// What happened on an endpoint at one moment. Absent parts say nothing; see [`Record::key`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Grows with every record of a boot, over restarts of the agent too. Gaps are normal.
    pub seq: u64,
    /// The boot clock when it was made.
    pub mono_ms: u64,
    /// The wall clock when it was made. Evidence, never an order.
    pub at_ms: i64,
    /// A keyframe: gauges, inventory and checks are complete, and what isn't in them is gone.
    #[serde(skip_serializing_if = "is_false")]
    pub key: bool,
    /// Gauges that left their dead band; `null`: can't be read any more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<String, Option<f32>>,
    /// What the computer is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// How it feels, with sensors and volumes by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vitals: Option<Vitals>,
    /// How its network is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Sections of the inventory that changed, each as a whole: `disks`, `usb`, `printers`, …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inventory: BTreeMap<String, Vec<Item>>,
    /// Peripherals that came, went or changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// Probes that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Checks whose state or sentence changed; all of them in a keyframe.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckResult>,
    /// What the agent says of itself: a collector that hangs, a damaged queue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// A tombstone: what was dropped here, because the queue was full or damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// A thing that is part of an endpoint or plugged into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Item {
    /// Tells it from its like here: a port path, a serial number, a queue's name.
    pub id: String,
    /// What it is: `disk`, `printer`, `token`, `monitor`, `ups`, …
    pub kind: String,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is known of it; units stand in the names, as in `size_gib`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// What became of a peripheral.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// It was plugged in, or came back.
    Attached,
    /// It was pulled, or died.
    Detached,
    /// It says something else than before, such as "out of paper".
    Changed,
    /// Something made after this build.
    #[default]
    #[serde(other)]
    Other,
}

/// A peripheral came, went or changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What happened.
    pub what: Happened,
    /// The section of the inventory it belongs to.
    pub section: String,
    /// The peripheral as it is now, or as it last was.
    pub item: Item,
}

/// One step of reaching a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its name to an address.
    Resolve,
    /// TCP.
    Connect,
    /// TLS.
    Tls,
    /// The first byte of the answer.
    FirstByte,
    /// The answer came and isn't what was expected.
    Expect,
    /// A step made after this build.
    #[default]
    #[serde(other)]
    Other,
}

/// How a probe went, by phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Which: a service's name of the plan, or `gateway`, `dns`, `controller`, `ntp`, `mtu`.
    pub name: String,
    /// How it was made: `icmp`, `tcp`, `tls`, `http`, `dns`, `ntp`, `captive`.
    pub kind: String,
    /// How it went.
    pub state: CheckState,
    /// The phase that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Phase>,
    /// Why, in one word: `timeout`, `refused`, `no_such_name`, `untrusted`, `status_503`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Name to address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_us: Option<u32>,
    /// TCP handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_us: Option<u32>,
    /// TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_us: Option<u32>,
    /// From the request to the first byte of its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_us: Option<u32>,
    /// Of a probe made of several packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trips: Option<Trips>,
    /// What else was learnt: `certificate_days`, `address`, `offset_ms`, `mtu`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, String>,
}

/// Round trips of a burst of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trips {
    /// Sent.
    pub sent: u16,
    /// Not answered.
    pub lost: u16,
    /// Half were faster.
    pub p50_us: u32,
    /// Nineteen of twenty were faster.
    pub p95_us: u32,
    /// Mean difference of neighbours.
    pub jitter_us: u32,
}

/// What one check found, its evidence, and since when it is so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckResult {
    /// Which check, such as `disk_space`.
    pub check: String,
    /// How bad.
    pub state: CheckState,
    /// Which sentence says it, such as `disk_low`.
    pub code: String,
    /// The evidence: the blanks of the sentence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// How long it has been in this state when the record was made, milliseconds of the boot clock.
    /// Across a restart of the agent it begins anew; a controller that knows better keeps its own.
    pub for_ms: u64,
}

impl From<CheckResult> for Finding {
    fn from(c: CheckResult) -> Self {
        Self { check: c.check, state: c.state, code: c.code, params: c.params }
    }
}

/// Something the agent says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// What: `collector_off`, `collector_back`, `queue_damaged`, `queue_full`, `clock_step`, `answers_forged`.
    pub code: String,
    /// The particulars.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// Records that will never come: charts show *not reported*, not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// What they were: `delta`, `keyframe`, `probe`, `event`, or `damaged` if it can't be told.
    pub class: String,
    /// The first one's sequence number.
    pub from_seq: u64,
    /// The last one's.
    pub to_seq: u64,
    /// The first one's wall clock.
    pub from_ms: i64,
    /// The last one's.
    pub to_ms: i64,
    /// How many.
    pub count: u32,
}
