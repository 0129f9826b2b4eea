//! How a session feels, in segments: what was measured, what is usual, and which segment is to blame.
//!
//! Only times and counts: no content, no window titles.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What one connection measured. Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Experience {
    /// From the ticket to its redemption: the viewer's way to the gateway.
    pub ticket_ms: Option<u64>,
    /// From there to an open display: the host.
    pub display_ms: Option<u64>,
    /// From there to the first picture: the desktop.
    pub picture_ms: Option<u64>,
    /// Round trip to the viewer, smoothed.
    pub rtt_ms: Option<u64>,
    /// The longest one.
    pub rtt_most_ms: Option<u64>,
    /// Times the viewer took nothing for more than a second while something waited.
    pub stalls: u64,
    /// How long they lasted in all.
    pub stalled_ms: u64,
}

/// A write that takes longer is a stall.
pub const STALL: Duration = Duration::from_secs(1);

impl Experience {
    /// Takes a measured round trip into account.
    pub fn round_trip(&mut self, rtt: Duration) {
        let ms = millis(rtt);
        // One eighth of the news, as TCP does it: a single late answer is not the line.
        self.rtt_ms = Some(self.rtt_ms.map_or(ms, |old| (7 * old + ms) / 8));
        self.rtt_most_ms = self.rtt_most_ms.max(Some(ms));
    }

    /// Takes a finished write into account.
    pub fn written(&mut self, took: Duration) {
        if took >= STALL {
            self.stalls += 1;
            self.stalled_ms += millis(took);
        }
    }
}

/// Whole milliseconds.
#[must_use]
pub fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

text_enum! {
    /// A part of the way from the officer to the desktop.
    Segment {
        /// Waiting for a desktop to be free.
        Line = "line",
        /// From the ticket to the gateway.
        Ticket = "ticket",
        /// Opening the display on the host.
        Display = "display",
        /// The desktop's first picture.
        Picture = "picture",
        /// The round trip.
        RoundTrip = "round_trip",
        /// What the viewer's line held up.
        Stalls = "stalls",
    }
}

text_enum! {
    /// Whose a segment is.
    Owner {
        /// Too few desktops.
        Capacity = "capacity",
        /// The office's line.
        Network = "network",
        /// The hypervisor host.
        Host = "host",
        /// The desktop itself.
        Desktop = "desktop",
    }
}

/// One segment as measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Which.
    pub segment: Segment,
    /// Milliseconds.
    pub ms: u64,
    /// More than this is felt.
    pub limit_ms: u64,
    /// Whose it is.
    pub owner: Owner,
}

/// The segments that were measured, on the officer's way.
#[must_use]
pub fn segments(line_ms: Option<u64>, e: &Experience) -> Vec<Measured> {
    let stalled = e.rtt_ms.map(|_| e.stalled_ms).or((e.stalls > 0).then_some(e.stalled_ms));
    [
        (Segment::Line, line_ms, 60_000, Owner::Capacity),
        (Segment::Ticket, e.ticket_ms, 2_000, Owner::Network),
        (Segment::Display, e.display_ms, 500, Owner::Host),
        (Segment::Picture, e.picture_ms, 1_500, Owner::Desktop),
        (Segment::RoundTrip, e.rtt_ms, 150, Owner::Network),
        (Segment::Stalls, stalled, 3_000, Owner::Network),
    ]
    .into_iter()
    .filter_map(|(segment, ms, limit_ms, owner)| Some(Measured { segment, ms: ms?, limit_ms, owner }))
    .collect()
}

/// The segment to blame: the one furthest over what is felt; none if all is well.
#[must_use]
pub fn guilty(segments: &[Measured]) -> Option<Segment> {
    let over = segments.iter().filter(|s| s.ms > s.limit_ms);
    over.max_by_key(|s| s.ms.saturating_mul(1000) / s.limit_ms.max(1)).map(|s| s.segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_furthest_over_its_own_limit_is_to_blame() {
        let mut e =
            Experience { ticket_ms: Some(90), display_ms: Some(20), picture_ms: Some(400), ..Experience::default() };
        e.round_trip(Duration::from_millis(80));
        let blame = |line, e: &Experience| guilty(&segments(line, e));
        assert_eq!(blame(Some(0), &e), None, "all is well");
        e.display_ms = Some(2_000);
        e.picture_ms = Some(2_500);
        assert_eq!(blame(None, &e), Some(Segment::Display), "4 times its limit, though not the longest");
        assert_eq!(blame(Some(600_000), &e), Some(Segment::Line));
        for _ in 0..60 {
            e.round_trip(Duration::from_millis(900));
        }
        assert_eq!(blame(None, &e), Some(Segment::RoundTrip));
        assert_eq!(guilty(&[]), None);
    }

    #[test]
    fn one_late_answer_is_not_the_line_and_short_writes_are_no_stalls() {
        let mut e = Experience::default();
        for ms in [40, 40, 40, 440] {
            e.round_trip(Duration::from_millis(ms));
        }
        assert_eq!((e.rtt_ms, e.rtt_most_ms), (Some(90), Some(440)));
        e.written(Duration::from_millis(999));
        e.written(Duration::from_millis(2500));
        assert_eq!((e.stalls, e.stalled_ms), (1, 2500));
    }
}
