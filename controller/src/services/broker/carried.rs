//! What gateways say of the sessions they carry, and what they are told: tickets that are redeemed, viewers that come
//! and go, and how it felt.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tram_wire::ids::SessionId;
use uuid::Uuid;

use super::{App, Result, TICKET_PREFIX};
use crate::domain::access::Role;
use crate::domain::experience::{Experience, Sample};
use crate::domain::session::{self, Cut, Standing};
use crate::domain::ticket::{Binding, Protocol};
use crate::domain::time::Time;
use crate::identity::secret;
use crate::store::audit::Entry;
use crate::store::sessions::{Filter, Session};
use crate::store::tickets::Redeemed;

/// What is kept of a live session's course.
const SAMPLES_KEPT: Duration = Duration::from_secs(3600);

/// Redeems what a viewer presented and proved; `wanted` is the protocol it speaks, if that is known already.
/// `None` for whatever is wrong with it, by the same path in the same time: a text that can't be a ticket is
/// looked up like any other.
///
/// # Errors
/// Only those of the store.
pub async fn redeem(
    app: &App,
    presented: &str,
    proved: &Binding,
    wanted: Option<Protocol>,
) -> Result<Option<Redeemed>> {
    let hash = ticket_hash(presented);
    let mut tx = app.store.begin().await?;
    let redeemed = tx.redeem_ticket(&hash, proved, wanted).await?;
    if let Some(r) = &redeemed {
        tx.hold_at(r.session_id, proved).await?;
    }
    tx.commit().await?;
    Ok(redeemed)
}

fn ticket_hash(presented: &str) -> [u8; 32] {
    // No text has this hash; and hashing megabytes would tell the sender that they were read.
    if secret::has_shape(TICKET_PREFIX, presented) { secret::hash(presented) } else { [0; 32] }
}

/// Why a ticket was refused, for the log: `unknown`, `redeemed`, `revoked`, `expired` or `unfit`. What was
/// a ticket once is audited: somebody has a copy.
///
/// # Errors
/// Only those of the store.
pub async fn note_refusal(app: &App, presented: &str, ip: &str) -> Result<&'static str> {
    let mut tx = app.store.begin().await?;
    let Some(fate) = tx.ticket_fate(&ticket_hash(presented)).await? else { return Ok("unknown") };
    let reason = match (fate.redeemed, fate.revoked, fate.expired) {
        (true, _, _) => "redeemed",
        (_, true, _) => "revoked",
        (_, _, true) => "expired",
        _ => "unfit",
    };
    tx.audit(Entry {
        at: app.clock.now(),
        actor: "",
        role: "",
        action: "ticket.refuse",
        target: &fate.session_id.to_string(),
        detail: json!({"reason": reason}),
        ip,
        result: "G-101",
    })
    .await?;
    tx.commit().await?;
    Ok(reason)
}

/// A viewer of this session is connected by this gateway: its epoch, or why it must not go on.
///
/// # Errors
/// Only those of the store.
pub async fn attached(app: &App, id: SessionId, gateway: Uuid, ip: &str) -> Result<Result<i64, Cut>> {
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    let row = tx.hold_session(id).await?;
    if let Some(cut) = session::verdict(i64::MAX, row.as_ref().map(Session::standing).as_ref()) {
        return Ok(Err(cut));
    }
    let Some(row) = row else { return Ok(Err(Cut::Ended)) };
    tx.gateway_alive(gateway).await?;
    let Some(epoch) = tx.attach_session(id, gateway, ip, now).await? else { return Ok(Err(Cut::Ended)) };
    tx.audit(Entry {
        at: now,
        actor: &row.username,
        role: Role::Officer.as_str(),
        action: "session.attach",
        target: &id.to_string(),
        detail: json!({"desktop": row.desktop_name, "epoch": epoch}),
        ip,
        result: "ok",
    })
    .await?;
    tx.commit().await?;
    Ok(Ok(epoch))
}

/// The viewer of this epoch went away at `at`, which may be a while ago.
///
/// # Errors
/// Only those of the store.
pub async fn detached(app: &App, id: SessionId, epoch: i64, up: u64, down: u64, at: Time) -> Result<()> {
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut tx = app.store.begin().await?;
    tx.detach_session(id, epoch, bytes(up), bytes(down), at).await?;
    Ok(tx.commit().await?)
}

/// The viewer got its first picture at `at`.
///
/// # Errors
/// Only those of the store.
pub async fn first_frame(app: &App, id: SessionId, at: Time) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.first_frame(id, at).await?;
    Ok(tx.commit().await?)
}

/// How a connection feels, and did since the last time: kept with its session, and counted by site.
///
/// # Errors
/// Only those of the store.
pub async fn experienced(app: &App, id: SessionId, epoch: i64, e: &Experience, sample: &Sample) -> Result<()> {
    let now = app.clock.now();
    let mut tx = app.store.begin().await?;
    let site = tx.session_experience(id, epoch, e).await?;
    if site.is_some() {
        tx.put_sample(id, epoch, sample, now, SAMPLES_KEPT).await?;
    }
    tx.commit().await?;
    // Only sites that have sessions get a series: as many as there are communes with desktops.
    let Some(site) = site else { return Ok(()) };
    let record = |name: &'static str, value: Option<u64>, of: f64| {
        if let Some(value) = value {
            metrics::histogram!(name, "site" => site.clone()).record(value as f64 / of);
        }
    };
    record("session_rtt_seconds", e.rtt_ms, 1e3);
    record("session_reply_seconds", sample.reply_ms, 1e3);
    record("session_lost_ratio", sample.lost_permille, 1e3);
    record("session_pictures_per_second", sample.pictures_min, 60.0);
    record("session_stalls", Some(sample.stalls), 1.0);
    Ok(())
}

/// The gateway says when the viewer of this epoch will be disconnected for lack of a sign of its officer, or
/// that it will not be.
///
/// # Errors
/// Only those of the store.
pub async fn closing(app: &App, id: SessionId, epoch: i64, at: Option<Time>) -> Result<()> {
    let mut tx = app.store.begin().await?;
    tx.session_closing(id, epoch, at).await?;
    Ok(tx.commit().await?)
}

/// How these sessions stand; one that is not among the answers is gone.
///
/// # Errors
/// Only those of the store.
pub async fn standings(app: &App, ids: Vec<SessionId>) -> Result<HashMap<SessionId, Standing>> {
    let (rows, _) = app.store.sessions(&Filter { ids: Some(ids), ..Filter::all() }).await?;
    Ok(rows.iter().map(|s| (s.id, s.standing())).collect())
}
