//! One live connection, as its relay and the watch over all of them see it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tram_wire::assist::Assist;
use tram_wire::ids::{DesktopId, SessionId};
use uuid::Uuid;

use super::limit::Bucket;
use super::meter::Meter;
use super::protocol::vnc::requests::Rights;
use super::shape::{Site, Taker};
use super::tcp::Segments;
use crate::domain::experience::{self, Experience, Sample};
use crate::domain::policy::SessionPolicy;
use crate::domain::session::{Cut, Limit, Policy};

mod room;

use self::room::Pressure;

/// How often a viewer is asked for a sign of life.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// How often what a connection feels like is written down, and how soon first.
const TELL_EVERY: Duration = Duration::from_secs(30);
const TELL_FIRST: Duration = Duration::from_secs(5);
/// A viewer from which nothing came for this long is gone.
const SILENCE: Duration = Duration::from_secs(50);
/// A viewer that took nothing of what was sent for this long is gone.
const STALL: Duration = Duration::from_secs(60);

/// Shared by the relay and the watch.
#[derive(Debug)]
pub struct Link {
    /// The session it belongs to.
    pub session: SessionId,
    /// The desktop it shows.
    pub desktop: DesktopId,
    /// Which connection of the session it is; a tunnel that comes back is the next one.
    epoch: AtomicI64,
    /// A viewer is there: its line is up.
    attached: AtomicBool,
    /// The desktop's host, once that was looked up.
    host: Mutex<Option<Uuid>>,
    began: Instant,
    rights: Mutex<Rights>,
    /// The limit that is near, and when it is reached.
    warning: Mutex<Option<(Limit, Instant)>>,
    /// What its officer is shown of an assist, at an endpoint.
    mark: watch::Sender<Option<Assist>>,
    /// Cap on what goes to the viewer.
    bucket: Mutex<Option<Bucket>>,
    /// The line it shares with others, and itself as one of them.
    site: OnceLock<Arc<Site>>,
    taker: Taker,
    pressure: Mutex<Pressure>,
    cut: watch::Sender<Option<Cut>>,
    /// Wakes the way down for what is due besides pictures.
    wake: Notify,
    ping_due: AtomicBool,
    /// Payload of the latest unanswered ping; older ones need no answer (RFC 6455, 5.5.3).
    pong: Mutex<Option<Vec<u8>>>,
    // Milliseconds since `began`.
    heard: AtomicU64,
    /// The session's own idle limit, milliseconds; 0: not known yet.
    idle_limit: AtomicU64,
    present: AtomicI64,
    input: AtomicU64,
    pinged: AtomicU64,
    /// When the write that is under way began, plus one; 0: none.
    writing: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    experience: Mutex<Experience>,
    meter: Mutex<Meter>,
    /// Where its viewer calls from.
    peer: Mutex<Option<SocketAddr>>,
    /// When the ping that has no answer yet was sent, plus one; 0: none.
    asked: AtomicU64,
    /// When what was felt was written down last.
    told: AtomicU64,
}

impl Link {
    /// A connection that begins now.
    #[must_use]
    pub fn new(session: SessionId, desktop: DesktopId, epoch: i64) -> Self {
        Self {
            session,
            desktop,
            epoch: AtomicI64::new(epoch),
            attached: AtomicBool::new(true),
            host: Mutex::default(),
            began: Instant::now(),
            rights: Mutex::default(),
            warning: Mutex::default(),
            mark: watch::Sender::new(None),
            bucket: Mutex::default(),
            site: OnceLock::new(),
            taker: Taker::default(),
            pressure: Mutex::default(),
            cut: watch::Sender::new(None),
            wake: Notify::new(),
            ping_due: AtomicBool::new(false),
            pong: Mutex::new(None),
            heard: AtomicU64::new(0),
            idle_limit: AtomicU64::new(0),
            present: AtomicI64::new(0),
            input: AtomicU64::new(0),
            pinged: AtomicU64::new(0),
            writing: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            experience: Mutex::default(),
            meter: Mutex::default(),
            peer: Mutex::default(),
            asked: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Which connection of the session it is.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The same, called from here.
    #[must_use]
    pub fn calling_from(self, peer: SocketAddr) -> Self {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        self
    }

    /// It is the session's latest connection again.
    pub fn renewed(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Its line came back, from here.
    pub fn came_back(&self, peer: SocketAddr) {
        self.attach(true);
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        self.meter().new_line();
        // That it came back is news.
        self.told.store(0, Ordering::Relaxed);
    }

    /// Where its viewer calls from, if that is known.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a viewer is there.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.attached.load(Ordering::SeqCst)
    }

    /// A viewer came or went.
    pub fn attach(&self, there: bool) {
        self.attached.store(there, Ordering::SeqCst);
    }

    /// Where its desktop is.
    pub fn found(&self, host: Uuid) {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host);
    }

    /// Where its desktop was when it was looked up last.
    #[must_use]
    pub fn host(&self) -> Option<Uuid> {
        *self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What its viewer may send to the desktop.
    #[must_use]
    pub fn rights(&self) -> Rights {
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes that, from the viewer's next message on.
    pub fn grant(&self, rights: Rights) {
        *self.rights.lock().unwrap_or_else(PoisonError::into_inner) = rights;
    }

    /// Notes which limit is near, and how far away.
    pub fn warn(&self, near: Option<(Limit, Duration)>) {
        let near = near.map(|(limit, left)| (limit, Instant::now() + left));
        *self.warning.lock().unwrap_or_else(PoisonError::into_inner) = near;
    }

    /// The limit that is near, and how far away it is now.
    #[must_use]
    pub fn warning(&self) -> Option<(Limit, Duration)> {
        let warning = *self.warning.lock().unwrap_or_else(PoisonError::into_inner);
        warning.map(|(limit, at)| (limit, at.saturating_duration_since(Instant::now())))
    }

    /// What the officer at an endpoint is to be shown of an assist. The seconds that pass are no news.
    pub fn mark(&self, shown: Option<Assist>) {
        let key = |a: &Option<Assist>| a.as_ref().map(|a| (a.assist, a.stage));
        self.mark.send_if_modified(|now| {
            let news = key(now) != key(&shown);
            *now = shown;
            news
        });
    }

    /// What they are shown.
    #[must_use]
    pub fn shown(&self) -> Option<Assist> {
        self.mark.borrow().clone()
    }

    /// The same, as it changes.
    #[must_use]
    pub fn marks(&self) -> watch::Receiver<Option<Assist>> {
        self.mark.subscribe()
    }

    /// Takes on what its session's policy says of the clipboard, of sound and of bandwidth.
    pub fn obey(&self, policy: &SessionPolicy) {
        self.grant(Rights::Own { clipboard: policy.clipboard, sound: policy.audio });
        *self.bucket() = policy.kbit.map(|kbit| Bucket::new(kbit, self.began.elapsed()));
    }

    fn bucket(&self) -> MutexGuard<'_, Option<Bucket>> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sits behind this line from now on.
    pub fn sit(&self, site: Arc<Site>) {
        // A session stays where it is: another place is another connection.
        let _ = self.site.set(site);
    }

    /// Ends the connection; the first reason counts.
    pub fn cut(&self, why: Cut) {
        self.cut.send_if_modified(|c| c.is_none() && c.replace(why).is_none());
    }

    /// Why it was ended, if it was.
    #[must_use]
    pub fn cut_already(&self) -> Option<Cut> {
        *self.cut.borrow()
    }

    /// Waits until somebody ends the connection.
    pub async fn cut_off(&self) -> Cut {
        let mut cut = self.cut.subscribe();
        let cause = cut.wait_for(Option::is_some).await.ok().and_then(|c| *c);
        // The sender lives in `self`, so waiting can't fail.
        cause.unwrap_or(Cut::Ended)
    }

    /// Something came from the viewer.
    pub fn heard(&self, bytes: usize) {
        self.heard.store(self.now(), Ordering::Relaxed);
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A person typed or moved the mouse, and the desktop is told.
    pub fn touched(&self) {
        self.attended();
        self.meter().typed(self.began.elapsed());
    }

    /// Somebody is there.
    fn attended(&self) {
        self.input.store(self.now(), Ordering::Relaxed);
    }

    /// Pixels went to the viewer; so many pictures ended with them.
    pub fn drew(&self, pictures: u32) {
        self.meter().drew(pictures, self.began.elapsed());
    }

    /// A write to the viewer begins.
    pub fn writing(&self) {
        self.writing.store(self.now() + 1, Ordering::Relaxed);
    }

    /// It is done.
    pub fn written(&self, bytes: usize) {
        let began = self.writing.swap(0, Ordering::Relaxed);
        let took = Duration::from_millis(self.now().saturating_sub(began.saturating_sub(1)));
        if began > 0 && took >= experience::STALL {
            self.feel(|e| e.written(took));
        }
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
        self.meter().sent(bytes);
        if let Some(bucket) = self.bucket().as_mut().filter(|_| bytes > 0) {
            bucket.spend(bytes, self.began.elapsed());
        }
    }

    /// The viewer asked for a sign of life.
    pub fn ponder(&self, ping: &[u8]) {
        *self.pong.lock().unwrap_or_else(PoisonError::into_inner) = Some(ping.to_vec());
        self.wake.notify_one();
    }

    /// Waits until a control frame is due.
    pub async fn control_due(&self) {
        self.wake.notified().await;
    }

    /// The answer that is due.
    pub fn take_pong(&self) -> Option<Vec<u8>> {
        self.pong.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a ping is due, once.
    pub fn take_ping(&self) -> bool {
        self.ping_due.swap(false, Ordering::Relaxed)
    }

    /// A ping leaves.
    pub fn asked(&self) {
        self.asked.store(self.now() + 1, Ordering::Relaxed);
    }

    /// Its answer came.
    pub fn answered(&self) {
        if let Some(at) = self.asked.swap(0, Ordering::Relaxed).checked_sub(1) {
            let rtt = Duration::from_millis(self.now().saturating_sub(at));
            self.feel(|e| e.round_trip(rtt));
        }
    }

    /// A display was opened for it; the first one counts.
    pub fn opened(&self, took: Duration) {
        self.feel(|e| {
            e.display_ms.get_or_insert(experience::millis(took));
        });
    }

    /// Changes what is known of how it feels.
    pub fn feel(&self, change: impl FnOnce(&mut Experience)) {
        change(&mut self.experience.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// How it feels, and how it did since the last time this was asked; `line` is what the kernel says of it.
    pub fn sample(&self, line: Option<Segments>) -> (Experience, Sample) {
        let mut e = self.experience.lock().unwrap_or_else(PoisonError::into_inner);
        let sample = self.meter().sample(&mut e, line, self.began.elapsed());
        (e.clone(), sample)
    }

    /// Whether how it feels should be written down again, once.
    #[must_use]
    pub fn tell_due(&self) -> bool {
        let now = self.now();
        let told = self.told.load(Ordering::Relaxed);
        let due = now.saturating_sub(told) >= experience::millis(if told == 0 { TELL_FIRST } else { TELL_EVERY });
        if due {
            self.told.store(now, Ordering::Relaxed);
        }
        due
    }

    /// Its session's own idle limit, and the officer's latest word that they are still there.
    pub fn follow(&self, idle: Duration, present_at: Option<i64>) {
        self.idle_limit.store(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let said = present_at.unwrap_or(0);
        // What was said before this connection is no news, and the first look tells what that was.
        if self.present.swap(said, Ordering::Relaxed) != said && said != 0 {
            self.attended();
        }
    }

    /// How long nobody has typed or moved the mouse.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.input.load(Ordering::Relaxed)))
    }

    fn idle_limit(&self, policy: &Policy) -> Duration {
        match self.idle_limit.load(Ordering::Relaxed) {
            0 => policy.idle,
            ms => Duration::from_millis(ms),
        }
    }

    /// Bytes from and to the viewer since the last call.
    pub fn take_bytes(&self) -> (u64, u64) {
        (self.up.swap(0, Ordering::Relaxed), self.down.swap(0, Ordering::Relaxed))
    }

    /// Bytes from and to the viewer.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    /// How long it has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// One look by the watch: asks for a sign of life when it is time, and says whether a limit is over.
    pub fn look(&self, policy: &Policy) -> Option<Cut> {
        self.look_at(policy, self.now())
    }

    fn look_at(&self, policy: &Policy, now: u64) -> Option<Cut> {
        let since = |at: &AtomicU64| Duration::from_millis(now.saturating_sub(at.load(Ordering::Relaxed)));
        let stalled = match self.writing.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            at => Duration::from_millis(now.saturating_sub(at - 1)),
        };
        if since(&self.heard) >= SILENCE || stalled >= STALL || since(&self.input) >= self.idle_limit(policy) {
            return Some(Cut::Limit);
        }
        if since(&self.pinged) >= PING_EVERY {
            self.pinged.store(now, Ordering::Relaxed);
            self.ping_due.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
        None
    }
}

#[cfg(test)]
mod tests;
