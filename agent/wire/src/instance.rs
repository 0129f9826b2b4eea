//! Which computer, and which run of the agent, shows an identity: the evidence that tells a copy from its original.
//!
//! None of it is an identity. A key can be copied with its disk; these values say whether that happened.

use serde::{Deserialize, Serialize};

/// Most values of one kind; more are cut.
pub const MOST: usize = 16;
/// Longest value.
const TEXT: usize = 64;

/// The computer and the run that show an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Random, new at each start of the agent: two processes with one key have two.
    pub nonce: String,
    /// Random, made when the controller said that this identity is shown by several computers; gone when that is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// What the computer is made of, as far as it has serial numbers.
    pub marks: Marks,
}

/// Serial numbers that come with the hardware. What can't be read, and makers' placeholders, are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// The board's serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// Serial numbers of disks that are built in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<String>,
    /// Permanent hardware addresses of network cards that are built in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
}

impl Marks {
    /// The same without placeholders, in one order, and within bounds: whoever sends them is not trusted.
    #[must_use]
    pub fn plain(self) -> Self {
        let list = |values: Vec<String>, keep: fn(&str) -> Option<String>| {
            let mut kept: Vec<String> = values.iter().filter_map(|v| keep(v)).collect();
            kept.sort();
            kept.dedup();
            kept.truncate(MOST);
            kept
        };
        Self {
            board: self.board.as_deref().and_then(short),
            disks: list(self.disks, short),
            macs: list(self.macs, permanent),
        }
    }
}

fn short(value: &str) -> Option<String> {
    let plain: String = value.chars().filter(|c| !c.is_control()).take(TEXT).collect();
    real(&plain)
}

/// The address in lower case, unless it is nobody's or was made up by software.
#[must_use]
pub fn permanent(mac: &str) -> Option<String> {
    let mac = mac.trim().to_ascii_lowercase();
    let bytes: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<Result<_, _>>().ok()?;
    let first = *bytes.first()?;
    let alike = bytes.iter().all(|b| *b == first);
    // Bit 0: a group; bit 1: given by software, which may give it anew tomorrow.
    (bytes.len() == 6 && mac.len() == 17 && first & 0b11 == 0 && !alike).then_some(mac)
}

/// What makers leave in the firmware when nobody fills in the form. Merging computers by these is a
/// classic inventory disaster, so they count as absent.
const JUNK: &[&str] = &[
    "default string",
    "default",
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "o.e.m.",
    "oem",
    "oem_serial",
    "base board serial number",
    "mb-1234567890",
    "system serial number",
    "system product name",
    "system manufacturer",
    "system version",
    "serial number",
    "not specified",
    "not applicable",
    "not available",
    "not provided",
    "none",
    "n/a",
    "null",
    "unknown",
    "empty",
    "invalid",
    "type1productconfigid",
    "123456789",
    "1234567890",
    "0123456789",
    "0123456789abcdef",
];

/// The value with single spaces, unless it is a placeholder.
#[must_use]
pub fn real(value: &str) -> Option<String> {
    let value: String = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let low = value.to_lowercase();
    let mut letters = low.chars();
    let first = letters.next()?;
    let all_alike = letters.clone().next().is_some() && letters.all(|c| c == first);
    (!JUNK.contains(&low.as_str()) && !all_alike && !"-.x0".contains(&low)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_values_survive_and_placeholders_do_not() {
        for good in ["OptiPlex 3080", "8XK2PQ3", "LENOVO", "VMware-56 4d a0"] {
            assert_eq!(real(good).as_deref(), Some(good));
        }
        for junk in ["", "  ", "x", "0", "XXXXXXXX", "None", "System Serial Number", "......", "Default  string"] {
            assert_eq!(real(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn only_addresses_burnt_into_a_card_count() {
        assert_eq!(permanent(" 00:1B:21:AA:BB:CC\n").as_deref(), Some("00:1b:21:aa:bb:cc"));
        for bad in
            ["", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:42:ac:11:00:02", "01:00:5e:00:00:01", "00:1b:21", "x"]
        {
            assert_eq!(permanent(bad), None, "{bad}");
        }
    }

    #[test]
    fn marks_from_outside_are_cut_and_put_in_order() {
        let m = Marks {
            board: Some("Default string".into()),
            disks: (0..40).map(|n| format!("S{n:02}\u{0}")).chain(["S00".into(), "y".repeat(500)]).collect(),
            macs: vec!["02:42:ac:11:00:02".into(), "00:1b:21:aa:bb:cc".into(), "00:1B:21:AA:BB:CC".into()],
        };
        let m = m.plain();
        assert_eq!((m.board, m.macs), (None, vec!["00:1b:21:aa:bb:cc".to_owned()]));
        assert_eq!((m.disks.len(), m.disks[0].as_str()), (MOST, "S00"));
    }
}
