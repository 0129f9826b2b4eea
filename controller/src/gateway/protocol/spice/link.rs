//! The first words of a channel: bounded before they are believed.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::Refusal;

/// First four bytes of a link and of its reply.
pub const MAGIC: [u8; 4] = *b"REDQ";
/// Major version; the minor one may differ.
const MAJOR: u32 = 2;
/// Magic, versions and size.
pub const HEADER: usize = 16;
/// A link message without capabilities.
const MESS: usize = 18;
/// Error, public key, two counts and an offset.
const REPLY: usize = 178;
/// More than this is no link; QEMU's own limit.
pub const MOST: usize = 4096;
/// The ticket, encrypted for a key of 1024 bits.
pub const TICKET: usize = 128;
/// The mechanism before the ticket, and the ticket.
pub const AUTHENTICATION: usize = 4 + TICKET;
/// The mechanism of tickets, which is also the number of its capability.
const AUTH_SPICE: u32 = 1;
/// Capabilities every viewer of the last ten years has: the mechanism is named, and messages have the short
/// header. The gateway follows no other way to speak. That it can do tickets is not among them: spice-gtk does
/// not say so of itself, and then names the ticket ([`by_ticket`]).
const NEEDED: u32 = 1 | 1 << 3;
/// QEMU does say that it takes tickets.
const NEEDED_OF_QEMU: u32 = NEEDED | 1 << AUTH_SPICE;

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The session itself.
    Main,
    /// Pictures.
    Display,
    /// Keys and the mouse.
    Inputs,
    /// The pointer's shape.
    Cursor,
    /// Sound from the desktop.
    Playback,
    /// The endpoint's microphone.
    Record,
    /// Cards in the endpoint's reader.
    Smartcard,
    /// The endpoint's USB devices.
    UsbRedir,
    /// A pipe into the guest.
    Port,
    /// The endpoint's files.
    WebDav,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Main,
            2 => Self::Display,
            3 => Self::Inputs,
            4 => Self::Cursor,
            5 => Self::Playback,
            6 => Self::Record,
            8 => Self::Smartcard,
            9 => Self::UsbRedir,
            10 => Self::Port,
            11 => Self::WebDav,
            _ => return None,
        })
    }

    /// Whether an officer's session may have it: what shows the desktop and lets it be used. What reaches into
    /// the endpoint (microphone, cards, USB) or carries files stays shut.
    #[must_use]
    pub fn allowed(self) -> bool {
        matches!(self, Self::Main | Self::Display | Self::Inputs | Self::Cursor | Self::Playback)
    }
}

/// A viewer's link that holds together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The session's id, 0 for a new one.
    pub connection: u32,
    /// What it is for.
    pub kind: Kind,
    /// As it came, for QEMU.
    pub words: Vec<u8>,
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// The size a header announces.
///
/// # Errors
/// Other magic, other version, or a size between `least` and [`MOST`] that it is not.
fn size(header: &[u8; HEADER], least: usize) -> Result<usize, Refusal> {
    if header[..4] != MAGIC {
        return Err(Refusal::Magic);
    }
    if number(header, 4) != Some(MAJOR) {
        return Err(Refusal::Version);
    }
    let size = number(header, 12).and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    if (least..=MOST).contains(&size) { Ok(size) } else { Err(Refusal::Data) }
}

impl Link {
    /// Reads a viewer's link; no more is kept than it may have. The outer error is the stream's.
    ///
    /// # Errors
    /// The stream's.
    pub async fn read<R: AsyncRead + Unpin>(viewer: &mut R) -> std::io::Result<Result<Self, Refusal>> {
        let mut header = [0; HEADER];
        viewer.read_exact(&mut header).await?;
        let size = match size(&header, MESS) {
            Ok(size) => size,
            Err(why) => return Ok(Err(why)),
        };
        let mut words = header.to_vec();
        words.resize(HEADER + size, 0);
        viewer.read_exact(&mut words[HEADER..]).await?;
        Ok(Self::parse(words))
    }

    fn parse(words: Vec<u8>) -> Result<Self, Refusal> {
        let mess = &words[HEADER..];
        let field = |at| number(mess, at).ok_or(Refusal::Data);
        let (connection, common, channel, offset) = (field(0)?, field(6)?, field(10)?, field(14)?);
        let caps = u64::from(common) + u64::from(channel);
        if u64::from(offset) < MESS as u64 || u64::from(offset) + caps * 4 > mess.len() as u64 {
            return Err(Refusal::Data);
        }
        let first = if common == 0 { 0 } else { field(usize::try_from(offset).map_err(|_| Refusal::Data)?)? };
        if first & NEEDED != NEEDED {
            return Err(Refusal::Data);
        }
        let kind = Kind::of(mess[4]).filter(|k| k.allowed()).ok_or(Refusal::Permission)?;
        Ok(Self { connection, kind, words })
    }
}

/// Reads QEMU's reply to a link. `None`: it refuses, or does not speak as we do.
///
/// # Errors
/// The stream's.
pub async fn read_reply<R: AsyncRead + Unpin>(display: &mut R) -> std::io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER];
    display.read_exact(&mut header).await?;
    let Ok(size) = size(&header, REPLY) else { return Ok(None) };
    let mut words = header.to_vec();
    words.resize(HEADER + size, 0);
    display.read_exact(&mut words[HEADER..]).await?;
    let fine = number(&words, HEADER) == Some(0);
    let caps = number(&words, HEADER + 174).and_then(|at| number(&words, HEADER + usize::try_from(at).ok()?));
    Ok((fine && caps.is_some_and(|c| c & NEEDED_OF_QEMU == NEEDED_OF_QEMU)).then_some(words))
}

/// A reply that refuses, in the protocol's own words.
#[must_use]
pub fn refusal(why: Refusal) -> Vec<u8> {
    let mut words = MAGIC.to_vec();
    for n in [MAJOR, 2, REPLY as u32, why as u32] {
        words.extend_from_slice(&n.to_le_bytes());
    }
    words.resize(HEADER + REPLY - 4, 0);
    words.extend_from_slice(&(REPLY as u32).to_le_bytes());
    words
}

/// Whether a viewer chose the ticket.
#[must_use]
pub fn by_ticket(authentication: &[u8; AUTHENTICATION]) -> bool {
    number(authentication, 0) == Some(AUTH_SPICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(connection: u32, kind: u8) -> Vec<u8> {
        let mut words = MAGIC.to_vec();
        for n in [2, 2, 22, connection] {
            words.extend_from_slice(&u32::to_le_bytes(n));
        }
        words.extend_from_slice(&[kind, 0]);
        for n in [1, 0, 18, NEEDED] {
            words.extend_from_slice(&u32::to_le_bytes(n));
        }
        words
    }

    fn with(at: usize, value: u32) -> Vec<u8> {
        let mut words = link(0, 1);
        words[at..at + 4].copy_from_slice(&value.to_le_bytes());
        words
    }

    async fn read(words: &[u8]) -> Result<Link, Refusal> {
        Link::read(&mut &words[..]).await.unwrap()
    }

    #[tokio::test]
    async fn an_honest_link_is_passed_on_as_it_came() {
        for (number, kind) in [(1, Kind::Main), (2, Kind::Display), (3, Kind::Inputs), (4, Kind::Cursor)] {
            let words = link(7, number);
            assert_eq!(read(&words).await, Ok(Link { connection: 7, kind, words }));
        }
    }

    #[tokio::test]
    async fn lengths_that_lie_are_refused_before_anything_is_kept() {
        for (name, words, why) in [
            ("size 2^32-1", with(12, u32::MAX), Refusal::Data),
            ("just over the limit", with(12, MOST as u32 + 1), Refusal::Data),
            ("too small for its fields", with(12, 17), Refusal::Data),
            ("bad magic", with(0, 0), Refusal::Magic),
            ("version 1", with(4, 1), Refusal::Version),
            ("capabilities past the end", with(30, 19), Refusal::Data),
            ("far past the end", with(30, u32::MAX), Refusal::Data),
            ("inside the fields", with(30, 0), Refusal::Data),
            ("2^32-1 common ones", with(22, u32::MAX), Refusal::Data),
            ("2^32-1 of the channel", with(26, u32::MAX), Refusal::Data),
            ("none", with(22, 0), Refusal::Data),
            ("no short header", with(34, 0b11), Refusal::Data),
            ("no mechanism is named", with(34, 0b1000), Refusal::Data),
        ] {
            assert_eq!(read(&words).await, Err(why), "{name}");
        }
        // As spice-gtk 0.42 says it.
        assert!(read(&with(34, 0b1101)).await.is_ok());
        // Cut short anywhere it is the stream's end, never a link.
        for n in 0..link(0, 1).len() {
            assert!(Link::read(&mut &link(0, 1)[..n]).await.is_err(), "{n} bytes");
        }
    }

    #[tokio::test]
    async fn what_reaches_into_the_endpoint_or_carries_files_is_refused() {
        for (name, kind) in [("record", 6), ("tunnel", 7), ("smart card", 8), ("usbredir", 9), ("port", 10)] {
            assert_eq!(read(&link(1, kind)).await, Err(Refusal::Permission), "{name}");
        }
        for kind in [0, 11, 12, 255] {
            assert_eq!(read(&link(1, kind)).await, Err(Refusal::Permission), "{kind}");
        }
        assert!(read(&link(1, 5)).await.is_ok(), "sound from the desktop");
    }

    #[tokio::test]
    async fn a_refusal_reads_as_a_reply() {
        let words = refusal(Refusal::Permission);
        assert_eq!((words.len(), number(&words, HEADER)), (HEADER + REPLY, Some(7)));
        assert_eq!(read_reply(&mut &words[..]).await.unwrap(), None);
    }
}
