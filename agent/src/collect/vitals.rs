//! How the computer feels, and when that is worth telling.

use tram_wire::heartbeat::{Temperature, Vitals, Volume};

use super::MIB;
use crate::host::Host;

/// A volume or sensor list longer than this is noise (containers, snap mounts).
const MOST: usize = 24;

/// Reads gauges, sensors and file systems.
#[must_use]
pub fn collect(host: &mut impl Host) -> Vitals {
    let g = host.gauges();
    let first = |path: &str| -> Option<f64> { host.read(path)?.split_whitespace().next()?.parse().ok() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small, non-negative by nature
    let (load1, uptime_s) =
        (first("/proc/loadavg").unwrap_or(0.0) as f32, first("/proc/uptime").unwrap_or(0.0).max(0.0) as u64);
    Vitals {
        cpu_percent: (g.cpu_percent * 10.0).round() / 10.0,
        memory_total_mib: g.memory_total / MIB,
        memory_used_mib: g.memory_total.saturating_sub(g.memory_available) / MIB,
        load1,
        uptime_s,
        temperatures: temperatures(host),
        volumes: volumes(host),
    }
}

fn temperatures(host: &mut impl Host) -> Vec<Temperature> {
    host.sensors()
        .into_iter()
        // Broken sensors read 0, -128 or 255 on real boards.
        .filter(|s| s.celsius > -40.0 && s.celsius < 150.0 && s.celsius != 0.0)
        .take(MOST)
        .map(|s| Temperature { sensor: s.label, celsius: s.celsius, critical: s.critical.filter(|c| *c > 0.0) })
        .collect()
}

fn volumes(host: &mut impl Host) -> Vec<Volume> {
    let mut seen = Vec::new();
    let mut volumes: Vec<Volume> = Vec::new();
    for m in host.mounts() {
        // A device may be mounted many times (bind mounts); the first, shortest path is the real one.
        if m.total < 64 * MIB || seen.contains(&m.device) || volumes.len() == MOST {
            continue;
        }
        seen.push(m.device);
        volumes.push(Volume { mount: m.at, total_mib: m.total / MIB, free_mib: m.free / MIB, read_only: m.read_only });
    }
    volumes
}

/// Share of inodes free, where that runs out before the room does.
#[must_use]
#[allow(clippy::cast_precision_loss)] // a percentage
pub fn inodes(host: &mut impl Host) -> super::gauges::Gauges {
    let scarce = |m: &crate::host::Mount| m.inodes_free_percent.filter(|p| *p < 50).map(|p| p as f32);
    host.mounts().iter().filter_map(|m| Some((format!("inodes:{}", m.at), scarce(m)?))).take(MOST).collect()
}

/// Whether `now` differs enough from what was last told: WAN lines are thin.
#[must_use]
pub fn differs(told: &Vitals, now: &Vitals) -> bool {
    let apart = |a: f32, b: f32, by: f32| (a - b).abs() >= by;
    #[allow(clippy::cast_precision_loss)] // a percentage
    let percent = |v: &Vitals| v.memory_used_mib as f32 * 100.0 / v.memory_total_mib.max(1) as f32;
    let hotter = || {
        told.temperatures.len() != now.temperatures.len()
            || told.temperatures.iter().zip(&now.temperatures).any(|(a, b)| apart(a.celsius, b.celsius, 5.0))
    };
    let fuller = || {
        told.volumes.len() != now.volumes.len()
            || told.volumes.iter().zip(&now.volumes).any(|(a, b)| {
                a.mount != b.mount
                    || a.read_only != b.read_only
                    || a.free_mib.abs_diff(b.free_mib) * 100 >= a.total_mib.max(1)
            })
    };
    now.uptime_s < told.uptime_s
        || apart(told.cpu_percent, now.cpu_percent, 10.0)
        || apart(percent(told), percent(now), 5.0)
        || apart(told.load1, now.load1, 1.0)
        || hotter()
        || fuller()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::host::{Mount, Sensor};

    fn mount(device: &str, at: &str, gib: u64) -> Mount {
        Mount { device: device.into(), at: at.into(), total: gib << 30, free: 1 << 30, ..Mount::default() }
    }

    #[test]
    fn odd_sensors_and_bind_mounts_are_left_out() {
        let mut host = Fake::new().file("/proc/loadavg", "0.50 0.4 0.3 1/200 999").file("/proc/uptime", "86400.5 9");
        host.sensors = [51.0, 0.0, 255.0, -128.0, f32::NAN]
            .map(|celsius| Sensor { label: "x".into(), celsius, critical: Some(0.0) })
            .into();
        host.mounts = vec![mount("/dev/sda1", "/", 100), mount("/dev/sda1", "/var/lib/x", 100), mount("efi", "/e", 0)];
        let v = collect(&mut host);
        assert_eq!(v.temperatures.len(), 1);
        assert_eq!(v.temperatures[0].critical, None);
        assert_eq!(v.volumes.iter().map(|v| v.mount.as_str()).collect::<Vec<_>>(), ["/"]);
        assert_eq!((v.load1, v.uptime_s, v.memory_used_mib), (0.5, 86_400, 2048));
    }

    #[test]
    fn small_moves_stay_untold_and_big_ones_do_not() {
        let told = Vitals { cpu_percent: 20.0, memory_total_mib: 8000, memory_used_mib: 2000, ..Vitals::default() };
        assert!(!differs(&told, &Vitals { cpu_percent: 29.0, memory_used_mib: 2300, uptime_s: 60, ..told.clone() }));
        assert!(differs(&told, &Vitals { cpu_percent: 31.0, ..told.clone() }));
        assert!(differs(&told, &Vitals { memory_used_mib: 2500, ..told.clone() }));
        let disk = |free_mib, read_only| Vitals {
            volumes: vec![Volume { mount: "/".into(), total_mib: 1000, free_mib, read_only }],
            ..told.clone()
        };
        assert!(!differs(&disk(500, false), &disk(495, false)));
        assert!(differs(&disk(500, false), &disk(490, false)));
        assert!(differs(&disk(500, false), &disk(500, true)));
    }
}
