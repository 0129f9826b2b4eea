//! A made-up computer for tests.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tram_wire::helper::{Answer, Request};

use super::system::{bytes_below, list_below, read_below};
use super::{Burst, Gauges, Host, Mount, Ran, Sensor};

/// Files in a temporary folder, gauges, programs and network as told.
#[derive(Clone)]
pub struct Fake {
    root: Arc<tempfile::TempDir>,
    /// What programs answer: the command line up to its end, and the output. `Err`: it never returns.
    pub programs: Vec<(String, Result<String, ()>)>,
    /// What local services answer, by their address.
    pub services: Vec<(String, Vec<u8>)>,
    /// What helpers answer, by what is asked; `None`: there are none.
    pub helpers: Option<Vec<(Request, Answer, String)>>,
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
            root: Arc::new(tempfile::tempdir().unwrap()),
            programs: Vec::new(),
            services: Vec::new(),
            helpers: None,
            gauges: Gauges { cpu_percent: 5.0, cpus: 4, memory_total: 8 << 30, memory_available: 6 << 30 },
            mounts: Vec::new(),
            sensors: Vec::new(),
            addresses: Vec::new(),
            pings: Vec::new(),
            resolvers: Vec::new(),
            wall_ms: 1_795_000_000_000,
        }
    }

    /// Adds a program: what its command line begins with, and what it answers.
    pub fn program(mut self, line: &str, out: &str) -> Self {
        self.programs.push((line.to_owned(), Ok(out.to_owned())));
        self
    }

    /// Adds a binary file.
    pub fn binary(self, path: &str, bytes: &[u8]) -> Self {
        let me = self.file(path, "");
        fs::write(me.root.path().join(path.trim_start_matches('/')), bytes).unwrap();
        me
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
    fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        bytes_below(self.root.path(), path)
    }
    fn run(&self, program: &str, args: &[&str], within: Duration) -> Ran {
        let line = [&[program], args].concat().join(" ");
        match self.programs.iter().find(|(l, _)| line.starts_with(l.as_str())) {
            None => Ran::Absent,
            Some((_, Ok(out))) => Ran::Done { code: 0, out: out.clone() },
            Some((_, Err(()))) => {
                std::thread::sleep(within.min(Duration::from_millis(50)));
                Ran::TimedOut
            }
        }
    }
    fn ask(&self, at: &str, _: &[u8], _: Duration) -> Option<Vec<u8>> {
        self.services.iter().find(|(a, _)| a == at).map(|(_, out)| out.clone())
    }
    fn helped(&self, request: &Request, _: Duration, _: &dyn Fn() -> bool) -> Option<Vec<u8>> {
        let all = self.helpers.as_ref()?;
        Some(all.iter().find(|(r, ..)| r == request).map_or_else(Vec::new, |(_, answer, said)| answer.write(said)))
    }
    fn again(&self) -> Self {
        self.clone()
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
    async fn burst(&self, to: IpAddr, _: &[u16], packets: u16, within: Duration) -> Option<Burst> {
        let us = u32::try_from(self.ping(to, within).await?.as_micros()).unwrap();
        Some(Burst { sent: packets, took_us: vec![us; packets.into()], tcp: false })
    }
    async fn dns(&self, resolver: SocketAddr, _: Duration) -> Option<Duration> {
        self.resolvers.iter().find(|(r, _)| *r == resolver).map(|(_, t)| *t)
    }
    async fn reach(&self, _: &str, _: u16, _: Duration) -> Option<Duration> {
        None
    }
}
