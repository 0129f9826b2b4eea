//! The sixteen bytes before every payload.

use super::fault::Fault;
use super::{HELLO_LIMIT, OPEN_LIMIT, WIDE_PAYLOAD};

/// Length of a frame's header.
pub const HEADER: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A new stream.
    Open = 1,
    /// Bytes of a stream.
    Data = 2,
    /// No more data this way.
    End = 3,
    /// A stream is broken off.
    Reset = 4,
    /// More may be sent.
    Credit = 5,
    /// A control message.
    Message = 6,
    /// Frames arrived.
    Ack = 16,
    /// Are you there?
    Ping = 17,
    /// I am.
    Pong = 18,
    /// The first words on a connection.
    Hello = 32,
}

impl Kind {
    fn of(byte: u8) -> Result<Self, Fault> {
        Ok(match byte {
            1 => Self::Open,
            2 => Self::Data,
            3 => Self::End,
            4 => Self::Reset,
            5 => Self::Credit,
            6 => Self::Message,
            16 => Self::Ack,
            17 => Self::Ping,
            18 => Self::Pong,
            32 => Self::Hello,
            _ => return Err(Fault::Kind),
        })
    }

    /// Whether frames of this kind are numbered, kept and sent again.
    #[must_use]
    pub fn numbered(self) -> bool {
        (self as u8) < 16
    }

    fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Open => 0..=OPEN_LIMIT,
            Self::Data | Self::Message => 1..=WIDE_PAYLOAD,
            Self::End | Self::Ack | Self::Ping | Self::Pong => 0..=0,
            Self::Reset => 2..=2,
            Self::Credit => 4..=4,
            Self::Hello => 2..=HELLO_LIMIT,
        }
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Classes of a new stream: the opener's in the high half, the other's in the low.
    pub class: u8,
    /// Length of the payload.
    pub length: u16,
    /// The stream, where there is one.
    pub stream: u32,
    /// The frame's number, the acknowledged one, or a ping's token.
    pub number: u64,
}

impl Header {
    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0] = self.kind as u8;
        out[1] = self.class;
        out[2..4].copy_from_slice(&self.length.to_be_bytes());
        out[4..8].copy_from_slice(&self.stream.to_be_bytes());
        out[8..].copy_from_slice(&self.number.to_be_bytes());
        out
    }

    /// Reads one and judges what can be judged without knowing the tunnel: nothing is allocated for a
    /// frame that can't be.
    ///
    /// # Errors
    /// [`Fault::Kind`], [`Fault::Length`] or [`Fault::ZeroNumber`].
    pub fn decode(b: &[u8; HEADER]) -> Result<Self, Fault> {
        let kind = Kind::of(b[0])?;
        let header = Self {
            kind,
            class: b[1],
            length: u16::from_be_bytes([b[2], b[3]]),
            stream: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            number: u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        };
        if !kind.lengths().contains(&usize::from(header.length)) {
            return Err(Fault::Length);
        }
        if kind.numbered() && header.number == 0 {
            return Err(Fault::ZeroNumber);
        }
        Ok(header)
    }
}

/// The frame of first words on a connection.
#[must_use]
pub fn hello(words: &[u8]) -> Vec<u8> {
    frame(Kind::Hello, 0, 0, 0, &words[..words.len().min(HELLO_LIMIT)])
}

/// A whole frame, unnumbered or numbered later.
pub(super) fn frame(kind: Kind, class: u8, stream: u32, number: u64, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(&Header { kind, class, length, stream, number }.encode());
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_it_was_written() {
        let h = Header { kind: Kind::Data, class: 0x13, length: 700, stream: 0x0102_0304, number: 0x0506_0708_090a };
        assert_eq!(h.encode(), [2, 0x13, 2, 188, 1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 9, 10]);
        assert_eq!(Header::decode(&h.encode()), Ok(h));
    }

    #[test]
    fn impossible_headers_are_refused_by_themselves() {
        let header = |kind: u8, length: u16, number: u64| {
            let mut b = [0; HEADER];
            b[0] = kind;
            b[2..4].copy_from_slice(&length.to_be_bytes());
            b[8..].copy_from_slice(&number.to_be_bytes());
            Header::decode(&b)
        };
        for (kind, length, fault) in [
            (0, 0, Fault::Kind),
            (7, 0, Fault::Kind),
            (255, 0, Fault::Kind),
            (1, 1025, Fault::Length),
            (2, 0, Fault::Length),
            (2, 16_369, Fault::Length),
            (2, u16::MAX, Fault::Length),
            (3, 1, Fault::Length),
            (4, 0, Fault::Length),
            (5, 8, Fault::Length),
            (6, 0, Fault::Length),
            (16, 1, Fault::Length),
            (32, 4097, Fault::Length),
        ] {
            assert_eq!(header(kind, length, 1), Err(fault), "kind {kind}, length {length}");
        }
        assert_eq!(header(2, 1, 0), Err(Fault::ZeroNumber));
        assert!(header(16, 0, 0).is_ok(), "nothing arrived yet is a fine answer");
    }
}
