//! Copies of endpoints: quarantine of an identity that several computers show, and what an operator decides.

use metrics::{counter, gauge};
use serde::Serialize;
use serde_json::json;
use tram_wire::enrol::EnrolResponse;
use tram_wire::hello::Hello;
use tram_wire::ids::EndpointId;
use tram_wire::refusal::Refusal;
use uuid::Uuid;

use super::endpoints::{busy, get, plain};
use super::{App, Ctx, Error, Result, audit};
use crate::domain::access::Role;
use crate::domain::copies::{Claim, Known, Signal, Suspicion, signals};
use crate::domain::endpoint::{EndpointState, display_name};
use crate::domain::time::Time;
use crate::identity::ca::{CaError, DeviceCa};
use crate::store::copies::Copy;
use crate::store::endpoints::{Endpoint, Event};

/// How a computer with a good certificate is let in.
#[expect(clippy::large_enum_variant, reason = "made once a link and taken apart at once")]
pub enum Entry {
    /// As the endpoint, to be compared with who showed its identity so far.
    Known(Option<Known>),
    /// Apart from the others that show the same identity.
    Copy {
        /// The endpoint it is instead.
        became: Option<EndpointId>,
    },
}

/// Whether a computer with a good certificate may link, and how. Also the protocol version.
///
/// # Errors
/// [`Refusal::Unknown`], [`Refusal::Revoked`], [`Refusal::Version`], or [`Refusal::Busy`] if the database is away.
pub async fn admit(app: &App, id: EndpointId, hello: &Hello, claim: &Claim) -> Result<(u16, Entry), Refusal> {
    let version = tram_wire::version::negotiate(hello.versions)?;
    let standing = app.store.endpoint_standing(id).await.map_err(|e| busy(&e))?.ok_or(Refusal::Unknown)?;
    // One that was told to be another endpoint is so even after its original was withdrawn.
    if standing.quarantined || claim.instance.copy.is_some() {
        let copy = app.store.endpoint_copy(id, &claim.key()).await.map_err(|e| busy(&e))?;
        if let Some(new) = copy.and_then(|c| c.became) {
            return Ok((version, Entry::Copy { became: Some(EndpointId(new)) }));
        }
    }
    if standing.state == EndpointState::Revoked {
        return Err(Refusal::Revoked);
    }
    if !standing.quarantined {
        return Ok((version, Entry::Known(standing.known)));
    }
    let done = async {
        let mut tx = app.store.begin().await?;
        let before = Some(claim.instance.nonce.as_str()).filter(|_| claim.instance.copy.is_some());
        tx.put_endpoint_copy(id, claim, before, app.clock.now()).await?;
        tx.commit().await
    };
    done.await.map_err(|e| busy(&e))?;
    Ok((version, Entry::Copy { became: None }))
}

/// Which signals this claim gives; each is counted.
#[must_use]
pub fn signals_of(known: &Known, claim: &Claim) -> Vec<Signal> {
    let found = signals(known, claim);
    for signal in &found {
        counter!("endpoint_copy_signals_total", "signal" => signal.as_str()).increment(1);
    }
    found
}

/// Writes a signal down that decides nothing alone: whoever looks later sees when the board was changed.
pub async fn note(app: &App, id: EndpointId, known: &Known, claim: &Claim, signals: &[Signal]) {
    let Some(signal) = signals.first() else { return };
    let detail = match signal {
        Signal::Hardware => differ(&known.last, claim),
        _ => format!("{} -> {}", known.last.connects, claim.connects),
    };
    let done = async {
        let mut tx = app.store.begin().await?;
        tx.endpoint_event(id, &format!("other_{}", signal.as_str()), &detail, app.clock.now()).await?;
        tx.commit().await
    };
    if let Err(e) = done.await {
        tracing::warn!(endpoint = %id, error = %e, "a signal of a copy could not be written down");
    }
}

fn differ(known: &Claim, claim: &Claim) -> String {
    let (a, b) = (&known.instance.marks, &claim.instance.marks);
    let text = |board: &Option<String>, disks: &[String], macs: &[String]| {
        let all: Vec<&str> = board.iter().chain(disks).chain(macs).map(String::as_str).collect();
        all.join(", ")
    };
    format!("{} -> {}", text(&a.board, &a.disks, &a.macs), text(&b.board, &b.disks, &b.macs))
}

/// Puts an identity into quarantine: both who was known and who came are copies until somebody decides.
///
/// # Errors
/// [`Refusal::Busy`] if the database is away.
pub async fn quarantine(
    app: &App,
    id: EndpointId,
    known: &Known,
    claim: &Claim,
    signals: &[Signal],
    now: Time,
) -> Result<(), Refusal> {
    let names: Vec<&str> = signals.iter().map(|s| s.as_str()).collect();
    let why = Suspicion {
        signals: names.iter().map(|s| (*s).to_owned()).collect(),
        known: known.last.clone(),
        came: claim.clone(),
    };
    let done: Result<bool> = async {
        let mut tx = app.store.begin().await?;
        // Another controller, or the other computer, may have been faster.
        if !tx.quarantine_endpoint(id, &why, now).await? {
            return Ok(false);
        }
        tx.put_endpoint_copy(id, &known.last, None, now).await?;
        tx.put_endpoint_copy(id, claim, None, now).await?;
        tx.endpoint_event(id, "quarantined", &names.join(", "), now).await?;
        let ctx = Ctx { ip: claim.address.clone(), ..Ctx::system(now) };
        audit(&mut tx, &ctx, "endpoint.quarantine", &id.to_string(), json!({"signals": names})).await?;
        tx.commit().await?;
        Ok(true)
    }
    .await;
    if done.map_err(|e| busy(&e))? {
        counter!("endpoint_quarantines_total").increment(1);
        tracing::warn!(endpoint = %id, signals = names.join(","), "several computers show this identity; it is in quarantine");
    }
    count(app).await;
    Ok(())
}

async fn count(app: &App) {
    if let Ok(n) = app.store.endpoints_quarantined().await {
        gauge!("endpoints_quarantined").set(f64::from(u32::try_from(n).unwrap_or(u32::MAX)));
    }
}

/// A copy was heard, perhaps with a report, which is kept apart.
pub async fn heard(app: &App, id: EndpointId, claim: &Claim, report: Option<&impl Serialize>, now: Time) {
    let done: Result<()> = async {
        let report = report.map(plain).transpose()?;
        let mut tx = app.store.begin().await?;
        tx.endpoint_copy_heard(id, &claim.key(), report.as_ref(), now).await?;
        Ok(tx.commit().await?)
    }
    .await;
    if let Err(e) = done {
        tracing::warn!(endpoint = %id, error = %e, "a report of a copy was dropped");
    }
}

/// Signs the first key of a computer that was a copy and is an endpoint of its own.
///
/// # Errors
/// [`Refusal::Malformed`], [`Refusal::Revoked`] if the new endpoint was withdrawn, [`Refusal::Busy`].
pub async fn rebirth(
    app: &App,
    ctx: &Ctx,
    ca: &DeviceCa,
    old: EndpointId,
    new: EndpointId,
    csr_pem: &str,
) -> Result<EnrolResponse, Refusal> {
    let issued = ca.sign(csr_pem, new, ctx.now).map_err(|e| match e {
        CaError::Request(why) => Refusal::Malformed { detail: why.to_owned() },
        other => busy(&other),
    })?;
    let kept: Result<bool> = async {
        let mut tx = app.store.begin().await?;
        if !tx.renew_endpoint(new, Time::from_micros(issued.not_after_ms * 1000), None).await? {
            return Ok(false);
        }
        tx.endpoint_event(new, "reborn", &old.to_string(), ctx.now).await?;
        audit(&mut tx, ctx, "endpoint.reborn", &new.to_string(), json!({"was": old})).await?;
        tx.commit().await?;
        Ok(true)
    }
    .await;
    match kept {
        Ok(true) => Ok(EnrolResponse { endpoint_id: new, issued, order_keys: super::diagnosis::public_keys(app) }),
        Ok(false) => Err(Refusal::Revoked),
        Err(e) => Err(busy(&e)),
    }
}

/// Computers that show an endpoint's identity, for who may see the endpoint.
///
/// # Errors
/// Those of the store.
pub async fn of(app: &App, endpoint: &Endpoint) -> Result<Vec<Copy>> {
    Ok(app.store.endpoint_copies(endpoint.id).await?)
}

pub(super) fn checked(reason: &str) -> Result<&str> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > 200 || reason.chars().any(char::is_control) {
        return Err(Error::field("reason", "E-205", "say why, in at most 200 characters on one line"));
    }
    Ok(reason)
}

fn settled(name: &str) -> Error {
    Error::Conflict("E-411", format!("{name} is not in quarantine, or that was decided already"))
}

/// This copy is another computer: it gets an identity of its own, at the same site. If one other computer is left, the old
/// identity is that one's, and the quarantine is over. The new endpoint's id comes with the old endpoint.
///
/// # Errors
/// [`Error::NotFound`] also for the copy, [`Error::Conflict`], [`Error::Invalid`].
pub async fn new_machine(
    app: &App,
    ctx: &Ctx,
    id: EndpointId,
    copy: &str,
    reason: &str,
) -> Result<(Endpoint, Vec<Event>, EndpointId)> {
    ctx.require(&[Role::Operator])?;
    let reason = checked(reason)?;
    let (endpoint, _) = get(app, ctx, id).await?;
    if endpoint.quarantined_at.is_none() {
        return Err(settled(&endpoint.name));
    }
    let found = app.store.endpoint_copy(id, copy).await?;
    let found = found.ok_or_else(|| Error::NotFound("E-410", "there is no such copy of this endpoint".into()))?;
    let new = EndpointId(Uuid::now_v7());
    let name = display_name(&found.claim.hostname);
    let mut tx = app.store.begin().await?;
    tx.add_endpoint(new, &name, &endpoint.site_code, &json!({"hostname": name}), ctx.now, ctx.now).await?;
    if !tx.endpoint_copy_became(id, copy, new).await? {
        return Err(settled(&endpoint.name));
    }
    let rest = tx.open_endpoint_copies(id).await?;
    let lift = rest.len() <= 1;
    tx.settle_endpoint(id, lift, ctx.now).await?;
    if lift {
        match rest.into_iter().next() {
            Some(only) => tx.put_endpoint_known(id, &Known::only(only.claim)).await?,
            None => tx.forget_endpoint_known(id).await?,
        }
        tx.forget_endpoint_copies(id).await?;
    }
    tx.endpoint_event(id, "copy_split", &format!("{new} {reason}"), ctx.now).await?;
    tx.endpoint_event(new, "split_from", &id.to_string(), ctx.now).await?;
    let detail = json!({"copy": copy, "new": new, "lifted": lift, "reason": reason});
    audit(&mut tx, ctx, "endpoint.new_machine", &id.to_string(), detail).await?;
    tx.commit().await?;
    decided(app, "new_machine").await;
    let (endpoint, events) = get(app, ctx, id).await?;
    Ok((endpoint, events, new))
}

/// It is one computer after all: the quarantine is over. With `copy` the identity is that one's from here on; without it,
/// whoever comes next has it.
///
/// # Errors
/// As [`new_machine`].
pub async fn same_machine(
    app: &App,
    ctx: &Ctx,
    id: EndpointId,
    copy: Option<&str>,
    reason: &str,
) -> Result<(Endpoint, Vec<Event>)> {
    ctx.require(&[Role::Operator])?;
    let reason = checked(reason)?;
    let (endpoint, _) = get(app, ctx, id).await?;
    let mut tx = app.store.begin().await?;
    if !tx.settle_endpoint(id, true, ctx.now).await? {
        return Err(settled(&endpoint.name));
    }
    let open = tx.open_endpoint_copies(id).await?;
    match copy {
        None => tx.forget_endpoint_known(id).await?,
        Some(copy) => {
            let it = open.into_iter().find(|c| c.copy == copy);
            let it = it.ok_or_else(|| Error::NotFound("E-410", "there is no such copy of this endpoint".into()))?;
            tx.put_endpoint_known(id, &Known::only(it.claim)).await?;
        }
    }
    tx.forget_endpoint_copies(id).await?;
    tx.endpoint_event(id, "same_machine", reason, ctx.now).await?;
    audit(&mut tx, ctx, "endpoint.same_machine", &id.to_string(), json!({"copy": copy, "reason": reason})).await?;
    tx.commit().await?;
    decided(app, "same_machine").await;
    get(app, ctx, id).await
}

async fn decided(app: &App, what: &'static str) {
    counter!("endpoint_copies_decided_total", "as" => what).increment(1);
    count(app).await;
}
