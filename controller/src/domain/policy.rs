//! What a session may do and for how long: the configured policy, a pool's own, and the snapshot of both
//! that a session keeps from the moment it gets its desktop.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::assist::Consent;
use super::session::Policy;

/// The longest anything may be set to: a year; more is a slip of the finger.
pub const MOST_MINUTES: u32 = 60 * 24 * 366;

/// A pool's own policy. What it leaves out is as configured for the whole controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolPolicy {
    /// Minutes without a key or the mouse after which the viewer is disconnected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_minutes: Option<u32>,
    /// Minutes without a viewer after which the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_minutes: Option<u32>,
    /// Minutes after which a session ends, whatever its officer does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_minutes: Option<u32>,
    /// Text may be copied between the desktop and the place it is used at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipboard: Option<bool>,
    /// Sound is carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<bool>,
    /// USB devices may be passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usb: Option<bool>,
    /// Bandwidth cap of one session towards the viewer, kbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kbit: Option<u32>,
    /// What an officer says before support looks at their session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assist: Option<Consent>,
}

impl PoolPolicy {
    /// What is wrong with it: field and sentence.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let minutes = |n: Option<u32>| n.is_none_or(|n| (1..=MOST_MINUTES).contains(&n));
        let sentence = format!("give minutes, 1 to {MOST_MINUTES}");
        let mut out = Vec::new();
        for (field, value) in [
            ("idle_minutes", self.idle_minutes),
            ("grace_minutes", self.grace_minutes),
            ("longest_minutes", self.longest_minutes),
        ] {
            if !minutes(value) {
                out.push((field, sentence.clone()));
            }
        }
        if !self.kbit.is_none_or(|k| (64..=1_000_000).contains(&k)) {
            out.push(("kbit", "give kbit/s, 64 to 1000000".into()));
        }
        out
    }
}

/// The policy of one session, as it was when the session got its desktop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SessionPolicy {
    /// Seconds without a key or the mouse after which the viewer is disconnected.
    pub idle_s: u64,
    /// Seconds without a viewer after which the session ends.
    pub grace_s: u64,
    /// Seconds after which it ends, whatever its officer does.
    pub longest_s: u64,
    /// Text may be copied between the desktop and the place it is used at.
    pub clipboard: bool,
    /// Sound is carried.
    pub audio: bool,
    /// USB devices may be passed on.
    pub usb: bool,
    /// Bandwidth cap towards the viewer, kbit/s; none: uncapped.
    pub kbit: Option<u32>,
    /// What its officer says before support looks at it.
    pub assist: Consent,
}

impl Default for SessionPolicy {
    fn default() -> Self {
        SessionPolicy::of(&Policy::default(), &PoolPolicy::default(), false)
    }
}

impl SessionPolicy {
    /// The policy of a session that begins now on a desktop of a pool. `persistent`: the desktop is kept for
    /// its user, so that waiting longer costs nobody else anything.
    #[must_use]
    pub fn of(usual: &Policy, pool: &PoolPolicy, persistent: bool) -> Self {
        let or = |minutes: Option<u32>, usual: Duration| minutes.map_or(usual.as_secs(), |m| u64::from(m) * 60);
        Self {
            idle_s: or(pool.idle_minutes, usual.idle),
            grace_s: or(pool.grace_minutes, if persistent { usual.grace_persistent } else { usual.grace }),
            longest_s: or(pool.longest_minutes, usual.longest),
            clipboard: pool.clipboard.unwrap_or(true),
            audio: pool.audio.unwrap_or(true),
            usb: pool.usb.unwrap_or(false),
            kbit: pool.kbit,
            assist: pool.assist.unwrap_or(Consent::Ask),
        }
    }

    /// Without a key or the mouse for this long the viewer is disconnected.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }

    /// Without a viewer for this long the session ends.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_s)
    }

    /// After this long it ends in any case.
    #[must_use]
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.longest_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_overrides_only_what_it_names() {
        let usual = Policy::default();
        let pool = PoolPolicy { idle_minutes: Some(5), usb: Some(true), ..PoolPolicy::default() };
        let s = SessionPolicy::of(&usual, &pool, true);
        assert_eq!((s.idle_s, s.usb, s.clipboard), (300, true, true));
        assert_eq!((s.grace(), s.longest()), (usual.grace_persistent, usual.longest));
        assert_eq!(SessionPolicy::of(&usual, &pool, false).grace(), usual.grace);
    }

    #[test]
    fn a_snapshot_of_an_older_version_is_filled_up() {
        assert_eq!(serde_json::from_str::<SessionPolicy>("{}").unwrap(), SessionPolicy::default());
        assert!(serde_json::from_str::<PoolPolicy>(r#"{"idle":5}"#).is_err(), "a slip in a pool's policy is told");
    }
}
