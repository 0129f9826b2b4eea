//! `[health]`: when offices work, and what the controller itself must reach.

use std::net::SocketAddr;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::incident::hours::Hours;

/// What the rules of incidents go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Office hours, without holidays: those are in the database.
    pub hours: Hours,
    /// Addresses in front of the data centre that the controller must reach, such as the WAN router's.
    pub uplinks: Vec<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    opens: Option<String>,
    closes: Option<String>,
    days: Option<Vec<String>>,
    uplinks: Option<Vec<String>>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Written {
    pub(super) fn health(&self, env: impl Fn(&str) -> Option<String>) -> Result<Health, ConfigError> {
        let mut hours = Hours::default();
        let text = |name: &str, own: &Option<String>| env(name).or_else(|| own.clone());
        if let Some(opens) = text("TRAM_HEALTH_OPENS", &self.opens) {
            hours.opens = minute("health.opens", opens)?;
        }
        if let Some(closes) = text("TRAM_HEALTH_CLOSES", &self.closes) {
            hours.closes = minute("health.closes", closes)?;
        }
        if hours.opens >= hours.closes {
            let value = format!("{:02}:{:02}", hours.closes / 60, hours.closes % 60);
            return Err(wrong("health.closes", value, "give a time after health.opens"));
        }
        let list = |name: &str, own: &Option<Vec<String>>| {
            env(name)
                .map(|t| t.split(',').map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect())
                .or_else(|| own.clone())
        };
        if let Some(days) = list("TRAM_HEALTH_DAYS", &self.days) {
            hours.days = [false; 7];
            for day in days {
                let Some(n) = DAYS.iter().position(|d| *d == day.to_lowercase()) else {
                    return Err(wrong("health.days", day, "give some of mon, tue, wed, thu, fri, sat, sun"));
                };
                hours.days[n] = true;
            }
        }
        let uplinks: Vec<String> = list("TRAM_HEALTH_UPLINKS", &self.uplinks).unwrap_or_default();
        let uplinks = uplinks.into_iter().map(|u| {
            u.parse().map_err(|_| wrong("health.uplinks", u, "give addresses with ports, such as 10.0.0.1:443"))
        });
        Ok(Health { hours, uplinks: uplinks.collect::<Result<_, _>>()? })
    }
}

fn wrong(key: &'static str, value: String, why: &str) -> ConfigError {
    ConfigError::Value { key, value, why: why.into() }
}

/// Minutes after midnight of a time such as `07:30`.
fn minute(key: &'static str, value: String) -> Result<u16, ConfigError> {
    let parsed = value.split_once(':').and_then(|(h, m)| {
        let (h, m): (u16, u16) = (h.parse().ok()?, m.parse().ok()?);
        (h < 24 && m < 60 || (h, m) == (24, 0)).then_some(h * 60 + m)
    });
    parsed.ok_or_else(|| wrong(key, value, "give a time such as 07:30"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(toml: &str) -> Result<Health, ConfigError> {
        toml::from_str::<Written>(toml).unwrap().health(|_| None)
    }

    #[test]
    fn hours_are_read_and_checked() {
        let h =
            health("opens = \"08:00\"\ncloses = \"16:30\"\ndays = [\"mon\", \"Sat\"]\nuplinks = [\"10.0.0.1:443\"]")
                .unwrap();
        assert_eq!((h.hours.opens, h.hours.closes), (480, 990));
        assert_eq!(h.hours.days, [true, false, false, false, false, true, false]);
        assert_eq!(h.uplinks[0].port(), 443);
        assert_eq!(health("").unwrap(), Health::default());
        for bad in [
            "opens = \"25:00\"",
            "closes = \"07:00\"",
            "days = [\"thứ hai\"]",
            "uplinks = [\"router\"]",
            "opens = \"8\"",
        ] {
            assert!(health(bad).unwrap_err().to_string().contains("health."), "{bad}");
        }
    }
}
