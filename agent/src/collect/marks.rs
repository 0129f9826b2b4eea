//! Serial numbers that come with the hardware: evidence whether this is the computer that was enrolled.
//!
//! Only what is built in counts: a dock, a stick or a USB card changes places every day.

use tram_wire::instance::{Marks, permanent, real};

use super::hardware::disks;
use crate::host::Host;

/// Reads them. What this account may not read is left out.
#[must_use]
pub fn collect(host: &impl Host) -> Marks {
    Marks {
        board: host.read("/sys/class/dmi/id/board_serial").and_then(|v| real(&v)),
        disks: disks(host).iter().filter_map(|d| disk(host, &d.name)).collect(),
        macs: macs(host),
    }
    .plain()
}

fn disk(host: &impl Host, name: &str) -> Option<String> {
    let at = |leaf: &str| format!("/sys/block/{name}/{leaf}");
    if host.read(&at("removable")).as_deref() == Some("1") {
        return None;
    }
    let text = |leaf: &str| host.read(&at(leaf)).and_then(|v| real(&v));
    text("device/serial")
        .or_else(|| text("serial"))
        .or_else(|| page_80(host, &at("device/vpd_pg80")))
        .or_else(|| text("wwid"))
}

/// The serial number a SCSI or SATA disk tells: four bytes of head, then text.
fn page_80(host: &impl Host, path: &str) -> Option<String> {
    let bytes = host.bytes(path)?;
    real(&String::from_utf8_lossy(bytes.get(4..)?))
}

fn macs(host: &impl Host) -> Vec<String> {
    let (mut inside, mut usb) = (Vec::new(), Vec::new());
    for name in host.list("/sys/class/net") {
        let at = |leaf: &str| host.read(&format!("/sys/class/net/{name}/{leaf}"));
        // Without a device it is a bridge, a tunnel or the loopback.
        let Some(device) = at("device/uevent") else { continue };
        // Type 0: burnt into the card. Anything else was made up since.
        if at("addr_assign_type").as_deref() != Some("0") {
            continue;
        }
        let Some(mac) = at("address").and_then(|a| permanent(&a)) else { continue };
        if device.lines().any(|l| l.starts_with("MODALIAS=usb:")) { usb.push(mac) } else { inside.push(mac) }
    }
    if inside.is_empty() { usb } else { inside }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn card(host: Fake, name: &str, mac: &str, kind: &str, bus: &str) -> Fake {
        host.file(&format!("/sys/class/net/{name}/device/uevent"), &format!("DRIVER=x\nMODALIAS={bus}:v8086\n"))
            .file(&format!("/sys/class/net/{name}/addr_assign_type"), kind)
            .file(&format!("/sys/class/net/{name}/address"), mac)
    }

    #[test]
    fn what_is_built_in_is_read_and_what_comes_and_goes_is_not() {
        let host = Fake::new()
            .file("/sys/class/dmi/id/board_serial", "Default string\n")
            .file("/sys/block/nvme0n1/size", "250069680")
            .file("/sys/block/nvme0n1/device/serial", "S3Z5NB0K  \n")
            .file("/sys/block/sda/size", "250069680")
            .file("/sys/block/sdb/size", "60000000")
            .file("/sys/block/sdb/removable", "1")
            .file("/sys/block/sdb/device/serial", "STICK")
            .binary("/sys/block/sda/device/vpd_pg80", b"\0\x80\0\x0850026B77")
            .file("/sys/class/net/lo/address", "00:00:00:00:00:00");
        let host = card(host, "enp1s0", "00:1b:21:aa:bb:cc", "0", "pci");
        let host = card(host, "enx1", "00:e0:4c:68:00:01", "0", "usb");
        let host = card(host, "wlan0", "00:1b:21:00:00:09", "1", "pci");
        let m = collect(&host);
        assert_eq!((m.board, m.disks), (None, vec!["50026B77".to_owned(), "S3Z5NB0K".to_owned()]));
        assert_eq!(m.macs, ["00:1b:21:aa:bb:cc"]);
    }

    #[test]
    fn a_thin_client_with_nothing_but_a_usb_card_shows_that_one() {
        let m = collect(&card(Fake::new(), "enx1", "00:e0:4c:68:00:01", "0", "usb"));
        assert_eq!(m.macs, ["00:e0:4c:68:00:01"]);
    }
}
