//! `[health]`: when offices work, and what the controller itself must reach.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::endpoint::Pace;
use crate::domain::incident::hours::Hours;

/// What the rules of incidents go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Office hours, without holidays: those are in the database.
    pub hours: Hours,
    /// Addresses in front of the data centre that the controller must reach, such as the WAN router's.
    pub uplinks: Vec<SocketAddr>,
    /// How often endpoints speak, and how often what they say is judged.
    pub pace: Pace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    opens: Option<String>,
    closes: Option<String>,
    days: Option<Vec<String>>,
    uplinks: Option<Vec<String>>,
    beat_seconds: Option<u64>,
    report_seconds: Option<u64>,
    keyframe_seconds: Option<u64>,
    look_seconds: Option<u64>,
    approval_seconds: Option<u64>,
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
        let pace = self.pace(&env)?;
        Ok(Health { hours, uplinks: uplinks.collect::<Result<_, _>>()?, pace })
    }

    fn pace(&self, env: impl Fn(&str) -> Option<String>) -> Result<Pace, ConfigError> {
        let usual = Pace::default();
        let of = |key: &'static str, own: Option<u64>, usual: Duration, (least, most): (u64, u64)| {
            let name = format!("TRAM_{}", key.replace('.', "_").to_uppercase());
            let text = env(&name).or_else(|| own.map(|n| n.to_string()));
            let Some(text) = text else { return Ok(usual) };
            let seconds = text.parse().ok().filter(|n| (least..=most).contains(n));
            seconds.map(Duration::from_secs).ok_or_else(|| wrong(key, text, &format!("give {least} to {most} seconds")))
        };
        Ok(Pace {
            beat: of("health.beat_seconds", self.beat_seconds, usual.beat, (2, 300))?,
            report: of("health.report_seconds", self.report_seconds, usual.report, (2, 3600))?,
            keyframe: of("health.keyframe_seconds", self.keyframe_seconds, usual.keyframe, (60, 3600))?,
            look: of("health.look_seconds", self.look_seconds, usual.look, (1, 60))?,
            approval: of("health.approval_seconds", self.approval_seconds, usual.approval, (60, 90 * 86_400))?,
        })
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
        let pace = health("beat_seconds = 60\nlook_seconds = 5").unwrap().pace;
        assert_eq!((pace.silent_within().as_secs(), pace.look.as_secs()), (140, 5));
        for bad in [
            "opens = \"25:00\"",
            "closes = \"07:00\"",
            "days = [\"thứ hai\"]",
            "uplinks = [\"router\"]",
            "beat_seconds = 1",
            "keyframe_seconds = 4000",
            "opens = \"8\"",
        ] {
            assert!(health(bad).unwrap_err().to_string().contains("health."), "{bad}");
        }
    }
}
