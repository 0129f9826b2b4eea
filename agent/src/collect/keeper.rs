//! Lets collectors look, each in a thread of its own that is left behind if it never comes back.
//!
//! A collector over its time is switched off, for an hour first, then twice as long each time up to a day, and
//! that is reported. So a disk that hangs in the kernel costs one thread an hour at worst, never the agent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tram_wire::report::{Event, Happened, Item, Note};

use super::{Collector, Inventory};
use crate::host::Host;

/// How long a collector stays off after its first overrun.
const OFF: Duration = Duration::from_secs(3600);
const OFF_LONGEST: Duration = Duration::from_secs(86_400);
/// Enough for parsers and directory lists.
const STACK: usize = 512 * 1024;

/// Runs `work` aside and waits at most so long. `None`: it didn't come back, or fell over.
pub async fn aside<T: Send + 'static>(within: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = oneshot::channel();
    let run = move || {
        if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
            let _ = send.send(done);
        }
    };
    thread::Builder::new().stack_size(STACK).spawn(run).ok()?;
    timeout(within, receive).await.ok()?.ok()
}

struct Job<H> {
    collector: Collector<H>,
    next: Duration,
    /// When it began, and which try that is.
    running: Option<(Duration, u64)>,
    /// The last try that was not waited for any longer.
    given_up: Option<u64>,
    strikes: u32,
    off: bool,
    items: Option<Vec<Item>>,
}

struct Looked {
    job: usize,
    turn: u64,
    /// `None`: it fell over.
    items: Option<Vec<Item>>,
}

/// All collectors of a computer, and what they saw last.
pub struct Keeper<H> {
    host: H,
    jobs: Vec<Job<H>>,
    turn: u64,
    send: mpsc::UnboundedSender<Looked>,
    receive: mpsc::UnboundedReceiver<Looked>,
    events: Vec<Event>,
    notes: Vec<Note>,
}

impl<H: Host + Send + 'static> Keeper<H> {
    /// Nobody has looked yet; everybody is due.
    #[must_use]
    pub fn new(host: H, collectors: impl IntoIterator<Item = Collector<H>>) -> Self {
        let job = |collector| Job {
            collector,
            next: Duration::ZERO,
            running: None,
            given_up: None,
            strikes: 0,
            off: false,
            items: None,
        };
        let (send, receive) = mpsc::unbounded_channel();
        let jobs = collectors.into_iter().map(job).collect();
        Self { host, jobs, turn: 0, send, receive, events: Vec::new(), notes: Vec::new() }
    }

    /// Lets those look that are due, and gives up those that are over their time.
    pub fn tend(&mut self, now: Duration) {
        for at in 0..self.jobs.len() {
            let Some(job) = self.jobs.get_mut(at) else { continue };
            if let Some((begun, turn)) = job.running {
                if now >= begun + job.collector.within {
                    (job.running, job.given_up) = (None, Some(turn));
                    let why = punish(job, now, "overran");
                    self.notes.push(why);
                }
                continue;
            }
            if now < job.next {
                continue;
            }
            self.turn += 1;
            job.running = Some((now, self.turn));
            job.next = now + job.collector.every;
            let (look, host, send, turn) = (job.collector.look, self.host.again(), self.send.clone(), self.turn);
            let run = move || {
                let items = catch_unwind(AssertUnwindSafe(|| look(&host))).ok();
                let _ = send.send(Looked { job: at, turn, items });
            };
            if thread::Builder::new().stack_size(STACK).spawn(run).is_err() {
                job.running = None;
            }
        }
    }

    /// When [`Keeper::tend`] should be called again.
    #[must_use]
    pub fn wake(&self) -> Duration {
        let next = |j: &Job<H>| j.running.map_or(j.next, |(begun, _)| begun + j.collector.within);
        self.jobs.iter().map(next).min().unwrap_or(Duration::MAX)
    }

    /// Makes a section due now: something was plugged in.
    pub fn hurry(&mut self, section: &str, now: Duration) {
        for job in self.jobs.iter_mut().filter(|j| j.collector.section == section && !j.off) {
            job.next = now;
        }
    }

    /// Waits until a collector comes back; whether it saw something new. Safe to drop half-way.
    pub async fn news(&mut self, now: impl Fn() -> Duration) -> bool {
        match self.receive.recv().await {
            Some(looked) => self.take(looked, now()),
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, looked: Looked, now: Duration) -> bool {
        let Some(job) = self.jobs.get_mut(looked.job) else { return false };
        if job.running.map(|(_, turn)| turn) != Some(looked.turn) {
            // It was given up before; what it saw is old. If it was the first time, perhaps the whole computer stood still:
            // then it is not off for an hour.
            if job.off && job.strikes == 1 && job.given_up == Some(looked.turn) {
                job.next = now;
            }
            return false;
        }
        job.running = None;
        let Some(items) = looked.items else {
            let why = punish(job, now, "failed");
            self.notes.push(why);
            return true;
        };
        let section = job.collector.section;
        if job.off {
            (job.off, job.strikes) = (false, 0);
            self.notes.push(note("collector_back", section, &[]));
        }
        let new = job.items.as_ref() != Some(&items);
        if let Some(before) = job.items.as_ref().filter(|_| job.collector.events && new) {
            self.events.extend(changes(section, before, &items));
        }
        job.items = Some(items);
        new
    }

    /// What they saw last, by section; sections nobody saw yet are missing.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let seen = |j: &Job<H>| Some((j.collector.section.to_owned(), j.items.clone()?));
        self.jobs.iter().filter_map(seen).collect()
    }

    /// Whether everybody has looked once, or was given up.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.jobs.iter().all(|j| j.items.is_some() || j.off)
    }

    /// Sections whose collector is switched off.
    #[must_use]
    pub fn off(&self) -> Vec<&'static str> {
        self.jobs.iter().filter(|j| j.off).map(|j| j.collector.section).collect()
    }

    /// What came and went since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What there is to say of the collectors since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

fn punish<H>(job: &mut Job<H>, now: Duration, why: &str) -> Note {
    let rest = OFF.saturating_mul(1 << job.strikes.min(8)).min(OFF_LONGEST);
    job.strikes += 1;
    job.off = true;
    job.next = now + rest;
    note("collector_off", job.collector.section, &[("why", why), ("seconds", &rest.as_secs().to_string())])
}

fn note(code: &str, section: &str, more: &[(&str, &str)]) -> Note {
    let all = [("collector", section)].into_iter().chain(more.iter().copied());
    Note { code: code.to_owned(), params: all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect() }
}

/// Numbers that wander by themselves are no change of a thing.
const WANDERING: [&str; 8] =
    ["charge_percent", "runtime_s", "load_percent", "rpm", "jobs", "oldest_job_s", "toner_percent", "offset_ms"];

/// A thing without what wanders.
fn still(item: &Item) -> Item {
    let mut item = item.clone();
    item.facts.retain(|name, _| !WANDERING.contains(&name.as_str()));
    item
}

/// Things without what wanders.
#[must_use]
pub fn steady(items: &[Item]) -> Vec<Item> {
    items.iter().map(still).collect()
}

fn changes(section: &str, before: &[Item], now: &[Item]) -> Vec<Event> {
    let same =
        |a: &Item, b: &Item| (&a.kind, &a.id) == (&b.kind, &b.id) && a.facts.get("serial") == b.facts.get("serial");
    let event = |what, item: &Item| Event { what, section: section.to_owned(), item: item.clone() };
    let gone = before.iter().filter(|b| !now.iter().any(|n| same(n, b))).map(|b| event(Happened::Detached, b));
    let other = now.iter().filter_map(|n| match before.iter().find(|b| same(n, b)) {
        None => Some(event(Happened::Attached, n)),
        Some(b) if still(b) != still(n) => Some(event(Happened::Changed, n)),
        Some(_) => None,
    });
    gone.chain(other).take(tram_wire::report::limits::EVENTS).collect()
}

#[cfg(test)]
mod tests {
    use super::super::usb::{self, tests::plug};
    use super::*;
    use crate::host::fake::Fake;

    const SECOND: Duration = Duration::from_secs(1);

    fn collector(section: &'static str, look: fn(&Fake) -> Vec<Item>) -> Collector<Fake> {
        Collector { section, every: 60 * SECOND, within: 5 * SECOND, events: true, look }
    }

    fn hang(_: &Fake) -> Vec<Item> {
        thread::sleep(Duration::from_secs(3600));
        Vec::new()
    }

    fn panics(_: &Fake) -> Vec<Item> {
        panic!("a parser met its match")
    }

    #[tokio::test]
    async fn one_that_hangs_is_switched_off_and_the_others_go_on() {
        let host = plug(Fake::new(), "1-1", ("25dd", "3111"), "0b", "token");
        let mut k = Keeper::new(host, [collector("hung", hang), collector("usb", usb::collect)]);
        k.tend(Duration::ZERO);
        assert!(k.news(|| SECOND).await && !k.settled());
        k.tend(5 * SECOND);
        let notes = k.notes();
        assert_eq!((notes[0].code.as_str(), notes[0].params["seconds"].as_str()), ("collector_off", "3600"));
        assert!(k.settled() && k.off() == ["hung"] && k.inventory()["usb"].len() == 1);
        // Off for an hour; the second time for two.
        k.tend(3604 * SECOND);
        assert!(k.notes().is_empty());
        k.tend(3605 * SECOND);
        k.tend(3611 * SECOND);
        assert_eq!(k.notes()[0].params["seconds"], "7200");
    }

    #[tokio::test]
    async fn one_that_comes_back_late_is_asked_again_once() {
        static GATE: std::sync::RwLock<()> = std::sync::RwLock::new(());
        fn waits(_: &Fake) -> Vec<Item> {
            drop(GATE.read().unwrap());
            Vec::new()
        }
        let mut k = Keeper::new(Fake::new(), [collector("slow", waits)]);
        for (second, told) in [(0, &["collector_off"][..]), (7, &["collector_back"]), (70, &["collector_off"])] {
            let closed = (told == ["collector_off"]).then(|| GATE.write().unwrap());
            k.tend(second * SECOND);
            if let Some(closed) = closed {
                k.tend((second + 5) * SECOND);
                drop(closed);
            }
            k.news(|| (second + 6) * SECOND).await;
            assert_eq!(k.notes().iter().map(|n| n.code.as_str()).collect::<Vec<_>>(), told, "{second}");
        }
        // Late twice in a row: it is that slow.
        let closed = GATE.write().unwrap();
        k.tend(77 * SECOND);
        k.tend(82 * SECOND);
        drop(closed);
        assert!(!k.news(|| 83 * SECOND).await && k.off() == ["slow"]);
        k.tend(84 * SECOND);
        assert_eq!((k.notes()[0].params["seconds"].as_str(), k.off()), ("7200", vec!["slow"]));
        k.tend(85 * SECOND);
        assert!(k.jobs[0].running.is_none(), "it is left alone now");
    }

    #[tokio::test]
    async fn one_that_falls_over_is_reported_and_nothing_else_falls() {
        let mut k = Keeper::new(Fake::new(), [collector("bad", panics)]);
        k.tend(Duration::ZERO);
        assert!(k.news(|| SECOND).await);
        assert_eq!(k.notes()[0].params["why"], "failed");
    }

    #[tokio::test]
    async fn what_is_plugged_in_and_out_is_an_event() {
        let host = Fake::new();
        let mut k = Keeper::new(host.clone(), [collector("usb", usb::collect)]);
        k.tend(Duration::ZERO);
        assert!(k.news(|| SECOND).await && k.events().is_empty(), "the first look is no event");
        let host = plug(host, "1-1", ("25dd", "3111"), "0b", "token");
        k.tend(2 * SECOND);
        k.hurry("usb", 2 * SECOND);
        k.tend(2 * SECOND);
        assert!(k.news(|| SECOND).await);
        let e = k.events();
        assert_eq!((e[0].what, e[0].item.kind.as_str()), (Happened::Attached, "token"));
        drop(host.file("/sys/bus/usb/devices/1-1/product", "renamed"));
        k.hurry("usb", 3 * SECOND);
        k.tend(3 * SECOND);
        assert!(k.news(|| SECOND).await);
        assert_eq!(k.events()[0].what, Happened::Changed);
    }

    #[test]
    fn a_level_that_wanders_is_no_event() {
        let ups = |charge: &str, status: &str| {
            let facts = [("charge_percent", charge), ("status", status)].map(|(k, v)| (k.to_owned(), v.to_owned()));
            Item { id: "u".into(), kind: "ups".into(), facts: facts.into(), ..Item::default() }
        };
        assert!(changes("power", &[ups("100", "OL")], &[ups("99", "OL")]).is_empty());
        assert_eq!(changes("power", &[ups("100", "OL")], &[ups("99", "OB")])[0].what, Happened::Changed);
    }

    #[tokio::test]
    async fn a_file_that_never_answers_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc")).unwrap();
        let fifo = dir.path().join("proc/loadavg");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let host = crate::host::System::at(dir.path().to_owned());
        // Opening it waits for a writer who never comes.
        let read = aside(Duration::from_millis(200), move || host.read("/proc/loadavg")).await;
        assert_eq!(read, None);
    }
}
