//! The lease of the officer at this desk: got while the controller is there, used while it is away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tram_wire::desk::{Problem, SignIn, SignedIn};
use tram_wire::lease::{Lease, Signed};

use super::control::{Control, ControlError};
use super::vault::{Key, Open, Tried, Vault};
use super::view::problem;
use crate::host::wall_ms;
use crate::identity::Identity;
use crate::link::http::HttpError;

/// Who has a lease for the name that was typed does not wait longer for a controller that says nothing.
const PATIENCE: Duration = Duration::from_secs(12);
/// A lease that could not be had is asked for again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// What this desk has of leases.
pub(super) struct Lessee {
    state: PathBuf,
    vault: Vault,
    /// Of the officer who is signed in.
    key: Option<Key>,
    held: Option<(Signed, Lease)>,
}

impl Lessee {
    pub(super) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), vault: Vault::new(state), key: None, held: None }
    }

    /// The lease in hand.
    pub(super) fn held(&self) -> Option<(Signed, Lease)> {
        self.held.clone()
    }

    /// Waits for the controller's answer to a sign-in, but not for ever if there is another way. What the password
    /// becomes is kept, and the password is not.
    pub(super) async fn signing_in(
        &mut self,
        who: &SignIn,
        asking: impl Future<Output = Result<SignedIn, ControlError>>,
    ) -> Result<SignedIn, ControlError> {
        (self.key, self.held) = (None, None);
        let other_way = Identity::load(&self.state).is_ok_and(|me| self.vault.has(&who.username, &me));
        let asking = async {
            match other_way {
                true => timeout(PATIENCE, asking).await.unwrap_or(Err(HttpError::Timeout.into())),
                false => asking.await,
            }
        };
        let (key, done) = tokio::join!(Key::derive(&who.password), asking);
        if done.is_ok() {
            // Without one there are no leases; everything else goes on.
            self.key = key.map_err(|e| complain("no key for leases could be made", &e)).ok();
        }
        done
    }

    /// Signs in by a lease: the officer's name, or what to tell them.
    pub(super) async fn open(&mut self, who: &SignIn, away: &ControlError) -> Result<String, Problem> {
        let tried = match Identity::load(&self.state) {
            Ok(me) => self.vault.open(&who.username, &who.password, &me, wall_ms()).await,
            Err(e) => Err(io::Error::other(e)),
        };
        let coded = |code: &str, remaining| Problem {
            code: code.to_owned(),
            detail: away.to_string(),
            remaining,
            retry_after_s: None,
        };
        match tried {
            Ok(Tried::Open(open)) => {
                let Open { signed, lease, key } = *open;
                let name = lease.display_name.clone();
                (self.key, self.held) = (Some(key), Some((signed, lease)));
                Ok(name)
            }
            Ok(Tried::Wrong { left }) => Err(coded("D-108", Some(left.into()))),
            Ok(Tried::None) if matches!(away, ControlError::Unreachable(_)) => Err(coded("D-107", None)),
            Ok(Tried::None) => Err(problem(away)),
            Err(e) => {
                complain("a lease could not be tried", &e);
                Err(problem(away))
            }
        }
    }

    /// Gets a fresh one and keeps it; when to ask again. With the identity of now: certificates are renewed, and a
    /// lease is good for one only.
    pub(super) async fn renew(&mut self, token: &str) -> Duration {
        let Some(key) = &self.key else { return AGAIN };
        let Ok(me) = Identity::load(&self.state) else { return AGAIN };
        let Ok(control) = Control::new(&me) else { return AGAIN };
        // An older controller knows no leases, one that is away will be back.
        let Ok(leased) = control.lease(token).await else { return AGAIN };
        match leased.lease {
            Some(signed) => match self.vault.keep(&signed, key, &me, wall_ms()) {
                Ok(lease) => self.held = Some((signed, lease)),
                Err(e) => complain("a lease could not be kept", &e),
            },
            // They were switched off, or the session is none that has one.
            None => self.void(),
        }
        Duration::from_secs(leased.renew_s.clamp(10, 86_400))
    }

    /// The lease in hand opens nothing any more.
    pub(super) fn void(&mut self) {
        if let (Some((_, lease)), Ok(me)) = (self.held.take(), Identity::load(&self.state)) {
            self.vault.remove(&lease.username, &me);
        }
    }

    /// The controller refused a sign-in: what it no longer trusts is destroyed here as well.
    pub(super) fn refused(&self, username: &str, code: &str) {
        match (code, Identity::load(&self.state)) {
            ("A-109", Ok(me)) => self.vault.remove(username, &me),
            ("E-301" | "E-302", _) => self.vault.clear(),
            _ => {}
        }
    }

    /// The officer leaves; with the session goes its lease.
    pub(super) fn leave(&mut self, ended: bool) {
        if ended {
            self.void();
        }
        (self.key, self.held) = (None, None);
    }
}

fn complain(what: &str, e: &io::Error) {
    eprintln!("tram-agent: {what}: {e}");
}
