//! Memory still available.

use super::{Check, Facts, Outcome};

pub(super) struct Memory;

impl Check for Memory {
    fn id(&self) -> &'static str {
        "memory"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let v = facts.vitals;
        if v.memory_total_mib == 0 {
            return Outcome::unknown("memory_unknown");
        }
        let free = v.memory_total_mib.saturating_sub(v.memory_used_mib) * 100 / v.memory_total_mib;
        let outcome = match free {
            p if p < facts.limits.memory_crit_percent => Outcome::crit("memory_out"),
            p if p < facts.limits.memory_warn_percent => Outcome::warn("memory_low"),
            _ => Outcome::ok("memory_ok"),
        };
        outcome.with("free_percent", free)
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn by_share_available() {
        for (used, expected) in [(2000, (Ok, "memory_ok")), (7300, (Warn, "memory_low")), (7900, (Crit, "memory_out"))]
        {
            assert_eq!(look(&Memory, |v, _| v.memory_used_mib = used), expected);
        }
        assert_eq!(look(&Memory, |v, _| v.memory_total_mib = 0), (Unknown, "memory_unknown"));
    }
}
