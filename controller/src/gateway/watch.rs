//! Watching over all connections: what the database, an operator or the clock says of them.

use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::broadcast::error::RecvError;
use tram_wire::ids::SessionId;

use super::link::Link;
use super::{Gateway, canonical, kernel};
use crate::domain::copies::OpenSession;
use crate::domain::session;
use crate::nudge::{Change, Kind};
use crate::services::broker;
use crate::store::StoreError;

/// How often all connections are looked at when nothing was nudged.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Nudges within this time lead to one look.
pub(super) const GATHER: Duration = Duration::from_millis(50);
/// Looks back this far, for clocks of other controllers that differ and commits that take long.
const REVOKED_WITHIN: Duration = Duration::from_secs(120);

impl Gateway {
    /// Watches over all connections: cuts those whose session, user or desktop says so, and those over a
    /// limit. Runs until dropped.
    pub async fn watch(&self) {
        tokio::join!(self.watch_links(), self.watch_sessions(), self.watch_assists(), self.watch_leases(), self.live());
    }

    /// Signs of life and limits, which need no database.
    async fn watch_links(&self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let links: Vec<Arc<Link>> = self.links().values().cloned().collect();
            gauge!("gateway_connections").set(links.len() as f64);
            for link in &links {
                if let Some(cut) = link.look(&self.0.policy) {
                    link.cut(cut);
                }
            }
        }
    }

    async fn watch_sessions(&self) {
        let mut changes = self.0.app.store.bus().listen();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                change = changes.recv() => match change {
                    Ok(c) if self.concerns(c) => tokio::time::sleep(GATHER).await,
                    Ok(_) => continue,
                    Err(RecvError::Lagged(_)) => {}
                    // The bus lives as long as the store; the timer goes on in any case.
                    Err(RecvError::Closed) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
            self.look().await;
        }
    }

    fn concerns(&self, c: Change) -> bool {
        let links = self.links();
        match c.kind {
            Kind::Session => links.contains_key(&SessionId(c.id)),
            Kind::Desktop => links.values().any(|l| l.desktop.0 == c.id),
            _ => false,
        }
    }

    async fn look(&self) {
        if !self.say_late().await {
            // What comes later must not be written before what came first.
            return;
        }
        let links: Vec<Arc<Link>> = self.links().values().cloned().collect();
        self.look_at_lines(&links).await;
        if links.is_empty() {
            return;
        }
        self.look_at_endpoints().await;
        match broker::standings(&self.0.app, links.iter().map(|l| l.session).collect()).await {
            Ok(standings) => {
                for link in &links {
                    let standing = standings.get(&link.session);
                    match session::verdict(link.epoch(), standing) {
                        Some(cut) => link.cut(cut),
                        None => self.reclaim(link, standing).await,
                    }
                }
                self.warn(&links, &standings).await;
                self.mark().await;
                let due: Vec<_> = links.iter().filter(|l| l.tell_due()).collect();
                if !due.is_empty() {
                    let known = kernel().await;
                    for link in due {
                        let line = link.peer().and_then(|peer| known.get(&canonical(peer)).copied());
                        self.tell(link, line).await;
                    }
                }
            }
            // Without a database nobody is let in, but who works goes on working.
            Err(e) => tracing::warn!(error = %e, "the gateway could not look at its sessions"),
        }
    }

    /// Cuts the tunnels of endpoints an operator withdrew, on any controller; and, if that is the policy, of those whose
    /// identity several computers show.
    async fn look_at_endpoints(&self) {
        if self.0.tunnels.is_empty() {
            return;
        }
        let (store, since) = (&self.0.app.store, self.0.app.clock.now().minus(REVOKED_WITHIN));
        let look = async {
            self.0.tunnels.cut_endpoints(&store.endpoints_revoked_since(since).await?);
            if self.0.policy.quarantine == OpenSession::IsCut {
                self.0.tunnels.cut_endpoints(&store.endpoints_quarantined_since(since).await?);
            }
            Ok::<_, StoreError>(())
        };
        if let Err(e) = look.await {
            tracing::warn!(error = %e, "the gateway could not look at its endpoints");
        }
    }
}
