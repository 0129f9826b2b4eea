//! Whether the resolver answers, and how fast.

use super::{Check, Facts, Outcome};

pub(super) struct Dns;

const SLOW_MS: f32 = 500.0;

impl Check for Dns {
    fn id(&self) -> &'static str {
        "dns"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let Some(resolver) = &facts.network.resolver else { return Outcome::unknown("dns_none") };
        let outcome = match facts.network.dns_ms {
            None => Outcome::warn("dns_silent"),
            Some(ms) if ms >= SLOW_MS => Outcome::warn("dns_slow").with("ms", ms.round()),
            Some(ms) => Outcome::ok("dns_ok").with("ms", ms),
        };
        outcome.with("resolver", resolver)
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn silence_and_sloth_are_told_apart() {
        let with = |ms| {
            look(&Dns, move |_, n| {
                n.resolver = Some("10.0.0.1".into());
                n.dns_ms = ms;
            })
        };
        assert_eq!(
            [with(None), with(Some(900.0)), with(Some(9.0))],
            [(Warn, "dns_silent"), (Warn, "dns_slow"), (Ok, "dns_ok")]
        );
        assert_eq!(look(&Dns, |_, _| {}), (Unknown, "dns_none"));
    }
}
