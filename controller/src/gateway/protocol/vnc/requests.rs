//! What a paced viewer sends: most of it passes, what concerns pacing is taken out whole.

use super::client::{Fault, Shape, shape};

const SET_PIXEL_FORMAT: u8 = 0;
const SET_ENCODINGS: u8 = 2;
const UPDATE_REQUEST: u8 = 3;
const CONTINUOUS_UPDATES: u8 = 150;
const FENCE: u8 = 248;

/// A whole message that concerns pacing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The format of pixels, as sent.
    Format(&'a [u8]),
    /// What the viewer understands, best first.
    Encodings(Vec<i32>),
    /// A picture, as sent; and whether only changes are wanted.
    Update(&'a [u8], bool),
    /// Pictures without asking, on or off, of an area.
    Continuous(bool, [u8; 8]),
    /// A mark that came back, or one the viewer set.
    Fence(u32, &'a [u8]),
}

/// Follows a viewer's messages however the stream is cut.
#[derive(Debug, Default)]
pub struct Requests {
    /// The header of a message that passes, or all of one that is taken out.
    held: Vec<u8>,
    /// Bytes of the current message still to come.
    body: u64,
    /// The current message is taken out.
    taken: bool,
}

impl Requests {
    /// Whether nothing of a message has passed whose rest is still to come: others may be put here.
    #[must_use]
    pub fn between(&self) -> bool {
        self.held.is_empty() && self.body == 0
    }

    /// Takes the next piece of the stream: what passes goes to `out`, the rest to `ask`, which may put
    /// messages there, too. Whether a key or pointer message began in it.
    ///
    /// # Errors
    /// [`Fault`]: nothing more must be passed on.
    pub fn feed(
        &mut self,
        mut piece: &[u8],
        out: &mut Vec<u8>,
        mut ask: impl FnMut(Ask<'_>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        let mut any_input = false;
        loop {
            if self.body > 0 {
                let n = usize::try_from(self.body).unwrap_or(usize::MAX).min(piece.len());
                if n == 0 {
                    return Ok(any_input);
                }
                let (now, rest) = piece.split_at(n);
                if self.taken {
                    self.held.extend_from_slice(now)
                } else {
                    out.extend_from_slice(now)
                }
                (piece, self.body) = (rest, self.body - n as u64);
            } else {
                let Some((&byte, rest)) = piece.split_first() else { return Ok(any_input) };
                piece = rest;
                self.held.push(byte);
                let Shape::Body { length, input } = shape(&self.held)? else { continue };
                any_input |= input;
                self.body = length;
                self.taken = [SET_PIXEL_FORMAT, SET_ENCODINGS, UPDATE_REQUEST, CONTINUOUS_UPDATES, FENCE]
                    .contains(&self.held[0]);
                if !self.taken {
                    out.append(&mut self.held);
                }
            }
            if self.body == 0 && self.taken {
                ask(read(&self.held)?, out)?;
                self.taken = false;
                self.held = Vec::new();
            }
        }
    }
}

/// A whole message of one of the kinds that are taken out.
fn read(m: &[u8]) -> Result<Ask<'_>, Fault> {
    let cut = Fault("a message is too short");
    Ok(match (m[0], &m[1..]) {
        (SET_PIXEL_FORMAT, _) => Ask::Format(m),
        (SET_ENCODINGS, rest) => {
            let (list, _) = rest.get(3..).ok_or(cut)?.as_chunks::<4>();
            Ask::Encodings(list.iter().map(|e| i32::from_be_bytes(*e)).collect())
        }
        (UPDATE_REQUEST, rest) => Ask::Update(m, rest.first().is_some_and(|b| *b != 0)),
        (CONTINUOUS_UPDATES, &[on, ref area @ ..]) => Ask::Continuous(on != 0, area.try_into().map_err(|_| cut)?),
        (FENCE, &[_, _, _, a, b, c, d, _, ref payload @ ..]) => Ask::Fence(u32::from_be_bytes([a, b, c, d]), payload),
        _ => return Err(cut),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_pacing_is_taken_out_and_the_rest_passes_however_it_is_cut() {
        let key = [4, 1, 0, 0, 0, 0, 0, 97];
        let text = [&[6, 0, 0, 0, 0, 0, 0, 5][..], b"hello"].concat();
        let encodings = [2, 0, 0, 2, 0, 0, 0, 7, 255, 255, 254, 200];
        let request = [3, 1, 0, 0, 0, 0, 2, 0, 1, 0];
        let continuous = [150, 1, 0, 0, 0, 0, 2, 0, 1, 0];
        let fence = [248, 0, 0, 0, 0, 0, 0, 1, 2, 7, 8];
        let empty_fence = [248, 0, 0, 0, 0, 0, 0, 1, 0];
        let stream =
            [&key[..], &encodings, &request, &text, &continuous, &fence, &empty_fence, &key, &[2, 0, 0, 0]].concat();
        for step in 1..40 {
            let (mut requests, mut out, mut asked) = (Requests::default(), Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                let fed = requests.feed(piece, &mut out, |ask, _| {
                    asked.push(format!("{ask:?}"));
                    Ok(())
                });
                fed.unwrap();
            }
            assert_eq!(out, [&key[..], &text, &key].concat(), "in steps of {step}");
            let area = [0, 0, 0, 0, 2, 0, 1, 0];
            let wanted = [
                Ask::Encodings(vec![7, -312]),
                Ask::Update(&request, true),
                Ask::Continuous(true, area),
                Ask::Fence(1, &[7, 8]),
                Ask::Fence(1, &[]),
                Ask::Encodings(vec![]),
            ];
            assert_eq!(asked, wanted.map(|a| format!("{a:?}")), "in steps of {step}");
            assert!(requests.between());
        }
        let mut requests = Requests::default();
        requests.feed(&text[..10], &mut Vec::new(), |_, _| Ok(())).unwrap();
        assert!(!requests.between(), "nothing may be put into the middle of a text");
    }
}
