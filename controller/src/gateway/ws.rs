//! WebSocket framing (RFC 6455) for byte streams: the server's side, without extensions.
//!
//! Written here because a relay wants what general libraries do not do: payload is unmasked in place and
//! handed on piece by piece as it arrives, a frame is never collected, and an idle connection holds a few
//! KiB. No I/O in this file.

use std::ops::Range;

/// Longest message a viewer may send, over all its fragments.
pub const MESSAGE_LIMIT: u64 = 1 << 20;
/// Most fragments of one message; empty ones would never reach the length limit.
const FRAGMENT_LIMIT: u32 = 4096;
/// Longest payload of a control frame.
pub const CONTROL_LIMIT: usize = 125;
/// Room a frame's header needs before up to 65,535 bytes of payload.
pub const GAP: usize = 4;
/// Most payload of a frame we send.
pub const PAYLOAD_LIMIT: usize = 65_535;
/// Longest header of a frame from a viewer.
const HEADER_LIMIT: usize = 14;
/// A decoder can always go on with this much.
pub const LEAST_BUFFER: usize = HEADER_LIMIT + CONTROL_LIMIT;

/// What kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Binary data.
    Binary = 2,
    /// The end, with a code.
    Close = 8,
    /// Are you there?
    Ping = 9,
    /// I am.
    Pong = 10,
}

/// What a viewer did against the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Frames that make no sense.
    Protocol(&'static str),
    /// Text, where only binary is spoken.
    Text,
    /// A message over the limit.
    TooBig,
}

impl Fault {
    /// The close code that answers it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Text => 1003,
            Self::TooBig => 1009,
        }
    }
}

/// What the next bytes of a buffer are. Ranges count from the start of the buffer given to the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Payload, unmasked.
    Data(Range<usize>),
    /// A ping's payload, unmasked: to be sent back.
    Ping(Range<usize>),
    /// An answer to our ping.
    Pong,
    /// The viewer says goodbye.
    Close,
    /// A frame began; nothing to do.
    Header,
}

/// Takes frames from viewers apart.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The mask, turned so that it fits the next byte.
    key: [u8; 4],
    /// Payload of the current data frame still to come.
    left: u64,
    /// Length of the message so far.
    message: u64,
    fragments: u32,
    /// A message was begun and not ended.
    open: bool,
}

impl Decoder {
    /// Looks at the start of `buffer`: what is there and how many bytes it takes. `None`: more is needed.
    ///
    /// # Errors
    /// [`Fault`]; the connection must be closed with its code.
    pub fn decode(&mut self, buffer: &mut [u8]) -> Result<Option<(usize, Item)>, Fault> {
        if self.left > 0 {
            let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            if n == 0 {
                return Ok(None);
            }
            unmask(&mut buffer[..n], self.key);
            self.key.rotate_left(n % 4);
            self.left -= n as u64;
            return Ok(Some((n, Item::Data(0..n))));
        }
        let &mut [first, second, ref rest @ ..] = buffer else { return Ok(None) };
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(Fault::Protocol("reserved bits are set"));
        }
        if second & 0x80 == 0 {
            return Err(Fault::Protocol("a frame is not masked"));
        }
        let short = second & 0x7f;
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if opcode >= 8 && (!last || short > 125) {
            return Err(Fault::Protocol("a control frame is fragmented or too long"));
        }
        let Some((length, rest)) = rest.split_at_checked(extended) else { return Ok(None) };
        let length = match short {
            126 | 127 => length.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
            n => n.into(),
        };
        if opcode < 8 {
            self.admit(opcode, length)?;
        }
        let Some(key) = rest.first_chunk::<4>() else { return Ok(None) };
        let (key, header) = (*key, 2 + extended + 4);
        if opcode < 8 {
            self.begin(length, last, key);
            return Ok(Some((header, Item::Header)));
        }
        let end = header + usize::from(short);
        let Some(payload) = buffer.get_mut(header..end) else { return Ok(None) };
        unmask(payload, key);
        let item = match opcode {
            8 => Item::Close,
            9 => Item::Ping(header..end),
            10 => Item::Pong,
            _ => return Err(Fault::Protocol("an unknown control frame")),
        };
        Ok(Some((end, item)))
    }

    /// Judges a data frame by its header, before any payload is waited for.
    fn admit(&self, opcode: u8, length: u64) -> Result<(), Fault> {
        match (opcode, self.open) {
            (0, true) | (2, false) => {}
            (1, _) => return Err(Fault::Text),
            (0, false) => return Err(Fault::Protocol("a continuation of nothing")),
            (2, true) => return Err(Fault::Protocol("a message begins inside another")),
            _ => return Err(Fault::Protocol("an unknown data frame")),
        }
        let before = if self.open { self.message } else { 0 };
        if length > MESSAGE_LIMIT || before + length > MESSAGE_LIMIT || self.open && self.fragments >= FRAGMENT_LIMIT {
            return Err(Fault::TooBig);
        }
        Ok(())
    }

    fn begin(&mut self, length: u64, last: bool, key: [u8; 4]) {
        if !self.open {
            (self.message, self.fragments) = (0, 0);
        }
        self.message += length;
        self.fragments += 1;
        self.open = !last;
        (self.left, self.key) = (length, key);
    }
}

/// Removes (or puts on) a mask, eight bytes at a time; the compiler makes wider steps of it.
fn unmask(data: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Writes the header of a frame with `buffer[GAP..GAP + n]` as payload into the gap before it; the frame is
/// what is returned.
///
/// # Panics
/// If `n` is over [`PAYLOAD_LIMIT`] or does not fit the buffer.
#[must_use]
pub fn frame(buffer: &mut [u8], opcode: Opcode, n: usize) -> &[u8] {
    let start = if n < 126 {
        buffer[2] = 0x80 | opcode as u8;
        buffer[3] = n as u8;
        2
    } else {
        assert!(n <= PAYLOAD_LIMIT, "a frame of {n} bytes");
        buffer[0] = 0x80 | opcode as u8;
        buffer[1] = 126;
        buffer[2..4].copy_from_slice(&(n as u16).to_be_bytes());
        0
    };
    &buffer[start..GAP + n]
}

/// A short frame by itself: control frames and the handshake.
#[must_use]
pub fn short_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(CONTROL_LIMIT)];
    let mut out = Vec::with_capacity(2 + payload.len());
    out.extend_from_slice(&[0x80 | opcode as u8, payload.len() as u8]);
    out.extend_from_slice(payload);
    out
}

/// A close frame.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    short_frame(Opcode::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a viewer sends it.
    fn sent(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | n as u8),
            n @ 126..65_536 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&key);
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
        out
    }

    /// All data of a byte stream that arrives in pieces of `step` bytes.
    fn received(stream: &[u8], step: usize) -> Result<Vec<u8>, Fault> {
        let (mut decoder, mut buffer, mut data) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some((used, item)) = decoder.decode(&mut buffer)? {
                if let Item::Data(range) = item {
                    data.extend_from_slice(&buffer[range]);
                }
                buffer.drain(..used);
            }
        }
        Ok(data)
    }

    #[test]
    fn payload_survives_any_cut_of_the_stream() {
        let payload: Vec<u8> = (0..70_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let key = [1, 2, 3, 0xfe];
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for n in [0, 1, 5, 125, 126, 127, 1000, 65_535, 65_536, 70_000] {
            stream.extend(sent(0x82, key, &payload[..n]));
            stream.extend(sent(0x89, key, b"between"));
            expected.extend_from_slice(&payload[..n]);
        }
        for step in [1, 2, 3, 7, 100, 4096, 1 << 20] {
            assert!(received(&stream, step).unwrap() == expected, "in steps of {step}");
        }
    }

    #[test]
    fn fragments_are_one_stream_with_control_frames_between() {
        let mut stream = sent(0x02, [9; 4], b"one ");
        stream.extend(sent(0x89, [7; 4], b"ping"));
        stream.extend(sent(0x00, [8; 4], b"two "));
        stream.extend(sent(0x80, [6; 4], b"three"));
        assert_eq!(received(&stream, 3).unwrap(), b"one two three");
    }

    #[test]
    fn what_breaks_the_rules_is_refused_by_its_header() {
        let key = [0; 4];
        let cases: [(&str, Vec<u8>, u16); 12] = [
            ("unmasked", vec![0x82, 3, 1, 2, 3], 1002),
            ("compressed", sent(0xc2, key, b"x"), 1002),
            ("text", sent(0x81, key, b"x"), 1003),
            ("text inside", [sent(0x02, key, b"x"), sent(0x01, key, b"x")].concat(), 1003),
            ("continuation of nothing", sent(0x80, key, b"x"), 1002),
            ("message in message", [sent(0x02, key, b"x"), sent(0x82, key, b"x")].concat(), 1002),
            ("unknown data", sent(0x83, key, b"x"), 1002),
            ("unknown control", sent(0x8b, key, b"x"), 1002),
            ("fragmented ping", sent(0x09, key, b"x"), 1002),
            ("long ping", sent(0x89, key, &[0; 126]), 1002),
            // Only the header arrives: nothing is waited for or made room for.
            ("2^63", [&[0x82, 0xff, 0x80][..], &[0; 7]].concat(), 1009),
            ("over the limit", [&[0x82, 0xff][..], &(MESSAGE_LIMIT + 1).to_be_bytes()].concat(), 1009),
        ];
        for (name, stream, code) in cases {
            assert_eq!(received(&stream, 1).map_err(Fault::code), Err(code), "{name}");
        }
    }

    #[test]
    fn fragments_do_not_add_up_beyond_the_limit() {
        let half = vec![0; (MESSAGE_LIMIT / 2) as usize];
        let mut stream = sent(0x02, [0; 4], &half);
        stream.extend(sent(0x00, [0; 4], &half));
        assert!(received(&stream, 4096).is_ok());
        stream.extend(sent(0x00, [0; 4], b"x"));
        assert_eq!(received(&stream, 4096), Err(Fault::TooBig));
        let endless: Vec<u8> =
            std::iter::once(sent(0x02, [0; 4], b"")).chain((0..5000).map(|_| sent(0, [0; 4], b""))).flatten().collect();
        assert_eq!(received(&endless, 64), Err(Fault::TooBig));
        // Many whole messages are no fragments.
        let many: Vec<u8> = (0..5000).flat_map(|_| sent(0x82, [0; 4], b"x")).collect();
        assert_eq!(received(&many, 64).unwrap().len(), 5000);
    }

    #[test]
    fn frames_we_send_have_the_shortest_header() {
        let mut buffer = vec![7; GAP + PAYLOAD_LIMIT];
        assert_eq!(frame(&mut buffer, Opcode::Binary, 3), [0x82, 3, 7, 7, 7]);
        assert_eq!(&frame(&mut buffer, Opcode::Binary, 126)[..5], [0x82, 126, 0, 126, 7]);
        assert_eq!(&frame(&mut buffer, Opcode::Binary, PAYLOAD_LIMIT)[..5], [0x82, 126, 255, 255, 7]);
        assert_eq!(close_frame(4001, "4001"), b"\x88\x06\x0f\xa14001");
        assert_eq!(short_frame(Opcode::Pong, &[1; 300]).len(), 127);
    }
}
