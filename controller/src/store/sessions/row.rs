//! Rows of sessions and of desktops they may get, and what follows from them.

use sqlx::types::Json;
use tram_wire::ids::{DesktopId, PoolId, SessionId, UserId};
use uuid::Uuid;

use crate::domain::access::Scope;
use crate::domain::desktop::{DesiredDesktop, DesktopState};
use crate::domain::experience::{self, Experience, Measured};
use crate::domain::policy::{PoolPolicy, SessionPolicy};
use crate::domain::session::{Elsewhere, Limit, SessionState, Standing, warn_before};
use crate::domain::ticket::Place;
use crate::domain::time::Time;

/// One row, with what its user and desktop look like now.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Session {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: SessionId,
    /// Whose.
    #[sqlx(try_from = "Uuid")]
    pub user_id: UserId,
    /// Their sign-in name.
    pub username: String,
    /// They may not sign in any more.
    pub user_disabled: bool,
    /// The desktop; `None` once its row is gone.
    pub desktop_id: Option<Uuid>,
    /// Its name, kept beside it.
    pub desktop_name: String,
    /// Site of the desktop's pool.
    pub site_code: String,
    /// Where the session is, as last written (see [`crate::domain::session::shown`]).
    #[sqlx(try_from = "String")]
    pub state: SessionState,
    /// Why it is over.
    pub end_reason: Option<String>,
    /// Times, microseconds.
    pub created_at: i64,
    /// Last sign of a viewer.
    pub last_active_at: i64,
    /// First picture a viewer got.
    pub first_frame_at: Option<i64>,
    /// When the viewer went away.
    pub disconnected_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// Connections after the first.
    pub resumes: i64,
    /// Bytes from viewers.
    pub bytes_up: i64,
    /// Bytes to viewers.
    pub bytes_down: i64,
    /// Connections so far.
    pub epoch: i64,
    /// Address of the last viewer, or of who asked for it.
    pub client_ip: String,
    desktop_state: Option<String>,
    desktop_desired: Option<String>,
    /// Since when the desktop is in its state.
    pub desktop_since: Option<i64>,
    assigned_user: Option<Uuid>,
    /// The desktop's host.
    pub host_id: Option<Uuid>,
    persistent: Option<bool>,
    start_desktops: Option<bool>,
    /// When its officer asked for a desktop, by the database's clock: the place in line.
    pub queued_at: Option<i64>,
    assigned_at: Option<i64>,
    /// What it may do and for how long.
    #[sqlx(json)]
    pub policy: SessionPolicy,
    holder_kind: Option<String>,
    holder: Option<Vec<u8>>,
    holder_name: Option<String>,
    /// The officer's latest word that they are still there.
    pub present_at: Option<i64>,
    /// When its viewer will be disconnected because nobody seems to be there, if that is near.
    pub closing_at: Option<i64>,
    /// Who ended it, if not its officer.
    pub ended_by: Option<String>,
    /// What they told the officer.
    pub end_note: Option<String>,
    experience: Option<Json<Experience>>,
    /// When it was last entered by a lease while the database was away.
    pub leased_at: Option<i64>,
    /// Its endpoint's screen shows that support looks.
    pub shows_assists: bool,
    /// The gateway that carries it, or did when it was last heard of.
    pub gateway_id: Option<Uuid>,
    /// Its name.
    pub gateway_name: Option<String>,
}

impl Session {
    /// The desktop's state now; `None` if its row is gone.
    #[must_use]
    pub fn desktop_state(&self) -> Option<DesktopState> {
        self.desktop_state.as_deref().and_then(|s| s.parse().ok())
    }

    /// What is wanted of the desktop; `None` if its row is gone.
    #[must_use]
    pub fn desktop_desired(&self) -> Option<DesiredDesktop> {
        self.desktop_desired.as_deref().and_then(|s| s.parse().ok())
    }

    /// Whether the desktop is kept for its user after the session.
    #[must_use]
    pub fn persistent(&self) -> bool {
        self.persistent.unwrap_or(false)
    }

    /// Whether desktops of the pool run without anybody.
    #[must_use]
    pub fn start_desktops(&self) -> bool {
        self.start_desktops.unwrap_or(false)
    }

    /// When it got its desktop.
    #[must_use]
    pub fn assigned(&self) -> Time {
        Time::from_micros(self.assigned_at.unwrap_or(self.created_at))
    }

    /// Since when it stands in line, if it does.
    #[must_use]
    pub fn queued(&self) -> Option<Time> {
        self.queued_at.filter(|_| self.state == SessionState::Waiting).map(Time::from_micros)
    }

    /// Where its viewer is, unless that is the place with this key (see [`Tx::place_key`]).
    #[must_use]
    pub fn elsewhere(&self, key: &[u8]) -> Option<Elsewhere> {
        let place = self.place()?;
        let other = self.state == SessionState::Active && self.holder.as_deref().is_some_and(|h| h != key);
        // While a viewer is connected, that is when it came.
        let since = Time::from_micros(self.last_active_at);
        other.then(|| Elsewhere { place, name: self.holder_name.clone(), since })
    }

    /// What kind of place its viewer is at, or was last.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.holder_kind.as_deref()?.parse().ok()
    }

    /// For [`crate::domain::session::over`].
    #[must_use]
    pub fn alone_since(&self) -> Time {
        Time::from_micros(self.disconnected_at.unwrap_or(self.last_active_at))
    }

    /// For [`crate::domain::session::verdict`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            state: self.state,
            epoch: self.epoch,
            user_disabled: self.user_disabled,
            assigned: self.assigned_user == Some(self.user_id.0),
            desktop: self.desktop_state().zip(self.desktop_desired()),
            idle_s: self.policy.idle_s,
            present_at: self.present_at,
            closing: self.closing_at.is_some(),
            longest_s: self.policy.longest_s,
            ends_at: self.assigned().plus(self.policy.longest()),
        }
    }

    /// How it felt at the last connection, in segments.
    #[must_use]
    pub fn segments(&self) -> Vec<Measured> {
        let waited = self.assigned_at.map(|at| Time::from_micros(at).since(Time::from_micros(self.created_at)));
        let felt = self.experience.as_ref().map(|Json(e)| e.clone()).unwrap_or_default();
        experience::segments(waited.map(experience::millis), &felt)
    }

    /// The limit that is near, and when it is reached.
    #[must_use]
    pub fn closing(&self, now: Time) -> Option<(Limit, Time)> {
        if !matches!(self.state, SessionState::Active) {
            return None;
        }
        let end = self.assigned().plus(self.policy.longest());
        let idle = self.closing_at.map(|at| (Limit::Idle, Time::from_micros(at)));
        let longest = (end.since(now) <= warn_before(self.policy.longest())).then_some((Limit::Longest, end));
        [idle, longest].into_iter().flatten().min_by_key(|(_, at)| *at)
    }
}

/// A desktop that may be given to somebody.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Candidate {
    /// Id.
    #[sqlx(try_from = "Uuid")]
    pub id: DesktopId,
    /// Name.
    pub name: String,
    /// Its pool.
    #[sqlx(try_from = "Uuid")]
    pub pool_id: PoolId,
    /// Site of its pool.
    pub site_code: String,
    /// Where it is on its way.
    #[sqlx(try_from = "String")]
    pub state: DesktopState,
    /// What is wanted of it.
    #[sqlx(try_from = "String")]
    pub desired: DesiredDesktop,
    /// It is kept for its user.
    pub persistent: bool,
    /// Its pool's policy.
    #[sqlx(json)]
    pub policy: PoolPolicy,
}

/// Which sessions to list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only of this user.
    pub user: Option<UserId>,
    /// Only of these sites.
    pub scope: Scope,
    /// Only those that are not over.
    pub live: bool,
    /// Only these.
    pub ids: Option<Vec<SessionId>>,
    /// Only those opened before this one (the cursor).
    pub before: Option<SessionId>,
    /// At most so many.
    pub limit: i64,
}

impl Filter {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self { user: None, scope: Scope::All, live: false, ids: None, before: None, limit: i64::MAX }
    }

    /// Every live one.
    #[must_use]
    pub fn live() -> Self {
        Self { live: true, ..Self::all() }
    }
}
