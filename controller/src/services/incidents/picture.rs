//! From rows to the picture that the rules judge. What an endpoint reported is not trusted to have any shape.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tram_wire::check::{CheckState, Finding};
use tram_wire::ids::{DesktopId, EndpointId};

use super::super::{App, Result};
use crate::domain::day::Day;
use crate::domain::host::HostState;
use crate::domain::incident::backlog::Account;
use crate::domain::incident::hours::Hours;
use crate::domain::incident::picture::{
    DesktopFault, Endpoint, Fault, LastWord, Path, Picture, Probe, Service, Silence, Site,
};
use crate::domain::time::Time;
use crate::store::incidents::{Seen, SiteFacts};

/// A picture, and what is needed to judge again.
pub(super) struct Read {
    pub(super) fleet: Picture,
    /// When each computer that is heard was started, and whether it says that it had lost power.
    started: BTreeMap<EndpointId, Time>,
}

impl Read {
    /// What those of these computers that are back tell of the time since `from`.
    pub(super) fn accounts(&self, of: &[EndpointId], from: Time) -> Vec<Account> {
        // The incident opened some looks after the silence began, and clocks count whole seconds.
        let from = from.minus(Duration::from_secs(30));
        let heard = of.iter().filter_map(|id| self.started.get(id));
        heard
            .map(|started| {
                let rebooted = *started > from;
                Account { rebooted, power_lost: rebooted, ..Account::default() }
            })
            .collect()
    }
}

pub(super) async fn read(app: &App, seen: Vec<Seen>, centre: Vec<Probe>, hours: &Hours, now: Time) -> Result<Read> {
    let facts: BTreeMap<String, SiteFacts> =
        app.store.site_facts().await?.into_iter().map(|f| (f.site_code.clone(), f)).collect();
    let parents = app.store.site_parents().await?;
    let mut hours = hours.clone();
    for d in app.store.calendar_days().await? {
        if let Ok(day) = d.day.parse::<Day>() {
            if d.working { &mut hours.working } else { &mut hours.holidays }.insert(day);
        }
    }
    let open = hours.open(now);
    let mut fleet = Picture { now, centre, ..Picture::default() };
    let mut started = BTreeMap::new();
    for s in seen {
        if !s.silent
            && let Some(uptime) = s.vitals.as_ref().and_then(|v| v["uptime_s"].as_u64())
        {
            started.insert(s.id, now.minus(Duration::from_secs(uptime)));
        }
        fleet.sites.entry(s.site_code.clone()).or_insert_with(|| {
            let known = facts.get(&s.site_code);
            Site {
                region: parents.get(&s.site_code).cloned(),
                carrier: known.and_then(|f| f.carrier.clone()),
                open,
                maintenance: known.and_then(|f| f.maintenance_until).is_some_and(|until| until > now.micros()),
            }
        });
        fleet.endpoints.push(endpoint(s));
    }
    fleet.desktops = app
        .store
        .failed_desktops()
        .await?
        .into_iter()
        .map(|d| DesktopFault { host: d.host, desktop: Some(DesktopId(d.id)), site: Some(d.site_code), code: d.code })
        .collect();
    for h in app.store.hosts().await?.into_iter().filter(|h| h.state == HostState::Down) {
        fleet.desktops.push(DesktopFault { host: h.name, desktop: None, site: None, code: "host_down".into() });
    }
    Ok(Read { fleet, started })
}

fn endpoint(s: Seen) -> Endpoint {
    let last_word = match (s.last_event.as_deref(), s.last_detail.as_deref()) {
        (Some("goodbye"), Some(crate::domain::endpoint::SHUT_DOWN)) => LastWord::Shutdown,
        (Some("goodbye"), _) => LastWord::Stopped,
        (Some("on_battery"), _) => LastWord::OnBattery,
        _ => LastWord::None,
    };
    let silence = s.silent.then_some(Silence { since: Time::from_micros(s.last_seen_at), last_word });
    let network = s.network.unwrap_or_default();
    Endpoint {
        id: s.id,
        site: s.site_code,
        silence,
        gateway: network["gateway"].is_string().then(|| path(&network, "gateway")).flatten(),
        controller: path(&network, "controller"),
        usual_ms: number(&network["controller_usual_ms"]),
        services: services(&network["services"]),
        faults: s.findings.map(|f| faults(&f)).unwrap_or_default(),
    }
}

/// A measured way: bursts if the agent made some, else the round trip of its last look.
fn path(network: &Value, to: &str) -> Option<Path> {
    let of = |what: &str| number(&network[format!("{to}_{what}").as_str()]);
    let p95_ms = of("p95_ms").or_else(|| of("rtt_ms"));
    let loss_percent = of("loss_percent").or(p95_ms.map(|_| 0.0))?;
    Some(Path { loss_percent, p95_ms })
}

#[allow(clippy::cast_possible_truncation)] // milliseconds and percent
fn number(v: &Value) -> Option<f32> {
    v.as_f64().filter(|n| n.is_finite() && *n >= 0.0).map(|n| n as f32)
}

fn services(v: &Value) -> Vec<Service> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = v.as_array().into_iter().flatten().take(64);
    all.map(|s| Service { name: text(&s["name"]), ok: s["ok"].as_bool(), phase: text(&s["phase"]) })
        .filter(|s| !s.name.is_empty())
        .collect()
}

fn faults(findings: &Value) -> Vec<Fault> {
    let all: Vec<Finding> = serde_json::from_value(findings.clone()).unwrap_or_default();
    all.into_iter()
        .filter(|f| matches!(f.state, CheckState::Warn | CheckState::Crit))
        .map(|f| Fault { check: f.check, code: f.code, params: f.params, crit: f.state == CheckState::Crit })
        .collect()
}
