//! Beats, and answers that ride with them, in their short form: a dozen bytes in a binary frame, where the JSON of one is
//! a hundred.
//!
//! ```text
//! beat  01  seq  at_ms  rtt_us + 1 (0: not known)      ack  02  seq  server_ms      kept  05  batch
//! ```
//! Numbers are little-endian base 128 (the highest bit says that more follows). An agent sends them only to a
//! controller whose plan says that it reads them ([`crate::plan::Plan::binary`]), and whoever gets one answers
//! alike. A batch is answered so only if it asked for that ([`crate::report::Report::rides`]). What is longer or shorter than told is no beat.

use crate::heartbeat::{Beat, BeatAck};
use crate::report::ReportAck;

const BEAT: u8 = 1;
const ACK: u8 = 2;
// 3 and 4 are what is packed.
const KEPT: u8 = 5;

/// A beat's bytes.
#[must_use]
pub fn beat(b: &Beat) -> Vec<u8> {
    let rtt = b.rtt_us.map_or(0, |us| u64::from(us) + 1);
    frame(BEAT, &[b.seq, milliseconds(b.at_ms), rtt])
}

/// The beat of these bytes.
#[must_use]
pub fn read_beat(bytes: &[u8]) -> Option<Beat> {
    let [seq, at_ms, rtt] = read(BEAT, bytes)?;
    let rtt_us = rtt.checked_sub(1).map(u32::try_from).transpose().ok()?;
    Some(Beat { seq, at_ms: i64::try_from(at_ms).ok()?, rtt_us })
}

/// An answer's bytes.
#[must_use]
pub fn ack(a: &BeatAck) -> Vec<u8> {
    frame(ACK, &[a.seq, milliseconds(a.server_ms)])
}

/// The answer of these bytes.
#[must_use]
pub fn read_ack(bytes: &[u8]) -> Option<BeatAck> {
    let [seq, server_ms] = read(ACK, bytes)?;
    Some(BeatAck { seq, server_ms: i64::try_from(server_ms).ok()? })
}

/// The bytes of an answer to a batch.
#[must_use]
pub fn kept(a: &ReportAck) -> Vec<u8> {
    frame(KEPT, &[a.batch])
}

/// The answer to a batch of these bytes.
#[must_use]
pub fn read_kept(bytes: &[u8]) -> Option<ReportAck> {
    let [batch] = read(KEPT, bytes)?;
    Some(ReportAck { batch })
}

/// A clock from before 1970 is as wrong as one that stands at its beginning.
fn milliseconds(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

fn frame(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let mut bytes = vec![kind];
    for n in numbers {
        let mut left = *n;
        while left >= 0x80 {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
    }
    bytes
}

fn read<const N: usize>(kind: u8, bytes: &[u8]) -> Option<[u64; N]> {
    let (first, mut rest) = bytes.split_first()?;
    if *first != kind {
        return None;
    }
    let mut numbers = [0; N];
    for n in &mut numbers {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            let part = u64::from(byte & 0x7f);
            if shift > 63 || (shift == 63 && part > 1) {
                return None;
            }
            *n |= part << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
    }
    rest.is_empty().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_a_dozen_bytes_for_good() {
        let b = Beat { seq: 2880, at_ms: 1_795_000_000_000, rtt_us: Some(23_456) };
        let bytes = beat(&b);
        assert_eq!(bytes, [1, 0xc0, 0x16, 0x80, 0xbc, 0xd9, 0xf2, 0x9e, 0x34, 0xa1, 0xb7, 0x01]);
        assert_eq!(read_beat(&bytes), Some(b));
        let a = BeatAck { seq: 7, server_ms: 1_795_000_000_000 };
        assert_eq!((ack(&a).len(), read_ack(&ack(&a))), (8, Some(a)));
        let k = ReportAck { batch: 300 };
        assert_eq!((&kept(&k)[..], read_kept(&kept(&k))), (&[5, 0xac, 0x02][..], Some(k)));
        assert_eq!((read_kept(&bytes), read_kept(&[5]), read_kept(&[5, 1, 1])), (None, None, None));
    }

    #[test]
    fn what_can_be_said_can_be_read() {
        for rtt_us in [None, Some(0), Some(u32::MAX)] {
            for (seq, at_ms) in [(0, 0), (1, i64::MAX), (u64::MAX, 1)] {
                let b = Beat { seq, at_ms, rtt_us };
                assert_eq!(read_beat(&beat(&b)), Some(b));
            }
        }
        assert_eq!(read_beat(&beat(&Beat { seq: 1, at_ms: -5, rtt_us: None })).map(|b| b.at_ms), Some(0));
    }

    #[test]
    fn rubbish_is_no_beat() {
        let whole = beat(&Beat { seq: 300, at_ms: 1_795_000_000_000, rtt_us: Some(9) });
        for cut in 0..whole.len() {
            assert_eq!(read_beat(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(read_beat(&[&whole[..], &[0]].concat()), None, "too long");
        assert_eq!(read_ack(&whole), None);
        assert_eq!(read_beat(&[1; 1]), None);
        assert_eq!(read_beat(&[&[1][..], &[0xff; 40]].concat()), None, "a number without an end");
        // A time or a round trip that no clock shows.
        assert_eq!(read_beat(&frame(1, &[1, u64::MAX, 0])), None);
        assert_eq!(read_beat(&frame(1, &[1, 1, 1 << 40])), None);
    }
}
