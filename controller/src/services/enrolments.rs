//! Enrolment: a computer shows a token and becomes an endpoint, at once or after a person approved it.
//!
//! No certificate is made before the approval: what waits is a row with the hash of a key. The computer asks again with the
//! same request, and is answered by what was decided.

use metrics::{counter, gauge};
use serde_json::{Value, json};
use tram_wire::enrol::{EnrolRequest, EnrolResponse};
use tram_wire::ids::EndpointId;
use tram_wire::instance::Marks;
use tram_wire::refusal::Refusal;
use tram_wire::token::EnrolToken;
use uuid::Uuid;

use super::endpoints::{busy, plain, standing};
use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::{Role, Scope};
use crate::domain::approval::{Approval, EnrolmentState, ask_again_s, digits, matching, read_digits};
use crate::domain::endpoint::display_name;
use crate::domain::time::Time;
use crate::identity::ca::{CaError, DeviceCa};
use crate::identity::secret::hash;
use crate::store::Tx;
use crate::store::endpoints::UsedToken;
use crate::store::enrolments::{Enrolment, Neighbour, NewEnrolment};

/// Endpoints of the site that are shown beside a newcomer.
const NEIGHBOURS: i64 = 200;
/// Rows of the list of what was decided.
const DECIDED: i64 = 200;
/// Six digits are tried so often; with few computers waiting the first is free.
const TRIES: usize = 20;

/// Makes a computer with a good token an endpoint, or tells it to wait. The token is used up only if all else is good, and
/// once by a computer that asks again.
///
/// # Errors
/// [`Refusal::Token`], the same for wrong, used and late ones; [`Refusal::Pending`], [`Refusal::NotApproved`],
/// [`Refusal::Unanswered`]; [`Refusal::Malformed`]; [`Refusal::Busy`] if the database is away.
pub async fn enrol(app: &App, ctx: &Ctx, ca: &DeviceCa, r: &EnrolRequest) -> Result<EnrolResponse, Refusal> {
    tram_wire::version::negotiate(r.hello.versions)?;
    let token: EnrolToken = r.token.parse().map_err(|_| Refusal::Token)?;
    let key = DeviceCa::asked_key(&r.csr_pem).map_err(|e| unsigned(&e))?;
    let secret = hash(token.secret());
    if let Some(row) = app.store.enrolment_of(&secret, &key).await.map_err(|e| busy(&e))? {
        return again(app, ctx, ca, &row, &r.csr_pem).await;
    }
    let done = first(app, ctx, ca, &secret, key, r).await;
    if let Ok(Some(answer)) = done {
        return answer;
    }
    // The same computer may have asked twice in one moment; then the other question was the first one.
    match (app.store.enrolment_of(&secret, &key).await.map_err(|e| busy(&e))?, done) {
        (Some(row), _) => again(app, ctx, ca, &row, &r.csr_pem).await,
        (None, Err(e)) => Err(busy(&e)),
        (None, Ok(_)) => Err(Refusal::Token),
    }
}

fn unsigned(e: &CaError) -> Refusal {
    match e {
        CaError::Request(why) => Refusal::Malformed { detail: (*why).to_owned() },
        other => busy(other),
    }
}

type Answer = Result<EnrolResponse, Refusal>;

/// A key that was not seen with this token. `None`: the token is no good.
async fn first(
    app: &App,
    ctx: &Ctx,
    ca: &DeviceCa,
    secret: &[u8; 32],
    key: [u8; 32],
    r: &EnrolRequest,
) -> Result<Option<Answer>> {
    let mut tx = app.store.begin().await?;
    let Some(token) = tx.use_endpoint_token(secret, ctx.now).await? else { return Ok(None) };
    let marks = r.hello.instance.clone().unwrap_or_default().marks.plain();
    let serial = match token.approval {
        Approval::Serial => matching(&token.serials, r.hardware.as_ref(), &marks),
        Approval::Auto | Approval::Manual => None,
    };
    let id = EndpointId(Uuid::now_v7());
    if token.approval != Approval::Auto && serial.is_none() {
        let waits = wait(app, ctx, &mut tx, (id, key), &token, &marks, r).await?;
        tx.commit().await?;
        counter!("enrolments_asked_total", "answer" => "pending").increment(1);
        count(app).await;
        return Ok(Some(Err(waits)));
    }
    if let Some(serial) = &serial {
        // Each computer of the list comes once; whoever else says so waits for a person.
        let rest: Vec<String> = token.serials.iter().filter(|s| *s != serial).cloned().collect();
        tx.put_token_serials(token.id, &rest).await?;
    }
    let issued = match ca.sign(&r.csr_pem, id, ctx.now) {
        Ok(issued) => issued,
        Err(e) => return Ok(Some(Err(unsigned(&e)))),
    };
    let name = display_name(&r.hello.hostname);
    let not_after = Time::from_micros(issued.not_after_ms * 1000);
    tx.add_endpoint(id, &name, &token.site_code, &plain(&r.hello)?, not_after, ctx.now).await?;
    tx.endpoint_event(id, "enrolled", &token.site_code, ctx.now).await?;
    let detail = json!({"name": name, "site": token.site_code, "token": token.id, "serial": serial});
    audit(&mut tx, ctx, "endpoint.enrol", &id.to_string(), detail).await?;
    tx.commit().await?;
    counter!("enrolments_asked_total", "answer" => token.approval.as_str()).increment(1);
    tracing::info!(endpoint = %id, "enrolled");
    Ok(Some(Ok(EnrolResponse { endpoint_id: id, issued, order_keys: super::diagnosis::public_keys(app) })))
}

/// Keeps a computer for a person to look at; what it is told.
async fn wait(
    app: &App,
    ctx: &Ctx,
    tx: &mut Tx,
    (id, key): (EndpointId, [u8; 32]),
    token: &UsedToken,
    marks: &Marks,
    r: &EnrolRequest,
) -> Result<Refusal> {
    let digits = free_digits(tx).await?;
    let name = display_name(&r.hello.hostname);
    let hardware: Option<Value> = r.hardware.as_ref().map(plain).transpose()?;
    let expires_at = ctx.now.plus(app.pace.approval);
    let new = NewEnrolment {
        id,
        token: token.id,
        key,
        site_code: &token.site_code,
        name: &name,
        digits: &digits,
        hello: &plain(&r.hello)?,
        hardware: hardware.as_ref(),
        marks,
        address: &ctx.ip,
        expected: &token.serials,
        expires_at,
    };
    tx.add_enrolment(&new, ctx.now).await?;
    let detail = json!({"name": name, "site": token.site_code, "token": token.id});
    audit(tx, ctx, "enrolment.ask", &id.to_string(), detail).await?;
    tracing::info!(enrolment = %id, "a computer waits for approval");
    Ok(pending(digits, expires_at, ctx.now, ctx.now))
}

fn pending(digits: String, until: Time, asked: Time, now: Time) -> Refusal {
    Refusal::Pending { digits, until_ms: until.micros() / 1000, ask_again_s: ask_again_s(asked, now) }
}

async fn free_digits(tx: &mut Tx) -> Result<String> {
    for _ in 0..TRIES {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|e| Error::Internal(Box::new(e)))?;
        let digits = digits(random);
        if !tx.digits_taken(&digits).await? {
            return Ok(digits);
        }
    }
    Err(Error::Unavailable("E-430", "too many computers wait for approval".into()))
}

/// A computer that waits asks again.
async fn again(app: &App, ctx: &Ctx, ca: &DeviceCa, row: &Enrolment, csr_pem: &str) -> Answer {
    let until = Time::from_micros(row.expires_at);
    match row.state {
        EnrolmentState::Pending if ctx.now < until => {
            let heard: Result<()> = async {
                let mut tx = app.store.begin().await?;
                tx.enrolment_heard(row.id, ctx.now).await?;
                Ok(tx.commit().await?)
            }
            .await;
            heard.map_err(|e| busy(&e))?;
            Err(pending(row.digits.clone(), until, Time::from_micros(row.asked_at), ctx.now))
        }
        EnrolmentState::Refused => Err(Refusal::NotApproved { reason: row.reason.clone() }),
        EnrolmentState::Pending | EnrolmentState::Expired => Err(Refusal::Unanswered),
        EnrolmentState::Approved => collect(app, ctx, ca, row, csr_pem).await,
    }
}

/// An approved computer comes for its certificate: only now there is one. What was approved is what is kept, whatever the
/// computer says of itself by now.
async fn collect(app: &App, ctx: &Ctx, ca: &DeviceCa, row: &Enrolment, csr_pem: &str) -> Answer {
    if row.collected_at.is_some() {
        // The answer was lost on the way. A withdrawn or quarantined endpoint gets no second one.
        standing(app, row.id).await?;
    }
    let issued = ca.sign(csr_pem, row.id, ctx.now).map_err(|e| unsigned(&e))?;
    let kept: Result<bool> = async {
        let mut tx = app.store.begin().await?;
        let Some(first) = tx.collect_enrolment(row.id, ctx.now).await? else { return Ok(false) };
        let not_after = Time::from_micros(issued.not_after_ms * 1000);
        if first {
            tx.add_endpoint(row.id, &row.name, &row.site_code, &row.hello, not_after, ctx.now).await?;
            tx.endpoint_event(row.id, "enrolled", &row.site_code, ctx.now).await?;
        } else if !tx.renew_endpoint(row.id, not_after, None).await? {
            return Ok(false);
        }
        let detail = json!({"name": row.name, "site": row.site_code, "approved_by": row.decided_by, "again": !first});
        audit(&mut tx, ctx, "endpoint.enrol", &row.id.to_string(), detail).await?;
        tx.commit().await?;
        Ok(true)
    }
    .await;
    if !kept.map_err(|e| busy(&e))? {
        return Err(Refusal::Unanswered);
    }
    tracing::info!(endpoint = %row.id, "enrolled after approval");
    Ok(EnrolResponse { endpoint_id: row.id, issued, order_keys: super::diagnosis::public_keys(app) })
}

/// Computers in scope that wait, the first first; or what was decided, the newest first.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn list(app: &App, ctx: &Ctx, waiting: bool) -> Result<Vec<Enrolment>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let sites = match ctx.caller.scope() {
        Scope::All => None,
        Scope::Sites(codes) => Some(codes),
    };
    let limit = if waiting { i64::MAX } else { DECIDED };
    Ok(app.store.enrolments(sites.as_deref(), waiting, limit).await?)
}

/// One computer that asked, and the endpoints of its site beside it: those with the same serial numbers first.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn get(app: &App, ctx: &Ctx, id: EndpointId) -> Result<(Enrolment, Vec<Neighbour>)> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let found = app.store.enrolment(id).await?.filter(|e| ctx.caller.scope().covers(&e.site_code));
    let row = found.ok_or_else(not_found)?;
    let mut beside = app.store.site_neighbours(&row.site_code, NEIGHBOURS).await?;
    beside.retain(|n| n.id != row.id);
    beside.sort_by_key(|n| !is_same_hardware(&row, n));
    Ok((row, beside))
}

/// Whether an endpoint that is there has a serial number of the newcomer: perhaps it is enrolled already.
#[must_use]
pub fn is_same_hardware(row: &Enrolment, n: &Neighbour) -> bool {
    let own: Vec<String> = serials(row.hardware.as_ref().and_then(|h| h.serial.as_deref()), Some(&row.marks));
    let theirs = serials(
        n.hardware.as_ref().and_then(|h| h.serial.as_deref()),
        n.known.as_ref().map(|k| &k.last.instance.marks),
    );
    own.iter().any(|s| theirs.contains(s))
}

fn serials(own: Option<&str>, marks: Option<&Marks>) -> Vec<String> {
    let marked = marks.into_iter().flat_map(|m| m.board.iter().chain(&m.disks).chain(&m.macs)).map(String::as_str);
    own.into_iter().chain(marked).filter_map(crate::domain::approval::plain_serial).collect()
}

/// The computer that waits with these digits.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`] if they aren't six digits.
pub async fn find(app: &App, ctx: &Ctx, typed: &str) -> Result<Enrolment> {
    ctx.require(&[Role::Operator, Role::Support])?;
    let digits =
        read_digits(typed).ok_or_else(|| Error::field("code", "E-206", "give the six digits of its screen"))?;
    let found = app.store.enrolment_waiting(&digits).await?;
    found.filter(|e| ctx.caller.scope().covers(&e.site_code)).ok_or_else(not_found)
}

fn not_found() -> Error {
    Error::NotFound("E-412", "no such computer waits for approval, or it isn't in your sites".into())
}

/// Approves a computer whose digits somebody read from its screen; it gets its certificate when it asks next.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] for other digits; [`Error::Conflict`] if it was decided, or waited too long.
pub async fn approve(app: &App, ctx: &Ctx, id: EndpointId, typed: &str) -> Result<Enrolment> {
    let (row, _) = get(app, ctx, id).await?;
    if read_digits(typed).as_deref() != Some(&*row.digits) {
        return Err(Error::field("code", "E-206", "these are not the digits of this computer's screen"));
    }
    decide(app, ctx, &row, EnrolmentState::Approved, "").await
}

/// Refuses a computer that waits; it says so on its screen. The use of the token stays spent.
///
/// # Errors
/// As [`approve`]; [`Error::Invalid`] without a reason.
pub async fn refuse(app: &App, ctx: &Ctx, id: EndpointId, reason: &str) -> Result<Enrolment> {
    let (row, _) = get(app, ctx, id).await?;
    let reason = super::copies::checked(reason)?;
    decide(app, ctx, &row, EnrolmentState::Refused, reason).await
}

async fn decide(app: &App, ctx: &Ctx, row: &Enrolment, state: EnrolmentState, reason: &str) -> Result<Enrolment> {
    let until = ctx.now.plus(app.pace.approval);
    let mut tx = app.store.begin().await?;
    if !tx.decide_enrolment(row.id, state, (ctx.caller.name(), reason), until, ctx.now).await? {
        drop(tx);
        let now = app.store.enrolment(row.id).await?.ok_or_else(not_found)?;
        let text = match (now.state, now.decided_by) {
            (EnrolmentState::Approved | EnrolmentState::Refused, Some(by)) => {
                format!("{} was {} already, by {by}", row.name, now.state.as_str())
            }
            _ => format!("{} waited too long; make a new token", row.name),
        };
        return Err(Error::Conflict("E-413", text));
    }
    let action = if state == EnrolmentState::Approved { "enrolment.approve" } else { "enrolment.refuse" };
    let detail = json!({"name": row.name, "site": row.site_code, "code": row.digits, "reason": reason});
    audit(&mut tx, ctx, action, &row.id.to_string(), detail).await?;
    tx.commit().await?;
    counter!("enrolments_decided_total", "as" => state.as_str()).increment(1);
    count(app).await;
    app.store.enrolment(row.id).await?.ok_or_else(not_found)
}

/// Ends the wait of who waited too long; how many. Running it again right away finds none.
///
/// # Errors
/// Those of the store.
pub async fn expire(app: &App, now: Time) -> Result<usize> {
    let mut tx = app.store.begin().await?;
    let gone = tx.expire_enrolments(now).await?;
    for id in &gone {
        audit(&mut tx, &Ctx::system(now), "enrolment.expire", &id.to_string(), json!({})).await?;
    }
    tx.commit().await?;
    if !gone.is_empty() {
        let n = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        counter!("enrolments_decided_total", "as" => EnrolmentState::Expired.as_str()).increment(n);
        count(app).await;
    }
    Ok(gone.len())
}

async fn count(app: &App) {
    if let Ok(n) = app.store.enrolments_pending().await {
        gauge!("enrolments_pending").set(f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
    }
}
