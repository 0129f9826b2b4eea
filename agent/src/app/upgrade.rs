//! Where no WebSocket got through, one is tried again now and then: whatever took it away may be mended.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{App, note};
use crate::host::Host;
use crate::link::Link;

type Asking = Pin<Box<dyn Future<Output = bool>>>;

/// When to try, and the try that is under way.
pub(super) struct Upgrade {
    every: Duration,
    next: Option<Duration>,
    asking: Option<Asking>,
}

impl Upgrade {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, next: None, asking: None }
    }

    /// A link is open.
    pub(super) fn linked(&mut self, now: Duration, by_requests: bool) {
        (self.next, self.asking) = (by_requests.then_some(now + self.every), None);
    }

    /// There is no link: the next one begins with a try.
    pub(super) fn cut(&mut self) {
        (self.next, self.asking) = (None, None);
    }

    pub(super) fn wake(&self) -> Duration {
        self.next.unwrap_or(Duration::MAX)
    }

    /// What the try came to. Safe to drop half-way.
    pub(super) async fn asked(&mut self) -> bool {
        match &mut self.asking {
            Some(asking) => {
                let through = asking.await;
                self.asking = None;
                through
            }
            None => std::future::pending().await,
        }
    }
}

impl<H: Host + Send + 'static> App<H> {
    /// The link is carried by requests.
    pub(super) fn is_polled(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_by_requests)
    }

    /// Tries, if it is time. The link goes on meanwhile.
    pub(super) fn ask_upgrade(&mut self) {
        let now = self.now();
        if self.upgrade.next.is_none_or(|at| now < at) || !self.machine.is_up() {
            return;
        }
        self.upgrade.next = Some(now + self.upgrade.every);
        if self.upgrade.asking.is_none() {
            let (to, tls) = (self.to.clone(), self.tls.clone());
            self.upgrade.asking = Some(Box::pin(async move { Link::upgrades(&to, tls).await }));
        }
    }

    pub(super) fn upgraded(&mut self, through: bool) {
        if through {
            note("a WebSocket gets through again");
            self.lost("a WebSocket gets through again");
            self.machine.hurry(self.now());
        }
    }
}
