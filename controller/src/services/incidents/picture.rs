//! From rows to the picture that the rules judge. What an endpoint reported is not trusted to have any shape.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tram_wire::check::{CheckState, Finding};
use tram_wire::ids::{DesktopId, EndpointId};
use tram_wire::report::Phase;

use super::super::{App, Result};
use crate::domain::day::Day;
use crate::domain::health::Probed;
use crate::domain::host::HostState;
use crate::domain::incident::SETTLE;
use crate::domain::incident::backlog::Account;
use crate::domain::incident::hours::Hours;
use crate::domain::incident::picture::{
    DesktopFault, Endpoint, Fault, LastWord, Path, Picture, Probe as OwnProbe, Service, Silence, Site,
};
use crate::domain::time::Time;
use crate::store::Tx;
use crate::store::incidents::{Seen, SiteFacts};

/// Probes of the line itself, by the names agents give them.
const LINE: [&str; 5] = ["gateway", "controller", "dns", "ntp", "mtu"];
/// What is older than this says nothing of now. Keyframes come every 15 min, services are probed every 5.
const NEWS: Duration = Duration::from_secs(20 * 60);

/// From the cut of a line to the incident that tells of it.
const BEFORE: Duration = Duration::from_secs(180);
/// What the checks of an endpoint say when it runs on battery.
const BATTERY: [&str; 4] = ["ups_on_battery", "ups_empty", "battery_in_use", "battery_empty"];

/// A picture, and what is needed to judge again.
pub(super) struct Read {
    pub(super) fleet: Picture,
    /// When each computer that is heard was started, and whether it says that it had lost power.
    started: BTreeMap<EndpointId, Time>,
    /// Computers whose router answers them now.
    routers: BTreeSet<EndpointId>,
}

impl Read {
    /// What those of these computers that are back tell of the time from `from` to `until`.
    pub(super) async fn accounts(
        &self,
        tx: &mut Tx,
        of: &[EndpointId],
        (from, until): (Time, Time),
    ) -> Result<Vec<Account>> {
        // The incident opened some looks after the silence began, and clocks count whole seconds.
        let from = from.minus(Duration::from_secs(30));
        let mut accounts = Vec::new();
        for id in of {
            let Some(started) = self.started.get(id) else { continue };
            let rebooted = *started > from && *started <= until;
            let mut account = Account { rebooted, power_lost: rebooted, ..Account::default() };
            if !rebooted {
                // What it noticed while nobody heard it came with its backlog.
                let turns = tx.late_turns(*id, from.minus(BEFORE)).await?;
                let said = |codes: &[&str]| turns.iter().any(|code| codes.contains(&code.as_str()));
                account.router_silent = said(&["gateway_silent"]);
                account.router_answered =
                    said(&["controller_silent"]) && !account.router_silent && self.routers.contains(id);
            }
            accounts.push(account);
        }
        Ok(accounts)
    }
}

pub(super) async fn read(app: &App, seen: Vec<Seen>, centre: Vec<OwnProbe>, hours: &Hours, now: Time) -> Result<Read> {
    let facts: BTreeMap<String, SiteFacts> =
        app.store.site_facts().await?.into_iter().map(|f| (f.site_code.clone(), f)).collect();
    let parents = app.store.site_parents().await?;
    let usual: BTreeMap<String, i64> = app.store.usual_paths().await?.into_iter().collect();
    let mut hours = hours.clone();
    for d in app.store.calendar_days().await? {
        if let Ok(day) = d.day.parse::<Day>() {
            if d.working { &mut hours.working } else { &mut hours.holidays }.insert(day);
        }
    }
    let open = hours.open(now);
    let mut fleet = Picture { now, centre, ..Picture::default() };
    let (mut started, mut routers) = (BTreeMap::new(), BTreeSet::new());
    for s in seen {
        // What it said before it was away tells nothing of how it came back.
        if !s.silent
            && s.told_at.or(s.reported_at).is_none_or(|at| at >= s.back_at.unwrap_or_default())
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
        let usual = usual.get(&s.site_code).copied();
        let e = endpoint(s, usual, now);
        if e.silence.is_none() && e.gateway.is_some_and(|p| p.p95_ms.is_some()) {
            routers.insert(e.id);
        }
        fleet.endpoints.push(e);
    }
    fleet.wide = app.store.wide_incidents(now.minus(SETTLE)).await?;
    fleet.failed = app.store.failed_services(now.minus(NEWS)).await?;
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
    Ok(Read { fleet, started, routers })
}

fn endpoint(s: Seen, usual_us: Option<i64>, now: Time) -> Endpoint {
    let faults = s.findings.as_ref().map(faults).unwrap_or_default();
    let on_battery = faults.iter().any(|f| BATTERY.contains(&f.code.as_str()));
    let last_word = match (s.last_event.as_deref(), s.last_detail.as_deref()) {
        (Some("goodbye"), Some(crate::domain::endpoint::SHUT_DOWN)) => LastWord::Shutdown,
        (Some("goodbye"), _) => LastWord::Stopped,
        _ if on_battery => LastWord::OnBattery,
        _ => LastWord::None,
    };
    let silence = s.silent.then_some(Silence { since: Time::from_micros(s.last_seen_at), last_word });
    let network = s.network.unwrap_or_default();
    let fresh = s.told_at.is_some_and(|at| now.since(Time::from_micros(at)) <= NEWS);
    let gauges = s.gauges.filter(|_| fresh).unwrap_or_default();
    let probes = probes(s.probes, now);
    // Gauges hold until the next record says otherwise, so they are as new as the newest record.
    let at = Time::from_micros(s.told_at.or(s.reported_at).unwrap_or_default());
    Endpoint {
        id: s.id,
        site: s.site_code,
        silence,
        back: Time::from_micros(s.back_at.unwrap_or_default()),
        gateway: told(&gauges, "gateway", at)
            .or_else(|| burst(probes.get("gateway")))
            .or_else(|| network["gateway"].is_string().then(|| path(&network, "gateway", at)).flatten()),
        controller: told(&gauges, "controller", at)
            .or_else(|| burst(probes.get("controller")))
            .or_else(|| path(&network, "controller", at)),
        #[allow(clippy::cast_precision_loss)] // milliseconds of a round trip
        usual_ms: usual_us.map(|us| us as f32 / 1000.0),
        services: services(&probes),
        faults,
    }
}

/// Probes that are still news. One that can't be read is none.
fn probes(all: Option<Value>, now: Time) -> BTreeMap<String, Probed> {
    let all: BTreeMap<String, Value> = all.and_then(|v| serde_json::from_value(v).ok()).unwrap_or_default();
    let known = all.into_iter().filter_map(|(name, v)| Some((name, serde_json::from_value::<Probed>(v).ok()?)));
    known.filter(|(_, p)| now.since(p.at) <= NEWS).collect()
}

/// A measured way by its gauges, which are told as soon as they move.
fn told(gauges: &Value, to: &str, at: Time) -> Option<Path> {
    let of = |what: &str| number(&gauges[format!("{to}_{what}").as_str()]);
    Some(Path { at, loss_percent: Some(of("loss")?), p95_ms: of("p95_ms") })
}

/// A burst of packets as a measured way.
fn burst(probed: Option<&Probed>) -> Option<Path> {
    let Probed { at, probe } = probed?;
    let trips = probe.trips.filter(|t| t.sent > 0)?;
    let (sent, lost) = (f32::from(trips.sent), f32::from(trips.lost.min(trips.sent)));
    #[allow(clippy::cast_precision_loss)] // microseconds of a round trip
    let p95_ms = (lost < sent).then_some(trips.p95_us as f32 / 1000.0);
    Some(Path { at: *at, loss_percent: Some(100.0 * lost / sent), p95_ms })
}

/// A measured way by the round trip of an older agent's last look.
fn path(network: &Value, to: &str, at: Time) -> Option<Path> {
    let of = |what: &str| number(&network[format!("{to}_{what}").as_str()]);
    let p95_ms = of("p95_ms").or_else(|| of("rtt_ms"));
    let loss_percent = of("loss_percent");
    (loss_percent.is_some() || p95_ms.is_some()).then_some(Path { at, loss_percent, p95_ms })
}

#[allow(clippy::cast_possible_truncation)] // milliseconds and percent
fn number(v: &Value) -> Option<f32> {
    v.as_f64().filter(|n| n.is_finite() && *n >= 0.0).map(|n| n as f32)
}

/// What the office's prober found of services: all probes but those of the line itself.
fn services(probes: &BTreeMap<String, Probed>) -> Vec<Service> {
    let services = probes.iter().filter(|(name, _)| !LINE.contains(&name.as_str()));
    services
        .map(|(name, Probed { at, probe: p })| Service {
            name: name.clone(),
            at: *at,
            ok: match p.state {
                CheckState::Ok | CheckState::Warn => Some(true),
                CheckState::Crit => Some(false),
                CheckState::Unknown => None,
            },
            phase: match p.failed {
                Some(Phase::Resolve) => "resolve",
                Some(Phase::Connect) => "connect",
                Some(Phase::Tls) => "tls",
                Some(Phase::FirstByte) => "first_byte",
                Some(Phase::Expect) => "answer",
                Some(Phase::Other) | None => "other",
            }
            .to_owned(),
        })
        .collect()
}

fn faults(findings: &Value) -> Vec<Fault> {
    let all: Vec<Finding> = serde_json::from_value(findings.clone()).unwrap_or_default();
    all.into_iter()
        .filter(|f| matches!(f.state, CheckState::Warn | CheckState::Crit))
        .map(|f| Fault { check: f.check, code: f.code, params: f.params, crit: f.state == CheckState::Crit })
        .collect()
}
