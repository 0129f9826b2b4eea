//! A simulated host, for tests, for benchmarks and for trying the console with thousands of desktops.
//!
//! `sim:///NAME` and any of
//!
//! | parameter | default | meaning |
//! |---|---|---|
//! | `state` | none | folder the world is kept in, one small file a desktop; without it the world dies with the process |
//! | `cpus`, `memory_mib`, `disk_mib` | 64, 262144, 4194304 | capacity; starting beyond the memory answers [`Error::Full`] |
//! | `boot_ms`, `stop_ms` | 0, 0 | from start to guest agent; from a graceful stop to off |
//! | `delay_ms`, `fail_every` | 0, 0 | every call is slow; every n-th call is refused |
//! | `kill_at` | 0 | SIGKILL this process at the n-th point (before and after every change, half-made disks included); `TRAM_SIM_KILL_AT` does the same |
//! | `stubborn` | 0 | 1: guests ignore a graceful stop |
//! | `images` | 0 | 1: the golden image's file must exist |
//! | `display` | `picture` | `picture`, `flood` or `sink` (see [`Mode`]) |
//! | `displays` | none | folder with `vnc.sock` and `spice.sock` of a real QEMU, which stand for every desktop's displays |
//! | `width`, `height` | 640, 400 | size of the display |
//!
//! A file named `offline` in the state folder makes the host unreachable until it is removed.

mod display;
mod faults;
mod world;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use uuid::Uuid;

pub use display::Mode;
pub use faults::Faults;
pub use world::{Disk, Domain, Item};

use crate::uri::Uri;
use crate::{
    Accel, DesktopId, DesktopSpec, DesktopStats, Display, Error, Found, HostEvent, HostInfo, Hypervisor,
    InstallationId, Observed, OpenOptions, Power, Result, Stop, png, spec,
};
use display::Screen;
use world::World;

/// A simulated host.
pub struct Sim {
    name: String,
    options: OpenOptions,
    config: Config,
    faults: Faults,
    world: Mutex<World>,
    screens: Mutex<HashMap<DesktopId, Viewed>>,
    events: broadcast::Sender<HostEvent>,
}

struct Viewed {
    screen: Arc<Screen>,
    viewers: Vec<AbortHandle>,
}

struct Config {
    state: Option<PathBuf>,
    cpus: u32,
    memory_mib: u64,
    disk_mib: u64,
    boot_ms: i64,
    stop_ms: i64,
    stubborn: bool,
    images: bool,
    mode: Mode,
    displays: Option<PathBuf>,
    width: u16,
    height: u16,
}

impl Sim {
    /// Opens a simulated host.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown parameter, a bad value or an unreadable state folder.
    pub fn open(uri: &str, options: OpenOptions) -> Result<Self> {
        let uri = Uri::parse(uri)?;
        let name = uri.rest.trim_start_matches('/').to_owned();
        if uri.scheme != "sim" || name.is_empty() || name.len() > 64 || name.contains('/') {
            return Err(Error::Invalid("a simulated host is written sim:///NAME?…".into()));
        }
        let faults = Faults::default();
        let config = Config::parse(&uri, &faults)?;
        if let Ok(at) = std::env::var("TRAM_SIM_KILL_AT") {
            faults.set_kill_at(number("TRAM_SIM_KILL_AT", &at)?);
        }
        let world = World::open(config.state.clone())
            .map_err(|e| Error::Invalid(format!("the simulated host's state folder can't be used: {e}")))?;
        Ok(Self {
            name,
            options,
            config,
            faults,
            world: Mutex::new(world),
            screens: Mutex::default(),
            events: broadcast::Sender::new(4096),
        })
    }

    /// The controls.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Switches the host off and on again, as seen by the controller.
    pub fn set_offline(&self, offline: bool) {
        if self.faults.set_offline(offline) {
            let _ = self.events.send(if offline { HostEvent::Lost } else { HostEvent::Resync });
        }
    }

    /// The host is gone with all displays, as when its machine loses power.
    pub fn vanish(&self) {
        self.set_offline(true);
        self.screens().drain().for_each(|(_, viewed)| viewed.viewers.iter().for_each(AbortHandle::abort));
    }

    /// Everything on the host, also what belongs to others.
    pub fn everything(&self) -> Vec<Item> {
        self.world().all().cloned().collect()
    }

    /// Puts a running domain with a disk of another installation on the host.
    ///
    /// # Errors
    /// When the state can't be written.
    pub fn add_foreign(&self, id: DesktopId, name: &str) -> Result<()> {
        let domain = Domain {
            name: name.into(),
            vcpus: 1,
            memory_mib: 512,
            power: Power::Running,
            since_ms: now_ms(),
            off_at_ms: None,
        };
        let disk = Disk { image: "foreign.qcow2".into(), generation: 1, complete: true };
        let installation = InstallationId(Uuid::new_v4());
        self.world().put(Item { id, installation, disk: Some(disk), domain: Some(domain) }).map_err(written)
    }

    /// A domain dies as if its hypervisor process had crashed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn crash(&self, id: DesktopId) -> Result<()> {
        let mut world = self.world();
        let mut item = world.get(id).cloned().ok_or_else(|| missing(id))?;
        item.domain.as_mut().ok_or_else(|| missing(id))?.power = Power::Crashed;
        world.put(item).map_err(written)?;
        drop(world);
        self.screen_off(id);
        self.tell(id);
        Ok(())
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn screens(&self) -> MutexGuard<'_, HashMap<DesktopId, Viewed>> {
        self.screens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(&self) -> Result<()> {
        if self.config.state.as_ref().is_some_and(|s| s.join("offline").exists()) {
            return Err(Error::Unreachable("the simulated host is switched off".into()));
        }
        self.faults.enter(self.options.deadline).await
    }

    /// Our item of this id, `None` if there is nothing; an error if it belongs to others.
    fn ours(&self, world: &World, id: DesktopId) -> Result<Option<Item>> {
        match world.get(id) {
            Some(item) if item.installation != self.options.owner.installation => {
                Err(Error::Refused(format!("what has the id {id} on this host belongs to another installation")))
            }
            item => Ok(item.cloned()),
        }
    }

    /// One atomic change with a point before and after it.
    fn put(&self, world: &mut World, item: &Item) -> Result<()> {
        self.faults.point()?;
        world.put(item.clone()).map_err(written)?;
        self.faults.point()
    }

    fn tell(&self, id: DesktopId) {
        let _ = self.events.send(HostEvent::Desktop(id));
    }

    fn tell_after(&self, id: DesktopId, ms: i64) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms.unsigned_abs())).await;
            let _ = events.send(HostEvent::Desktop(id));
        });
    }

    /// The display goes dark: viewers are cut off and what was typed is forgotten.
    fn screen_off(&self, id: DesktopId) {
        if let Some(viewed) = self.screens().remove(&id) {
            viewed.viewers.iter().for_each(AbortHandle::abort);
        }
    }

    fn running(&self, id: DesktopId) -> Result<()> {
        let item = self.ours(&self.world(), id)?;
        let power = item.and_then(|i| i.domain).ok_or_else(|| missing(id))?.power_at(now_ms());
        if power == Power::Running { Ok(()) } else { Err(Error::Busy("the desktop is not running".into())) }
    }
}

#[async_trait]
impl Hypervisor for Sim {
    async fn host_info(&self) -> Result<HostInfo> {
        self.enter().await?;
        let world = self.world();
        let disks = world.all().filter(|i| i.disk.is_some()).count() as u64;
        Ok(HostInfo {
            hostname: self.name.clone(),
            cpus: self.config.cpus,
            memory_mib: self.config.memory_mib,
            memory_free_mib: Some(self.config.memory_mib.saturating_sub(memory_used(&world))),
            disk_mib: self.config.disk_mib,
            disk_free_mib: self.config.disk_mib.saturating_sub(disks),
            libvirt_version: String::new(),
            hypervisor_version: "simulated".into(),
            accel: Accel::None,
            accel_reason: "This host is simulated; no guest runs on it.".into(),
            accel_code: "simulated".into(),
            certificate_until: None,
        })
    }

    async fn ensure_disk(&self, spec: &DesktopSpec) -> Result<()> {
        spec::validate(spec)?;
        self.enter().await?;
        if self.config.images && !self.options.owner.image_dir.join(&spec.image_file).is_file() {
            return Err(Error::NotFound(format!("the image {}", spec.image_file)));
        }
        let mut world = self.world();
        let fresh = Item { id: spec.id, installation: self.options.owner.installation, disk: None, domain: None };
        let mut item = self.ours(&world, spec.id)?.unwrap_or(fresh);
        if item.disk.as_ref().is_some_and(|d| d.complete && d.generation == spec.generation) {
            return Ok(());
        }
        if item.domain.as_ref().is_some_and(|d| matches!(d.power_at(now_ms()), Power::Running | Power::Paused)) {
            return Err(Error::Busy("the disk can't be replaced while the desktop runs".into()));
        }
        item.disk = Some(Disk { image: spec.image_file.clone(), generation: spec.generation, complete: false });
        self.put(&mut world, &item)?;
        item.disk = Some(Disk { image: spec.image_file.clone(), generation: spec.generation, complete: true });
        self.put(&mut world, &item)
    }

    async fn ensure_defined(&self, spec: &DesktopSpec) -> Result<()> {
        spec::validate(spec)?;
        self.enter().await?;
        let mut world = self.world();
        let fresh = Item { id: spec.id, installation: self.options.owner.installation, disk: None, domain: None };
        let mut item = self.ours(&world, spec.id)?.unwrap_or(fresh);
        if world.named(&spec.name).is_some_and(|id| id != spec.id) {
            return Err(Error::Refused(format!("another domain on this host is named {}", spec.name)));
        }
        let old = item.domain.take();
        let running = old.as_ref().is_some_and(|d| matches!(d.power_at(now_ms()), Power::Running | Power::Paused));
        if running && old.as_ref().is_some_and(|d| d.name != spec.name) {
            return Err(Error::Busy("a running desktop can't be renamed".into()));
        }
        let mut domain = old.clone().unwrap_or_else(|| Domain {
            name: String::new(),
            vcpus: 0,
            memory_mib: 0,
            power: Power::Off,
            since_ms: 0,
            off_at_ms: None,
        });
        (domain.name, domain.vcpus, domain.memory_mib) = (spec.name.clone(), spec.vcpus, spec.memory_mib);
        if old.as_ref() == Some(&domain) {
            return Ok(());
        }
        item.domain = Some(domain);
        self.put(&mut world, &item)?;
        self.tell(spec.id);
        Ok(())
    }

    async fn ensure_running(&self, id: DesktopId) -> Result<()> {
        self.enter().await?;
        let mut world = self.world();
        let mut item = self.ours(&world, id)?.ok_or_else(|| missing(id))?;
        let domain = item.domain.as_mut().ok_or_else(|| missing(id))?;
        if domain.power_at(now_ms()) == Power::Running {
            return Ok(());
        }
        if !item.disk.as_ref().is_some_and(|d| d.complete) {
            return Err(Error::NotFound(format!("the disk of {id}")));
        }
        if memory_used(&world) + domain.memory_mib > self.config.memory_mib {
            return Err(Error::Full("no memory left for another desktop".into()));
        }
        (domain.power, domain.since_ms, domain.off_at_ms) = (Power::Running, now_ms(), None);
        self.put(&mut world, &item)?;
        self.tell(id);
        self.tell_after(id, self.config.boot_ms);
        Ok(())
    }

    async fn ensure_stopped(&self, id: DesktopId, how: Stop) -> Result<()> {
        self.enter().await?;
        let mut world = self.world();
        let Some(mut item) = self.ours(&world, id)? else { return Ok(()) };
        let Some(domain) = item.domain.as_mut() else { return Ok(()) };
        if !matches!(domain.power_at(now_ms()), Power::Running | Power::Paused) {
            return Ok(());
        }
        match how {
            Stop::Graceful if self.config.stubborn || domain.off_at_ms.is_some() => return Ok(()),
            Stop::Graceful if self.config.stop_ms > 0 => {
                domain.off_at_ms = Some(now_ms() + self.config.stop_ms);
                self.tell_after(id, self.config.stop_ms);
            }
            _ => {
                domain.power = Power::Off;
                self.screen_off(id);
            }
        }
        self.put(&mut world, &item)?;
        self.tell(id);
        Ok(())
    }

    async fn reset(&self, id: DesktopId) -> Result<()> {
        self.enter().await?;
        self.running(id)?;
        let mut world = self.world();
        let mut item = self.ours(&world, id)?.ok_or_else(|| missing(id))?;
        item.domain.as_mut().ok_or_else(|| missing(id))?.since_ms = now_ms();
        self.put(&mut world, &item)?;
        self.tell(id);
        self.tell_after(id, self.config.boot_ms);
        Ok(())
    }

    async fn ensure_absent(&self, id: DesktopId) -> Result<()> {
        self.enter().await?;
        let mut world = self.world();
        let Some(mut item) = self.ours(&world, id)? else { return Ok(()) };
        if item.domain.take().is_some() {
            self.screen_off(id);
            self.put(&mut world, &item)?;
        }
        if item.disk.take().is_some() {
            self.put(&mut world, &item)?;
        }
        self.tell(id);
        Ok(())
    }

    async fn observe(&self, id: DesktopId) -> Result<Observed> {
        self.enter().await?;
        let item = self.ours(&self.world(), id)?;
        Ok(item.map(|i| i.observed(now_ms(), self.config.boot_ms)).unwrap_or_default())
    }

    async fn inventory(&self) -> Result<Vec<Found>> {
        self.enter().await?;
        let (world, now) = (self.world(), now_ms());
        let mine = world.all().filter(|i| i.installation == self.options.owner.installation);
        Ok(mine.map(|i| Found { id: i.id, observed: i.observed(now, self.config.boot_ms) }).collect())
    }

    async fn open_display(&self, id: DesktopId, display: Display) -> Result<OwnedFd> {
        self.enter().await?;
        self.running(id)?;
        if let Some(folder) = &self.config.displays {
            let socket = folder.join(if display == Display::Vnc { "vnc.sock" } else { "spice.sock" });
            let stream = UnixStream::connect(socket).map_err(|e| Error::Refused(format!("no display: {e}")))?;
            return Ok(stream.into());
        }
        if display != Display::Vnc {
            return Err(Error::Unsupported("a simulated desktop has no SPICE display".into()));
        }
        let mut screens = self.screens();
        let viewed = screens.entry(id).or_insert_with(|| Viewed {
            screen: Screen::new(id, self.config.width, self.config.height),
            viewers: Vec::new(),
        });
        viewed.viewers.retain(|v| !v.is_finished());
        let (fd, task) =
            viewed.screen.serve(self.config.mode).map_err(|e| Error::Refused(format!("no display: {e}")))?;
        viewed.viewers.push(task.abort_handle());
        Ok(fd)
    }

    async fn screenshot(&self, id: DesktopId) -> Result<Vec<u8>> {
        self.enter().await?;
        self.running(id)?;
        let screen = self.screens().get(&id).map(|v| Arc::clone(&v.screen));
        let screen = screen.unwrap_or_else(|| Screen::new(id, self.config.width, self.config.height));
        let (width, height, rgb) = screen.picture();
        png::encode_rgb(width, height, &rgb).map_err(|e| Error::Refused(e.to_string()))
    }

    async fn signed_in(&self, id: DesktopId) -> Result<Option<bool>> {
        self.enter().await?;
        self.running(id)?;
        // Somebody who typed is signed in.
        Ok(Some(self.screens().get(&id).is_some_and(|v| v.screen.typed())))
    }

    async fn stats(&self) -> Result<Vec<DesktopStats>> {
        self.enter().await?;
        let (world, now) = (self.world(), now_ms());
        let mine = world.all().filter(|i| i.installation == self.options.owner.installation);
        let load = |i: &Item| {
            let domain = i.domain.as_ref().filter(|d| d.power_at(now) == Power::Running)?;
            let cpu_time_ns = (now - domain.since_ms).unsigned_abs() * 20_000 * u64::from(domain.vcpus);
            Some(DesktopStats { id: i.id, cpu_time_ns, rss_kib: domain.memory_mib * 768 })
        };
        Ok(mine.filter_map(load).collect())
    }

    fn events(&self) -> broadcast::Receiver<HostEvent> {
        self.events.subscribe()
    }
}

impl Config {
    fn parse(uri: &Uri, faults: &Faults) -> Result<Self> {
        let mut c = Self {
            state: None,
            cpus: 64,
            memory_mib: 256 * 1024,
            disk_mib: 4 * 1024 * 1024,
            boot_ms: 0,
            stop_ms: 0,
            stubborn: false,
            images: false,
            mode: Mode::Picture,
            displays: None,
            width: 640,
            height: 400,
        };
        for (key, value) in &uri.query {
            match key.as_str() {
                "state" => c.state = Some(PathBuf::from(value)),
                "cpus" => c.cpus = number(key, value)?,
                "memory_mib" => c.memory_mib = number(key, value)?,
                "disk_mib" => c.disk_mib = number(key, value)?,
                "boot_ms" => c.boot_ms = number::<u32>(key, value)?.into(),
                "stop_ms" => c.stop_ms = number::<u32>(key, value)?.into(),
                "delay_ms" => faults.set_delay(Duration::from_millis(number(key, value)?)),
                "fail_every" => faults.set_fail_every(number(key, value)?),
                "kill_at" => faults.set_kill_at(number(key, value)?),
                "stubborn" => c.stubborn = number::<u8>(key, value)? != 0,
                "images" => c.images = number::<u8>(key, value)? != 0,
                "width" => c.width = number(key, value)?,
                "height" => c.height = number(key, value)?,
                "displays" => c.displays = Some(PathBuf::from(value)),
                "display" => {
                    c.mode = match value.as_str() {
                        "picture" => Mode::Picture,
                        "flood" => Mode::Flood,
                        "sink" => Mode::Sink,
                        _ => return Err(Error::Invalid("display is picture, flood or sink".into())),
                    }
                }
                _ => return Err(Error::Invalid(format!("a simulated host has no parameter {key}"))),
            }
        }
        if !(16..=8192).contains(&c.width) || !(16..=8192).contains(&c.height) {
            return Err(Error::Invalid("a display has 16 to 8192 pixels each way".into()));
        }
        Ok(c)
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::Invalid(format!("{key} wants a number")))
}

fn memory_used(world: &World) -> u64 {
    let now = now_ms();
    let running = world.all().filter_map(|i| i.domain.as_ref()).filter(|d| d.power_at(now) == Power::Running);
    running.map(|d| d.memory_mib).sum()
}

fn missing(id: DesktopId) -> Error {
    Error::NotFound(format!("the desktop {id}"))
}

fn written(e: std::io::Error) -> Error {
    Error::Full(format!("the simulated host's state can't be written: {e}"))
}

/// Wall clock, because the world outlives the process.
#[expect(clippy::disallowed_methods, reason = "the simulated world has its own clock, as a real host has")]
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
