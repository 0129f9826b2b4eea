//! Approval: whether a computer with a good token becomes an endpoint at once, or waits for a person.
//!
//! ```text
//! asks ─► approved (auto, or a serial number the token names)
//!   └───► pending ─► approved ─► collected (the certificate is made now, not earlier)
//!             │          └─► unanswered (it never came for it)
//!             ├─► refused
//!             └─► unanswered
//! ```

use std::time::Duration;

use tram_wire::heartbeat::Hardware;
use tram_wire::instance::{Marks, real};

use super::time::Time;

/// Most serial numbers one token names.
pub const MAX_SERIALS: usize = 500;
/// Longest serial number.
pub const MAX_SERIAL: usize = 64;

text_enum! {
    /// How a token lets computers in.
    #[derive(Default)]
    Approval {
        /// Whoever shows the token.
        #[default]
        Auto = "auto",
        /// Whoever shows the token and has a serial number it names; others wait for a person.
        Serial = "serial",
        /// A person approves each.
        Manual = "manual",
    }
}

text_enum! {
    /// How far a computer is that asked to be approved.
    EnrolmentState {
        /// It waits for a person.
        Pending = "pending",
        /// It may come for its certificate, or has it.
        Approved = "approved",
        /// A person said no.
        Refused = "refused",
        /// Nobody decided in time, or it didn't come for its certificate.
        Expired = "expired",
    }
}

/// A serial number as it is compared: case, blanks and what separates groups don't matter. `None` for makers' placeholders.
#[must_use]
pub fn plain_serial(text: &str) -> Option<String> {
    let kept = real(text)?;
    let plain: String = kept.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_uppercase).collect();
    (!plain.is_empty() && plain.chars().count() <= MAX_SERIAL).then_some(plain)
}

/// Serial numbers that people wrote, one a line or with commas between: in their plain form, each once.
///
/// # Errors
/// The first one that is none.
pub fn read_serials(written: &[String]) -> Result<Vec<String>, String> {
    let mut read = Vec::new();
    for text in written.iter().flat_map(|t| t.split([',', ';', '\n'])).map(str::trim).filter(|t| !t.is_empty()) {
        let plain = plain_serial(text).ok_or_else(|| text.chars().take(MAX_SERIAL).collect::<String>())?;
        if !read.contains(&plain) {
            read.push(plain);
        }
    }
    Ok(read)
}

/// The serial number of these that the computer has: its own, its board's, a disk's, or the address of a network card. All
/// of it is the computer's own word: whoever has the token can say so. It catches mistakes, not thieves.
#[must_use]
pub fn matching(expected: &[String], hardware: Option<&Hardware>, marks: &Marks) -> Option<String> {
    let own = hardware.and_then(|h| h.serial.as_ref()).into_iter();
    let all = own.chain(&marks.board).chain(&marks.disks).chain(&marks.macs);
    all.filter_map(|s| plain_serial(s)).find(|s| expected.contains(s))
}

/// Seconds until a computer that waits asks again: somebody may be on the telephone in the first minutes.
#[must_use]
pub fn ask_again_s(asked: Time, now: Time) -> u32 {
    u32::try_from(now.since(asked).as_secs() / 20).unwrap_or(u32::MAX).clamp(3, 30)
}

/// Six digits for both screens, from eight random bytes.
#[must_use]
pub fn digits(random: [u8; 8]) -> String {
    format!("{:06}", u64::from_le_bytes(random) % 1_000_000)
}

/// The digits as a person typed them: blanks and hyphens between them don't matter.
#[must_use]
pub fn read_digits(typed: &str) -> Option<String> {
    let plain: String = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    (plain.len() == 6 && plain.bytes().all(|b| b.is_ascii_digit())).then_some(plain)
}

/// How long a computer waits, where nothing else is configured.
pub const PATIENCE: Duration = Duration::from_secs(72 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_compared_as_people_write_them() {
        let lines = ["8xk2-pq3, 8XK2PQ3\n 00:1B:21:AA:BB:CC;".to_owned(), String::new()];
        let expected = read_serials(&lines).unwrap();
        assert_eq!(expected, ["8XK2PQ3", "001B21AABBCC"]);
        assert_eq!(read_serials(&["Default string".into()]), Err("Default string".into()));
        assert_eq!(read_serials(&["x".repeat(99).replace('x', "xy")]).unwrap_err().len(), MAX_SERIAL);
        let own = |serial: &str| Hardware { serial: Some(serial.into()), ..Hardware::default() };
        let none = Marks::default();
        assert_eq!(matching(&expected, Some(&own("8XK2 PQ3")), &none).as_deref(), Some("8XK2PQ3"));
        assert_eq!(matching(&expected, Some(&own("8XK2PQ4")), &none), None);
        assert_eq!(matching(&expected, None, &none), None);
        let card = Marks { macs: vec!["00:1b:21:aa:bb:cc".into()], ..Marks::default() };
        assert_eq!(matching(&expected, None, &card).as_deref(), Some("001B21AABBCC"));
        assert_eq!(matching(&[], Some(&own("8XK2PQ3")), &card), None);
    }

    #[test]
    fn a_computer_asks_often_at_first_and_seldom_later() {
        let at = |s| Time::from_micros(0).plus(Duration::from_secs(s));
        assert_eq!([0, 59, 120, 400, 90_000].map(|s| ask_again_s(at(0), at(s))), [3, 3, 6, 20, 30]);
        assert_eq!(ask_again_s(at(100), at(0)), 3, "a clock that went back");
    }

    #[test]
    fn digits_are_six_and_read_as_they_are_spoken() {
        assert_eq!(digits([0; 8]), "000000");
        assert_eq!(digits([1, 0, 0, 0, 0, 0, 0, 0]), "000001");
        assert_eq!(read_digits(" 048-213 ").as_deref(), Some("048213"));
        for bad in ["", "48213", "0482134", "04821x", "٠٤٨٢١٣"] {
            assert_eq!(read_digits(bad), None, "{bad}");
        }
    }
}
