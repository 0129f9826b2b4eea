//! Bytes to frames. The caller reads straight into the place where the bytes will stay.

use super::WIDE_PAYLOAD;
use super::fault::Fault;
use super::header::{HEADER, Header};

/// Takes frames from a connection, however it cuts them.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEADER],
    /// Bytes of the header that are there.
    have: usize,
    body: Option<(Header, Vec<u8>)>,
    /// Bytes of the payload that are there.
    filled: usize,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
}

impl Decoder {
    /// Where the next bytes belong; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.body {
            Some((_, payload)) => &mut payload[self.filled..],
            None => &mut self.head[self.have..],
        }
    }

    /// Takes buffers for payloads, as many as it may need soon.
    pub fn supply(&mut self, mut from: impl FnMut() -> Option<Vec<u8>>, most: usize) {
        while self.spare.len() < most
            && let Some(buffer) = from()
        {
            self.spare.push(buffer);
        }
    }

    /// Lets go of buffers that wait to be used again.
    pub fn shrink(&mut self) {
        self.spare = Vec::new();
    }

    fn buffer(&mut self, length: usize) -> Vec<u8> {
        if length < WIDE_PAYLOAD {
            return vec![0; length];
        }
        // What was in it before is overwritten to the last byte, as the frame is whole only then.
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(HEADER + WIDE_PAYLOAD));
        buffer.resize(length, 0);
        buffer
    }

    /// So many bytes were put there. The frame they complete, if they do.
    ///
    /// # Errors
    /// What a header says about itself that can't be.
    pub fn filled(&mut self, n: usize) -> Result<Option<(Header, Vec<u8>)>, Fault> {
        match &self.body {
            Some((_, payload)) => {
                self.filled += n;
                debug_assert!(self.filled <= payload.len());
                if self.filled < payload.len() {
                    return Ok(None);
                }
            }
            None => {
                self.have += n;
                debug_assert!(self.have <= HEADER);
                if self.have < HEADER {
                    return Ok(None);
                }
                let header = Header::decode(&self.head)?;
                let payload = self.buffer(header.length.into());
                self.body = Some((header, payload));
                if header.length > 0 {
                    return Ok(None);
                }
            }
        }
        (self.have, self.filled) = (0, 0);
        Ok(self.body.take())
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::{Kind, frame};
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let frames =
            [frame(Kind::Data, 0, 1, 1, b"hello"), frame(Kind::Ack, 0, 0, 9, b""), frame(Kind::Data, 0, 2, 2, b"x")];
        let bytes = frames.concat();
        for step in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for mut piece in bytes.chunks(step) {
                while !piece.is_empty() {
                    let space = decoder.space();
                    let n = space.len().min(piece.len());
                    space[..n].copy_from_slice(&piece[..n]);
                    piece = &piece[n..];
                    if let Some((h, payload)) = decoder.filled(n).unwrap() {
                        got.push(frame(h.kind, h.class, h.stream, h.number, &payload));
                    }
                }
            }
            assert_eq!(got, frames, "in steps of {step}");
        }
    }
}
