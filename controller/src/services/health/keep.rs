//! Reports of many endpoints on their way into the database, in one transaction and few statements.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use metrics::counter;
use tram_wire::ids::EndpointId;
use tram_wire::report::{Event, Happened, Record, Report};

use crate::domain::endpoint::{Verdict, verdict};
use crate::domain::health::{Latest, Sample, Transition, dated, late, sequence};
use crate::domain::path::{self, Measured};
use crate::domain::time::Time;
use crate::services::endpoints::plain;
use crate::store::health_batch::{NewSample, News, Parts};
use crate::store::{StoreError, Tx, endpoints as rows};

type Result<T> = std::result::Result<T, StoreError>;

/// A report and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Whose.
    pub id: EndpointId,
    /// The report.
    pub report: &'a Report,
    /// When.
    pub at: Time,
}

/// What becomes of one endpoint.
struct Fold {
    latest: Latest,
    before: Verdict,
    fresh: Parts,
    changes: rows::Report,
    /// When its newest report came, if it brought news.
    news: Option<Time>,
}

/// Keeps reports, in the order they came: records that are there are skipped, late ones become history, new ones
/// the present.
///
/// # Errors
/// Those of the store; then nothing of it is kept.
pub async fn keep_all(tx: &mut Tx, all: &[Arrival<'_>]) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    let ids: BTreeSet<EndpointId> = all.iter().map(|a| a.id).collect();
    // What seldom changes is read only where something of it came: it is most of what is known.
    let whole = all.iter().filter(|a| a.report.records.iter().any(|r| parts_of(r).any())).map(|a| a.id).collect();
    let latest = tx.latest_healths(&ids, &whole).await?;
    let mut folds: HashMap<EndpointId, Fold> = latest.into_iter().map(|(id, l)| (id, Fold::new(l))).collect();
    let records: Vec<(&Arrival<'_>, &Record, Time)> = all
        .iter()
        .filter(|a| folds.contains_key(&a.id))
        .flat_map(|a| a.report.records.iter().map(move |r| (a, r, dated(a.report, r, a.at))))
        .collect();
    let samples: Vec<NewSample<'_>> = records.iter().map(|(a, r, at)| sample(a, r, *at)).collect();
    let mut kept = tx.add_samples(&samples).await?;
    let mut turns: Vec<(EndpointId, Transition, Time)> = Vec::new();
    for (a, record, at) in &records {
        if !kept.remove(&(a.id, a.report.boot.clone(), sequence(record))) {
            counter!("agent_records_repeated_total").increment(1);
            continue;
        }
        let Some(fold) = folds.get_mut(&a.id) else { continue };
        turns.extend(fold.take(a, record, *at).into_iter().map(|t| (a.id, t, a.at)));
        if record.key {
            line_hour(tx, a.id, record, *at).await?;
        }
        for event in &record.events {
            tx.endpoint_event(a.id, kind_of(event), &told(event), *at).await?;
        }
    }
    tx.add_transitions(&turns).await?;
    write(tx, folds).await
}

async fn write(tx: &mut Tx, folds: HashMap<EndpointId, Fold>) -> Result<()> {
    // One order for all writers: two controllers can't wait for each other.
    let mut folds: BTreeMap<EndpointId, Fold> = folds.into_iter().filter(|(_, f)| f.news.is_some()).collect();
    let news = folds
        .iter()
        .filter_map(|(id, f)| f.news.map(|arrived| News { id: *id, latest: &f.latest, parts: f.fresh, arrived }));
    tx.put_latest_healths(&news.collect::<Vec<_>>()).await?;
    let mut reports = Vec::new();
    for (id, f) in &mut folds {
        let Some(at) = f.news else { continue };
        let mut changes = std::mem::take(&mut f.changes);
        if f.fresh.checks {
            let findings = f.latest.findings();
            let now = verdict(&findings);
            changes.findings = plain(&findings).ok().map(|list| (list, now));
            if f.before != now {
                tx.endpoint_event(*id, "verdict", &format!("{} -> {now}", f.before), at).await?;
            }
        }
        if changes.says_anything() {
            reports.push((*id, changes));
        }
    }
    tx.put_endpoint_reports(&reports).await
}

impl Fold {
    fn new(latest: Latest) -> Self {
        let before = verdict(&latest.findings());
        Self { latest, before, fresh: Parts::default(), changes: rows::Report::default(), news: None }
    }

    /// Takes a record in; what checks changed their mind.
    fn take(&mut self, a: &Arrival<'_>, record: &Record, at: Time) -> Vec<Transition> {
        if !self.latest.is_news(a.report, sequence(record), at) {
            return late(record, at);
        }
        self.news = Some(a.at);
        let changes = &mut self.changes;
        changes.hardware = record.hardware.as_ref().and_then(|h| plain(h).ok()).or(changes.hardware.take());
        changes.vitals = record.vitals.as_ref().and_then(|v| plain(v).ok()).or(changes.vitals.take());
        changes.network = record.network.as_ref().and_then(|n| plain(n).ok()).or(changes.network.take());
        let parts = parts_of(record);
        self.fresh.inventory |= parts.inventory;
        self.fresh.probes |= parts.probes;
        self.fresh.checks |= parts.checks;
        self.latest.apply(&a.report.boot, record, at)
    }
}

/// What a record says besides gauges.
fn parts_of(record: &Record) -> Parts {
    Parts {
        inventory: record.key || !record.inventory.is_empty(),
        probes: !record.probes.is_empty(),
        checks: !record.checks.is_empty(),
    }
}

fn sample<'a>(a: &Arrival<'a>, record: &Record, at: Time) -> NewSample<'a> {
    let seq = sequence(record);
    NewSample { id: a.id, boot: &a.report.boot, seq, at, arrived: a.at, body: Sample::from(record) }
}

/// A prober's keyframe is one measurement of its office's line; what is usual there follows.
async fn line_hour(tx: &mut Tx, id: EndpointId, record: &Record, at: Time) -> Result<()> {
    let Some(measured) = Measured::of(&record.gauges) else { return Ok(()) };
    let hour = path::hour(at);
    let Some(site) = tx.add_path_hour(id, hour, &measured).await? else { return Ok(()) };
    let hours = tx.path_hours(&site, hour.minus(path::WEEK), hour).await?;
    let count = hours.len();
    match path::usual(hours) {
        Some(p95_us) => tx.put_usual_path(&site, p95_us, count, at).await,
        None => Ok(()),
    }
}

fn kind_of(event: &Event) -> &'static str {
    match event.what {
        Happened::Attached => "attached",
        Happened::Detached => "detached",
        Happened::Changed | Happened::Other => "changed",
    }
}

fn told(e: &Event) -> String {
    let name = e.item.name.as_deref().unwrap_or(&e.item.id);
    match e.item.facts.get("reasons") {
        Some(why) if e.what == Happened::Changed => format!("{}: {name} ({why})", e.section),
        _ => format!("{}: {name}", e.section),
    }
}
