//! The way to a desktop: one connection to a gateway, which comes back by itself.
//!
//! ```text
//! Session::open(door, ticket) ──► keeper task: drives the line, dials again after a cut, resumes
//!        .stream(protocol, …) ──► one byte stream to the desktop; lives through cuts
//!        .status()            ──► up, lost since, over; warnings; the line's quality
//! ```
//! A cut is not an end: streams wait and go on where they were. When the gateway itself is gone, the same
//! desktop is opened at another one with the token that came with the session, or by the lease if that one can't ask
//! about the token ([`Session::hold`]); its streams are new then, so
//! the viewer has to be started again: [`Status::generation`] counts that. A line that is down is not taken for a
//! gateway that is gone: whoever refuses is gone, whoever is silent gets one more look before another is taken.

mod dial;
mod keeper;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tram_tunnel::{Stream, StreamError, Tunnel};
use tram_wire::assist::{Assist, Marks};
use tram_wire::ids::SessionId;
use tram_wire::lease::Signed;
use tram_wire::session::{ByLease, Denial, Open, Protocol, Quality, StreamHeader, ToGateway, Warn};
use tram_wire::tunnel::Class;

use crate::config::Address;

pub use dial::{DialError, Door};

/// How long the gateway may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Where the line is.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// It carries.
    Up,
    /// It is cut; the agent dials by itself.
    Lost {
        /// Since when.
        since: Instant,
        /// How often it was dialled in vain.
        tries: u32,
        /// Why the last try failed.
        why: String,
        /// Whoever answers at the gateway's address does not serve: the line itself is fine.
        gateway: bool,
    },
    /// The session, or this way to it, is over.
    Over(Over),
}

/// Why there is no way any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The gateway said so, with a code as in [`tram_wire::session::Ended`].
    Ended(u16),
    /// No gateway takes the session up again.
    Refused(Denial),
    /// The officer left.
    Left,
}

/// What the officer may be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Where the line is.
    pub line: Line,
    /// The line is up, and nothing comes over it.
    pub stalled: bool,
    /// How often the line was cut and came back.
    pub resumes: u32,
    /// How often the desktop was opened anew at another gateway: a viewer of an older generation is dead.
    pub generation: u32,
    /// The latest warning.
    pub warning: Option<Warn>,
    /// What support does, and when that was heard.
    pub assist: Option<(Assist, Instant)>,
    /// How the line does, as the gateway sees it.
    pub quality: Option<Quality>,
    /// A lease opened it: nobody could be asked for more.
    pub leased: bool,
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No gateway was reached.
    #[error("no gateway can be reached: {0}")]
    Dial(#[from] DialError),
    /// The gateway refused.
    #[error("the gateway refused ({})", .0.code())]
    Refused(Denial),
}

/// What the keeper and the handles share.
struct Shared {
    session: SessionId,
    protocols: Vec<Protocol>,
    tunnel: Mutex<Tunnel>,
    status: watch::Sender<Status>,
    /// This screen can show that somebody looks.
    marks: AtomicBool,
    /// Opens it anew where no gateway can ask the database.
    lease: Mutex<Option<Signed>>,
    door: Door,
}

/// An open session. Dropping it leaves the desktop as its policy says.
pub struct Session {
    shared: Arc<Shared>,
    leave: Option<oneshot::Sender<()>>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Dials a gateway and redeems a ticket that is bound to this endpoint's certificate.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(door: Door, ticket: &str) -> Result<Self, OpenError> {
        keeper::open(door, ToGateway::Open(Open { ticket: ticket.to_owned() })).await
    }

    /// Dials a gateway and shows a lease for this endpoint's certificate: for when no ticket can be had.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_by_lease(door: Door, lease: Signed) -> Result<Self, OpenError> {
        keeper::open(door, ToGateway::Lease(ByLease { lease })).await
    }

    /// Which session.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.shared.session
    }

    /// What its streams may carry.
    #[must_use]
    pub fn protocols(&self) -> &[Protocol] {
        &self.shared.protocols
    }

    /// A new stream to the desktop. `up` is the class of what the viewer sends, `down` of what it gets: for
    /// VNC [`Class::Input`] and [`Class::Display`].
    ///
    /// # Errors
    /// [`StreamError`] if too many are open, or all is over.
    pub fn stream(&self, protocol: Protocol, up: Class, down: Class) -> Result<Stream, StreamError> {
        let header = StreamHeader { session: self.shared.session, protocol };
        let header = serde_json::to_vec(&header).map_err(|_| StreamError::TooLong)?;
        self.shared.tunnel().open(up, down, &header)
    }

    /// What the officer may be told, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Says something to the gateway; a line that is cut carries it when it is back.
    pub fn say(&self, words: &ToGateway) {
        // A tunnel that takes nothing any more is about to end.
        if let Ok(text) = words.encode() {
            let _ = self.shared.tunnel().send(text.as_bytes());
        }
    }

    /// Says whether this screen can show that somebody looks, here and at each gateway to come.
    pub fn can_show(&self, shown: bool) {
        self.shared.marks.store(shown, Ordering::Relaxed);
        self.say(&ToGateway::Marks(Marks { shown }));
    }

    /// Other gateways are there now: where to go should this one be lost.
    pub fn learn(&self, gateways: Vec<Address>) {
        self.shared.door.learn(gateways);
    }

    /// The lease of now: what to show should this gateway be lost while the database is away.
    pub fn hold(&self, lease: Option<Signed>) {
        *self.shared.lease() = lease;
    }

    /// Leaves the desktop, politely if the line is up.
    pub async fn leave(mut self) {
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        // The keeper ends by itself; what it has to say is in the status.
        let _ = (&mut self.keeper).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.tunnel().close();
        if self.leave.take().is_some() {
            self.keeper.abort();
        }
    }
}

impl Shared {
    fn tunnel(&self) -> Tunnel {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lease(&self) -> MutexGuard<'_, Option<Signed>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}
