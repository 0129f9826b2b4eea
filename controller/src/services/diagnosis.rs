//! Remote diagnosis: asking for it, agreeing, cancelling, and what endpoints say of it.
//!
//! A request writes a row; [`deliver`] signs it for the controller its endpoint is linked to; [`keep`] writes down what
//! comes back. Who falls silent about an order is ended by [`reap`].

use std::collections::BTreeMap;

use metrics::{counter, histogram};
use serde_json::{Map, Value, json};
use tram_wire::diagnosis::{
    ACTIONS, Action, CHUNK, Class, Fits, Listed, ListedKind, MAX_LISTED, News, Order, OrderKey, OrderNews, Outcome,
    SignedOrder, Step, VERSION, Work,
};
use tram_wire::ids::{EndpointId, OrderId};
use uuid::Uuid;

use super::{App, Ctx, Error, Result, audit, bandwidth, endpoints};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::diagnosis::verdict::judge;
use crate::domain::diagnosis::{
    DiagnosisEnd, DiagnosisState, GOOD_FOR, KEEP, PER_MINUTE, PROGRESS_MOST, REASON_MOST, SLACK, STEPS_MOST, may,
    may_agree,
};
use crate::domain::endpoint::EndpointState;
use crate::domain::time::Time;
use crate::identity::order_keys::OrderKeys;
use crate::store::Tx;
use crate::store::diagnosis::{Diagnosis, Filter, NewDiagnosis, StepRow};

/// Shown of an endpoint.
const SHOWN: i64 = 50;
/// Most facts of a step, and their longest text.
const FACTS: usize = 64;
const TEXT: usize = 256;

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// An action or a bundle.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
    /// Why.
    pub reason: String,
}

/// Asks an endpoint for a diagnosis.
///
/// # Errors
/// [`Error::Invalid`] with the argument that does not fit, [`Error::Forbidden`], [`Error::NotFound`],
/// [`Error::Conflict`] if it is not linked or has enough to do, or if its line is to be filled while somebody works.
pub async fn ask(app: &App, ctx: &Ctx, endpoint: EndpointId, r: &Request) -> Result<Diagnosis> {
    let (row, _) = endpoints::get(app, ctx, endpoint).await?;
    let work = understand(app, r).await?;
    if !may(&ctx.caller, &work) {
        return Err(Error::Forbidden("Q-105", "this is for operators".into()));
    }
    let reason = r.reason.trim();
    let silent = work.class() == Class::Silent;
    if reason.is_empty() && !silent || reason.chars().count() > REASON_MOST || reason.chars().any(char::is_control) {
        let wanted = format!("say why, in one line of at most {REASON_MOST} characters: the officer reads it");
        return Err(Error::field("reason", "Q-103", wanted));
    }
    if row.state != EndpointState::Online {
        return Err(Error::Conflict("Q-104", format!("{} is not linked now; nothing can be asked of it", row.name)));
    }
    if work == Work::Action(Action::Bandwidth {}) {
        bandwidth::quiet(app, &row.site_code).await?;
    }
    let state = if work.two_persons() { DiagnosisState::Asked } else { DiagnosisState::Queued };
    let id = OrderId(Uuid::now_v7());
    let name = display_name(app, ctx).await?;
    let due = ctx.now.plus(state.lasts(&work));
    let new = NewDiagnosis { id, endpoint, work: &work, state, by: ctx.caller.name(), name: &name, reason, due };
    let mut tx = app.store.begin().await?;
    room(&mut tx, endpoint, &row.name, ctx.now).await?;
    tx.add_diagnosis(&new, ctx.now).await?;
    let detail = json!({"diagnosis": id, "name": row.name, "work": work, "reason": reason});
    audit(&mut tx, ctx, "diagnosis.ask", &endpoint.to_string(), detail).await?;
    tx.commit().await?;
    counter!("diagnoses_asked_total", "action" => work.name()).increment(1);
    app.store.diagnosis(id).await?.ok_or_else(not_found)
}

/// What the words of a request mean.
async fn understand(app: &App, r: &Request) -> Result<Work> {
    let known: Vec<Listed> = app.store.probe_services().await?.iter().filter_map(|s| listed(&s.service)).collect();
    let of_bundle = known.iter().take(MAX_LISTED).cloned().collect();
    let work =
        Work::parse(&r.name, r.arguments.clone(), of_bundle).map_err(|w| Error::field(w.argument, "Q-101", w.why))?;
    // A port is asked only where the controller's list has it: nobody scans an office from here.
    let fits_list = |name: &str| {
        let spec = ACTIONS.iter().find(|a| a.name == name)?;
        spec.arguments.iter().any(|a| a.fits == Fits::Listed).then_some(())
    };
    if fits_list(&r.name).is_some() {
        let host = r.arguments.get("host").and_then(Value::as_str);
        let port = r.arguments.get("port").and_then(Value::as_u64).unwrap_or(443);
        if !known.iter().any(|l| Some(l.host.as_str()) == host && u64::from(l.port) == port) {
            let why = "this host and port are not on the list of services; an operator adds them there";
            return Err(Error::field("host", "Q-102", why));
        }
    }
    Ok(work)
}

fn listed(s: &tram_wire::plan::Service) -> Option<Listed> {
    let (kind, usual) = match s.kind.as_str() {
        "tcp" => (ListedKind::Tcp, s.port),
        "tls" => (ListedKind::Tls, 443),
        "http" => (ListedKind::Http, 80),
        "https" => (ListedKind::Https, 443),
        _ => return None,
    };
    let port = if s.port == 0 { usual } else { s.port };
    Some(Listed { host: s.host.clone().try_into().ok()?, port, kind })
}

async fn room(tx: &mut Tx, endpoint: EndpointId, name: &str, now: Time) -> Result<()> {
    let minute = std::time::Duration::from_secs(60);
    let (recent, open) = tx.diagnosis_counts(endpoint, now.minus(minute)).await?;
    if recent >= PER_MINUTE {
        let why = format!("{name} was asked for {PER_MINUTE} things within a minute; wait a moment");
        return Err(Error::Conflict("Q-106", why));
    }
    if open >= i64::try_from(tram_wire::diagnosis::AT_ONCE).unwrap_or(2) {
        return Err(Error::Conflict("Q-107", format!("{name} is busy with what it was asked for; wait for that")));
    }
    Ok(())
}

/// The name the officer reads.
async fn display_name(app: &App, ctx: &Ctx) -> Result<String> {
    let found = match &ctx.caller {
        Caller::User { id, .. } => app.store.user(*id).await?.map(|u| u.display_name),
        Caller::LocalAdmin | Caller::System => None,
    };
    Ok(found.unwrap_or_else(|| ctx.caller.name().to_owned()))
}

/// A second person agrees.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`] for who asked for it, [`Error::Conflict`] if it does not wait any more.
pub async fn approve(app: &App, ctx: &Ctx, id: OrderId) -> Result<Diagnosis> {
    let (mut tx, d) = hold(app, ctx, id).await?;
    if d.state != DiagnosisState::Asked || d.due_at <= ctx.now.micros() {
        return Err(over());
    }
    if !may_agree(&ctx.caller, &d.work, &d.asked_by) {
        let why = "another person than the one who asked has to agree, signed in under their own name";
        return Err(Error::Forbidden("Q-108", why.into()));
    }
    tx.approve_diagnosis(id, ctx.caller.name()).await?;
    let due = ctx.now.plus(DiagnosisState::Queued.lasts(&d.work));
    tx.move_diagnosis(id, DiagnosisState::Asked, DiagnosisState::Queued, due, ctx.now).await?;
    note(&mut tx, ctx, "diagnosis.approve", &d, json!({"asked_by": d.asked_by})).await?;
    tx.commit().await?;
    app.store.diagnosis(id).await?.ok_or_else(not_found)
}

/// A second person does not agree, or who asked takes it back.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Conflict`] if it does not wait any more.
pub async fn deny(app: &App, ctx: &Ctx, id: OrderId) -> Result<Diagnosis> {
    let (mut tx, d) = hold(app, ctx, id).await?;
    if d.state != DiagnosisState::Asked {
        return Err(over());
    }
    finish(&mut tx, ctx, &d, DiagnosisEnd::Denied, None).await?;
    tx.commit().await?;
    app.store.diagnosis(id).await?.ok_or_else(not_found)
}

/// Stops one, wherever it is. Stopping what is over does nothing.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn cancel(app: &App, ctx: &Ctx, id: OrderId) -> Result<Diagnosis> {
    let (mut tx, d) = hold(app, ctx, id).await?;
    if d.state.is_there() && !d.cancelled {
        tx.cancel_diagnosis(id, ctx.caller.name(), ctx.now.plus(SLACK)).await?;
        note(&mut tx, ctx, "diagnosis.cancel", &d, json!({"state": d.state})).await?;
        tx.commit().await?;
    } else if matches!(d.state, DiagnosisState::Asked | DiagnosisState::Queued) {
        finish(&mut tx, ctx, &d, DiagnosisEnd::Cancelled, None).await?;
        tx.commit().await?;
    }
    app.store.diagnosis(id).await?.ok_or_else(not_found)
}

/// The newest of an endpoint, or those in scope that wait for a second person.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, endpoint: Option<EndpointId>, waiting: bool) -> Result<Vec<Diagnosis>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    if let Some(id) = endpoint {
        endpoints::get(app, ctx, id).await?;
    }
    let filter = Filter { endpoint, waiting, sites: sites(ctx), limit: SHOWN, ..Filter::default() };
    Ok(app.store.diagnoses(&filter).await?)
}

/// Those with these ids, for live changes.
///
/// # Errors
/// Those of the store.
pub async fn some(app: &App, ids: &[Uuid]) -> Result<Vec<Diagnosis>> {
    Ok(app.store.diagnoses(&Filter { ids: ids.to_vec(), limit: i64::MAX, ..Filter::default() }).await?)
}

/// One, with its steps.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn get(app: &App, ctx: &Ctx, id: OrderId) -> Result<(Diagnosis, Vec<StepRow>)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let found = app.store.diagnosis(id).await?.filter(|d| ctx.caller.scope().covers(&d.site_code));
    let d = found.ok_or_else(not_found)?;
    Ok((d, app.store.diagnosis_steps(id).await?))
}

fn sites(ctx: &Ctx) -> Option<Vec<String>> {
    match ctx.caller.scope() {
        Scope::All => None,
        Scope::Sites(codes) => Some(codes),
    }
}

async fn hold(app: &App, ctx: &Ctx, id: OrderId) -> Result<(Tx, Diagnosis)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let mut tx = app.store.begin().await?;
    let found = tx.hold_diagnosis(id).await?.filter(|d| ctx.caller.scope().covers(&d.site_code));
    Ok((tx, found.ok_or_else(not_found)?))
}

async fn note(tx: &mut Tx, ctx: &Ctx, action: &str, d: &Diagnosis, mut detail: Value) -> Result<()> {
    detail["diagnosis"] = json!(d.id);
    detail["action"] = json!(d.name);
    audit(tx, ctx, action, &d.endpoint_id.to_string(), detail).await
}

/// Ends one, with its audit row and its count.
async fn finish(tx: &mut Tx, ctx: &Ctx, d: &Diagnosis, how: DiagnosisEnd, code: Option<&str>) -> Result<()> {
    let found = tx.diagnosis_found(d.id).await?;
    let verdict = match how {
        DiagnosisEnd::Done | DiagnosisEnd::TimedOut => judge(&d.work, &found),
        _ => None,
    };
    let by = matches!(ctx.caller, Caller::User { .. } | Caller::LocalAdmin).then(|| ctx.caller.name());
    if !tx.end_diagnosis(d.id, how, code, verdict.as_ref(), by, ctx.now).await? {
        return Ok(());
    }
    let blame = verdict.map(|v| v.blame);
    let detail = json!({"outcome": how, "code": code, "verdict": blame, "asked_by": d.asked_by});
    note(tx, ctx, "diagnosis.end", d, detail).await?;
    counter!("diagnoses_ended_total", "action" => d.work.name(), "outcome" => how.as_str()).increment(1);
    if let Some(began) = d.began_at {
        let took = ctx.now.since(Time::from_micros(began));
        histogram!("diagnosis_seconds", "action" => d.work.name()).record(took.as_secs_f64());
    }
    Ok(())
}

/// What proves orders to endpoints; none if the keys can't be read.
#[must_use]
pub fn public_keys(app: &App) -> Vec<OrderKey> {
    match OrderKeys::open(&app.data_dir) {
        Ok(keys) => keys.public(),
        Err(e) => {
            tracing::warn!(error = %e, "the keys of orders can't be read; endpoints will obey none");
            Vec::new()
        }
    }
}

/// Signs with a new key from now on; endpoints hear of it when they link. Ids of the keys that are good.
///
/// # Errors
/// [`Error::Forbidden`]; [`Error::Internal`] if the file can't be written.
pub async fn new_key(app: &App, ctx: &Ctx, forget: bool) -> Result<Vec<String>> {
    ctx.require(&[Role::Operator])?;
    let keys = OrderKeys::renew(&app.data_dir, forget).map_err(|e| Error::Internal(Box::new(e)))?.public();
    let ids: Vec<String> = keys.into_iter().map(|k| k.id).collect();
    let mut tx = app.store.begin().await?;
    audit(&mut tx, ctx, "diagnosis.new_key", "", json!({"keys": ids, "forget_former": forget})).await?;
    tx.commit().await?;
    Ok(ids)
}

/// What endpoints linked here are to be told: new orders, signed, and those that are not wanted any more.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Orders.
    pub orders: Vec<(EndpointId, SignedOrder)>,
    /// Not wanted any more.
    pub cancels: Vec<(EndpointId, OrderId)>,
}

/// Takes what waits for endpoints that `here` says are linked to this controller.
///
/// # Errors
/// Those of the store and of the key's file.
pub async fn deliver(app: &App, here: impl Fn(EndpointId) -> bool) -> Result<Deliveries> {
    let mut out = Deliveries::default();
    for d in app.store.open_diagnoses().await? {
        if !here(d.endpoint_id) {
            continue;
        }
        if d.state.is_there() && d.cancelled {
            out.cancels.push((d.endpoint_id, d.id));
        }
        let now = app.clock.now();
        if d.state != DiagnosisState::Queued || d.due_at <= now.micros() {
            continue;
        }
        let order = Order {
            version: VERSION,
            id: d.id,
            installation: app.installation,
            endpoint: d.endpoint_id,
            by: d.asked_name,
            agreed: d.approved_by,
            why: d.reason,
            work: d.work.clone(),
            issued_ms: now.micros() / 1000,
            expires_ms: now.plus(GOOD_FOR).micros() / 1000,
        };
        let keys = OrderKeys::open(&app.data_dir).map_err(|e| Error::Unavailable("Q-503", e.to_string()))?;
        let signed = keys.sign(&order).map_err(|e| Error::Internal(Box::new(e)))?;
        let due = now.plus(DiagnosisState::Sent.lasts(&d.work));
        let mut tx = app.store.begin().await?;
        // Of several controllers that saw it, one gets it.
        if tx.move_diagnosis(d.id, DiagnosisState::Queued, DiagnosisState::Sent, due, now).await? {
            tx.commit().await?;
            out.orders.push((d.endpoint_id, signed));
        }
    }
    Ok(out)
}

/// Writes down what endpoints say of their orders, in one transaction.
///
/// # Errors
/// Those of the store; nothing of it is kept then.
pub async fn keep(app: &App, news: &[(EndpointId, OrderNews)]) -> Result<()> {
    let ctx = Ctx::system(app.clock.now());
    let mut tx = app.store.begin().await?;
    for (endpoint, n) in news {
        // Only its own, and only while it is not over.
        let refused = match tx.hold_diagnosis(n.order).await? {
            None => "unknown",
            Some(d) if d.endpoint_id != *endpoint => {
                tracing::warn!(%endpoint, order = %n.order, "an endpoint told news of another one's order");
                "foreign"
            }
            // Late words of one that was cancelled or ran out of time are no fault.
            Some(d) if !d.state.is_there() => "over",
            Some(d) => {
                hear(&mut tx, &ctx, &d, &n.news).await?;
                continue;
            }
        };
        counter!("diagnosis_news_refused_total", "reason" => refused).increment(1);
    }
    Ok(tx.commit().await?)
}

async fn hear(tx: &mut Tx, ctx: &Ctx, d: &Diagnosis, news: &News) -> Result<()> {
    let to = |state: DiagnosisState| (d.state, state, ctx.now.plus(state.lasts(&d.work)));
    match news {
        News::Asking => {
            let (from, to, due) = to(DiagnosisState::Asking);
            tx.move_diagnosis(d.id, from, to, due, ctx.now).await?;
        }
        News::Begun => {
            let (from, to, due) = to(DiagnosisState::Running);
            tx.move_diagnosis(d.id, from, to, due, ctx.now).await?;
        }
        News::Refused { code } => finish(tx, ctx, d, DiagnosisEnd::Refused, Some(code.code())).await?,
        News::Progress { text, .. } => tx.diagnosis_progress(d.id, &plain(text, PROGRESS_MOST)).await?,
        News::Text { step, text } => {
            if let Some(action) = d.work.actions().get(usize::from(*step)) {
                let cap = i64::try_from(action.spec().cap).unwrap_or(0);
                tx.diagnosis_text(d.id, *step, &plain(text, CHUNK), cap).await?;
            }
        }
        News::Step(step) if step.step < STEPS_MOST => tx.diagnosis_step(d.id, &bounded(step)).await?,
        News::Ended { outcome } => {
            let how = match outcome {
                Outcome::TimedOut => DiagnosisEnd::TimedOut,
                Outcome::Cancelled => DiagnosisEnd::Cancelled,
                Outcome::Done | Outcome::Other => DiagnosisEnd::Done,
            };
            finish(tx, ctx, d, how, None).await?;
        }
        News::Step(_) | News::Other => {}
    }
    Ok(())
}

/// What may be kept of a text: endpoints are not trusted.
fn plain(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).take(most).collect()
}

fn bounded(step: &Step) -> Step {
    let word = |t: &str| plain(t, 40);
    let facts: BTreeMap<String, String> =
        step.facts.iter().take(FACTS).map(|(k, v)| (plain(k, 80), plain(v, TEXT))).collect();
    Step { action: word(&step.action), code: word(&step.code), facts, ..step.clone() }
}

/// The link of an endpoint ended: what it was busy with is lost.
///
/// # Errors
/// Those of the store.
pub async fn lost(app: &App, endpoint: EndpointId) -> Result<()> {
    end_where(app, |d, _| (d.endpoint_id == endpoint && d.state.is_there()).then_some(DiagnosisEnd::Lost)).await
}

/// Ends what ran out of time, on whichever controller it was.
///
/// # Errors
/// Those of the store.
pub async fn reap(app: &App) -> Result<()> {
    end_where(app, |d, now| if d.due_at <= now.micros() { d.state.ran_out() } else { None }).await
}

async fn end_where(app: &App, how: impl Fn(&Diagnosis, Time) -> Option<DiagnosisEnd>) -> Result<()> {
    let ctx = Ctx::system(app.clock.now());
    for seen in app.store.open_diagnoses().await? {
        if how(&seen, ctx.now).is_none() {
            continue;
        }
        let mut tx = app.store.begin().await?;
        // Looked at again under the lock: it may just have ended.
        let Some(d) = tx.hold_diagnosis(seen.id).await? else { continue };
        if let Some(end) = how(&d, ctx.now) {
            let end = if d.cancelled { DiagnosisEnd::Cancelled } else { end };
            finish(&mut tx, &ctx, &d, end, None).await?;
            tx.commit().await?;
        }
    }
    Ok(())
}

/// Forgets what is too old; how many.
///
/// # Errors
/// Those of the store.
pub async fn prune(app: &App, now: Time) -> Result<u64> {
    let mut tx = app.store.begin().await?;
    let gone = tx.prune_diagnoses(now.minus(KEEP)).await?;
    tx.commit().await?;
    Ok(gone)
}

fn over() -> Error {
    Error::Conflict("Q-109", "this does not wait for an agreement any more; nothing was changed".into())
}

fn not_found() -> Error {
    Error::NotFound("Q-404", "there is no such diagnosis, or it isn't in your sites".into())
}
