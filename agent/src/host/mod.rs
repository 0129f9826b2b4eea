//! The only door to the operating system.
//!
//! Everything above reads files, gauges and the network through [`Host`], so that a test can give it a
//! folder of made-up `/proc` and `/sys` files and a network that answers as told.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tram_wire::helper::Request;

mod burst;
pub mod limits;
pub mod notify;
pub mod peer;
pub mod probe;
mod run;
mod system;
pub mod uevents;

#[cfg(test)]
pub mod fake;

pub use burst::Burst;
pub use run::{Ran, run};
pub use system::{System, wall_ms};

/// A computer.
pub trait Host {
    /// A small text file, trimmed; `None` if it can't be read. At most 64 KiB.
    fn read(&self, path: &str) -> Option<String>;

    /// Names in a folder, sorted; empty if it can't be read.
    fn list(&self, path: &str) -> Vec<String>;

    /// A small binary file.
    fn bytes(&self, path: &str) -> Option<Vec<u8>>;

    /// Runs a program of the distribution to its end, or kills it with all its children when the time is over.
    fn run(&self, program: &str, args: &[&str], within: Duration) -> Ran;

    /// As [`Host::run`], with at most so many bytes of what it writes, and killed as soon as `stop` says so.
    fn run_until(&self, program: &str, args: &[&str], within: Duration, most: usize, stop: &dyn Fn() -> bool) -> Ran {
        let _ = (most, stop);
        self.run(program, args, within)
    }

    /// Sends `request` to a local service (a socket's path, or an address) and reads until it closes.
    fn ask(&self, at: &str, request: &[u8], within: Duration) -> Option<Vec<u8>>;

    /// Asks the process that may do such things; `None` if there is none. Nothing, if it did not answer in time or `stop`
    /// said that nobody waits any more.
    fn helped(&self, request: &Request, within: Duration, stop: &dyn Fn() -> bool) -> Option<Vec<u8>> {
        let _ = (request, within, stop);
        None
    }

    /// Another handle on the same computer, for a thread of its own.
    #[must_use]
    fn again(&self) -> Self
    where
        Self: Sized;

    /// The wall clock, Unix milliseconds.
    fn wall_ms(&self) -> i64;

    /// Gauges that cost nothing to read often.
    fn gauges(&mut self) -> Gauges;

    /// Local file systems.
    fn mounts(&mut self) -> Vec<Mount>;

    /// Temperature sensors.
    fn sensors(&mut self) -> Vec<Sensor>;

    /// Interface name and address with prefix length, such as `("eth0", "10.0.0.5/24")`.
    fn addresses(&self) -> Vec<(String, String)>;

    /// Round trip to a host by ICMP, or by a TCP handshake (a refusal is an answer too).
    fn ping(&self, to: IpAddr, within: Duration) -> impl Future<Output = Option<Duration>>;

    /// Sends several packets to a host, by ICMP or as handshakes with one of `ports`; `None` if nothing answers.
    fn burst(&self, to: IpAddr, ports: &[u16], packets: u16, within: Duration) -> impl Future<Output = Option<Burst>>;

    /// Milliseconds since boot, sleep included.
    fn boot_ms(&self) -> u64 {
        let text = self.read("/proc/uptime").unwrap_or_default();
        let seconds = text.split_whitespace().next().and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of milliseconds since boot
        let ms = (seconds * 1000.0).max(0.0) as u64;
        ms
    }

    /// Time a resolver takes to answer anything at all.
    fn dns(&self, resolver: SocketAddr, within: Duration) -> impl Future<Output = Option<Duration>>;

    /// Time of a TCP handshake with a named host.
    fn reach(&self, host: &str, port: u16, within: Duration) -> impl Future<Output = Option<Duration>>;
}

/// Processor and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// 0 to 100, all cores together, since the previous reading.
    pub cpu_percent: f32,
    /// Logical processors.
    pub cpus: u32,
    /// Bytes.
    pub memory_total: u64,
    /// Bytes still available without swapping.
    pub memory_available: u64,
}

/// A mounted local file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Device.
    pub device: String,
    /// Where.
    pub at: String,
    /// Bytes.
    pub total: u64,
    /// Bytes for ordinary users.
    pub free: u64,
    /// Mounted read-only.
    pub read_only: bool,
    /// Share of inodes still free, if the file system counts them.
    pub inodes_free_percent: Option<u64>,
}

/// A temperature sensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sensor {
    /// Label.
    pub label: String,
    /// Degrees Celsius.
    pub celsius: f32,
    /// The maker's critical limit.
    pub critical: Option<f32>,
}
