//! Who is linked to this process, and when each was last heard. Memory only: the truth is the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tram_wire::ControllerMessage;
use tram_wire::ids::EndpointId;
use tram_wire::refusal::Refusal;

use crate::domain::copies::Known;
use crate::domain::endpoint::Pace;
use crate::domain::time::Time;
use crate::services::App;
use crate::store::endpoints::Heard;

/// No skew known yet.
const NO_SKEW: i64 = i64::MIN;
/// Messages waiting for one endpoint.
const ORDERS: usize = 8;

/// Links of one identity that are kept apart.
type KeptApart = Vec<(EndpointId, Arc<Live>)>;

/// All links of this process.
#[derive(Clone, Default)]
pub struct Registry {
    links: Arc<Mutex<HashMap<EndpointId, Arc<Live>>>>,
    /// Links of computers that show a quarantined identity. Few, and each may have many.
    apart: Arc<Mutex<KeptApart>>,
    expected: Arc<AtomicUsize>,
}

struct Live {
    heard_at: AtomicI64,
    skew_ms: AtomicI64,
    /// Its line is paid by the byte: it speaks rarely.
    metered: AtomicBool,
    cut: CancellationToken,
    why: Mutex<Option<Refusal>>,
    /// Boxed: a channel has room for 32 from the start.
    orders: mpsc::Sender<Box<ControllerMessage>>,
    since: Time,
    /// Who showed the identity so far, this link included.
    known: Known,
}

/// One link's place. Dropping it leaves, unless a newer link has taken over.
pub(super) struct Seat {
    registry: Registry,
    id: EndpointId,
    live: Arc<Live>,
    orders: tokio::sync::Mutex<mpsc::Receiver<Box<ControllerMessage>>>,
}

impl Registry {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<EndpointId, Arc<Live>>> {
        // No code below panics while it holds the lock; a poisoned map would still be whole.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are linked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// How many may come back after a restart: those linked here, or those known to be about, if more. While they
    /// are still coming, the first must not be told that they are few.
    #[must_use]
    pub fn expected(&self) -> usize {
        self.len().max(self.expected.load(Ordering::Relaxed))
    }

    /// So many endpoints are about.
    pub(super) fn about(&self, count: usize) {
        self.expected.store(count, Ordering::Relaxed);
    }

    /// Whether nobody is linked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a place. An older link of the same endpoint is told that it was superseded; one of another run is told to come
    /// back at once, for if its process still lives, there are two.
    pub(super) fn sit(&self, id: EndpointId, known: Known, now: Time) -> Seat {
        let (send, orders) = mpsc::channel(ORDERS);
        let live = Arc::new(Live {
            heard_at: AtomicI64::new(now.micros()),
            skew_ms: AtomicI64::new(NO_SKEW),
            metered: AtomicBool::new(false),
            cut: CancellationToken::new(),
            why: Mutex::new(None),
            orders: send,
            since: now,
            known,
        });
        let (older, count) = {
            let mut map = self.map();
            let older = map.insert(id, live.clone());
            (older, map.len())
        };
        if let Some(older) = older {
            let (a, b) = (&older.known.last.instance.nonce, &live.known.last.instance.nonce);
            let other_run = a != b && !a.is_empty() && !b.is_empty();
            older.end(if other_run { Refusal::Busy { retry_after_s: 1 } } else { Refusal::Superseded });
        }
        online(count);
        Seat { registry: self.clone(), id, live, orders: tokio::sync::Mutex::new(orders) }
    }

    /// Cuts the link of an endpoint, if it is here.
    pub(super) fn cut(&self, id: EndpointId, why: Refusal) {
        self.apart().iter().filter(|(a, _)| *a == id).for_each(|(_, live)| live.end(why.clone()));
        if let Some(live) = self.map().get(&id) {
            live.end(why);
        }
    }

    /// Takes a place beside the others: this computer shows an identity that is in quarantine.
    pub(super) fn sit_apart(&self, id: EndpointId, now: Time) -> Apart {
        let (orders, _) = mpsc::channel(1);
        let live = Arc::new(Live {
            heard_at: AtomicI64::new(now.micros()),
            skew_ms: AtomicI64::new(NO_SKEW),
            metered: AtomicBool::new(false),
            cut: CancellationToken::new(),
            why: Mutex::new(None),
            orders,
            since: now,
            known: Known::default(),
        });
        self.apart().push((id, live.clone()));
        Apart { registry: self.clone(), live }
    }

    /// Who showed an identity, if it is linked here: newer than what the database knows.
    pub(super) fn known(&self, id: EndpointId) -> Option<Known> {
        self.map().get(&id).map(|live| live.known.clone())
    }

    /// Ends links of an endpoint that are older than a decision about it; they come back at once.
    pub(super) fn begin_anew(&self, id: EndpointId, decided: Time) {
        let why = Refusal::Busy { retry_after_s: 1 };
        let old = |live: &Live| live.since < decided;
        self.apart().iter().filter(|(a, live)| *a == id && old(live)).for_each(|(_, live)| live.end(why.clone()));
        if let Some(live) = self.map().get(&id).filter(|live| old(live)) {
            live.end(why);
        }
    }

    fn apart(&self) -> std::sync::MutexGuard<'_, Vec<(EndpointId, Arc<Live>)>> {
        // As above.
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an endpoint something. `false` if it isn't linked here, or doesn't take what it was told before.
    pub(super) fn tell(&self, id: EndpointId, message: ControllerMessage) -> bool {
        let map = self.map();
        let Some(live) = map.get(&id) else { return false };
        if let ControllerMessage::Plan(plan) = &message {
            live.metered.store(plan.metered, Ordering::Relaxed);
        }
        live.orders.try_send(Box::new(message)).is_ok()
    }

    /// Whether an endpoint is linked here.
    pub(super) fn has(&self, id: EndpointId) -> bool {
        self.map().contains_key(&id)
    }

    /// Who is linked here.
    pub(super) fn ids(&self) -> Vec<EndpointId> {
        self.map().keys().copied().collect()
    }

    /// Who was heard since `since`.
    pub(super) fn heard_since(&self, since: Time) -> Vec<Heard> {
        let entry = |(id, live): (&EndpointId, &Arc<Live>)| Heard {
            id: *id,
            at: Time::from_micros(live.heard_at.load(Ordering::Relaxed)),
            skew_ms: live.skew(),
        };
        self.map().iter().map(entry).filter(|h| h.at > since).collect()
    }
}

impl Live {
    fn end(&self, why: Refusal) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.cut.cancel();
    }

    async fn ended(&self) -> Refusal {
        self.cut.cancelled().await;
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(Refusal::Other)
    }

    fn skew(&self) -> Option<i64> {
        Some(self.skew_ms.load(Ordering::Relaxed)).filter(|s| *s != NO_SKEW)
    }
}

impl Seat {
    /// The endpoint was heard.
    pub(super) fn heard(&self, now: Time, skew_ms: Option<i64>) {
        self.live.heard_at.store(now.micros(), Ordering::Relaxed);
        if let Some(skew) = skew_ms {
            self.live.skew_ms.store(skew, Ordering::Relaxed);
        }
    }

    /// Its plan says whether its line is paid by the byte.
    pub(super) fn planned(&self, metered: bool) {
        self.live.metered.store(metered, Ordering::Relaxed);
    }

    /// How long it may say nothing.
    pub(super) fn patience(&self, pace: Pace) -> Duration {
        if self.live.metered.load(Ordering::Relaxed) { pace.metered().silent_within() } else { pace.silent_within() }
    }

    /// When it was last heard.
    pub(super) fn last_heard(&self) -> Time {
        Time::from_micros(self.live.heard_at.load(Ordering::Relaxed))
    }

    /// Its clock less ours.
    pub(super) fn skew_ms(&self) -> Option<i64> {
        self.live.skew()
    }

    /// Waits for something to tell the endpoint. Safe to drop half-way.
    pub(super) async fn told(&self) -> ControllerMessage {
        match self.orders.lock().await.recv().await {
            Some(message) => *message,
            // The seat itself holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Waits until somebody cuts the link, and why.
    pub(super) async fn cut(&self) -> Refusal {
        self.live.ended().await
    }
}

/// The place of a computer that shows a quarantined identity.
pub(super) struct Apart {
    registry: Registry,
    live: Arc<Live>,
}

impl Apart {
    /// Waits until somebody cuts the link, and why.
    pub(super) async fn cut(&self) -> Refusal {
        self.live.ended().await
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.registry.apart().retain(|(_, live)| !Arc::ptr_eq(live, &self.live));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let count = {
            let mut map = self.registry.map();
            if map.get(&self.id).is_some_and(|l| Arc::ptr_eq(l, &self.live)) {
                map.remove(&self.id);
            }
            map.len()
        };
        online(count);
    }
}

fn online(count: usize) {
    gauge!("endpoints_online").set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

/// How often revocations made by another process are looked for; ours nudge.
const POLL: Duration = Duration::from_secs(1);
/// Looks back this far, for clocks of other controllers that differ and commits that take long.
const OVERLAP: Duration = Duration::from_secs(120);

/// Cuts the links of endpoints that were withdrawn, and begins those anew whose quarantine began or ended, on any
/// controller or at a shell, within two seconds.
pub(super) async fn watch_revocations(app: &App, registry: &Registry) {
    loop {
        if !registry.is_empty() || !registry.apart().is_empty() {
            let since = app.clock.now().minus(OVERLAP);
            match app.store.endpoints_revoked_since(since).await {
                Ok(ids) => ids.into_iter().for_each(|id| registry.cut(id, Refusal::Revoked)),
                Err(e) => tracing::warn!(error = %e, "revocations could not be read"),
            }
            match app.store.endpoints_settled_since(since).await {
                Ok(rows) => rows.into_iter().for_each(|(id, at)| registry.begin_anew(id, at)),
                Err(e) => tracing::warn!(error = %e, "quarantines could not be read"),
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> EndpointId {
        EndpointId(uuid::Uuid::from_u128(n))
    }

    fn at(s: i64) -> Time {
        Time::from_micros(s * 1_000_000)
    }

    #[tokio::test]
    async fn a_newer_link_takes_over_and_the_older_ones_end_does_not_unseat_it() {
        let r = Registry::default();
        let old = r.sit(id(1), Known::default(), at(1));
        let new = r.sit(id(1), Known::default(), at(2));
        assert_eq!(old.cut().await, Refusal::Superseded);
        drop(old);
        assert_eq!(r.len(), 1);
        drop(new);
        assert!(r.is_empty());
    }

    #[tokio::test]
    async fn a_cut_reaches_only_the_one_meant() {
        let r = Registry::default();
        let (a, b) = (r.sit(id(1), Known::default(), at(1)), r.sit(id(2), Known::default(), at(1)));
        r.cut(id(1), Refusal::Revoked);
        r.cut(id(3), Refusal::Revoked);
        assert_eq!(a.cut().await, Refusal::Revoked);
        assert!(tokio::time::timeout(Duration::from_millis(20), b.cut()).await.is_err());
    }

    #[test]
    fn only_who_was_heard_is_written_again() {
        let r = Registry::default();
        let (a, _b) = (r.sit(id(1), Known::default(), at(1)), r.sit(id(2), Known::default(), at(1)));
        a.heard(at(9), Some(-5));
        assert_eq!(r.heard_since(at(5)), [Heard { id: id(1), at: at(9), skew_ms: Some(-5) }]);
    }

    #[tokio::test]
    async fn computers_apart_do_not_push_each_other_and_a_decision_ends_them_all() {
        let r = Registry::default();
        let (a, b) = (r.sit_apart(id(1), at(1)), r.sit_apart(id(1), at(2)));
        assert!(r.is_empty(), "nothing is asked of them");
        r.begin_anew(id(1), at(2));
        assert_eq!(a.cut().await, Refusal::Busy { retry_after_s: 1 });
        assert!(tokio::time::timeout(Duration::from_millis(20), b.cut()).await.is_err(), "it began after that");
        r.cut(id(1), Refusal::Revoked);
        assert_eq!(b.cut().await, Refusal::Revoked);
        drop((a, b));
        assert!(r.apart().is_empty());
    }
}
