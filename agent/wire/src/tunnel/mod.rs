//! The tunnel: many byte streams over one connection, which may break and come back without a byte lost.
//!
//! Pure: no sockets, no clock. [`Mux`] is told what arrived and what time it is, and says what to send and
//! when to look again; `tram-tunnel` carries the bytes.
//!
//! # Frames
//! ```text
//!  0      1       2        4          8                16
//!  | kind | class | length | stream   | number         | payload (length bytes)
//! ```
//! All numbers big-endian. Frames of the kinds below 16 are *numbered*: 1, 2, 3, … over the whole tunnel in
//! each direction, and kept by their sender until an `ack` names them. A payload is at most
//! [`WIDE_PAYLOAD`]; on a line below 10 Mbit/s a sender cuts at [`THIN_PAYLOAD`], so that a key press never
//! waits behind more than 4 KiB.
//!
//! | kind | numbered | meaning |
//! |---|---|---|
//! | 1 open | yes | a new stream, `stream` one above the last; `class`: the opener's in the high half, the other's in the low; payload: who is wanted, JSON |
//! | 2 data | yes | bytes of a stream; takes from the credit the receiver gave |
//! | 3 end | yes | no more data this way |
//! | 4 reset | yes | the stream is broken off both ways; payload: a code, u16 |
//! | 5 credit | yes | the receiver takes so many bytes more; payload: u32 |
//! | 6 message | yes | control: one JSON message ([`crate::session`]) |
//! | 16 ack | no | `number`: all up to it arrived |
//! | 17 ping, 18 pong | no | `number` is echoed |
//! | 32 hello | no | before anything else on a connection: JSON ([`crate::session`]) |
//!
//! Only the agent opens streams. Each side has [`FIRST_CREDIT`] for every stream from its opening.
//!
//! # Coming back
//! The agent dials again and says `resume` with the secret and the number of the last frame it got; the
//! gateway checks both *before it lets go of anything*, answers with a new secret and its own last number,
//! and both send again what the other lacks, in order, before anything new.
//!
//! # Who may go first
//! Strictly by [`Class`]; a twentieth of the bytes goes to the lowest class that waits, so that nothing
//! starves. Streams of one class share by deficit round robin.

mod class;
mod decoder;
mod estimate;
mod fault;
mod header;
mod mux;
mod replay;
mod schedule;
mod stream;
mod window;

pub use class::Class;
pub use decoder::Decoder;
pub use fault::{Fault, StreamError};
pub use header::{HEADER, Header, Kind, hello};
pub use mux::{Event, Frame, Limits, Mux, Role, Stats};

/// Most payload of a frame: with its header it fills one TLS record.
pub const WIDE_PAYLOAD: usize = 16 * 1024 - HEADER;
/// Most payload a sender puts into a frame while the line is thin.
pub const THIN_PAYLOAD: usize = 4 * 1024 - HEADER;
/// Credit each side of a new stream begins with.
pub const FIRST_CREDIT: u64 = 64 * 1024;
/// Credit never grows beyond this.
pub const MOST_CREDIT: u64 = 4 * 1024 * 1024;
/// Longest header of a new stream.
pub const OPEN_LIMIT: usize = 1024;
/// Longest payload of a hello.
pub const HELLO_LIMIT: usize = 4 * 1024;
