//! Endpoints: tokens, enrolment, what they report, withdrawal.

use std::time::Duration;

use serde_json::{Value, json};
use tram_wire::check::Finding;
use tram_wire::enrol::Issued;
use tram_wire::heartbeat::{Change, Snapshot};
use tram_wire::hello::Hello;
use tram_wire::ids::EndpointId;
use tram_wire::refusal::Refusal;
use tram_wire::token::EnrolToken;
use uuid::Uuid;

use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::{Caller, Role, Scope};
use crate::domain::approval::{Approval, MAX_SERIALS, read_serials};
use crate::domain::endpoint::{EndpointState, MAX_TOKEN_HOURS, MAX_TOKEN_USES, display_name, verdict};
use crate::domain::time::Time;
use crate::identity::ca::{CaError, DeviceCa};
use crate::identity::qr::Code;
use crate::identity::secret::hash;
use crate::store::endpoints::{Endpoint, Event, Filter, NewToken, Report, Token};

/// Longest text an endpoint may put into one field.
const MAX_TEXT: usize = 256;
/// Events shown of an endpoint.
const HISTORY: i64 = 100;

/// What somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// Where its endpoints will stand.
    pub site_code: String,
    /// How many endpoints it may enrol.
    pub count: i64,
    /// How long it works.
    pub ttl_hours: i64,
    /// What it is for.
    pub note: String,
    /// How it lets computers in.
    pub approval: Approval,
    /// Serial numbers it expects, as somebody wrote them: one each, or several with commas or on lines of their own.
    pub serials: Vec<String>,
}

/// Makes an enrolment token: its text, shown once, and when it ends.
///
/// # Errors
/// [`Error::Invalid`] with every fault, [`Error::Forbidden`].
pub async fn create_token(app: &App, ctx: &Ctx, r: &TokenRequest) -> Result<(String, Time)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let mut faults = Vec::new();
    let mut fault = |at: &str, code, message: String| faults.push(Fault { at: at.into(), code, message });
    if !(1..=MAX_TOKEN_USES).contains(&r.count) {
        fault("count", "E-202", format!("give 1 to {MAX_TOKEN_USES} endpoints"));
    }
    if !(1..=MAX_TOKEN_HOURS).contains(&r.ttl_hours) {
        fault("ttl_hours", "E-203", format!("give 1 to {MAX_TOKEN_HOURS} hours"));
    }
    if r.note.chars().count() > 200 || r.note.chars().any(char::is_control) {
        fault("note", "E-204", "give at most 200 characters on one line".into());
    }
    // Out of scope and unknown look alike: a site list is no secret, but who covers what may be.
    if !ctx.caller.scope().covers(&r.site_code) || !app.store.site_is_current(&r.site_code).await? {
        fault("site_code", "E-201", "there is no site with this code today, or it isn't yours".into());
    }
    let serials = match (r.approval, read_serials(&r.serials)) {
        (Approval::Serial, Ok(serials)) if serials.is_empty() || serials.len() > MAX_SERIALS => {
            fault("serials", "E-207", format!("give 1 to {MAX_SERIALS} serial numbers"));
            Vec::new()
        }
        (Approval::Serial, Ok(serials)) => serials,
        (_, Ok(serials)) if serials.is_empty() => serials,
        (_, Ok(_)) => {
            fault("serials", "E-207", "serial numbers need the approval \"serial\"".into());
            Vec::new()
        }
        (_, Err(bad)) => {
            fault("serials", "E-207", format!("{bad} is no serial number"));
            Vec::new()
        }
    };
    if !faults.is_empty() {
        return Err(Error::Invalid("E-200", "the token can't be made".into(), faults));
    }
    let ca = open_ca(app, ctx.now)?;
    let mut random = [0_u8; 13];
    getrandom::fill(&mut random).map_err(|e| Error::Internal(Box::new(e)))?;
    let token = EnrolToken::new(&random, &ca.fingerprint());
    let expires_at = ctx.now.plus(Duration::from_secs(r.ttl_hours.unsigned_abs() * 3600));
    let id = Uuid::now_v7();
    let mut tx = app.store.begin().await?;
    let new = NewToken {
        id,
        hash: hash(token.secret()),
        site_code: &r.site_code,
        uses: r.count,
        approval: r.approval,
        serials: &serials,
        note: &r.note,
        created_by: ctx.caller.name(),
        expires_at,
    };
    tx.add_endpoint_token(&new, ctx.now).await?;
    let detail = json!({"site": r.site_code, "count": r.count, "ttl_hours": r.ttl_hours, "note": r.note,
        "approval": r.approval, "serials": serials});
    audit(&mut tx, ctx, "endpoint_token.create", &id.to_string(), detail).await?;
    tx.commit().await?;
    Ok((token.to_string(), expires_at))
}

/// What the QR code of a token says: where to go, and the token with the hash of the authority to find there.
///
/// # Errors
/// [`Error::Internal`] if that is too long for a code.
pub fn enrol_code(app: &App, token: &str) -> Result<(String, Code)> {
    let text = format!("{} {token}", app.agent_url);
    let code = Code::of(&text).ok_or_else(|| Error::Internal("the controller's address is too long".into()))?;
    Ok((text, code))
}

/// Tokens that still work, in scope.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn tokens(app: &App, ctx: &Ctx) -> Result<Vec<Token>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let scope = ctx.caller.scope();
    Ok(app.store.endpoint_tokens(ctx.now).await?.into_iter().filter(|t| scope.covers(&t.site_code)).collect())
}

/// Opens the device CA of this installation.
///
/// # Errors
/// [`Error::Unavailable`] if its file can't be used.
pub fn open_ca(app: &App, now: Time) -> Result<DeviceCa> {
    DeviceCa::open(&app.data_dir, now).map_err(|e| Error::Unavailable("E-503", e.to_string()))
}

/// Opens what a gateway proves endpoints with.
///
/// # Errors
/// [`Error::Unavailable`] if there is none that can be used.
pub fn open_ca_to_serve(app: &App, now: Time) -> Result<DeviceCa> {
    DeviceCa::open_to_serve(&app.data_dir, now).map_err(|e| Error::Unavailable("E-503", e.to_string()))
}

pub(super) fn busy(e: &dyn std::fmt::Display) -> Refusal {
    tracing::warn!(error = %e, "an endpoint was sent away");
    Refusal::Busy { retry_after_s: 30 }
}

/// The row of an endpoint that proved its certificate, if it was not withdrawn.
///
/// # Errors
/// [`Refusal::Unknown`], [`Refusal::Revoked`], [`Refusal::Clone`], or [`Refusal::Busy`] if the database is away.
pub async fn standing(app: &App, id: EndpointId) -> Result<Endpoint, Refusal> {
    match app.store.endpoint(id).await {
        Ok(Some(e)) if e.state == EndpointState::Revoked => Err(Refusal::Revoked),
        Ok(Some(e)) if e.quarantined_at.is_some() => Err(Refusal::Clone),
        Ok(Some(e)) => Ok(e),
        Ok(None) => Err(Refusal::Unknown),
        Err(e) => Err(busy(&e)),
    }
}

/// Signs a new key of a linked endpoint.
///
/// # Errors
/// [`Refusal::Malformed`], [`Refusal::Revoked`], [`Refusal::Busy`].
pub async fn renew(app: &App, ctx: &Ctx, ca: &DeviceCa, id: EndpointId, csr_pem: &str) -> Result<Issued, Refusal> {
    sign_and_keep(app, ctx, ca, id, None, csr_pem).await
}

/// Signs a new key for who proved the key of a certificate that ended at `end`. Only the newest certificate counts, or the
/// one it was renewed from, in case that answer was lost: an old copy of a disk gets nothing.
///
/// # Errors
/// [`Refusal::Expired`], [`Refusal::Unknown`], [`Refusal::Revoked`], [`Refusal::Clone`], [`Refusal::Malformed`],
/// [`Refusal::Busy`].
pub async fn renew_ended(
    app: &App,
    ctx: &Ctx,
    ca: &DeviceCa,
    id: EndpointId,
    end: Time,
    csr_pem: &str,
) -> Result<Issued, Refusal> {
    let row = standing(app, id).await?;
    // A certificate knows seconds.
    let is_end = |at: i64| at / 1_000_000 == end.micros() / 1_000_000;
    if !is_end(row.cert_not_after) && !row.renewed_from.is_some_and(is_end) {
        return Err(Refusal::Expired);
    }
    sign_and_keep(app, ctx, ca, id, Some(end), csr_pem).await
}

async fn sign_and_keep(
    app: &App,
    ctx: &Ctx,
    ca: &DeviceCa,
    id: EndpointId,
    late: Option<Time>,
    csr_pem: &str,
) -> Result<Issued, Refusal> {
    let issued = ca.sign(csr_pem, id, ctx.now).map_err(|e| match e {
        CaError::Request(why) => Refusal::Malformed { detail: why.to_owned() },
        other => busy(&other),
    })?;
    let kept: Result<bool> = async {
        let mut tx = app.store.begin().await?;
        if !tx.renew_endpoint(id, Time::from_micros(issued.not_after_ms * 1000), late).await? {
            return Ok(false);
        }
        tx.endpoint_event(id, if late.is_some() { "renewed_late" } else { "renewed" }, "", ctx.now).await?;
        audit(&mut tx, ctx, "endpoint.renew", &id.to_string(), json!({"late": late.is_some()})).await?;
        tx.commit().await?;
        Ok(true)
    }
    .await;
    match kept {
        Ok(true) => Ok(issued),
        Ok(false) => Err(Refusal::Revoked),
        Err(e) => Err(busy(&e)),
    }
}

/// Endpoints in scope, and how many match in all.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, filter: &Filter) -> Result<(Vec<Endpoint>, i64)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let sites = match ctx.caller.scope() {
        Scope::All => None,
        Scope::Sites(codes) => Some(codes),
    };
    Ok(app.store.endpoints(&Filter { sites, ..filter.clone() }).await?)
}

/// One endpoint and what happened to it.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn get(app: &App, ctx: &Ctx, id: EndpointId) -> Result<(Endpoint, Vec<Event>)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let found = app.store.endpoint(id).await?.filter(|e| ctx.caller.scope().covers(&e.site_code));
    let endpoint = found.ok_or_else(not_found)?;
    let events = app.store.endpoint_events(id, HISTORY).await?;
    Ok((endpoint, events))
}

/// Endpoints in scope: all, online, silent.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn counts(app: &App, ctx: &Ctx) -> Result<(i64, i64, i64)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let scope = ctx.caller.scope();
    let (mut total, mut online, mut silent) = (0, 0, 0);
    for (site, state, n) in app.store.endpoint_counts().await? {
        if state == EndpointState::Revoked.as_str() || !scope.covers(&site) {
            continue;
        }
        total += n;
        match state.parse() {
            Ok(EndpointState::Online) => online += n,
            Ok(EndpointState::Silent) => silent += n,
            _ => {}
        }
    }
    Ok((total, online, silent))
}

/// Withdraws an endpoint for good. Its link is cut within two seconds, on whichever controller it is.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], [`Error::Conflict`] if it is withdrawn already.
pub async fn revoke(app: &App, ctx: &Ctx, id: EndpointId, reason: &str) -> Result<(Endpoint, Vec<Event>)> {
    ctx.require(&[Role::Operator])?;
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > 200 || reason.chars().any(char::is_control) {
        return Err(Error::field("reason", "E-205", "say why, in at most 200 characters on one line"));
    }
    let (endpoint, _) = get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    if !tx.revoke_endpoint(id, ctx.now).await? {
        return Err(Error::Conflict("E-409", format!("{} was withdrawn already", endpoint.name)));
    }
    tx.endpoint_event(id, "revoked", reason, ctx.now).await?;
    audit(&mut tx, ctx, "endpoint.revoke", &id.to_string(), json!({"name": endpoint.name, "reason": reason})).await?;
    tx.commit().await?;
    get(app, ctx, id).await
}

/// Says of an endpoint that its line is paid by the byte, or is not, whatever is said of its site; `None`: as its site.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator asks; [`Error::NotFound`].
pub async fn set_metered(
    app: &App,
    ctx: &Ctx,
    id: EndpointId,
    metered: Option<bool>,
) -> Result<(Endpoint, Vec<Event>)> {
    ctx.require(&[Role::Operator])?;
    let (endpoint, _) = get(app, ctx, id).await?;
    if endpoint.metered_here != metered {
        let mut tx = app.store.begin().await?;
        tx.put_endpoint_metered(id, metered).await?;
        let detail = json!({"name": endpoint.name, "metered": metered});
        audit(&mut tx, ctx, "endpoint.metered", &id.to_string(), detail).await?;
        tx.commit().await?;
    }
    get(app, ctx, id).await
}

/// Marks endpoints that fell silent; how many. Running it again right away finds none.
///
/// # Errors
/// Those of the store.
pub async fn mark_silent(app: &App, controller_since: Time, now: Time) -> Result<usize> {
    let Some(before) = app.pace.silent_before(now, controller_since) else { return Ok(0) };
    let mut tx = app.store.begin().await?;
    // Who pays by the byte speaks rarely.
    let slow = app.pace.metered().silent_before(now, controller_since).unwrap_or_default();
    let gone = tx.silence_endpoints(before, slow).await?;
    for (id, last) in &gone {
        tx.endpoint_event(*id, "silent", &format!("last heard {last}"), now).await?;
    }
    tx.commit().await?;
    Ok(gone.len())
}

/// The caller an agent's own request is audited as.
#[must_use]
pub fn as_agent(ip: String, now: Time) -> Ctx {
    Ctx { caller: Caller::System, ip, now }
}

/// What a `hello` changes.
///
/// # Errors
/// [`Error::Internal`] if it can't be kept as JSON.
pub fn report_of_hello(hello: &Hello) -> Result<Report> {
    Ok(Report { hello: Some((plain(hello)?, display_name(&hello.hostname))), ..Report::default() })
}

/// What a snapshot changes.
///
/// # Errors
/// [`Error::Internal`] if it can't be kept as JSON.
pub fn report_of_snapshot(s: &Snapshot) -> Result<Report> {
    Ok(Report {
        hello: None,
        hardware: Some(plain(&s.hardware)?),
        vitals: Some(plain(&s.vitals)?),
        network: Some(plain(&s.network)?),
        findings: Some(judged(&s.findings)?),
    })
}

/// What a change changes.
///
/// # Errors
/// [`Error::Internal`] if it can't be kept as JSON.
pub fn report_of_change(c: &Change) -> Result<Report> {
    Ok(Report {
        vitals: c.vitals.as_ref().map(plain).transpose()?,
        network: c.network.as_ref().map(plain).transpose()?,
        findings: c.findings.as_ref().map(|f| judged(f)).transpose()?,
        ..Report::default()
    })
}

fn judged(findings: &[Finding]) -> Result<(Value, crate::domain::endpoint::Verdict)> {
    Ok((plain(&findings)?, verdict(findings)))
}

/// As JSON that both databases keep and no page chokes on: endpoints are not trusted.
pub(super) fn plain(value: &impl serde::Serialize) -> Result<Value> {
    let mut value = serde_json::to_value(value).map_err(|e| Error::Internal(Box::new(e)))?;
    scrub(&mut value);
    Ok(value)
}

fn scrub(value: &mut Value) {
    match value {
        Value::String(s) => {
            // PostgreSQL refuses NUL in JSON; the other control characters help nobody either.
            if s.len() > MAX_TEXT || s.chars().any(char::is_control) {
                *s = s.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Object(fields) => {
            let bad = |k: &String| k.len() > MAX_TEXT || k.chars().any(char::is_control);
            if fields.keys().any(bad) {
                fields.retain(|k, _| !bad(k));
            }
            fields.values_mut().for_each(scrub);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn not_found() -> Error {
    Error::NotFound("E-404", "there is no such endpoint, or it isn't in your sites".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_says_is_made_storable() {
        let mut v = json!({"a": "x\u{0}y\n", "b": ["ế".repeat(1000)], "c\u{0}": 1, "d": {"e": "fine <b>"}});
        scrub(&mut v);
        assert_eq!(v["a"], "xy");
        assert_eq!(v["b"][0].as_str().unwrap().chars().count(), MAX_TEXT);
        assert_eq!(v["d"]["e"], "fine <b>");
        assert_eq!(v.as_object().unwrap().len(), 3);
    }
}
