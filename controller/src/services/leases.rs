//! Leases: an endpoint's right to an officer's session while the controller or the database can't be asked.
//!
//! [`issue`] signs one while the officer works; a gateway that can ask the database lets it in by [`enter`]; what
//! a gateway did while it could not is written down afterwards, once, by [`take_in`] and [`adopt`].

use std::time::Duration;

use serde_json::json;
use tram_wire::ids::{DesktopId, EndpointId, HostId, LeaseId, SessionId};
use tram_wire::lease::{Lease, Limits, Signed, VERSION};
use tram_wire::session;
use uuid::Uuid;

use super::desk::Endpoint;
use super::sign_in::Visit;
use super::{App, Ctx, Error, Result, audit, broker, tunnels};
use crate::domain::access::Role;
use crate::domain::lease::{self, Event, Fault, What, hex};
use crate::domain::policy::SessionPolicy;
use crate::domain::session::{Cut, SessionState};
use crate::domain::ticket::{Binding, Protocol, Protocols};
use crate::domain::time::Time;
use crate::identity::lease_keys::LeaseKeys;
use crate::identity::secret::Secret;
use crate::store::audit::Entry;
use crate::store::leases::{Issued, LeaseRow, LeasesOf, NewLease, Sight};
use crate::store::sessions::Session;

/// Asked again after this long where there is none to give.
const NONE_FOR: Duration = Duration::from_secs(600);

/// For the endpoint: the lease, if there is one to give, and when to ask again.
#[derive(Debug)]
pub struct Leased {
    /// The lease.
    pub lease: Option<Signed>,
    /// When to ask again.
    pub renew: Duration,
}

/// Lets gateways know what will sign leases, before anything is signed: they may not be able to ask afterwards.
///
/// # Errors
/// Those of the store; [`Error::Internal`] if the key can't be used.
pub async fn publish(app: &App) -> Result<()> {
    let keys = LeaseKeys::open(&app.data_dir).map_err(|e| Error::Internal(Box::new(e)))?;
    let mut tx = app.store.begin().await?;
    for (id, public) in keys.public() {
        tx.put_lease_key(&id, &public).await?;
    }
    Ok(tx.commit().await?)
}

/// Signs a lease for the session the officer works in at this endpoint, or renews it.
///
/// # Errors
/// Those of the store; [`Error::Internal`] if the key can't be used.
pub async fn issue(app: &App, at: &Endpoint, visit: &Visit) -> Result<Leased> {
    let none = Leased { lease: None, renew: NONE_FOR };
    let (user, ctx) = (broker::officer(&visit.ctx)?, &visit.ctx);
    let mut tx = app.store.begin().await?;
    let binding = Binding::Endpoint { id: at.id, certificate: at.certificate };
    let here = tx.place_key(&binding).await?;
    let Some(row) = tx.live_session_of(user).await?.filter(|s| s.state == SessionState::Active) else {
        return Ok(none);
    };
    let ends_in = row.standing().ends_at.since(ctx.now);
    let (Some(desktop), None, Some(life)) =
        (row.desktop_id.map(DesktopId), row.elsewhere(&here), lease::life(app.policy.lease, ends_in))
    else {
        return Ok(none);
    };
    let Some((host, generation)) = tx.running_desktop(desktop).await? else { return Ok(none) };
    let new = NewLease {
        id: LeaseId(Uuid::now_v7()),
        user,
        endpoint: at.id,
        certificate: at.certificate,
        session: row.id,
        desktop,
        life,
    };
    let issued = tx.put_lease(&new).await?;
    let keys = LeaseKeys::open(&app.data_dir).map_err(|e| Error::Internal(Box::new(e)))?;
    for (id, public) in keys.public() {
        tx.put_lease_key(&id, &public).await?;
    }
    let text = written(app, visit, &row, &new, issued, (host, generation), binding.protocols());
    let signed = keys.sign(&text).map_err(|e| Error::Internal(Box::new(e)))?;
    if issued.id == new.id {
        let detail = json!({"endpoint": at.id, "desktop": row.desktop_name, "lease": issued.id});
        audit(&mut tx, ctx, "lease.issue", &row.id.to_string(), detail).await?;
    }
    tx.commit().await?;
    metrics::counter!("leases_issued_total").increment(1);
    Ok(Leased { lease: Some(signed), renew: lease::renew_after(life) })
}

/// What is signed.
fn written(
    app: &App,
    visit: &Visit,
    row: &Session,
    new: &NewLease,
    issued: Issued,
    (host, generation): (HostId, i64),
    protocols: Protocols,
) -> Lease {
    let on_wire = |p| match p {
        Protocol::Vnc => session::Protocol::Vnc,
        Protocol::Spice => session::Protocol::Spice,
    };
    let policy = &row.policy;
    Lease {
        version: VERSION,
        id: issued.id,
        installation: app.installation,
        user: new.user,
        username: row.username.clone(),
        display_name: visit.user.display_name.clone(),
        endpoint: new.endpoint,
        certificate: hex(&new.certificate),
        site: row.site_code.clone(),
        session: row.id,
        desktop: new.desktop,
        desktop_name: row.desktop_name.clone(),
        generation,
        host,
        protocols: protocols.iter().map(on_wire).collect(),
        limits: Limits { idle_s: policy.idle_s, clipboard: policy.clipboard, audio: policy.audio, kbit: policy.kbit },
        issued_ms: issued.issued_at / 1000,
        not_before_ms: issued.issued_at / 1000,
        expires_ms: issued.expires_at / 1000,
    }
}

/// What a gateway keeps in mind.
///
/// # Errors
/// Only those of the store.
pub async fn sight(app: &App) -> Result<Sight> {
    Ok(app.store.lease_sight().await?)
}

/// A session that was entered.
#[derive(Debug)]
pub struct Entered {
    /// Which connection of the session it is.
    pub epoch: i64,
    /// What its streams may carry.
    pub protocols: Protocols,
    /// What the session may do.
    pub policy: SessionPolicy,
    /// Takes the session up again at any gateway.
    pub token: Secret,
}

/// Who shows a lease, and to which gateway.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The endpoint, as its certificate proved.
    pub endpoint: EndpointId,
    /// SHA-256 of that certificate.
    pub certificate: [u8; 32],
    /// The gateway.
    pub gateway: Uuid,
    /// Address of the endpoint.
    pub ip: &'a str,
}

impl At<'_> {
    fn binding(&self) -> Binding {
        Binding::Endpoint { id: self.endpoint, certificate: self.certificate }
    }
}

/// A lease whose signature is good is shown while the database answers: it is judged like a ticket.
///
/// # Errors
/// Only those of the store.
pub async fn enter(app: &App, lease: &Lease, at: At<'_>) -> Result<Result<Entered, Fault>> {
    let mut tx = app.store.begin().await?;
    let Some(row) = tx.hold_session(lease.session).await? else { return Ok(Err(Fault::Withdrawn)) };
    if !tx.lease_live(lease.id, at.endpoint, &at.certificate).await? {
        return Ok(Err(Fault::Withdrawn));
    }
    let here = tx.place_key(&at.binding()).await?;
    if row.elsewhere(&here).is_some() {
        return Ok(Err(Fault::Elsewhere));
    }
    tx.hold_at(lease.session, &at.binding()).await?;
    let attached =
        tunnels::attach(&mut tx, lease.session, i64::MAX, (at.gateway, at.ip), "session.lease", app.clock.now())
            .await?;
    let Ok((epoch, row)) = attached else { return Ok(Err(Fault::Withdrawn)) };
    let (token, protocols) = (Secret::generate(tunnels::RETURN_PREFIX), at.binding().protocols());
    tx.put_return(lease.session, &token.hashed(), at.endpoint, protocols, epoch).await?;
    tx.commit().await?;
    Ok(Ok(Entered { epoch, protocols, policy: row.policy, token }))
}

/// Takes in what a gateway did while the database was away: its audit row, and what it means for the session.
/// `false` if that was done before.
///
/// # Errors
/// Only those of the store.
pub async fn take_in(app: &App, event: &Event) -> Result<bool> {
    let at = Time::from_micros(event.at);
    let mut tx = app.store.begin().await?;
    if !tx.take_in_lease_event(event.id, at).await? {
        return Ok(false);
    }
    let entry = Entry { detail: event.detail(), ..row_of(event) };
    tx.audit(Entry { target: &event.session.to_string(), ip: &event.ip, ..entry }).await?;
    match event.what {
        What::Entered => tx.session_leased(event.session, at).await?,
        What::Left { up, down, .. } => tx.session_worked(event.session, at, up, down).await?,
        What::Refused { .. } => {}
    }
    tx.commit().await?;
    Ok(true)
}

fn row_of(event: &Event) -> Entry<'_> {
    let (action, result) = match event.what {
        What::Entered => ("session.lease", "ok"),
        What::Left { .. } => ("session.lease_end", "ok"),
        What::Refused { .. } => ("lease.refuse", "G-112"),
    };
    Entry {
        at: Time::from_micros(event.at),
        actor: &event.username,
        role: Role::Officer.as_str(),
        action,
        target: "",
        detail: json!({}),
        ip: "",
        result,
    }
}

/// A connection that was let in while the database was away and is still there.
#[derive(Clone, Debug)]
pub struct Carried {
    /// By which lease.
    pub lease: LeaseId,
    /// Which session.
    pub session: SessionId,
    /// What its streams may carry.
    pub protocols: Protocols,
    /// Hash of the return token its endpoint was given.
    pub token: [u8; 32],
}

/// The database is back: a connection that was let in without it becomes the session's latest, or must end. Its
/// epoch, or why it must not go on.
///
/// # Errors
/// Only those of the store.
pub async fn adopt(app: &App, carried: &Carried, at: At<'_>) -> Result<Result<i64, Cut>> {
    let mut tx = app.store.begin().await?;
    if tx.hold_session(carried.session).await?.is_none() {
        return Ok(Err(Cut::Ended));
    }
    if !tx.lease_live(carried.lease, at.endpoint, &at.certificate).await? {
        return Ok(Err(Cut::Ended));
    }
    let other = |(holder, gateway): (Option<Uuid>, Option<Uuid>)| {
        holder != Some(at.endpoint.0) && gateway.is_some_and(|g| g != at.gateway)
    };
    if tx.carried_by(carried.session).await?.is_some_and(other) {
        return Ok(Err(Cut::TakenOver));
    }
    tx.hold_at(carried.session, &at.binding()).await?;
    let id = carried.session;
    let attached =
        tunnels::attach(&mut tx, id, i64::MAX, (at.gateway, at.ip), "session.lease_back", app.clock.now()).await?;
    let epoch = match attached {
        Ok((epoch, _)) => epoch,
        Err(cut) => return Ok(Err(cut)),
    };
    tx.put_return(id, &carried.token, at.endpoint, carried.protocols, epoch).await?;
    tx.commit().await?;
    Ok(Ok(epoch))
}

/// Leases that are not over.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator asks.
pub async fn list(app: &App, ctx: &Ctx) -> Result<Vec<LeaseRow>> {
    ctx.require(&[Role::Operator])?;
    Ok(app.store.leases().await?)
}

/// Takes back every lease, or those of one officer; how many. Gateways know within seconds, if they reach the
/// database; whoever works by one is cut then.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator asks; [`Error::NotFound`] if there is no such officer.
pub async fn revoke(app: &App, ctx: &Ctx, username: Option<&str>) -> Result<u64> {
    ctx.require(&[Role::Operator])?;
    let which = match username {
        Some(name) => LeasesOf::User(super::users::named(app, ctx, name).await?.id),
        None => LeasesOf::All,
    };
    let mut tx = app.store.begin().await?;
    let n = tx.revoke_leases(which, "operator").await?;
    audit(&mut tx, ctx, "lease.revoke", username.unwrap_or("(all)"), json!({"leases": n})).await?;
    tx.commit().await?;
    Ok(n)
}

/// Signs with a new key from now on. What the former one signed stays good, unless it is to be forgotten: then
/// every lease signed so far opens nothing any more.
///
/// # Errors
/// [`Error::Forbidden`] unless an operator asks; [`Error::Internal`] if the file can't be written.
pub async fn new_key(app: &App, ctx: &Ctx, forget: bool) -> Result<Vec<String>> {
    ctx.require(&[Role::Operator])?;
    let keys = LeaseKeys::renew(&app.data_dir, forget).map_err(|e| Error::Internal(Box::new(e)))?.public();
    let mut tx = app.store.begin().await?;
    tx.forget_lease_keys().await?;
    for (id, public) in &keys {
        tx.put_lease_key(id, public).await?;
    }
    audit(&mut tx, ctx, "lease.new_key", "", json!({"forgot_former": forget})).await?;
    tx.commit().await?;
    Ok(keys.into_keys().collect())
}
