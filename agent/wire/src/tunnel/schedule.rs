//! Whose frame is next.

use std::collections::VecDeque;

use super::class::Class;

/// One part in this many goes to the lowest class that waits.
const RESERVE: u64 = 20;

#[derive(Debug)]
struct Turn {
    stream: u32,
    /// Bytes it may still send in this round.
    deficit: usize,
    /// Its round has begun.
    granted: bool,
}

/// Streams that have something to send and may.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    classes: [VecDeque<Turn>; Class::ALL.len()],
    /// Bytes sent over the head of the lowest class.
    over: u64,
}

impl Schedule {
    /// A stream has something to send. It must not be waiting already.
    pub(super) fn add(&mut self, class: Class, stream: u32) {
        let queue = &mut self.classes[class.rank()];
        debug_assert!(queue.iter().all(|t| t.stream != stream));
        queue.push_back(Turn { stream, deficit: 0, granted: false });
    }

    /// A stream has nothing to send any more.
    pub(super) fn remove(&mut self, class: Class, stream: u32) {
        self.classes[class.rank()].retain(|t| t.stream != stream);
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
    }

    /// Whose frame is next. `size` says how long a stream's next frame is.
    pub(super) fn next(&mut self, quantum: usize, size: impl Fn(u32) -> usize) -> Option<u32> {
        let high = self.classes.iter().position(|q| !q.is_empty())?;
        let low = self.classes.iter().rposition(|q| !q.is_empty())?;
        if high == low {
            self.over = 0;
            return self.turn(high, quantum, &size);
        }
        let wanted = self.classes[low].front().map_or(0, |t| size(t.stream)) as u64;
        if self.over >= (RESERVE - 1) * wanted {
            self.over -= (RESERVE - 1) * wanted;
            return self.turn(low, quantum, &size);
        }
        let stream = self.turn(high, quantum, &size)?;
        self.over += size(stream) as u64;
        Some(stream)
    }

    /// Deficit round robin within a class.
    fn turn(&mut self, class: usize, quantum: usize, size: &impl Fn(u32) -> usize) -> Option<u32> {
        let queue = &mut self.classes[class];
        loop {
            let front = queue.front_mut()?;
            if !front.granted {
                front.granted = true;
                front.deficit += quantum.max(1);
            }
            let wanted = size(front.stream);
            if front.deficit >= wanted {
                front.deficit -= wanted;
                return Some(front.stream);
            }
            front.granted = false;
            queue.rotate_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes each stream got out of `frames` turns.
    fn shares(s: &mut Schedule, frames: usize, size: impl Fn(u32) -> usize + Copy) -> Vec<usize> {
        let mut got = vec![0; 8];
        for _ in 0..frames {
            let stream = s.next(1000, size).unwrap();
            got[stream as usize] += size(stream);
        }
        got
    }

    #[test]
    fn the_urgent_go_first_and_the_lowest_gets_a_twentieth() {
        let mut s = Schedule::default();
        s.add(Class::Bulk, 1);
        s.add(Class::Input, 2);
        s.add(Class::Display, 3);
        let got = shares(&mut s, 2000, |_| 1000);
        assert_eq!(got[1], 100 * 1000, "the reserve goes to the lowest");
        assert_eq!(got[2], 1900 * 1000);
        assert_eq!(got[3], 0, "strict order above it");
        s.remove(Class::Input, 2);
        assert_eq!(s.next(1000, |_| 1000), Some(3));
    }

    #[test]
    fn small_urgent_frames_are_counted_by_their_bytes() {
        let mut s = Schedule::default();
        s.add(Class::Bulk, 1);
        s.add(Class::Input, 2);
        let size = |stream| if stream == 1 { 4096 } else { 80 };
        let got = shares(&mut s, 10_000, size);
        let part = got[1] as f64 / (got[1] + got[2]) as f64;
        assert!((0.04..0.06).contains(&part), "{part}");
    }

    #[test]
    fn streams_of_one_class_share_by_bytes_not_by_frames() {
        let mut s = Schedule::default();
        s.add(Class::Display, 1);
        s.add(Class::Display, 2);
        s.add(Class::Display, 3);
        let got = shares(&mut s, 10_000, |stream| [0, 1000, 100, 333][stream as usize]);
        for stream in [2, 3] {
            let ratio = got[stream] as f64 / got[1] as f64;
            assert!((0.9..1.1).contains(&ratio), "{got:?}");
        }
    }

    #[test]
    fn nobody_waiting_is_nobodys_turn() {
        let mut s = Schedule::default();
        assert_eq!(s.next(1000, |_| 1), None);
        s.add(Class::Audio, 4);
        s.remove(Class::Audio, 4);
        assert_eq!(s.next(1000, |_| 1), None);
    }
}
