//! Time travel: what was known at a moment, and what came to be known of that moment later.

use std::collections::BTreeMap;
use std::time::Duration;

use tram_wire::check::Finding;
use tram_wire::ids::{EndpointId, IncidentId};

use super::{App, Ctx, Error, Result, endpoints, incidents};
use crate::domain::access::Role;
use crate::domain::sla::Span;
use crate::domain::then::{self, Presence, Truth};
use crate::domain::time::Time;
use crate::store::incidents::Incident;
use crate::store::then::{Judged, Turned};

/// How far the stops of one answer reach to either side.
const AROUND: Duration = Duration::from_secs(12 * 3600);
/// Stops of one answer.
const STOPS: usize = 200;

/// Where somebody looks back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A site, by its code.
    Site(String),
    /// A computer.
    Endpoint(EndpointId),
    /// The sites and computers of an incident.
    Incident(IncidentId),
}

/// A computer at that moment.
#[derive(Clone, Debug)]
pub struct ComputerThen {
    /// Which.
    pub id: EndpointId,
    /// Its name.
    pub name: String,
    /// As it was known then.
    pub then: Presence,
    /// Since when.
    pub since: Option<Time>,
    /// As we know now.
    pub truth: Truth,
    /// When that came to be known, if later.
    pub learnt_at: Option<Time>,
    /// What its checks complained of, as known then.
    pub findings_then: Vec<Finding>,
    /// The same as known now.
    pub findings_now: Vec<Finding>,
}

/// An incident at that moment.
#[derive(Clone, Debug)]
pub struct IncidentThen {
    /// As it is now.
    pub incident: Incident,
    /// How it was judged then; `None`: nobody knew of it yet.
    pub then: Option<Judged>,
    /// How it is judged now.
    pub now: Option<Judged>,
}

/// A moment, then and now.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When.
    pub at: Time,
    /// The site.
    pub site: String,
    /// Its computers.
    pub computers: Vec<ComputerThen>,
    /// Its incidents.
    pub incidents: Vec<IncidentThen>,
    /// Moments around at which something became known, in order, with a word.
    pub stops: Vec<(Time, String)>,
}

/// Looks back.
///
/// # Errors
/// [`Error::NotFound`] out of scope; [`Error::Invalid`] `I-108` for a moment that is not past.
pub async fn look(app: &App, ctx: &Ctx, place: &Place, at: Time) -> Result<Moment> {
    ctx.require(&[Role::Operator, Role::Support])?;
    if at > ctx.now || at < ctx.now.minus(Duration::from_secs(3 * 366 * 86_400)) {
        return Err(Error::field("at", "I-108", "give a moment of the last three years"));
    }
    let (site, only) = match place {
        Place::Site(code) => (code.clone(), None),
        Place::Endpoint(id) => (endpoints::get(app, ctx, *id).await?.0.site_code, Some(*id)),
        Place::Incident(id) => (incidents::get(app, ctx, *id).await?.1.into_iter().next().unwrap_or_default(), None),
    };
    if !ctx.caller.scope().covers(&site) {
        return Err(Error::NotFound("I-106", "there is no site with this code today, or it isn't yours".into()));
    }
    let around = Span { from: at.minus(AROUND), until: at.plus(AROUND) };
    let mut stops = Vec::new();
    let mut computers = Vec::new();
    for (id, name, enrolled) in app.store.computers_of(&site).await? {
        let id = EndpointId(id);
        if only.is_some_and(|o| o != id) || enrolled > at.micros() {
            continue;
        }
        for (when, kind, _) in app.store.endpoint_events_within(id, around).await? {
            stops.push((Time::from_micros(when), format!("endpoint.{kind}")));
        }
        computers.push(computer(app, id, name, at).await?);
    }
    let mut found = Vec::new();
    for id in app.store.incidents_within(&site, around).await? {
        let Some(incident) = app.store.incident(id).await? else { continue };
        if only.is_some_and(|o| !incident.endpoints.contains(&o) && incident.scope.starts_with("endpoint:")) {
            continue;
        }
        let all = app.store.judgements(id).await?;
        stops.extend(all.iter().map(|j| (Time::from_micros(j.at), format!("incident.{}", j.cause))));
        stops.extend(incident.over_at.map(|o| (Time::from_micros(o), "incident.over".to_owned())));
        let was = incident.opened_at <= at.micros() && incident.over_at.is_none_or(|o| o > at.micros());
        // What was opened a little later began before: silence is noticed with a delay.
        let soon = incident.opened_at > at.micros() && incident.opened_at < at.plus(then::NOTICED).micros();
        if was || soon {
            let then = all.iter().rev().find(|j| j.at <= at.micros()).cloned();
            found.push(IncidentThen { incident, then, now: all.last().cloned() });
        }
    }
    stops.sort();
    stops.dedup();
    // The nearest ones, if there are too many.
    if stops.len() > STOPS {
        stops.sort_by_key(|(t, _)| t.micros().abs_diff(at.micros()));
        stops.truncate(STOPS);
        stops.sort();
    }
    Ok(Moment { at, site, computers, incidents: found, stops })
}

async fn computer(app: &App, id: EndpointId, name: String, at: Time) -> Result<ComputerThen> {
    let known = app.store.presence_at(id, at).await?;
    let (before, after) = app.store.records_around(id, at).await?;
    let record = |m: &crate::store::then::Made| then::Record {
        boot: m.boot.clone(),
        at: Time::from_micros(m.at),
        arrived: Time::from_micros(m.arrived_at),
    };
    let presence = known.as_ref().map_or(Presence::Unknown, |(_, kind)| Presence::of(kind));
    let (truth, learnt_at) = then::truth(presence, before.as_ref().map(record), after.as_ref().map(record), at);
    let turned = app.store.turned_by(id, at).await?;
    let findings = |by: &dyn Fn(&Turned) -> bool| {
        let mut last: BTreeMap<&str, &Turned> = BTreeMap::new();
        turned.iter().filter(|t| by(t)).for_each(|t| _ = last.insert(&t.check_id, t));
        let bad = last.into_values().filter(|t| matches!(t.to_state.as_str(), "warn" | "crit"));
        bad.map(|t| Finding {
            check: t.check_id.clone(),
            state: serde_json::from_value(t.to_state.clone().into()).unwrap_or_default(),
            code: t.code.clone(),
            params: serde_json::from_value(t.params.0.clone()).unwrap_or_default(),
        })
        .collect()
    };
    Ok(ComputerThen {
        id,
        name,
        then: presence,
        since: known.map(|(at, _)| Time::from_micros(at)),
        truth,
        learnt_at,
        findings_then: findings(&|t| t.arrived_at <= at.micros()),
        findings_now: findings(&|_| true),
    })
}
