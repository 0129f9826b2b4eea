//! `[sessions]`: how long they may last, in minutes.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::session::Policy;

/// A year: longer is a slip of the finger.
const MOST: u64 = 60 * 24 * 366;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sessions {
    /// Without a viewer, when the desktop is thrown away afterwards.
    grace_minutes: Option<u64>,
    /// Without a viewer, when the desktop is kept for its user.
    kept_grace_minutes: Option<u64>,
    /// With a viewer, without a key or the mouse.
    idle_minutes: Option<u64>,
    /// With a viewer.
    longest_minutes: Option<u64>,
    /// With an endpoint whose line is away.
    line_grace_minutes: Option<u64>,
    /// How long a lease is good; 0: there are none.
    lease_minutes: Option<u64>,
    /// At a computer whose identity goes into quarantine.
    quarantine: Option<String>,
}

impl Sessions {
    pub(super) fn policy(&self, env: impl Fn(&str) -> Option<String>) -> Result<Policy, ConfigError> {
        let usual = Policy::default();
        let from = |least: u64, key: &'static str, variable: &str, written: Option<u64>, usual: Duration| {
            let value = env(variable).or(written.map(|n| n.to_string()));
            let Some(value) = value else { return Ok(usual) };
            match value.parse::<u64>() {
                Ok(n) if (least..=MOST).contains(&n) => Ok(Duration::from_secs(n * 60)),
                _ => Err(ConfigError::Value { key, value, why: format!("give minutes, {least} to {MOST}") }),
            }
        };
        let quarantine = match env("TRAM_SESSIONS_QUARANTINE").or_else(|| self.quarantine.clone()) {
            None => usual.quarantine,
            Some(value) => value.parse().map_err(|_| ConfigError::Value {
                key: "sessions.quarantine",
                value,
                why: "give goes_on or is_cut".into(),
            })?,
        };
        let minutes = |key, variable: &str, written, usual| from(1, key, variable, written, usual);
        Ok(Policy {
            lease: from(0, "sessions.lease_minutes", "TRAM_SESSIONS_LEASE_MINUTES", self.lease_minutes, usual.lease)?,
            grace: minutes("sessions.grace_minutes", "TRAM_SESSIONS_GRACE_MINUTES", self.grace_minutes, usual.grace)?,
            grace_persistent: minutes(
                "sessions.kept_grace_minutes",
                "TRAM_SESSIONS_KEPT_GRACE_MINUTES",
                self.kept_grace_minutes,
                usual.grace_persistent,
            )?,
            idle: minutes("sessions.idle_minutes", "TRAM_SESSIONS_IDLE_MINUTES", self.idle_minutes, usual.idle)?,
            longest: minutes(
                "sessions.longest_minutes",
                "TRAM_SESSIONS_LONGEST_MINUTES",
                self.longest_minutes,
                usual.longest,
            )?,
            quarantine,
            handshake: usual.handshake,
            limits: usual.limits,
            line_grace: minutes(
                "sessions.line_grace_minutes",
                "TRAM_SESSIONS_LINE_GRACE_MINUTES",
                self.line_grace_minutes,
                usual.line_grace,
            )?,
        })
    }
}
