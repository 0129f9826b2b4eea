//! What the agent sees of its computer, as wire types.

pub mod disks;
pub mod gauges;
pub mod hardware;
pub mod ipp;
pub mod keeper;
pub mod line;
pub mod marks;
pub mod monitors;
pub mod net;
pub mod network;
pub mod os;
pub mod power;
pub mod printers;
pub mod tokens;
pub mod usb;
pub mod vitals;

use std::collections::BTreeMap;
use std::time::Duration;

use tram_wire::hello::Hello;
use tram_wire::instance::Instance;
use tram_wire::report::Item;
use tram_wire::version;

use crate::host::Host;

const MIB: u64 = 1024 * 1024;

/// Items by section.
pub type Inventory = BTreeMap<String, Vec<Item>>;

/// A part of the inventory, read beside everything else because it may take long or never end.
pub struct Collector<H> {
    /// Name of its section, for good.
    pub section: &'static str,
    /// How often it looks.
    pub every: Duration,
    /// How long it may take; it is left alone afterwards.
    pub within: Duration,
    /// Whether what comes and goes is an event somebody waits for.
    pub events: bool,
    /// Looks.
    pub look: fn(&H) -> Vec<Item>,
}

/// All of them. What costs a program or a sleeping disk looks rarely.
#[must_use]
pub fn collectors<H: Host>() -> [Collector<H>; 8] {
    let c = |section, every_s, within_s, events, look: fn(&H) -> Vec<Item>| Collector {
        section,
        every: Duration::from_secs(every_s),
        within: Duration::from_secs(within_s),
        events,
        look,
    };
    [
        c("usb", 60, 5, true, usb::collect),
        c("printers", 60, 10, true, printers::collect),
        c("power", 60, 15, true, power::collect),
        c("net", 300, 5, false, net::collect),
        c("monitors", 300, 5, true, monitors::collect),
        c("tokens", 3600, 30, false, tokens::collect),
        c("os", 600, 15, false, os::collect),
        c("disks", 6 * 3600, 60, false, disks::collect),
    ]
}

/// An item with facts to come.
pub(crate) fn item(kind: &str, id: &str) -> Item {
    Item { id: id.to_owned(), kind: kind.to_owned(), ..Item::default() }
}

/// Fills an item in.
pub(crate) trait Fill {
    fn named(self, name: Option<String>) -> Self;
    fn fact(self, name: &str, value: Option<String>) -> Self;
    fn or_fact(self, name: &str, value: impl FnOnce() -> Option<String>) -> Self;
}

impl Fill for Item {
    fn named(mut self, name: Option<String>) -> Self {
        self.name = name;
        self
    }

    fn fact(mut self, name: &str, value: Option<String>) -> Self {
        if let Some(v) = value.filter(|v| !v.is_empty()) {
            self.facts.insert(name.to_owned(), v.chars().take(tram_wire::report::limits::TEXT).collect());
        }
        self
    }

    fn or_fact(self, name: &str, value: impl FnOnce() -> Option<String>) -> Self {
        if self.facts.contains_key(name) { self } else { self.fact(name, value()) }
    }
}

/// Who this computer says it is.
#[must_use]
pub fn hello(host: &impl Host, connects: u64) -> Hello {
    let read = |path: &str| host.read(path).unwrap_or_default();
    Hello {
        versions: version::OURS,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        at_ms: host.wall_ms(),
        hostname: read("/proc/sys/kernel/hostname"),
        os: os_name(&read("/etc/os-release")),
        kernel: read("/proc/sys/kernel/osrelease"),
        arch: std::env::consts::ARCH.to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        connects,
        instance: Some(Instance { marks: marks::collect(host), ..Instance::default() }),
        key: None,
    }
}

fn os_name(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map(|v| v.trim_matches('"').to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn a_hello_names_the_computer() {
        let host = Fake::new()
            .file("/proc/sys/kernel/hostname", "mot-cua-03\n")
            .file("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
        let h = hello(&host, 4);
        assert_eq!((h.hostname.as_str(), h.os.as_str()), ("mot-cua-03", "Debian GNU/Linux 12 (bookworm)"));
        assert_eq!((h.connects, h.kernel.as_str()), (4, ""));
    }
}
