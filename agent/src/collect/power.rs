//! Batteries, mains and uninterruptible supplies; fans.

use std::time::Duration;

use tram_wire::report::Item;

use super::{Fill, item};
use crate::host::Host;

const ROOT: &str = "/sys/class/power_supply";
const DEADLINE: Duration = Duration::from_secs(3);

/// Reads the kernel's supplies, and those of NUT if it is there.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    let mut all: Vec<Item> = host.list(ROOT).into_iter().filter_map(|name| supply(host, &name)).take(16).collect();
    let names = host.run("upsc", &["-l"], DEADLINE);
    for name in names.out().unwrap_or_default().lines().take(4) {
        let name = name.trim();
        // It becomes an argument.
        if !name.is_empty() && !name.starts_with('-') && name.chars().all(|c| c.is_ascii_graphic()) {
            all.push(ups(name, host.run("upsc", &[name], DEADLINE).out().unwrap_or_default()));
        }
    }
    all.extend(fans(host));
    all
}

fn supply(host: &impl Host, name: &str) -> Option<Item> {
    let read = |leaf: &str| host.read(&format!("{ROOT}/{name}/{leaf}")).filter(|v| !v.is_empty());
    let kind = match read("type")?.as_str() {
        "Battery" if read("scope").as_deref() == Some("Device") => return None,
        "Battery" => "battery",
        "UPS" => "ups",
        "Mains" | "USB" => "mains",
        _ => return None,
    };
    let number = |leaf: &str| read(leaf)?.parse::<u64>().ok();
    let wear = || {
        let design = number("energy_full_design").or_else(|| number("charge_full_design")).filter(|d| *d > 0)?;
        let full = number("energy_full").or_else(|| number("charge_full"))?;
        Some(100_u64.saturating_sub(full.saturating_mul(100) / design).to_string())
    };
    Some(
        item(kind, name)
            .named(read("model_name"))
            .fact("status", read("status").map(|s| s.to_lowercase()))
            .fact("online", read("online"))
            .fact("charge_percent", read("capacity"))
            .fact("wear_percent", wear())
            .fact("serial", read("serial_number")),
    )
}

/// `OL` on line, `OB` on battery, `LB` battery low, `RB` replace battery.
fn ups(name: &str, out: &str) -> Item {
    let get =
        |key: &str| out.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": ")).map(|v| v.trim().to_owned());
    item("ups", name)
        .named(get("ups.model").or_else(|| get("device.model")))
        .fact("status", get("ups.status"))
        .fact("charge_percent", get("battery.charge"))
        .fact("runtime_s", get("battery.runtime"))
        .fact("load_percent", get("ups.load"))
}

fn fans(host: &impl Host) -> Vec<Item> {
    let mut all = Vec::new();
    for chip in host.list("/sys/class/hwmon") {
        let at = format!("/sys/class/hwmon/{chip}");
        let name = host.read(&format!("{at}/name")).unwrap_or_else(|| chip.clone());
        for leaf in host.list(&at) {
            let Some(n) = leaf.strip_prefix("fan").and_then(|l| l.strip_suffix("_input")) else { continue };
            let label = host.read(&format!("{at}/fan{n}_label")).unwrap_or_else(|| format!("fan{n}"));
            let rpm = host.read(&format!("{at}/{leaf}"));
            let least = host.read(&format!("{at}/fan{n}_min"));
            all.push(item("fan", &format!("{name} {label}")).fact("rpm", rpm).fact("least_rpm", least));
        }
    }
    all.truncate(16);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn batteries_supplies_and_fans() {
        let host = Fake::new()
            .file("/sys/class/power_supply/BAT0/type", "Battery")
            .file("/sys/class/power_supply/BAT0/status", "Discharging")
            .file("/sys/class/power_supply/BAT0/capacity", "41")
            .file("/sys/class/power_supply/BAT0/energy_full_design", "50000000")
            .file("/sys/class/power_supply/BAT0/energy_full", "30000000")
            .file("/sys/class/power_supply/hid-mouse/type", "Battery")
            .file("/sys/class/power_supply/hid-mouse/scope", "Device")
            .file("/sys/class/hwmon/hwmon2/name", "nct6775")
            .file("/sys/class/hwmon/hwmon2/fan1_input", "0")
            .program("upsc -l", "santak\n--evil\n")
            .program("upsc santak", "battery.charge: 77\nbattery.runtime: 540\nups.status: OB DISCHRG\n");
        let all = collect(&host);
        let kinds: Vec<_> = all.iter().map(|i| i.kind.as_str()).collect();
        assert_eq!(kinds, ["battery", "ups", "fan"]);
        assert_eq!((all[0].facts["wear_percent"].as_str(), all[0].facts["status"].as_str()), ("40", "discharging"));
        assert_eq!((all[1].facts["status"].as_str(), all[1].facts["runtime_s"].as_str()), ("OB DISCHRG", "540"));
        assert_eq!(all[2].facts["rpm"], "0");
    }
}
