//! What was sent and is not yet known to have arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::estimate::Estimate;
use super::fault::Fault;
use super::header::HEADER;

/// What a kept frame costs besides its bytes.
const OVERHEAD: usize = 64;

#[derive(Debug)]
struct Kept {
    frame: Arc<Vec<u8>>,
    /// When it was first chosen for the line.
    sent: Duration,
    /// When it should have left the line's bottleneck.
    left: Duration,
}

/// Numbered frames in order, until acknowledged.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Numbers up to this one are acknowledged and gone.
    acked: u64,
    frames: VecDeque<Kept>,
    held: usize,
}

impl Replay {
    /// Number of the last frame.
    pub(super) fn last(&self) -> u64 {
        self.acked + self.frames.len() as u64
    }

    /// Memory in use.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Numbers a frame, chosen at `sent` and off the line at `left`, and keeps it. Its number.
    pub(super) fn push(&mut self, sent: Duration, left: Duration, mut frame: Vec<u8>) -> u64 {
        let number = self.last() + 1;
        frame[8..HEADER].copy_from_slice(&number.to_be_bytes());
        self.held += frame.capacity() + OVERHEAD;
        self.frames.push_back(Kept { frame: Arc::new(frame), sent, left });
        number
    }

    /// A kept frame.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Vec<u8>>> {
        let at = usize::try_from(number.checked_sub(self.acked + 1)?).ok()?;
        self.frames.get(at).map(|kept| kept.frame.clone())
    }

    /// When the oldest frame was first sent that may not have arrived.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.frames.front().map(|kept| kept.sent)
    }

    /// Whether a resumption from this number is possible; changes nothing.
    pub(super) fn reaches(&self, number: u64) -> Result<(), Fault> {
        if (self.acked..=self.last()).contains(&number) { Ok(()) } else { Err(Fault::Window) }
    }

    /// All frames up to this number arrived; their buffers are not needed any more. When the last of them should have
    /// left the line; `None` if this is no news.
    pub(super) fn ack(
        &mut self,
        number: u64,
        now: Duration,
        estimate: &mut Estimate,
        mut unused: impl FnMut(Vec<u8>),
    ) -> Result<Option<Duration>, Fault> {
        if number > self.last() {
            return Err(Fault::Ack);
        }
        let (mut delivered, mut last) = (0, None);
        while self.acked < number {
            let Some(Kept { frame, sent, left }) = self.frames.pop_front() else { break };
            self.acked += 1;
            self.held -= frame.capacity() + OVERHEAD;
            delivered += frame.len() as u64;
            last = Some((sent, left));
            if let Some(buffer) = Arc::into_inner(frame) {
                unused(buffer);
            }
        }
        if let Some((sent, _)) = last {
            estimate.delivered(now, delivered, sent);
        }
        if self.frames.is_empty() {
            // An idle tunnel holds nothing.
            self.frames = VecDeque::new();
        }
        Ok(last.map(|(_, left)| left))
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::{Kind, frame};
    use super::*;

    fn filled(n: u64) -> Replay {
        let mut r = Replay::default();
        for i in 1..=n {
            assert_eq!(r.push(Duration::ZERO, Duration::ZERO, frame(Kind::Data, 0, 1, 0, b"xy")), i);
        }
        r
    }

    #[test]
    fn only_what_is_kept_can_be_resumed_from() {
        let mut r = filled(5);
        let mut e = Estimate::default();
        r.ack(2, Duration::ZERO, &mut e, |_| {}).unwrap();
        let reach: Vec<bool> = (0..=6).map(|n| r.reaches(n).is_ok()).collect();
        assert_eq!(reach, [false, false, true, true, true, true, false]);
        assert_eq!((r.get(2), r.get(6)), (None, None));
        assert_eq!(r.get(3).unwrap()[8..16], 3_u64.to_be_bytes());
    }

    #[test]
    fn an_ack_of_the_future_is_a_fault_and_frees_nothing() {
        let mut r = filled(3);
        let held = r.held();
        assert_eq!(r.ack(4, Duration::ZERO, &mut Estimate::default(), |_| {}), Err(Fault::Ack));
        assert_eq!((r.held(), r.acked), (held, 0));
        r.ack(3, Duration::ZERO, &mut Estimate::default(), |_| {}).unwrap();
        assert_eq!((r.held(), r.last()), (0, 3));
        assert_eq!(r.push(Duration::ZERO, Duration::ZERO, frame(Kind::End, 0, 1, 0, b"")), 4);
    }
}
