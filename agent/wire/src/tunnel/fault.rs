//! What can go wrong: faults end the connection, stream errors only a stream.

use std::fmt;

/// The other end broke the protocol. The connection must be closed; what the tunnel holds is untouched, so
/// an honest agent may still come back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A frame of no known kind.
    Kind,
    /// A length that this kind of frame can't have.
    Length,
    /// A class that doesn't exist.
    Class,
    /// A frame this end never gets.
    Direction,
    /// A stream that was never opened.
    UnknownStream,
    /// A stream that is over, or an opening that names an old one.
    ClosedStream,
    /// An opening that skips ahead.
    StreamTooHigh,
    /// More streams than may be open.
    TooManyStreams,
    /// More data than there was credit for.
    BeyondCredit,
    /// Credit of nothing, or more than may be given.
    CreditOverflow,
    /// A numbered frame without a number.
    ZeroNumber,
    /// A numbered frame out of turn.
    Gap,
    /// An acknowledgement of what was never sent.
    Ack,
    /// A resumption that names frames which were never sent, or are gone.
    Window,
    /// More messages than anybody reads.
    MessageFlood,
    /// It wants ever more and acknowledges nothing.
    Unacknowledged,
}

impl Fault {
    /// A short stable code, for metrics and support.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Length => "length",
            Self::Class => "class",
            Self::Direction => "direction",
            Self::UnknownStream => "unknown_stream",
            Self::ClosedStream => "closed_stream",
            Self::StreamTooHigh => "stream_too_high",
            Self::TooManyStreams => "too_many_streams",
            Self::BeyondCredit => "beyond_credit",
            Self::CreditOverflow => "credit_overflow",
            Self::ZeroNumber => "zero_number",
            Self::Gap => "gap",
            Self::Ack => "ack",
            Self::Window => "window",
            Self::MessageFlood => "message_flood",
            Self::Unacknowledged => "unacknowledged",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the other end of the tunnel broke its rules ({})", self.code())
    }
}

impl std::error::Error for Fault {}

/// Why a stream can't go on, or can't begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// It was broken off, with this code.
    Reset(u16),
    /// It is not, or no longer, there.
    Gone,
    /// As many as may be are open; or a message queue is full.
    Full,
    /// Its header is too long.
    TooLong,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "the stream was broken off (code {code})"),
            Self::Gone => f.write_str("the stream is over"),
            Self::Full => f.write_str("no more streams or messages fit into the tunnel now"),
            Self::TooLong => f.write_str("the header or message is too long"),
        }
    }
}

impl std::error::Error for StreamError {}
