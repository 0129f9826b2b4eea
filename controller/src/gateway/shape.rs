//! Shares a line among those who send over it: a site's among its sessions, the gateway's among the sites.
//!
//! ```text
//! session ── own bucket ──► site (85 % of its line) ──► gateway ──► read the desktop
//! ```
//! Start-time fair queueing. Each taker has a mark, the bytes it was given so far, but never less than the mark of the
//! one served last; of those who wait the lowest mark is next. So who has much to send shares evenly, who sends
//! nothing lends its part, and who sends little now and then, the picture of a typed letter, comes before all bulk.
//! Bytes are taken before the desktop is read: what is too much stays there, where it degrades. What an officer
//! types, and sound, never waits; sound is only counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limit::Bucket;

/// Time on the line that one taker gets while others wait.
const TURN: Duration = Duration::from_millis(20);
/// Least and most bytes of a turn.
const TURN_BYTES: (f64, f64) = (1024.0, 65_536.0);
/// What a quiet line may get at once: more would stand in the line's own queue.
const BURST: Duration = Duration::from_millis(50);
/// Who had to wait counts as one of those who share for so long.
const BUSY: Duration = Duration::from_secs(2);

/// A rate that several take from in turns.
#[derive(Debug)]
pub struct Share {
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: uncapped.
    bucket: Option<Bucket>,
    kbit: Option<u32>,
    /// Mark of who was served last.
    mark: u64,
    /// By mark, then in order of arrival.
    waiting: BTreeMap<(u64, u64), Arc<Notify>>,
    arrivals: u64,
    /// Takers that had to wait, and when last.
    busy: HashMap<u64, Duration>,
    passed: u64,
    waits: u64,
}

/// One that takes from a share.
#[derive(Debug)]
pub struct Taker {
    id: u64,
    mark: AtomicU64,
}

impl Default for Taker {
    fn default() -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self { id: IDS.fetch_add(1, Ordering::Relaxed), mark: AtomicU64::new(0) }
    }
}

impl Taker {
    fn had(&self) -> u64 {
        self.mark.load(Ordering::Relaxed)
    }
}

/// Bytes taken; what is not spent goes back.
#[derive(Debug)]
struct Taken<'a> {
    share: &'a Share,
    taker: &'a Taker,
    bytes: usize,
    waited: bool,
}

impl Taken<'_> {
    /// Keeps at most so many, of which `spent` have left.
    fn keep(&mut self, bytes: usize, spent: usize) {
        let back = self.bytes.saturating_sub(bytes);
        self.bytes -= back;
        let mut inner = self.share.lock();
        inner.passed += spent as u64;
        if let Some(bucket) = inner.bucket.as_mut().filter(|_| back > 0) {
            bucket.give_back(back);
            let lower = |mark: u64| Some(mark.saturating_sub(back as u64));
            let _ = self.taker.mark.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
            inner.call_next();
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.keep(0, 0);
        }
    }
}

/// A place among those who wait; given up when dropped.
struct Place<'a> {
    share: &'a Share,
    key: Option<(u64, u64)>,
    wake: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            let mut inner = self.share.lock();
            inner.waiting.remove(&key);
            inner.call_next();
        }
    }
}

/// Why nothing could be taken yet.
enum Wait {
    /// Others are first.
    Turn,
    /// The line is full for so long.
    Line(Duration),
}

impl Inner {
    fn call_next(&self) {
        if let Some((_, next)) = self.waiting.first_key_value() {
            next.notify_one();
        }
    }

    /// Takes for who has this mark and is next; `alone`: nobody else waits.
    fn take(&mut self, (taker, mark): (&Taker, u64), most: usize, alone: bool, now: Duration) -> Result<usize, Wait> {
        let Some(bucket) = &mut self.bucket else { return Ok(most) };
        let room = bucket.room(now).map_err(Wait::Line)?;
        let turn = (bucket.rate() * TURN.as_secs_f64()).clamp(TURN_BYTES.0, TURN_BYTES.1) as usize;
        let bytes = most.min(room).min(if alone { room } else { turn });
        bucket.spend(bytes, now);
        self.mark = self.mark.max(mark);
        taker.mark.store(mark.max(taker.had()) + bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn start(&self, taker: &Taker) -> u64 {
        self.mark.max(taker.had())
    }
}

impl Share {
    /// One of so many kbit/s; `None`: uncapped.
    #[must_use]
    pub fn new(kbit: Option<u32>) -> Self {
        let share = Self { began: Instant::now(), inner: Mutex::default() };
        share.set(kbit);
        share
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rate, for those who wait already, too.
    pub fn set(&self, kbit: Option<u32>) {
        let mut inner = self.lock();
        if inner.kbit == kbit && inner.bucket.is_some() == kbit.is_some() {
            return;
        }
        inner.kbit = kbit;
        inner.bucket = kbit.map(|kbit| Bucket::with_burst(kbit, BURST, self.began.elapsed()));
        inner.call_next();
    }

    async fn take<'a>(&'a self, taker: &'a Taker, most: usize) -> Taken<'a> {
        let mut place = Place { share: self, key: None, wake: Arc::default() };
        let mut waited = false;
        loop {
            match self.look(taker, most, &mut place) {
                Ok(bytes) => return Taken { share: self, taker, bytes, waited },
                Err(Wait::Turn) => place.wake.notified().await,
                Err(Wait::Line(time)) => {
                    // Somebody with a lower mark may come, or the rate change.
                    let _ = tokio::time::timeout(time, place.wake.notified()).await;
                }
            }
            waited = true;
        }
    }

    fn look(&self, taker: &Taker, most: usize, place: &mut Place<'_>) -> Result<usize, Wait> {
        let now = self.began.elapsed();
        let mut inner = self.lock();
        let mark = place.key.map_or_else(|| inner.start(taker), |(mark, _)| mark);
        let first = inner.waiting.first_key_value().map(|(key, _)| *key);
        let next = first.is_none_or(|first| place.key.map_or(mark < first.0, |key| key == first));
        let later = inner.start(taker);
        if let Some(key) = place.key.filter(|(mark, _)| next && inner.bucket.is_some() && *mark < taker.had()) {
            // Another of the same taker was served meanwhile: this is its next turn, not the same one.
            inner.waiting.remove(&key);
            let key = (later, key.1);
            inner.waiting.insert(key, place.wake.clone());
            place.key = Some(key);
            inner.call_next();
            return Err(Wait::Turn);
        }
        let taken = if next || inner.bucket.is_none() {
            let alone = inner.waiting.len() == usize::from(place.key.is_some());
            inner.take((taker, mark), most, alone, now)
        } else {
            Err(Wait::Turn)
        };
        match &taken {
            Ok(_) => {
                if let Some(key) = place.key.take() {
                    inner.waiting.remove(&key);
                }
                inner.call_next();
            }
            Err(_) if place.key.is_none() => {
                inner.waits += 1;
                inner.busy.insert(taker.id, now);
                inner.arrivals += 1;
                let key = (mark, inner.arrivals);
                inner.waiting.insert(key, place.wake.clone());
                place.key = Some(key);
            }
            Err(_) => {}
        }
        taken
    }

    /// What may be taken without waiting.
    fn take_now<'a>(&'a self, taker: &'a Taker, most: usize) -> Option<Taken<'a>> {
        let now = self.began.elapsed();
        let mut inner = self.lock();
        let mark = inner.start(taker);
        if inner.bucket.is_some() && inner.waiting.first_key_value().is_some_and(|(first, _)| first.0 <= mark) {
            return None;
        }
        let alone = inner.waiting.is_empty();
        let bytes = inner.take((taker, mark), most, alone, now).ok()?;
        Some(Taken { share: self, taker, bytes, waited: false })
    }

    /// Bytes that left without having been asked for.
    fn owe(&self, bytes: usize) {
        let now = self.began.elapsed();
        let mut inner = self.lock();
        inner.passed += bytes as u64;
        if let Some(bucket) = &mut inner.bucket {
            bucket.owe(bytes, now);
        }
    }

    /// Bytes a second for this taker while all who share are busy; `None`: uncapped.
    fn part(&self, taker: &Taker) -> Option<f64> {
        let now = self.began.elapsed();
        let mut inner = self.lock();
        inner.busy.retain(|_, at| now.saturating_sub(*at) < BUSY);
        let others = inner.busy.keys().filter(|id| **id != taker.id).count();
        inner.bucket.as_ref().map(|b| b.rate() / (others + 1) as f64)
    }
}

/// A site: those who sit behind one line.
#[derive(Debug)]
pub struct Site {
    code: String,
    share: Share,
    /// The site as one of those who share the gateway.
    taker: Taker,
    gateway: Arc<Share>,
}

/// Bytes of pictures that may be read for a viewer; what is not spent goes back.
#[derive(Debug)]
pub struct Grant<'a> {
    bytes: usize,
    parts: [Option<Taken<'a>>; 2],
}

impl<'a> Grant<'a> {
    /// Of a session that shares nothing.
    #[must_use]
    pub fn free(bytes: usize) -> Self {
        Self { bytes, parts: [None, None] }
    }

    fn of(mut site: Taken<'a>, gateway: Taken<'a>) -> Self {
        let bytes = gateway.bytes;
        site.keep(bytes, 0);
        Self { bytes, parts: [Some(site), Some(gateway)] }
    }

    /// How many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many were read.
    pub fn spent(self, bytes: usize) {
        for mut part in self.parts.into_iter().flatten() {
            part.keep(bytes, bytes);
            // Left for good: nothing of it goes back.
            part.bytes = 0;
        }
    }

    /// Somebody else was first, or the line was full.
    #[must_use]
    pub fn waited(&self) -> bool {
        self.parts.iter().flatten().any(|p| p.waited)
    }
}

impl Site {
    /// Waits for a turn.
    pub async fn take<'a>(&'a self, taker: &'a Taker, most: usize) -> Grant<'a> {
        let site = self.share.take(taker, most).await;
        let gateway = self.gateway.take(&self.taker, site.bytes).await;
        Grant::of(site, gateway)
    }

    /// What may be taken at once.
    pub fn take_now<'a>(&'a self, taker: &'a Taker, most: usize) -> Option<Grant<'a>> {
        let site = self.share.take_now(taker, most)?;
        let gateway = self.gateway.take_now(&self.taker, site.bytes)?;
        Some(Grant::of(site, gateway))
    }

    /// Bytes that never wait: sound, a cursor, the gateway's own words.
    pub fn owe(&self, bytes: usize) {
        self.share.owe(bytes);
        self.gateway.owe(bytes);
    }

    /// Bytes a second for a session while all who share are busy; `None`: uncapped.
    #[must_use]
    pub fn part(&self, taker: &Taker) -> Option<f64> {
        let both = [self.share.part(taker), self.gateway.part(&self.taker)];
        both.into_iter().flatten().min_by(f64::total_cmp)
    }
}

/// How a site's line is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The site.
    pub code: String,
    /// What it may use, kbit/s.
    pub kbit: Option<u32>,
    /// Bytes since the last look.
    pub bytes: u64,
    /// Waits since the last look.
    pub waits: u64,
    /// Sessions that wait now.
    pub queue: usize,
}

/// All sites of a gateway with somebody behind them.
#[derive(Debug)]
pub struct Shaper {
    gateway: Arc<Share>,
    sites: Mutex<HashMap<String, Weak<Site>>>,
}

impl Shaper {
    /// For a gateway of so many kbit/s; `None`: uncapped.
    #[must_use]
    pub fn new(kbit: Option<u32>) -> Self {
        Self { gateway: Arc::new(Share::new(kbit)), sites: Mutex::default() }
    }

    fn sites(&self) -> MutexGuard<'_, HashMap<String, Weak<Site>>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The site with this code, for one of its sessions; `kbit` is what it may use if it is new here.
    pub fn site(&self, code: &str, kbit: Option<u32>) -> Arc<Site> {
        let mut sites = self.sites();
        if let Some(site) = sites.get(code).and_then(Weak::upgrade) {
            return site;
        }
        let (taker, gateway) = (Taker::default(), self.gateway.clone());
        let site = Arc::new(Site { code: code.to_owned(), share: Share::new(kbit), taker, gateway });
        sites.insert(code.to_owned(), Arc::downgrade(&site));
        site
    }

    /// Every site's part of its line from now on; one that is not named is uncapped.
    pub fn set(&self, parts: &HashMap<String, u32>) {
        let sites: Vec<_> = self.sites().values().filter_map(Weak::upgrade).collect();
        sites.iter().for_each(|s| s.share.set(parts.get(&s.code).copied()));
    }

    /// How the sites' lines are used; the codes of those that nobody uses any more.
    pub fn uses(&self) -> (Vec<Use>, Vec<String>) {
        let mut sites = self.sites();
        let gone: Vec<String> = sites.iter().filter(|(_, s)| s.strong_count() == 0).map(|(c, _)| c.clone()).collect();
        gone.iter().for_each(|code| drop(sites.remove(code)));
        let sites: Vec<_> = sites.values().filter_map(Weak::upgrade).collect();
        let uses = sites.iter().map(|site| {
            let mut inner = site.share.lock();
            Use {
                code: site.code.clone(),
                kbit: inner.kbit,
                bytes: std::mem::take(&mut inner.passed),
                waits: std::mem::take(&mut inner.waits),
                queue: inner.waiting.len(),
            }
        });
        (uses.collect(), gone)
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
