//! What the computer is made of.

use tram_wire::heartbeat::{Disk, Hardware};
use tram_wire::instance::real;

use super::MIB;
use crate::host::Host;

/// Reads DMI, processor, memory and disks.
#[must_use]
pub fn collect(host: &mut impl Host) -> Hardware {
    let gauges = host.gauges();
    let dmi = |name: &str| host.read(&format!("/sys/class/dmi/id/{name}")).and_then(|v| real(&v));
    Hardware {
        vendor: dmi("sys_vendor").or_else(|| dmi("board_vendor")),
        model: dmi("product_name").or_else(|| dmi("board_name")),
        serial: dmi("product_serial").or_else(|| dmi("board_serial")),
        firmware: dmi("bios_version"),
        cpu_model: host.read("/proc/cpuinfo").and_then(|t| cpu_model(&t)),
        cpus: gauges.cpus,
        memory_mib: gauges.memory_total / MIB,
        disks: disks(host),
    }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name") || l.starts_with("Model"))?;
    real(line.split_once(':')?.1)
}

pub(super) fn disks(host: &impl Host) -> Vec<Disk> {
    // Not disks of the computer: loops, RAM, zram, optical, network and stacked devices.
    const NOT: [&str; 9] = ["loop", "ram", "zram", "sr", "fd", "nbd", "dm-", "md", "mtdblock"];
    host.list("/sys/block")
        .into_iter()
        .filter(|n| !NOT.iter().any(|p| n.starts_with(p)))
        .filter_map(|name| {
            let read = |leaf: &str| host.read(&format!("/sys/block/{name}/{leaf}"));
            // A path to an NVMe disk that stands here itself, and has no device to ask; the boot areas of an eMMC.
            if read("hidden").as_deref() == Some("1") || (name.starts_with("mmcblk") && name.contains("boot")) {
                return None;
            }
            // The kernel counts 512-byte sectors here whatever the disk says.
            let size_mib = read("size")?.parse::<u64>().ok()? / 2048;
            let model = read("device/model").and_then(|m| real(&m));
            let rotational = read("queue/rotational").as_deref() == Some("1");
            (size_mib > 0).then_some(Disk { name, model, size_mib, rotational })
        })
        .take(32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn placeholders_are_absent_and_the_board_stands_in() {
        let mut host = Fake::new()
            .file("/sys/class/dmi/id/sys_vendor", "Default string\n")
            .file("/sys/class/dmi/id/board_vendor", "ASRock\n")
            .file("/sys/class/dmi/id/product_name", "To Be Filled By O.E.M.\n")
            .file("/sys/class/dmi/id/product_serial", "0000000000\n");
        let h = collect(&mut host);
        assert_eq!((h.vendor.as_deref(), h.model, h.serial), (Some("ASRock"), None, None));
    }

    #[test]
    fn disks_are_the_real_ones() {
        let mut host = Fake::new()
            .file("/sys/block/sda/size", "250069680")
            .file("/sys/block/sda/device/model", "Samsung SSD 860 ")
            .file("/sys/block/sda/queue/rotational", "0")
            .file("/sys/block/loop0/size", "8")
            .file("/sys/block/sdb/size", "0")
            .file("/sys/block/nvme0c0n1/size", "250069680")
            .file("/sys/block/nvme0c0n1/hidden", "1")
            .file("/sys/block/mmcblk0boot0/size", "8192")
            .file("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Intel(R)  Core(TM) i3\n");
        let h = collect(&mut host);
        let expected =
            Disk { name: "sda".into(), model: Some("Samsung SSD 860".into()), size_mib: 122_104, rotational: false };
        assert_eq!(h.disks, [expected]);
        assert_eq!(h.cpu_model.as_deref(), Some("Intel(R) Core(TM) i3"));
    }
}
