//! Virtual desktops on one host, behind one trait.
//!
//! Every call is idempotent and keyed by [`DesktopId`]: a reconciler may repeat any of them after a
//! crash and ends in the same place. A backend touches only what carries its installation's mark
//! (see [`Owner`]); domains, volumes and networks of others are never listed, changed or removed.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
pub use tram_wire::ids::{DesktopId, InstallationId};

pub mod error;
pub mod image;
pub mod libvirt;
pub mod node;
pub mod overlay;
pub mod png;
pub mod sim;
pub mod spec;
mod uri;

pub use error::Error;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose desktops a backend manages, and where it keeps their disks.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Mark put into every domain's metadata; objects without it are foreign.
    pub installation: InstallationId,
    /// Folder of golden images on the host (files are published read-only, never written again).
    pub image_dir: PathBuf,
    /// Folder of the desktops' overlay disks on the host (`<desktop id>.qcow2`), ours alone.
    pub disk_dir: PathBuf,
}

/// How desktops may be accelerated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccelPolicy {
    /// KVM if the processor has the flags and a probe guest proves it, else TCG.
    #[default]
    Auto,
    /// Always KVM, without a probe.
    Kvm,
    /// Always TCG (software emulation).
    Tcg,
}

/// What desktops on this host really run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualization.
    Kvm,
    /// Software emulation: works anywhere, 10 to 30 times slower.
    Tcg,
    /// No guest runs at all (simulated host or libvirt's test driver).
    None,
}

/// How to open a backend.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Whose objects it manages.
    pub owner: Owner,
    /// Which acceleration is allowed.
    pub accel: AccelPolicy,
    /// Longest time any single call may take before the caller is told [`Error::Timeout`].
    pub deadline: Duration,
    /// How to prove ourselves to a node; only `node:` addresses need it.
    pub tls: Option<node::Access>,
}

/// One host as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Name the host gives itself.
    pub hostname: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Free memory in MiB, `None` where the backend can't tell.
    pub memory_free_mib: Option<u64>,
    /// Space in the disk folder, in MiB.
    pub disk_mib: u64,
    /// Free space in the disk folder, in MiB.
    pub disk_free_mib: u64,
    /// libvirt's version, such as `11.3.0`; empty on a simulated host.
    pub libvirt_version: String,
    /// The hypervisor's version, such as `QEMU 10.0.2`.
    pub hypervisor_version: String,
    /// What desktops run on.
    pub accel: Accel,
    /// Why, in one English sentence for the operator.
    pub accel_reason: String,
    /// Stable code of the reason, for translation: `no_device`, `no_cpu_flags`, `not_offered`,
    /// `probe_hung`, `probe_failed`, `probe_ok`, `setting`, `simulated`.
    pub accel_code: String,
    /// Where a node serves the host: the last moment its certificate is good, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<i64>,
}

/// The machine a guest system expects. It belongs to the golden image: what was installed on one does not start on another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestProfile {
    /// Linux, started by SeaBIOS.
    #[default]
    LinuxBios,
    /// Linux, started by UEFI firmware without Secure Boot.
    LinuxUefi,
    /// Windows 10 and 11: UEFI with Secure Boot and Microsoft's keys, a TPM 2.0, Hyper-V's enlightenments, a clock that
    /// keeps local time.
    Windows,
}

/// What a desktop should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesktopSpec {
    /// Its id, also the domain's UUID.
    pub id: DesktopId,
    /// Name shown to operators: lower-case letters, digits and `-`, at most 50 bytes.
    pub name: String,
    /// File name of the golden image inside [`Owner::image_dir`].
    pub image_file: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk size in GiB; `None` keeps the image's own size.
    pub disk_gib: Option<u32>,
    /// Changes whenever the desktop must get a fresh disk (rebuild); part of the overlay's mark.
    pub generation: i64,
    /// The machine its image expects.
    #[serde(default)]
    pub guest: GuestProfile,
}

/// Life of a domain as the hypervisor reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Guest processors run.
    Running,
    /// Held by an operator or by an I/O error.
    Paused,
    /// Not running.
    Off,
    /// The hypervisor process died.
    Crashed,
}

/// What really exists of one desktop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The overlay disk exists (and belongs to the generation below).
    pub disk: bool,
    /// Generation the existing disk was made for.
    pub disk_generation: Option<i64>,
    /// The domain is defined, and if so its power state.
    pub power: Option<Power>,
    /// The guest agent answers; only looked at while running.
    pub guest_ready: bool,
    /// Addresses the guest agent reports, without loopback.
    pub addresses: Vec<String>,
}

/// One desktop found on the host that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which desktop.
    pub id: DesktopId,
    /// What exists of it.
    pub observed: Observed,
}

/// How to stop a desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// Ask the guest (agent, then ACPI); the caller looks again and may force later.
    Graceful,
    /// Cut the power.
    Force,
}

/// A display server of a desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Display {
    /// RFB; every desktop has it.
    Vnc,
    /// SPICE; one descriptor for each of its channels.
    Spice,
}

/// Load of one running desktop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DesktopStats {
    /// Which desktop.
    pub id: DesktopId,
    /// Processor time used since start, in nanoseconds.
    pub cpu_time_ns: u64,
    /// Resident memory of the hypervisor process, in KiB.
    pub rss_kib: u64,
}

/// Something happened on the host. Events may be lost: they only hasten the next look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostEvent {
    /// This desktop changed (started, stopped, crashed, its guest agent came or went).
    Desktop(DesktopId),
    /// The connection to the hypervisor was lost.
    Lost,
    /// The connection is back: everything must be looked at again.
    Resync,
}

/// A backend. See the module documentation for the rules every implementation keeps; the suite in
/// `tests/conformance.rs` holds each of them to those.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Capacity, versions and acceleration of the host.
    async fn host_info(&self) -> Result<HostInfo>;

    /// Makes sure the overlay disk exists for `spec.generation`, backed by the golden image. A disk of an
    /// older generation is replaced (never while the domain runs: [`Error::Busy`]).
    async fn ensure_disk(&self, spec: &DesktopSpec) -> Result<()>;

    /// Makes sure the domain is defined as `spec` says, without starting it.
    async fn ensure_defined(&self, spec: &DesktopSpec) -> Result<()>;

    /// Makes sure the domain runs. A defined domain is needed ([`Error::NotFound`] otherwise).
    async fn ensure_running(&self, id: DesktopId) -> Result<()>;

    /// Makes sure the domain is off, or has been asked to go off ([`Stop::Graceful`]). Absent is off.
    async fn ensure_stopped(&self, id: DesktopId, how: Stop) -> Result<()>;

    /// Hard reset of a running domain.
    async fn reset(&self, id: DesktopId) -> Result<()>;

    /// Makes sure neither domain nor disk exist.
    async fn ensure_absent(&self, id: DesktopId) -> Result<()>;

    /// What exists of one desktop now.
    async fn observe(&self, id: DesktopId) -> Result<Observed>;

    /// All that carries our mark on this host: domains, and disks without a domain.
    async fn inventory(&self) -> Result<Vec<Found>>;

    /// A connected stream to a display server of the desktop. No password, no TCP port. The descriptor is in
    /// blocking mode. [`Error::Unsupported`] when the desktop, as it was started, has no such server.
    async fn open_display(&self, id: DesktopId, display: Display) -> Result<OwnedFd>;

    /// A PNG of the screen.
    async fn screenshot(&self, id: DesktopId) -> Result<Vec<u8>>;

    /// Whether somebody is signed in on a running desktop, as its guest agent says; who is nobody's business.
    /// `None`: not known, as no agent answers, or none that knows.
    async fn signed_in(&self, id: DesktopId) -> Result<Option<bool>>;

    /// Load of all our running desktops.
    async fn stats(&self) -> Result<Vec<DesktopStats>>;

    /// Events from now on.
    fn events(&self) -> broadcast::Receiver<HostEvent>;
}

/// Opens the backend a URI names: `sim:///NAME?cpus=N&memory_mib=N&delay_ms=N…`, `node://HOST[:PORT]` for a
/// host with a node of its own (see [`node`]), or any libvirt URI
/// (`qemu:///system`, `test+unix:///default?socket=…`). Opening does not need the host to be up: a
/// libvirt backend connects, and reconnects, by itself.
///
/// # Errors
/// [`Error::Invalid`] when the URI is not understood.
pub fn open(uri: &str, options: OpenOptions) -> Result<Arc<dyn Hypervisor>> {
    if uri.starts_with("sim:") {
        return Ok(Arc::new(sim::Sim::open(uri, options)?));
    }
    if uri.starts_with("node:") {
        return Ok(Arc::new(node::Remote::open(uri, options)?));
    }
    libvirt::open(uri, options)
}
