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
    /// From there until somebody was signed in on the desktop, as its guest agent says.
    pub sign_in_ms: Option<u64>,
    /// Round trip to the viewer, smoothed.
    pub rtt_ms: Option<u64>,
    /// The longest one.
    pub rtt_most_ms: Option<u64>,
    /// Times the viewer took nothing for more than a second while something waited.
    pub stalls: u64,
    /// How long they lasted in all.
    pub stalled_ms: u64,
    /// Of a thousand segments to the viewer, those that had to be sent again.
    pub lost_permille: Option<u64>,
    /// From a key or a movement of the mouse to the next picture, usually.
    pub reply_ms: Option<u64>,
    /// The same, of nineteen in twenty.
    pub reply_most_ms: Option<u64>,
    /// Pictures a minute when it was looked at last.
    pub pictures_min: Option<u64>,
    /// Towards the viewer, kbit/s, when it was looked at last.
    pub kbit: u64,
}

/// One point of a session's course: what it was like since the point before. Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Round trip to the viewer.
    pub rtt_ms: Option<u64>,
    /// Of a thousand segments to the viewer, those that had to be sent again.
    pub lost_permille: Option<u64>,
    /// Pictures a minute.
    pub pictures_min: Option<u64>,
    /// From an input to the next picture, of nineteen in twenty.
    pub reply_ms: Option<u64>,
    /// Towards the viewer, kbit/s.
    pub kbit: u64,
    /// Times the viewer took nothing for more than a second.
    pub stalls: u64,
}

/// How long replies took, counted in steps: what is kept of a session must not grow with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies([u32; STEPS.len()]);

/// Upper ends of the steps, milliseconds; longer ones are no replies.
const STEPS: [u64; 16] = [10, 20, 30, 40, 60, 80, 100, 150, 200, 300, 400, 600, 1000, 1500, 2500, 5000];

impl Replies {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        if let Some(step) = STEPS.iter().position(|most| millis(took) <= *most) {
            self.0[step] = self.0[step].saturating_add(1);
        }
    }

    /// So large a part of them took no longer than this, to the step.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let all: u64 = self.0.iter().map(|n| u64::from(*n)).sum();
        let wanted = (all as f64 * part).ceil() as u64;
        let mut seen = 0;
        STEPS
            .iter()
            .zip(self.0)
            .find(|(_, n)| {
                seen += u64::from(*n);
                seen >= wanted && all > 0
            })
            .map(|(most, _)| *most)
    }
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
        /// Somebody signed in on the desktop.
        SignIn = "sign_in",
        /// The round trip.
        RoundTrip = "round_trip",
        /// What had to be sent again.
        Loss = "loss",
        /// What the viewer's line held up.
        Stalls = "stalls",
        /// From an input to the next picture.
        Reply = "reply",
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

text_enum! {
    /// What a segment is measured in.
    Unit {
        /// Milliseconds.
        Ms = "ms",
        /// Parts of a thousand.
        Permille = "permille",
    }
}

impl Segment {
    /// What it is measured in.
    #[must_use]
    pub fn unit(self) -> Unit {
        if self == Self::Loss { Unit::Permille } else { Unit::Ms }
    }
}

/// One segment as measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Which.
    pub segment: Segment,
    /// In its unit.
    pub value: u64,
    /// More than this is felt.
    pub limit: u64,
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
        (Segment::SignIn, e.sign_in_ms, 30_000, Owner::Desktop),
        (Segment::RoundTrip, e.rtt_ms, 150, Owner::Network),
        (Segment::Loss, e.lost_permille, 20, Owner::Network),
        (Segment::Stalls, stalled, 3_000, Owner::Network),
        // The usual one: many keys have nothing to show, and one slow program is not the desktop.
        (Segment::Reply, e.reply_ms, 200, Owner::Desktop),
    ]
    .into_iter()
    .filter_map(|(segment, value, limit, owner)| Some(Measured { segment, value: value?, limit, owner }))
    .collect()
}

/// The segment to blame: the one furthest over what is felt; none if all is well.
#[must_use]
pub fn guilty(segments: &[Measured]) -> Option<Segment> {
    let over = segments.iter().filter(|s| s.value > s.limit);
    over.max_by_key(|s| s.value.saturating_mul(1000) / s.limit.max(1)).map(|s| s.segment)
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
    fn replies_are_told_to_the_step() {
        let mut r = Replies::default();
        assert_eq!(r.quantile(0.5), None);
        for ms in (1..=100).map(|n| n * 4) {
            r.add(Duration::from_millis(ms));
        }
        r.add(Duration::from_secs(6));
        assert_eq!((r.quantile(0.5), r.quantile(0.95)), (Some(200), Some(400)));
        let slow =
            Experience { reply_ms: Some(300), lost_permille: Some(90), rtt_ms: Some(160), ..Experience::default() };
        assert_eq!(guilty(&segments(None, &slow)), Some(Segment::Loss));
        assert_eq!(Segment::Loss.unit(), Unit::Permille);
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
