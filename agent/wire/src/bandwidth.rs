//! How much passes between an endpoint and its controller: measured because somebody ordered it, never by itself.
//!
//! Beside the link, under the order's id: `GET` brings bytes, `POST` takes some and says how many arrived. Both are short and
//! small, whoever asks: lines are paid by volume, and somebody may be waiting for a desktop on the same one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where: the order's id comes after it.
pub const PATH: &str = "/agent/v1/bandwidth/";
/// Most bytes each way: 8 MB in all.
pub const EACH_WAY: u64 = 4_000_000;
/// Longest time each way: 10 s in all.
pub const WITHIN: Duration = Duration::from_secs(5);

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    /// Bytes.
    pub bytes: u64,
    /// From the first of them to the last, microseconds.
    pub took_us: u64,
}

/// Why nothing is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct No {
    /// `not_ordered`, `session_open`, `busy`.
    pub code: String,
}

impl Arrived {
    /// Megabits a second; `None` if too little arrived to tell.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // a few million of each
    pub fn mbit_s(&self) -> Option<f64> {
        (self.bytes >= 16 * 1024 && self.took_us > 0).then(|| self.bytes as f64 * 8.0 / self.took_us as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_a_million_bytes_is_eight_megabits() {
        assert_eq!(Arrived { bytes: 1_000_000, took_us: 1_000_000 }.mbit_s(), Some(8.0));
        assert_eq!(Arrived { bytes: 100, took_us: 1 }.mbit_s(), None);
        assert_eq!(Arrived { bytes: EACH_WAY, took_us: 0 }.mbit_s(), None);
    }
}
