//! What a desktop sends, followed message by message for as long as it is paced: only where messages end.
//!
//! Payload is passed over by its length and never looked at, so following costs nothing by the byte. Lengths
//! are believed as far as counting goes and nothing is allocated by them.

/// Encodings whose rectangles can be followed. A paced viewer's list is cut down to these and to
/// announcements without rectangles of their own.
const FOLLOWED: [i32; 16] = [
    RAW,
    COPY_RECT,
    ZLIB,
    TIGHT,
    ZRLE,
    TIGHT_PNG,
    DESKTOP_SIZE,
    LAST_RECT,
    CURSOR,
    POINTER_KIND,
    EXTENDED_KEY,
    AUDIO,
    LAMPS,
    DESKTOP_NAME,
    EXTENDED_DESKTOP_SIZE,
    ALPHA_CURSOR,
];

const RAW: i32 = 0;
const COPY_RECT: i32 = 1;
const ZLIB: i32 = 6;
const TIGHT: i32 = 7;
const ZRLE: i32 = 16;
const DESKTOP_SIZE: i32 = -223;
const LAST_RECT: i32 = -224;
const CURSOR: i32 = -239;
const POINTER_KIND: i32 = -257;
const EXTENDED_KEY: i32 = -258;
const AUDIO: i32 = -259;
const TIGHT_PNG: i32 = -260;
const LAMPS: i32 = -261;
const DESKTOP_NAME: i32 = -307;
const EXTENDED_DESKTOP_SIZE: i32 = -308;
const ALPHA_CURSOR: i32 = -314;
/// Not sent in rectangles: a clipboard text of negative length.
const EXTENDED_CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();

/// Whether a viewer may have an encoding and still be followed.
#[must_use]
pub fn followed(encoding: i32) -> bool {
    FOLLOWED.contains(&encoding) || encoding == EXTENDED_CLIPBOARD
}

/// Longest header: that of `ServerInit`.
const HEADER_LIMIT: usize = 24;
/// Bytes of a pixel of the one format that is followed, and of its compact form in Tight.
const PIXEL: u64 = 4;
const COMPACT_PIXEL: u64 = 3;
/// Tight sends less than this uncompressed and without a length.
const TIGHT_LEAST: u64 = 12;

/// Something came whose end can't be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// What a piece of the stream contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Updates with pixels that ended in it.
    pub pictures: u32,
    /// Where in it the last message ended.
    pub end: Option<usize>,
}

/// Follows a desktop's messages, from `ServerInit`, however the stream is cut.
#[derive(Debug)]
pub struct Updates {
    header: [u8; HEADER_LIMIT],
    have: usize,
    /// Bytes to pass over before `stage`.
    skip: u64,
    stage: Stage,
    /// The current update carries pixels.
    picture: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Init,
    Message,
    /// So many rectangles of the update still to come.
    Rectangle(u16),
    /// The compact length of a part of a Tight rectangle.
    TightLength(u16),
    End,
}

/// Stage and bytes to pass over before it; `None`: more of the header is needed.
type Step = Result<Option<(Stage, u64)>, Lost>;

impl Updates {
    /// Whether the desktop is between two messages: others may be put here.
    #[must_use]
    pub fn between(&self) -> bool {
        self.have == 0 && self.skip == 0 && matches!(self.stage, Stage::Message | Stage::End)
    }

    /// Whether pixels of an update have come whose rest is still to come.
    #[must_use]
    pub fn in_picture(&self) -> bool {
        self.picture
    }
}

impl Default for Updates {
    fn default() -> Self {
        Self { header: [0; HEADER_LIMIT], have: 0, skip: 0, stage: Stage::Init, picture: false }
    }
}

impl Updates {
    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`Lost`]: nothing more will be understood.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Seen, Lost> {
        let mut seen = Seen::default();
        let mut at = 0;
        loop {
            let n = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len() - at);
            at += n;
            self.skip -= n as u64;
            if self.skip > 0 {
                return Ok(seen);
            }
            if self.stage == Stage::End {
                seen.end = Some(at);
                seen.pictures += u32::from(std::mem::take(&mut self.picture));
                self.stage = Stage::Message;
            }
            let Some(&byte) = piece.get(at) else { return Ok(seen) };
            at += 1;
            *self.header.get_mut(self.have).ok_or(Lost)? = byte;
            self.have += 1;
            if let Some((stage, skip)) = self.step()? {
                (self.have, self.stage, self.skip) = (0, stage, skip);
            }
        }
    }

    fn step(&mut self) -> Step {
        let h = &self.header[..self.have];
        match self.stage {
            // Width, height, format, then the length of the name.
            Stage::Init => Ok((h.len() == 24).then(|| (Stage::End, u32_at(h, 20).into()))),
            Stage::Message | Stage::End => message(h),
            Stage::Rectangle(left) if h.len() >= 12 => {
                let encoding = u32_at(h, 8).cast_signed();
                self.picture |= encoding >= 0 || encoding == TIGHT_PNG;
                rectangle(h, encoding, left)
            }
            Stage::Rectangle(_) => Ok(None),
            Stage::TightLength(left) => {
                let more = h[h.len() - 1] & 0x80 != 0 && h.len() < 3;
                let length = h.iter().zip([0, 7, 14]).map(|(b, shift)| match shift {
                    14 => u64::from(*b) << 14,
                    _ => u64::from(b & 0x7f) << shift,
                });
                Ok((!more).then(|| (after(left), length.sum())))
            }
        }
    }
}

fn u16_at(h: &[u8], i: usize) -> u16 {
    u16::from_be_bytes([h[i], h[i + 1]])
}

fn u32_at(h: &[u8], i: usize) -> u32 {
    u32::from_be_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]])
}

/// What follows a rectangle.
fn after(left: u16) -> Stage {
    if left > 1 { Stage::Rectangle(left - 1) } else { Stage::End }
}

fn message(h: &[u8]) -> Step {
    Ok(match (h[0], h.len()) {
        // FramebufferUpdate.
        (0, 4) => Some((if u16_at(h, 2) == 0 { Stage::End } else { Stage::Rectangle(u16_at(h, 2)) }, 0)),
        // SetColourMapEntries, Bell, ServerCutText; a negative length marks the extended clipboard.
        (1, 6) => Some((Stage::End, u64::from(u16_at(h, 4)) * 6)),
        (2, _) => Some((Stage::End, 0)),
        (3, 8) => Some((Stage::End, u32_at(h, 4).cast_signed().unsigned_abs().into())),
        // QEMU's audio: end, begin, data.
        (255, 4) if h[1] == 1 && u16_at(h, 2) < 2 => Some((Stage::End, 0)),
        (255, 8) if h[1] == 1 && u16_at(h, 2) == 2 => Some((Stage::End, u32_at(h, 4).into())),
        (0 | 1 | 3 | 255, 1..8) => None,
        _ => return Err(Lost),
    })
}

fn rectangle(h: &[u8], encoding: i32, left: u16) -> Step {
    let (w, height) = (u64::from(u16_at(h, 4)), u64::from(u16_at(h, 6)));
    let next = after(left);
    // A header of `n` bytes, then a length that it tells.
    let sized = |n: usize, length: &dyn Fn() -> u64| (h.len() == n).then(|| (next, length()));
    Ok(match encoding {
        RAW => Some((next, w * height * PIXEL)),
        COPY_RECT => Some((next, 4)),
        ZLIB | ZRLE => sized(16, &|| u32_at(h, 12).into()),
        TIGHT | TIGHT_PNG => return tight(h, w, height, left),
        DESKTOP_SIZE | POINTER_KIND | EXTENDED_KEY | AUDIO => Some((next, 0)),
        LAST_RECT => Some((Stage::End, 0)),
        LAMPS => Some((next, 1)),
        CURSOR => Some((next, w * height * PIXEL + w.div_ceil(8) * height)),
        ALPHA_CURSOR => Some((next, 4 + w * height * 4)),
        DESKTOP_NAME => sized(16, &|| u32_at(h, 12).into()),
        EXTENDED_DESKTOP_SIZE => sized(13, &|| 3 + u64::from(h[12]) * 16),
        _ => return Err(Lost),
    })
}

/// A Tight rectangle behind its first 12 bytes: control, for some a filter, for some a palette, then data.
fn tight(h: &[u8], w: u64, height: u64, left: u16) -> Step {
    const FILL: u8 = 8;
    const JPEG: u8 = 9;
    const PNG: u8 = 10;
    const EXPLICIT_FILTER: u8 = 4;
    let Some(control) = h.get(12).map(|b| b >> 4) else { return Ok(None) };
    // Without palette; data too short to be compressed has no length before it.
    let data = |palette: u64, size: u64| match size {
        n if n < TIGHT_LEAST => (after(left), palette + n),
        _ => (Stage::TightLength(left), palette),
    };
    Ok(match (control, h.get(13), h.get(14)) {
        (FILL, ..) => Some((after(left), COMPACT_PIXEL)),
        (JPEG | PNG, ..) => Some((Stage::TightLength(left), 0)),
        (0..EXPLICIT_FILTER, ..) => Some(data(0, w * height * COMPACT_PIXEL)),
        (EXPLICIT_FILTER..FILL, None, _) => None,
        (EXPLICIT_FILTER..FILL, Some(0 | 2), _) => Some(data(0, w * height * COMPACT_PIXEL)),
        (EXPLICIT_FILTER..FILL, Some(1), None) => None,
        (EXPLICIT_FILTER..FILL, Some(1), Some(&last)) => {
            let colours = u64::from(last) + 1;
            let size = if colours == 2 { w.div_ceil(8) * height } else { w * height };
            Some(data(colours * COMPACT_PIXEL, size))
        }
        _ => return Err(Lost),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(w: u16, h: u16, encoding: i32, body: &[u8]) -> Vec<u8> {
        [&[0; 4][..], &w.to_be_bytes(), &h.to_be_bytes(), &encoding.to_be_bytes(), body].concat()
    }

    fn update(rects: &[Vec<u8>]) -> Vec<u8> {
        [&[0, 0][..], &(rects.len() as u16).to_be_bytes(), &rects.concat()].concat()
    }

    fn init() -> Vec<u8> {
        [&[2, 128, 1, 224][..], &[0; 16], &4_u32.to_be_bytes(), b"name"].concat()
    }

    /// Every message with whether it is a picture.
    fn messages() -> Vec<(Vec<u8>, bool)> {
        let long = [&[0x00, 0x90, 0x03][..], &[9; 400]].concat();
        let two_colours = [&[0x40, 1, 1][..], &[1; 6], &[5; 4]].concat();
        let palette = [&[0x50, 1, 2][..], &[1; 9], &[20], &[5; 20]].concat();
        let png = [&[0xa0, 0x80, 0x80, 0x01][..], &[7; 16_384]].concat();
        vec![
            (init(), false),
            (vec![2], false),
            ([&[3, 0, 0, 0, 0, 0, 0, 2][..], b"hi"].concat(), false),
            ([&[3, 0, 0, 0][..], &(-4_i32).to_be_bytes(), &[0; 4]].concat(), false),
            ([&[1, 0, 0, 0, 0, 2][..], &[0; 12]].concat(), false),
            (vec![255, 1, 0, 1], false),
            (vec![255, 1, 0, 2, 0, 0, 0, 3, 1, 2, 3], false),
            (update(&[]), false),
            (update(&[rect(0, 0, EXTENDED_KEY, &[]), rect(1, 1, LAMPS, &[1])]), false),
            (update(&[rect(9, 2, CURSOR, &[0; 9 * 2 * 4 + 4])]), false),
            (update(&[rect(2, 2, ALPHA_CURSOR, &[0; 20])]), false),
            (update(&[rect(640, 480, EXTENDED_DESKTOP_SIZE, &[&[1, 0, 0, 0][..], &[0; 16]].concat())]), false),
            (update(&[rect(0, 0, DESKTOP_NAME, &[0, 0, 0, 1, b'x'])]), false),
            (update(&[rect(3, 2, RAW, &[0; 24]), rect(3, 2, COPY_RECT, &[0; 4])]), true),
            (update(&[rect(3, 2, ZRLE, &[0, 0, 0, 3, 1, 2, 3])]), true),
            (update(&[rect(64, 64, TIGHT, &[0x80, 1, 2, 3]), rect(64, 64, TIGHT, &long)]), true),
            (update(&[rect(2, 1, TIGHT, &[0, 1, 2, 3, 4, 5, 6]), rect(16, 2, TIGHT, &two_colours)]), true),
            (update(&[rect(16, 2, TIGHT, &palette), rect(9, 9, TIGHT_PNG, &png)]), true),
            ([&[0, 0, 255, 255][..], &rect(8, 8, TIGHT, &[0x90, 2, 1, 1]), &rect(0, 0, LAST_RECT, &[])].concat(), true),
        ]
    }

    #[test]
    fn the_end_of_every_message_is_found_however_the_stream_is_cut() {
        let all = messages();
        let stream: Vec<u8> = all.iter().flat_map(|(m, _)| m.clone()).collect();
        let mut ends = Vec::new();
        for (message, _) in &all {
            ends.push(ends.last().copied().unwrap_or(0) + message.len());
        }
        let pictures: u32 = all.iter().map(|(_, p)| u32::from(*p)).sum();
        for step in (1..64).chain([1000, stream.len()]) {
            let (mut updates, mut at, mut counted) = (Updates::default(), 0, 0);
            for piece in stream.chunks(step) {
                let seen = updates.feed(piece).unwrap();
                let expected = ends.iter().rev().find(|e| **e > at && **e <= at + piece.len());
                assert_eq!(seen.end.map(|e| at + e), expected.copied(), "in steps of {step} at {at}");
                (at, counted) = (at + piece.len(), counted + seen.pictures);
            }
            assert_eq!(counted, pictures, "in steps of {step}");
        }
    }

    #[test]
    fn what_has_no_known_end_is_said_to_be_lost() {
        for (name, bytes) in [
            ("an unknown message", vec![77]),
            ("a fence nobody asked for", vec![248]),
            ("unknown audio", vec![255, 1, 0, 9, 0, 0, 0, 0]),
            ("hextile", update(&[rect(1, 1, 5, &[])])),
            ("a Tight rectangle of an unknown kind", update(&[rect(1, 1, TIGHT, &[0xb0])])),
            ("an unknown filter", update(&[rect(1, 1, TIGHT, &[0x40, 3])])),
        ] {
            let mut updates = Updates::default();
            updates.feed(&init()).unwrap();
            assert_eq!(updates.feed(&bytes), Err(Lost), "{name}");
        }
    }

    #[test]
    fn no_bytes_whatever_break_it() {
        // A small generator is enough: what counts is that headers of all kinds meet lengths of all sizes.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            let mut updates = Updates::default();
            updates.feed(&init()).unwrap();
            for _ in 0..8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let mut bytes = state.to_le_bytes();
                bytes[0] &= 3;
                if updates.feed(&bytes).is_err() {
                    break;
                }
            }
        }
    }
}
