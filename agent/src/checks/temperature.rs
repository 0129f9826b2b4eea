//! Heat: against each sensor's own limit, or a common one.

use super::{Check, Facts, Outcome};

pub(super) struct Temperature;

/// A sensor with a limit of its own is worth a look this far below it.
const MARGIN: f32 = 8.0;

impl Check for Temperature {
    fn id(&self) -> &'static str {
        "temperature"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let limits = facts.limits;
        let margin_left = |t: &tram_wire::heartbeat::Temperature| t.critical.unwrap_or(limits.celsius_crit) - t.celsius;
        let worst = facts.vitals.temperatures.iter().min_by(|a, b| margin_left(a).total_cmp(&margin_left(b)));
        let Some(worst) = worst else { return Outcome::unknown("temperature_unknown") };
        let warn_below = if worst.critical.is_some() { MARGIN } else { limits.celsius_crit - limits.celsius_warn };
        let outcome = match margin_left(worst) {
            left if left <= 0.0 => Outcome::crit("temperature_critical"),
            left if left <= warn_below => Outcome::warn("temperature_high"),
            _ => Outcome::ok("temperature_ok"),
        };
        outcome.with("sensor", &worst.sensor).with("celsius", worst.celsius.round())
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;
    use tram_wire::heartbeat;

    use super::super::tests::look;
    use super::*;

    fn with(readings: &[(f32, Option<f32>)]) -> (tram_wire::check::CheckState, &'static str) {
        look(&Temperature, |v, _| {
            v.temperatures = readings
                .iter()
                .map(|(celsius, critical)| heartbeat::Temperature {
                    sensor: "s".into(),
                    celsius: *celsius,
                    critical: *critical,
                })
                .collect();
        })
    }

    #[test]
    fn a_sensors_own_limit_comes_first() {
        assert_eq!(with(&[(88.0, Some(110.0))]), (Ok, "temperature_ok"));
        assert_eq!(with(&[(88.0, None)]), (Warn, "temperature_high"));
        assert_eq!(with(&[(64.0, Some(70.0))]), (Warn, "temperature_high"));
        assert_eq!(with(&[(50.0, None), (70.0, Some(70.0))]), (Crit, "temperature_critical"));
        assert_eq!(with(&[]), (Unknown, "temperature_unknown"));
    }
}
