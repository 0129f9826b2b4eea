//! Identifiers. One newtype each, so that a desktop's id can't be passed for an endpoint's.
//!
//! All are UUIDs (version 7 where Tram makes them: they sort by time). On the wire and in URLs they
//! are written in the usual hyphenated lower-case form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl From<Uuid> for $name {
            fn from(u: Uuid) -> Self {
                Self(u)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    )*};
}

id! {
    /// A computer in an office that runs the agent.
    EndpointId,
    /// A virtual desktop; also the UUID of its libvirt domain.
    DesktopId,
    /// One use of one desktop by one person, over any number of reconnects.
    SessionId,
    /// The right of an endpoint to a session while the controller can't be asked.
    LeaseId,
    /// One look of support at a session.
    AssistId,
    /// One order of remote diagnosis; an endpoint obeys each once.
    OrderId,
    /// Something that is wrong somewhere, from when it is noticed until it is over.
    IncidentId,
    /// A set of alike desktops made from one image for one site.
    PoolId,
    /// A hypervisor host.
    HostId,
    /// A golden image version.
    ImageId,
    /// A person who may sign in.
    UserId,
    /// One installation of the controller: everything it makes on a host carries this id.
    InstallationId,
}
