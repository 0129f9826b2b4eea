//! What a desktop sends, followed until its first picture.

/// Finds the first update that carries pixels. Gives up, as if found, at what it does not know: this only
/// feeds a measurement.
#[derive(Debug)]
pub struct FirstPicture {
    have: Vec<u8>,
    /// Bytes to pass over.
    skip: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Init,
    Message,
    /// Rectangles of an update still to come.
    Rectangle(u16),
    Found,
}

impl Default for FirstPicture {
    fn default() -> Self {
        Self { have: Vec::new(), skip: 0, stage: Stage::Init }
    }
}

impl FirstPicture {
    /// Takes the next piece of the stream; `true` once, when the first picture begins in it.
    pub fn feed(&mut self, mut piece: &[u8]) -> bool {
        while self.stage != Stage::Found {
            let n = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
            piece = &piece[n..];
            self.skip -= n as u64;
            let Some((&byte, rest)) = piece.split_first() else { return false };
            piece = rest;
            self.have.push(byte);
            if let Some((stage, skip)) = self.step() {
                self.have.clear();
                (self.stage, self.skip) = (stage, skip);
                if stage == Stage::Found {
                    self.have = Vec::new();
                    return true;
                }
            }
        }
        false
    }

    /// Where the bytes at hand lead, once they are enough.
    fn step(&self) -> Option<(Stage, u64)> {
        let h = &self.have[..];
        let u16_at = |i: usize| u16::from_be_bytes([h[i], h[i + 1]]);
        let u32_at = |i: usize| u32::from_be_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]);
        match self.stage {
            // Width, height, format, then the length of the name.
            Stage::Init => (h.len() == 24).then(|| (Stage::Message, u32_at(20).into())),
            Stage::Message => match h[0] {
                0 => (h.len() == 4).then(|| match u16_at(2) {
                    0 => (Stage::Message, 0),
                    n => (Stage::Rectangle(n), 0),
                }),
                1 => (h.len() == 6).then(|| (Stage::Message, u64::from(u16_at(4)) * 6)),
                2 => Some((Stage::Message, 0)),
                3 => (h.len() == 8).then(|| (Stage::Message, u64::from(u32_at(4).cast_signed().unsigned_abs()))),
                _ => Some((Stage::Found, 0)),
            },
            Stage::Rectangle(left) => {
                if h.len() < 12 {
                    return None;
                }
                let next = if left > 1 { Stage::Rectangle(left - 1) } else { Stage::Message };
                let pixels = u64::from(u16_at(4)) * u64::from(u16_at(6));
                let mask = u64::from(u16_at(4).div_ceil(8)) * u64::from(u16_at(6));
                match u32_at(8).cast_signed() {
                    // Pseudo-encodings: announcements, sizes, lamps, the mouse pointer.
                    -223 | -257 | -258 | -259 => Some((next, 0)),
                    -224 => Some((Stage::Message, 0)),
                    -261 => Some((next, 1)),
                    -239 => Some((next, pixels * 4 + mask)),
                    -314 => Some((next, 4 + pixels * 4)),
                    -308 => (h.len() == 13).then(|| (next, 3 + u64::from(h[12]) * 16)),
                    _ => Some((Stage::Found, 0)),
                }
            }
            Stage::Found => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() -> Vec<u8> {
        [&[2, 128, 1, 224][..], &[0; 16], &4_u32.to_be_bytes(), b"name"].concat()
    }

    fn rectangle(w: u16, h: u16, encoding: i32) -> Vec<u8> {
        [&[0; 4][..], &w.to_be_bytes(), &h.to_be_bytes(), &encoding.to_be_bytes()].concat()
    }

    #[test]
    fn announcements_and_pointers_are_no_picture() {
        let before = [
            init(),
            vec![0, 0, 0, 2],
            rectangle(0, 0, -258),
            rectangle(0, 0, -261),
            vec![3],
            vec![0, 0, 0, 1],
            rectangle(9, 2, -239),
            vec![0; 9 * 2 * 4 + 2 * 2],
            vec![2],
            vec![0, 0, 0, 1],
            rectangle(640, 480, -308),
            [vec![1, 0, 0, 0], vec![0; 16]].concat(),
            vec![3, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'],
            vec![0, 0, 0, 1],
        ]
        .concat();
        let picture = rectangle(16, 16, 0);
        for step in 1..50 {
            let mut first = FirstPicture::default();
            assert!(before.chunks(step).all(|p| !first.feed(p)), "in steps of {step}");
            assert_eq!(picture.chunks(step).filter(|p| first.feed(p)).count(), 1, "in steps of {step}");
            assert!(!first.feed(&picture), "found once");
        }
    }
}
