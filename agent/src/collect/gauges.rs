//! Gauges by name, as series: what they are, and how far each must move to be worth the line.

use std::collections::BTreeMap;

use tram_wire::heartbeat::{Network, Vitals};
use tram_wire::report::{Item, Probe};

use crate::host::Host;

/// Gauges by name.
pub type Gauges = BTreeMap<String, f32>;

/// Pressure and memory kills: what a percentage of processor and memory doesn't say.
#[must_use]
pub fn pressure(host: &impl Host) -> Gauges {
    let mut all = Gauges::new();
    for (name, file) in [("psi_cpu", "cpu"), ("psi_mem", "memory"), ("psi_io", "io")] {
        let text = host.read(&format!("/proc/pressure/{file}")).unwrap_or_default();
        let value = text.lines().next().and_then(|l| l.split("avg60=").nth(1)?.split_whitespace().next()?.parse().ok());
        all.extend(value.map(|v: f32| (name.to_owned(), v)));
    }
    let number = |file: &str, key: &str| -> Option<f32> {
        host.read(file)?.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok())
    };
    all.extend(number("/proc/vmstat", "oom_kill ").map(|n| ("oom_kills".to_owned(), n)));
    let wireless = host.read("/proc/net/wireless").unwrap_or_default();
    for line in wireless.lines().skip(2) {
        let level = line.split_whitespace().nth(3).and_then(|w| w.trim_end_matches('.').parse().ok());
        // Some drivers count upwards from zero.
        all.extend(level.filter(|l: &f32| *l < 0.0).map(|l| ("wifi_dbm".to_owned(), l)));
    }
    all
}

/// What the vitals, the network and the last probes come to.
#[must_use]
#[allow(clippy::cast_precision_loss)] // percentages and milliseconds
pub fn of(v: &Vitals, n: &Network, probes: &[Probe], power: &[Item]) -> Gauges {
    let mut all = Gauges::new();
    let mut put = |name: &str, value: Option<f32>| {
        if let Some(v) = value.filter(|v| v.is_finite()) {
            all.insert(name.to_owned(), (v * 100.0).round() / 100.0);
        }
    };
    put("cpu", Some(v.cpu_percent));
    put("load1", Some(v.load1));
    put("mem_used", (v.memory_total_mib > 0).then(|| v.memory_used_mib as f32 * 100.0 / v.memory_total_mib as f32));
    put("temp", v.temperatures.iter().map(|t| t.celsius).reduce(f32::max));
    for vol in v.volumes.iter().filter(|d| d.total_mib > 0) {
        put(&format!("disk:{}", vol.mount), Some(vol.free_mib as f32 * 100.0 / vol.total_mib as f32));
    }
    put("gateway_ms", n.gateway_rtt_ms);
    put("dns_ms", n.dns_ms);
    put("controller_ms", n.controller_rtt_ms);
    put("skew_ms", n.skew_ms.map(|s| s as f32));
    put("errors", Some(n.interfaces.iter().map(|i| i.errors).sum::<u64>() as f32));
    put("flaps", Some(n.interfaces.iter().map(|i| i.carrier_changes).sum::<u64>() as f32));
    for p in probes {
        if let Some(t) = p.trips.filter(|t| t.sent > 0) {
            put(&format!("{}_loss", p.name), Some(f32::from(t.lost) * 100.0 / f32::from(t.sent)));
            if t.lost < t.sent {
                put(&format!("{}_p50_ms", p.name), Some(t.p50_us as f32 / 1000.0));
                put(&format!("{}_p95_ms", p.name), Some(t.p95_us as f32 / 1000.0));
                put(&format!("{}_jitter_ms", p.name), Some(t.jitter_us as f32 / 1000.0));
            }
        }
    }
    let charge = power.iter().find_map(|i| i.facts.get("charge_percent")?.parse().ok());
    put("charge", charge);
    all
}

/// What is worth telling of `now`: gauges that left their dead band, and those that can't be read any more.
/// `coarse` doubles the bands, for a line that is paid by the byte.
#[must_use]
pub fn moved(told: &Gauges, now: &Gauges, coarse: bool) -> BTreeMap<String, Option<f32>> {
    let times = if coarse { 2.0 } else { 1.0 };
    let news =
        now.iter().filter(|(name, v)| told.get(*name).is_none_or(|old| (old - **v).abs() >= band(name, *old) * times));
    let mut all: BTreeMap<String, Option<f32>> = news.map(|(name, v)| (name.clone(), Some(*v))).collect();
    all.extend(told.keys().filter(|name| !now.contains_key(*name)).map(|name| (name.clone(), None)));
    all
}

/// How far a gauge must move.
fn band(name: &str, value: f32) -> f32 {
    match name {
        "cpu" => 10.0,
        "mem_used" | "charge" | "temp" | "wifi_dbm" => 5.0,
        // Of a busy computer by a share: every minute of it is another one.
        "load1" => (value.abs() / 4.0).max(1.0),
        "psi_cpu" | "psi_mem" | "psi_io" => (value.abs() / 4.0).max(5.0),
        "skew_ms" => 1000.0,
        "oom_kills" | "flaps" => 1.0,
        "errors" => 10.0,
        n if n.starts_with("disk:") || n.starts_with("inodes:") => 1.0,
        n if n.ends_with("_loss") => 2.0,
        // What a line is judged by.
        n if n.ends_with("_p95_ms") => (value.abs() / 4.0).max(5.0),
        // Times: half again, and 5 ms.
        n if n.ends_with("_ms") => (value.abs() / 2.0).max(5.0),
        _ => value.abs() / 10.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn g(pairs: &[(&str, f32)]) -> Gauges {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
    }

    #[test]
    fn pressure_kills_and_radio() {
        let host = Fake::new()
            .file("/proc/pressure/io", "some avg10=1.00 avg60=12.50 avg300=0.1 total=5\nfull avg10=0")
            .file("/proc/vmstat", "nr_free 1\noom_kill 3\n")
            .file("/proc/net/wireless", "a\nb\n wlan0: 0000   54.  -56.  -256        0\n");
        assert_eq!(pressure(&host), g(&[("psi_io", 12.5), ("oom_kills", 3.0), ("wifi_dbm", -56.0)]));
        assert!(pressure(&Fake::new().file("/proc/pressure/io", "\u{1}")).is_empty());
    }

    #[test]
    fn small_moves_stay_untold_and_the_lost_is_told() {
        let told = g(&[("cpu", 20.0), ("disk:/", 50.0), ("gateway_ms", 20.0), ("temp", 50.0)]);
        let now = g(&[("cpu", 29.0), ("disk:/", 49.5), ("gateway_ms", 28.0)]);
        assert_eq!(moved(&told, &now, false), [("temp".to_owned(), None)].into());
        let now = g(&[("cpu", 31.0), ("disk:/", 49.0), ("gateway_ms", 31.0), ("temp", 50.0), ("ups", 1.0)]);
        assert_eq!(moved(&told, &now, false).len(), 4);
        assert_eq!(moved(&told, &now, true).keys().collect::<Vec<_>>(), ["ups"]);
    }

    #[test]
    fn what_is_no_number_is_no_gauge() {
        let v = Vitals { cpu_percent: f32::NAN, memory_total_mib: 0, ..Vitals::default() };
        let all = of(&v, &Network::default(), &[], &[]);
        assert!(!all.contains_key("cpu") && !all.contains_key("mem_used"));
    }
}
