//! Room on local file systems, and whether one went read-only.

use tram_wire::heartbeat::Volume;

use super::{Check, Facts, Outcome};

pub(super) struct DiskSpace;

/// Meant to be read-only: optical media and packaged images.
const READ_ONLY_BY_NATURE: [&str; 4] = ["/snap/", "/media/", "/cdrom", "/run/live"];

impl Check for DiskSpace {
    fn id(&self) -> &'static str {
        "disk_space"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let volumes: Vec<&Volume> = facts
            .vitals
            .volumes
            .iter()
            .filter(|v| v.total_mib > 0 && !READ_ONLY_BY_NATURE.iter().any(|p| v.mount.starts_with(p)))
            .collect();
        if let Some(v) = volumes.iter().find(|v| v.read_only && v.mount == "/") {
            return Outcome::warn("disk_read_only").with("mount", &v.mount);
        }
        let percent = |v: &Volume| v.free_mib * 100 / v.total_mib;
        let Some(fullest) = volumes.into_iter().filter(|v| !v.read_only).min_by_key(|v| percent(v)) else {
            return Outcome::unknown("disk_unknown");
        };
        let free = percent(fullest);
        let outcome = match free {
            p if p < facts.limits.disk_crit_percent => Outcome::crit("disk_full"),
            p if p < facts.limits.disk_warn_percent => Outcome::warn("disk_low"),
            _ => Outcome::ok("disk_ok"),
        };
        outcome.with("mount", &fullest.mount).with("free_percent", free)
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;

    use super::super::tests::look;
    use super::*;

    fn with(volumes: &[(&str, u64, bool)]) -> (tram_wire::check::CheckState, &'static str) {
        look(&DiskSpace, |v, _| {
            v.volumes = volumes
                .iter()
                .map(|(mount, free_mib, read_only)| Volume {
                    mount: (*mount).into(),
                    total_mib: 1000,
                    free_mib: *free_mib,
                    read_only: *read_only,
                })
                .collect();
        })
    }

    #[test]
    fn the_fullest_volume_decides() {
        assert_eq!(with(&[("/", 500, false), ("/home", 100, false)]), (Ok, "disk_ok"));
        assert_eq!(with(&[("/", 500, false), ("/home", 99, false)]), (Warn, "disk_low"));
        assert_eq!(with(&[("/", 29, false), ("/home", 99, false)]), (Crit, "disk_full"));
    }

    #[test]
    fn a_full_cd_is_fine_and_a_read_only_root_is_not() {
        assert_eq!(with(&[("/", 500, false), ("/media/cd", 0, true)]), (Ok, "disk_ok"));
        assert_eq!(with(&[("/", 500, true)]), (Warn, "disk_read_only"));
        assert_eq!(with(&[]), (Unknown, "disk_unknown"));
    }
}
