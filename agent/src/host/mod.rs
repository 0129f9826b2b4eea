//! The only door to the operating system.
//!
//! Everything above reads files, gauges and the network through [`Host`], so that a test can give it a
//! folder of made-up `/proc` and `/sys` files and a network that answers as told.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub mod limits;
pub mod peer;
mod probe;
mod system;

#[cfg(test)]
pub mod fake;

pub use system::{System, wall_ms};

/// A computer.
pub trait Host {
    /// A small text file, trimmed; `None` if it can't be read. At most 64 KiB.
    fn read(&self, path: &str) -> Option<String>;

    /// Names in a folder, sorted; empty if it can't be read.
    fn list(&self, path: &str) -> Vec<String>;

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
