//! Typed wake-ups. A nudge says *look again*; it carries no data beyond which row changed.
//!
//! Losing one is harmless: each reconciler also looks on its own timer, and a console that misses
//! changes is told to fetch anew.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

/// What a nudge or a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A hypervisor host.
    Host,
    /// A golden image.
    Image,
    /// A pool of desktops.
    Pool,
    /// A virtual desktop.
    Desktop,
    /// An office endpoint.
    Endpoint,
    /// A session of an officer.
    Session,
    /// Something that is wrong somewhere.
    Incident,
    /// A message on its way to somebody.
    Notify,
    /// A gateway.
    Gateway,
    /// Something support has an endpoint do.
    Diagnosis,
    /// An officer's call for support.
    Call,
    /// A computer that waits to be approved.
    Enrolment,
    /// A release of the endpoints' agent.
    Update,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Host,
        Self::Image,
        Self::Pool,
        Self::Desktop,
        Self::Endpoint,
        Self::Session,
        Self::Incident,
        Self::Notify,
        Self::Gateway,
        Self::Diagnosis,
        Self::Call,
        Self::Enrolment,
        Self::Update,
    ];

    /// The name used in events and database notifications.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Image => "image",
            Self::Pool => "pool",
            Self::Desktop => "desktop",
            Self::Endpoint => "endpoint",
            Self::Session => "session",
            Self::Incident => "incident",
            Self::Notify => "notify",
            Self::Gateway => "gateway",
            Self::Diagnosis => "diagnosis",
            Self::Call => "call",
            Self::Enrolment => "enrolment",
            Self::Update => "update",
        }
    }

    /// The kind a name stands for.
    #[must_use]
    pub fn parse(s: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == s)
    }
}

/// One row changed (or went away).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub id: Uuid,
}

/// Carries nudges between the parts of one process.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    wake: [Notify; Kind::ALL.len()],
    changes: broadcast::Sender<Change>,
}

/// Changes a slow listener may lag behind before it must fetch everything anew.
const BACKLOG: usize = 16_384;

impl Default for Bus {
    fn default() -> Self {
        Self(Arc::new(Inner { wake: Default::default(), changes: broadcast::channel(BACKLOG).0 }))
    }
}

impl Bus {
    /// Wakes whoever looks after this kind.
    pub fn nudge(&self, kind: Kind) {
        self.0.wake[kind as usize].notify_one();
    }

    /// Tells listeners that a row changed, and nudges its kind.
    pub fn changed(&self, change: Change) {
        self.nudge(change.kind);
        // No listener is not an error: nobody is looking at a console.
        let _ = self.0.changes.send(change);
    }

    /// Waits for the next nudge of this kind. One waiter per kind; a nudge sent before the wait counts.
    pub async fn nudged(&self, kind: Kind) {
        self.0.wake[kind as usize].notified().await;
    }

    /// All changes from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }
}
