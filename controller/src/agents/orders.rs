//! Orders on their way to endpoints linked here, and what comes back: one writer, batches, so that a slow database
//! never holds up a link.

use std::collections::HashSet;
use std::time::Duration;

use metrics::counter;
use tokio::sync::mpsc;
use tram_wire::ControllerMessage;
use tram_wire::diagnosis::{OrderCancel, OrderNews};
use tram_wire::ids::{EndpointId, OrderId};

use super::registry::Registry;
use crate::nudge::Kind;
use crate::services::{App, diagnosis};

/// How often what waits is looked for when nobody nudges: somebody waits in front of the page.
const POLL: Duration = Duration::from_secs(1);
/// News waiting to be written; more are dropped, and the order ends by its deadline.
const WAITING: usize = 1024;
/// News of one transaction.
const BATCH: usize = 64;

/// Something about an endpoint's orders.
#[derive(Debug)]
enum Word {
    News(EndpointId, OrderNews),
    Lost(EndpointId),
}

/// Where links bring what endpoints say.
#[derive(Clone, Debug)]
pub(super) struct Sender(mpsc::Sender<Word>);

impl Sender {
    pub(super) fn news(&self, id: EndpointId, news: OrderNews) {
        if self.0.try_send(Word::News(id, news)).is_err() {
            counter!("diagnosis_news_dropped_total").increment(1);
        }
    }

    /// The link of an endpoint ended.
    pub(super) fn lost(&self, id: EndpointId) {
        // If that is dropped, too, deadlines end what it was busy with.
        let _ = self.0.try_send(Word::Lost(id));
    }
}

/// The other end of a [`Sender`].
pub(super) struct Writer(mpsc::Receiver<Word>);

pub(super) fn channel() -> (Sender, Writer) {
    let (send, receive) = mpsc::channel(WAITING);
    (Sender(send), Writer(receive))
}

impl Writer {
    /// Writes down what comes, until nobody can say anything any more.
    pub(super) async fn run(mut self, app: &App) {
        let mut words = Vec::new();
        while self.0.recv_many(&mut words, BATCH).await > 0 {
            let mut batch = Vec::new();
            for word in words.drain(..) {
                match word {
                    Word::News(id, news) => batch.push((id, news)),
                    Word::Lost(id) => {
                        keep(app, &mut batch).await;
                        if let Err(e) = diagnosis::lost(app, id).await {
                            tracing::warn!(error = %e, "what an endpoint was busy with could not be ended");
                        }
                    }
                }
            }
            keep(app, &mut batch).await;
        }
    }
}

async fn keep(app: &App, batch: &mut Vec<(EndpointId, OrderNews)>) {
    if batch.is_empty() {
        return;
    }
    if let Err(e) = diagnosis::keep(app, batch).await {
        counter!("diagnosis_news_dropped_total").increment(batch.len().try_into().unwrap_or(1));
        tracing::warn!(error = %e, "what endpoints said of their orders could not be kept");
    }
    batch.clear();
}

/// Brings orders to endpoints and ends what ran out of time, for ever.
pub(super) async fn watch(app: &App, registry: &Registry) {
    let mut told: HashSet<OrderId> = HashSet::new();
    loop {
        if let Err(e) = turn(app, registry, &mut told).await {
            tracing::warn!(error = %e, "orders could not be brought to endpoints");
        }
        tokio::select! {
            () = app.store.bus().nudged(Kind::Diagnosis) => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn turn(app: &App, registry: &Registry, told: &mut HashSet<OrderId>) -> crate::services::Result<()> {
    let due = diagnosis::deliver(app, |id| registry.has(id)).await?;
    for (endpoint, order) in due.orders {
        if !registry.tell(endpoint, ControllerMessage::Order(Box::new(order))) {
            // It went away this moment: as good as lost on the way.
            diagnosis::lost(app, endpoint).await?;
        }
    }
    told.retain(|id| due.cancels.iter().any(|(_, c)| c == id));
    for (endpoint, order) in due.cancels {
        if told.insert(order) {
            registry.tell(endpoint, ControllerMessage::OrderCancel(OrderCancel { order }));
        }
    }
    diagnosis::reap(app).await
}
