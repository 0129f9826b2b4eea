//! Looks when somebody is signed in on a desktop after its first picture: whoever waits for that waits for the guest.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Gateway;
use super::link::Link;
use crate::domain::experience::millis;

const EVERY: Duration = Duration::from_secs(2);
/// Who is not signed in by then does something else.
const LONGEST: Duration = Duration::from_secs(300);
/// A guest agent that did not know so many times in a row never will.
const UNKNOWN: u32 = 3;
const ASK: Duration = Duration::from_secs(10);

impl Gateway {
    /// Notes when somebody is signed in on the connection's desktop, for as long as it lives.
    pub(super) fn await_sign_in(&self, link: &Arc<Link>) {
        let (gateway, link) = (self.clone(), Arc::downgrade(link));
        tokio::spawn(async move {
            let (began, mut unknown) = (Instant::now(), 0);
            while began.elapsed() < LONGEST && unknown < UNKNOWN {
                let Some(link) = link.upgrade() else { return };
                match timeout(ASK, gateway.signed_in(&link)).await.ok().flatten() {
                    Some(true) => return link.feel(|e| e.sign_in_ms = Some(millis(began.elapsed()))),
                    Some(false) => unknown = 0,
                    None => unknown += 1,
                }
                drop(link);
                sleep(EVERY).await;
            }
        });
    }

    /// `None`: not known.
    async fn signed_in(&self, link: &Link) -> Option<bool> {
        let row = self.0.app.store.session(link.session).await.ok()??;
        let backend = self.0.fleet.get(row.host_id?.into())?;
        backend.signed_in(link.desktop).await.ok()?
    }
}
