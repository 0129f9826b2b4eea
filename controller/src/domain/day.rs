//! Calendar days, for what is valid from one day to another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::Time;

/// Vietnam keeps UTC+7 all year, and a site changes hands at midnight there.
const OFFICE_OFFSET: jiff::tz::Offset = jiff::tz::offset(7);

/// A day such as `2016-01-01`. Sorts by time, also as text in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(jiff::civil::Date);

impl Day {
    /// The day it is in the offices at this time.
    #[must_use]
    pub fn of(now: Time) -> Self {
        let timestamp = jiff::Timestamp::from_microsecond(now.micros()).unwrap_or_default();
        Self(OFFICE_OFFSET.to_datetime(timestamp).date())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is not a day; write it as 2016-01-31", text.escape_debug());
        // The parser behind takes other notations too; text order is time order only in this one.
        let plain = text.len() == 10
            && text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
        if !plain {
            return Err(wrong());
        }
        text.parse().map(Self).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Day {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl utoipa::PartialSchema for Day {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Date)))
            .into()
    }
}

impl utoipa::ToSchema for Day {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_in_the_offices() {
        let at = |text: &str| Time::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        assert_eq!(Day::of(at("2025-06-30T16:59:59Z")).to_string(), "2025-06-30");
        assert_eq!(Day::of(at("2025-06-30T17:00:00Z")).to_string(), "2025-07-01");
    }

    #[test]
    fn only_the_plain_form_is_read() {
        assert_eq!("2016-01-01".parse::<Day>().unwrap().to_string(), "2016-01-01");
        for bad in ["", "2016-1-1", "2016-02-30", "20160101", "2016-01-01T00:00", "+02016-01-", "2016/01/01"] {
            bad.parse::<Day>().unwrap_err();
        }
    }
}
