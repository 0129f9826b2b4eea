//! `[updates]`: whose releases of the agent are taken in, and how they spread.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::rings::Rings;
use crate::identity::papers;
use crate::identity::releases::Signers;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    /// Public keys, as `admin update key` prints them.
    keys: Vec<String>,
    /// So many of them must sign.
    signatures: Option<u64>,
    /// Codes of the lab's sites.
    lab_sites: Vec<String>,
    /// Code of the one commune.
    pilot_site: Option<String>,
    canaries: Option<u64>,
    share_percent: Option<u64>,
    failures_percent: Option<u64>,
    settled_percent: Option<u64>,
    soak_minutes: Option<u64>,
    spread_minutes: Option<u64>,
    hotfix_spread_minutes: Option<u64>,
    alive_seconds: Option<u64>,
    ask_seconds: Option<u64>,
    copy_minutes: Option<u64>,
}

impl Written {
    pub(super) fn updates(&self, env: impl Fn(&str) -> Option<String>) -> Result<(Rings, Signers), ConfigError> {
        let list = |name: &str, own: &[String]| match env(name) {
            Some(text) => text.split(',').map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect(),
            None => own.to_vec(),
        };
        let number = |key: &'static str, own: Option<u64>, usual: u64, (least, most): (u64, u64)| {
            let text = env(&format!("TRAM_{}", key.replace('.', "_").to_uppercase())).or(own.map(|n| n.to_string()));
            let Some(text) = text else { return Ok(usual) };
            let good = text.parse().ok().filter(|n| (least..=most).contains(n));
            good.ok_or_else(|| ConfigError::Value { key, value: text, why: format!("give {least} to {most}") })
        };
        let minutes = |key, own, usual, bounds| number(key, own, usual, bounds).map(|n| Duration::from_secs(n * 60));
        let seconds = |key, own, usual, bounds| number(key, own, usual, bounds).map(Duration::from_secs);
        let percent = |key, own, usual| number(key, own, usual, (0, 100)).map(|n| u8::try_from(n).unwrap_or(100));
        let keys: Vec<String> = list("TRAM_UPDATES_KEYS", &self.keys);
        let keys = papers::public_keys(keys.iter().map(String::as_str)).map_err(|value| {
            let why = "give the 64 hexadecimal digits that `tram-controller admin update key` prints".to_owned();
            ConfigError::Value { key: "updates.keys", value, why }
        })?;
        let needed = number("updates.signatures", self.signatures, 2, (1, 16))?;
        let rings = Rings {
            lab_sites: list("TRAM_UPDATES_LAB_SITES", &self.lab_sites),
            pilot_site: env("TRAM_UPDATES_PILOT_SITE").or_else(|| self.pilot_site.clone()).unwrap_or_default(),
            canaries: usize::try_from(number("updates.canaries", self.canaries, 5, (0, 1000))?).unwrap_or(1000),
            share_percent: percent("updates.share_percent", self.share_percent, 20)?,
            failures_percent: percent("updates.failures_percent", self.failures_percent, 2)?,
            settled_percent: percent("updates.settled_percent", self.settled_percent, 90)?,
            soak: minutes("updates.soak_minutes", self.soak_minutes, 60, (0, 43_200))?,
            spread: minutes("updates.spread_minutes", self.spread_minutes, 24 * 60, (0, 43_200))?,
            hotfix_spread: minutes("updates.hotfix_spread_minutes", self.hotfix_spread_minutes, 240, (0, 43_200))?,
            alive: seconds("updates.alive_seconds", self.alive_seconds, 600, (1, 86_400))?,
            again: seconds("updates.ask_seconds", self.ask_seconds, 10_800, (1, 86_400))?,
            peer_patience: minutes("updates.copy_minutes", self.copy_minutes, 30, (0, 1440))?,
        };
        Ok((rings, Signers { keys, needed: usize::try_from(needed).unwrap_or(2) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates(toml: &str) -> Result<(Rings, Signers), String> {
        toml::from_str::<Written>(toml).unwrap().updates(|_| None).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_written_takes_nothing_in_and_the_rest_is_as_documented() {
        let (rings, signers) = updates("").unwrap();
        assert_eq!((rings, signers), (Rings::default(), Signers::default()));
        let (rings, _) = updates("lab_sites = [\"1\"]\nspread_minutes = 0\nfailures_percent = 5").unwrap();
        assert_eq!((rings.lab_sites.len(), rings.spread, rings.failures_percent), (1, Duration::ZERO, 5));
        for (bad, names) in [
            ("keys = [\"zz\"]", "updates.keys"),
            ("signatures = 0", "updates.signatures"),
            ("share_percent = 101", "updates.share_percent"),
            ("ask_seconds = 0", "updates.ask_seconds"),
        ] {
            let why = updates(bad).unwrap_err();
            assert!(why.contains(names), "{why}");
        }
    }
}
