//! One host's threads: calls go through bounded queues to threads that own their connections.
//!
//! A libvirt call blocks and can't be cancelled, so it never runs on the runtime's threads nor on its
//! shared blocking pool, where one frozen host could take every place. The deadline is on the waiting
//! side: a caller goes on, the stuck thread stays with its own host. Lanes keep quick calls and display
//! openings from standing behind slow ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use virt::connect::Connect;

use super::convert;
use super::ffi::{Note, Notes};
use crate::{Error, Result};

/// Calls that may wait in one lane before callers are told [`Error::Overloaded`].
const QUEUE: usize = 128;

/// Which threads a call goes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Milliseconds: look-ups, definitions, disks.
    Quick,
    /// Seconds: start, stop, removal, statistics, screenshots.
    Slow,
    /// Opening a display: somebody is waiting in front of a screen.
    Display,
}

/// Whether the host can be reached, as its keeper sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// The first connection was not tried to its end yet.
    Connecting,
    /// Connected.
    Up,
    /// Not connected, and why.
    Down(String),
}

/// What the threads of one host share.
pub(super) struct Shared {
    /// What libvirt is given.
    pub(super) uri: String,
    /// Keep-alive: seconds between probes, and how many may stay unanswered.
    pub(super) keep_alive: (i32, u32),
    /// Raised with each reconnection: connections from before are not used again.
    pub(super) epoch: AtomicU64,
    pub(super) link: RwLock<Link>,
    pub(super) notes: Notes,
    pub(super) stopped: AtomicBool,
}

impl Shared {
    /// Opens a connection with keep-alive.
    pub(super) fn connect(&self) -> Result<Connect> {
        let conn = Connect::open(Some(&self.uri)).map_err(convert::error)?;
        // The test driver inside this process has no socket to keep alive, and says so.
        let _ = conn.set_keep_alive(self.keep_alive.0, self.keep_alive.1);
        Ok(conn)
    }

    pub(super) fn link(&self) -> Link {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_link(&self, link: Link) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }
}

type Job = Box<dyn FnOnce(&mut Worker<'_>) + Send>;

/// The queues of one host.
pub(super) struct Lanes {
    quick: SyncSender<Job>,
    slow: SyncSender<Job>,
    display: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl Lanes {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self> {
        Ok(Self {
            quick: lane(shared, "quick", 2)?,
            slow: lane(shared, "slow", 2)?,
            display: lane(shared, "display", 1)?,
            shared: Arc::clone(shared),
        })
    }

    /// Runs `call` on a thread of `lane` and waits for it at most `deadline`.
    pub(super) async fn run<T, F>(&self, lane: Lane, deadline: Duration, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T> + Send + 'static,
    {
        if let Link::Down(why) = self.shared.link() {
            return Err(Error::Unreachable(why));
        }
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // A caller that gave up while this stood in the queue wants nothing done any more.
            if !reply.is_closed() {
                let _ = reply.send(worker.call(call));
            }
        });
        let queue = match lane {
            Lane::Quick => &self.quick,
            Lane::Slow => &self.slow,
            Lane::Display => &self.display,
        };
        queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Error::Overloaded,
            TrySendError::Disconnected(_) => Error::Unreachable("this host's threads have ended".into()),
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Refused("the call broke down inside libvirt's binding".into())),
            Err(_) => Err(Error::Timeout(deadline)),
        }
    }
}

fn lane(shared: &Arc<Shared>, name: &str, threads: usize) -> Result<SyncSender<Job>> {
    let (queue, jobs) = sync_channel::<Job>(QUEUE);
    let jobs = Arc::new(Mutex::new(jobs));
    for n in 0..threads {
        let (shared, jobs) = (Arc::clone(shared), Arc::clone(&jobs));
        let work = move || Worker { shared: &shared, conn: None }.work(&jobs);
        thread::Builder::new()
            .name(format!("virt-{name}-{n}"))
            .spawn(work)
            .map_err(|e| Error::Refused(format!("no thread for this host: {e}")))?;
    }
    Ok(queue)
}

/// One thread with its own connection.
struct Worker<'a> {
    shared: &'a Shared,
    conn: Option<(u64, Connect)>,
}

impl Worker<'_> {
    fn work(mut self, jobs: &Mutex<Receiver<Job>>) {
        loop {
            // The lock is held while waiting; the other threads of the lane wait for the lock instead.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            // The binding panics where it can't free an object; that must not cost the thread.
            if catch_unwind(AssertUnwindSafe(|| job(&mut self))).is_err() {
                tracing::error!(uri = %self.shared.uri, "a libvirt call panicked");
                self.forget();
            }
        }
    }

    fn call<T>(&mut self, call: impl FnOnce(&Connect) -> Result<T>) -> Result<T> {
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        if self.conn.as_ref().is_some_and(|(of, _)| *of != epoch) {
            self.forget();
        }
        let conn = match &self.conn {
            Some((_, conn)) => conn,
            None => &self.conn.insert((epoch, self.shared.connect()?)).1,
        };
        let result = call(conn);
        if matches!(result, Err(Error::Unreachable(_))) {
            self.forget();
            self.shared.notes.put(Note::Suspect);
        }
        result
    }

    fn forget(&mut self) {
        let conn = self.conn.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(conn)));
    }
}
