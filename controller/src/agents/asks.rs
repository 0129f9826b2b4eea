//! What endpoints are asked for, on whichever controller somebody asks: live views, and plans that changed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tram_wire::ControllerMessage;
use tram_wire::ids::EndpointId;
use tram_wire::plan::{Live, Service};

use super::registry::Registry;
use crate::domain::time::Time;
use crate::services::{App, health};
use crate::store::StoreError;

/// How often live views are looked for: somebody waits in front of the page.
const POLL: Duration = Duration::from_secs(1);
/// How often plans are: every so many looks.
const PLANS: u32 = 5;

/// How often endpoints are counted.
const ABOUT: u32 = 60;

/// Endpoints that may come: also those that are silent, for after a cut they come first and are told how far to spread
/// while the others are still on their way.
fn about(rows: &[(String, String, i64)]) -> usize {
    let n: i64 = rows.iter().filter(|(_, state, _)| state != "revoked").map(|(.., n)| n).sum();
    usize::try_from(n).unwrap_or(0)
}

/// What was told last.
#[derive(Default)]
struct Told {
    live: HashMap<EndpointId, Time>,
    probers: HashSet<EndpointId>,
    metered: HashSet<EndpointId>,
    services: Vec<Service>,
}

/// Looks for ever.
pub(super) async fn watch(app: &App, registry: &Registry) {
    let mut told = Told::default();
    for turn in 0_u32.. {
        if turn % ABOUT == 0 {
            match app.store.endpoint_counts().await {
                Ok(rows) => registry.about(about(&rows)),
                Err(e) => tracing::warn!(error = %e, "endpoints could not be counted"),
            }
        }
        tokio::time::sleep(POLL).await;
        if registry.is_empty() {
            continue;
        }
        let mut done = told.live(app, registry).await;
        if turn % PLANS == 0 {
            done = done.and(told.plans(app, registry).await);
        }
        if let Err(e) = done {
            tracing::warn!(error = %e, "what endpoints are asked for could not be read");
        }
    }
}

impl Told {
    async fn live(&mut self, app: &App, registry: &Registry) -> Result<(), StoreError> {
        let now = app.clock.now();
        self.live.retain(|_, until| *until > now);
        for (id, until) in app.store.endpoints_looked_at(now).await? {
            let for_s = u32::try_from(until.since(now).as_secs()).unwrap_or(u32::MAX);
            if self.live.get(&id) != Some(&until) && registry.tell(id, ControllerMessage::Live(Live { for_s })) {
                self.live.insert(id, until);
            }
        }
        Ok(())
    }

    /// A new link got its plan with the greeting; this is for what changed since.
    async fn plans(&mut self, app: &App, registry: &Registry) -> Result<(), StoreError> {
        let rows = app.store.probe_services().await?;
        let services: Vec<Service> = rows.iter().map(|s| s.service.clone()).collect();
        let probers: HashSet<EndpointId> = app.store.site_probers().await?.into_iter().map(|(_, id)| id).collect();
        let metered = app.store.endpoints_metered().await?;
        let all_new = services != self.services;
        let mut changed: HashSet<EndpointId> = match all_new {
            true => probers.union(&self.probers).copied().collect(),
            false => probers.symmetric_difference(&self.probers).copied().collect(),
        };
        changed.extend(metered.symmetric_difference(&self.metered));
        let here: HashSet<EndpointId> = registry.ids().into_iter().collect();
        for id in changed.into_iter().filter(|id| here.contains(id)) {
            let plan = health::plan_of(app, (probers.contains(&id), metered.contains(&id)), &rows);
            registry.tell(id, ControllerMessage::Plan(Box::new(plan)));
        }
        (self.probers, self.metered, self.services) = (probers, metered, services);
        Ok(())
    }
}
