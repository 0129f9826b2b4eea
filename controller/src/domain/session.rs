//! A session: one officer's use of one desktop, over any number of connections.
//!
//! ```text
//! waiting -> starting -> ready -> active <-> disconnected
//!     any of them ---------------------------------------> ended
//! ```

use std::time::Duration;

use super::copies::OpenSession;
use super::desktop::{DesiredDesktop, DesktopState};
use super::limits::Limits;
use super::line;
use super::policy::SessionPolicy;
use super::ticket::Place;
use super::time::Time;

text_enum! {
    /// Where a session is.
    SessionState {
        /// No desktop is free: it stands in line.
        Waiting = "waiting",
        /// Its desktop is on the way.
        Starting = "starting",
        /// Its desktop runs; nobody has looked at it yet.
        Ready = "ready",
        /// A viewer is connected.
        Active = "active",
        /// The viewer went away; the desktop waits for it.
        Disconnected = "disconnected",
        /// Over.
        Ended = "ended",
    }
}

text_enum! {
    /// Why a session is over.
    EndReason {
        /// The officer ended it.
        User = "user",
        /// Support or an operator ended it.
        Staff = "staff",
        /// Nobody came back in time.
        Expired = "expired",
        /// Its desktop is no more.
        DesktopGone = "desktop_gone",
        /// It lasted as long as one may.
        Longest = "longest",
        /// Its account was switched off.
        Disabled = "disabled",
        /// Its officer left the waiting line.
        Left = "left",
    }
}

/// How long things may last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A session without a viewer ends after this long, if its desktop is thrown away afterwards.
    pub grace: Duration,
    /// The same, if the desktop is kept for its user.
    pub grace_persistent: Duration,
    /// A viewer without a key press or a mouse movement is disconnected after this long.
    pub idle: Duration,
    /// A connected viewer is disconnected after this long, whatever it does.
    pub longest: Duration,
    /// A viewer must be through its handshake within this time: lines are thin, but not that thin.
    pub handshake: Duration,
    /// An endpoint's line may be away for this long before the desktop's side is closed.
    pub line_grace: Duration,
    /// How long a lease lets an officer in while the database can't be asked; zero: leases are off.
    pub lease: Duration,
    /// What becomes of one at a computer whose identity goes into quarantine.
    pub quarantine: OpenSession,
    /// What they may fill of the lines they share.
    pub limits: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            grace: minutes(30),
            grace_persistent: minutes(480),
            idle: minutes(30),
            longest: minutes(720),
            handshake: Duration::from_secs(30),
            line_grace: minutes(5),
            lease: minutes(720),
            quarantine: OpenSession::GoesOn,
            limits: Limits::default(),
        }
    }
}

/// How long a ticket may be redeemed.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);

/// Redeemed and expired tickets are kept this long, to tell a replay from a guess in the audit.
pub const TICKET_KEPT: Duration = Duration::from_secs(3600);

/// The state as shown: whether the desktop runs is known more exactly than what was last written.
#[must_use]
pub fn shown(state: SessionState, desktop: Option<DesktopState>) -> SessionState {
    match (state, desktop) {
        (SessionState::Starting, Some(DesktopState::Running)) => SessionState::Ready,
        (SessionState::Ready, d) if d != Some(DesktopState::Running) => SessionState::Starting,
        _ => state,
    }
}

/// Whether a display may be opened. A guest that boots is shown only to somebody who saw it before: they
/// restarted it themselves; to anybody else a boot screen is no desktop.
#[must_use]
pub fn display_ready(desktop: DesktopState, seen_before: bool) -> bool {
    desktop == DesktopState::Running || seen_before && desktop == DesktopState::Booting
}

/// What time and circumstances say about a session.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// How it stands.
    pub standing: &'a Standing,
    /// How long it may last.
    pub policy: &'a SessionPolicy,
    /// When it got its desktop.
    pub assigned: Time,
    /// Since when it has no viewer, or its officer was not heard of.
    pub alone_since: Time,
}

/// Whether a session is over, and why.
#[must_use]
pub fn over(c: &Course<'_>, now: Time) -> Option<EndReason> {
    let s = c.standing;
    if s.state == SessionState::Ended {
        return None;
    }
    if s.user_disabled {
        return Some(EndReason::Disabled);
    }
    if s.state == SessionState::Waiting {
        return (now.since(c.alone_since) >= line::SILENCE).then_some(EndReason::Left);
    }
    if !s.assigned || s.desktop.is_none_or(|(_, wanted)| wanted == DesiredDesktop::Absent) {
        return Some(EndReason::DesktopGone);
    }
    if now.since(c.assigned) >= c.policy.longest() {
        return Some(EndReason::Longest);
    }
    let alone = s.state != SessionState::Active && now.since(c.alone_since) >= c.policy.grace();
    alone.then_some(EndReason::Expired)
}

/// Why a gateway ends a connection. The number is the WebSocket close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The session was ended, or its user may not go on.
    Ended,
    /// The desktop stopped or is gone.
    DesktopGone,
    /// The host does not answer any more.
    HostLost,
    /// Idle, silent, stalled or too long.
    Limit,
    /// A newer connection of the same session took over.
    TakenOver,
    /// The gateway restarts: come back at once.
    Restart,
}

impl Cut {
    /// The WebSocket close code.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Ended => 4000,
            Self::DesktopGone => 4001,
            Self::HostLost => 4002,
            Self::Limit => 4003,
            Self::TakenOver => 4004,
            Self::Restart => 1012,
        }
    }
}

/// What the database says about the session of a live connection.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The session's state.
    pub state: SessionState,
    /// Connections it had so far, this one included.
    pub epoch: i64,
    /// Its user was disabled.
    pub user_disabled: bool,
    /// The desktop is still this user's.
    pub assigned: bool,
    /// The desktop's state and what is wanted of it; `None` if its row is gone.
    pub desktop: Option<(DesktopState, DesiredDesktop)>,
    /// Seconds without a key or the mouse after which its viewer is disconnected.
    pub idle_s: u64,
    /// The officer's latest word that they are still there.
    pub present_at: Option<i64>,
    /// Its officer is warned that nobody seems to be there.
    pub closing: bool,
    /// Seconds a session may last, and when this one will have.
    pub longest_s: u64,
    /// See [`Standing::longest_s`].
    pub ends_at: Time,
}

impl Standing {
    /// The limit that is near a connection on which nobody did anything for `idle`, and how far away it is.
    #[must_use]
    pub fn near(&self, idle: Duration, now: Time) -> Option<(Limit, Duration)> {
        let limit = |limit, longest: Duration, left: Duration| (left <= warn_before(longest)).then_some((limit, left));
        let may_idle = Duration::from_secs(self.idle_s);
        let idle = limit(Limit::Idle, may_idle, may_idle.saturating_sub(idle));
        let longest = limit(Limit::Longest, Duration::from_secs(self.longest_s), self.ends_at.since(now));
        [idle, longest].into_iter().flatten().min_by_key(|(_, left)| *left)
    }
}

text_enum! {
    /// Which limit is near.
    Limit {
        /// Nobody has touched keyboard or mouse: the viewer will be disconnected.
        Idle = "idle",
        /// The session will have lasted as long as one may, and end.
        Longest = "longest",
    }
}

/// Officers are warned this long before a limit.
pub const WARN_BEFORE: Duration = Duration::from_secs(300);

/// The same for a limit that is itself short: a warning that is always there warns of nothing.
#[must_use]
pub fn warn_before(limit: Duration) -> Duration {
    WARN_BEFORE.min(limit / 2)
}

/// Where a session is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// What kind of place.
    pub place: Place,
    /// The endpoint's name.
    pub name: Option<String>,
    /// Since when.
    pub since: Time,
}

/// Whether a connection of `epoch` must end, and why. `None` for the standing: the session is gone.
#[must_use]
pub fn verdict(epoch: i64, standing: Option<&Standing>) -> Option<Cut> {
    let Some(s) = standing else { return Some(Cut::Ended) };
    if s.state == SessionState::Ended || s.user_disabled {
        return Some(Cut::Ended);
    }
    if s.epoch > epoch {
        return Some(Cut::TakenOver);
    }
    match s.desktop {
        None | Some((_, DesiredDesktop::Absent)) => Some(Cut::DesktopGone),
        _ if !s.assigned => Some(Cut::Ended),
        // A desktop that is failed, starting or stopping may still have a picture worth seeing.
        Some((DesktopState::Stopped | DesktopState::Deleting | DesktopState::Rebuilding, _)) => Some(Cut::DesktopGone),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Standing = Standing {
        state: SessionState::Active,
        epoch: 3,
        user_disabled: false,
        assigned: true,
        desktop: Some((DesktopState::Running, DesiredDesktop::Running)),
        idle_s: 1800,
        present_at: None,
        closing: false,
        longest_s: 36_000,
        ends_at: Time::from_micros(36_000_000_000),
    };

    #[test]
    fn of_two_limits_the_nearer_one_is_warned_of_and_only_when_it_is_near() {
        let good = Standing { idle_s: 900, ..GOOD };
        let (start, minute) = (Time::from_micros(0), Duration::from_secs(60));
        assert_eq!(good.near(Duration::ZERO, start), None);
        assert_eq!(good.near(minute * 10, start), Some((Limit::Idle, minute * 5)));
        let late = start.plus(minute * 598);
        assert_eq!(good.near(Duration::ZERO, late), Some((Limit::Longest, minute * 2)));
        assert_eq!(good.near(minute * 14, late), Some((Limit::Idle, minute)));
        assert_eq!(good.near(minute * 99, late.plus(minute * 9)), Some((Limit::Idle, Duration::ZERO)));
    }

    #[test]
    fn a_connection_lives_until_something_is_wrong() {
        assert_eq!(verdict(3, Some(&GOOD)), None);
        assert_eq!(verdict(3, None), Some(Cut::Ended));
        assert_eq!(verdict(3, Some(&Standing { user_disabled: true, ..GOOD })), Some(Cut::Ended));
        assert_eq!(verdict(3, Some(&Standing { state: SessionState::Ended, ..GOOD })), Some(Cut::Ended));
        assert_eq!(verdict(3, Some(&Standing { assigned: false, ..GOOD })), Some(Cut::Ended));
        assert_eq!(verdict(2, Some(&GOOD)), Some(Cut::TakenOver));
        assert_eq!(verdict(3, Some(&Standing { desktop: None, ..GOOD })), Some(Cut::DesktopGone));
        let desktop = |d, w| verdict(3, Some(&Standing { desktop: Some((d, w)), ..GOOD }));
        assert_eq!(desktop(DesktopState::Running, DesiredDesktop::Absent), Some(Cut::DesktopGone));
        assert_eq!(desktop(DesktopState::Rebuilding, DesiredDesktop::Running), Some(Cut::DesktopGone));
        assert_eq!(desktop(DesktopState::Booting, DesiredDesktop::Running), None);
        assert_eq!(desktop(DesktopState::Failed, DesiredDesktop::Running), None);
    }

    #[test]
    fn what_is_shown_follows_the_desktop_until_a_viewer_came() {
        use DesktopState as D;
        use SessionState as S;
        assert_eq!(shown(S::Starting, Some(D::Running)), S::Ready);
        assert_eq!(shown(S::Ready, Some(D::Booting)), S::Starting);
        assert_eq!(shown(S::Ready, None), S::Starting);
        assert_eq!(shown(S::Disconnected, Some(D::Booting)), S::Disconnected);
        assert_eq!(shown(S::Ended, Some(D::Running)), S::Ended);
    }

    #[test]
    fn a_boot_screen_is_shown_only_to_who_restarted_it() {
        assert!(display_ready(DesktopState::Running, false));
        assert!(!display_ready(DesktopState::Booting, false));
        assert!(display_ready(DesktopState::Booting, true));
        assert!(!display_ready(DesktopState::Stopped, true));
    }

    #[test]
    fn a_session_ends_by_its_own_policy_and_for_one_reason() {
        let now = Time::from_micros(1_000_000_000_000);
        let policy = SessionPolicy { grace_s: 600, longest_s: 7200, ..SessionPolicy::default() };
        let over = |s: Standing, alone: u64, old: u64| {
            let ago = |s| now.minus(Duration::from_secs(s));
            super::over(&Course { standing: &s, policy: &policy, assigned: ago(old), alone_since: ago(alone) }, now)
        };
        let alone = Standing { state: SessionState::Disconnected, ..GOOD };
        assert_eq!(over(alone, 599, 700), None);
        assert_eq!(over(alone, 600, 700), Some(EndReason::Expired));
        assert_eq!(over(GOOD, 600, 700), None, "somebody works there");
        assert_eq!(over(GOOD, 0, 7200), Some(EndReason::Longest), "whoever works there");
        assert_eq!(over(Standing { user_disabled: true, ..GOOD }, 0, 0), Some(EndReason::Disabled));
        assert_eq!(over(Standing { assigned: false, ..GOOD }, 0, 0), Some(EndReason::DesktopGone));
        let waiting = Standing { state: SessionState::Waiting, desktop: None, assigned: false, ..GOOD };
        assert_eq!(over(waiting, 59, 9000), None, "the line has no longest");
        assert_eq!(over(waiting, 60, 60), Some(EndReason::Left));
        assert_eq!(over(Standing { state: SessionState::Ended, ..waiting }, 9000, 9000), None);
    }
}
