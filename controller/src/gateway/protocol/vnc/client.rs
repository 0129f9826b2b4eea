//! What a viewer sends after the handshake: message boundaries and lengths, nothing else.

/// Longest text for the desktop's clipboard. The hypervisor would take 2 GiB.
pub const CUT_TEXT_LIMIT: u32 = 1 << 20;
/// Most encodings a viewer may list; noVNC lists about 25.
const ENCODINGS_LIMIT: u16 = 512;
/// Most screens of a resize.
const SCREENS_LIMIT: u8 = 64;
/// Longest header of any message.
const HEADER_LIMIT: usize = 9;

/// A message no honest viewer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

/// Follows a viewer's messages however the stream is cut.
#[derive(Debug, Default)]
pub struct Messages {
    header: [u8; HEADER_LIMIT],
    have: usize,
    /// Bytes of the current message still to come.
    body: u64,
}

pub(super) enum Shape {
    /// So many bytes of header are needed to go on.
    Header(usize),
    /// So many bytes follow the header. `input`: a person did this.
    Body { length: u64, input: bool },
}

impl Messages {
    /// Takes the next piece of the stream; whether a key or pointer message began in it.
    ///
    /// # Errors
    /// [`Fault`]: the piece must not be passed on.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<bool, Fault> {
        let mut any_input = false;
        loop {
            let n = usize::try_from(self.body).unwrap_or(usize::MAX).min(piece.len());
            piece = &piece[n..];
            self.body -= n as u64;
            let Some((&byte, rest)) = piece.split_first() else { return Ok(any_input) };
            piece = rest;
            self.header[self.have] = byte;
            self.have += 1;
            match shape(&self.header[..self.have])? {
                Shape::Header(n) => debug_assert!(n > self.have && n <= HEADER_LIMIT),
                Shape::Body { length, input } => {
                    (self.have, self.body) = (0, length);
                    any_input |= input;
                }
            }
        }
    }
}

pub(super) fn shape(h: &[u8]) -> Result<Shape, Fault> {
    let body = |length: u64| Ok(Shape::Body { length, input: false });
    let need = |n: usize| Ok(Shape::Header(n));
    match *h {
        // SetPixelFormat, FramebufferUpdateRequest, EnableContinuousUpdates, xvp.
        [0] => body(19),
        [3] => body(9),
        [150] => body(9),
        [250] => body(3),
        // KeyEvent, PointerEvent. The seven-byte pointer message of newer viewers is only sent to servers
        // that announce it, which QEMU does not.
        [4] => Ok(Shape::Body { length: 7, input: true }),
        [5] => Ok(Shape::Body { length: 5, input: true }),
        // SetEncodings.
        [2, _, a, b] => match u16::from_be_bytes([a, b]) {
            n if n > ENCODINGS_LIMIT => Err(Fault("too many encodings")),
            n => body(u64::from(n) * 4),
        },
        [2, ..] => need(4),
        // ClientCutText; a negative length marks the extended clipboard.
        [6, _, _, _, a, b, c, d] => match i32::from_be_bytes([a, b, c, d]).unsigned_abs() {
            n if n > CUT_TEXT_LIMIT => Err(Fault("the clipboard text is too long")),
            n => body(n.into()),
        },
        [6, ..] => need(8),
        // ClientFence.
        [248, _, _, _, _, _, _, _, n] if n > 64 => Err(Fault("a fence is too long")),
        [248, _, _, _, _, _, _, _, n] => body(n.into()),
        [248, ..] => need(9),
        // SetDesktopSize.
        [251, _, _, _, _, _, n] if n > SCREENS_LIMIT => Err(Fault("too many screens")),
        [251, _, _, _, _, _, n] => body(1 + u64::from(n) * 16),
        [251, ..] => need(7),
        // QEMU: extended key, audio on, off and format.
        [255, 0] => Ok(Shape::Body { length: 10, input: true }),
        [255, 1, 0, 0 | 1] => body(0),
        [255, 1, 0, 2] => body(6),
        [255] => need(2),
        [255, 1] | [255, 1, 0] => need(4),
        _ => Err(Fault("an unknown message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_text(length: i32, text: &[u8]) -> Vec<u8> {
        [&[6, 0, 0, 0][..], &length.to_be_bytes(), text].concat()
    }

    fn all_kinds() -> Vec<Vec<u8>> {
        vec![
            [&[0; 4][..], &[32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]].concat(),
            vec![2, 0, 0, 2, 0, 0, 0, 0, 255, 255, 255, 33],
            vec![3, 1, 0, 0, 0, 0, 2, 0, 2, 0],
            vec![150, 1, 0, 0, 0, 0, 2, 0, 2, 0],
            vec![248, 0, 0, 0, 0, 0, 0, 0, 2, 7, 7],
            vec![250, 0, 1, 2],
            [&[251, 0, 2, 0, 2, 0, 1, 0][..], &[0; 16]].concat(),
            cut_text(3, b"abc"),
            cut_text(-6, b"extend"),
            vec![255, 1, 0, 0],
            vec![255, 1, 0, 2, 3, 2, 0, 0, 0, 1],
        ]
    }

    fn input_kinds() -> Vec<Vec<u8>> {
        vec![vec![4, 1, 0, 0, 0, 0, 0, 97], vec![5, 1, 0, 5, 0, 5], vec![255, 0, 0, 1, 0, 0, 0, 97, 0, 0, 0, 30]]
    }

    #[test]
    fn every_message_is_followed_to_its_end_however_it_is_cut() {
        let quiet: Vec<u8> = all_kinds().concat();
        let stream: Vec<u8> = [quiet.clone(), input_kinds().concat(), quiet.clone()].concat();
        for step in 1..40 {
            let mut messages = Messages::default();
            let mut inputs = 0;
            for piece in stream.chunks(step) {
                inputs += usize::from(messages.feed(piece).unwrap());
            }
            assert!(inputs >= 1, "in steps of {step}");
            assert_eq!((messages.have, messages.body), (0, 0), "ends between messages, in steps of {step}");
        }
        assert!(!Messages::default().feed(&quiet).unwrap(), "asking for pictures is no input");
        for message in input_kinds() {
            assert!(Messages::default().feed(&message).unwrap());
        }
    }

    #[test]
    fn absurd_lengths_are_stopped_at_the_header() {
        for (name, bytes) in [
            ("2^32-1 bytes of text", vec![6, 0, 0, 0, 0x80, 0, 0, 0]),
            ("2^31-1 bytes of text", vec![6, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
            ("just over the limit", cut_text(CUT_TEXT_LIMIT as i32 + 1, b"")),
            ("negative, just over", cut_text(-(CUT_TEXT_LIMIT as i32) - 1, b"")),
            ("65535 encodings", vec![2, 0, 0xff, 0xff]),
            ("a long fence", vec![248, 0, 0, 0, 0, 0, 0, 0, 65]),
            ("255 screens", vec![251, 0, 0, 0, 0, 0, 255]),
            ("an unknown message", vec![77]),
            ("an unknown QEMU message", vec![255, 9]),
            ("an unknown audio message", vec![255, 1, 0, 3]),
        ] {
            assert!(Messages::default().feed(&bytes).is_err(), "{name}");
        }
        assert!(Messages::default().feed(&cut_text(CUT_TEXT_LIMIT as i32, b"")).is_ok());
    }
}
