//! SPICE, as far as the gateway takes part in it: the link of each channel, and who may have which.
//!
//! ```text
//! viewer              gateway                         QEMU
//!   link mess    →    parsed, judged            →     (a descriptor of its own for this channel)
//!                ←    link reply                ←
//!   ticket       →    held back
//!                ←    OK       (display only)
//!   DISPLAY_INIT →    held back
//!                     ticket, DISPLAY_INIT      →     OK
//! ```
//! **Why display channels wait.** When a display channel is let in by QEMU's SPICE server and the connection
//! ends before its `DISPLAY_INIT` was worked on, the server reads through a null pointer and QEMU, with the
//! officer's desktop, dies. A line that is lost in the wrong round trip is enough. So QEMU hears of a display
//! channel only when the viewer's first message is here, and the two leave in one write ([`guard`]); after
//! that QEMU's side stays open until it has answered.
//!
//! **No password.** The viewer's process is known to the agent by the kernel, the agent to the gateway by its
//! certificate, and QEMU asks nothing of the descriptor it is given. The ticket is an empty one; it is
//! encrypted for QEMU's key and passes through, so the gateway needs no key of its own.
//!
//! A session has one `MAIN` at a time; its id is read from `MAIN_INIT` and demanded of every other channel
//! ([`session`]). Lengths are judged before anything is kept ([`link`], [`frames`]).

pub mod frames;
pub mod guard;
pub mod link;
pub mod session;

/// What a link is answered with; the words are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// It does not begin with the magic.
    Magic = 2,
    /// Lengths or offsets make no sense, or a needed capability is missing.
    Data = 3,
    /// Another major version.
    Version = 4,
    /// Policy forbids the channel.
    Permission = 7,
    /// Not the session's id.
    ConnectionId = 8,
    /// A second `MAIN`, or a channel before the first one.
    NotAvailable = 9,
}

/// Why a channel came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The viewer's link, or what followed, broke the rules.
    #[error("the viewer's link was refused: {0:?}")]
    Refused(Refusal),
    /// The viewer went, or took too long.
    #[error("the viewer did not finish its link")]
    Viewer,
    /// QEMU's side did not do its part.
    #[error("the display did not finish its link")]
    Display,
}

impl From<Refusal> for Failure {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}
