//! What the channels of one session know of each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Refusal;
use super::link::{Kind, Link};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Main {
    /// None is open.
    #[default]
    Free,
    /// One is being linked; its id is not known yet.
    Linking,
    /// QEMU gave it this id.
    Open(u32),
}

/// The session's channels; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channels {
    main: Arc<Mutex<Main>>,
    sound: bool,
}

impl Default for Channels {
    fn default() -> Self {
        Self { main: Arc::default(), sound: true }
    }
}

/// A channel's right to be there. Dropping that of `MAIN` makes room for the next one.
#[derive(Debug)]
pub struct Seat {
    channels: Channels,
    kind: Kind,
}

impl Channels {
    fn main(&self) -> MutexGuard<'_, Main> {
        self.main.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same with or without sound, as policy says.
    #[must_use]
    pub fn with_sound(self, sound: bool) -> Self {
        Self { sound, ..self }
    }

    /// Judges a link. A second `MAIN` never takes over: a viewer that is started anew has closed its old one,
    /// and another place takes the whole session over, which its officer was asked about.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn enter(&self, link: &Link) -> Result<Seat, Refusal> {
        if link.kind == Kind::Playback && !self.sound {
            return Err(Refusal::Permission);
        }
        let mut main = self.main();
        match (link.kind, *main) {
            (Kind::Main, _) if link.connection != 0 => return Err(Refusal::ConnectionId),
            (Kind::Main, Main::Free) => *main = Main::Linking,
            (Kind::Main, _) => return Err(Refusal::NotAvailable),
            (_, Main::Open(id)) if id == link.connection => {}
            (_, Main::Open(_)) => return Err(Refusal::ConnectionId),
            (_, Main::Free | Main::Linking) => return Err(Refusal::NotAvailable),
        }
        Ok(Seat { channels: self.clone(), kind: link.kind })
    }
}

impl Seat {
    /// What the channel is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// QEMU said which id the session has.
    pub fn named(&self, id: u32) {
        if self.kind == Kind::Main {
            *self.channels.main() = Main::Open(id);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.kind == Kind::Main {
            *self.channels.main() = Main::Free;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(connection: u32, kind: Kind) -> Link {
        Link { connection, kind, words: Vec::new() }
    }

    #[test]
    fn one_main_and_its_id_for_all_others() {
        let channels = Channels::default();
        let enter = |connection, kind| channels.enter(&link(connection, kind)).map_err(|why| why as u32);
        assert_eq!(enter(0, Kind::Display).unwrap_err(), Refusal::NotAvailable as u32, "MAIN comes first");
        assert_eq!(enter(5, Kind::Main).unwrap_err(), Refusal::ConnectionId as u32, "MAIN has no id yet");
        let main = enter(0, Kind::Main).unwrap();
        assert_eq!(enter(0, Kind::Main).unwrap_err(), Refusal::NotAvailable as u32, "while the first one links");
        assert_eq!(enter(0, Kind::Display).unwrap_err(), Refusal::NotAvailable as u32, "no id is known");
        main.named(77);
        assert_eq!(enter(0, Kind::Main).unwrap_err(), Refusal::NotAvailable as u32, "nor does it take over later");
        for made_up in [0, 76, 78, u32::MAX] {
            assert_eq!(enter(made_up, Kind::Inputs).unwrap_err(), Refusal::ConnectionId as u32);
        }
        // Another session's id is as good as a made-up one.
        let other = Channels::default();
        other.enter(&link(0, Kind::Main)).unwrap().named(78);
        drop(enter(77, Kind::Display).unwrap());
        enter(77, Kind::Cursor).unwrap();
        enter(77, Kind::Playback).unwrap();
        let silent = channels.clone().with_sound(false);
        assert_eq!(silent.enter(&link(77, Kind::Playback)).unwrap_err(), Refusal::Permission, "policy");
        silent.enter(&link(77, Kind::Cursor)).unwrap();
        drop(main);
        assert!(enter(77, Kind::Cursor).is_err(), "the id goes with its MAIN");
        enter(0, Kind::Main).unwrap();
    }
}
