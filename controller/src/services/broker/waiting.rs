//! Serving the waiting line: whoever came first gets the desktop that is free.

use metrics::{counter, gauge, histogram};
use serde_json::json;

use super::{App, Ctx, Result, audit, give};
use crate::domain::access::Scope;
use crate::domain::line::{self, Cause};
use crate::domain::policy::SessionPolicy;
use crate::domain::time::Time;
use crate::nudge::Kind;

/// Officers served in one transaction; the rest follow in the next.
const BATCH: usize = 50;

/// Where somebody stands in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// From 1.
    pub position: usize,
    /// How many wait for the same desktops.
    pub length: usize,
    /// Why there is a line.
    pub cause: Cause,
    /// Since when, by the database's clock.
    pub since: Time,
    /// Seconds until a desktop is up, if enough was measured to say.
    pub estimate_s: Option<u64>,
}

/// Gives free desktops to those who wait, in order; how many were served. Nobody gets past somebody who came
/// earlier and may have the same desktop: newcomers join the line as long as there is one, and one process
/// at a time serves it.
///
/// # Errors
/// Only those of the store.
pub async fn serve_line(app: &App) -> Result<usize> {
    let mut served = 0;
    loop {
        let done = serve_some(app).await?;
        served += done;
        if done < BATCH {
            return Ok(served);
        }
    }
}

async fn serve_some(app: &App) -> Result<usize> {
    let ctx = Ctx::system(app.clock.now());
    let waiting = app.store.line().await?.len();
    gauge!("sessions_waiting").set(waiting as f64);
    if waiting == 0 {
        return Ok(0);
    }
    let mut tx = app.store.begin().await?;
    tx.lock_line().await?;
    let line = tx.line().await?;
    let (mut served, mut none_left, mut left) = (0, Vec::<Scope>::new(), Vec::new());
    for place in &line {
        // Once there is nothing for somebody, there is nothing for those behind who want the same.
        if served == BATCH || none_left.contains(&place.scope) {
            left.push(place.id);
            continue;
        }
        let Some(s) = tx.hold_session(place.id).await?.filter(|s| s.queued().is_some() && !s.user_disabled) else {
            continue;
        };
        // Waits for desktops that somebody holds just now: passing over them could serve a later one first.
        let Some(desktop) = tx.free_desktop(s.user_id, &place.scope, true).await? else {
            none_left.push(place.scope.clone());
            left.push(place.id);
            continue;
        };
        let policy = SessionPolicy::of(&app.policy, &desktop.policy, desktop.persistent);
        if !tx.serve_session(s.id, &desktop, &policy, ctx.now).await? {
            continue;
        }
        give(&mut tx, &desktop, s.user_id, ctx.now).await?;
        let waited = ctx.now.since(Time::from_micros(s.created_at));
        histogram!("sessions_waited_seconds").record(waited.as_secs_f64());
        let detail = json!({"user": s.username, "desktop": desktop.name, "site": desktop.site_code, "waited_s": waited.as_secs()});
        audit(&mut tx, &ctx, "session.open", &s.id.to_string(), detail).await?;
        served += 1;
    }
    if served > 0 {
        counter!("sessions_served_from_line_total").increment(served as u64);
        // Those who are left have moved up: their pages want to know.
        left.iter().for_each(|id| tx.touch(Kind::Session, id.0));
        tx.commit().await?;
    }
    Ok(served)
}

/// Where these waiting sessions stand.
pub(super) async fn queues(
    app: &App,
    rows: &[crate::store::sessions::Session],
    boot: std::time::Duration,
    now: Time,
) -> Result<Vec<Option<Queue>>> {
    if rows.iter().all(|s| s.queued().is_none()) {
        return Ok(vec![None; rows.len()]);
    }
    let line = app.store.line().await?;
    // Most people in a line want the same: one look for all of them.
    let mut known: Vec<(Scope, Cause, i64)> = Vec::new();
    let mut out = Vec::with_capacity(rows.len());
    for s in rows {
        let found = s.queued().and_then(|since| {
            let at = line::position(&line, s.id)?;
            Some((since, at, line.iter().find(|p| p.id == s.id)?.scope.clone()))
        });
        let Some((since, (position, length), scope)) = found else {
            out.push(None);
            continue;
        };
        if !known.iter().any(|(s, ..)| *s == scope) {
            let freed = app.store.freed_since(&scope, now.minus(line::LOOK_BACK)).await?;
            known.push((scope.clone(), app.store.line_cause(&scope).await?, freed));
        }
        let (cause, freed) = known.iter().find(|(s, ..)| *s == scope).map_or((Cause::Busy, 0), |k| (k.1, k.2));
        out.push(Some(Queue { position, length, cause, since, estimate_s: line::estimate(position, freed, boot) }));
    }
    Ok(out)
}
