//! Messages after the link, followed by their short headers: type (2 bytes), size (4), body.

/// Larger than anything a viewer sends; pictures come the other way.
pub const UPWARD_LIMIT: u32 = 1 << 20;
/// The largest picture there is, and then some.
pub const DOWNWARD_LIMIT: u32 = 256 << 20;
/// Type and size.
pub const HEADER: usize = 6;
/// The viewer's first message on a display channel.
pub const DISPLAY_INIT: u16 = 101;
/// Types from here on are a channel's own; those below are common to all and say nothing of how far it is.
pub const OF_THE_CHANNEL: u16 = 101;
/// The desktop's first word on `MAIN`; its body begins with the session's id.
pub const MAIN_INIT: u16 = 103;

/// A message longer than any honest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Follows one direction of a channel, however it is cut.
#[derive(Debug)]
pub struct Frames {
    limit: u32,
    head: [u8; HEADER],
    have: usize,
    body: u32,
    seen: u32,
    first: [u8; 4],
}

impl Frames {
    /// Messages of at most this size.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, head: [0; HEADER], have: 0, body: 0, seen: 0, first: [0; 4] }
    }

    /// The next piece. `each` is told the type of every message whose header is whole, and once more with the
    /// first four bytes of its body when they are there.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn feed(&mut self, mut piece: &[u8], mut each: impl FnMut(u16, Option<u32>)) -> Result<(), TooLong> {
        while !piece.is_empty() {
            let kind = |head: &[u8; HEADER]| u16::from_le_bytes([head[0], head[1]]);
            if self.have < HEADER {
                let n = piece.len().min(HEADER - self.have);
                self.head[self.have..self.have + n].copy_from_slice(&piece[..n]);
                self.have += n;
                piece = &piece[n..];
                if self.have == HEADER {
                    self.body = u32::from_le_bytes([self.head[2], self.head[3], self.head[4], self.head[5]]);
                    self.seen = 0;
                    if self.body > self.limit {
                        return Err(TooLong);
                    }
                    each(kind(&self.head), None);
                }
            } else {
                let n = piece.len().min((self.body - self.seen) as usize);
                let before = self.seen as usize;
                if before < 4 {
                    let word = n.min(4 - before);
                    self.first[before..before + word].copy_from_slice(&piece[..word]);
                    if before + word == 4 {
                        each(kind(&self.head), Some(u32::from_le_bytes(self.first)));
                    }
                }
                self.seen += n as u32;
                piece = &piece[n..];
            }
            if self.have == HEADER && self.seen == self.body {
                self.have = 0;
            }
        }
        Ok(())
    }
}

/// Whether a message on the inputs channel is somebody's doing: keys, the mouse's way and its buttons.
#[must_use]
pub fn is_input(kind: u16) -> bool {
    matches!(kind, 101 | 102 | 104 | 111..=114)
}

/// Whether a message on a display channel draws.
#[must_use]
pub fn is_picture(kind: u16) -> bool {
    matches!(kind, 122..=126 | 302..=313)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body].concat()
    }

    #[test]
    fn messages_are_told_however_they_are_cut() {
        let stream = [message(3, &[1; 12]), message(MAIN_INIT, &[7, 0, 0, 1, 9, 9]), message(4, b"")].concat();
        for step in 1..stream.len() {
            let (mut frames, mut told) = (Frames::new(UPWARD_LIMIT), Vec::new());
            for piece in stream.chunks(step) {
                frames.feed(piece, |kind, word| told.push((kind, word))).unwrap();
            }
            let id = Some(u32::from_le_bytes([7, 0, 0, 1]));
            let once = Some(u32::from_le_bytes([1; 4]));
            assert_eq!(told, [(3, None), (3, once), (MAIN_INIT, None), (MAIN_INIT, id), (4, None)], "step {step}");
        }
    }

    #[test]
    fn absurd_lengths_end_at_the_header() {
        let mut words = message(101, b"");
        words[2..6].copy_from_slice(&(UPWARD_LIMIT + 1).to_le_bytes());
        assert_eq!(Frames::new(UPWARD_LIMIT).feed(&words, |_, _| {}), Err(TooLong));
    }
}
