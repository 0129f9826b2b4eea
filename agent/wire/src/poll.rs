//! The link carried by requests, for where something on the way takes the switch to a WebSocket away.
//!
//! ```text
//! POST /agent/v1/poll               → {"link":"…","hold_s":25}   a link begins
//! POST /agent/v1/poll/LINK/up/N     → 204                        batch N of the agent's frames was taken
//! POST /agent/v1/poll/LINK/down/N   → 200 batch N+1 | 204 nothing yet | 410 it is over
//! ```
//! Every request shows the certificate the link began with. What is carried are the frames of a WebSocket, text and binary,
//! so that nothing above knows the difference. Numbers make a request that had to be sent twice harmless: a batch that
//! was taken is not taken again, and one whose answer was lost is answered again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::frame::MAX_FRAME;

/// Where a link begins: `POST`.
pub const POLL_PATH: &str = "/agent/v1/poll";

/// Most bytes of a batch.
pub const MAX_BATCH: usize = 4 * MAX_FRAME;

const TEXT: u8 = 0;
const BINARY: u8 = 1;
/// Kind and length.
const HEAD: usize = 4;

/// A link began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Its name in the paths that follow.
    pub link: String,
    /// How long the controller holds a request for which it has nothing yet, seconds.
    pub hold_s: u32,
}

/// One frame of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Text(String),
    /// Short or packed.
    Binary(Vec<u8>),
}

/// A batch makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch of frames makes no sense")
    }
}

impl std::error::Error for Garbled {}

impl Frame {
    fn bytes(&self) -> (u8, &[u8]) {
        match self {
            Self::Text(text) => (TEXT, text.as_bytes()),
            Self::Binary(bytes) => (BINARY, bytes),
        }
    }

    /// How much it takes in a batch.
    #[must_use]
    pub fn size(&self) -> usize {
        HEAD + self.bytes().1.len()
    }

    /// Adds it to a batch. Frames over [`MAX_FRAME`] are not sent by either end.
    pub fn put(&self, batch: &mut Vec<u8>) {
        let (kind, bytes) = self.bytes();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        batch.extend([kind, length[1], length[2], length[3]]);
        batch.extend_from_slice(bytes);
    }
}

/// The frames of a batch.
///
/// # Errors
/// [`Garbled`], also for one that is too large.
pub fn read(mut batch: &[u8]) -> Result<Vec<Frame>, Garbled> {
    if batch.len() > MAX_BATCH {
        return Err(Garbled);
    }
    let mut frames = Vec::new();
    while let Some((head, rest)) = batch.split_at_checked(HEAD) {
        let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
        let (bytes, after) = rest.split_at_checked(length).filter(|_| length <= MAX_FRAME).ok_or(Garbled)?;
        frames.push(match head[0] {
            TEXT => Frame::Text(std::str::from_utf8(bytes).map_err(|_| Garbled)?.to_owned()),
            BINARY => Frame::Binary(bytes.to_vec()),
            _ => return Err(Garbled),
        });
        batch = after;
    }
    if batch.is_empty() { Ok(frames) } else { Err(Garbled) }
}

/// What a path below [`POLL_PATH`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A link begins.
    Open,
    /// Frames of the agent: the link, and the number of the batch.
    Up(&'a str, u64),
    /// Frames for the agent: the link, and the number of the last batch it has.
    Down(&'a str, u64),
}

impl<'a> Ask<'a> {
    /// Reads a path.
    #[must_use]
    pub fn of(path: &'a str) -> Option<Self> {
        Self::below(POLL_PATH, path)
    }

    /// Reads a path below another one.
    #[must_use]
    pub fn below(base: &str, path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix(base)?;
        if rest.is_empty() {
            return Some(Self::Open);
        }
        let mut parts = rest.strip_prefix('/')?.split('/');
        let (link, way, n) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        match (way, parts.next()) {
            ("up", None) => Some(Self::Up(link, n)),
            ("down", None) => Some(Self::Down(link, n)),
            _ => None,
        }
    }

    /// As a path.
    #[must_use]
    pub fn path(&self) -> String {
        self.path_below(POLL_PATH)
    }

    /// As a path below another one.
    #[must_use]
    pub fn path_below(&self, base: &str) -> String {
        match self {
            Self::Open => base.to_owned(),
            Self::Up(link, n) => format!("{base}/{link}/up/{n}"),
            Self::Down(link, n) => format!("{base}/{link}/down/{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went() {
        let all = [Frame::Text("{\"kind\":\"beat\"}".into()), Frame::Binary(vec![0, 1, 255]), Frame::Text("ế".into())];
        let mut batch = Vec::new();
        all.iter().for_each(|f| f.put(&mut batch));
        assert_eq!(batch.len(), all.iter().map(Frame::size).sum::<usize>());
        assert_eq!(read(&batch).unwrap(), all);
        assert_eq!(read(&[]).unwrap(), []);
        for cut in 1..batch.len() {
            // Between two frames it is a shorter batch; anywhere else it is none.
            assert!(read(&batch[..cut]).is_err() || [19, 26].contains(&cut), "{cut}");
        }
    }

    #[test]
    fn rubbish_is_no_batch() {
        assert_eq!(read(&[2, 0, 0, 0]), Err(Garbled), "another kind");
        assert_eq!(read(&[0, 0, 0, 1, 0xff]), Err(Garbled), "no text");
        assert_eq!(read(&[1, 0xff, 0xff, 0xff]), Err(Garbled), "more than there is");
        let large = [&[1, 1, 0, 1][..], &vec![0; MAX_FRAME + 1]].concat();
        assert_eq!(read(&large), Err(Garbled), "over the limit of a frame");
        assert_eq!(read(&vec![0; MAX_BATCH + 4]), Err(Garbled));
    }

    #[test]
    fn paths_are_read_as_they_are_written() {
        for ask in [Ask::Open, Ask::Up("a1", 0), Ask::Down("a1", u64::MAX)] {
            assert_eq!(Ask::of(&ask.path()), Some(ask));
        }
        for odd in ["/", "/x", "/x/up", "/x/up/-1", "/x/up/1/2", "/x/side/1", "x/up/1"] {
            assert_eq!(Ask::of(&format!("{POLL_PATH}{odd}")), None, "{odd}");
        }
        assert_eq!(Ask::of("/agent/v1/link"), None);
        assert_eq!(Ask::below("/x", &Ask::Up("a", 1).path_below("/x")), Some(Ask::Up("a", 1)));
        assert_eq!(Ask::below("/x", &Ask::Up("a", 1).path()), None);
    }
}
