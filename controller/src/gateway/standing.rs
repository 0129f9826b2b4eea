//! This gateway among the others: its signs of life, being emptied, and its sessions after the database was away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::timeout;
use uuid::Uuid;

use super::Gateway;
use super::link::Link;
use crate::domain::gateway::BEAT;
use crate::domain::session::{Cut, SessionState, Standing};
use crate::nudge::Kind;
use crate::services::gateways::Load;
use crate::services::{Result, gateways};

/// A sign of life that failed is repeated this soon.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two viewers that are sent elsewhere: their return costs the others something.
const ONE_BY_ONE: Duration = Duration::from_millis(20);
/// How long the last word to the database may take.
const FAREWELL: Duration = Duration::from_secs(2);

impl Gateway {
    /// This process among the gateways.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0.id
    }

    /// Makes it known: from here on connections are sent to it.
    ///
    /// # Errors
    /// Only those of the store.
    pub async fn enter(&self) -> Result<()> {
        match &self.0.me {
            Some(me) => gateways::enter(&self.0.app, self.0.id, me).await,
            None => Ok(()),
        }
    }

    /// Whether it takes nothing new.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst) || self.0.draining.load(Ordering::SeqCst)
    }

    /// Whether the database did not answer last time.
    #[must_use]
    pub fn away(&self) -> bool {
        self.0.away.load(Ordering::SeqCst)
    }

    /// The last sign of life: nothing new is sent here.
    pub(super) async fn leave(&self) {
        if self.0.me.is_none() {
            return;
        }
        let said = timeout(FAREWELL, gateways::leave(&self.0.app, self.0.id)).await;
        if !matches!(said, Ok(Ok(()))) {
            tracing::warn!("the gateway could not say that it stops; it will be missed after a while");
        }
    }

    /// Says that it lives. Runs until dropped.
    pub(super) async fn live(&self) {
        let mut changes = self.0.app.store.bus().listen();
        loop {
            let wait = if self.beat().await { BEAT } else { AGAIN };
            let due = tokio::time::sleep(wait);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    change = changes.recv() => match change {
                        Ok(c) if c.kind == Kind::Gateway && c.id == self.0.id => break,
                        Ok(_) => {}
                        // The timer does.
                        Err(_) => {
                            due.as_mut().await;
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn beat(&self) -> bool {
        if self.0.stopping.load(Ordering::SeqCst) {
            return true;
        }
        let load = Load { connections: self.connections() + self.assists(), untold: self.untold().await };
        let told = self.0.told.load(Ordering::SeqCst);
        let said = match &self.0.me {
            Some(me) => gateways::beat(&self.0.app, self.0.id, me, load).await,
            // Once more than it has something to tell, or it would seem to have it for ever.
            None if load.connections + load.untold > 0 || !told => {
                gateways::alive(&self.0.app, self.0.id, load.untold).await.map(|()| false)
            }
            None => Ok(false),
        };
        if said.is_ok() {
            self.0.told.store(load.untold == 0, Ordering::SeqCst);
        }
        match said {
            Ok(draining) => {
                if self.0.away.swap(false, Ordering::SeqCst) {
                    tracing::info!("the database answers again");
                }
                self.follow(draining);
                true
            }
            Err(e) => {
                counter!("gateway_heartbeats_failed_total").increment(1);
                if !self.0.away.swap(true, Ordering::SeqCst) {
                    tracing::warn!(error = %e, "the database does not answer: who works goes on working, nobody new is let in");
                }
                false
            }
        }
    }

    /// Does what the operator wants: empty, or not.
    fn follow(&self, draining: bool) {
        gauge!("gateway_draining").set(f64::from(u8::from(draining)));
        if self.0.draining.swap(draining, Ordering::SeqCst) == draining {
            return;
        }
        tracing::info!(
            draining,
            connections = self.connections(),
            "an operator says whether this gateway is to be empty"
        );
        if draining {
            let gateway = self.clone();
            tokio::spawn(async move { gateway.empty().await });
        }
    }

    /// Sends every viewer elsewhere, one by one, as long as that is wanted.
    async fn empty(&self) {
        self.0.assists.cut_all(Cut::Restart);
        let links: Vec<Arc<Link>> = self.links().values().cloned().collect();
        for link in links {
            if !self.closed() {
                return;
            }
            link.cut(Cut::Restart);
            tokio::time::sleep(ONE_BY_ONE).await;
        }
        // Whoever was on the way in.
        self.links().values().for_each(|l| l.cut(Cut::Restart));
    }

    /// A connection that lives although its session was taken for disconnected: the database was away, or this
    /// process stood still, and gateways that say nothing are taken for dead.
    pub(super) async fn reclaim(&self, link: &Link, standing: Option<&Standing>) {
        let lost = standing.is_some_and(|s| s.state == SessionState::Disconnected && s.epoch == link.epoch());
        if !lost || !link.attached() {
            return;
        }
        match gateways::reclaim(&self.0.app, link.session, link.epoch(), self.0.id).await {
            Ok(true) => {
                counter!("gateway_reclaimed_total").increment(1);
                tracing::info!(session = %link.session, "a session that was taken for disconnected goes on");
            }
            Ok(false) => {}
            Err(e) => tracing::warn!(session = %link.session, error = %e, "a session could not be taken back"),
        }
    }
}
