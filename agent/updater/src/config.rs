//! `updater.toml` as it is written, and as it is used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tram_agent::config::{ConfigError, absolute, read};

use crate::proof::Keys;

/// Where it is looked for.
pub const DEFAULT_FILE: &str = "/etc/tram/updater.toml";
const DEFAULT_STATE: &str = "/var/lib/tram-updater";
const DEFAULT_PACKAGED: &str = "/usr/bin";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state: Option<PathBuf>,
    packaged: Option<PathBuf>,
    keys: Vec<String>,
    signatures: Option<usize>,
    start_seconds: Option<u64>,
    report_seconds: Option<u64>,
    retry_seconds: Option<u64>,
    keep: Option<bool>,
    keep_port: Option<u16>,
}

/// What the updater goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder: releases, `current`, what it remembers.
    pub state: PathBuf,
    /// The folder with the package's own `tram-agent`.
    pub packaged: PathBuf,
    /// Whose signatures count.
    pub keys: Keys,
    /// A release that has not begun to run by then is taken back.
    pub start_within: Duration,
    /// A release that runs but has reported nothing for so long, while the controller answers the updater, is taken back.
    pub report_within: Duration,
    /// Between two tries of one release.
    pub retry: Duration,
    /// It may keep a copy for the computers of its office.
    pub keep: bool,
    /// At this port; 0: any.
    pub keep_port: u16,
}

impl Config {
    /// Reads and validates. Without `file` the default one is read if it exists.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::of(read(file, DEFAULT_FILE)?)
    }

    fn of(f: File) -> Result<Self, ConfigError> {
        let seconds = |key, value: Option<u64>, usual: u64, most: u64| match value.unwrap_or(usual) {
            n if (1..=most).contains(&n) => Ok(Duration::from_secs(n)),
            _ => Err(ConfigError::value(key, format!("give 1 to {most} seconds"))),
        };
        let keys = Keys::new(&f.keys, f.signatures.unwrap_or(2)).map_err(|why| ConfigError::value("keys", why))?;
        Ok(Self {
            state: absolute("state", f.state, DEFAULT_STATE)?,
            packaged: absolute("packaged", f.packaged, DEFAULT_PACKAGED)?,
            keys,
            start_within: seconds("start_seconds", f.start_seconds, 45, 3600)?,
            report_within: seconds("report_seconds", f.report_seconds, 1800, 86_400)?,
            retry: seconds("retry_seconds", f.retry_seconds, 600, 86_400)?,
            keep: f.keep.unwrap_or(true),
            keep_port: f.keep_port.unwrap_or(7445),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        Config::of(toml::from_str(text).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    }

    #[test]
    fn nothing_written_trusts_nobody() {
        let c = parsed("").unwrap();
        assert_eq!((c.state.to_str(), c.keep_port), (Some(DEFAULT_STATE), 7445));
        assert!(!c.keys.can_prove());
    }

    #[test]
    fn the_package_shows_the_defaults() {
        let shipped = include_str!("../../../packaging/agent/root/etc/tram/updater.toml");
        let taken_in = shipped.lines().map(|l| match l.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => l,
        });
        let shown = taken_in.collect::<Vec<_>>().join("\n");
        assert!(shown.contains("\nkeep_port = "), "{shown}");
        for text in [shipped, &shown] {
            assert_eq!(format!("{:?}", parsed(text).unwrap()), format!("{:?}", parsed("").unwrap()));
        }
    }

    #[test]
    fn nonsense_is_named() {
        let key = "0".repeat(64);
        for (bad, names) in [
            ("keys = [\"zz\"]".to_owned(), "keys"),
            (format!("keys = [\"{key}\"]"), "signatures"),
            (format!("keys = [\"{key}\", \"{key}\"]"), "twice"),
            (format!("keys = [\"{key}\"]\nsignatures = 0"), "signatures"),
            ("state = \"x\"".to_owned(), "state"),
            ("start_seconds = 0".to_owned(), "start_seconds"),
            ("stat = 1".to_owned(), "stat"),
        ] {
            let why = parsed(&bad).unwrap_err();
            assert!(why.contains(names), "{bad}: {why}");
        }
    }
}
