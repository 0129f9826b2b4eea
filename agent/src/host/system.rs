//! The real computer: sysinfo for gauges, plain reads of `/proc` and `/sys`, nix for addresses.

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sysinfo::{Components, CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind};
use tram_wire::helper::{FOLDER, Request};

use super::{Burst, Gauges, Host, Mount, Ran, Sensor, burst, probe, run};

/// Longest file worth reading.
const MAX_FILE: u64 = 64 * 1024;
/// Between the first two readings of the processor; nobody but `doctor` waits for it.
const BASE_LINE: Duration = Duration::from_millis(120);

/// This computer.
///
/// sysinfo's `refresh_all` walks every process and costs a thousand times what processor and memory
/// do; each call below refreshes only what it returns, and opens what it needs when it is first asked.
pub struct System {
    root: PathBuf,
    /// Where those listen that may do more.
    helpers: PathBuf,
    sys: Option<sysinfo::System>,
    disks: Option<Disks>,
    components: Option<Components>,
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl System {
    /// Opens nothing yet: what a restricted account can't read is simply absent later.
    #[must_use]
    pub fn new() -> Self {
        Self::at(PathBuf::from("/"))
    }

    /// A computer whose files are below another folder; gauges and network are this one's.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root, helpers: FOLDER.into(), sys: None, disks: None, components: None }
    }

    /// With helpers that listen in another folder.
    #[must_use]
    pub fn helped_by(self, folder: &Path) -> Self {
        Self { helpers: folder.to_owned(), ..self }
    }
}

/// Reads below `root`: shared with the fake host.
pub(super) fn read_below(root: &Path, path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(root.join(path.trim_start_matches('/'))).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// Reads bytes below `root`.
pub(super) fn bytes_below(root: &Path, path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(root.join(path.trim_start_matches('/'))).ok()?.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Share of inodes free, in percent.
fn inodes(at: &Path) -> Option<u64> {
    let s = nix::sys::statvfs::statvfs(at).ok()?;
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)] // their width differs between architectures
    let (all, free) = (s.files() as u64, s.files_available() as u64);
    (all > 0).then(|| free.saturating_mul(100) / all)
}

/// Lists below `root`.
pub(super) fn list_below(root: &Path, path: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join(path.trim_start_matches('/'))) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The wall clock, Unix milliseconds.
#[must_use]
#[allow(clippy::disallowed_methods)] // the one place that asks
pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Host for System {
    fn read(&self, path: &str) -> Option<String> {
        read_below(&self.root, path)
    }

    fn list(&self, path: &str) -> Vec<String> {
        list_below(&self.root, path)
    }

    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        bytes_below(&self.root, path)
    }

    fn run(&self, program: &str, args: &[&str], within: Duration) -> Ran {
        run::run(program, args, within)
    }

    fn run_until(&self, program: &str, args: &[&str], within: Duration, most: usize, stop: &dyn Fn() -> bool) -> Ran {
        run::run_until(program, args, within, u64::try_from(most).unwrap_or(u64::MAX), stop)
    }

    fn ask(&self, at: &str, request: &[u8], within: Duration) -> Option<Vec<u8>> {
        run::ask(at, request, within)
    }

    fn helped(&self, request: &Request, within: Duration, stop: &dyn Fn() -> bool) -> Option<Vec<u8>> {
        run::ask_until(&self.helpers.join(request.room().socket()), &request.line(), within, stop)
    }

    fn again(&self) -> Self {
        // Gauges need a base line of their own; whoever wants them begins anew.
        Self::at(self.root.clone()).helped_by(&self.helpers)
    }

    fn wall_ms(&self) -> i64 {
        wall_ms()
    }

    fn gauges(&mut self) -> Gauges {
        if self.sys.is_none() {
            self.sys = sysinfo::System::new().ok();
            // The first reading is the base line of the processor's percentage.
            if let Some(s) = &mut self.sys {
                s.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
                std::thread::sleep(BASE_LINE);
            }
        }
        let Some(sys) = &mut self.sys else { return Gauges::default() };
        sys.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage());
        sys.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Gauges {
            cpu_percent: sys.global_cpu_usage(),
            cpus: u32::try_from(sys.cpus().len()).unwrap_or(0),
            memory_total: sys.total_memory(),
            memory_available: sys.available_memory(),
        }
    }

    fn mounts(&mut self) -> Vec<Mount> {
        self.disks = self.disks.take().or_else(|| Disks::new().ok());
        let Some(disks) = &mut self.disks else { return Vec::new() };
        // Network file systems are left out at compile time: a dead server must not hang the agent.
        disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
        disks
            .iter()
            .map(|d| Mount {
                device: d.name().to_string_lossy().into_owned(),
                at: d.mount_point().to_string_lossy().into_owned(),
                total: d.total_space(),
                free: d.available_space(),
                read_only: d.is_read_only(),
                inodes_free_percent: inodes(d.mount_point()),
            })
            .collect()
    }

    fn sensors(&mut self) -> Vec<Sensor> {
        self.components = self.components.take().or_else(|| Components::new().ok());
        let Some(components) = &mut self.components else { return Vec::new() };
        components.refresh(true);
        components
            .iter()
            .filter_map(|c| {
                Some(Sensor { label: c.label().to_owned(), celsius: c.temperature()?, critical: c.critical() })
            })
            .collect()
    }

    fn addresses(&self) -> Vec<(String, String)> {
        let Ok(all) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
        all.filter_map(|i| {
            let address = i.address?;
            let (ip, bits) = if let Some(v4) = address.as_sockaddr_in() {
                let mask = i.netmask.and_then(|m| m.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip))?;
                (IpAddr::V4(v4.ip()), u32::from(mask).count_ones())
            } else if let Some(v6) = address.as_sockaddr_in6() {
                let mask = i.netmask.and_then(|m| m.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip))?;
                (IpAddr::V6(v6.ip()), u128::from(mask).count_ones())
            } else {
                return None;
            };
            Some((i.interface_name, format!("{ip}/{bits}")))
        })
        .collect()
    }

    async fn ping(&self, to: IpAddr, within: Duration) -> Option<Duration> {
        probe::ping(to, within).await
    }

    async fn burst(&self, to: IpAddr, ports: &[u16], packets: u16, within: Duration) -> Option<Burst> {
        burst::burst(to, ports, packets, within).await
    }

    async fn dns(&self, resolver: SocketAddr, within: Duration) -> Option<Duration> {
        probe::dns(resolver, within).await
    }

    async fn reach(&self, host: &str, port: u16, within: Duration) -> Option<Duration> {
        probe::reach(host, port, within).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let g = System::new().gauges();
        assert!(g.cpus > 0 && g.memory_total > 0 && g.memory_available <= g.memory_total, "{g:?}");
    }

    #[test]
    fn a_file_is_cut_at_the_limit_and_rubbish_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("big"), "x".repeat(100_000)).unwrap();
        fs::write(dir.path().join("rubbish"), [0xff, 0xfe]).unwrap();
        assert_eq!(read_below(dir.path(), "/big").map(|t| t.len()), Some(65_536));
        assert_eq!(read_below(dir.path(), "/rubbish"), None);
        assert_eq!(read_below(dir.path(), "/absent"), None);
    }

    #[test]
    fn reading_again_and_again_opens_no_more_files() {
        // sysinfo once kept descriptors; an agent lives for months.
        let mut host = System::new();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let turn = |h: &mut System| {
            h.gauges();
            h.mounts();
            h.sensors();
            h.addresses();
        };
        turn(&mut host);
        let before = open();
        (0..50).for_each(|_| turn(&mut host));
        // Other tests of this process open files too; a leak of one a turn would still show.
        assert!(open() < before + 40, "descriptors grew from {before} to {}", open());
    }
}
