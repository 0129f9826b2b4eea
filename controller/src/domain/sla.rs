//! What a carrier owes for an office's line: outages of a month, less announced work, over all hours and over office
//! hours.

use serde::{Deserialize, Serialize};

use super::incident::hours::Hours;
use super::time::Time;

/// A time from its first microsecond to before its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// From.
    pub from: Time,
    /// Until before.
    pub until: Time,
}

impl Span {
    /// What two have in common.
    #[must_use]
    pub fn meet(self, other: Self) -> Option<Self> {
        let (from, until) = (self.from.max(other.from), self.until.min(other.until));
        (from < until).then_some(Self { from, until })
    }

    fn seconds(self) -> i64 {
        (self.until.micros() - self.from.micros()) / 1_000_000
    }
}

/// A month as people write it: `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month {
    year: i16,
    month: i8,
}

impl std::str::FromStr for Month {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let (year, month) = s.split_once('-').filter(|(y, m)| y.len() == 4 && m.len() == 2).ok_or(())?;
        let (year, month) = (year.parse().map_err(|_| ())?, month.parse().map_err(|_| ())?);
        ((2000..2200).contains(&year) && (1..=12).contains(&month)).then_some(Self { year, month }).ok_or(())
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl Month {
    /// The whole month by the clock of the offices (UTC+7).
    #[must_use]
    pub fn span(self) -> Span {
        let start = |year, month| {
            let day = jiff::civil::date(year, month, 1).at(0, 0, 0, 0);
            let at = jiff::tz::offset(7).to_timestamp(day).unwrap_or_default();
            Time::from_micros(at.as_microsecond())
        };
        let next = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        Span { from: start(self.year, self.month), until: start(next.0, next.1) }
    }
}

/// Spans in order, those that touch made one.
#[must_use]
pub fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::new();
    for s in spans.into_iter().filter(|s| s.from < s.until) {
        match out.last_mut() {
            Some(last) if s.from <= last.until => last.until = last.until.max(s.until),
            _ => out.push(s),
        }
    }
    out
}

/// What is in both.
#[must_use]
pub fn both(a: &[Span], b: &[Span]) -> Vec<Span> {
    union(a.iter().flat_map(|x| b.iter().filter_map(|y| x.meet(*y))).collect())
}

/// What is in `a` and not in `b`.
#[must_use]
pub fn without(a: &[Span], b: &[Span]) -> Vec<Span> {
    let mut left = union(a.to_vec());
    for cut in union(b.to_vec()) {
        left = left
            .into_iter()
            .flat_map(|s| {
                let before = Span { from: s.from, until: s.until.min(cut.from) };
                let after = Span { from: s.from.max(cut.until), until: s.until };
                [before, after].into_iter().filter(|s| s.from < s.until)
            })
            .collect();
    }
    union(left)
}

/// Seconds of all of them.
#[must_use]
pub fn seconds(spans: &[Span]) -> i64 {
    spans.iter().map(|s| s.seconds()).sum()
}

/// Office hours within a time, to the minute.
#[must_use]
pub fn open(hours: &Hours, within: Span) -> Vec<Span> {
    const MINUTE: i64 = 60_000_000;
    let first = within.from.micros().div_euclid(MINUTE);
    let last = within.until.micros().div_euclid(MINUTE);
    let minutes = (first..=last).map(|m| Time::from_micros(m * MINUTE)).filter(|t| hours.open(*t));
    let spans = minutes.map(|t| Span { from: t, until: Time::from_micros(t.micros() + MINUTE) });
    both(&union(spans.collect()), &[within])
}

/// How much of a time a line was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SlaFigures)]
pub struct Figures {
    /// Seconds that count: the time less announced work.
    pub counted_s: i64,
    /// Seconds of these without a line.
    pub down_s: i64,
    /// Outages that count.
    pub outages: usize,
    /// Percent of the counted time with a line, to a thousandth.
    pub availability: f64,
}

/// Reckons one basis: `hours` are those that count at all.
#[must_use]
#[allow(clippy::cast_precision_loss)] // seconds of a month
pub fn figures(hours: &[Span], outages: &[Span], works: &[Span]) -> Figures {
    let counted = without(hours, works);
    let down = both(&union(outages.to_vec()), &counted);
    let (counted_s, down_s) = (seconds(&counted), seconds(&down));
    let hit = outages.iter().filter(|o| !both(&[**o], &counted).is_empty()).count();
    let availability = if counted_s == 0 { 100.0 } else { 100.0 * (counted_s - down_s) as f64 / counted_s as f64 };
    Figures { counted_s, down_s, outages: hit, availability: (availability * 1000.0).round() / 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn span(from: &str, until: &str) -> Span {
        Span { from: at(from), until: at(until) }
    }

    #[test]
    fn a_month_is_the_offices_own() {
        let month: Month = "2026-12".parse().unwrap();
        assert_eq!(month.span(), span("2026-11-30T17:00:00Z", "2026-12-31T17:00:00Z"));
        assert_eq!(month.to_string(), "2026-12");
        for bad in ["2026-13", "2026-00", "26-12", "2026-1", "2026-12-01", "", "2026_12"] {
            assert!(bad.parse::<Month>().is_err(), "{bad}");
        }
    }

    #[test]
    fn work_and_overlaps_count_once() {
        let month = [span("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")];
        let outages = [
            span("2026-11-01T01:00:00Z", "2026-11-01T02:00:00Z"),
            span("2026-11-01T01:30:00Z", "2026-11-01T03:00:00Z"),
        ];
        let works = [span("2026-11-01T02:30:00Z", "2026-11-01T04:00:00Z")];
        let f = figures(&month, &outages, &works);
        assert_eq!((f.counted_s, f.down_s, f.outages), (86_400 - 5400, 5400, 2));
        assert!((f.availability - 93.333).abs() < 0.0005, "{}", f.availability);
        // An outage that lies in announced work is none.
        let f = figures(&month, &[span("2026-11-01T03:00:00Z", "2026-11-01T03:30:00Z")], &works);
        assert_eq!((f.down_s, f.outages, f.availability), (0, 0, 100.0));
        assert_eq!(figures(&[], &outages, &[]).availability, 100.0);
    }

    #[test]
    fn office_hours_are_cut_out_of_the_month() {
        // Wednesday in Hanoi: 07:30 to 17:00 is 00:30 to 10:00 UTC.
        let hours = open(&Hours::default(), span("2026-11-24T17:00:00Z", "2026-11-25T17:00:00Z"));
        assert_eq!(hours, [span("2026-11-25T00:30:00Z", "2026-11-25T10:00:00Z")]);
        let night = [span("2026-11-25T11:00:00Z", "2026-11-25T13:00:00Z")];
        assert_eq!(figures(&hours, &night, &[]).down_s, 0);
        let cut = without(&hours, &[span("2026-11-25T01:00:00Z", "2026-11-25T02:00:00Z")]);
        assert_eq!((cut.len(), seconds(&cut)), (2, 34_200 - 3600));
    }
}
