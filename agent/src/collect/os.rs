//! The operating system: units that failed, a restart that waits, time, language, the screen lock.

use std::time::Duration;

use tram_wire::report::Item;

use super::{Fill, item};
use crate::host::Host;

const DEADLINE: Duration = Duration::from_secs(4);

/// One item of each part.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    let mut all = vec![system(host), time(host)];
    let units =
        host.run("systemctl", &["list-units", "--state=failed", "--no-legend", "--plain", "--no-pager"], DEADLINE);
    if let Some(out) = units.out() {
        // Names of units only: their arguments are nobody's business.
        let names = out.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| n.contains('.'));
        all.extend(names.take(16).map(|n| item("failed_unit", n)));
    }
    all
}

/// Whether the computer is being shut down or restarted, so that its silence afterwards is nobody's fault.
#[must_use]
pub fn is_going_down(host: &impl Host) -> bool {
    // Sign-ins are closed early at a shutdown; the bus may be gone by the time we are told to stop.
    let closed = host.read("/run/nologin").is_some();
    closed || host.run("systemctl", &["is-system-running"], DEADLINE / 2).out().is_some_and(|o| o.trim() == "stopping")
}

fn system(host: &impl Host) -> Item {
    let here = |folder: &str, name: &str| host.list(folder).iter().any(|n| n == name);
    let comms = |names: &[&str]| {
        let process = |pid: &String| host.read(&format!("/proc/{pid}/comm"));
        let numbers = host.list("/proc").into_iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        numbers.filter_map(|pid| process(&pid)).any(|c| names.contains(&c.as_str()))
    };
    let locale = host
        .read("/etc/default/locale")
        .or_else(|| host.read("/etc/locale.conf"))
        .and_then(|t| t.lines().find_map(|l| l.strip_prefix("LANG=").map(|v| v.trim_matches('"').to_owned())));
    let zone = host.read("/etc/timezone");
    let bootloader = !host.list("/sys/firmware/efi").is_empty();
    let secure = host.bytes("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c");
    item("system", "os")
        .fact(
            "reboot_pending",
            Some((here("/run", "reboot-required") || here("/var/run", "reboot-required")).to_string()),
        )
        .fact("time_zone", zone)
        .fact("locale", locale)
        .fact("input_method", Some(comms(&["ibus-daemon", "fcitx5", "fcitx", "scim"]).to_string()))
        .fact(
            "screen_lock",
            Some(comms(&["light-locker", "xss-lock", "swayidle", "xscreensaver", "gsd-screensaver"]).to_string()),
        )
        .fact("kiosk", Some(comms(&["chromium", "chrome", "firefox-esr"]).to_string()))
        .fact("desk", Some(here("/run/user", "tram-desk").to_string()).filter(|v| v == "true"))
        .fact("tainted", host.read("/proc/sys/kernel/tainted").filter(|t| t != "0"))
        .fact("tpm", Some((!host.list("/sys/class/tpm").is_empty()).to_string()))
        .fact("firmware", Some(if bootloader { "uefi" } else { "bios" }.to_owned()))
        .fact("secure_boot", secure.and_then(|b| b.get(4).map(|on| (*on == 1).to_string())))
        .fact("watchdog_boot", host.read("/sys/class/watchdog/watchdog0/bootstatus").filter(|s| s != "0"))
}

/// Who keeps the clock, and how well.
fn time(host: &impl Host) -> Item {
    let clock = item("time", "clock");
    if let Some(out) = host.run("chronyc", &["-n", "-c", "tracking"], DEADLINE).out().filter(|o| o.contains(',')) {
        let f: Vec<&str> = out.trim().split(',').collect();
        let offset = f.get(4).and_then(|s| s.parse::<f64>().ok()).map(|s| format!("{:.1}", s * 1000.0));
        let synced = f.last().is_some_and(|leap| *leap != "Not synchronised") && f.get(2).is_some_and(|s| *s != "0");
        return clock
            .fact("keeper", Some("chrony".to_owned()))
            .fact("synchronised", Some(synced.to_string()))
            .fact("stratum", f.get(2).map(|s| (*s).to_owned()))
            .fact("offset_ms", offset);
    }
    let out = host.run("timedatectl", &["show", "-p", "NTPSynchronized", "-p", "NTP"], DEADLINE);
    let Some(out) = out.out().filter(|o| o.contains('=')) else { return clock.fact("keeper", Some("none".to_owned())) };
    let get = |key: &str| out.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).map(str::trim);
    let keeper = if get("NTP") == Some("yes") { "timesyncd" } else { "none" };
    clock
        .fact("keeper", Some(keeper.to_owned()))
        .fact("synchronised", get("NTPSynchronized").map(|v| (v == "yes").to_string()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_shutdown_is_told_from_a_stop() {
        assert!(!super::is_going_down(&Fake::new()));
        assert!(!super::is_going_down(&Fake::new().program("systemctl is-system-running", "degraded\n")));
        assert!(super::is_going_down(&Fake::new().program("systemctl is-system-running", "stopping\n")));
        assert!(super::is_going_down(&Fake::new().file("/run/nologin", "System is going down.")));
    }

    use super::*;
    use crate::host::fake::Fake;

    fn find<'a>(all: &'a [Item], kind: &str) -> &'a Item {
        all.iter().find(|i| i.kind == kind).unwrap()
    }

    #[test]
    fn an_office_computer() {
        let host = Fake::new()
            .file("/run/reboot-required", "")
            .file("/etc/timezone", "Asia/Ho_Chi_Minh\n")
            .file("/etc/default/locale", "LANG=\"vi_VN.UTF-8\"\n")
            .file("/proc/812/comm", "fcitx5\n")
            .file("/proc/812/cmdline", "fcitx5 --secret")
            .program("systemctl list-units", "cups.service loaded failed failed CUPS Scheduler\n\n")
            .program(
                "chronyc -n -c tracking",
                "C0A80101,192.168.1.1,3,1795000000.1,-0.012345,0,0,1,0,0,0,0,0,Normal\n",
            );
        let all = collect(&host);
        let os = find(&all, "system");
        let get = |n: &str| os.facts.get(n).map(String::as_str);
        assert_eq!(
            (get("reboot_pending"), get("time_zone"), get("locale")),
            (Some("true"), Some("Asia/Ho_Chi_Minh"), Some("vi_VN.UTF-8"))
        );
        assert_eq!((get("input_method"), get("screen_lock")), (Some("true"), Some("false")));
        assert_eq!(find(&all, "failed_unit").id, "cups.service");
        let t = &find(&all, "time").facts;
        assert_eq!(
            (t["keeper"].as_str(), t["synchronised"].as_str(), t["offset_ms"].as_str()),
            ("chrony", "true", "-12.3")
        );
        assert!(!format!("{all:?}").contains("secret"), "arguments of processes stay where they are");
    }

    #[test]
    fn a_clock_nobody_keeps() {
        assert_eq!(find(&collect(&Fake::new()), "time").facts["keeper"], "none");
        let host = Fake::new().program("timedatectl show", "NTP=yes\nNTPSynchronized=no\n");
        let all = collect(&host);
        assert_eq!(find(&all, "time").facts["synchronised"], "false");
        let host = Fake::new().program("chronyc", ",,0,0,0,0,0,0,0,0,0,0,0,Not synchronised\n");
        assert_eq!(find(&collect(&host), "time").facts["synchronised"], "false");
    }
}
