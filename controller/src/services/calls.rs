//! Calls of officers for support: they arrive, are found by their code, and are seen through.

use std::time::Duration;

use metrics::counter;
use serde_json::json;
use tram_wire::call::{self as wire, FINDINGS, Kept, SHOWN};
use tram_wire::ids::{EndpointId, IncidentId};
use uuid::Uuid;

use super::desk::Endpoint;
use super::endpoints::plain;
use super::notify::Readers;
use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::call::{self, CallState, PER_HOUR};
use crate::domain::incident::hours::Hours;
use crate::domain::incident::{Cause, Party, Severity};
use crate::domain::notify::{Facts, Occasion};
use crate::domain::time::Time;
use crate::store::calls::{Arrived, Call, Event, Filter, Move, NewCall};
use crate::store::incidents::{self, Incident};
use crate::store::{StoreError, Tx};

const HOUR: Duration = Duration::from_secs(3600);
/// Longest note, in characters.
const NOTE_MOST: usize = 2000;
/// Longest time a party may be given to answer.
const ANSWER_MOST: Duration = Duration::from_secs(14 * 86_400);
/// Calls and computers that one code may find.
const FOUND: i64 = 20;

/// What a code finds.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Calls with this code, the newest first.
    pub calls: Vec<Call>,
    /// Computers that would show this code now, whose call has not arrived: the line is down, or slow.
    pub expected: Vec<EndpointId>,
}

/// A call arrives, perhaps again: how far support is with it.
///
/// # Errors
/// [`Error::Invalid`] `T-200` for one that contradicts itself; [`Error::Unavailable`] `T-429` for too many in an hour.
pub async fn receive(app: &App, at: &Endpoint, made: &wire::Call) -> Result<Kept> {
    if !call::is_true(at.id, made) {
        return Err(Error::field("code", "T-200", "this is not the code of this computer's call"));
    }
    let endpoint = app.store.endpoint(at.id).await?.ok_or_else(not_found)?;
    let incident = explains(app, at.id, &endpoint.site_code).await?;
    match super::patiently(|| keep(app, at, made, &endpoint.site_code, incident)).await {
        // The same call came by another connection meanwhile.
        Err(Error::Conflict("T-409", _)) => keep(app, at, made, &endpoint.site_code, incident).await,
        done => done,
    }
}

async fn keep(app: &App, at: &Endpoint, made: &wire::Call, site: &str, incident: Option<IncidentId>) -> Result<Kept> {
    let now = app.clock.now();
    let ctx = super::endpoints::as_agent(at.ip.clone(), now);
    let mut tx = app.store.begin().await?;
    let known = tx.call_of_desk(at.id, made.id, made.number).await?;
    let (last, lately) = tx.calls_of(at.id, HOUR, now).await?;
    let next = u32::try_from(last).unwrap_or(0).max(made.number) + 1;
    let kept = |state: CallState, by: Option<String>| Kept { state: state.as_str().to_owned(), by, next };
    if let Some(c) = known.as_ref().filter(|c| c.desk_id.is_some() && (c.snapshot.is_some() || made.snapshot.is_none()))
    {
        return Ok(kept(c.state, c.taken_name.clone()));
    }
    if known.is_none() && lately >= PER_HOUR {
        counter!("support_calls_refused_total").increment(1);
        return Err(Error::Unavailable("T-429", "this computer called very often within an hour; telephone".into()));
    }
    let id = match &known {
        Some(c) => c.id,
        None => add(&mut tx, &ctx, at.id, made, site, incident).await?,
    };
    let snapshot = made.snapshot.clone().map(bounded).map(|s| plain(&s)).transpose()?;
    let arrived = Arrived {
        desk_id: made.id,
        session: made.session.map(|s| s.0),
        snapshot,
        made_at: Time::from_micros(made.at_ms.saturating_mul(1000)),
    };
    tx.call_arrived(id, &arrived, now).await?;
    tx.call_event(id, "arrived", "desk", json!({"made_at": arrived.made_at}), now).await?;
    tx.commit().await?;
    let (state, by) = known.map_or((CallState::Open, None), |c| (c.state, c.taken_name));
    Ok(kept(state, by))
}

async fn add(
    tx: &mut Tx,
    ctx: &Ctx,
    endpoint: EndpointId,
    made: &wire::Call,
    site: &str,
    incident: Option<IncidentId>,
) -> Result<Uuid> {
    let id = Uuid::now_v7();
    let (desk_id, number, code) = (Some(made.id), made.number, made.code.as_str());
    let new = NewCall { id, endpoint, desk_id, number, code, site_code: site, incident };
    tx.add_call(&new, ctx.now).await.map_err(|e| match e {
        StoreError::Duplicate(_) => Error::Conflict("T-409", "this call is known".into()),
        e => e.into(),
    })?;
    counter!("support_calls_total").increment(1);
    let detail = json!({"endpoint": endpoint, "site": site, "code": code, "incident": incident});
    audit(tx, ctx, "call.arrive", &id.to_string(), detail).await?;
    Ok(id)
}

/// What an endpoint says of itself is not trusted to be small.
fn bounded(mut s: wire::Snapshot) -> wire::Snapshot {
    s.findings.truncate(FINDINGS);
    s.shown.truncate(SHOWN);
    for f in &mut s.findings {
        f.params = std::mem::take(&mut f.params).into_iter().take(32).collect();
    }
    s
}

/// The open incident that explains a call, if one does: the worst that names the computer, else one of its site.
async fn explains(app: &App, endpoint: EndpointId, site: &str) -> Result<Option<IncidentId>> {
    let filter = incidents::Filter { site: Some(site.to_owned()), open: Some(true), limit: 100, ..Default::default() };
    let (open, _) = app.store.incidents(&filter).await?;
    let rank = |i: &Incident| (i.endpoints.contains(&endpoint), i.severity);
    let ours = |i: &&Incident| i.endpoints.contains(&endpoint) || !i.scope.starts_with("endpoint:");
    Ok(open.iter().filter(ours).max_by_key(|i| rank(i)).map(|i| i.id))
}

fn staff(ctx: &Ctx) -> Result<()> {
    ctx.require(&[Role::Operator, Role::Support])
}

fn sites(ctx: &Ctx) -> Option<Vec<String>> {
    match ctx.caller.scope() {
        Scope::All => None,
        Scope::Sites(codes) => Some(codes),
    }
}

/// What a code that is read out finds: calls, or the computers whose call has not arrived.
///
/// # Errors
/// [`Error::Invalid`] `T-201` for what is no code; [`Error::Forbidden`] for officers.
pub async fn find(app: &App, ctx: &Ctx, typed: &str) -> Result<Found> {
    staff(ctx)?;
    let code =
        call::code(typed).ok_or_else(|| Error::field("code", "T-201", "give the six digits that are read out"))?;
    let filter = Filter { sites: sites(ctx), code: Some(code.clone()), limit: FOUND, ..Filter::default() };
    let (calls, _) = app.store.calls(&filter).await?;
    // One that is not over is it; an old one may have had the code of a new one by chance.
    if calls.iter().any(|c| !c.state.is_over()) {
        return Ok(Found { calls, expected: Vec::new() });
    }
    let scope = ctx.caller.scope();
    let all = app.store.callers().await?;
    let shows = |(id, site, last): &(Uuid, String, i64)| {
        scope.covers(site) && call::expected((*id).into(), u32::try_from(*last).unwrap_or(0), &code).is_some()
    };
    let expected = all.iter().filter(|c| shows(c)).take(usize::try_from(FOUND).unwrap_or(0)).map(|c| c.0.into());
    Ok(Found { calls, expected: expected.collect() })
}

/// Opens the call of a computer by the code that was read out, before it arrives: its line is down. The caller looks
/// after it.
///
/// # Errors
/// [`Error::Invalid`] `T-202` if the computer would not show this code; [`Error::NotFound`] out of scope.
pub async fn expect(app: &App, ctx: &Ctx, endpoint: EndpointId, typed: &str) -> Result<Call> {
    staff(ctx)?;
    let found = app.store.endpoint(endpoint).await?.filter(|e| ctx.caller.scope().covers(&e.site_code));
    let computer = found.ok_or_else(not_found)?;
    let code =
        call::code(typed).ok_or_else(|| Error::field("code", "T-201", "give the six digits that are read out"))?;
    let incident = explains(app, endpoint, &computer.site_code).await?;
    let (name, shown) = (ctx.caller.name(), display_name(app, ctx).await?);
    let mut tx = app.store.begin().await?;
    let (last, _) = tx.calls_of(endpoint, HOUR, ctx.now).await?;
    let number = call::expected(endpoint, u32::try_from(last).unwrap_or(0), &code);
    let number = number.ok_or_else(|| Error::field("code", "T-202", "this computer would not show this code now"))?;
    let id = Uuid::now_v7();
    let new = NewCall { id, endpoint, desk_id: None, number, code: &code, site_code: &computer.site_code, incident };
    tx.add_call(&new, ctx.now).await?;
    let taken = Move { from: CallState::Open, to: CallState::Taken, by: Some((name, &shown)), party: None };
    tx.move_call(id, &taken, ctx.now).await?;
    tx.call_event(id, "expected", name, json!({}), ctx.now).await?;
    audit(&mut tx, ctx, "call.expect", &id.to_string(), json!({"endpoint": endpoint, "code": code})).await?;
    tx.commit().await?;
    counter!("support_calls_expected_total").increment(1);
    app.store.call(id).await?.ok_or_else(not_found)
}

async fn display_name(app: &App, ctx: &Ctx) -> Result<String> {
    let Caller::User { id, .. } = &ctx.caller else { return Ok(ctx.caller.name().to_owned()) };
    Ok(app.store.user(*id).await?.map_or_else(|| ctx.caller.name().to_owned(), |u| u.display_name))
}

/// Calls in scope, the newest first, and how many match in all.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, filter: &Filter) -> Result<(Vec<Call>, i64)> {
    staff(ctx)?;
    Ok(app.store.calls(&Filter { sites: sites(ctx), ..filter.clone() }).await?)
}

/// One call, what happened to it, and the incidents it may belong to.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn get(app: &App, ctx: &Ctx, id: Uuid) -> Result<(Call, Vec<Event>, Vec<Incident>)> {
    staff(ctx)?;
    let found = app.store.call(id).await?.filter(|c| ctx.caller.scope().covers(&c.site_code));
    let call = found.ok_or_else(not_found)?;
    let open =
        incidents::Filter { site: Some(call.site_code.clone()), open: Some(true), limit: 50, ..Default::default() };
    let (mut incidents, _) = app.store.incidents(&open).await?;
    if let Some(own) = call.incident_id
        && incidents.iter().all(|i| i.id.0 != own)
    {
        incidents.extend(app.store.incident(own.into()).await?);
    }
    Ok((call, app.store.call_events(id).await?, incidents))
}

/// What is done with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The caller looks after it.
    Take,
    /// A party has to act, and should answer within so many minutes.
    HandOver(Party, u32),
    /// It works again.
    Solve,
    /// Nothing more happens to it.
    Close,
}

/// Moves a call on.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] `T-102` if it can't become that; [`Error::Invalid`] `T-203`, `T-204`.
pub async fn step(app: &App, ctx: &Ctx, id: Uuid, step: &Step, text: &str) -> Result<Call> {
    let (call, ..) = get(app, ctx, id).await?;
    let text = said(text, true)?;
    let to = match step {
        Step::Take => CallState::Taken,
        Step::HandOver(..) => CallState::HandedOver,
        Step::Solve => CallState::Solved,
        Step::Close => CallState::Closed,
    };
    if !call.state.may_become(to) {
        return Err(Error::Conflict("T-102", format!("the call is {} and can't become {to}", call.state)));
    }
    let party = match step {
        Step::HandOver(party, minutes) => {
            let within = Duration::from_secs(u64::from(*minutes) * 60);
            if within.is_zero() || within > ANSWER_MOST {
                return Err(Error::field("answer_minutes", "T-204", "give 1 minute to 14 days"));
            }
            Some((*party, ctx.now.plus(within)))
        }
        _ => None,
    };
    let (name, shown) = (ctx.caller.name(), display_name(app, ctx).await?);
    let by = (*step == Step::Take).then_some((name, shown.as_str()));
    let mut tx = app.store.begin().await?;
    if !tx.move_call(id, &Move { from: call.state, to, by, party }, ctx.now).await? {
        return Err(Error::Conflict("T-102", "somebody else changed the call at the same time; look again".into()));
    }
    let mut detail = json!({"from": call.state, "text": text});
    if let Some((party, answer_by)) = party {
        detail["party"] = json!(party);
        detail["answer_by"] = json!(answer_by);
    }
    tx.call_event(id, to.as_str(), name, detail, ctx.now).await?;
    let detail = json!({"from": call.state, "to": to, "party": party.map(|p| p.0)});
    audit(&mut tx, ctx, "call.step", &id.to_string(), detail).await?;
    tx.commit().await?;
    if to.is_over() && call.over_at.is_none() {
        let lasted = ctx.now.since(Time::from_micros(call.opened_at)).as_secs_f64();
        metrics::histogram!("support_call_open_seconds").record(lasted);
    }
    app.store.call(id).await?.ok_or_else(not_found)
}

/// Says which incident a call belongs to; `None`: to none.
///
/// # Errors
/// [`Error::NotFound`], for the call or the incident.
pub async fn attach(app: &App, ctx: &Ctx, id: Uuid, incident: Option<IncidentId>) -> Result<Call> {
    get(app, ctx, id).await?;
    if let Some(incident) = incident {
        super::incidents::get(app, ctx, incident).await?;
    }
    let mut tx = app.store.begin().await?;
    tx.attach_call(id, incident, ctx.now).await?;
    let kind = if incident.is_some() { "attached" } else { "detached" };
    tx.call_event(id, kind, ctx.caller.name(), json!({"incident": incident}), ctx.now).await?;
    if let Some(incident) = incident {
        tx.incident_event(incident, "call", ctx.caller.name(), json!({"call": id}), ctx.now).await?;
    }
    audit(&mut tx, ctx, "call.attach", &id.to_string(), json!({"incident": incident})).await?;
    tx.commit().await?;
    app.store.call(id).await?.ok_or_else(not_found)
}

/// Writes a note beside it, also when it is over.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] `T-203`.
pub async fn note(app: &App, ctx: &Ctx, id: Uuid, text: &str) -> Result<()> {
    let text = said(text, false)?;
    get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    tx.call_event(id, "note", ctx.caller.name(), json!({"text": text}), ctx.now).await?;
    audit(&mut tx, ctx, "call.note", &id.to_string(), json!({"characters": text.chars().count()})).await?;
    Ok(tx.commit().await?)
}

fn said(text: &str, may_be_empty: bool) -> Result<&str> {
    let text = text.trim();
    let bad = |c: char| c.is_control() && c != '\n';
    if text.is_empty() && !may_be_empty || text.chars().count() > NOTE_MOST || text.chars().any(bad) {
        return Err(Error::field("text", "T-203", format!("write 1 to {NOTE_MOST} characters")));
    }
    Ok(text)
}

/// Tells whoever wants to know of calls that arrived.
///
/// # Errors
/// Those of the store.
pub async fn tell(app: &App, hours: &Hours, now: Time) -> Result<()> {
    let calls = app.store.untold_calls().await?;
    if calls.is_empty() {
        return Ok(());
    }
    let readers = Readers::read(app, hours, now).await?;
    for call in calls {
        let incident = match call.incident_id {
            Some(id) => app.store.incident(id.into()).await?,
            None => None,
        };
        let (severity, cause) = incident.map_or((Severity::Warn, Cause::Computer), |i| (i.severity, i.cause));
        let facts = Facts { severity, cause, sites: std::slice::from_ref(&call.site_code) };
        let mut tx = app.store.begin().await?;
        if tx.call_told(call.id).await? {
            readers.tell(&mut tx, None, &facts, Occasion::Call, &call.id.to_string(), now).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

fn not_found() -> Error {
    Error::NotFound("T-404", "there is no such call, or it isn't in your sites".into())
}
