//! Measures what a connection feels like between two looks: how fast the desktop answers what is typed, how often
//! it draws, how much gets through. Only times and counts.

use std::time::Duration;

use super::tcp::Segments;
use crate::domain::experience::{Experience, Replies, Sample};

/// An input without a picture for so long had nothing to show for it.
const NO_REPLY: Duration = Duration::from_secs(5);

/// All of it, by a clock that somebody else reads.
#[derive(Debug, Default)]
pub struct Meter {
    /// The oldest input that has no picture yet.
    typed: Option<Duration>,
    replies: Replies,
    /// Since the last sample.
    fresh: Replies,
    pictures: u64,
    bytes: u64,
    since: Duration,
    /// Stalls up to the last sample.
    stalls: u64,
    all_pictures: u64,
    /// What the kernel said first of this line, what it said at the last sample, and of lines before it.
    first: Option<Segments>,
    last: Segments,
    before: Segments,
}

impl Meter {
    /// Somebody typed or moved the mouse.
    pub fn typed(&mut self, now: Duration) {
        if self.typed.is_none_or(|at| now.saturating_sub(at) > NO_REPLY) {
            self.typed = Some(now);
        }
    }

    /// Pixels left for the viewer; so many pictures ended with them.
    pub fn drew(&mut self, pictures: u32, now: Duration) {
        self.pictures += u64::from(pictures);
        if let Some(took) = self.typed.take().map(|at| now.saturating_sub(at)).filter(|t| *t <= NO_REPLY) {
            self.replies.add(took);
            self.fresh.add(took);
        }
    }

    /// So much went to the viewer.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// A new line carries the connection.
    pub fn new_line(&mut self) {
        self.before = self.all();
        (self.first, self.last) = (None, Segments::default());
    }

    fn all(&self) -> Segments {
        let first = self.first.unwrap_or_default();
        Segments {
            sent: self.before.sent + self.last.sent.saturating_sub(first.sent),
            again: self.before.again + self.last.again.saturating_sub(first.again),
        }
    }

    /// One point of the session's course, and what is known of it as a whole.
    pub fn sample(&mut self, e: &mut Experience, line: Option<Segments>, now: Duration) -> Sample {
        let passed = now.saturating_sub(self.since).as_secs_f64().max(0.001);
        let former = self.all();
        if let Some(line) = line {
            self.first.get_or_insert(line);
            self.last = line;
        }
        let (all, fresh) = (self.all(), std::mem::take(&mut self.fresh));
        self.all_pictures += self.pictures;
        let known = self.first.is_some() || self.before.sent > 0;
        e.lost_permille = known.then(|| permille(all.again, all.sent));
        e.kbit = (self.bytes as f64 / 125.0 / passed) as u64;
        // Only a display whose pictures can be told apart has a rate of them.
        e.pictures_min = (self.all_pictures > 0).then(|| (self.pictures as f64 * 60.0 / passed) as u64);
        e.reply_ms = self.replies.quantile(0.5);
        e.reply_most_ms = self.replies.quantile(0.95);
        let stalls = e.stalls.saturating_sub(self.stalls);
        (self.pictures, self.bytes, self.since, self.stalls) = (0, 0, now, e.stalls);
        Sample {
            rtt_ms: e.rtt_ms,
            lost_permille: known
                .then(|| permille(all.again.saturating_sub(former.again), all.sent.saturating_sub(former.sent))),
            pictures_min: e.pictures_min,
            reply_ms: fresh.quantile(0.95),
            kbit: e.kbit,
            stalls,
        }
    }
}

fn permille(part: u64, all: u64) -> u64 {
    (part * 1000).checked_div(all).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_of_several_inputs_counts_and_only_if_something_shows_soon() {
        let (mut meter, mut e) = (Meter::default(), Experience::default());
        meter.drew(1, 10 * MS);
        meter.typed(100 * MS);
        meter.typed(140 * MS);
        meter.drew(0, 180 * MS);
        meter.drew(1, 181 * MS);
        // A key that shows nothing, then a mouse movement long after.
        meter.typed(1_000 * MS);
        meter.typed(20_000 * MS);
        meter.drew(1, 20_030 * MS);
        meter.typed(21_000 * MS);
        meter.drew(1, 40_000 * MS);
        meter.sent(250_000);
        let sample = meter.sample(&mut e, None, 60_000 * MS);
        assert_eq!((e.reply_ms, e.reply_most_ms), (Some(30), Some(80)), "of 30 and 80 ms");
        assert_eq!((sample.reply_ms, sample.pictures_min, sample.kbit), (Some(80), Some(4), 33));
        assert_eq!((e.lost_permille, sample.lost_permille), (None, None), "the kernel said nothing");
        let quiet = meter.sample(&mut e, None, 90_000 * MS);
        assert_eq!((quiet.reply_ms, quiet.pictures_min, quiet.kbit), (None, Some(0), 0));
        assert_eq!(e.reply_ms, Some(30), "what was measured stays");
    }

    #[test]
    fn loss_is_of_the_time_since_the_last_look_and_adds_up_over_lines() {
        let (mut meter, mut e) = (Meter::default(), Experience { stalls: 2, ..Experience::default() });
        let mut look = |meter: &mut Meter, sent, again| {
            let sample = meter.sample(&mut e, Some(Segments { sent, again }), Duration::ZERO);
            (sample.lost_permille, e.lost_permille, sample.stalls)
        };
        // What was before the session is the handshake's.
        assert_eq!(look(&mut meter, 100, 50), (Some(0), Some(0), 2));
        assert_eq!(look(&mut meter, 1_100, 60), (Some(10), Some(10), 0));
        assert_eq!(look(&mut meter, 2_100, 60), (Some(0), Some(5), 0));
        meter.new_line();
        assert_eq!(look(&mut meter, 10, 0), (Some(0), Some(5), 0));
        assert_eq!(look(&mut meter, 2_010, 90), (Some(45), Some(25), 0));
    }
}
