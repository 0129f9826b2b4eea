//! A made-up computer for tests.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::system::{list_below, read_below};
use super::{Gauges, Host, Mount, Sensor};

/// Files in a temporary folder, gauges and network as told.
pub struct Fake {
    root: tempfile::TempDir,
    /// What [`Host::gauges`] answers.
    pub gauges: Gauges,
    /// What [`Host::mounts`] answers.
    pub mounts: Vec<Mount>,
    /// What [`Host::sensors`] answers.
    pub sensors: Vec<Sensor>,
    /// What [`Host::addresses`] answers.
    pub addresses: Vec<(String, String)>,
    /// Hosts that answer a ping, and how fast.
    pub pings: Vec<(IpAddr, Duration)>,
    /// Resolvers that answer, and how fast.
    pub resolvers: Vec<(SocketAddr, Duration)>,
    /// The wall clock.
    pub wall_ms: i64,
}

#[expect(clippy::new_without_default, reason = "it makes a folder: no default value does that")]
impl Fake {
    /// An empty computer.
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            gauges: Gauges { cpu_percent: 5.0, cpus: 4, memory_total: 8 << 30, memory_available: 6 << 30 },
            mounts: Vec::new(),
            sensors: Vec::new(),
            addresses: Vec::new(),
            pings: Vec::new(),
            resolvers: Vec::new(),
            wall_ms: 1_795_000_000_000,
        }
    }

    /// Adds a file.
    pub fn file(self, path: &str, text: &str) -> Self {
        let at = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
        self
    }
}

impl Host for Fake {
    fn read(&self, path: &str) -> Option<String> {
        read_below(self.root.path(), path)
    }
    fn list(&self, path: &str) -> Vec<String> {
        list_below(self.root.path(), path)
    }
    fn wall_ms(&self) -> i64 {
        self.wall_ms
    }
    fn gauges(&mut self) -> Gauges {
        self.gauges
    }
    fn mounts(&mut self) -> Vec<Mount> {
        self.mounts.clone()
    }
    fn sensors(&mut self) -> Vec<Sensor> {
        self.sensors.clone()
    }
    fn addresses(&self) -> Vec<(String, String)> {
        self.addresses.clone()
    }
    async fn ping(&self, to: IpAddr, _: Duration) -> Option<Duration> {
        self.pings.iter().find(|(ip, _)| *ip == to).map(|(_, t)| *t)
    }
    async fn dns(&self, resolver: SocketAddr, _: Duration) -> Option<Duration> {
        self.resolvers.iter().find(|(r, _)| *r == resolver).map(|(_, t)| *t)
    }
    async fn reach(&self, _: &str, _: u16, _: Duration) -> Option<Duration> {
        None
    }
}
