//! Keeps the shares of sites' lines in step with the database, and tells how they are used.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::time::{Instant, timeout};

use super::Gateway;
use super::link::Link;

/// Longest that a newcomer waits to be told its line: without an answer it goes on uncapped until the next look.
const ASK: Duration = Duration::from_secs(2);

/// When the use of lines was told last.
#[derive(Debug)]
pub(super) struct Told(pub(super) std::sync::Mutex<Instant>);

impl Gateway {
    /// Puts a connection behind the line of the site it is used at. Until the next look a site that is new here has
    /// all of its budget, wherever else sessions of it are.
    pub(super) async fn seat(&self, link: &Link) {
        let found = timeout(ASK, self.0.app.store.line_of(link.session)).await;
        let (code, kbit) = match found {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) => return,
            Ok(Err(e)) => {
                tracing::warn!(session = %link.session, error = %e, "the line of a session could not be looked up");
                return;
            }
            Err(_) => return,
        };
        let limits = &self.0.policy.limits;
        let budget = kbit.and_then(|kbit| u32::try_from(kbit).ok()).map(|kbit| limits.budget(kbit));
        link.sit(self.0.shaper.site(&code, budget));
    }

    /// Takes over what the database says of the lines, divided by where their sessions are; and tells how they are
    /// used.
    pub(super) async fn look_at_lines(&self, links: &[Arc<Link>]) {
        if !links.is_empty() {
            match self.0.app.store.line_uses(self.0.id).await {
                Ok(uses) => {
                    let count = |n: i64| u32::try_from(n).unwrap_or(0);
                    let parts = uses.iter().filter_map(|u| {
                        let kbit = u32::try_from(u.down_kbit?).ok()?;
                        let part = self.0.policy.limits.part(kbit, count(u.ours), count(u.sessions));
                        Some((u.site_code.clone(), part))
                    });
                    self.0.shaper.set(&parts.collect::<HashMap<_, _>>());
                }
                // What was true stays true until the database answers.
                Err(e) => tracing::warn!(error = %e, "the gateway could not look at its lines"),
            }
        }
        self.tell_lines();
    }

    fn tell_lines(&self) {
        let passed = {
            let mut told = self.0.told_lines.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let passed = told.elapsed();
            // Too short a while says little; looks may come as fast as changes do.
            if passed < Duration::from_secs(1) {
                return;
            }
            *told = Instant::now();
            passed.as_secs_f64()
        };
        let (uses, gone) = self.0.shaper.uses();
        for site in uses {
            gauge!("gateway_site_kbit", "site" => site.code.clone()).set(site.bytes as f64 / 125.0 / passed);
            gauge!("gateway_site_budget_kbit", "site" => site.code.clone()).set(site.kbit.map_or(0.0, f64::from));
            gauge!("gateway_site_queue", "site" => site.code.clone()).set(site.queue as f64);
            counter!("gateway_site_waits_total", "site" => site.code).increment(site.waits);
        }
        for site in gone {
            for name in ["gateway_site_kbit", "gateway_site_budget_kbit", "gateway_site_queue"] {
                gauge!(name, "site" => site.clone()).set(0.0);
            }
        }
    }
}
