//! What endpoints report of their health: what of it is kept, when it happened, and what it changes.
//!
//! Reports come from outside, late, twice, out of order and with wrong clocks. Everything here is pure:
//! a record goes in with the time it arrived, a new latest state and the transitions come out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tram_wire::check::{CheckState, Finding};
use tram_wire::report::{CheckResult, Gap, Item, Note, Probe, Record, Report, limits};

use super::time::Time;

/// How long records are kept after they came.
pub const KEEP_SAMPLES: Duration = Duration::from_secs(3 * 86_400);
/// How long transitions are kept.
pub const KEEP_TRANSITIONS: Duration = Duration::from_secs(400 * 86_400);
/// How long a live view lasts without being asked for again.
pub const LIVE: Duration = Duration::from_secs(tram_wire::plan::MAX_LIVE_S as u64);

/// What a check says, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Which check.
    pub check: String,
    /// How bad.
    pub state: CheckState,
    /// Which sentence.
    pub code: String,
    /// The blanks of the sentence.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Since when.
    pub since: Time,
}

impl From<&Kept> for Finding {
    fn from(k: &Kept) -> Self {
        Self { check: k.check.clone(), state: k.state, code: k.code.clone(), params: k.params.clone() }
    }
}

/// A probe and when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// When.
    pub at: Time,
    /// How it went.
    pub probe: Probe,
}

/// The newest that is known of an endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    /// Boot of the newest record.
    pub boot: String,
    /// Its number.
    pub seq: i64,
    /// When it was made.
    pub at: Time,
    /// Gauges by name.
    pub gauges: BTreeMap<String, f32>,
    /// Items by section.
    pub inventory: BTreeMap<String, Vec<Item>>,
    /// The newest of each probe.
    pub probes: BTreeMap<String, Probed>,
    /// Checks in the order they came first.
    pub checks: Vec<Kept>,
}

/// A check changed its mind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// From which state; unknown for the first word of a check, and for what arrives late.
    pub from: Option<CheckState>,
    /// What it says now.
    pub to: CheckResult,
}

/// What of a record is kept as history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Gauges are complete.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub key: bool,
    /// Gauges that moved.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<String, Option<f32>>,
    /// Probes that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// What the agent said of itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

impl From<&Record> for Sample {
    fn from(r: &Record) -> Self {
        Self {
            key: r.key,
            gauges: r.gauges.clone(),
            probes: r.probes.clone(),
            notes: r.notes.clone(),
            gap: r.gap.clone(),
        }
    }
}

/// Cuts a report down to what an endpoint may have; how many things were cut.
pub fn bound(report: &mut Report) -> usize {
    let mut cut = cut_list(&mut report.records, limits::RECORDS);
    cut_text(&mut report.boot, limits::NAME);
    for r in &mut report.records {
        cut += cut_map(&mut r.gauges, limits::GAUGES, |v| v.is_none_or(f32::is_finite));
        cut += cut_map(&mut r.inventory, limits::SECTIONS, |_| true);
        for items in r.inventory.values_mut() {
            cut += cut_list(items, limits::ITEMS);
            cut += items.iter_mut().map(cut_item).sum::<usize>();
        }
        cut += cut_list(&mut r.events, limits::EVENTS);
        for e in &mut r.events {
            cut_text(&mut e.section, limits::NAME);
            cut += cut_item(&mut e.item);
        }
        cut += cut_list(&mut r.probes, limits::EVENTS);
        for p in &mut r.probes {
            [&mut p.name, &mut p.kind].into_iter().for_each(|t| cut_text(t, limits::NAME));
            p.error.iter_mut().for_each(|t| cut_text(t, limits::NAME));
            cut += cut_facts(&mut p.facts);
        }
        cut += cut_list(&mut r.checks, limits::CHECKS);
        for c in &mut r.checks {
            [&mut c.check, &mut c.code].into_iter().for_each(|t| cut_text(t, limits::NAME));
            cut += cut_facts(&mut c.params);
        }
        cut += cut_list(&mut r.notes, limits::EVENTS);
        for n in &mut r.notes {
            cut_text(&mut n.code, limits::NAME);
            cut += cut_facts(&mut n.params);
        }
        r.gap.iter_mut().for_each(|g| cut_text(&mut g.class, limits::NAME));
    }
    cut
}

fn cut_item(item: &mut Item) -> usize {
    cut_text(&mut item.id, limits::TEXT);
    cut_text(&mut item.kind, limits::NAME);
    item.name.iter_mut().for_each(|t| cut_text(t, limits::TEXT));
    cut_facts(&mut item.facts)
}

fn cut_facts(facts: &mut BTreeMap<String, String>) -> usize {
    let cut = cut_map(facts, limits::FACTS, |_| true);
    facts.values_mut().for_each(|t| cut_text(t, limits::TEXT));
    cut
}

fn cut_list<T>(list: &mut Vec<T>, most: usize) -> usize {
    let over = list.len().saturating_sub(most);
    list.truncate(most);
    over
}

/// A name that is too long or has control characters is no name of ours.
fn cut_map<V>(map: &mut BTreeMap<String, V>, most: usize, good: impl Fn(&V) -> bool) -> usize {
    let before = map.len();
    let mut left = most;
    map.retain(|k, v| {
        let keep = left > 0 && k.len() <= limits::NAME && !k.chars().any(char::is_control) && good(v);
        left -= usize::from(keep);
        keep
    });
    before - map.len()
}

fn cut_text(text: &mut String, most: usize) {
    if text.len() > most || text.chars().any(char::is_control) {
        *text = text.chars().filter(|c| !c.is_control()).take(most).collect();
    }
}

/// When a record was made, by our clock.
///
/// Of the running boot the age is exact, whatever the endpoint's calendar says. Of an earlier boot only
/// the calendar is left: its error now is taken to be its error then. Nothing is later than its arrival,
/// and what would be older than we keep anything is dated to the edge: its order is kept by `seq`.
#[must_use]
pub fn dated(report: &Report, record: &Record, arrived: Time) -> Time {
    let age_ms = match report.mono_ms {
        Some(sent) if sent >= record.mono_ms => i64::try_from(sent - record.mono_ms).unwrap_or(i64::MAX),
        _ => report.at_ms.saturating_sub(record.at_ms),
    };
    let oldest = i64::try_from(KEEP_TRANSITIONS.as_millis()).unwrap_or(i64::MAX);
    let age = Duration::from_millis(age_ms.clamp(0, oldest).unsigned_abs());
    arrived.minus(age)
}

impl Latest {
    /// Whether a record made then is news, or a late word about the past. What an earlier boot left behind never is,
    /// whenever a calendar that was set meanwhile says it was made.
    #[must_use]
    pub fn is_news(&self, report: &Report, seq: i64, at: Time) -> bool {
        if report.boot == self.boot { seq > self.seq } else { report.mono_ms.is_some() && at >= self.at }
    }

    /// Takes a record in; what checks changed their mind.
    pub fn apply(&mut self, boot: &str, record: &Record, at: Time) -> Vec<Transition> {
        boot.clone_into(&mut self.boot);
        self.seq = sequence(record);
        self.at = at;
        if record.key {
            self.gauges.clear();
            self.inventory.clear();
        }
        for (name, value) in &record.gauges {
            match value {
                None => drop(self.gauges.remove(name)),
                // Over many records the names could still add up.
                Some(v) if self.gauges.len() < limits::GAUGES || self.gauges.contains_key(name) => {
                    self.gauges.insert(name.clone(), *v);
                }
                Some(_) => {}
            }
        }
        for (section, items) in &record.inventory {
            if self.inventory.len() < limits::SECTIONS || self.inventory.contains_key(section) {
                self.inventory.insert(section.clone(), items.clone());
            }
        }
        for probe in &record.probes {
            if self.probes.len() < limits::EVENTS || self.probes.contains_key(&probe.name) {
                self.probes.insert(probe.name.clone(), Probed { at, probe: probe.clone() });
            }
        }
        self.judge(record, at)
    }

    fn judge(&mut self, record: &Record, at: Time) -> Vec<Transition> {
        let mut changed = Vec::new();
        if record.key && !record.checks.is_empty() {
            self.checks.retain(|k| record.checks.iter().any(|c| c.check == k.check));
        }
        for c in &record.checks {
            let since = at.minus(Duration::from_millis(c.for_ms).min(KEEP_TRANSITIONS));
            let room = self.checks.len() < limits::CHECKS;
            let old = self.checks.iter_mut().find(|k| k.check == c.check);
            let from = old.as_ref().map(|k| k.state);
            match old {
                Some(k) if k.state == c.state && k.code == c.code => {
                    k.params.clone_from(&c.params);
                    continue;
                }
                Some(k) => {
                    (k.state, k.since) = (c.state, since);
                    k.code.clone_from(&c.code);
                    k.params.clone_from(&c.params);
                }
                None if room => {
                    let CheckResult { check, state, code, params, .. } = c.clone();
                    self.checks.push(Kept { check, state, code, params, since });
                }
                None => continue,
            }
            changed.push(Transition { at: since, from, to: c.clone() });
        }
        changed
    }

    /// The checks as findings.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.checks.iter().map(Finding::from).collect()
    }
}

/// What a late record says of the past. A keyframe repeats; only what changed is news of then.
#[must_use]
pub fn late(record: &Record, at: Time) -> Vec<Transition> {
    if record.key {
        return Vec::new();
    }
    record.checks.iter().map(|c| Transition { at, from: None, to: c.clone() }).collect()
}

/// A record's number as databases keep it.
#[must_use]
pub fn sequence(record: &Record) -> i64 {
    i64::try_from(record.seq).unwrap_or(i64::MAX)
}

/// Who probes for a site: whoever does already, as long as it is heard; else the one enrolled first.
#[must_use]
pub fn elect<T: Copy + Ord>(current: Option<T>, online: &[T]) -> Option<T> {
    current.filter(|c| online.contains(c)).or_else(|| online.iter().min().copied())
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
