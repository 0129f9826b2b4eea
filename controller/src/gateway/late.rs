//! What could not be written down while the database was away, in the order it happened. It is kept in memory: who
//! works goes on working, and the database learns of it afterwards.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use tram_wire::ids::SessionId;

use super::Gateway;
use super::lease::UNWRITTEN;
use super::link::Link;
use crate::domain::session::Cut;
use crate::domain::time::Time;
use crate::services::{Error, broker, tunnels};

/// Most that is kept: an hour of a thousand endpoints whose lines are cut every minute is more than anybody reads.
const MOST: usize = 50_000;

/// One thing that happened.
enum Entry {
    /// A viewer went away.
    Left { link: Arc<Link>, up: u64, down: u64, at: Time },
    /// An endpoint's line came back.
    Back { link: Arc<Link>, ip: String, at: Time },
    /// The first picture was seen.
    Pictured { session: SessionId, at: Time },
}

/// All of it.
#[derive(Default)]
pub(super) struct Late(Mutex<VecDeque<Entry>>);

impl Late {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn push(&self, entry: Entry) {
        let mut entries = self.entries();
        if entries.len() == MOST {
            entries.pop_front();
            counter!("gateway_late_dropped_total").increment(1);
        }
        entries.push_back(entry);
        gauge!("gateway_late_entries").set(entries.len() as f64);
    }
}

impl Gateway {
    /// Things that happened and are not written down yet.
    #[must_use]
    pub fn late(&self) -> usize {
        self.0.late.entries().len()
    }

    /// Whether this must wait for what happened before, or for the database.
    fn must_wait(&self) -> bool {
        self.away() || !self.0.late.is_empty()
    }

    /// A viewer of this connection went away.
    pub(super) async fn left(&self, link: &Arc<Link>, up: u64, down: u64) {
        self.note(Entry::Left { link: link.clone(), up, down, at: self.0.app.clock.now() }).await;
    }

    /// Somebody saw the first picture of a session.
    pub(super) async fn pictured(&self, session: SessionId) {
        self.note(Entry::Pictured { session, at: self.0.app.clock.now() }).await;
    }

    /// An endpoint's line came back to its tunnel; an error if that must not go on.
    pub(super) async fn back(&self, link: &Arc<Link>, peer: SocketAddr) -> Result<(), Cut> {
        let entry = Entry::Back { link: link.clone(), ip: peer.ip().to_string(), at: self.0.app.clock.now() };
        // Before it is written: what is said of this connection from here on is right.
        link.came_back(peer);
        if link.epoch() == UNWRITTEN {
            // The database has not heard of it yet; that is told as a whole.
            return Ok(());
        }
        self.note(entry).await;
        match link.cut_already() {
            Some(cut) => Err(cut),
            None => Ok(()),
        }
    }

    async fn note(&self, entry: Entry) {
        if self.must_wait() {
            return self.0.late.push(entry);
        }
        if let Err(e) = self.write(&entry).await {
            tracing::warn!(error = %e, "what happened to a connection could not be written down, and is kept");
            self.0.late.push(entry);
        }
    }

    /// Writes down what is late. Whether nothing is any more.
    pub(super) async fn say_late(&self) -> bool {
        loop {
            let Some(entry) = self.0.late.entries().pop_front() else {
                gauge!("gateway_late_entries").set(0.0);
                return true;
            };
            match self.write(&entry).await {
                Ok(()) => counter!("gateway_late_written_total").increment(1),
                Err(Error::Unavailable(..)) => {
                    self.0.late.entries().push_front(entry);
                    return false;
                }
                // The database answers, and will not take it the next time either.
                Err(e) => tracing::error!(error = %e, "what happened to a connection can't be written down"),
            }
        }
    }

    async fn write(&self, entry: &Entry) -> Result<(), Error> {
        let app = &self.0.app;
        match entry {
            // By the epoch it has now: an earlier entry may have given it the next one.
            Entry::Left { link, up, down, at } => {
                broker::detached(app, link.session, link.epoch(), *up, *down, *at).await
            }
            Entry::Back { link, ip, at } => {
                match tunnels::resumed(app, link.session, link.epoch(), self.0.id, ip, *at).await? {
                    Ok(epoch) => link.renewed(epoch),
                    Err(cut) => link.cut(cut),
                }
                Ok(())
            }
            Entry::Pictured { session, at } => broker::first_frame(app, *session, *at).await,
        }
    }
}
