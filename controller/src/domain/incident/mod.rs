//! Incidents: what is wrong in the fleet, why, and who has to act.
//!
//! ```text
//! Picture ──► judge: rules in order, first match owns ──► Judgements ──► damping ──► incidents
//!   what is known now            the rest are symptoms                  raise, keep, clear
//! ```
//! A judgement names a cause, not a symptom: of a line that is down one learns once, not once for each
//! computer behind it. What speaks for it stands beside it, and so does what would change it. When an office
//! is back, what its computers kept while nobody heard them may change the cause ([`backlog`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tram_wire::ids::{DesktopId, EndpointId};

pub mod backlog;
pub mod damping;
pub mod hours;
pub mod picture;
mod rules;

/// How long offices may take to come back after what covered many of them.
pub const SETTLE: std::time::Duration = std::time::Duration::from_secs(300);

pub use self::picture::Picture;

text_enum! {
    /// Why something does not work, in the order in which the rules look.
    IncidentCause {
        /// The data centre or the controller itself.
        DataCentre = "data_centre",
        /// A carrier's network: many offices of one carrier or region at once.
        Carrier = "carrier",
        /// An office without electricity.
        SitePower = "site_power",
        /// An office's line, or its router.
        SiteLine = "site_line",
        /// An office's line works, but badly.
        LineDegraded = "line_degraded",
        /// A cable, a switch port or the radio of one computer.
        Lan = "lan",
        /// One computer was switched off.
        SwitchedOff = "switched_off",
        /// One computer has no electricity.
        EndpointPower = "endpoint_power",
        /// One computer crashed, hangs, or its agent does.
        Crashed = "crashed",
        /// A service that offices use, for everybody.
        Service = "service",
        /// Something between one office and a service: DNS, a proxy, broken TLS, a firewall.
        SiteService = "site_service",
        /// Desktops, their host or the broker.
        Desktop = "desktop",
        /// A printer, scanner, card reader or signing token.
        Peripheral = "peripheral",
        /// Something of one computer itself: disk, heat, memory, clock.
        Computer = "computer",
        /// It comes and goes; the cause behind it is in the evidence.
        Flapping = "flapping",
    }
}

/// The cause of an incident. In the API's document its name is the long one: a waiting line has causes, too.
pub type Cause = IncidentCause;

text_enum! {
    /// Who has to act.
    Party {
        /// The data centre's operator.
        DataCentre = "data_centre",
        /// The carrier of the line.
        Carrier = "carrier",
        /// The office itself, led by support on the telephone.
        Site = "site",
        /// Support.
        Support = "support",
        /// Whoever runs the service.
        ServiceOwner = "service_owner",
        /// Whoever looks after the virtual desktops.
        Vdi = "vdi",
    }
}

text_enum! {
    /// How bad it is for the people at the counter.
    Severity {
        /// Somebody should look today.
        Warn = "warn",
        /// Work stands still somewhere.
        Crit = "crit",
    }
}

text_enum! {
    /// How sure the judgement is.
    Confidence {
        /// One sign, or only the absence of others.
        Low = "low",
        /// Signs that fit.
        Medium = "medium",
        /// Signs that leave nothing else.
        High = "high",
    }
}

impl IncidentCause {
    /// Who has to act first.
    #[must_use]
    pub fn party(self) -> Party {
        match self {
            Self::DataCentre => Party::DataCentre,
            Self::Carrier | Self::SiteLine | Self::LineDegraded => Party::Carrier,
            Self::SitePower | Self::SwitchedOff | Self::EndpointPower | Self::Lan | Self::Peripheral => Party::Site,
            Self::Crashed | Self::SiteService | Self::Computer | Self::Flapping => Party::Support,
            Self::Service => Party::ServiceOwner,
            Self::Desktop => Party::Vdi,
        }
    }

    /// Whether it tells of offices that nobody hears: out of office hours that is how it should be.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(self, Self::SitePower | Self::SiteLine | Self::SwitchedOff | Self::EndpointPower | Self::Crashed)
    }
}

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The data centre.
    Centre,
    /// All offices of a carrier, by its name.
    Carrier(String),
    /// All offices below this site.
    Region(String),
    /// One office, by its site code.
    Site(String),
    /// One computer.
    Endpoint(EndpointId),
    /// A service, by its name.
    Service(String),
    /// A hypervisor host, by its name.
    Host(String),
    /// One desktop.
    Desktop(DesktopId),
}

impl Scope {
    /// One text for each, for the database: `site:00505`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Centre => "centre".into(),
            Self::Carrier(name) => format!("carrier:{name}"),
            Self::Region(code) => format!("region:{code}"),
            Self::Site(code) => format!("site:{code}"),
            Self::Endpoint(id) => format!("endpoint:{id}"),
            Self::Service(name) => format!("service:{name}"),
            Self::Host(name) => format!("host:{name}"),
            Self::Desktop(id) => format!("desktop:{id}"),
        }
    }
}

/// One thing that speaks for a judgement, or would change it: a sentence the console knows by its code, and
/// what fills its blanks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Evidence {
    /// Which sentence, such as `silent_sites`.
    pub code: String,
    /// Its blanks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

impl Evidence {
    /// A sentence without blanks.
    #[must_use]
    pub fn new(code: &str) -> Self {
        Self { code: code.into(), params: BTreeMap::new() }
    }

    /// Fills a blank.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.params.insert(name.into(), value.to_string());
        self
    }
}

/// A cause and what it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Why.
    pub cause: Cause,
    /// Of what.
    pub scope: Scope,
    /// What tells two apart that have one scope and cause, such as the check; usually empty.
    pub detail: String,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// What speaks for it.
    pub evidence: Vec<Evidence>,
    /// What would change it.
    pub doubts: Vec<Evidence>,
    /// Offices it covers, sorted.
    pub sites: Vec<String>,
    /// Computers it covers, sorted: their own symptoms open nothing of their own.
    pub endpoints: Vec<EndpointId>,
}

impl Judgement {
    /// What keeps one incident one over many looks: `cause|scope|detail`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}|{}|{}", self.cause, self.scope.key(), self.detail)
    }
}

/// From when on things count as bad, and as good again.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// Part of the offices whose silence is the data centre's.
    pub centre_share: f32,
    /// Fewest offices for that: of two, one is always half.
    pub centre_least: usize,
    /// Silences that begin within this time have one beginning, seconds.
    pub together_s: u64,
    /// Part of a carrier's or region's offices whose silence is the carrier's.
    pub carrier_share: f32,
    /// Fewest offices for that.
    pub carrier_least: usize,
    /// Loss that makes a line bad, percent.
    pub loss_percent: f32,
    /// Loss below which a path is good, percent.
    pub good_percent: f32,
    /// Times the usual round trip that makes a line bad.
    pub slow_times: f32,
    /// A round trip never counts as slow below this, milliseconds.
    pub slow_least_ms: f32,
    /// Offices at which a service must fail to be to blame itself.
    pub service_sites: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            centre_share: 0.4,
            centre_least: 5,
            together_s: 180,
            carrier_share: 0.5,
            carrier_least: 3,
            loss_percent: 5.0,
            good_percent: 2.0,
            slow_times: 3.0,
            slow_least_ms: 60.0,
            service_sites: 3,
        }
    }
}

/// What is wrong, causes before their symptoms. The same picture always gives the same answer.
#[must_use]
pub fn judge(picture: &Picture, thresholds: &Thresholds) -> Vec<Judgement> {
    rules::Look::new(picture, thresholds).all()
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
