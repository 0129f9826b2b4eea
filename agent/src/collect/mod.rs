//! What the agent sees of its computer, as wire types.

pub mod hardware;
pub mod network;
pub mod vitals;

use tram_wire::hello::Hello;
use tram_wire::version;

use crate::host::Host;

const MIB: u64 = 1024 * 1024;

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
