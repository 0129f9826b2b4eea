//! `[support]`: whom people call.

use serde::Deserialize;

use super::ConfigError;

/// Longest number shown.
const MOST: usize = 40;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Support {
    /// Telephone of the helpdesk, as people write it.
    phone: Option<String>,
}

impl Support {
    /// The number as it is shown; empty: none.
    pub(super) fn phone(&self, env: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
        let value = env("TRAM_SUPPORT_PHONE").or_else(|| self.phone.clone()).unwrap_or_default();
        let good = value.chars().all(|c| c.is_ascii_digit() || " +-.()*#,/".contains(c));
        if good && value.len() <= MOST {
            return Ok(value.trim().to_owned());
        }
        let why = format!("give a telephone number of at most {MOST} characters, such as 024 3825 3536");
        Err(ConfigError::Value { key: "support.phone", value, why })
    }
}
