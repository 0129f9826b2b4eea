//! Telling people of incidents: rules, what is put on its way, and sending it.

use metrics::counter;
use serde_json::json;
use sqlx::types::Json;
use tram_wire::ids::IncidentId;
use uuid::Uuid;

use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::Role;
use crate::domain::day::Day;
use crate::domain::incident::hours::Hours;
use crate::domain::incident::{Cause, Severity};
use crate::domain::notify::{self, Channel, Decision, Facts, Occasion, When};
use crate::domain::text;
use crate::domain::time::Time;
use crate::notify::{NotifyError, PATIENCE, Ways};
use crate::store::Tx;
use crate::store::incidents::Incident;
use crate::store::notify::{Outgoing, Rule};

/// Messages that are shown.
const SHOWN: i64 = 200;

/// A rule as somebody wants it.
#[derive(Clone, Debug)]
pub struct NewRule {
    /// What people call it.
    pub name: String,
    /// Off: nothing is told.
    pub enabled: bool,
    /// The way.
    pub channel: Channel,
    /// Where it leads.
    pub target: String,
    /// The least that is told.
    pub severity: Severity,
    /// Only these causes; empty: all.
    pub causes: Vec<Cause>,
    /// Everything below this site; `None`: everywhere.
    pub site_code: Option<String>,
    /// When.
    pub at_times: When,
    /// The end is told, too.
    pub ends: bool,
}

/// All rules.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn rules(app: &App, ctx: &Ctx) -> Result<Vec<Rule>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    Ok(app.store.notify_rules().await?)
}

/// The latest messages.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator.
pub async fn log(app: &App, ctx: &Ctx) -> Result<Vec<Outgoing>> {
    ctx.require(&[Role::Operator])?;
    Ok(app.store.notify_log(SHOWN).await?)
}

/// Makes a rule (`id` is `None`) or changes one.
///
/// # Errors
/// [`Error::Invalid`] `N-200` with every fault; [`Error::Conflict`] `N-409` if the name is taken;
/// [`Error::NotFound`].
pub async fn put_rule(app: &App, ctx: &Ctx, id: Option<Uuid>, new: NewRule) -> Result<Rule> {
    ctx.require(&[Role::Operator])?;
    let mut faults = Vec::new();
    let mut fault = |at: &str, code, message: String| faults.push(Fault { at: at.into(), code, message });
    let name = text::tidy(&new.name);
    if let Some(why) = text::fault(&name, 80) {
        fault("name", "N-201", format!("the name {why}"));
    }
    if let Some(why) = notify::target_fault(new.channel, &new.target) {
        fault("target", "N-202", why.into());
    }
    if let Some(site) = &new.site_code
        && !app.store.site_is_current(site).await?
    {
        fault("site_code", "N-203", "there is no site with this code today".into());
    }
    if !faults.is_empty() {
        return Err(Error::Invalid("N-200", "the rule can't be kept".into(), faults));
    }
    let known = app.store.notify_rules().await?;
    if id.is_some_and(|id| known.iter().all(|r| r.id != id)) {
        return Err(not_found());
    }
    let rule = Rule {
        id: id.unwrap_or_else(Uuid::now_v7),
        name,
        enabled: new.enabled,
        channel: new.channel,
        target: new.target,
        severity: new.severity,
        causes: Json(new.causes),
        site_code: new.site_code,
        at_times: new.at_times,
        ends: new.ends,
    };
    if known.iter().any(|r| r.name == rule.name && r.id != rule.id) {
        return Err(Error::Conflict("N-409", "another rule has this name".into()));
    }
    let mut tx = app.store.begin().await?;
    tx.put_notify_rule(&rule, ctx.now).await?;
    let detail = json!({"name": rule.name, "enabled": rule.enabled, "channel": rule.channel, "target": rule.target});
    audit(&mut tx, ctx, if id.is_some() { "notify.change" } else { "notify.create" }, &rule.id.to_string(), detail)
        .await?;
    tx.commit().await?;
    Ok(rule)
}

/// Forgets a rule and what is on its way by it.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn drop_rule(app: &App, ctx: &Ctx, id: Uuid) -> Result<()> {
    ctx.require(&[Role::Operator])?;
    let mut tx = app.store.begin().await?;
    if !tx.drop_notify_rule(id).await? {
        return Err(not_found());
    }
    audit(&mut tx, ctx, "notify.delete", &id.to_string(), json!({})).await?;
    Ok(tx.commit().await?)
}

/// Puts a message on its way that only says that the way is open. It shows in the log how it fared.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn test(app: &App, ctx: &Ctx, id: Uuid) -> Result<Uuid> {
    ctx.require(&[Role::Operator])?;
    if app.store.notify_rules().await?.iter().all(|r| r.id != id) {
        return Err(not_found());
    }
    let mut tx = app.store.begin().await?;
    let message = tx.post(id, None, Occasion::Test, "", ctx.now, ctx.now).await?;
    audit(&mut tx, ctx, "notify.test", &id.to_string(), json!({})).await?;
    tx.commit().await?;
    Ok(message)
}

/// Who wants what, read once for a look at all incidents.
pub(super) struct Readers {
    rules: Vec<(Rule, notify::Rule)>,
    hours: Hours,
}

impl Readers {
    pub(super) async fn read(app: &App, hours: &Hours, now: Time) -> Result<Self> {
        let mut rules = Vec::new();
        for r in app.store.notify_rules().await?.into_iter().filter(|r| r.enabled) {
            let sites = match &r.site_code {
                Some(code) => Some(app.store.site_codes_below(code, Day::of(now)).await?),
                None => None,
            };
            let rule = notify::Rule {
                severity: r.severity,
                causes: r.causes.0.clone(),
                sites,
                when: r.at_times,
                ends: r.ends,
            };
            rules.push((r, rule));
        }
        Ok(Self { rules, hours: hours.clone() })
    }

    /// Puts this occasion on its way to all who want it.
    pub(super) async fn tell(
        &self,
        tx: &mut Tx,
        id: Option<IncidentId>,
        facts: &Facts<'_>,
        occasion: Occasion,
        detail: &str,
        now: Time,
    ) -> Result<()> {
        for (rule, wanted) in &self.rules {
            let due = match wanted.decide(occasion, facts, &self.hours, now) {
                Decision::No => continue,
                Decision::Now => now,
                Decision::Wait => self.hours.opens_after(now),
            };
            tx.post(rule.id, id, occasion, detail, due, now).await?;
        }
        Ok(())
    }
}

/// Tells of parties that did not answer in time, once for each time they were given.
///
/// # Errors
/// Those of the store.
pub async fn tell_overdue(app: &App, hours: &Hours, now: Time) -> Result<()> {
    let overdue = app.store.overdue_incidents(now).await?;
    if overdue.is_empty() {
        return Ok(());
    }
    let readers = Readers::read(app, hours, now).await?;
    let mut tx = app.store.begin().await?;
    for id in overdue {
        let Some(i) = app.store.incident(id).await? else { continue };
        let sites = app.store.incident_sites(id).await?;
        let facts = Facts { severity: i.severity, cause: i.cause, sites: &sites };
        readers
            .tell(&mut tx, Some(id), &facts, Occasion::Late, &i.answer_by.unwrap_or_default().to_string(), now)
            .await?;
    }
    Ok(tx.commit().await?)
}

/// Sends one message that is due; `false` if there is none.
///
/// # Errors
/// Those of the store. What the other side says is written down, not returned.
pub async fn send_one(app: &App, ways: &Ways, now: Time) -> Result<bool> {
    let mut tx = app.store.begin().await?;
    // Whoever dies while sending has it sent again: at least once, as people would rather hear it twice.
    let claimed = tx.claim_outgoing(now, now.plus(PATIENCE * 2)).await?;
    tx.commit().await?;
    let Some(out) = claimed else { return Ok(false) };
    let rule = app.store.notify_rules().await?.into_iter().find(|r| r.id == out.rule_id);
    let Some(rule) = rule else { return Ok(true) };
    let incident = match out.incident_id {
        Some(id) => app.store.incident(id.into()).await?,
        None => None,
    };
    // What waited for the morning and is over by then is told by nobody.
    let stale = out.occasion == Occasion::Opened && incident.as_ref().is_some_and(|i| !i.open) && waited(&out);
    let (sent, again, error) = if stale {
        (None, None, Some("over before it was due".to_owned()))
    } else {
        let (message, event) = compose(app, &out, incident.as_ref(), now).await?;
        match ways.send(rule.channel, &rule.target, &message, &event).await {
            Ok(()) => (Some(now), None, None),
            Err(NotifyError::Permanent(why)) => (None, None, Some(why)),
            Err(NotifyError::Retry(why)) => {
                (None, notify::next_try(out.attempts, Time::from_micros(out.created_at), now), Some(why))
            }
        }
    };
    let outcome = if sent.is_some() {
        "sent"
    } else if again.is_some() {
        "again"
    } else {
        "given_up"
    };
    counter!("notifications_total", "channel" => rule.channel.as_str(), "outcome" => outcome).increment(1);
    let mut tx = app.store.begin().await?;
    tx.outgoing_done(out.id, sent, again, error.as_deref()).await?;
    if outcome == "given_up" && !stale {
        tracing::warn!(rule = rule.name, error = error.as_deref(), "a notification was given up");
        let detail = json!({"rule": rule.name, "occasion": out.occasion, "error": error});
        audit(&mut tx, &Ctx::system(now), "notify.give_up", &rule.id.to_string(), detail).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Whether it was put off until office hours.
fn waited(out: &Outgoing) -> bool {
    out.attempts == 1 && out.due_at.is_some_and(|due| due - out.created_at > 10 * 60 * 1_000_000)
}

/// The words for people and the event for programs.
async fn compose(
    app: &App,
    out: &Outgoing,
    incident: Option<&Incident>,
    now: Time,
) -> Result<(notify::Message, serde_json::Value)> {
    if out.occasion == Occasion::Call {
        return compose_call(app, out, now).await;
    }
    let Some(i) = incident else {
        let message = notify::words(Occasion::Test, Cause::Computer, "", "", &format!("{}/console/", app.public_url));
        return Ok((message, json!({"occasion": Occasion::Test, "at": now})));
    };
    let link = format!("{}/console/incidents/{}", app.public_url, i.id);
    let place = place(app, i, now).await?;
    let since = local(i.opened_at);
    let event = json!({
        "occasion": out.occasion, "at": now, "incident": i.id, "cause": i.cause, "scope": i.scope, "severity": i.severity,
        "confidence": i.confidence, "evidence": i.evidence.0, "place": place, "opened_at": Time::from_micros(i.opened_at),
        "over_at": i.over_at.map(Time::from_micros), "link": link,
    });
    Ok((notify::words(out.occasion, i.cause, &place, &since, &link), event))
}

/// The same of an officer's call. The code is not told: it is read out by the officer.
async fn compose_call(app: &App, out: &Outgoing, now: Time) -> Result<(notify::Message, serde_json::Value)> {
    let call = match out.detail.parse() {
        Ok(id) => app.store.call(id).await?,
        Err(_) => None,
    };
    let link = format!("{}/console/calls/{}", app.public_url, out.detail);
    let (place, since, event) = match call {
        Some(c) => {
            let site = app.store.site_ref(&c.site_code, Day::of(now)).await?;
            let place = site.map_or(c.site_code.clone(), |s| s.name);
            let event = json!({"occasion": out.occasion, "at": now, "call": c.id, "endpoint": c.endpoint_id,
                "computer": c.endpoint_name, "site": c.site_code, "incident": c.incident_id, "link": link});
            (format!("{}, {place}", c.endpoint_name), local(c.opened_at), event)
        }
        None => (String::new(), String::new(), json!({"occasion": out.occasion, "at": now})),
    };
    Ok((notify::words(out.occasion, Cause::Computer, &place, &since, &link), event))
}

/// What an incident is about, as people name it.
async fn place(app: &App, i: &Incident, now: Time) -> Result<String> {
    let (kind, id) = i.scope.split_once(':').unwrap_or((&i.scope, ""));
    let code = match kind {
        "site" | "region" => Some(id.to_owned()),
        "endpoint" => match id.parse() {
            Ok(id) => app.store.endpoint(id).await?.map(|e| e.site_code),
            Err(_) => None,
        },
        _ => None,
    };
    if let Some(code) = code
        && let Some(site) = app.store.site_ref(&code, Day::of(now)).await?
    {
        return Ok(site.district.map_or_else(|| site.name.clone(), |d| format!("{}, {d}", site.name)));
    }
    Ok(match kind {
        "centre" => "toàn hệ thống".to_owned(),
        _ if id.is_empty() => kind.to_owned(),
        _ => id.to_owned(),
    })
}

/// A time by the clock of the offices: `25/11/2026 08:12`.
fn local(micros: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    jiff::tz::offset(7).to_datetime(at).strftime("%d/%m/%Y %H:%M").to_string()
}

fn not_found() -> Error {
    Error::NotFound("N-404", "there is no such rule".into())
}
