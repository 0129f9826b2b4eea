//! What is done for a request: programs of the distribution by name with fixed arguments, and one file of the kernel's.
//! The agent uses the same, with what its own user may, where no helper is installed.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tram_wire::helper::{Disk, Interface, Request, UsbPort, Why};

use crate::collect::disks::READ;
use crate::host::{Host, Ran};

/// How long a USB device is off.
const OFF: Duration = Duration::from_secs(2);
/// Longer than any action may take.
const LONGEST: u16 = 75;
/// What carries other devices.
const HUB: &str = "09";

/// How long a request may take, and how much it may say.
#[must_use]
pub fn room_for(request: &Request) -> (Duration, usize) {
    let (seconds, most) = request.spec().map_or((10, 4096), |s| (s.deadline_s.min(LONGEST), s.cap));
    // Before the agent's own deadline, so that what it saw is still told.
    (Duration::from_secs(seconds.into()).mul_f32(0.85), most)
}

/// Does it, or says why not. `stop`: nobody wants it any more.
///
/// # Errors
/// What must not be touched, or is not there.
pub fn deed<H: Host>(request: &Request, host: &H, root: &Path, stop: &dyn Fn() -> bool) -> Result<Ran, Why> {
    let (within, most) = room_for(request);
    let run = |program: &str, args: &[&str]| host.run_until(program, args, within, most, stop);
    Ok(match request {
        Request::RestartUnit { unit } => run("systemctl", &["restart", "--no-ask-password", "--", unit.as_str()]),
        // In a minute: who sits there is told by it too.
        Request::Reboot {} => run("shutdown", &["-r", "+1"]),
        Request::LogOut {} => log_out(&run),
        Request::Journal { unit, lines } => {
            let lines = format!("--lines={}", lines.get());
            let unit = format!("--unit={}", unit.as_str());
            run("journalctl", &["--no-pager", "--quiet", "--output=short-iso", "--no-hostname", &lines, &unit])
        }
        Request::RenewDhcp { interface } => renew(interface, &run),
        Request::ResumeQueue { printer } => match run("cupsenable", &[printer.as_str()]) {
            Ran::Done { code: 0, .. } => run("cupsaccept", &[printer.as_str()]),
            other => other,
        },
        Request::ClearQueue { printer } => run("cancel", &["-a", printer.as_str()]),
        Request::UsbCycle { port } => usb_cycle(port, root)?,
        Request::SmartRead { disk } => {
            let at = device(disk, host)?;
            run("smartctl", &[&READ[..], &[&at]].concat())
        }
        Request::SmartTest { disk } => run("smartctl", &["-j", "-t", "short", &device(disk, host)?]),
        Request::Capture { seconds } => {
            // `timeout` ends it politely, so that what it wrote comes back.
            let seconds = format!("{}s", seconds.get());
            let args = ["-n", "-q", "-l", "-t", "-p", "-s", "96", "-c", "20000", "-i", "any"];
            run("timeout", &[&["--signal=INT", seconds.as_str(), "tcpdump"][..], &args].concat())
        }
    })
}

/// A disk of this computer, not a name that somebody made up.
fn device(disk: &Disk, host: &impl Host) -> Result<String, Why> {
    let there = host.list("/sys/block").iter().any(|n| n == disk.as_str());
    let stacked =
        ["loop", "ram", "zram", "sr", "fd", "nbd", "md", "mtdblock"].iter().any(|p| disk.as_str().starts_with(p));
    if there && !stacked { Ok(format!("/dev/{}", disk.as_str())) } else { Err(Why::NotThat) }
}

/// Ends the sessions at this computer's own screen; how many is what is said.
fn log_out(run: &dyn Fn(&str, &[&str]) -> Ran) -> Ran {
    let ran = run("loginctl", &["list-sessions", "--no-legend", "--no-pager"]);
    let Ran::Done { code: 0, out } = &ran else { return ran };
    let here = out.lines().filter(|l| l.split_whitespace().any(|w| w == "seat0"));
    let ids =
        here.filter_map(|l| l.split_whitespace().next()).filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric()));
    let mut ended = 0;
    for id in ids {
        match run("loginctl", &["terminate-session", id]) {
            Ran::Done { code: 0, .. } => ended += 1,
            other => return other,
        }
    }
    Ran::Done { code: 0, out: ended.to_string() }
}

/// By whoever keeps the interface. Both are asked over the bus: their own tools would look for it in this network.
fn renew(interface: &Interface, run: &dyn Fn(&str, &[&str]) -> Ran) -> Ran {
    const NETWORKD: [&str; 4] =
        ["call", "org.freedesktop.network1", "/org/freedesktop/network1", "org.freedesktop.network1.Manager"];
    let found = run("busctl", &[&NETWORKD[..], &["GetLinkByName", "s", interface.as_str()]].concat());
    let number = match &found {
        Ran::Done { code: 0, out } => out.split_whitespace().nth(1).filter(|n| n.bytes().all(|b| b.is_ascii_digit())),
        _ => None,
    };
    if let Some(number) = number
        && let done @ Ran::Done { code: 0, .. } = run("busctl", &[&NETWORKD[..], &["RenewLink", "i", number]].concat())
    {
        return done;
    }
    run("nmcli", &["device", "reapply", interface.as_str()])
}

/// Takes the device's right to be used away, and gives it back: for most that is as good as pulling it out.
fn usb_cycle(port: &UsbPort, root: &Path) -> Result<Ran, Why> {
    let devices = root.join("sys/bus/usb/devices");
    let here = devices.join(port.as_str());
    let read =
        |at: &Path, leaf: &str| fs::read_to_string(at.join(leaf)).map(|t| t.trim().to_owned()).unwrap_or_default();
    let switch = here.join("authorized");
    if !switch.is_file() {
        return Err(Why::NotThat);
    }
    let interfaces: Vec<_> = fs::read_dir(&here).map_err(|_| Why::NotThat)?.flatten().map(|e| e.path()).collect();
    let carries = read(&here, "bDeviceClass") == HUB
        || interfaces.iter().any(|i| read(i, "bInterfaceClass") == HUB || i.join("net").is_dir());
    if carries || is_disk_in_use(&here, root) {
        return Err(Why::NotThat);
    }
    let off = fs::write(&switch, "0");
    if off.is_ok() {
        sleep(OFF);
    }
    // Given back whatever happened.
    let code = i32::from(off.and_then(|()| fs::write(&switch, "1")).is_err());
    Ok(Ran::Done { code, out: String::new() })
}

/// Whether something is mounted from the device, or stacked on it: the computer itself may run from a stick. A token
/// that brings its driver along on a disk of its own is no such thing.
fn is_disk_in_use(usb: &Path, root: &Path) -> bool {
    let Ok(usb) = usb.canonicalize() else { return true };
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let Ok(blocks) = fs::read_dir(root.join("sys/class/block")) else { return false };
    let below = blocks.flatten().filter_map(|b| b.path().canonicalize().ok()).filter(|b| b.starts_with(&usb));
    below.into_iter().any(|b| {
        let number = fs::read_to_string(b.join("dev")).unwrap_or_default();
        let mounted = mounts.lines().any(|l| l.split_whitespace().nth(2) == Some(number.trim()));
        mounted || fs::read_dir(b.join("holders")).is_ok_and(|mut held| held.next().is_some())
    })
}
