//! The keeper of one host: holds the connection that carries events, notices when it dies, reconnects.
//!
//! After a loss nothing old is used again and everything must be looked at anew: events in between are
//! lost, and libvirt never reconnects by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::broadcast;
use uuid::Uuid;
use virt::connect::Connect;
use virt::sys;

use super::domain;
use super::ffi::{Note, Subscription};
use super::thread::{Link, Shared};
use crate::{DesktopId, HostEvent, InstallationId, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What the keeper needs besides the shared part.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) installation: InstallationId,
    pub(super) notes: Receiver<Note>,
    pub(super) events: broadcast::Sender<HostEvent>,
    /// Called on each new connection, before calls are let through: decides the acceleration.
    pub(super) connected: Box<dyn Fn(&Connect) + Send>,
}

enum End {
    Lost(String),
    Stopped,
}

impl Keeper {
    pub(super) fn run(self) {
        let mut pause = FIRST_PAUSE;
        while !self.shared.stopped.load(Ordering::Relaxed) {
            match self.connect() {
                Ok((conn, subscription)) => {
                    pause = FIRST_PAUSE;
                    self.shared.epoch.fetch_add(1, Ordering::AcqRel);
                    self.shared.set_link(Link::Up);
                    tracing::info!(uri = %self.shared.uri, "libvirt host connected");
                    (self.connected)(&conn);
                    self.say(HostEvent::Resync);
                    let end = self.watch(&conn);
                    drop(subscription);
                    match end {
                        End::Stopped => return,
                        End::Lost(why) => {
                            tracing::warn!(uri = %self.shared.uri, reason = %why, "libvirt host lost");
                            self.shared.set_link(Link::Down(why));
                            self.say(HostEvent::Lost);
                        }
                    }
                }
                Err(e) => {
                    tracing::debug!(uri = %self.shared.uri, error = %e, "libvirt host can't be reached");
                    let why = match e {
                        crate::Error::Unreachable(why) => why,
                        other => other.to_string(),
                    };
                    self.shared.set_link(Link::Down(why));
                }
            }
            if self.rest(pause) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn connect(&self) -> Result<(Connect, Subscription)> {
        let conn = self.shared.connect()?;
        let subscription = Subscription::new(&conn, &self.shared.notes).map_err(super::convert::error)?;
        Ok((conn, subscription))
    }

    /// Waits about `pause`; true when the backend was dropped meanwhile.
    fn rest(&self, pause: Duration) -> bool {
        let until = std::time::Instant::now() + pause.mul_f64(rand::rng().random_range(0.5..1.5));
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.notes.recv_timeout(left) {
                Ok(Note::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                // Late notes of the dead connection.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return self.shared.stopped.load(Ordering::Relaxed),
            }
        }
    }

    /// Passes events on until the connection is lost.
    fn watch(&self, conn: &Connect) -> End {
        let mut owned = HashMap::new();
        loop {
            let note = match self.notes.recv_timeout(Duration::from_secs(30)) {
                Ok(note) => note,
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
                Err(RecvTimeoutError::Timeout) => Note::Suspect,
            };
            if self.shared.notes.lost.swap(false, Ordering::Relaxed) {
                self.say(HostEvent::Resync);
            }
            match note {
                Note::Stop => return End::Stopped,
                Note::Closed(reason) => return End::Lost(close_reason(reason).into()),
                Note::Suspect if !conn.is_alive().unwrap_or(false) => {
                    return End::Lost("the connection to libvirt broke".into());
                }
                Note::Suspect => {}
                Note::Lifecycle(uuid, event, _) => {
                    if self.is_ours(conn, &mut owned, uuid) {
                        self.say(HostEvent::Desktop(DesktopId(uuid)));
                    }
                    if event == sys::VIR_DOMAIN_EVENT_UNDEFINED as i32 {
                        owned.remove(&uuid);
                    }
                }
                Note::Agent(uuid) => {
                    if self.is_ours(conn, &mut owned, uuid) {
                        self.say(HostEvent::Desktop(DesktopId(uuid)));
                    }
                }
            }
        }
    }

    /// Asked once a domain: foreign ones are not reported. A domain that is already gone is not known to
    /// be foreign, and a needless look costs little.
    fn is_ours(&self, conn: &Connect, known: &mut HashMap<Uuid, bool>, uuid: Uuid) -> bool {
        if let Some(ours) = known.get(&uuid) {
            return *ours;
        }
        // Transient domains of others come and go without a last word.
        if known.len() > 20_000 {
            known.clear();
        }
        match domain::mark_of(conn, uuid) {
            Ok(mark) => *known.entry(uuid).or_insert(mark.is_some_and(|m| m.installation == self.installation)),
            Err(_) => true,
        }
    }

    fn say(&self, event: HostEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

fn close_reason(reason: i32) -> &'static str {
    match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "libvirt closed the connection",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "libvirt stopped answering",
        _ => "the connection to libvirt broke",
    }
}
