//! Leases at the gateway: who is let in while the database can't be asked, and what becomes of it afterwards.
//!
//! ```text
//! lease ─► signature, endpoint, certificate, time ─► database: yes ─► as by ticket
//!                                                           ├─ no ──► refused
//!                                                           └─ away ► among the last known? desktop unchanged,
//!                                                                     nobody else there? kept on disk ─► let in
//! ```
//! While the database answers, everything that would open something is looked at every few seconds ([`Seen`]): what
//! is not among it opens nothing when the database is gone, unless it was signed after that look. Time is the
//! database's, counted on by this process's monotonic clock; the wall clock does not matter.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, timeout};
use tram_hypervisor::Power;
use tram_wire::ids::SessionId;
use tram_wire::lease::{Lease, Signed};
use tram_wire::session::Denial;
use uuid::Uuid;

use super::Gateway;
use super::link::Link;
use super::spool::Spool;
use super::tunnel::Caller;
use crate::domain::lease::{self, Event, Fault, Shown, What};
use crate::domain::policy::SessionPolicy;
use crate::domain::session::Cut;
use crate::domain::ticket::{Binding, Protocols};
use crate::domain::time::Time;
use crate::identity::lease_keys::{self, PublicKeys};
use crate::identity::secret::Secret;
use crate::services::leases::{self, At, Carried};
use crate::services::{Error, tunnels};
use crate::store::leases::Sight;

/// Between two looks at what would be good.
const LOOK: Duration = Duration::from_secs(3);
/// Between two questions whether the database is back.
const AGAIN: Duration = Duration::from_secs(1);
/// The database is asked this long.
const ASK: Duration = Duration::from_secs(3);
/// It must have been away for this long: a hiccup is no outage.
const OUTAGE: Duration = Duration::from_secs(3);
/// A lease signed this long before the last look may have been written just behind it.
const SLACK: Duration = Duration::from_secs(2);
/// The hypervisor is asked this long.
const HOST: Duration = Duration::from_secs(5);

/// Epoch of a connection the database has not heard of: later than any it knows.
pub(super) const UNWRITTEN: i64 = i64::MAX;

/// What was seen while the database answered.
struct Seen {
    sight: Sight,
    keys: PublicKeys,
    at: Instant,
}

impl Seen {
    /// The database's time now.
    fn now(&self) -> Time {
        self.sight.now.plus(self.at.elapsed())
    }

    /// Whether a lease was good when the database was last asked, or is newer than that.
    fn knows(&self, lease: &Lease) -> bool {
        let newer = lease::at(lease.issued_ms) > self.sight.now.minus(SLACK);
        self.sight.live.contains(&lease.id) || newer && !self.sight.void.contains(&lease.id)
    }
}

/// A connection that was let in without the database, until the database knows of it.
#[derive(Clone)]
struct Held {
    link: Arc<Link>,
    caller: Caller,
    lease: Lease,
    token: [u8; 32],
    from: Time,
    up: u64,
    down: u64,
}

/// All of this.
pub(super) struct Leases {
    seen: Mutex<Option<Seen>>,
    /// Since when the database has not answered.
    away: Mutex<Option<Instant>>,
    held: Mutex<HashMap<SessionId, Held>>,
    spool: Arc<Spool>,
}

/// A way in by lease.
pub(super) struct Way {
    pub(super) session: SessionId,
    pub(super) lease: Lease,
    pub(super) epoch: i64,
    pub(super) protocols: Protocols,
    pub(super) policy: SessionPolicy,
    pub(super) token: Secret,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leases {
    pub(super) fn new(data: &std::path::Path) -> Self {
        Self {
            seen: Mutex::default(),
            away: Mutex::default(),
            held: Mutex::default(),
            spool: Arc::new(Spool::new(data)),
        }
    }
}

impl Gateway {
    fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// What happened by lease without the database and is not written down yet: connections and events.
    pub(super) async fn untold(&self) -> usize {
        let spool = self.leases().spool.clone();
        let kept = blocking(move || spool.waiting()).await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "events by lease can't be counted");
            0
        });
        kept + lock(&self.leases().held).len()
    }

    /// When the database was last asked what would be good, by its own clock.
    #[must_use]
    pub fn leases_seen_at(&self) -> Option<Time> {
        lock(&self.leases().seen).as_ref().map(|s| s.sight.now)
    }

    /// Looks at what would be good, and writes down what happened meanwhile. Runs until dropped.
    pub(super) async fn watch_leases(&self) {
        loop {
            let wait = if self.see().await {
                self.catch_up().await;
                LOOK
            } else {
                AGAIN
            };
            self.end_what_is_over();
            tokio::time::sleep(wait).await;
        }
    }

    /// One look; whether the database answered.
    async fn see(&self) -> bool {
        let asked = Instant::now();
        match timeout(ASK, leases::sight(&self.0.app)).await {
            Ok(Ok(sight)) => {
                let keys = sight.keys.iter().cloned().collect();
                // Counted from before the question: this clock may be behind the database's, never before it.
                *lock(&self.leases().seen) = Some(Seen { sight, keys, at: asked });
                *lock(&self.leases().away) = None;
                gauge!("gateway_database_away").set(0.0);
                true
            }
            Ok(Err(Error::Unavailable(..))) | Err(_) => {
                lock(&self.leases().away).get_or_insert(asked);
                gauge!("gateway_database_away").set(1.0);
                false
            }
            Ok(Err(e)) => {
                tracing::error!(error = %e, "leases could not be looked at");
                false
            }
        }
    }

    /// Judges a lease and lets its endpoint in, if it may.
    pub(super) async fn by_lease(&self, caller: Caller, signed: &Signed) -> Result<Way, Denial> {
        if lock(&self.leases().seen).is_none() && !self.see().await {
            // A gateway that never saw the database knows nobody.
            return Err(Denial::Unavailable);
        }
        let mut proved = self.prove(caller, signed);
        if proved == Err(Fault::Key) && self.see().await {
            // A key that was made a moment ago.
            proved = self.prove(caller, signed);
        }
        let lease = match proved {
            Ok(lease) => lease,
            // What nobody signed says nothing about whose it is.
            Err(f @ (Fault::Key | Fault::Signature | Fault::Garbled)) => {
                return Err(self.refuse(caller, None, f).await);
            }
            Err(fault) => {
                let said = signed.unproved().ok();
                return Err(self.refuse(caller, said.as_ref(), fault).await);
            }
        };
        let ip = caller.peer.ip().to_string();
        let entered = match timeout(ASK, leases::enter(&self.0.app, &lease, self.at(caller, &ip))).await {
            Ok(Ok(Ok(e))) => {
                counter!("gateway_leases_total", "result" => "database").increment(1);
                let (session, epoch) = (lease.session, e.epoch);
                return Ok(Way { session, lease, epoch, protocols: e.protocols, policy: e.policy, token: e.token });
            }
            Ok(Ok(Err(fault))) => Err(fault),
            Ok(Err(Error::Unavailable(..))) | Err(_) => {
                if lock(&self.leases().away).is_none_or(|since| since.elapsed() < OUTAGE) {
                    return Err(Denial::Unavailable);
                }
                self.without_database(caller, &lease).await
            }
            Ok(Err(e)) => {
                tracing::error!(error = %e, "a lease could not be looked up");
                return Err(Denial::Unavailable);
            }
        };
        if let Err(fault) = entered {
            return Err(self.refuse(caller, Some(&lease), fault).await);
        }
        self.let_in(caller, lease, ip).await
    }

    fn prove(&self, caller: Caller, signed: &Signed) -> Result<Lease, Fault> {
        let seen = lock(&self.leases().seen);
        let seen = seen.as_ref().ok_or(Fault::Key)?;
        let lease = lease_keys::prove(signed, &seen.keys)?;
        if self.0.policy.lease.is_zero() {
            return Err(Fault::Off);
        }
        let shown = Shown {
            installation: self.0.app.installation,
            endpoint: caller.endpoint,
            certificate: caller.certificate,
            now: seen.now(),
        };
        lease::fits(&lease, &shown).map(|()| lease)
    }

    /// What the database would have been asked, as far as it can be known without it.
    async fn without_database(&self, caller: Caller, lease: &Lease) -> Result<(), Fault> {
        if !lock(&self.leases().seen).as_ref().is_some_and(|s| s.knows(lease)) {
            return Err(Fault::Withdrawn);
        }
        let own = self.link_of(caller, lease.session);
        let other = |l: &Arc<Link>| {
            (l.session == lease.session || l.desktop == lease.desktop)
                && !own.as_ref().is_some_and(|o| Arc::ptr_eq(o, l))
        };
        if self.links().values().any(other) {
            return Err(Fault::Elsewhere);
        }
        let backend = self.0.fleet.get(lease.host).ok_or(Fault::Stopped)?;
        match timeout(HOST, backend.observe(lease.desktop)).await {
            Ok(Ok(o)) if o.power != Some(Power::Running) => Err(Fault::Stopped),
            // Nobody else's: a desktop is made anew before it is given to somebody else.
            Ok(Ok(o)) if o.disk_generation != Some(lease.generation) => Err(Fault::Remade),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Fault::Stopped),
        }
    }

    /// Keeps on disk that somebody comes in, then lets them.
    async fn let_in(&self, caller: Caller, lease: Lease, ip: String) -> Result<Way, Denial> {
        let now = self.database_time();
        let event = self.event(caller, Some(&lease), now, What::Entered);
        if let Err(e) = self.keep(event).await {
            // Nobody comes in unseen.
            tracing::error!(error = %e, "that somebody comes in by a lease could not be kept");
            return Err(Denial::Unavailable);
        }
        counter!("gateway_leases_total", "result" => "outage").increment(1);
        tracing::warn!(session = %lease.session, user = lease.username, ip, "let in by a lease: the database is away");
        let limits = lease.limits;
        let policy = SessionPolicy {
            idle_s: limits.idle_s,
            clipboard: limits.clipboard,
            audio: limits.audio,
            kbit: limits.kbit,
            ..SessionPolicy::default()
        };
        Ok(Way {
            session: lease.session,
            epoch: UNWRITTEN,
            protocols: self.protocols(caller),
            policy,
            token: Secret::generate(tunnels::RETURN_PREFIX),
            lease,
        })
    }

    /// The link of somebody who came in by lease is there. While the database knows nothing of it, it is held.
    pub(super) fn hold(&self, caller: Caller, link: &Arc<Link>, lease: Lease, token: &Secret) {
        link.found(lease.host.0);
        // Among the sessions of its site, whose budget is what was known last.
        link.sit(self.0.shaper.site(&lease.site, None));
        link.follow(Duration::from_secs(lease.limits.idle_s), None);
        if link.epoch() != UNWRITTEN {
            return;
        }
        let held = Held {
            link: link.clone(),
            caller,
            token: token.hashed(),
            from: self.database_time(),
            up: 0,
            down: 0,
            lease,
        };
        let former = lock(&self.leases().held).insert(link.session, held);
        // The same endpoint came anew, by the same lease.
        if let Some(former) = former {
            let event = self.left_event(&former, Cut::TakenOver.code().to_string());
            let gateway = self.clone();
            tokio::spawn(async move { gateway.keep(event).await });
        }
    }

    /// Counts what a held connection carried. `false` if it is none.
    pub(super) fn count_held(&self, link: &Link, up: u64, down: u64) -> bool {
        let mut held = lock(&self.leases().held);
        match held.get_mut(&link.session).filter(|h| std::ptr::eq(&*h.link, link)) {
            Some(h) => {
                (h.up, h.down) = (h.up + up, h.down + down);
                true
            }
            None => false,
        }
    }

    /// A connection is over: if the database never heard of it, that is kept.
    pub(super) async fn let_go(&self, link: &Arc<Link>) {
        let Some(held) = self.take_held(link) else { return };
        let why = link.cut_already().map_or(1000, Cut::code).to_string();
        let event = self.left_event(&held, why);
        if let Err(e) = self.keep(event).await {
            tracing::error!(error = %e, "the end of a connection by lease could not be kept");
        }
    }

    fn left_event(&self, held: &Held, why: String) -> Event {
        let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let what = What::Left { from: held.from.micros(), why, up: bytes(held.up), down: bytes(held.down) };
        self.event(held.caller, Some(&held.lease), self.database_time(), what)
    }

    /// A lease is over for whoever came in by it, as long as the database does not say otherwise.
    fn end_what_is_over(&self) {
        let now = self.database_time();
        for held in lock(&self.leases().held).values() {
            if now >= lease::at(held.lease.expires_ms) {
                held.link.cut(Cut::Limit);
            }
        }
    }

    /// The database is back: what happened is written down, and who may not go on is cut.
    async fn catch_up(&self) {
        self.tell_events().await;
        let held: Vec<Held> = lock(&self.leases().held).values().cloned().collect();
        for one in held {
            let carried = Carried {
                lease: one.lease.id,
                session: one.lease.session,
                protocols: self.protocols(one.caller),
                token: one.token,
            };
            let ip = one.caller.peer.ip().to_string();
            match leases::adopt(&self.0.app, &carried, self.at(one.caller, &ip)).await {
                Ok(Ok(epoch)) => {
                    // From here on it is a connection like any other.
                    one.link.renewed(epoch);
                    self.seat(&one.link).await;
                    let gone = self.take_held(&one.link);
                    let event = self.left_event(gone.as_ref().unwrap_or(&one), "back".into());
                    if let Err(e) = self.keep(event).await {
                        tracing::error!(error = %e, "that the database is back could not be kept");
                    }
                }
                Ok(Err(cut)) => {
                    tracing::warn!(session = %one.lease.session, ?cut, "who came in by a lease may not go on");
                    one.link.cut(cut);
                }
                Err(e) => tracing::warn!(error = %e, "a connection by lease could not be written down yet"),
            }
        }
        self.tell_events().await;
    }

    fn take_held(&self, link: &Arc<Link>) -> Option<Held> {
        let mut held = lock(&self.leases().held);
        let ours = held.get(&link.session).is_some_and(|h| Arc::ptr_eq(&h.link, link));
        if ours { held.remove(&link.session) } else { None }
    }

    async fn tell_events(&self) {
        let spool = self.leases().spool.clone();
        let events = match blocking(move || spool.read()).await {
            Ok(events) if events.is_empty() => return gauge!("gateway_lease_events_waiting").set(0.0),
            Ok(events) => events,
            Err(e) => return tracing::error!(error = %e, "events by lease can't be read"),
        };
        gauge!("gateway_lease_events_waiting").set(events.len() as f64);
        let mut done = HashSet::new();
        for event in &events {
            match leases::take_in(&self.0.app, event).await {
                Ok(new) => {
                    done.insert(event.id);
                    counter!("gateway_lease_events_told_total").increment(u64::from(new));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "what happened by lease can't be written down yet");
                    break;
                }
            }
        }
        let spool = self.leases().spool.clone();
        if !done.is_empty()
            && let Err(e) = blocking(move || spool.forget(&done)).await
        {
            tracing::error!(error = %e, "events by lease that were written down could not be let go of");
        }
    }

    /// What the agent is told. The reason is for the audit.
    async fn refuse(&self, caller: Caller, lease: Option<&Lease>, why: Fault) -> Denial {
        counter!("gateway_leases_refused_total", "reason" => why.as_str()).increment(1);
        tracing::info!(endpoint = %caller.endpoint, peer = %caller.peer, reason = why.as_str(), "a lease was refused");
        let event = self.event(caller, lease, self.database_time(), What::Refused { why });
        let away = lock(&self.leases().away).is_some();
        let noted = match away {
            true => self.keep(event).await,
            false => match timeout(ASK, leases::take_in(&self.0.app, &event)).await {
                Ok(Ok(_)) => Ok(()),
                // Whether it was written or not: its id says so the next time.
                _ => self.keep(event).await,
            },
        };
        if let Err(e) = noted {
            counter!("gateway_lease_events_lost_total").increment(1);
            tracing::warn!(error = %e, "a refused lease could not be kept");
        }
        match why {
            Fault::Elsewhere => Denial::Elsewhere,
            Fault::Stopped => Denial::Desktop,
            _ => Denial::Lease,
        }
    }

    async fn keep(&self, event: Event) -> std::io::Result<()> {
        let spool = self.leases().spool.clone();
        blocking(move || spool.append(&event)).await
    }

    fn event(&self, caller: Caller, lease: Option<&Lease>, at: Time, what: What) -> Event {
        let nil = Uuid::nil();
        Event {
            id: Uuid::now_v7(),
            at: at.micros(),
            lease: lease.map_or(nil.into(), |l| l.id),
            session: lease.map_or(nil.into(), |l| l.session),
            username: lease.map(|l| l.username.clone()).unwrap_or_default(),
            endpoint: caller.endpoint,
            desktop: lease.map(|l| l.desktop_name.clone()).unwrap_or_default(),
            gateway: self.0.id,
            ip: caller.peer.ip().to_string(),
            what,
        }
    }

    /// The database's time, as far as this process knows.
    fn database_time(&self) -> Time {
        lock(&self.leases().seen).as_ref().map_or_else(|| self.0.app.clock.now(), Seen::now)
    }

    fn at<'a>(&self, caller: Caller, ip: &'a str) -> At<'a> {
        At { endpoint: caller.endpoint, certificate: caller.certificate, gateway: self.0.id, ip }
    }

    fn protocols(&self, caller: Caller) -> Protocols {
        Binding::Endpoint { id: caller.endpoint, certificate: caller.certificate }.protocols()
    }
}

/// The disk is waited for beside everybody else's work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
}
