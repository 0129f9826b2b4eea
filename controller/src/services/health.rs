//! Endpoints' health: what they report, who probes for a site, what is probed, live views.

use std::collections::BTreeMap;

use metrics::counter;
use serde_json::json;
use tram_wire::ids::EndpointId;
use tram_wire::packed;
use tram_wire::plan::{MAX_SERVICES, Plan, Service};
use tram_wire::report::Report;
use uuid::Uuid;

use super::endpoints;
use super::{App, Ctx, Error, Fault, Result, audit};
use crate::domain::access::Role;
use crate::domain::health::{KEEP_SAMPLES, KEEP_TRANSITIONS, LIVE, Latest, Sample, bound, elect};
use crate::domain::path;
use crate::domain::time::Time;
use crate::store::StoreError;
use crate::store::health::{ProbeService, Turn};

mod keep;

pub use keep::{Arrival, keep_all};

/// Changes of checks shown of an endpoint.
const TURNS: i64 = 200;
/// A service is probed no more often where the line is paid by the byte, seconds: one probe is several kilobytes.
const METERED_PROBES_S: u32 = 4 * 3600;
/// Most records of one answer.
pub const MAX_SAMPLES: i64 = 2000;
/// Kinds of services an agent can probe.
const KINDS: [&str; 6] = ["tcp", "tls", "http", "https", "dns", "captive"];

/// Cuts a report to what may be kept, and counts what it cut.
pub fn cut(report: &mut Report) {
    let cut = bound(report);
    if cut > 0 {
        counter!("agent_series_dropped_total").increment(u64::try_from(cut).unwrap_or(u64::MAX));
    }
}

/// How an endpoint should report.
///
/// # Errors
/// Those of the store.
pub async fn plan(app: &App, id: EndpointId) -> Result<Plan> {
    let prober = app.store.site_probers().await?.iter().any(|(_, p)| *p == id);
    let metered = app.store.endpoint_is_metered(id).await?;
    Ok(plan_of(app, (prober, metered), &app.store.probe_services().await?))
}

/// The plan of a prober, or of another endpoint; and of one whose line is paid by the byte.
#[must_use]
pub fn plan_of(app: &App, (prober, metered): (bool, bool), services: &[ProbeService]) -> Plan {
    let seldom = |s: &ProbeService| {
        let every_s = if metered { s.service.every_s.max(METERED_PROBES_S) } else { s.service.every_s };
        Service { every_s, ..s.service.clone() }
    };
    let services = services.iter().filter(|_| prober).take(MAX_SERVICES).map(seldom).collect();
    let pace = if metered { app.pace.metered() } else { app.pace };
    let seconds = |d: std::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    let (beat_s, delta_s, keyframe_s) = (seconds(pace.beat), seconds(pace.report), seconds(pace.keyframe));
    let dictionary = packed::DICTIONARY;
    Plan { prober, services, metered, beat_s, delta_s, keyframe_s, binary: true, dictionary }
}

/// Names a prober at sites whose prober isn't heard; how many. Running it again right away names none.
///
/// # Errors
/// Those of the store.
pub async fn elect_probers(app: &App, now: Time) -> Result<usize> {
    let mut tx = app.store.begin().await?;
    let mut sites: BTreeMap<String, Vec<EndpointId>> = BTreeMap::new();
    for (site, id) in tx.sites_without_prober().await? {
        sites.entry(site).or_default().push(id);
    }
    for (site, online) in &sites {
        if let Some(id) = elect(None, online) {
            tx.put_site_prober(site, id, now).await?;
        }
    }
    tx.commit().await?;
    Ok(sites.len())
}

/// Forgets what is too old; how many rows.
///
/// # Errors
/// Those of the store.
pub async fn prune(app: &App, now: Time) -> Result<u64> {
    let mut tx = app.store.begin().await?;
    let mut gone = tx.prune_health(now.minus(KEEP_SAMPLES), now.minus(KEEP_TRANSITIONS), now).await?;
    gone += tx.prune_path_hours(now.minus(path::WEEK)).await?;
    tx.commit().await?;
    Ok(gone)
}

/// An endpoint's latest state, what changed in it, and what a round trip from its office to the data centre usually
/// takes, microseconds. No state: its agent sends no health reports.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn get(app: &App, ctx: &Ctx, id: EndpointId) -> Result<(Option<Latest>, Vec<Turn>, Option<i64>)> {
    endpoints::get(app, ctx, id).await?;
    let usual = app.store.usual_path_of(id).await?;
    Ok((app.store.endpoint_health(id).await?, app.store.endpoint_transitions(id, TURNS).await?, usual))
}

/// An endpoint's records of a span of time: at most [`MAX_SAMPLES`], the newest.
///
/// # Errors
/// [`Error::NotFound`], also out of scope.
pub async fn samples(app: &App, ctx: &Ctx, id: EndpointId, from: Time, to: Time) -> Result<Vec<(Time, Sample)>> {
    endpoints::get(app, ctx, id).await?;
    Ok(app.store.endpoint_samples(id, from, to, MAX_SAMPLES).await?)
}

/// Asks an endpoint to report every second for five minutes. Where the line is paid by the byte, only if somebody says
/// that it is worth it.
///
/// # Errors
/// [`Error::NotFound`], also out of scope; [`Error::Conflict`] E-220.
pub async fn look_at(app: &App, ctx: &Ctx, id: EndpointId, worth_it: bool) -> Result<Time> {
    let (endpoint, _) = endpoints::get(app, ctx, id).await?;
    if endpoint.metered && !worth_it {
        let text = "this computer's line is paid by the byte, and five minutes of a live view cost about 100 kB: say that they are worth it";
        return Err(Error::Conflict("E-220", text.into()));
    }
    let until = ctx.now.plus(LIVE);
    let mut tx = app.store.begin().await?;
    tx.look_at_endpoint(id, until).await?;
    audit(&mut tx, ctx, "endpoint.live", &id.to_string(), json!({"name": endpoint.name, "until": until})).await?;
    tx.commit().await?;
    Ok(until)
}

/// What probers probe.
///
/// # Errors
/// [`Error::Forbidden`] for officers.
pub async fn services(app: &App, ctx: &Ctx) -> Result<Vec<ProbeService>> {
    ctx.require(&[Role::Operator, Role::Support])?;
    Ok(app.store.probe_services().await?)
}

/// Adds a service to probe.
///
/// # Errors
/// [`Error::Invalid`] with every fault, [`Error::Conflict`] if the name is taken or there are too many.
pub async fn add_service(app: &App, ctx: &Ctx, service: Service) -> Result<ProbeService> {
    ctx.require(&[Role::Operator])?;
    let faults = faults(&service);
    if !faults.is_empty() {
        return Err(Error::Invalid("E-210", "the service can't be probed like this".into(), faults));
    }
    if app.store.probe_services().await?.len() >= MAX_SERVICES {
        return Err(Error::Conflict("E-217", format!("there are {MAX_SERVICES} services already; remove one first")));
    }
    let id = Uuid::now_v7();
    let mut tx = app.store.begin().await?;
    match tx.add_probe_service(id, &service, ctx.now).await {
        Err(StoreError::Duplicate(_)) => {
            return Err(Error::Conflict("E-218", format!("a service named {} is probed already", service.name)));
        }
        other => other?,
    }
    let detail = json!({"name": service.name, "kind": service.kind, "host": service.host, "port": service.port});
    audit(&mut tx, ctx, "probe.add", &id.to_string(), detail).await?;
    tx.commit().await?;
    Ok(ProbeService { id, service })
}

/// Stops probing a service.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn remove_service(app: &App, ctx: &Ctx, id: Uuid) -> Result<()> {
    ctx.require(&[Role::Operator])?;
    let mut tx = app.store.begin().await?;
    let Some(name) = tx.remove_probe_service(id).await? else {
        return Err(Error::NotFound("E-219", "no such service is probed".into()));
    };
    audit(&mut tx, ctx, "probe.remove", &id.to_string(), json!({"name": name})).await?;
    tx.commit().await?;
    Ok(())
}

fn faults(s: &Service) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault =
        |at: &str, code, message: &str| faults.push(Fault { at: at.into(), code, message: message.to_owned() });
    let plain = |t: &str, most: usize| !t.is_empty() && t.len() <= most && t.bytes().all(|b| b.is_ascii_graphic());
    if !plain(&s.name, 40) {
        fault("name", "E-211", "give a name of at most 40 letters and digits without spaces");
    }
    if !KINDS.contains(&s.kind.as_str()) {
        fault("kind", "E-212", "give tcp, tls, http, https, dns or captive");
    }
    let host = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'_');
    if s.host.is_empty() || s.host.len() > 253 || !s.host.bytes().all(host) {
        fault("host", "E-213", "give a host name or an address");
    }
    if s.port == 0 && s.kind == "tcp" {
        fault("port", "E-214", "tcp needs a port");
    }
    if s.path.as_deref().is_some_and(|p| !plain(p, 200) || !p.starts_with('/')) {
        fault("path", "E-215", "give a path that begins with / and has no spaces");
    }
    if s.expect.as_deref().is_some_and(|e| !plain(e, 200)) {
        fault("expect", "E-216", "give a status, or addresses separated by commas");
    }
    if !(30..=86_400).contains(&s.every_s) || !(100..=10_000).contains(&s.budget_ms) {
        fault("every_s", "E-216", "probe every 30 s to a day, in 100 ms to 10 s");
    }
    faults
}
