//! Records on their way: at least once, newest state first, and on disk while there is no line.
//!
//! One batch is in flight at a time; the controller's answer is what paces the next. Records of now go before the
//! backlog, and the backlog goes no faster than a thin line bears. What only tells that gauges moved, or repeats what was
//! told, waits for the next beat and goes in its packet, and the answer comes with the beat's: on a line that is paid by
//! the byte the headers of packets are most of what an endpoint costs.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use tram_wire::report::{Record, Report};

use crate::queue::{LIMIT, Queue, Stored};

/// Records of one batch, and about how many bytes.
const BATCH: usize = 64;
const BYTES: usize = 30 * 1024;
/// Between two batches of the backlog: 30 KiB a second at most.
const PACE: Duration = Duration::from_secs(1);
/// Records that may wait in memory for a controller that is slow to answer.
const WAITING: usize = 128;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// What may not wait for a beat.
    Pressing,
    /// A beat goes now; what waited for it goes along.
    Beat,
    /// Everything, each with an answer of its own: somebody looks on.
    All,
}

#[derive(Clone, Copy)]
enum Flight {
    /// So many of those made since the line is up.
    Fresh(usize),
    /// The same, and its answer takes its time: what may not wait goes before it.
    Rides(usize),
    /// So many of the backlog.
    Late(usize),
}

/// The outbox.
pub struct Outbox {
    queue: Queue,
    fresh: VecDeque<Stored>,
    /// The segment being sent, and what of it is left.
    late: Option<(u64, VecDeque<Stored>)>,
    flight: Option<(u64, Flight)>,
    batch: u64,
    next_late: Duration,
    /// Something of now was told on this line: the past may follow.
    told: bool,
    /// The newest record that only repeats what was told.
    repeats: Option<u64>,
}

impl Outbox {
    /// Opens what an earlier run left.
    #[must_use]
    pub fn open(state: &Path) -> Self {
        let queue = Queue::open(state, LIMIT);
        Self {
            queue,
            fresh: VecDeque::new(),
            late: None,
            flight: None,
            batch: 0,
            next_late: Duration::ZERO,
            told: false,
            repeats: None,
        }
    }

    /// The record of this number, of the running boot, will only repeat what was told: it may wait for a beat.
    pub fn repeats(&mut self, seq: u64) {
        self.repeats = Some(seq);
    }

    /// Takes a record in. Without a line it goes to disk at once.
    pub fn put(&mut self, boot: &str, record: Record, line: bool) {
        let stored = Stored { boot: boot.to_owned(), record };
        if !line {
            self.queue.keep(vec![stored]);
            return;
        }
        self.told = true;
        self.fresh.push_back(stored);
        if self.fresh.len() > WAITING && self.flight.is_none() {
            self.queue.keep(self.fresh.drain(..).collect());
        }
    }

    /// The line is gone: whatever was not acknowledged waits on disk.
    pub fn cut(&mut self) {
        (self.flight, self.late, self.told) = (None, None, false);
        if !self.fresh.is_empty() {
            self.queue.keep(self.fresh.drain(..).collect());
        }
    }

    /// Bytes of the queue that made no sense, since the last call.
    pub fn damage(&mut self) -> u64 {
        self.queue.damage()
    }

    /// Whether anything waits for its turn, and when the next turn may be.
    #[must_use]
    pub fn wake(&self) -> Option<Duration> {
        let waits = self.told && self.flight.is_none() && (self.late.is_some() || !self.queue.is_empty());
        waits.then_some(self.next_late)
    }

    /// The next batch, if it is time for one. `clock`: the running boot, its clock, and the calendar. `turn`: whether
    /// what can wait for a beat goes now.
    pub fn next(&mut self, now: Duration, (boot, mono_ms, at_ms): (&str, u64, i64), turn: Turn) -> Option<Report> {
        let quiet = turn != Turn::All
            && self.fresh.iter().all(|s| quiet(s, self.repeats))
            && self.late.is_none()
            && self.queue.is_empty();
        match self.flight {
            None if quiet && turn == Turn::Pressing => return None,
            None => {}
            // What is in it is sent again, before what is new; whoever has it already drops it.
            Some((_, Flight::Rides(n))) if !quiet && self.fresh.len() > n => {}
            Some(_) => return None,
        }
        let (records, flight, of) = if let Some(first) = self.fresh.front() {
            let of = first.boot.clone();
            let records = take(&self.fresh, &of);
            let n = records.len();
            (records, if quiet { Flight::Rides(n) } else { Flight::Fresh(n) }, of)
        } else {
            // Told first, the past would be taken for the present.
            if !self.told || now < self.next_late {
                return None;
            }
            if self.late.is_none() {
                self.late = self.queue.oldest().map(|(n, all)| (n, all.into()));
            }
            let (_, rest) = self.late.as_ref()?;
            let of = rest.front()?.boot.clone();
            let records = take(rest, &of);
            let n = records.len();
            self.next_late = now + PACE;
            (records, Flight::Late(n), of)
        };
        self.batch += 1;
        self.flight = Some((self.batch, flight));
        let mono_ms = (of == boot).then_some(mono_ms);
        let rides = matches!(flight, Flight::Rides(_));
        Some(Report { batch: self.batch, boot: of, mono_ms, at_ms, records, rides })
    }

    /// The controller has a batch.
    pub fn kept(&mut self, batch: u64) {
        match self.flight.take() {
            Some((b, Flight::Fresh(n) | Flight::Rides(n))) if b == batch => {
                drop(self.fresh.drain(..n.min(self.fresh.len())))
            }
            Some((b, Flight::Late(n))) if b == batch => {
                let Some((number, rest)) = &mut self.late else { return };
                rest.drain(..n.min(rest.len()));
                if rest.is_empty() {
                    let number = *number;
                    self.queue.done(number);
                    self.late = None;
                }
            }
            // An answer from before the line was cut.
            other => self.flight = other,
        }
    }
}

/// It tells that gauges moved, and nothing else that is new.
fn quiet(stored: &Stored, repeats: Option<u64>) -> bool {
    let Record { seq, mono_ms, at_ms, ref gauges, .. } = stored.record;
    repeats == Some(seq) || stored.record == Record { seq, mono_ms, at_ms, gauges: gauges.clone(), ..Record::default() }
}

/// The first records of one boot that fit a batch; at least one.
fn take(from: &VecDeque<Stored>, boot: &str) -> Vec<Record> {
    let (mut out, mut bytes) = (Vec::new(), 0);
    for s in from.iter().take(BATCH).take_while(|s| s.boot == boot) {
        bytes += serde_json::to_vec(&s.record).map_or(0, |v| v.len());
        if !out.is_empty() && bytes > BYTES {
            break;
        }
        out.push(s.record.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn record(seq: u64) -> Record {
        Record { seq, gauges: [("cpu".to_owned(), Some(1.0))].into(), ..Record::default() }
    }

    fn seqs(r: &Report) -> Vec<u64> {
        r.records.iter().map(|r| r.seq).collect()
    }

    #[test]
    fn now_goes_before_the_backlog_and_nothing_is_lost_by_a_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut o = Outbox::open(dir.path());
        (1..=3).for_each(|n| o.put("old", record(n), false));
        o.put("new", record(1), false);
        // The computer was started again; the line is up.
        let mut o = Outbox::open(dir.path());
        o.put("new", record(9), true);
        let clock = ("new", 70_000, 1_795_000_000_000);
        let first = o.next(SECOND, clock, Turn::All).unwrap();
        assert_eq!((seqs(&first), first.mono_ms), (vec![9], Some(70_000)));
        assert!(o.next(SECOND, clock, Turn::All).is_none(), "one batch at a time");
        o.kept(first.batch);
        let late = o.next(SECOND, clock, Turn::All).unwrap();
        assert_eq!((seqs(&late), late.mono_ms, late.boot.as_str()), (vec![1, 2, 3], None, "old"));
        o.cut();
        assert!(
            o.wake().is_none() && o.next(3 * SECOND, clock, Turn::All).is_none(),
            "the past waits for a word of now"
        );
        o.put("new", record(10), true);
        let now = o.next(3 * SECOND, clock, Turn::All).unwrap();
        assert_eq!(seqs(&now), [10]);
        o.kept(now.batch);
        let again = o.next(3 * SECOND, clock, Turn::All).unwrap();
        assert_eq!(seqs(&again), [1, 2, 3], "not acknowledged, so sent again");
        o.kept(late.batch);
        assert!(
            o.next(9 * SECOND, clock, Turn::All).is_none(),
            "an answer of the old line says nothing of the new one"
        );
        o.kept(again.batch);
        let rest = o.next(9 * SECOND, clock, Turn::All).unwrap();
        assert_eq!((seqs(&rest), rest.mono_ms), (vec![1], Some(70_000)));
        o.kept(rest.batch);
        assert!(o.wake().is_none() && o.next(99 * SECOND, clock, Turn::All).is_none());
    }

    #[test]
    fn what_only_moved_goes_with_the_beat_and_what_presses_does_not_wait_for_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let (mut o, clock) = (Outbox::open(dir.path()), ("b", 1, 1));
        o.put("b", record(1), true);
        assert!(o.next(SECOND, clock, Turn::Pressing).is_none(), "a gauge waits");
        let first = o.next(SECOND, clock, Turn::Beat).unwrap();
        assert!(first.rides && seqs(&first) == [1]);
        o.put("b", record(2), true);
        assert!(o.next(SECOND, clock, Turn::Beat).is_none(), "the answer comes with this beat's");
        let plugged = Record { notes: vec![tram_wire::report::Note::default()], ..record(3) };
        o.put("b", plugged, true);
        let press = o.next(SECOND, clock, Turn::Pressing).unwrap();
        assert!(!press.rides && seqs(&press) == [1, 2, 3], "{press:?}");
        o.kept(first.batch);
        assert!(o.next(SECOND, clock, Turn::Beat).is_none(), "the answer to the one before is not this one's");
        o.kept(press.batch);
        assert!(o.next(SECOND, clock, Turn::All).is_none(), "all is told");
        // A keyframe that repeats what was told waits, too; one that tells more does not.
        o.repeats(6);
        o.put("b", Record { key: true, ..record(6) }, true);
        assert!(o.next(SECOND, clock, Turn::Pressing).is_none());
        let again = o.next(SECOND, clock, Turn::Beat).unwrap();
        assert!(again.rides && seqs(&again) == [6]);
        o.kept(again.batch);
        o.put("b", Record { key: true, ..record(7) }, true);
        let more = o.next(SECOND, clock, Turn::Pressing).unwrap();
        assert!(!more.rides && seqs(&more) == [7]);
        o.kept(more.batch);
        o.put("b", record(4), true);
        o.next(SECOND, clock, Turn::Beat).unwrap();
        o.cut();
        o.put("b", record(5), true);
        let (now, past) = (o.next(SECOND, clock, Turn::Beat).unwrap(), Turn::Pressing);
        assert!(!now.rides && seqs(&now) == [5], "where a backlog waits, answers pace it");
        o.kept(now.batch);
        assert_eq!(seqs(&o.next(SECOND, clock, past).unwrap()), [4], "it was not acknowledged");
    }

    #[test]
    fn the_backlog_keeps_its_pace_and_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let mut o = Outbox::open(dir.path());
        (0..500).for_each(|n| o.put("b", record(n), false));
        o.put("b", record(500), true);
        let now = o.next(Duration::ZERO, ("b", 1, 1), Turn::All).unwrap();
        o.kept(now.batch);
        let mut got = 0;
        for turn in 0..8 {
            let r = o.next(turn * SECOND, ("b", 1, 1), Turn::All).unwrap();
            assert!(o.next(turn * SECOND, ("b", 1, 1), Turn::All).is_none());
            got += r.records.len();
            o.kept(r.batch);
            assert!(turn == 7 || o.next(turn * SECOND + SECOND / 2, ("b", 1, 1), Turn::All).is_none(), "too fast");
        }
        assert_eq!(got, 500);
    }

    #[test]
    fn what_is_in_flight_when_the_agent_stops_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut o = Outbox::open(dir.path());
        o.put("b", record(5), true);
        o.next(SECOND, ("b", 1, 1), Turn::All).unwrap();
        o.cut();
        let mut o = Outbox::open(dir.path());
        o.put("b", record(6), true);
        let now = o.next(SECOND, ("b", 1, 1), Turn::All).unwrap();
        o.kept(now.batch);
        assert_eq!(seqs(&o.next(SECOND, ("b", 1, 1), Turn::All).unwrap()), [5]);
    }
}
