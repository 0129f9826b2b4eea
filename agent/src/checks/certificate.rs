//! Days left of the device certificate. It renews itself over the link at two thirds of its life, so
//! a short rest means the link has been down for long.

use super::{Check, Facts, Outcome};

pub(super) struct DeviceCertificate;

const DAY_MS: i64 = 86_400_000;

impl Check for DeviceCertificate {
    fn id(&self) -> &'static str {
        "certificate"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let Some(c) = facts.certificate else { return Outcome::unknown("certificate_none") };
        let left = c.not_after_ms.saturating_sub(c.now_ms);
        let outcome = match left {
            l if l <= 0 => Outcome::crit("certificate_expired"),
            l if l < 7 * DAY_MS => Outcome::warn("certificate_ends"),
            _ => Outcome::ok("certificate_ok"),
        };
        outcome.with("days", left.div_euclid(DAY_MS).max(0))
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::heartbeat::{Network, Vitals};

    use super::super::{Certificate, Limits, Reach};
    use super::*;

    #[test]
    fn days_left_decide() {
        let code = |left_days: i64| {
            let (v, n) = (Vitals::default(), Network::default());
            let certificate =
                Some(Certificate { now_ms: 1_795_000_000_000, not_after_ms: 1_795_000_000_000 + left_days * DAY_MS });
            let limits = Limits::default();
            let facts = Facts {
                vitals: &v,
                network: &n,
                gauges: &Default::default(),
                inventory: &Default::default(),
                probes: &Default::default(),
                stuck: &[],
                hung: false,
                certificate,
                controller: Reach::Linked,
                limits: &limits,
            };
            DeviceCertificate.look(&facts).code
        };
        assert_eq!(
            [code(8), code(6), code(0), code(-3)],
            ["certificate_ok", "certificate_ends", "certificate_expired", "certificate_expired"]
        );
    }
}
