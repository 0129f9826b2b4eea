//! `[runbooks]`: the installation's own runbooks, and whose signatures count.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::identity::papers;
use crate::identity::shelf::Shelf;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    /// Folder of signed files; none: only those of the program.
    dir: Option<PathBuf>,
    /// Public keys, as `runbook keygen` prints them.
    keys: Vec<String>,
}

impl Written {
    pub(super) fn shelf(&self, env: impl Fn(&str) -> Option<String>) -> Result<Shelf, ConfigError> {
        let folder = env("TRAM_RUNBOOKS_DIR").map(PathBuf::from).or_else(|| self.dir.clone());
        let given = env("TRAM_RUNBOOKS_KEYS");
        let written: Vec<&str> = match &given {
            Some(text) => text.split(',').filter(|k| !k.trim().is_empty()).collect(),
            None => self.keys.iter().map(String::as_str).collect(),
        };
        let keys = papers::public_keys(written).map_err(|value| {
            let why = "give the 64 hexadecimal digits that `tram-controller runbook keygen` prints".to_owned();
            ConfigError::Value { key: "runbooks.keys", value, why }
        })?;
        Ok(Shelf { folder, keys })
    }
}
