//! An office's way to the data centre: what is measured of it, and what is usual there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::time::Time;

/// How far back the usual looks.
pub const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Hours that must be known before anything is usual.
pub const LEAST_HOURS: usize = 12;
const HOUR: Duration = Duration::from_secs(3600);

/// One measurement, as a prober's gauges tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Half of the round trips took less, microseconds.
    pub p50_us: i64,
    /// Nineteen of twenty took less.
    pub p95_us: i64,
    /// Mean difference of neighbours.
    pub jitter_us: i64,
    /// Lost, of a million.
    pub loss_ppm: i64,
}

impl Measured {
    /// From a keyframe's gauges; `None` if this endpoint does not measure, or nothing came back.
    #[must_use]
    pub fn of(gauges: &BTreeMap<String, Option<f32>>) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation)] // milliseconds of a round trip, bounded here
        let read = |name: &str, times: f32| {
            let v = gauges.get(name).copied().flatten()?;
            (v.is_finite() && (0.0..100_000.0).contains(&v)).then_some((v * times) as i64)
        };
        Some(Self {
            p50_us: read("controller_p50_ms", 1000.0)?,
            p95_us: read("controller_p95_ms", 1000.0)?,
            jitter_us: read("controller_jitter_ms", 1000.0).unwrap_or(0),
            loss_ppm: read("controller_loss", 10_000.0)?.min(1_000_000),
        })
    }
}

/// The hour a time lies in.
#[must_use]
pub fn hour(at: Time) -> Time {
    let length = i64::try_from(HOUR.as_micros()).unwrap_or(i64::MAX);
    Time::from_micros(at.micros().div_euclid(length).saturating_mul(length))
}

/// What is usual, of the hours' 95th percentiles: their median, which a bad day does not move. `None`: too few.
#[must_use]
pub fn usual(mut hours: Vec<i64>) -> Option<i64> {
    if hours.len() < LEAST_HOURS {
        return None;
    }
    hours.sort_unstable();
    hours.get(hours.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyframe_of_a_prober_is_a_measurement_and_nothing_else_is() {
        let g = |pairs: &[(&str, f32)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), Some(*v))).collect();
        let all = [("controller_p50_ms", 20.0), ("controller_p95_ms", 31.5), ("controller_loss", 2.0)];
        let m = Measured { p50_us: 20_000, p95_us: 31_500, jitter_us: 0, loss_ppm: 20_000 };
        assert_eq!(Measured::of(&g(&all)), Some(m));
        assert_eq!(Measured::of(&g(&all[1..])), None);
        assert_eq!(Measured::of(&g(&[all[0], ("controller_p95_ms", f32::NAN), all[2]])), None);
        assert_eq!(Measured::of(&g(&[all[0], ("controller_p95_ms", -4.0), all[2]])), None);
        assert_eq!(Measured::of(&[("controller_p95_ms".to_owned(), None)].into()), None);
    }

    #[test]
    fn a_bad_day_does_not_become_usual() {
        assert_eq!(usual(vec![20; 11]), None);
        let mut week = vec![20; 144];
        week.extend([900; 24]);
        assert_eq!(usual(week), Some(20));
    }

    #[test]
    fn hours_begin_on_the_hour() {
        assert_eq!(hour(Time::from_micros(7_199_999_999)), Time::from_micros(3_600_000_000));
        assert_eq!(hour(Time::from_micros(-1)), Time::from_micros(-3_600_000_000));
    }
}
