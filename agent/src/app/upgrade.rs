//! Where no WebSocket got through, or TLS was opened on the way, the better way is tried again now and then: whatever stood
//! there may be mended.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::{App, note};
use crate::host::Host;
use crate::link::{Link, Way};

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
    pub(super) fn linked(&mut self, now: Duration, by: Way) {
        (self.next, self.asking) = ((by != Way::Socket).then_some(now + self.every), None);
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
    /// What carries the link.
    pub(super) fn way(&self) -> Way {
        self.link.as_ref().map_or(Way::Socket, Link::way)
    }

    /// Tries, if it is time. The link goes on meanwhile.
    pub(super) fn ask_upgrade(&mut self) {
        let now = self.now();
        if self.upgrade.next.is_none_or(|at| now < at) || !self.machine.is_up() {
            return;
        }
        self.upgrade.next = Some(now + self.upgrade.every);
        if self.upgrade.asking.is_none() {
            let (to, tls, from) = (self.to.clone(), self.tls.clone(), self.way());
            self.upgrade.asking = Some(Box::pin(async move { Link::upgrades(&to, tls, from).await }));
        }
    }

    pub(super) fn upgraded(&mut self, through: bool) {
        if through {
            let news = match self.way() {
                Way::Signed => "nobody opens TLS on the way any more",
                Way::Socket | Way::Requests => "a WebSocket gets through again",
            };
            note(news);
            self.lost(news);
            self.machine.hurry(self.now());
        }
    }
}
