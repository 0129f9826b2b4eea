//! The wire: half duplex, 10 Mbit/s and error counts are the usual marks of a bad cable or port.

use super::{Check, Facts, Outcome};

pub(super) struct Cable;

impl Check for Cable {
    fn id(&self) -> &'static str {
        "cable"
    }

    fn look(&self, facts: &Facts<'_>) -> Outcome {
        let mut up = facts.network.interfaces.iter().filter(|i| i.up).peekable();
        if up.peek().is_none() {
            return Outcome::unknown("cable_none");
        }
        let bad = up.find(|i| i.duplex.as_deref() == Some("half") || i.speed_mbit.is_some_and(|s| s < 100));
        match bad {
            Some(i) => Outcome::warn("cable_slow").with("interface", &i.name).with("mbit", i.speed_mbit.unwrap_or(0)),
            None => Outcome::ok("cable_ok"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tram_wire::check::CheckState::*;
    use tram_wire::heartbeat::Interface;

    use super::super::tests::look;
    use super::*;

    #[test]
    fn half_duplex_and_ten_megabit_are_bad_cables() {
        let with = |up, speed_mbit, duplex: Option<&str>| {
            let duplex = duplex.map(str::to_owned);
            look(&Cable, move |_, n| n.interfaces = vec![Interface { up, speed_mbit, duplex, ..Interface::default() }])
        };
        assert_eq!(with(true, Some(1000), Some("full")), (Ok, "cable_ok"));
        assert_eq!(with(true, Some(100), Some("half")), (Warn, "cable_slow"));
        assert_eq!(with(true, Some(10), Some("full")), (Warn, "cable_slow"));
        assert_eq!(with(true, None, None), (Ok, "cable_ok"));
        assert_eq!(with(false, Some(10), None), (Unknown, "cable_none"));
    }
}
