//! libvirt hosts. Sole user of the `virt` crate.
//!
//! A host is one [`Libvirt`]: a keeper that holds the connection with the events and reconnects
//! (`keeper`), and lanes of threads with connections of their own for the calls (`thread`). Disks are
//! files we write ourselves ([`crate::overlay`]), so the controller runs on the host whose desktops it
//! manages: that is also the only place from which a display can be opened without a TCP port.
//!
//! Parameters of our own in the URI, taken off before libvirt sees it:
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `tram_network` | `none` | `none`: isolated; `user`: QEMU's address translation, for trials, also reaches the host's loopback; `network:NAME`; `bridge:NAME` |
//! | `tram_keepalive` | `5,3` | seconds between probes of libvirt, and how many may stay unanswered |

pub mod accel;
mod convert;
mod domain;
mod events;
mod ffi;
mod keeper;
mod options;
mod thread;
mod xml;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{broadcast, watch};
use virt::connect::Connect;

use crate::image::{self, Limits};
use crate::overlay::{self, Mark, State};
use crate::{
    DesktopId, DesktopSpec, DesktopStats, Display, Error, Found, HostEvent, HostInfo, Hypervisor, InstallationId,
    Observed, OpenOptions, Owner, Power, Result, Stop, spec,
};
use accel::Decision;
use convert::error;
use ffi::{Note, Notes};
use keeper::Keeper;
use options::Options;
use thread::{Lane, Lanes, Link, Shared};
use xml::{Frame, Network};

/// A host managed through libvirt.
pub struct Libvirt {
    shared: Arc<Shared>,
    lanes: Lanes,
    place: Arc<Place>,
    deadline: Duration,
    accel: watch::Receiver<Option<Decision>>,
    events: broadcast::Sender<HostEvent>,
}

/// Where this installation's desktops live on the host.
struct Place {
    owner: Owner,
    network: Network,
    /// It was said that this host has no SPICE.
    without_spice: AtomicBool,
}

/// Opens a libvirt host; it connects by itself in the background.
///
/// # Errors
/// [`Error::Invalid`] when the URI is not understood or not allowed.
pub fn open(uri: &str, options: OpenOptions) -> Result<Arc<dyn Hypervisor>> {
    Ok(Arc::new(Libvirt::start(uri, options)?))
}

impl Libvirt {
    fn start(uri: &str, open: OpenOptions) -> Result<Self> {
        let Options { uri, test_driver, network, keep_alive } = Options::parse(uri)?;
        events::start();
        let (to, notes) = sync_channel(4096);
        let shared = Arc::new(Shared {
            uri,
            keep_alive,
            epoch: 0.into(),
            link: Link::Connecting.into(),
            notes: Notes { to, lost: Arc::default() },
            stopped: false.into(),
        });
        let lanes = Lanes::start(&shared)?;
        let events = broadcast::Sender::new(1024);
        let (decide, accel) = watch::channel(None);
        let decider = Decider {
            policy: open.accel,
            test_driver,
            folder: open.owner.disk_dir.clone(),
            shared: Arc::clone(&shared),
            decide,
        };
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            installation: open.owner.installation,
            notes,
            events: events.clone(),
            connected: Box::new(move |conn| decider.decide(conn)),
        };
        std::thread::Builder::new()
            .name("virt-keeper".into())
            .spawn(move || keeper.run())
            .map_err(|e| Error::Refused(format!("no thread for this host: {e}")))?;
        let place = Arc::new(Place { owner: open.owner, network, without_spice: AtomicBool::new(false) });
        Ok(Self { shared, lanes, place, deadline: open.deadline, accel, events })
    }

    async fn run<T, F>(&self, lane: Lane, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connect, &Place) -> Result<T> + Send + 'static,
    {
        let place = Arc::clone(&self.place);
        self.lanes.run(lane, self.deadline, move |conn| call(conn, &place)).await
    }

    /// The acceleration; waits for a probe that is still running.
    async fn decision(&self) -> Result<Decision> {
        let mut accel = self.accel.clone();
        let known = async {
            loop {
                if let Some(decision) = accel.borrow_and_update().clone() {
                    return Ok(decision);
                }
                if let Link::Down(why) = self.shared.link() {
                    return Err(Error::Unreachable(why));
                }
                // The link has no waiter of its own; it matters only until the first connection.
                let _ = tokio::time::timeout(Duration::from_millis(200), accel.changed()).await;
            }
        };
        tokio::time::timeout(self.deadline, known).await.map_err(|_| Error::Timeout(self.deadline))?
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.notes.put(Note::Stop);
    }
}

/// Decides the acceleration once a connection stands.
struct Decider {
    policy: crate::AccelPolicy,
    test_driver: bool,
    folder: PathBuf,
    shared: Arc<Shared>,
    decide: watch::Sender<Option<Decision>>,
}

impl Decider {
    fn decide(&self, conn: &Connect) {
        if self.decide.borrow().as_ref().is_some_and(|d| d.code != "probe_failed") {
            return;
        }
        let facts = accel::by_facts(self.policy, self.test_driver, accel::Machine::read(), || accel::offers_kvm(conn));
        let decision = facts.unwrap_or_else(|| self.probe());
        tracing::info!(uri = %self.shared.uri, code = decision.code, reason = %decision.reason, "acceleration decided");
        self.decide.send_replace(Some(decision));
    }

    /// On a connection of its own, which takes a hanging guest with it when it closes.
    fn probe(&self) -> Decision {
        let ready = prepare(&self.folder).and_then(|()| self.shared.connect());
        match ready {
            Ok(own) => accel::by_probe(&own, &self.shared.uri, &self.folder),
            Err(e) => Decision {
                accel: crate::Accel::Tcg,
                code: "probe_failed",
                reason: format!("KVM could not be tested ({e}), so desktops run in software emulation (TCG)."),
            },
        }
    }
}

impl Place {
    fn installation(&self) -> InstallationId {
        self.owner.installation
    }

    fn golden(&self, file: &str) -> PathBuf {
        self.owner.image_dir.join(file)
    }

    fn make_disk(&self, conn: &Connect, spec: &DesktopSpec) -> Result<()> {
        let folder = &self.owner.disk_dir;
        let mark = Mark { installation: self.installation(), desktop: spec.id, generation: spec.generation };
        match overlay::state(folder, spec.id).map_err(disk_error)? {
            State::Ours(there) if there == mark => return Ok(()),
            State::Ours(there) if there.installation != mark.installation => {
                return Err(Error::Refused("the disk of this desktop belongs to another installation".into()));
            }
            State::Foreign => {
                return Err(Error::Refused("a file of somebody else is in the place of the desktop's disk".into()));
            }
            State::Absent => prepare(folder)?,
            State::Ours(_) | State::Broken => {
                let domain = domain::find(conn, spec.id, self.installation())?;
                let power = domain.map(|(d, _)| domain::power(&d)).transpose().map_err(error)?;
                if matches!(power, Some(Power::Running | Power::Paused)) {
                    return Err(Error::Busy("the disk can't be replaced while the desktop runs".into()));
                }
            }
        }
        let golden = self.golden(&spec.image_file);
        // Published images don't change, but the path might have been given another file since.
        let limits = Limits { max_virtual_bytes: 64 << 40 };
        let info = match image::inspect_with(&golden, None, &limits) {
            Ok(info) => info,
            Err(f) if f.code == "I-101" && !golden.exists() => {
                return Err(Error::NotFound(format!("the image {}", spec.image_file)));
            }
            Err(f) => {
                return Err(Error::Invalid(format!(
                    "the image {} can't be used: {} ({})",
                    spec.image_file, f.text, f.code
                )));
            }
        };
        let wanted = spec.disk_gib.map_or(info.virtual_size, |gib| u64::from(gib) << 30);
        if wanted < info.virtual_size {
            return Err(Error::Invalid(format!(
                "the disk must have at least the {} GiB of its image",
                info.virtual_size.div_ceil(1 << 30)
            )));
        }
        overlay::create(folder, mark, &golden, wanted.next_multiple_of(512)).map_err(disk_error)
    }

    fn define(&self, conn: &Connect, spec: &DesktopSpec, accel: crate::Accel) -> Result<()> {
        // Eight characters is all QEMU's VNC takes; it is never valid and nobody ever learns it.
        let password: String = (0..8).map(|_| char::from(b'a' + rand::random::<u8>() % 26)).collect();
        let frame = Frame {
            installation: self.installation(),
            accel,
            network: &self.network,
            disk: &overlay::path_of(&self.owner.disk_dir, spec.id),
            backing: &self.golden(&spec.image_file),
            display_password: &password,
            spice: accel != crate::Accel::None && self.offers_spice(conn, accel),
        };
        domain::define(conn, &frame, spec)
    }

    /// Whether this host's QEMU has SPICE built in: some distributions leave it out, and libvirt would refuse
    /// the whole desktop.
    fn offers_spice(&self, conn: &Connect, accel: crate::Accel) -> bool {
        let kind = if accel == crate::Accel::Kvm { "kvm" } else { "qemu" };
        let known = conn.domain_capabilities(None, Some("x86_64"), Some("q35"), Some(kind), 0);
        let offered = known.is_ok_and(|xml| xml::offers_spice(&xml));
        if !offered && !self.without_spice.swap(true, Ordering::Relaxed) {
            tracing::warn!("QEMU on this host has no SPICE: desktops are offered by VNC only");
        }
        offered
    }

    fn remove(&self, conn: &Connect, id: DesktopId) -> Result<()> {
        if let Some((domain, _)) = domain::find(conn, id, self.installation())? {
            domain::remove(&domain)?;
        }
        overlay::remove(&self.owner.disk_dir, id, self.installation()).map_err(disk_error)
    }

    fn disk_of(&self, id: DesktopId) -> Result<Option<i64>> {
        match overlay::state(&self.owner.disk_dir, id).map_err(disk_error)? {
            State::Ours(mark) if mark.installation == self.installation() => Ok(Some(mark.generation)),
            _ => Ok(None),
        }
    }

    fn observe(&self, conn: &Connect, id: DesktopId) -> Result<Observed> {
        let generation = self.disk_of(id)?;
        let mut seen = Observed { disk: generation.is_some(), disk_generation: generation, ..Observed::default() };
        let Some((domain, _)) = domain::find(conn, id, self.installation())? else { return Ok(seen) };
        seen.power = match domain::power(&domain) {
            Ok(power) => Some(power),
            Err(e) if convert::is_gone(&e) => None,
            Err(e) => return Err(error(e)),
        };
        if seen.power == Some(Power::Running)
            && domain::agent_connected(&domain).unwrap_or(false)
            && let Some(addresses) = domain::ask_agent(&domain)
        {
            (seen.guest_ready, seen.addresses) = (true, addresses);
        }
        Ok(seen)
    }

    fn inventory(&self, conn: &Connect) -> Result<Vec<Found>> {
        let mut found: HashMap<DesktopId, Observed> = HashMap::new();
        for (id, mark) in overlay::list(&self.owner.disk_dir, self.installation()).map_err(disk_error)? {
            let seen = found.entry(id).or_default();
            if let Some(mark) = mark {
                (seen.disk, seen.disk_generation) = (true, Some(mark.generation));
            }
        }
        for domain in conn.list_all_domains(0).map_err(error)? {
            let mark = match domain::read_mark(&domain) {
                Ok(Some(mark)) if mark.installation == self.installation() => mark,
                Ok(_) => continue,
                Err(e) if convert::is_gone(&e) => continue,
                Err(e) => return Err(error(e)),
            };
            let seen = found.entry(mark.desktop).or_default();
            seen.power = match domain::power(&domain) {
                Ok(power) => Some(power),
                Err(e) if convert::is_gone(&e) => continue,
                Err(e) => return Err(error(e)),
            };
            // Not asked by a call into the guest: one that hangs would hold up the whole inventory.
            seen.guest_ready = seen.power == Some(Power::Running) && domain::agent_connected(&domain).unwrap_or(false);
        }
        Ok(found.into_iter().map(|(id, observed)| Found { id, observed }).collect())
    }

    fn host_info(&self, conn: &Connect, decision: Decision) -> Result<HostInfo> {
        let node = conn.node_info().map_err(error)?;
        let space = nix::sys::statvfs::statvfs(nearest(&self.owner.disk_dir));
        let (disk_mib, disk_free_mib) = space.map_or((0, 0), |s| {
            let mib = |blocks: u64| blocks.saturating_mul(s.fragment_size()) >> 20;
            (mib(s.blocks()), mib(s.blocks_available()))
        });
        let kind = conn.driver_type().unwrap_or_default();
        let hypervisor = conn.hyp_version().map(|v| format!("{kind} {}", convert::version(v)));
        Ok(HostInfo {
            hostname: conn.hostname().map_err(error)?,
            cpus: node.cpus,
            memory_mib: node.memory / 1024,
            memory_free_mib: conn.free_memory().ok().map(|b| b >> 20),
            disk_mib,
            disk_free_mib,
            libvirt_version: conn.lib_version().map(convert::version).unwrap_or_default(),
            hypervisor_version: hypervisor.unwrap_or(kind),
            accel: decision.accel,
            accel_reason: decision.reason,
            accel_code: decision.code.into(),
            certificate_until: None,
        })
    }

    fn stats(&self, conn: &Connect) -> Result<Vec<DesktopStats>> {
        let mut ours = Vec::new();
        for load in ffi::loads(conn).map_err(error)? {
            let mark = match domain::mark_of(conn, load.uuid) {
                Ok(mark) => mark,
                Err(Error::NotFound(_)) => continue,
                Err(e) => return Err(e),
            };
            if mark.is_some_and(|m| m.installation == self.installation()) {
                ours.push(DesktopStats {
                    id: DesktopId(load.uuid),
                    cpu_time_ns: load.cpu_time_ns,
                    rss_kib: load.rss_kib,
                });
            }
        }
        Ok(ours)
    }
}

/// The disk folder: QEMU's user must be able to pass through it, nobody to look around in it.
fn prepare(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(folder).map_err(disk_error)
}

fn disk_error(e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(format!("the disk folder: {e}")),
        io::ErrorKind::InvalidInput => Error::Invalid(e.to_string()),
        _ => Error::Refused(format!("the disk folder: {e}")),
    }
}

/// The folder itself or what exists of the way to it.
fn nearest(folder: &Path) -> &Path {
    folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

#[async_trait]
impl Hypervisor for Libvirt {
    async fn host_info(&self) -> Result<HostInfo> {
        let decision = self.decision().await?;
        self.run(Lane::Quick, |conn, place| place.host_info(conn, decision)).await
    }

    async fn ensure_disk(&self, spec: &DesktopSpec) -> Result<()> {
        spec::validate(spec)?;
        let spec = spec.clone();
        self.run(Lane::Quick, move |conn, place| place.make_disk(conn, &spec)).await
    }

    async fn ensure_defined(&self, spec: &DesktopSpec) -> Result<()> {
        spec::validate(spec)?;
        let accel = self.decision().await?.accel;
        let spec = spec.clone();
        self.run(Lane::Quick, move |conn, place| place.define(conn, &spec, accel)).await
    }

    async fn ensure_running(&self, id: DesktopId) -> Result<()> {
        let start = move |conn: &Connect, place: &Place| {
            let domain = domain::need(conn, id, place.installation())?;
            domain::start(&domain)
        };
        self.run(Lane::Slow, start).await
    }

    async fn ensure_stopped(&self, id: DesktopId, how: Stop) -> Result<()> {
        let stop = move |conn: &Connect, place: &Place| match domain::find(conn, id, place.installation())? {
            Some((domain, _)) => domain::stop(&domain, how),
            None => Ok(()),
        };
        self.run(Lane::Slow, stop).await
    }

    async fn reset(&self, id: DesktopId) -> Result<()> {
        let reset = move |conn: &Connect, place: &Place| domain::reset(&domain::need(conn, id, place.installation())?);
        self.run(Lane::Slow, reset).await
    }

    async fn ensure_absent(&self, id: DesktopId) -> Result<()> {
        self.run(Lane::Slow, move |conn, place| place.remove(conn, id)).await
    }

    async fn observe(&self, id: DesktopId) -> Result<Observed> {
        self.run(Lane::Quick, move |conn, place| place.observe(conn, id)).await
    }

    async fn inventory(&self) -> Result<Vec<Found>> {
        self.run(Lane::Quick, |conn, place| place.inventory(conn)).await
    }

    async fn open_display(&self, id: DesktopId, display: Display) -> Result<OwnedFd> {
        let open = move |conn: &Connect, place: &Place| {
            domain::open_display(&domain::need(conn, id, place.installation())?, display)
        };
        self.run(Lane::Display, open).await
    }

    async fn screenshot(&self, id: DesktopId) -> Result<Vec<u8>> {
        let shoot = move |conn: &Connect, place: &Place| {
            let domain = domain::need(conn, id, place.installation())?;
            domain::screenshot(conn, &domain)
        };
        self.run(Lane::Slow, shoot).await
    }

    async fn signed_in(&self, id: DesktopId) -> Result<Option<bool>> {
        let ask = move |conn: &Connect, place: &Place| {
            let domain = domain::need(conn, id, place.installation())?;
            domain::signed_in(&domain)
        };
        self.run(Lane::Slow, ask).await
    }

    async fn stats(&self) -> Result<Vec<DesktopStats>> {
        self.run(Lane::Slow, |conn, place| place.stats(conn)).await
    }

    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.events.subscribe()
    }
}

/// Runs the probe guest on its own, whatever the processor's flags say. For `doctor` and for tests: under
/// TCG it must always end well.
///
/// # Errors
/// When libvirt can't be reached.
pub fn run_probe(uri: &str, folder: &Path, deadline: Duration, kind: crate::Accel) -> Result<Decision> {
    events::start();
    let Options { uri, keep_alive, .. } = Options::parse(uri)?;
    let conn = Connect::open(Some(&uri)).map_err(error)?;
    let _ = conn.set_keep_alive(keep_alive.0, keep_alive.1);
    prepare(folder)?;
    accel::probe(&conn, folder, deadline, kind)
}
