//! KVM or software emulation: decided by facts and, last, by a guest that really runs.
//!
//! `/dev/kvm` and libvirt's promise are not enough: on some (nested) machines both are there and guests
//! hang at their first instruction. So a tiny guest has to switch itself off within a deadline.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;
use virt::connect::Connect;
use virt::sys;

use super::convert;
use super::ffi::{Note, Notes, Subscription};
use super::xml::el;
use crate::{Accel, AccelPolicy, Error, Result};

/// How long the probe guest may take. With KVM that works it needs well under a second.
const PROBE: Duration = Duration::from_secs(10);

/// The probe's boot sector: counts down 200 million times, then switches off by ACPI (QEMU's q35 has its
/// PM1a control register at 0x604).
///
/// Counting is the point. There are kernels whose `/dev/kvm` emulates early guest code one instruction at a
/// time: a guest that only switched itself off would pass there, and a desktop would never come up. A
/// processor counts this in 0.2 s, software emulation in about 1 s. And a KVM that is broken in other ways
/// does not come to write exactly that value to exactly that port by accident.
///
/// ```text
///         mov ecx, 200000000
/// again:  dec ecx
///         jnz again
///         mov dx, 0x604
///         mov ax, 0x2000
///         out dx, ax
///         cli
/// end:    hlt
///         jmp end
/// ```
const BOOT_CODE: &[u8] = &[
    0x66, 0xb9, 0x00, 0xc2, 0xeb, 0x0b, 0x66, 0x49, 0x75, 0xfc, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xfa, 0xf4,
    0xeb, 0xfd,
];

/// What desktops run on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The result.
    pub accel: Accel,
    /// Stable code, see [`crate::HostInfo::accel_code`].
    pub code: &'static str,
    /// One English sentence for the operator.
    pub reason: String,
}

impl Decision {
    fn new(accel: Accel, code: &'static str, reason: impl Into<String>) -> Self {
        Self { accel, code, reason: reason.into() }
    }
}

/// What this machine says of itself; read once, so that a test can say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// `/dev/kvm` exists.
    pub device: bool,
    /// `/proc/cpuinfo` lists `vmx` or `svm`; `None` where that is not how it is told.
    pub flags: Option<bool>,
}

impl Machine {
    /// Reads the facts of the machine we run on.
    #[must_use]
    pub fn read() -> Self {
        let flags = cfg!(target_arch = "x86_64").then(|| {
            let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            cpuinfo
                .lines()
                .filter(|l| l.starts_with("flags"))
                .any(|l| l.split_whitespace().any(|f| f == "vmx" || f == "svm"))
        });
        Self { device: Path::new("/dev/kvm").exists(), flags }
    }
}

/// All that can be said without running a guest; `None` means only a probe can tell.
pub(super) fn by_facts(
    policy: AccelPolicy,
    test_driver: bool,
    machine: Machine,
    offered: impl Fn() -> bool,
) -> Option<Decision> {
    let tcg = |code, reason: &str| Some(Decision::new(Accel::Tcg, code, reason));
    if test_driver {
        return Some(Decision::new(Accel::None, "simulated", "libvirt's test driver runs no guests."));
    }
    match policy {
        AccelPolicy::Kvm => {
            return Some(Decision::new(Accel::Kvm, "setting", "KVM is set for this host; it was not tested."));
        }
        AccelPolicy::Tcg => return tcg("setting", "Software emulation (TCG) is set for this host."),
        AccelPolicy::Auto => {}
    }
    if !machine.device {
        return tcg("no_device", "This host has no /dev/kvm, so desktops run in software emulation (TCG).");
    }
    if machine.flags == Some(false) {
        return tcg(
            "no_cpu_flags",
            "This host has /dev/kvm, but its processor shows neither vmx nor svm, so desktops run in software emulation (TCG).",
        );
    }
    if !offered() {
        return tcg(
            "not_offered",
            "libvirt on this host does not offer KVM, so desktops run in software emulation (TCG).",
        );
    }
    None
}

/// Whether libvirt offers KVM guests.
pub(super) fn offers_kvm(conn: &Connect) -> bool {
    conn.domain_capabilities(None, Some("x86_64"), Some("q35"), Some("kvm"), 0).is_ok()
}

/// Runs the probe guest, once a boot of this machine and connection URI in this process.
pub(super) fn by_probe(conn: &Connect, uri: &str, folder: &Path) -> Decision {
    static KNOWN: Mutex<Option<HashMap<(String, String), Decision>>> = Mutex::new(None);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let key = (uri.to_owned(), boot);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(decision) = known.get(&key) {
        return decision.clone();
    }
    match probe(conn, folder, PROBE, Accel::Kvm) {
        Ok(decision) => {
            known.insert(key, decision.clone());
            decision
        }
        // Not remembered: the next connection tries again.
        Err(e) => failed(&e.to_string()),
    }
}

fn failed(why: &str) -> Decision {
    Decision::new(
        Accel::Tcg,
        "probe_failed",
        format!("A test guest could not be run with KVM ({why}), so desktops run in software emulation (TCG)."),
    )
}

/// Runs the probe guest under KVM and says what came of it. With `kind` TCG the guest itself is proven: it
/// must end there, else its silence under KVM would mean nothing.
///
/// The guest is transient and tied to this connection: it goes with it, even when we are killed.
///
/// # Errors
/// When libvirt can't be asked at all.
pub(super) fn probe(conn: &Connect, folder: &Path, deadline: Duration, kind: Accel) -> Result<Decision> {
    let uuid = Uuid::new_v4();
    let boot = BootFile::write(folder, uuid).map_err(|e| Error::Refused(format!("the probe's boot file: {e}")))?;
    let (to, notes) = sync_channel(64);
    let _subscription = Subscription::new(conn, &Notes { to, lost: Arc::default() }).map_err(convert::error)?;
    let xml = probe_xml(uuid, &boot.0, kind)?;
    let domain = match conn.create_domain_xml(&xml, sys::VIR_DOMAIN_START_AUTODESTROY) {
        Ok(domain) => domain,
        Err(e) => match convert::error(e) {
            e @ Error::Unreachable(_) => return Err(e),
            e => return Ok(failed(&e.to_string())),
        },
    };
    // The start itself may take seconds: libvirt first asks a new QEMU what it can do.
    let started = Instant::now();
    let outcome = loop {
        let left = deadline.saturating_sub(started.elapsed());
        match notes.recv_timeout(left) {
            Ok(Note::Lifecycle(of, event, detail)) if of == uuid => {
                if event != sys::VIR_DOMAIN_EVENT_STOPPED as i32 {
                    continue;
                }
                break if detail == sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN as i32 {
                    let ms = started.elapsed().as_millis();
                    Decision::new(kind, "probe_ok", format!("A test guest ran and ended by itself within {ms} ms."))
                } else {
                    failed("it died")
                };
            }
            Ok(Note::Closed(_)) => return Err(Error::Unreachable("libvirt closed the connection".into())),
            Ok(_) => {}
            Err(_) => {
                break Decision::new(
                    Accel::Tcg,
                    "probe_hung",
                    format!(
                        "/dev/kvm exists and libvirt offers KVM, but a test guest got nowhere within {} s, so desktops run in software emulation (TCG).",
                        deadline.as_secs()
                    ),
                );
            }
        }
    };
    // Gone already unless it hung; a second failure is the connection's, and takes the guest with it.
    let _ = domain.destroy();
    Ok(outcome)
}

fn probe_xml(uuid: Uuid, boot: &Path, kind: Accel) -> Result<String> {
    let boot = boot.to_str().ok_or_else(|| Error::Invalid("the disk folder needs a UTF-8 path".into()))?;
    el("domain")
        .attr("type", if kind == Accel::Kvm { "kvm" } else { "qemu" })
        .child(el("name").text(format_args!("tram-probe-{uuid}")))
        .child(el("uuid").text(uuid))
        .child(el("memory").attr("unit", "MiB").text(64))
        .child(el("vcpu").text(1))
        .child(
            el("os")
                .child(el("type").attr("arch", "x86_64").attr("machine", "q35").text("hvm"))
                .child(el("boot").attr("dev", "hd")),
        )
        .child(el("features").child(el("acpi")))
        .children((kind == Accel::Kvm).then(|| el("cpu").attr("mode", "host-passthrough").attr("check", "none")))
        .child(el("on_poweroff").text("destroy"))
        .child(el("on_reboot").text("destroy"))
        .child(el("on_crash").text("destroy"))
        .child(
            el("devices")
                .child(
                    el("disk")
                        .attr("type", "file")
                        .attr("device", "disk")
                        .child(el("driver").attr("name", "qemu").attr("type", "raw"))
                        .child(el("source").attr("file", boot))
                        .child(el("backingStore"))
                        .child(el("target").attr("dev", "vda").attr("bus", "virtio"))
                        .child(el("readonly")),
                )
                .child(el("memballoon").attr("model", "none")),
        )
        .write()
}

/// The probe's disk, removed when the probe is over.
struct BootFile(PathBuf);

impl BootFile {
    fn write(folder: &Path, uuid: Uuid) -> std::io::Result<Self> {
        let mut sector = vec![0; 1 << 20];
        sector[..BOOT_CODE.len()].copy_from_slice(BOOT_CODE);
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        let this = Self(folder.join(format!(".probe-{uuid}.img")));
        fs::write(&this.0, sector)?;
        Ok(this)
    }
}

impl Drop for BootFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_before_any_probe() {
        let all = Machine { device: true, flags: Some(true) };
        let code = |p, test, m, offered| by_facts(p, test, m, || offered).map(|d| (d.accel, d.code));
        use AccelPolicy::{Auto, Kvm, Tcg};
        assert_eq!(code(Auto, false, all, true), None, "only a probe can tell");
        assert_eq!(code(Auto, false, Machine { device: false, ..all }, true), Some((Accel::Tcg, "no_device")));
        assert_eq!(code(Auto, false, Machine { flags: Some(false), ..all }, true), Some((Accel::Tcg, "no_cpu_flags")));
        assert_eq!(code(Auto, false, all, false), Some((Accel::Tcg, "not_offered")));
        assert_eq!(
            code(Kvm, false, Machine { device: false, flags: Some(false) }, false),
            Some((Accel::Kvm, "setting"))
        );
        assert_eq!(code(Tcg, false, all, true), Some((Accel::Tcg, "setting")));
        assert_eq!(code(Kvm, true, all, true), Some((Accel::None, "simulated")));
    }
}
