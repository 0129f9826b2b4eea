//! What is said over a tunnel besides its streams.
//!
//! ```text
//! agent                                   gateway
//!   hello                             →   welcome | refused          first words of a new tunnel
//!   open {ticket} | again {session}   →   opened | refused
//!   lease {lease}                     →   opened | refused         while the controller can't be asked
//!   (streams)                        ↔
//!                                     ←   quality, warn, assist, ended
//!   marks, assist_answer, assist_stop →
//!   leave                             →
//!   resume {session, secret, last}    →   resumed | refused          first words after a cut
//! ```
//! The first words travel in a frame of their own kind, unnumbered; all else in numbered messages, which a
//! cut neither loses nor doubles. A tunnel carries one session. After a cut the gateway keeps the desktop's
//! side open for `grace_s`. When it does not know the session any more (it was restarted, or it is another
//! gateway) it refuses `unknown_session`: the agent says `hello` and `again`, gets the same desktop with new
//! streams, and starts its viewer anew.

use serde::{Deserialize, Serialize};

use crate::assist::{Assist, AssistAnswer, AssistStop, Marks};
use crate::frame::{Incoming, MAX_FRAME, Tag, WireError, body, direction};
use crate::ids::SessionId;
use crate::lease::Signed;
use crate::version::Versions;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// RFB, security None, always shared: both handshakes end at the gateway.
    Vnc,
    /// One channel of SPICE.
    Spice,
    /// One made after this build.
    #[serde(other)]
    Other,
}

/// The header of a new stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeader {
    /// The tunnel's session.
    pub session: SessionId,
    /// What it carries.
    pub protocol: Protocol,
}

/// First words of a new tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol versions the agent speaks.
    pub versions: Versions,
}

/// Their answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both use.
    pub version: u16,
}

/// First words after a cut.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Protocol versions the agent speaks.
    pub versions: Versions,
    /// Which session.
    pub session: SessionId,
    /// The latest secret, hexadecimal.
    pub secret: String,
    /// Number of the last frame that arrived.
    pub last: u64,
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resume").field("session", &self.session).field("last", &self.last).finish_non_exhaustive()
    }
}

/// The tunnel goes on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The version both use.
    pub version: u16,
    /// The secret for the next time; the one that was shown is void once the agent has been heard again.
    pub secret: String,
    /// Number of the last frame that arrived.
    pub last: u64,
}

impl std::fmt::Debug for Resumed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resumed").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Opens a session with a ticket.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The ticket, bound to this endpoint's certificate.
    pub ticket: String,
}

/// Opens a session this endpoint had at a gateway that is gone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Which.
    pub session: SessionId,
    /// The token that came with it; it works once, and only while nobody else took the session over.
    pub token: String,
}

/// Opens a session by a lease for this endpoint's certificate: only while the database can't be asked, or if the
/// database has nothing against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByLease {
    /// The lease.
    pub lease: Signed,
}

macro_rules! secret_debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), " { .. }"))
            }
        }
    )*};
}
secret_debug!(Open, Again);

/// The officer leaves the desktop; the session stays as its policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {}

/// A session is open on this tunnel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Which.
    pub session: SessionId,
    /// Proves the agent after a cut, hexadecimal. Kept in memory only.
    pub secret: String,
    /// For [`Again`], at any gateway.
    pub again: String,
    /// What its streams may carry.
    pub protocols: Vec<Protocol>,
    /// How long the desktop's side stays open after a cut.
    pub grace_s: u32,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut d = f.debug_struct("Opened");
        d.field("session", &self.session).field("protocols", &self.protocols).finish_non_exhaustive()
    }
}

/// Why the gateway would not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// The ticket or token opens nothing, whatever the reason.
    Ticket,
    /// The certificate opens nothing, whatever the reason.
    Certificate,
    /// The session is not at this gateway.
    UnknownSession,
    /// The secret is not, or no longer, the session's.
    Secret,
    /// What was sent since can't be sent again.
    Window,
    /// The tunnel carries a session already.
    Occupied,
    /// No common protocol version.
    Version,
    /// The database can't be asked, or the gateway is about to stop.
    Unavailable,
    /// The words made no sense.
    Malformed,
    /// The lease opens nothing, whatever the reason: forget it.
    Lease,
    /// The session is open at another place.
    Elsewhere,
    /// The lease is good, but its desktop does not run, or its host can't be reached.
    Desktop,
    /// A reason made after this build.
    #[serde(other)]
    Other,
}

impl Denial {
    /// The code people see and search for.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Ticket => "G-101",
            Self::Certificate => "G-105",
            Self::UnknownSession => "G-106",
            Self::Secret => "G-107",
            Self::Window => "G-108",
            Self::Occupied => "G-109",
            Self::Version => "G-110",
            Self::Malformed => "G-111",
            Self::Lease => "G-112",
            Self::Elsewhere => "G-113",
            Self::Desktop => "G-114",
            Self::Unavailable => "G-503",
            Self::Other => "G-100",
        }
    }
}

/// No.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: Denial,
}

/// Something will happen to the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warn {
    /// What, such as `idle` or `longest`; [`Warn::CLEAR`]: nothing any more.
    pub code: String,
    /// In how many seconds.
    pub in_s: u32,
}

impl Warn {
    /// What was warned of will not happen.
    pub const CLEAR: &str = "clear";
}

/// The session, or this way to it, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// As a browser would be told: 4000 ended, 4001 desktop gone, 4002 host lost, 4003 a limit, 4004 taken
    /// over, 1012 the gateway stops.
    pub code: u16,
}

/// How the line does, as the gateway sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Milliseconds there and back.
    pub rtt_ms: u32,
    /// Kilobits a second delivered to the agent, of late.
    pub down_kbit: u32,
}

direction! {
    /// From the agent to the gateway.
    ToGateway {
        /// First words of a new tunnel.
        "hello" => Hello(Hello),
        /// First words after a cut.
        "resume" => Resume(Resume),
        /// A ticket is to be redeemed.
        "open" => Open(Open),
        /// A session is to go on here.
        "again" => Again(Again),
        /// A session is to go on by a lease.
        "lease" => Lease(ByLease),
        /// The officer leaves.
        "leave" => Leave(Leave),
        /// Whether who looks at the session can be shown.
        "marks" => Marks(Marks),
        /// The officer says whether support may look.
        "assist_answer" => AssistAnswer(AssistAnswer),
        /// The officer stops it.
        "assist_stop" => AssistStop(AssistStop),
    }
}

direction! {
    /// From the gateway to the agent.
    ToAgent {
        /// The tunnel is there.
        "welcome" => Welcome(Welcome),
        /// The tunnel goes on.
        "resumed" => Resumed(Resumed),
        /// The session is open.
        "opened" => Opened(Opened),
        /// No.
        "refused" => Refused(Refused),
        /// Something will happen.
        "warn" => Warn(Warn),
        /// It is over.
        "ended" => Ended(Ended),
        /// How the line does.
        "quality" => Quality(Quality),
        /// Support looks, or asks to.
        "assist" => Assist(Assist),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let open = ToGateway::Open(Open { ticket: "vdt1_geheim".into() });
        let again = ToGateway::Again(Again { session: uuid::Uuid::nil().into(), token: "geheim".into() });
        let resume = Resume {
            versions: crate::version::OURS,
            session: uuid::Uuid::nil().into(),
            secret: "geheim".into(),
            last: 1,
        };
        let text = format!("{open:?} {again:?} {resume:?}");
        assert!(!text.contains("geheim"), "{text}");
    }

    #[test]
    fn a_denial_from_the_future_is_still_one() {
        let m = ToAgent::decode(br#"{"kind":"refused","reason":"moon"}"#).unwrap();
        assert_eq!(m, Incoming::Message(ToAgent::Refused(Refused { reason: Denial::Other })));
    }
}
