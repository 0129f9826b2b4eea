//! How much may be on its way: enough to fill the line, little enough that its queue stays short.

use std::time::Duration;

use super::estimate::{Estimate, GROWTH};
use super::replay::Replay;
use super::{HEADER, Limits, THIN_PAYLOAD};

/// Of what an empty line holds: what waits here, in the kernel or at the bottleneck beyond that can't be overtaken
/// any more. Less would not fill the line, as acknowledgements come in lumps.
const FULL: f64 = 1.8;
/// While it is not known yet what the line carries, the kernel must be able to find out.
const GROWING: f64 = 3.0;
/// Least that may be on its way then.
const FIRST: usize = 64 * 1024;
/// Least that may be on its way ever, and what a short line may hold: what it carries in this time, up to there.
const LEAST: usize = 8 * THIN_PAYLOAD;
const SHORT: f64 = 0.02;
const SHORT_MOST: usize = 1024 * 1024;
/// What the two ends themselves may take until a frame is acknowledged.
const ENDS: f64 = 0.002;
/// Acknowledgements that are late by this much are held up by a lost packet. What was sent behind it has left
/// the line as ever, and is replaced, for at most so many round trips.
const LATE: Duration = Duration::from_millis(10);
const HELD_UP: u32 = 2;

/// A thin line is fed as fast as it delivers. So much may wait at its bottleneck: of a round trip, and in frames…
const QUEUE_TRIPS: f64 = 0.25;
const QUEUE_FRAMES: f64 = 1.5;
/// …and so much may be on its way altogether: what a lost packet and the one sent again for it hold up has left the
/// line, and is replaced. A line that is dead gets no more.
const HELD_TRIPS: f64 = 4.5;
/// Acknowledgements are looked at for so long before what is thought of the line is corrected…
const LOOK_TRIPS: u32 = 4;
const SHORTEST_LOOK: Duration = Duration::from_millis(100);
/// …by this part of how much too fast or too slow it was fed, at most a tenth of that at once.
const CORRECTED: f64 = 0.5;
const MOST_CORRECTED: f64 = 0.1;

/// What may be on its way.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// When something last was acknowledged.
    acked: Duration,
    /// It is closed, and opens then if nothing is acknowledged before.
    pub(super) opens: Option<Duration>,
    /// When this connection began.
    began: Duration,
    /// Of a thin line whose rate is known.
    pace: Option<Pace>,
}

/// What is thought of a thin line. A window alone can't keep its queue short: acknowledgements come in lumps there, and
/// between them nothing would be sent. Here the time everything should take is known when it is sent, and the
/// acknowledgements only correct it. Of those that came behind a lost packet nothing is learnt, only of the least late.
#[derive(Debug)]
struct Pace {
    /// Bytes a second that leave the bottleneck, besides what is sent twice.
    rate: f64,
    /// When all that was sent should have left it.
    free: Duration,
    /// How late acknowledgements were at least, in seconds; since when they are looked at; whether something had to wait
    /// since then. An idle line's acknowledgements may take their time.
    late: Option<f64>,
    since: Duration,
    waited: bool,
}

impl Pace {
    /// As it stands when the rate has become known, with what is held.
    fn new(now: Duration, held: usize, rate: f64, least: Duration) -> Self {
        let waits = held as f64 / rate - least.as_secs_f64();
        let free = now + Duration::from_secs_f64(waits.max(0.0));
        // What was sent before is not looked at.
        Self { rate, free, late: None, since: now + least, waited: false }
    }

    /// When the next frame may be sent.
    fn next(&self, least: Duration) -> Duration {
        let frames = QUEUE_FRAMES * (HEADER + THIN_PAYLOAD) as f64 / self.rate;
        self.free.saturating_sub(Duration::from_secs_f64(frames.max(QUEUE_TRIPS * least.as_secs_f64())))
    }

    fn acked(&mut self, now: Duration, left: Duration, least: Duration, known: f64) {
        let late = now.as_secs_f64() - (left + least).as_secs_f64() - ENDS;
        let late = self.late.map_or(late, |l| l.min(late));
        self.late = Some(late);
        let looked = now.saturating_sub(self.since);
        if looked < (least * LOOK_TRIPS).max(SHORTEST_LOOK) {
            return;
        }
        if self.waited {
            // So much more waits at the bottleneck than was thought, or less.
            let shift = Duration::from_secs_f64(late.abs());
            self.free = if late > 0.0 { self.free + shift } else { self.free.saturating_sub(shift) };
            let part = (late / looked.as_secs_f64()).clamp(-MOST_CORRECTED, MOST_CORRECTED);
            self.rate = (self.rate * (1.0 - CORRECTED * part)).clamp(known / 2.0, known * GROWTH);
        }
        (self.late, self.since, self.waited) = (None, now, false);
    }
}

impl Window {
    /// A new connection, whose line is empty.
    pub(super) fn restart(&mut self, now: Duration) {
        *self = Self { acked: now, began: now, ..Self::default() };
    }

    /// Something was acknowledged; the last of it should have left the line at `left`.
    pub(super) fn acked(&mut self, now: Duration, left: Duration, line: &Estimate) {
        (self.acked, self.opens) = (now, None);
        if let (Some(pace), Some(rate), Some(least)) = (&mut self.pace, line.rate(), line.least()) {
            // What a former connection lost says nothing of this one.
            if left >= self.began && now >= pace.since {
                pace.acked(now, left, least, rate);
            }
        }
    }

    /// So many bytes are sent: when they should have left the line.
    pub(super) fn sent(&mut self, now: Duration, bytes: usize, line: &Estimate) -> Duration {
        match &mut self.pace {
            Some(pace) => {
                pace.free = pace.free.max(now) + Duration::from_secs_f64(bytes as f64 / pace.rate);
                pace.free
            }
            None => now + Duration::from_secs_f64(line.rate().map_or(0.0, |rate| bytes as f64 / rate)),
        }
    }

    /// Whether more may be sent.
    pub(super) fn open(&mut self, now: Duration, replay: &Replay, line: &Estimate, limits: &Limits) -> bool {
        self.opens = None;
        let held = replay.held();
        let (Some(rate), Some(least)) = (line.rate(), line.least()) else { return held < limits.replay };
        let most = limits.most_replay.max(LEAST);
        if !line.full() || !line.thin() {
            self.pace = None;
            return self.open_wide(now, replay, (rate, least), (size(rate, least, line.full()).min(most), most));
        }
        let pace = self.pace.get_or_insert_with(|| Pace::new(now, held, rate, least));
        let next = pace.next(least);
        let full = held >= ((rate * least.as_secs_f64() * HELD_TRIPS) as usize).max(LEAST).min(most);
        if next <= now && !full {
            return true;
        }
        pace.waited = true;
        self.opens = (!full).then_some(next);
        false
    }

    /// The same where all that counts is what is held: the line is wide, or not known yet.
    fn open_wide(
        &mut self,
        now: Duration,
        replay: &Replay,
        (rate, least): (f64, Duration),
        (window, most): (usize, usize),
    ) -> bool {
        let held = replay.held();
        if held < window {
            return true;
        }
        // Closed; unless what is missing is late.
        let due = self.acked.max(replay.oldest().unwrap_or(now) + least) + LATE;
        let late = now.saturating_sub(due).min(least * HELD_UP);
        let gone = (rate * late.as_secs_f64()) as usize;
        if held < (window + gone).min(most) {
            return true;
        }
        let next = Duration::from_secs_f64((held - window + HEADER) as f64 / rate);
        self.opens = (next <= least * HELD_UP && held < most).then(|| due + next);
        false
    }
}

fn size(rate: f64, least: Duration, full: bool) -> usize {
    let trip = least.as_secs_f64();
    if !full {
        return ((rate * trip * GROWING) as usize).max(FIRST);
    }
    let short = ((rate * SHORT) as usize).clamp(LEAST, SHORT_MOST);
    ((rate * (trip * FULL + ENDS)) as usize).max(short)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::header::{Kind, frame};
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A line of so many bytes a millisecond and 80 ms that is known to be full.
    fn line(rate: u64) -> Estimate {
        let mut line = Estimate::default();
        line.round_trip(MS(0), MS(80));
        for at in (0..2000).step_by(80) {
            line.press();
            line.delivered(MS(at), 80 * rate, MS(at));
        }
        assert!(line.full());
        line
    }

    /// What carries so many bytes a millisecond and loses now and then: the acknowledgements of a moment then come with
    /// those of the next ones. Feeds it until `until` and returns the longest queue, in milliseconds, and how much of the
    /// time it was empty, both of the second half.
    fn feed(rate: u64, known: u64, lumps: u64, until: u64) -> (u64, f64) {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line(known));
        window.restart(MS(2000));
        let (mut free, mut longest, mut idle) = (2_000_000, 0, 0);
        let mut acks: VecDeque<(u64, u64)> = VecDeque::new();
        for now in 2000..until {
            while let Some((_, number)) = acks.pop_front_if(|(due, _)| *due <= now) {
                let mut line = Estimate::default();
                if let Some(left) = replay.ack(number, MS(now), &mut line, |_| {}).unwrap() {
                    window.acked(MS(now), left, &self::line(known));
                }
            }
            while window.open(MS(now), &replay, &line, &Limits::default()) {
                let bytes = (HEADER + THIN_PAYLOAD) as u64;
                let left = window.sent(MS(now), bytes as usize, &line);
                let number = replay.push(MS(now), left, frame(Kind::Data, 0, 1, 0, &[0; THIN_PAYLOAD]));
                free = free.max(now * 1000) + bytes * 1000 / rate;
                let heard = free / 1000 + 80;
                // Half of the time is spent behind a lost packet.
                let heard = if heard % 400 < lumps { heard - heard % 400 + lumps } else { heard };
                acks.push_back((heard, number));
            }
            if now > until / 2 {
                longest = longest.max((free / 1000).saturating_sub(now));
                idle += u64::from(free <= now * 1000);
            }
        }
        (longest, idle as f64 / (until / 2) as f64)
    }

    /// Sends frames at `now` until the window closes; how many bytes.
    fn fill(now: Duration, window: &mut Window, replay: &mut Replay, line: &Estimate) -> usize {
        let before = replay.held();
        while window.open(now, replay, line, &Limits::default()) {
            let left = window.sent(now, HEADER + THIN_PAYLOAD, line);
            replay.push(now, left, frame(Kind::Data, 0, 1, 0, &[0; THIN_PAYLOAD]));
        }
        replay.held() - before
    }

    #[test]
    fn a_full_wide_line_holds_less_than_two_of_what_it_carries_in_a_round_trip() {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line(5000));
        window.restart(MS(2000));
        let held = fill(MS(2000), &mut window, &mut replay, &line);
        assert!((600_000..820_000).contains(&held), "{held}");
    }

    #[test]
    fn what_waits_behind_a_lost_packet_is_replaced_but_not_for_ever() {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line(5000));
        window.restart(MS(2000));
        let full = fill(MS(2000), &mut window, &mut replay, &line);
        let opens = window.opens.unwrap();
        assert!((MS(2090)..MS(2110)).contains(&opens), "a frame later than the acknowledgement was due: {opens:?}");
        assert!(!window.open(opens - MS(1), &replay, &line, &Limits::default()));
        assert!(window.open(opens + MS(1), &replay, &line, &Limits::default()));
        // A round trip without news: what has left the line by then.
        let more = fill(MS(2170), &mut window, &mut replay, &line);
        assert!((300_000..500_000).contains(&more), "{more}");
        // A line that is dead gets two round trips of it, and then no more.
        let rest = fill(MS(60_000), &mut window, &mut replay, &line);
        assert!(more + rest < full * 3 / 2, "{more} {rest}");
        assert_eq!(window.opens, None);
    }

    #[test]
    fn a_thin_line_is_fed_as_fast_as_it_delivers() {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line(500));
        window.restart(MS(2000));
        let first = fill(MS(2000), &mut window, &mut replay, &line);
        assert!((10_000..20_000).contains(&first), "20 ms of it: {first}");
        let next = window.opens.unwrap();
        assert!((MS(2001)..MS(2010)).contains(&next), "{next:?}");
        assert!(!window.open(next - MS(1), &replay, &line, &Limits::default()));
        let mut sent = 0;
        for now in 2001..2100 {
            sent += fill(MS(now), &mut window, &mut replay, &line);
        }
        assert!((45_000..60_000).contains(&sent), "100 ms of it: {sent}");
        // Nobody hears anything any more: not for ever.
        for now in 2100..60_000 {
            sent += fill(MS(now), &mut window, &mut replay, &line);
        }
        assert!(sent < 200_000, "{sent}");
        assert_eq!(window.opens, None);
    }

    #[test]
    fn a_thin_lines_queue_is_short_and_never_empty_for_long() {
        for (known, lumps) in [(500, 0), (500, 200), (575, 0), (575, 200), (450, 0), (450, 200)] {
            let (longest, idle) = feed(500, known, lumps, 30_000);
            assert!(longest <= 45 && idle < 0.03, "{known} {lumps}: {longest} ms, {idle} of the time idle");
        }
    }

    #[test]
    fn what_was_sent_before_a_cut_does_not_slow_the_new_line() {
        let (mut window, mut replay, line) = (Window::default(), Replay::default(), line(500));
        window.restart(MS(2000));
        fill(MS(2000), &mut window, &mut replay, &line);
        let last = replay.last();
        window.restart(MS(30_000));
        let left = replay.ack(last, MS(30_200), &mut Estimate::default(), |_| {}).unwrap().unwrap();
        window.acked(MS(30_200), left, &line);
        assert!(window.open(MS(30_200), &replay, &line, &Limits::default()));
    }

    #[test]
    fn the_kernel_can_find_out_what_an_unknown_line_carries() {
        let mut line = Estimate::default();
        line.round_trip(MS(0), MS(300));
        line.delivered(MS(600), 100_000, MS(600));
        assert!(!line.full());
        let (mut window, mut replay) = (Window::default(), Replay::default());
        let held = fill(MS(600), &mut window, &mut replay, &line);
        assert!(held > 140_000, "three of what came in a round trip: {held}");
    }
}
