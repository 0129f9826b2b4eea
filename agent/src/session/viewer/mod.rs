//! Viewers: programs of the distribution that show a desktop. Started with fixed arguments, watched, ended.
//!
//! Nothing the controller or a gateway says reaches a viewer's arguments, environment or files: it is told a
//! socket of this computer and nothing else.

mod profile;
mod run;
mod spice;
mod vnc;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tram_wire::session::Protocol;
use tram_wire::tunnel::Class;

use super::listen::{Kind, Place};

pub use profile::Profile;
pub use run::{Ended, ViewerError, run};
pub use spice::classes;

/// A program that shows a desktop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// `remote-viewer`, for SPICE.
    Spice(PathBuf),
    /// `remote-viewer`, for VNC.
    Vnc(PathBuf),
    /// TigerVNC's viewer.
    Tiger(PathBuf),
}

impl Viewer {
    /// The viewers that are installed, the best first.
    #[must_use]
    pub fn installed(remote_viewer: &Path, vnc_viewer: &Path) -> Vec<Self> {
        let mut found = Vec::new();
        if remote_viewer.is_file() {
            found.push(Self::Spice(remote_viewer.to_owned()));
        }
        if vnc_viewer.is_file() {
            found.push(Self::Tiger(vnc_viewer.to_owned()));
        }
        if remote_viewer.is_file() {
            found.push(Self::Vnc(remote_viewer.to_owned()));
        }
        found
    }

    /// The first of them that shows what the gateway offers.
    #[must_use]
    pub fn choose<'a>(installed: &'a [Self], offered: &[Protocol]) -> Option<&'a Self> {
        installed.iter().find(|v| offered.contains(&v.protocol()))
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Spice(_) => Protocol::Spice,
            Self::Vnc(_) | Self::Tiger(_) => Protocol::Vnc,
        }
    }

    /// Bytes of the longest answer that only refuses.
    fn refusal(&self) -> usize {
        match self {
            Self::Spice(_) => spice::REFUSAL,
            Self::Vnc(_) | Self::Tiger(_) => 0,
        }
    }

    /// How it can be reached.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Spice(_) | Self::Tiger(_) => Kind::Unix,
            Self::Vnc(_) => Kind::Loopback,
        }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        match self {
            Self::Spice(path) | Self::Vnc(path) | Self::Tiger(path) => path,
        }
    }

    /// All of its arguments. The place is ours: a path of hexadecimal digits, or a number.
    #[must_use]
    pub fn arguments(&self, place: &Place) -> Vec<OsString> {
        match self {
            Self::Spice(_) => spice::arguments(place),
            Self::Vnc(_) => vnc::remote_viewer(place),
            Self::Tiger(_) => vnc::tiger(place),
        }
    }

    /// Classes of a channel's two directions; `first` is what the viewer said first.
    #[must_use]
    pub fn classes(&self, first: &[u8]) -> (Class, Class) {
        match self.protocol() {
            Protocol::Spice => classes(first),
            Protocol::Vnc | Protocol::Other => (Class::Input, Class::Display),
        }
    }

    /// How many bytes of the viewer's first words tell the channel; 0 where the server speaks first.
    #[must_use]
    pub fn first_words(&self) -> usize {
        match self.protocol() {
            Protocol::Spice => spice::FIRST_WORDS,
            Protocol::Vnc | Protocol::Other => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_viewer_for_what_is_offered() {
        let all = [Viewer::Spice("/r".into()), Viewer::Tiger("/t".into()), Viewer::Vnc("/r".into())];
        let choose = |offered: &[Protocol]| Viewer::choose(&all, offered).cloned();
        assert_eq!(choose(&[Protocol::Vnc, Protocol::Spice]), Some(all[0].clone()));
        assert_eq!(choose(&[Protocol::Vnc]), Some(all[1].clone()));
        assert_eq!(choose(&[Protocol::Other]), None);
    }

    #[test]
    fn arguments_are_fixed_but_for_our_own_socket() {
        let path = Place::Path("/run/user/1000/tram-desk/00ff.sock".into());
        let words = |v: &Viewer, p: &Place| {
            v.arguments(p).iter().map(|w| w.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        let spice = words(&Viewer::Spice("/r".into()), &path);
        assert_eq!(spice, "--full-screen --title=Tram -- spice+unix:///run/user/1000/tram-desk/00ff.sock");
        let tiger = words(&Viewer::Tiger("/t".into()), &path);
        assert!(
            tiger.starts_with("-FullScreen=1 ") && tiger.ends_with(" /run/user/1000/tram-desk/00ff.sock"),
            "{tiger}"
        );
        let vnc = words(&Viewer::Vnc("/r".into()), &Place::Port(40_000));
        assert_eq!(vnc, "--full-screen --title=Tram -- vnc://127.0.0.1:40000");
    }
}
