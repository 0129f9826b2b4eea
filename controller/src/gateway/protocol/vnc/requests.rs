//! What a paced viewer sends: most of it passes, what concerns pacing is taken out whole, and what a guest of the
//! session has no right to is dropped.

use super::client::{Fault, Shape, shape};

const SET_PIXEL_FORMAT: u8 = 0;
const SET_ENCODINGS: u8 = 2;
const UPDATE_REQUEST: u8 = 3;
const CONTINUOUS_UPDATES: u8 = 150;
const FENCE: u8 = 248;
const KEY: u8 = 4;
const POINTER: u8 = 5;
const CUT_TEXT: u8 = 6;
const QEMU: u8 = 255;
const QEMU_SOUND: u8 = 1;
/// Pseudo-encoding of sound.
const SOUND: i32 = -259;
/// Pseudo-encoding of the extended clipboard: the desktop's text goes only to viewers that list it.
const CLIPBOARD: i32 = 0xc0a1_e5ce_u32.cast_signed();

/// What may reach the desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The session's own viewer: everything but what its policy forbids.
    Own {
        /// Text may be copied, both ways.
        clipboard: bool,
        /// Sound may be asked for.
        sound: bool,
    },
    /// Only what asks for pictures.
    Look,
    /// That, keys and mouse. The clipboard and the screen's size stay the officer's.
    Control,
}

impl Default for Rights {
    fn default() -> Self {
        Self::Own { clipboard: true, sound: true }
    }
}

impl Rights {
    /// Whether a viewer may list an encoding: the desktop sends some things only to those that do.
    fn list(self, encoding: i32) -> bool {
        match (self, encoding) {
            (Self::Own { clipboard, .. }, CLIPBOARD) => clipboard,
            (Self::Own { sound, .. }, SOUND) => sound,
            (_, CLIPBOARD | SOUND) => false,
            _ => true,
        }
    }

    /// Whether a message that does not concern pacing passes; `header` is whole.
    fn pass(self, header: &[u8]) -> bool {
        match self {
            Self::Own { clipboard, sound } => match header {
                [CUT_TEXT, ..] => clipboard,
                [QEMU, QEMU_SOUND, ..] => sound,
                _ => true,
            },
            Self::Look => false,
            Self::Control => matches!(header, [KEY | POINTER, ..] | [QEMU, 0, ..]),
        }
    }
}

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

#[cfg(test)]
impl Ask<'_> {
    /// As it is sent.
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Format(m) | Self::Update(m, _) => out.extend_from_slice(m),
            Self::Encodings(list) => {
                let n = u16::try_from(list.len()).unwrap_or(u16::MAX);
                out.extend_from_slice(&[SET_ENCODINGS, 0]);
                out.extend_from_slice(&n.to_be_bytes());
                out.extend(list.iter().take(n.into()).flat_map(|e| e.to_be_bytes()));
            }
            Self::Continuous(on, area) => {
                out.extend_from_slice(&[CONTINUOUS_UPDATES, u8::from(*on)]);
                out.extend_from_slice(area);
            }
            Self::Fence(flags, payload) => {
                out.extend_from_slice(&[FENCE, 0, 0, 0]);
                out.extend_from_slice(&flags.to_be_bytes());
                out.push(u8::try_from(payload.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(payload);
            }
        }
    }
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
    /// The current message is dropped.
    dropped: bool,
    rights: Rights,
}

impl Requests {
    /// Whether nothing of a message has passed whose rest is still to come: others may be put here.
    #[must_use]
    pub fn between(&self) -> bool {
        self.held.is_empty() && self.body == 0
    }

    /// What may pass from the next message on.
    pub fn grant(&mut self, rights: Rights) {
        self.rights = rights;
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
                } else if !self.dropped {
                    out.extend_from_slice(now)
                }
                (piece, self.body) = (rest, self.body - n as u64);
            } else {
                let Some((&byte, rest)) = piece.split_first() else { return Ok(any_input) };
                piece = rest;
                self.held.push(byte);
                let Shape::Body { length, input } = shape(&self.held)? else { continue };
                self.body = length;
                self.taken = [SET_PIXEL_FORMAT, SET_ENCODINGS, UPDATE_REQUEST, CONTINUOUS_UPDATES, FENCE]
                    .contains(&self.held[0]);
                self.dropped = !self.taken && !self.rights.pass(&self.held);
                any_input |= input && !self.dropped;
                if self.dropped {
                    self.held.clear();
                } else if !self.taken {
                    out.append(&mut self.held);
                }
            }
            if self.body == 0 && self.taken {
                let mut words = read(&self.held)?;
                if let Ask::Encodings(list) = &mut words {
                    list.retain(|e| self.rights.list(*e));
                }
                ask(words, out)?;
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
        // Unpaced, what is allowed arrives as it was sent.
        let (mut requests, mut out) = (Requests::default(), Vec::new());
        let put = |ask: Ask<'_>, out: &mut Vec<u8>| {
            ask.put(out);
            Ok(())
        };
        requests.feed(&stream, &mut out, put).unwrap();
        assert_eq!(out, stream);
        let mut requests = Requests::default();
        requests.feed(&text[..10], &mut Vec::new(), |_, _| Ok(())).unwrap();
        assert!(!requests.between(), "nothing may be put into the middle of a text");
    }

    #[test]
    fn a_guest_reaches_the_desktop_with_nothing_they_have_no_right_to() {
        let key = vec![4, 1, 0, 0, 0, 0, 0, 97];
        let pointer = vec![5, 1, 0, 5, 0, 5];
        let text = [&[6, 0, 0, 0, 0, 0, 0, 5][..], b"hello"].concat();
        let rich_text = [&[6, 0, 0, 0, 255, 255, 255, 250][..], b"extend"].concat();
        let qemu_key = vec![255, 0, 0, 1, 0, 0, 0, 97, 0, 0, 0, 30];
        let sound = vec![255, 1, 0, 0];
        let format = vec![255, 1, 0, 2, 3, 2, 0, 0, 0, 1];
        let size = [&[251, 0, 2, 0, 2, 0, 1, 0][..], &[0; 16]].concat();
        let power = vec![250, 0, 1, 2];
        let request = vec![3, 1, 0, 0, 0, 0, 2, 0, 1, 0];
        let listed = [CLIPBOARD, SOUND, 7].map(i32::to_be_bytes).concat();
        let encodings = [&[2, 0, 0, 3][..], &listed].concat();
        let all =
            [&key, &request, &pointer, &text, &rich_text, &qemu_key, &sound, &encodings, &format, &size, &power, &key];
        let stream = all.map(Clone::clone).concat();
        let own = [&key, &pointer, &text, &rich_text, &qemu_key, &sound, &format, &size, &power, &key];
        for (rights, passes, listed) in [
            (Rights::default(), own.map(Clone::clone).concat(), vec![CLIPBOARD, SOUND, 7]),
            (
                Rights::Own { clipboard: false, sound: true },
                [&key, &pointer, &qemu_key, &sound, &format, &size, &power, &key].map(Clone::clone).concat(),
                vec![SOUND, 7],
            ),
            (
                Rights::Own { clipboard: true, sound: false },
                [&key, &pointer, &text, &rich_text, &qemu_key, &size, &power, &key].map(Clone::clone).concat(),
                vec![CLIPBOARD, 7],
            ),
            (Rights::Look, vec![], vec![7]),
            (Rights::Control, [&key[..], &pointer, &qemu_key, &key].concat(), vec![7]),
        ] {
            for step in 1..40 {
                let (mut requests, mut out, mut asked, mut input) =
                    (Requests::default(), Vec::new(), Vec::new(), false);
                requests.grant(rights);
                for piece in stream.chunks(step) {
                    let fed = requests.feed(piece, &mut out, |ask, _| {
                        asked.push(format!("{ask:?}"));
                        Ok(())
                    });
                    input |= fed.unwrap();
                }
                assert_eq!(out, passes, "{rights:?} in steps of {step}");
                assert_eq!(input, rights != Rights::Look, "{rights:?}: what is dropped is no input");
                let wanted = [Ask::Update(&request, true), Ask::Encodings(listed.clone())];
                assert_eq!(asked, wanted.map(|a| format!("{a:?}")), "{rights:?} in steps of {step}");
                assert!(requests.between());
            }
        }
        // Rights change between messages, never inside one.
        let (mut requests, mut out) = (Requests::default(), Vec::new());
        requests.grant(Rights::Look);
        requests.feed(&key[..4], &mut out, |_, _| Ok(())).unwrap();
        requests.grant(Rights::Control);
        requests.feed(&key[4..], &mut out, |_, _| Ok(())).unwrap();
        assert_eq!(out, [0; 0]);
        requests.feed(&key, &mut out, |_, _| Ok(())).unwrap();
        assert_eq!(out, key);
        // A broken message is one for a guest, too.
        assert!(requests.feed(&[6, 0, 0, 0, 0x7f, 255, 255, 255], &mut out, |_, _| Ok(())).is_err());
    }
}
