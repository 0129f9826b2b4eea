//! Calls of officers for support: how far one is, and which code belongs to which computer.

use tram_wire::call;
use tram_wire::ids::EndpointId;

text_enum! {
    /// How far support is with a call.
    CallState {
        /// Nobody looks after it.
        Open = "open",
        /// Somebody does.
        Taken = "taken",
        /// Whoever has to act was told.
        HandedOver = "handed_over",
        /// It works again, says support.
        Solved = "solved",
        /// Nothing more happens to it.
        Closed = "closed",
    }
}

impl CallState {
    /// Nothing has to be done any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Solved | Self::Closed)
    }

    /// Whether it may become this. What was solved may be taken up again; what is closed stays so.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Closed, _) | (_, Self::Open) => false,
            (Self::Solved, next) => matches!(next, Self::Taken | Self::Closed),
            (_, _) => true,
        }
    }
}

/// Calls an endpoint may make in an hour. More is a key that is stuck, or somebody who tries codes.
pub const PER_HOUR: i64 = 6;
/// Calls that may be on their way, after the last one that arrived.
pub const AHEAD: u32 = 4;

/// The code as it was typed: `482913`, `482 913`, `482-913`. `None` for what is none.
#[must_use]
pub fn code(typed: &str) -> Option<String> {
    let digits: String = typed.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '\u{a0}')).collect();
    (digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

/// The number of the call that this computer shows with this code, if it can be one that has not arrived.
#[must_use]
pub fn expected(endpoint: EndpointId, last: u32, wanted: &str) -> Option<u32> {
    (1..=AHEAD).map(|n| last.saturating_add(n)).find(|n| call::code(endpoint, *n) == wanted)
}

/// Whether a call says the truth about itself: its code is the one of its number and computer.
#[must_use]
pub fn is_true(endpoint: EndpointId, made: &call::Call) -> bool {
    made.number > 0 && made.code == call::code(endpoint, made.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_out_in_many_ways() {
        for typed in ["482913", "482 913", "482-913", " 482.913 ", "482\u{a0}913"] {
            assert_eq!(code(typed).as_deref(), Some("482913"), "{typed}");
        }
        for typed in ["", "48291", "4829133", "48291a", "４８２９１３", "482_913"] {
            assert_eq!(code(typed), None, "{typed}");
        }
    }

    #[test]
    fn a_computer_is_known_by_its_next_codes_only() {
        let id = "01992f3a-5c1e-7a4b-8d21-6f0c9b7e4a13".parse().unwrap();
        assert_eq!(expected(id, 0, &call::code(id, 1)), Some(1));
        assert_eq!(expected(id, 7, &call::code(id, 7 + AHEAD)), Some(7 + AHEAD));
        assert_eq!(expected(id, 7, &call::code(id, 7)), None);
        assert_eq!(expected(id, 7, &call::code(id, 8 + AHEAD)), None);
    }

    #[test]
    fn what_is_closed_stays_closed() {
        use CallState::{Closed, HandedOver, Open, Solved, Taken};
        assert!(Open.may_become(Taken) && Taken.may_become(HandedOver) && HandedOver.may_become(Taken));
        assert!(Solved.may_become(Taken) && Solved.may_become(Closed) && !Solved.may_become(HandedOver));
        assert!(CallState::ALL.iter().all(|s| !Closed.may_become(*s) && !s.may_become(Open)));
    }
}
