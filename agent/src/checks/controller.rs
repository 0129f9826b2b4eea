//! The data centre, as seen from here.

use super::{Check, Facts, Outcome, Reach};

pub(super) struct Controller;

/// A commune's line to the data centre; above this a desktop feels slow.
const SLOW_MS: f32 = 150.0;

impl Check for Controller {
    fn id(&self) -> &'static str {
        "controller"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        match (&facts.controller, facts.network.controller_rtt_ms) {
            (Reach::NotEnrolled, _) => Outcome::unknown("controller_not_enrolled"),
            (Reach::Silent, _) => Outcome::crit("controller_silent"),
            (Reach::Blocked(code), _) => Outcome::crit(code),
            (Reach::Refused(code), _) => Outcome::crit("controller_refused").with("reason", code),
            // The link is up, and the cause stays: desktops can't be opened from here before it is mended.
            (Reach::Signed, _) => Outcome::warn("tls_intercepted"),
            (Reach::Polled, _) => Outcome::warn("controller_polled"),
            (_, Some(ms)) if ms >= SLOW_MS => Outcome::warn("controller_slow").with("ms", ms.round()),
            (_, Some(ms)) => Outcome::ok("controller_ok").with("ms", ms),
            (_, None) => Outcome::ok("controller_ok"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn a_slow_line_is_a_warning() {
        assert_eq!(look(&Controller, |_, n| n.controller_rtt_ms = Some(12.0)), (Ok, "controller_ok"));
        assert_eq!(look(&Controller, |_, n| n.controller_rtt_ms = Some(400.0)), (Warn, "controller_slow"));
        assert_eq!(look(&Controller, |_, _| {}), (Ok, "controller_ok"));
    }
}
