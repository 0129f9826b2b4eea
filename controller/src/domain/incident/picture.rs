//! What is known of the fleet at one moment. Built by the services from the database; pure data here.

use std::collections::BTreeMap;

use tram_wire::ids::{DesktopId, EndpointId};

use super::super::time::Time;
use super::IncidentCause;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// When.
    pub now: Time,
    /// The controller's own probes: its uplink, its resolver, its database.
    pub centre: Vec<Probe>,
    /// Offices by code; one that is missing is treated as open and known to nobody.
    pub sites: BTreeMap<String, Site>,
    /// Computers that ever reported and are not withdrawn.
    pub endpoints: Vec<Endpoint>,
    /// Desktops and hosts that do not work.
    pub desktops: Vec<DesktopFault>,
    /// What covered offices and is not long over: computers come back one by one.
    pub wide: Vec<Wide>,
    /// Services that failed everywhere and are not long back: offices ask them again one by one.
    pub failed: Vec<Failed>,
}

/// A service that failed by itself.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its name in the list of probes.
    pub service: String,
    /// Until when; `None`: it still does.
    pub until: Option<Time>,
}

/// An incident of one office or many, open or not long over.
#[derive(Clone, Debug)]
pub struct Wide {
    /// Its cause: the data centre, a carrier, a line, electricity.
    pub cause: IncidentCause,
    /// When it was opened.
    pub opened: Time,
    /// The offices it covers.
    pub sites: Vec<String>,
}

/// One probe of the controller itself.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What is probed, such as `uplink`.
    pub name: String,
    /// Whether it answers; `None`: could not be told.
    pub ok: Option<bool>,
}

/// An office.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The site above it.
    pub region: Option<String>,
    /// Whose line it has.
    pub carrier: Option<String>,
    /// Whether people work there now: office hours, no holiday.
    pub open: bool,
    /// Work was announced: nothing is wrong that was expected.
    pub maintenance: bool,
}

/// A computer.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Which.
    pub id: EndpointId,
    /// Its office.
    pub site: String,
    /// Nobody hears it, and since when.
    pub silence: Option<Silence>,
    /// Since when it is heard without a break.
    pub back: Time,
    /// How its way to the office's router does; `None`: not measured. [`Endpoint::gateway`] is what counts.
    pub gateway: Option<Path>,
    /// How its way to the data centre does. [`Endpoint::controller`] is what counts.
    pub controller: Option<Path>,
    /// What that round trip usually takes, milliseconds.
    pub usual_ms: Option<f32>,
    /// Services it asks for, as its office's prober. [`Endpoint::services`] are what counts.
    pub services: Vec<Service>,
    /// What its own checks complain of.
    pub faults: Vec<Fault>,
}

/// What was lost or failed before a computer was last heard again is explained by its absence: it is unknown until it is
/// measured anew.
impl Endpoint {
    /// How its way to the office's router does.
    #[must_use]
    pub fn gateway(&self) -> Option<Path> {
        self.gateway.filter(|p| p.at >= self.back)
    }

    /// How its way to the data centre does.
    #[must_use]
    pub fn controller(&self) -> Option<Path> {
        self.controller.filter(|p| p.at >= self.back)
    }

    /// The services it asks for.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(|s| s.at >= self.back)
    }
}

/// Since when a computer says nothing, and what it said last.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// The last time it was heard.
    pub since: Time,
    /// Its last word.
    pub last_word: LastWord,
}

/// What a computer said before it fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// Nothing of the kind.
    None,
    /// It is being shut down or restarted.
    Shutdown,
    /// Its agent was stopped.
    Stopped,
    /// It ran on battery, or its UPS did.
    OnBattery,
}

/// A measured way.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// When it was measured.
    pub at: Time,
    /// Lost, percent; `None`: only how long it takes is known.
    pub loss_percent: Option<f32>,
    /// Round trip, 95th percentile, milliseconds; `None`: nothing came back.
    pub p95_ms: Option<f32>,
}

/// A service as one office sees it.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name in the list of probes.
    pub name: String,
    /// When it was asked.
    pub at: Time,
    /// Whether it answers as expected; `None`: could not be told.
    pub ok: Option<bool>,
    /// Where it stopped: `resolve`, `connect`, `tls`, `first_byte`, `answer`.
    pub phase: String,
}

/// A complaint of a computer's own checks.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which check.
    pub check: String,
    /// Which sentence.
    pub code: String,
    /// Its blanks.
    pub params: BTreeMap<String, String>,
    /// Doesn't work, or soon won't.
    pub crit: bool,
}

/// A desktop, or a host with all of its desktops, that does not work.
#[derive(Clone, Debug)]
pub struct DesktopFault {
    /// The host it lies on.
    pub host: String,
    /// Which desktop; `None`: the host itself.
    pub desktop: Option<DesktopId>,
    /// The office it serves.
    pub site: Option<String>,
    /// Why, as the reconciler's code.
    pub code: String,
}
