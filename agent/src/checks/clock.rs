//! The clock against the controller's. The agent never sets it; it says so.

use super::{Check, Facts, Outcome};

pub(super) struct Clock;

/// One-time codes and signatures begin to fail about here.
const WARN_MS: u64 = 5_000;
/// Certificates, sessions and signed documents fail here.
const CRIT_MS: u64 = 120_000;

impl Check for Clock {
    fn id(&self) -> &'static str {
        "clock"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let Some(skew) = facts.network.skew_ms else { return Outcome::unknown("clock_unknown") };
        let outcome = match skew.unsigned_abs() {
            s if s >= CRIT_MS => Outcome::crit("clock_wrong"),
            s if s >= WARN_MS => Outcome::warn("clock_drifts"),
            _ => Outcome::ok("clock_ok"),
        };
        outcome.with("seconds", (skew + skew.signum() * 500) / 1000)
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn an_hour_off_either_way_is_critical() {
        for (skew, expected) in [
            (None, (Unknown, "clock_unknown")),
            (Some(-900), (Ok, "clock_ok")),
            (Some(-9_000), (Warn, "clock_drifts")),
            (Some(3_600_000), (Crit, "clock_wrong")),
            (Some(-3_600_000), (Crit, "clock_wrong")),
            (Some(i64::MIN + 600), (Crit, "clock_wrong")),
        ] {
            assert_eq!(look(&Clock, |_, n| n.skew_ms = skew), expected, "{skew:?}");
        }
    }
}
