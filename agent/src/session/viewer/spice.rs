//! SPICE, by `remote-viewer` on a UNIX socket.

use std::ffi::OsString;

use tram_wire::tunnel::Class;

use super::super::listen::Place;

/// Link header (16 bytes), connection id (4), channel type (1).
pub(super) const FIRST_WORDS: usize = 21;

/// The answer that refuses a link (header 16 bytes, reply 178); one that lets the viewer in is longer.
pub(super) const REFUSAL: usize = 194;

pub(super) fn arguments(place: &Place) -> Vec<OsString> {
    let mut to = OsString::new();
    match place {
        Place::Path(path) => {
            to.push("spice+unix://");
            to.push(path);
        }
        Place::Port(port) => to.push(format!("spice://127.0.0.1:{port}")),
    }
    // The title is ours: the desktop's name comes from outside.
    vec!["--full-screen".into(), "--title=Tram".into(), "--".into(), to]
}

/// Who goes first on a thin line, by the channel's type in the client's link message: what the viewer sends,
/// and what it gets.
#[must_use]
pub fn classes(first: &[u8]) -> (Class, Class) {
    match first.get(FIRST_WORDS - 1) {
        // Main: agent messages, the mouse's mode. Small, but the clipboard too.
        Some(1) => (Class::Input, Class::Display),
        Some(2) => (Class::Input, Class::Display),
        // Inputs: keys and the mouse one way, LEDs the other.
        Some(3) => (Class::Input, Class::Input),
        Some(4) => (Class::Input, Class::Display),
        // Sound.
        Some(5 | 6) => (Class::Audio, Class::Audio),
        // USB, files, ports.
        _ => (Class::Bulk, Class::Bulk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_before_pictures_and_pictures_before_files() {
        let channel = |kind: u8| {
            let mut first = [0; FIRST_WORDS];
            first[20] = kind;
            classes(&first)
        };
        assert_eq!(channel(3), (Class::Input, Class::Input));
        assert_eq!(channel(2).1, Class::Display);
        assert_eq!(channel(5).1, Class::Audio);
        assert_eq!([channel(9), channel(99), classes(&[])], [(Class::Bulk, Class::Bulk); 3]);
    }
}
