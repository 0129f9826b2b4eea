//! `/events`: live changes, one stream a console.
//!
//! Changed rows are read once per burst, however many consoles are open, and sent to those who may see
//! them. A console that lagged, or comes back to another controller, is told to fetch everything anew.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Api;
use super::error::{ApiError, Problem};
use super::extract::Visitor;
use super::v1;
use crate::domain::access::Scope;
use crate::nudge::{Change, Kind};
use crate::services::sign_in::{self, Visit};
use crate::services::{App, Ctx, Error, desktops, gateways, hosts, images, pools};
use crate::store::desktops::Filter;

/// Changes within this time are sent as one event.
const COALESCE: Duration = Duration::from_millis(250);
/// Rows an event carries at most; more are split.
const PER_EVENT: usize = 500;
/// How long a stream may outlive its sign-in, or a change of its sites.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// Events a console may lag behind.
const BACKLOG: usize = 256;

/// A burst of changes of one kind.
#[derive(Clone, Debug)]
struct Burst {
    n: u64,
    kind: Kind,
    /// Each row with the code of its site, if it has one.
    rows: std::sync::Arc<Vec<(Option<String>, Value)>>,
    gone: std::sync::Arc<Vec<Uuid>>,
}

/// Reads changed rows once and hands them to every open console.
pub struct Hub {
    boot: Uuid,
    count: AtomicU64,
    out: broadcast::Sender<Burst>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { boot: Uuid::new_v4(), count: AtomicU64::new(0), out: broadcast::channel(BACKLOG).0 }
    }
}

impl Hub {
    /// Runs until dropped: collects changes, reads the rows, sends them.
    pub async fn run(&self, app: &App) {
        let mut changes = app.store.bus().listen();
        loop {
            let mut burst: BTreeSet<Change> = BTreeSet::new();
            match changes.recv().await {
                Ok(c) => burst.insert(c),
                // Too many to tell one by one: everybody fetches anew.
                Err(RecvError::Lagged(_)) => {
                    self.resync();
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            tokio::time::sleep(COALESCE).await;
            while let Ok(c) = changes.try_recv() {
                burst.insert(c);
            }
            if self.out.receiver_count() == 0 {
                continue;
            }
            // Messages on their way are nobody's row: their page asks for itself, as a log that moves under the reader
            // helps nobody.
            for kind in Kind::ALL.into_iter().filter(|k| *k != Kind::Notify) {
                let ids: Vec<Uuid> = burst.iter().filter(|c| c.kind == kind).map(|c| c.id).collect();
                for chunk in ids.chunks(PER_EVENT) {
                    if let Err(e) = self.send(app, kind, chunk).await {
                        tracing::warn!(error = %e, kind = kind.as_str(), "changed rows could not be read");
                        self.resync();
                    }
                }
            }
        }
    }

    async fn send(&self, app: &App, kind: Kind, ids: &[Uuid]) -> Result<(), Error> {
        let rows = read(app, kind, ids).await?;
        let found: BTreeSet<Uuid> = rows.iter().filter_map(|(_, v)| v["id"].as_str()?.parse().ok()).collect();
        let gone = ids.iter().filter(|id| !found.contains(id)).copied().collect();
        let n = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = self.out.send(Burst { n, kind, rows: rows.into(), gone: std::sync::Arc::new(gone) });
        Ok(())
    }

    /// An event with a number that does not follow makes every console fetch anew.
    fn resync(&self) {
        let n = self.count.fetch_add(2, Ordering::Relaxed) + 2;
        let nothing = Burst { n, kind: Kind::Host, rows: Vec::new().into(), gone: Vec::new().into() };
        let _ = self.out.send(nothing);
    }
}

type Rows = Vec<(Option<String>, Value)>;

async fn read(app: &App, kind: Kind, ids: &[Uuid]) -> Result<Rows, Error> {
    let now = app.clock.now();
    let ctx = Ctx::system(now);
    let any = |id: &Uuid| ids.contains(id);
    let plain = |v: Result<Value, serde_json::Error>| v.map_err(|e| Error::Internal(Box::new(e)));
    let mut out = Rows::new();
    match kind {
        Kind::Desktop => {
            let ids = ids.iter().copied().map(Into::into).collect();
            let filter = Filter { ids: Some(ids), limit: i64::MAX, ..Filter::default() };
            for d in v1::desktops::rows(desktops::list(app, &ctx, &filter).await?, now) {
                out.push((Some(d.site.code.clone()), plain(serde_json::to_value(d))?));
            }
        }
        Kind::Pool => {
            for p in pools::list(app, &ctx).await?.into_iter().filter(|p| any(&p.pool.id.0)) {
                let row = v1::pools::Pool::from(p);
                out.push((Some(row.site.code.clone()), plain(serde_json::to_value(row))?));
            }
        }
        Kind::Host => {
            for h in hosts::list(app, &ctx).await?.into_iter().filter(|h| any(&h.id.0)) {
                out.push((None, plain(serde_json::to_value(v1::hosts::Host::from(h)))?));
            }
        }
        Kind::Image => {
            for i in images::list(app, &ctx).await?.into_iter().filter(|i| any(&i.id.0)) {
                out.push((None, plain(serde_json::to_value(v1::images::Image::from(i)))?));
            }
        }
        Kind::Endpoint => out = v1::endpoints::changed(app, &ctx, ids).await?,
        Kind::Session => out = v1::sessions::changed(app, &ctx, ids).await?,
        Kind::Incident => out = v1::incidents::changed(app, &ctx, ids).await?,
        Kind::Diagnosis => out = v1::diagnosis::changed(app, ids).await?,
        // Their pages show more than a row, and ask again themselves: to know which one changed is enough.
        Kind::Call => {
            for id in ids {
                let call = app.store.call(*id).await?;
                out.extend(call.map(|c| (Some(c.site_code), json!({"id": id}))));
            }
        }
        Kind::Enrolment => {
            for id in ids {
                let waiting = app.store.enrolment((*id).into()).await?;
                out.extend(waiting.map(|e| (Some(e.site_code), json!({"id": id}))));
            }
        }
        Kind::Update => out.extend(ids.iter().map(|id| (None, json!({"id": id})))),
        Kind::Notify => {}
        Kind::Gateway => {
            for g in gateways::list(app, &ctx).await?.into_iter().filter(|g| any(&g.id)) {
                out.push((None, plain(serde_json::to_value(v1::gateways::Gateway::from(g)))?));
            }
        }
    }
    Ok(out)
}

/// This resource's routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// Live changes as server-sent events: `change` with `{kind, rows, gone}`, and `resync` when something
/// was missed and lists must be fetched anew. A row of kind `call`, `enrolment` or `update` is its `id` alone.
#[utoipa::path(get, path = "/events", tag = "events", responses((status = 200, content_type = "text/event-stream"), (status = "4XX", body = Problem)))]
async fn stream(
    State(api): State<Api>,
    Visitor(visit): Visitor,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let mut look = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let line = Line {
        last: api.events.count.load(Ordering::Relaxed),
        rx: api.events.out.subscribe(),
        boot: api.events.boot,
        app: api.app,
        visit,
        look,
        opened: false,
    };
    let stream = futures_util::stream::unfold(line, |mut line| async move { Some((Ok(line.next().await?), line)) });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// One console's stream.
struct Line {
    rx: broadcast::Receiver<Burst>,
    boot: Uuid,
    app: App,
    visit: Visit,
    look: Interval,
    last: u64,
    opened: bool,
}

impl Line {
    /// The next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        if !self.opened {
            self.opened = true;
            // What happened before the stream was open is unknown to this console.
            return Some(self.numbered(Event::default().event("resync").data("{}")));
        }
        loop {
            let burst = tokio::select! {
                _ = self.look.tick() => {
                    if !self.still_signed_in().await {
                        return None;
                    }
                    continue;
                }
                received = self.rx.recv() => received,
            };
            match burst {
                Ok(b) => {
                    let missed = b.n != self.last + 1;
                    self.last = b.n;
                    let event = if missed {
                        Event::default().event("resync").data("{}")
                    } else {
                        match visible(&b, &self.visit.ctx) {
                            Some(data) => Event::default().event("change").data(data.to_string()),
                            None => return Some(Event::default().comment("")),
                        }
                    };
                    return Some(self.numbered(event));
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn numbered(&self, event: Event) -> Event {
        event.id(format!("{}-{}", self.boot, self.last))
    }

    /// Looks at the sign-in again, and takes over what changed of the role and the sites.
    async fn still_signed_in(&mut self) -> bool {
        match sign_in::still(&self.app, &self.visit).await {
            Ok(visit) => {
                self.visit = visit;
                true
            }
            Err(Error::Unauthenticated(..)) => false,
            // Without a database there is nothing to send either.
            Err(e) => {
                tracing::warn!(error = %e, "a sign-in could not be looked at");
                true
            }
        }
    }
}

/// The part of a burst this caller may see.
fn visible(b: &Burst, ctx: &Ctx) -> Option<Value> {
    use crate::domain::access::Role;
    let staff = ctx.caller.is(Role::Operator) || ctx.caller.is(Role::Support);
    if !staff && b.kind != Kind::Session {
        return None;
    }
    let scope = ctx.caller.scope();
    let own = |v: &Value| staff || v["user"]["username"].as_str() == Some(ctx.caller.name());
    let covered = |site: &Option<String>| match (&scope, site) {
        (Scope::All, _) | (_, None) => true,
        (s, Some(code)) => s.covers(code),
    };
    // A row that touches several sites is there once for each of them.
    let mut told = BTreeSet::new();
    let seen = b.rows.iter().filter(|(site, v)| covered(site) && own(v)).map(|(_, v)| v);
    let rows: Vec<&Value> = seen.filter(|v| v["id"].as_str().is_none_or(|id| told.insert(id))).collect();
    if rows.is_empty() && b.gone.is_empty() {
        return None;
    }
    Some(json!({"kind": b.kind.as_str(), "rows": rows, "gone": *b.gone}))
}
