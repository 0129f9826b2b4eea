//! The office's own router.

use super::{Check, Facts, Outcome, Reach};

pub(super) struct Gateway;

/// A wired router answers below 2 ms, a busy radio below 50.
const SLOW_MS: f32 = 100.0;

impl Check for Gateway {
    fn id(&self) -> &'static str {
        "gateway"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let Some(gateway) = &facts.network.gateway else { return Outcome::warn("gateway_none") };
        let outcome = match facts.network.gateway_rtt_ms {
            // Some routers answer nothing at all; with the link up that is their habit, not a fault.
            None if matches!(facts.controller, Reach::Linked | Reach::Polled | Reach::Signed) => {
                Outcome::unknown("gateway_mute")
            }
            None => Outcome::crit("gateway_silent"),
            Some(ms) if ms >= SLOW_MS => Outcome::warn("gateway_slow").with("ms", ms.round()),
            Some(ms) => Outcome::ok("gateway_ok").with("ms", ms),
        };
        outcome.with("gateway", gateway)
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn a_mute_router_is_not_a_fault_while_the_link_is_up() {
        let with = |rtt| {
            look(&Gateway, move |_, n| {
                n.gateway = Some("10.0.0.1".into());
                n.gateway_rtt_ms = rtt;
            })
        };
        assert_eq!(with(None), (Unknown, "gateway_mute"));
        assert_eq!(with(Some(0.4)), (Ok, "gateway_ok"));
        assert_eq!(with(Some(180.0)), (Warn, "gateway_slow"));
        assert_eq!(look(&Gateway, |_, _| {}), (Warn, "gateway_none"));
    }
}
