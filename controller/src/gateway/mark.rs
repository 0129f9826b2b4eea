//! Tells the officer at an endpoint that support looks at their session, and does what they say about it.
//!
//! The officer's *stop* waits for nothing: an assist this gateway carries is cut on their word, and written down
//! when the database can be asked. One that another gateway carries ends there, by the row or by its absence.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tram_wire::assist::{Assist as Shown, AssistAnswer, Stage};
use tram_wire::ids::{AssistId, SessionId};

use super::Gateway;
use super::link::Link;
use crate::domain::session::Cut;
use crate::services::assists::desk::{self, Seat};

/// Stopped assists that may wait for a database.
const MOST: usize = 4096;

/// Assists whose officer stopped them at an endpoint: which session's, and the endpoint's address.
#[derive(Default)]
pub(super) struct Stopped(Mutex<HashMap<AssistId, (SessionId, String)>>);

impl Stopped {
    fn map(&self) -> MutexGuard<'_, HashMap<AssistId, (SessionId, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this session's officer stopped it.
    pub(super) fn has(&self, id: AssistId, session: SessionId) -> bool {
        self.map().get(&id).is_some_and(|(of, _)| *of == session)
    }

    /// `false` if it is known already, or more are known than a gateway carries.
    fn put(&self, id: AssistId, session: SessionId, ip: String) -> bool {
        let mut map = self.map();
        map.len() < MOST && map.insert(id, (session, ip)).is_none()
    }
}

impl Gateway {
    /// Writes down on each endpoint's connection what its officer is to be shown.
    pub(super) async fn mark(&self) {
        let links = self.0.tunnels.links();
        if links.is_empty() {
            return;
        }
        match desk::shown(&self.0.app).await {
            Ok(mut all) => {
                for link in links {
                    let shown = all.remove(&link.session);
                    // What the officer stopped is over for them, whenever the database hears of it.
                    link.mark(shown.filter(|s| !self.0.stopped.has(s.assist, link.session)));
                }
            }
            // What is on the screen stays; assists themselves are ended where they are carried.
            Err(e) => tracing::warn!(error = %e, "the gateway could not look at its assists"),
        }
    }

    /// The officer answers at their endpoint.
    pub(super) async fn answered(&self, link: &Link, ip: String, said: AssistAnswer) {
        let seat = Seat { session: link.session, epoch: link.epoch(), ip };
        if let Err(e) = desk::say(&self.0.app, &seat, said).await {
            tracing::info!(session = %link.session, assist = %said.assist, error = %e, "an officer's answer changed nothing");
        }
    }

    /// Whether the endpoint's screen can show that somebody looks.
    pub(super) async fn shows_assists(&self, link: &Link, ip: String, shown: bool) {
        let seat = Seat { session: link.session, epoch: link.epoch(), ip };
        if let Err(e) = desk::can_show(&self.0.app, &seat, shown).await {
            tracing::warn!(session = %link.session, error = %e, "what an endpoint can show could not be written down");
        }
    }

    /// The officer stops an assist: its display is cut here and now. `false` if they said so before.
    pub(super) fn stop_assist(&self, link: &Link, ip: String, id: AssistId) -> bool {
        let news = self.0.stopped.put(id, link.session, ip);
        self.0.assists.cut(id, link.session, Cut::Ended);
        if link.shown().is_some_and(|s| s.assist == id) {
            link.mark(None);
        }
        news
    }

    /// Writes down what officers stopped, as far as the database can be asked.
    pub(super) async fn say_stopped(&self) {
        let all: Vec<_> = self.0.stopped.map().iter().map(|(id, s)| (*id, s.clone())).collect();
        for (id, (session, ip)) in all {
            match desk::stop(&self.0.app, session, id, &ip).await {
                Ok(()) => {
                    self.0.stopped.map().remove(&id);
                }
                Err(e) => {
                    tracing::warn!(session = %session, assist = %id, error = %e, "a stopped assist could not be written down");
                }
            }
        }
    }
}

/// What an endpoint is told of a change; an assist that is gone is over.
pub(super) fn news(before: Option<Shown>, now: Option<Shown>) -> Option<Shown> {
    match (before, now) {
        (_, Some(now)) => Some(now),
        (Some(gone), None) => Some(Shown { stage: Stage::Over, left_s: 0, ..gone }),
        (None, None) => None,
    }
}
