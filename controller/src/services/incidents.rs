//! Incidents: looking at the fleet, opening and ending what is wrong, and what people do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{counter, gauge};
use serde_json::json;
use tram_wire::ids::IncidentId;
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::{Role, Scope};
use crate::domain::endpoint;
use crate::domain::incident::damping::{Course, Step};
use crate::domain::incident::hours::Hours;
use crate::domain::incident::picture::Probe;
use crate::domain::incident::{Cause, Judgement, Party, SETTLE, Severity, Thresholds, backlog, judge};
use crate::domain::notify::{Facts, Occasion};
use crate::domain::time::Time;
use crate::services::notify::Readers;
use crate::store::Tx;
use crate::store::incidents::{CalendarDay, Event, Filter, Incident, SiteFacts};

mod picture;

/// Longest note, in characters.
pub const NOTE_MOST: usize = 2000;
/// Longest time a party may be given to answer.
const ANSWER_MOST: Duration = Duration::from_secs(14 * 86_400);

/// What one look changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Incidents that were opened.
    pub opened: usize,
    /// Incidents that are over.
    pub over: usize,
}

/// What a look needs besides the database.
#[derive(Clone, Debug)]
pub struct Lookout {
    /// When this controller began to listen: silence before proves nothing.
    pub since: Time,
    /// Office hours.
    pub hours: Hours,
    /// From when on things count as bad.
    pub thresholds: Thresholds,
}

/// Looks at the fleet once. `None` if this controller has not listened for long enough, or another one looks.
///
/// # Errors
/// Those of the store.
pub async fn look(app: &App, lookout: &Lookout, centre: Vec<Probe>, now: Time) -> Result<Option<Looked>> {
    let seen = app.store.seen_endpoints().await?;
    // After a restart endpoints come back over a while, as they were told to.
    let window = Duration::from_secs(endpoint::reconnect_window(seen.len()).into());
    if app.pace.silent_before(now.minus(window), lookout.since).is_none() {
        return Ok(None);
    }
    let picture = picture::read(app, seen, centre, &lookout.hours, now).await?;
    let judgements = judge(&picture.fleet, &lookout.thresholds);
    let readers = Readers::read(app, &lookout.hours, now).await?;
    let mut tx = app.store.begin().await?;
    if !tx.may_judge().await? {
        return Ok(None);
    }
    let done = settle(&mut tx, &judgements, &picture, &readers, now).await?;
    tx.commit().await?;
    for severity in [Severity::Warn, Severity::Crit] {
        let n = judgements.iter().filter(|j| j.severity == severity).count();
        gauge!("incident_judgements", "severity" => severity.as_str()).set(u32::try_from(n).unwrap_or(u32::MAX));
    }
    Ok(Some(done))
}

/// Follows each possible incident by one look.
async fn settle(
    tx: &mut Tx,
    judgements: &[Judgement],
    picture: &picture::Read,
    readers: &Readers,
    now: Time,
) -> Result<Looked> {
    let mut courses: BTreeMap<String, (Severity, Course)> =
        tx.incident_courses().await?.into_iter().map(|(k, s, c)| (k, (s, c))).collect();
    let open: BTreeMap<String, Incident> = tx.open_incidents().await?.into_iter().map(|i| (i.key.clone(), i)).collect();
    let mut done = Looked::default();
    let mut present = BTreeSet::new();
    let mut owners = Vec::new();
    for j in judgements {
        let key = j.key();
        let (_, mut course) = courses.remove(&key).unwrap_or((j.severity, Course::default()));
        let before = course.clone();
        let step = course.look(true, j.severity, now);
        if course != before {
            tx.put_incident_course(&key, j.severity, Some(&course)).await?;
        }
        match open.get(&key) {
            Some(i) => {
                keep(tx, i, j, step, &course, now).await?;
                owners.push((i.id, j));
            }
            None if course.is_open() => {
                let id = start(tx, j, &course, readers, now).await?;
                owners.push((id, j));
                done.opened += 1;
            }
            None => {}
        }
        present.insert(key);
    }
    for (key, (severity, mut course)) in courses {
        let step = course.look(false, severity, now);
        let keep = (!course.is_forgotten()).then_some(&course);
        tx.put_incident_course(&key, severity, keep).await?;
        if let (Step::Clear, Some(i)) = (step, open.get(&key)) {
            end(tx, i, &owners, picture, readers, now).await?;
            done.over += 1;
        }
    }
    // What offices kept meanwhile comes after their newest state, perhaps after the incident is over.
    for i in tx.silences_over_since(now.minus(SETTLE)).await? {
        judge_again(tx, &i, picture, now).await?;
    }
    Ok(done)
}

/// What those who are back tell of the time in which nobody heard them may be another cause: the one it is then.
async fn judge_again(tx: &mut Tx, i: &Incident, picture: &picture::Read, now: Time) -> Result<Cause> {
    let span = (Time::from_micros(i.opened_at), i.over_at.map_or(now, Time::from_micros));
    let accounts = picture.accounts(tx, &i.endpoints, span).await?;
    let Some((cause, confidence, evidence)) = backlog::judged_again(i.cause, &accounts) else { return Ok(i.cause) };
    if (cause, confidence) != (i.cause, i.confidence) {
        tx.judge_incident_again(i.id, cause, confidence, &evidence, now).await?;
        tx.remember_judgement(i.id, now).await?;
        let detail = json!({"from": i.cause, "to": cause, "confidence": confidence, "evidence": evidence});
        tx.incident_event(i.id, "cause", "system", detail, now).await?;
        counter!("incidents_judged_again_total").increment(u64::from(cause != i.cause));
    }
    Ok(cause)
}

async fn start(tx: &mut Tx, j: &Judgement, course: &Course, readers: &Readers, now: Time) -> Result<IncidentId> {
    let id = IncidentId(Uuid::now_v7());
    tx.open_incident(id, j, course.is_flapping(), now).await?;
    tx.remember_judgement(id, now).await?;
    let detail = json!({"cause": j.cause, "confidence": j.confidence, "evidence": j.evidence, "sites": j.sites.len(),
        "endpoints": j.endpoints.len()});
    tx.incident_event(id, "opened", "system", detail, now).await?;
    counter!("incidents_opened_total", "cause" => j.cause.as_str()).increment(1);
    let facts = Facts { severity: j.severity, cause: j.cause, sites: &j.sites };
    readers.tell(tx, Some(id), &facts, Occasion::Opened, "", now).await?;
    Ok(id)
}

/// The judgement of an open incident, looked at again.
async fn keep(tx: &mut Tx, i: &Incident, j: &Judgement, step: Step, course: &Course, now: Time) -> Result<()> {
    let mut evidence = i.evidence.0 == j.evidence;
    // Figures move with every look; a new row each time would tell nobody anything.
    evidence |= now.since(Time::from_micros(i.changed_at)) < Duration::from_secs(60);
    let grown = j.endpoints.iter().filter(|e| !i.endpoints.contains(e)).count();
    let same = evidence && grown == 0 && i.severity == j.severity && i.flapping == course.is_flapping();
    if !same {
        tx.refresh_incident(i.id, j, course.is_flapping(), now).await?;
        tx.remember_judgement(i.id, now).await?;
    }
    if grown > 0 {
        let detail = json!({"endpoints": j.endpoints.len(), "more": grown, "sites": j.sites.len()});
        tx.incident_event(i.id, "grown", "system", detail, now).await?;
    }
    if step == Step::Flapping {
        tx.incident_event(i.id, "flapping", "system", json!({}), now).await?;
    }
    Ok(())
}

/// What is not there any more is over: explained by another incident, or good again. Then those who were
/// silent tell what they saw, and that may be another cause.
async fn end(
    tx: &mut Tx,
    i: &Incident,
    owners: &[(IncidentId, &Judgement)],
    picture: &picture::Read,
    readers: &Readers,
    now: Time,
) -> Result<()> {
    let covers = |j: &Judgement| {
        let site = i.scope.strip_prefix("site:").is_some_and(|s| j.sites.iter().any(|c| c == s));
        // A service that fails at an office too does not explain why nobody heard it.
        let explains = match j.cause {
            Cause::DataCentre | Cause::Carrier | Cause::SitePower | Cause::SiteLine => true,
            Cause::Service | Cause::LineDegraded => i.cause == Cause::SiteService,
            _ => false,
        };
        (site && explains) || (!i.endpoints.is_empty() && i.endpoints.iter().all(|e| j.endpoints.contains(e)))
    };
    if let Some((owner, j)) = owners.iter().find(|(_, j)| covers(j)) {
        tx.end_incident(i.id, Some(*owner), now).await?;
        return Ok(tx.incident_event(i.id, "merged", "system", json!({"into": owner, "cause": j.cause}), now).await?);
    }
    let sites = tx.sites_of_incident(i.id).await?;
    let mut facts = Facts { severity: i.severity, cause: i.cause, sites: &sites };
    facts.cause = judge_again(tx, i, picture, now).await?;
    tx.end_incident(i.id, None, now).await?;
    readers.tell(tx, Some(i.id), &facts, Occasion::Over, "", now).await?;
    let lasted = now.since(Time::from_micros(i.opened_at)).as_secs();
    Ok(tx.incident_event(i.id, "over", "system", json!({"lasted_s": lasted}), now).await?)
}

fn staff(ctx: &Ctx) -> Result<()> {
    ctx.require(&[Role::Operator, Role::Support])
}

/// Incidents in scope, and how many match in all.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, filter: &Filter) -> Result<(Vec<Incident>, i64)> {
    staff(ctx)?;
    let sites = match ctx.caller.scope() {
        Scope::All => None,
        Scope::Sites(codes) => Some(codes),
    };
    Ok(app.store.incidents(&Filter { sites, ..filter.clone() }).await?)
}

/// One incident with the sites it touches and what happened to it.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn get(app: &App, ctx: &Ctx, id: IncidentId) -> Result<(Incident, Vec<String>, Vec<Event>)> {
    staff(ctx)?;
    let incident = app.store.incident(id).await?.ok_or_else(not_found)?;
    let sites = app.store.incident_sites(id).await?;
    let scope = ctx.caller.scope();
    if scope != Scope::All && !sites.iter().any(|s| scope.covers(s)) {
        return Err(not_found());
    }
    Ok((incident, sites, app.store.incident_events(id).await?))
}

/// The caller looks after it: others see so.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] `I-102` if it is over or somebody else does.
pub async fn acknowledge(app: &App, ctx: &Ctx, id: IncidentId) -> Result<Incident> {
    let (before, ..) = get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    if !tx.acknowledge_incident(id, ctx.caller.name(), ctx.now).await? {
        let who = before.acknowledged_by.filter(|_| before.open);
        let why = who.map_or("it is over".to_owned(), |who| format!("{who} looks after it already"));
        return Err(Error::Conflict("I-102", why));
    }
    tx.incident_event(id, "acknowledged", ctx.caller.name(), json!({}), ctx.now).await?;
    audit(&mut tx, ctx, "incident.acknowledge", &id.to_string(), json!({"scope": before.scope})).await?;
    tx.commit().await?;
    app.store.incident(id).await?.ok_or_else(not_found)
}

/// Writes a note beside it, also when it is over.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] `I-103`.
pub async fn note(app: &App, ctx: &Ctx, id: IncidentId, text: &str) -> Result<()> {
    let text = text.trim();
    let bad = |c: char| c.is_control() && c != '\n';
    if text.is_empty() || text.chars().count() > NOTE_MOST || text.chars().any(bad) {
        return Err(Error::field("text", "I-103", format!("write 1 to {NOTE_MOST} characters")));
    }
    get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    tx.incident_event(id, "note", ctx.caller.name(), json!({"text": text}), ctx.now).await?;
    audit(&mut tx, ctx, "incident.note", &id.to_string(), json!({"characters": text.chars().count()})).await?;
    Ok(tx.commit().await?)
}

/// Hands it to a party, which should answer within so many minutes.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] `I-104`; [`Error::Conflict`] `I-102` if it is over.
pub async fn hand_over(
    app: &App,
    ctx: &Ctx,
    id: IncidentId,
    party: Party,
    minutes: u32,
    text: &str,
) -> Result<Incident> {
    let within = Duration::from_secs(u64::from(minutes) * 60);
    if within.is_zero() || within > ANSWER_MOST {
        return Err(Error::field("answer_minutes", "I-104", "give 1 minute to 14 days"));
    }
    let (before, ..) = get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    let answer_by = ctx.now.plus(within);
    if !tx.hand_incident(id, party, ctx.caller.name(), answer_by, ctx.now).await? {
        return Err(Error::Conflict("I-102", "it is over".into()));
    }
    let text: String = text.trim().chars().take(NOTE_MOST).collect();
    let detail = json!({"from": before.party, "to": party, "answer_by": answer_by, "text": text});
    tx.incident_event(id, "handed", ctx.caller.name(), detail.clone(), ctx.now).await?;
    audit(&mut tx, ctx, "incident.hand_over", &id.to_string(), detail).await?;
    tx.commit().await?;
    app.store.incident(id).await?.ok_or_else(not_found)
}

/// What is known of the sites in scope besides their names.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn site_facts(app: &App, ctx: &Ctx) -> Result<Vec<SiteFacts>> {
    staff(ctx)?;
    let scope = ctx.caller.scope();
    Ok(app.store.site_facts().await?.into_iter().filter(|f| scope.covers(&f.site_code)).collect())
}

/// Sets whose line a site has, and announces work on it.
///
/// # Errors
/// [`Error::NotFound`] out of scope; [`Error::Invalid`] `I-105`.
pub async fn set_site_facts(app: &App, ctx: &Ctx, facts: SiteFacts) -> Result<SiteFacts> {
    staff(ctx)?;
    if !ctx.caller.scope().covers(&facts.site_code) || !app.store.site_is_current(&facts.site_code).await? {
        return Err(Error::NotFound("I-106", "there is no site with this code today, or it isn't yours".into()));
    }
    let line = |t: &str, most| t.chars().count() <= most && !t.chars().any(char::is_control);
    if !facts.carrier.as_deref().is_none_or(|c| !c.trim().is_empty() && line(c, 60)) {
        return Err(Error::field("carrier", "I-105", "give a name of at most 60 characters, or none"));
    }
    if !line(&facts.maintenance_reason, 200) {
        return Err(Error::field("maintenance_reason", "I-105", "give at most 200 characters on one line"));
    }
    let mut tx = app.store.begin().await?;
    let before = app.store.site_facts().await?.into_iter().find(|f| f.site_code == facts.site_code).unwrap_or_default();
    tx.put_site_facts(&facts).await?;
    let until = facts.maintenance_until.map(Time::from_micros);
    if before.maintenance_until != facts.maintenance_until {
        let (by, reason) = (ctx.caller.name(), &facts.maintenance_reason);
        tx.announce_work(&facts.site_code, until, reason, by, ctx.now).await?;
    }
    let detail = json!({"carrier": facts.carrier, "maintenance_until": facts.maintenance_until.map(Time::from_micros),
        "reason": facts.maintenance_reason});
    audit(&mut tx, ctx, "site.facts", &facts.site_code, detail).await?;
    tx.commit().await?;
    Ok(facts)
}

/// Days that are not as their weekday.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn calendar(app: &App, ctx: &Ctx) -> Result<Vec<CalendarDay>> {
    staff(ctx)?;
    Ok(app.store.calendar_days().await?)
}

/// Sets all days that are not as their weekday.
///
/// # Errors
/// [`Error::Invalid`] `I-107` with every fault.
pub async fn set_calendar(app: &App, ctx: &Ctx, days: Vec<CalendarDay>) -> Result<Vec<CalendarDay>> {
    ctx.require(&[Role::Operator])?;
    let mut seen = BTreeSet::new();
    for d in &days {
        let name = d.name.chars().count() <= 100 && !d.name.chars().any(char::is_control);
        if let Err(e) = d.day.parse::<crate::domain::day::Day>() {
            return Err(Error::field("days", "I-107", e));
        }
        if !name || !seen.insert(&d.day) || days.len() > 2000 {
            let why = format!("{}: give each day once, with a name of at most 100 characters", d.day);
            return Err(Error::field("days", "I-107", why));
        }
    }
    let mut tx = app.store.begin().await?;
    tx.put_calendar(&days).await?;
    audit(&mut tx, ctx, "calendar.set", "calendar", json!({"days": days.len()})).await?;
    tx.commit().await?;
    Ok(app.store.calendar_days().await?)
}

/// What a site is called by its worst open incident: for maps and lists. Sites without one are left out.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn by_site(app: &App, ctx: &Ctx) -> Result<BTreeMap<String, (Severity, Vec<IncidentId>)>> {
    staff(ctx)?;
    let scope = ctx.caller.scope();
    let mut out: BTreeMap<String, (Severity, Vec<IncidentId>)> = BTreeMap::new();
    for (site, id, severity) in app.store.open_incidents_by_site().await? {
        if scope.covers(&site) {
            let severity = severity.parse().unwrap_or(Severity::Warn);
            let row = out.entry(site).or_insert((severity, Vec::new()));
            row.0 = row.0.max(severity);
            row.1.push(id.into());
        }
    }
    Ok(out)
}

fn not_found() -> Error {
    Error::NotFound("I-404", "there is no such incident, or it isn't in your sites".into())
}
