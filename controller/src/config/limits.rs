//! `[limits]`: what sessions may fill of the lines they share.

use serde::Deserialize;

use super::ConfigError;
use crate::domain::limits::{LINE_KBIT, Limits};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    /// Part of a site's line that its sessions may fill.
    site_percent: Option<u32>,
    /// All sessions of one gateway together, kbit/s.
    gateway_kbit: Option<u32>,
}

impl Written {
    pub(super) fn limits(&self, env: impl Fn(&str) -> Option<String>) -> Result<Limits, ConfigError> {
        let number = |key: &'static str, variable: &str, written: Option<u32>, least: u32, most: u32| {
            let Some(value) = env(variable).or(written.map(|n| n.to_string())) else { return Ok(None) };
            match value.parse::<u32>() {
                Ok(n) if (least..=most).contains(&n) => Ok(Some(n)),
                _ => Err(ConfigError::Value { key, value, why: format!("give a whole number, {least} to {most}") }),
            }
        };
        let usual = Limits::default();
        let percent = number("limits.site_percent", "TRAM_LIMITS_SITE_PERCENT", self.site_percent, 10, 100)?;
        let (least, most) = (*LINE_KBIT.start(), *LINE_KBIT.end());
        let gateway = number("limits.gateway_kbit", "TRAM_LIMITS_GATEWAY_KBIT", self.gateway_kbit, least, most)?;
        Ok(Limits { site_percent: percent.unwrap_or(usual.site_percent), gateway_kbit: gateway })
    }
}
