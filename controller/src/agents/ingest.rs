//! One writer for everything agents report: batches, so that a thousand endpoints cost a few commits a
//! second instead of a thousand.
//!
//! The queue is bounded. When the database is slow, agents' tasks wait here and their lines fill up;
//! beats are answered all the same, for they never come this way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tram_wire::heartbeat::GoodbyeReason;
use tram_wire::ids::EndpointId;
use tram_wire::report::Report as HealthReport;

use super::registry::Registry;
use crate::domain::copies::Known;
use crate::domain::endpoint::{LinkWay, SHUT_DOWN};
use crate::domain::time::Time;
use crate::services::App;
use crate::services::health::{self, Arrival};
use crate::store::StoreError;
use crate::store::endpoints::{Heard, Report};

/// Reports waiting at most.
const QUEUE: usize = 8192;
/// Reports in one commit at most.
const BATCH: usize = 1000;
/// How long the first report of a batch waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// How often who was heard is written. Well below the time after which silence is called.
const FLUSH: Duration = Duration::from_secs(10);
/// How long to wait when the database is away.
const PAUSE: Duration = Duration::from_secs(1);

/// What one endpoint brings.
#[derive(Clone, Debug)]
pub(super) struct Update {
    id: EndpointId,
    at: Time,
    heard: Option<Heard>,
    report: Option<Report>,
    /// It linked, and so showed its identity.
    linked: Option<(Known, LinkWay)>,
    left: Option<GoodbyeReason>,
    health: Option<Health>,
}

/// Records of health, and whom to tell when they are kept.
#[derive(Clone, Debug)]
struct Health {
    report: Arc<HealthReport>,
    kept: mpsc::Sender<u64>,
}

impl Update {
    fn new(id: EndpointId, at: Time) -> Self {
        Self { id, at, heard: None, report: None, linked: None, left: None, health: None }
    }

    /// It linked, and said hello.
    pub(super) fn linked(
        id: EndpointId,
        at: Time,
        skew_ms: Option<i64>,
        hello: Report,
        known: (Known, LinkWay),
    ) -> Self {
        let heard = Some(Heard { id, at, skew_ms });
        Self { heard, report: Some(hello), linked: Some(known), ..Self::new(id, at) }
    }

    /// It reported.
    pub(super) fn report(id: EndpointId, at: Time, report: Report) -> Self {
        Self { report: Some(report), ..Self::new(id, at) }
    }

    /// It reported its health. `kept` hears the batch's number once it is in the database.
    pub(super) fn health(id: EndpointId, at: Time, report: HealthReport, kept: mpsc::Sender<u64>) -> Self {
        Self { health: Some(Health { report: Arc::new(report), kept }), ..Self::new(id, at) }
    }

    /// Its link ended; this is when it was last heard.
    pub(super) fn heard(id: EndpointId, at: Time, skew_ms: Option<i64>) -> Self {
        Self { heard: Some(Heard { id, at, skew_ms }), ..Self::new(id, at) }
    }

    /// It said goodbye.
    pub(super) fn left(id: EndpointId, at: Time, reason: GoodbyeReason) -> Self {
        Self { left: Some(reason), ..Self::new(id, at) }
    }
}

/// The way in.
#[derive(Clone)]
pub(super) struct Sender(mpsc::Sender<Update>);

impl Sender {
    /// Queues an update; waits while the queue is full.
    pub(super) async fn send(&self, update: Update) {
        if self.0.send(update).await.is_err() {
            tracing::debug!("the writer has ended; a last report is dropped");
        }
    }
}

/// The writer.
pub(super) struct Writer {
    app: App,
    registry: Registry,
    queue: mpsc::Receiver<Update>,
    /// Up to when heard times are in the database.
    flushed: Time,
}

pub(super) fn channel(app: App, registry: Registry) -> (Sender, Writer) {
    let (send, queue) = mpsc::channel(QUEUE);
    (Sender(send), Writer { app, registry, queue, flushed: Time::default() })
}

impl Writer {
    /// Runs until stopped and empty.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut next_flush = Instant::now() + FLUSH;
        loop {
            let first = tokio::select! {
                update = self.queue.recv() => update,
                () = tokio::time::sleep_until(next_flush) => None,
                () = stop.cancelled() => break,
            };
            if first.is_some() {
                let batch = self.gather(first).await;
                self.write(batch, &stop).await;
            }
            if Instant::now() >= next_flush {
                self.flush().await;
                next_flush = Instant::now() + FLUSH;
            }
        }
        // The links end on the same signal and bring their last words; give them a moment.
        tokio::time::sleep(GATHER).await;
        let rest = self.gather(None).await;
        self.write(rest, &stop).await;
        self.flush().await;
    }

    async fn gather(&mut self, first: Option<Update>) -> Vec<Update> {
        let mut batch: Vec<Update> = first.into_iter().collect();
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(until, self.queue.recv()).await {
                Ok(Some(u)) => batch.push(u),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    /// Writes a batch. A database that is away is waited for; a report it refuses is found and dropped.
    async fn write(&mut self, batch: Vec<Update>, stop: &CancellationToken) {
        if batch.is_empty() {
            return;
        }
        let began = Instant::now();
        loop {
            match self.commit(&batch).await {
                Ok(()) => break,
                Err(StoreError::Unavailable(e)) => {
                    tracing::warn!(error = %e, reports = batch.len(), "reports wait for the database");
                    if stop.is_cancelled() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => {
                    tracing::warn!(error = %e, "a batch of reports was refused; writing them one by one");
                    for update in &batch {
                        if let Err(e) = self.commit(std::slice::from_ref(update)).await {
                            counter!("agent_reports_dropped_total").increment(1);
                            tracing::warn!(endpoint = %update.id, error = %e, "a report was dropped");
                        }
                    }
                    break;
                }
            }
        }
        for Health { report, kept } in batch.iter().filter_map(|u| u.health.as_ref()) {
            // Also what was refused and dropped: it would be refused again. A full channel is a mad agent's.
            let _ = kept.try_send(report.batch);
        }
        counter!("agent_reports_total").increment(batch.len() as u64);
        histogram!("agent_ingest_seconds").record(began.elapsed().as_secs_f64());
    }

    async fn commit(&self, batch: &[Update]) -> Result<(), StoreError> {
        let mut tx = self.app.store.begin().await?;
        // The newest word of each endpoint: one row may appear once in the statement.
        let mut heard: HashMap<EndpointId, Heard> = HashMap::new();
        for h in batch.iter().filter_map(|u| u.heard) {
            let newest = heard.entry(h.id).or_insert(h);
            if h.at >= newest.at {
                *newest = h;
            }
        }
        let mut heard: Vec<Heard> = heard.into_values().collect();
        // One order for all writers: two controllers can't wait for each other.
        heard.sort_by_key(|h| h.id);
        let back = tx.endpoints_heard(&heard, self.app.pace.back_since(self.app.clock.now())).await?;
        for u in batch {
            if let Some((known, way)) = &u.linked {
                tx.put_endpoint_known(u.id, known).await?;
                tx.endpoint_linked(u.id, u.at, *way).await?;
                if back.contains(&u.id) {
                    tx.endpoint_event(u.id, "online", "", u.at).await?;
                }
            }
            if let Some(report) = &u.report {
                let before = tx.put_endpoint_report(u.id, report, u.at).await?;
                if let (Some(before), Some((_, now))) = (before, &report.findings)
                    && before != *now
                {
                    tx.endpoint_event(u.id, "verdict", &format!("{before} -> {now}"), u.at).await?;
                }
            }
            if let Some(reason) = u.left
                && tx.endpoint_left(u.id).await?
            {
                let why = match reason {
                    GoodbyeReason::Stopped => "the agent was stopped",
                    GoodbyeReason::Shutdown => SHUT_DOWN,
                    GoodbyeReason::Other => "",
                };
                tx.endpoint_event(u.id, "goodbye", why, u.at).await?;
            }
        }
        let arrivals: Vec<Arrival<'_>> = batch
            .iter()
            .filter_map(|u| u.health.as_ref().map(|h| Arrival { id: u.id, report: &h.report, at: u.at }))
            .collect();
        health::keep_all(&mut tx, &arrivals).await?;
        tx.commit().await
    }

    /// Writes who was heard since the last time.
    async fn flush(&mut self) {
        let mut heard = self.registry.heard_since(self.flushed);
        let Some(newest) = heard.iter().map(|h| h.at).max() else { return };
        heard.sort_by_key(|h| h.id);
        let done = async {
            for part in heard.chunks(BATCH * 5) {
                let mut tx = self.app.store.begin().await?;
                tx.endpoints_heard(part, self.app.pace.back_since(self.app.clock.now())).await?;
                tx.commit().await?;
            }
            Ok::<_, StoreError>(())
        };
        match done.await {
            Ok(()) => self.flushed = newest,
            Err(e) => tracing::warn!(error = %e, "who was heard could not be written; it will be"),
        }
    }
}
