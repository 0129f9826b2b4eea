//! Evidence of a line's outages for its carrier: what was down when and why we say so, less announced work, signed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tram_wire::ids::EndpointId;
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::day::Day;
use crate::domain::incident::hours::Hours;
use crate::domain::incident::{Cause, Confidence, Evidence};
use crate::domain::sla::{self, Figures, Month, Span};
use crate::domain::time::Time;
use crate::identity::ca::CaError;
use crate::identity::papers::{PaperKey, Purpose};
use crate::store::incidents::Incident;

/// The key that signs evidence, in the data folder.
pub const KEY_FILE: &str = "evidence-key.pem";
/// Silence is noticed, and then judged, within this time after it began.
const BEGAN_WITHIN: Duration = Duration::from_secs(15 * 60);

/// An outage of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlaOutage {
    /// The incident.
    pub incident: Uuid,
    /// From: when the last computer of the office was heard last.
    pub begin: Time,
    /// Until: when the first one was heard again; absent: not over yet.
    pub end: Option<Time>,
    /// Why, as judged in the end.
    pub cause: Cause,
    /// Why, as judged at first.
    pub first_cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// What speaks for it.
    pub evidence: Vec<Evidence>,
    /// Seconds in this month.
    pub seconds: i64,
    /// Seconds that count: without announced work.
    pub counted_s: i64,
    /// Seconds of these in office hours.
    pub office_s: i64,
}

/// Something that is not the line's fault, or is told elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlaExcluded {
    /// The incident.
    pub incident: Uuid,
    /// From.
    pub begin: Time,
    /// Until.
    pub end: Option<Time>,
    /// Why it happened.
    pub cause: Cause,
    /// Why it does not count: `not_the_line`, `degraded`, `merged`.
    pub why: String,
}

/// Announced work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlaWork {
    /// From.
    pub from: Time,
    /// Until.
    pub until: Time,
    /// What for.
    pub reason: String,
}

/// A month of an office's line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SlaReport {
    /// The installation that saw it.
    pub installation: Uuid,
    /// Code of the site.
    pub site: String,
    /// Its name.
    pub site_name: String,
    /// Whose line.
    pub carrier: Option<String>,
    /// The month by the clock of the offices, such as `2026-11`.
    pub month: String,
    /// From.
    pub from: Time,
    /// Until: its end, or now.
    pub until: Time,
    /// The month is over.
    pub complete: bool,
    /// When this was reckoned.
    pub made_at: Time,
    /// Outages of the line, in order.
    pub outages: Vec<SlaOutage>,
    /// What does not count.
    pub excluded: Vec<SlaExcluded>,
    /// Announced work.
    pub works: Vec<SlaWork>,
    /// Around the clock.
    pub around_the_clock: Figures,
    /// In office hours.
    pub office_hours: Figures,
}

/// A signed report: the text is what was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    /// Version of this form: 1.
    pub tram_evidence: u32,
    /// Id of the key.
    pub key: String,
    /// The key's public half. Compare it with what the installation's operator says.
    pub public: String,
    /// The report as JSON.
    pub evidence: String,
    /// Over that text.
    pub signature: String,
}

/// Reckons a month of a site's line.
///
/// # Errors
/// [`Error::NotFound`] out of scope; [`Error::Invalid`] `I-109` for what is no month, or has not begun.
pub async fn report(app: &App, ctx: &Ctx, site: &str, month: &str) -> Result<SlaReport> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let known = if ctx.caller.scope().covers(site) { app.store.site_ref(site, Day::of(ctx.now)).await? } else { None };
    let known = known
        .ok_or_else(|| Error::NotFound("I-106", "there is no site with this code today, or it isn't yours".into()))?;
    let month: Month = month.parse().map_err(|()| Error::field("month", "I-109", "give a month such as 2026-11"))?;
    let whole = month.span();
    if whole.from >= ctx.now {
        return Err(Error::field("month", "I-109", "this month has not begun"));
    }
    let span = Span { from: whole.from, until: whole.until.min(ctx.now) };
    let works = app.store.site_works(site, span).await?;
    let work_spans: Vec<Span> = works.iter().map(crate::store::then::Work::span).collect();
    let open = sla::open(&hours(app).await?, span);
    let (mut outages, mut excluded) = (Vec::new(), Vec::new());
    for id in app.store.incidents_within(site, span).await? {
        let Some(i) = app.store.incident(id).await? else { continue };
        if let Some(why) = not_counted(&i) {
            if why != "elsewhere" {
                let (begin, end) = (Time::from_micros(i.opened_at), i.over_at.map(Time::from_micros));
                excluded.push(SlaExcluded { incident: i.id.0, begin, end, cause: i.cause, why: why.to_owned() });
            }
            continue;
        }
        let (begin, end) = bounds(app, site, &i).await?;
        let all = Span { from: begin, until: end.unwrap_or(ctx.now) };
        let here: Vec<Span> = all.meet(span).into_iter().collect();
        let counted = sla::without(&here, &work_spans);
        outages.push(SlaOutage {
            incident: i.id.0,
            begin,
            end,
            cause: i.cause,
            first_cause: i.first_cause,
            confidence: i.confidence,
            evidence: i.evidence.0,
            seconds: sla::seconds(&here),
            counted_s: sla::seconds(&counted),
            office_s: sla::seconds(&sla::both(&counted, &open)),
        });
    }
    let down: Vec<Span> =
        outages.iter().filter_map(|o| Span { from: o.begin, until: o.end.unwrap_or(ctx.now) }.meet(span)).collect();
    let carrier = app.store.site_facts().await?.into_iter().find(|f| f.site_code == site).and_then(|f| f.carrier);
    Ok(SlaReport {
        installation: app.installation.0,
        site: site.to_owned(),
        site_name: known.district.map_or(known.name.clone(), |d| format!("{}, {d}", known.name)),
        carrier,
        month: month.to_string(),
        from: span.from,
        until: span.until,
        complete: whole.until <= ctx.now,
        made_at: ctx.now,
        around_the_clock: sla::figures(&[span], &down, &work_spans),
        office_hours: sla::figures(&open, &down, &work_spans),
        outages,
        excluded,
        works: works
            .into_iter()
            .map(|w| SlaWork { from: w.span().from, until: w.span().until, reason: w.reason })
            .collect(),
    })
}

/// Why an incident does not count against the carrier; `elsewhere`: it says nothing of the line at all.
fn not_counted(i: &Incident) -> Option<&'static str> {
    match i.cause {
        _ if i.merged_into.is_some() => Some("merged"),
        Cause::SiteLine | Cause::Carrier => None,
        Cause::LineDegraded => Some("degraded"),
        Cause::SitePower | Cause::DataCentre => Some("not_the_line"),
        _ => Some("elsewhere"),
    }
}

/// From when the last computer was heard last, until the first one was heard again.
async fn bounds(app: &App, site: &str, i: &Incident) -> Result<(Time, Option<Time>)> {
    let (opened, over) = (Time::from_micros(i.opened_at), i.over_at.map(Time::from_micros));
    let around = Span { from: opened.minus(BEGAN_WITHIN), until: over.unwrap_or(opened).plus(Duration::from_secs(1)) };
    let (mut last, mut first) = (None, None);
    for (id, ..) in app.store.computers_of(site).await? {
        for (at, kind, detail) in app.store.endpoint_events_within(EndpointId(id), around).await? {
            let at = Time::from_micros(at);
            match kind.as_str() {
                "silent" if at <= opened => last = last.max(heard_last(&detail)),
                "online" if at > opened => first = Some(first.map_or(at, |f: Time| f.min(at))),
                _ => {}
            }
        }
    }
    let begin = last.filter(|l| *l <= opened && *l >= around.from).unwrap_or(opened);
    Ok((begin, over.map(|o| first.map_or(o, |f| f.min(o)))))
}

/// `last heard 2026-11-25T01:02:03.000Z`.
fn heard_last(detail: &str) -> Option<Time> {
    let at: jiff::Timestamp = detail.strip_prefix("last heard ")?.parse().ok()?;
    Some(Time::from_micros(at.as_microsecond()))
}

/// Office hours with the days that are not as their weekday.
pub(super) async fn hours(app: &App) -> Result<Hours> {
    let mut hours = app.hours.clone();
    for d in app.store.calendar_days().await? {
        if let Ok(day) = d.day.parse::<Day>() {
            if d.working { &mut hours.working } else { &mut hours.holidays }.insert(day);
        }
    }
    Ok(hours)
}

/// The same, signed; written into the audit.
///
/// # Errors
/// As [`report`]; [`Error::Unavailable`] `I-510` if the key can't be used.
pub async fn export(app: &App, ctx: &Ctx, site: &str, month: &str) -> Result<SignedReport> {
    let report = report(app, ctx, site, month).await?;
    let signed = sign(app, &report)?;
    let mut tx = app.store.begin().await?;
    let detail = json!({"month": report.month, "key": signed.key, "signature": &signed.signature[..16]});
    audit(&mut tx, ctx, "sla.export", site, detail).await?;
    tx.commit().await?;
    Ok(signed)
}

fn sign(app: &App, report: &SlaReport) -> Result<SignedReport> {
    let fault = |e: CaError| Error::Unavailable("I-510", format!("the evidence can't be signed: {e}"));
    let evidence = serde_json::to_string(report).map_err(|e| Error::Internal(Box::new(e)))?;
    let key = PaperKey::of(&app.data_dir, KEY_FILE).map_err(fault)?;
    let signature = key.sign(Purpose::Evidence, &evidence).map_err(fault)?;
    Ok(SignedReport { tram_evidence: 1, key: key.id(), public: key.public(), evidence, signature })
}

/// As a table: outages, what does not count, announced work, and both totals.
#[must_use]
pub fn csv(r: &SlaReport) -> String {
    let mut out =
        String::from("kind,begin,end,seconds,counted_seconds,office_seconds,cause,confidence,incident,note\n");
    let mut row = |cells: [String; 10]| {
        let cells: Vec<String> = cells.iter().map(|c| cell(c)).collect();
        let _ = writeln!(out, "{}", cells.join(","));
    };
    let time = |t: Option<Time>| t.map(|t| t.to_string()).unwrap_or_default();
    for o in &r.outages {
        let codes: BTreeSet<&str> = o.evidence.iter().map(|e| e.code.as_str()).collect();
        let note = codes.into_iter().collect::<Vec<_>>().join(" ");
        row([
            "outage".into(),
            o.begin.to_string(),
            time(o.end),
            o.seconds.to_string(),
            o.counted_s.to_string(),
            o.office_s.to_string(),
            o.cause.to_string(),
            o.confidence.to_string(),
            o.incident.to_string(),
            note,
        ]);
    }
    let none = String::new;
    for x in &r.excluded {
        let (cause, incident) = (x.cause.to_string(), x.incident.to_string());
        let begin = x.begin.to_string();
        row(["excluded".into(), begin, time(x.end), none(), none(), none(), cause, none(), incident, x.why.clone()]);
    }
    for w in &r.works {
        let (from, until) = (w.from.to_string(), w.until.to_string());
        row(["work".into(), from, until, none(), none(), none(), none(), none(), none(), w.reason.clone()]);
    }
    for (name, f) in [("around_the_clock", r.around_the_clock), ("office_hours", r.office_hours)] {
        let note = format!("{name}: {:.3} % of {} s, {} outages", f.availability, f.counted_s, f.outages);
        let (from, until, down) = (r.from.to_string(), r.until.to_string(), f.down_s.to_string());
        row(["total".into(), from, until, none(), down, none(), none(), none(), none(), note]);
    }
    out
}

/// A cell that no spreadsheet takes for a formula.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
