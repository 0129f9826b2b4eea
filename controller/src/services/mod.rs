//! Floor 3: use cases. Each one: authorise, apply a domain rule, one transaction with its audit row.
//!
//! A user's request records intent; reconcilers make it true. Nothing here knows HTTP, SQL or libvirt.

use std::path::PathBuf;

use serde_json::Value;
use tram_wire::ids::InstallationId;

use crate::clock::Clock;
use crate::domain::access::{Caller, Role};
use crate::domain::endpoint::Pace;
use crate::domain::session::{Elsewhere, Policy};
use crate::domain::time::Time;
use crate::store::audit::Entry;
use crate::store::{Store, StoreError, Tx};

pub mod assists;
pub mod audit;
pub mod bandwidth;
pub mod broker;
pub mod calls;
pub mod copies;
pub mod desk;
pub mod desktops;
pub mod diagnosis;
pub mod endpoints;
pub mod enrolments;
pub mod gateways;
pub mod health;
pub mod hosts;
pub mod images;
pub mod incidents;
pub mod leases;
pub mod nodes;
pub mod notify;
pub mod overview;
pub mod pools;
pub mod runbooks;
pub mod sign_in;
pub mod sites;
pub mod sla;
pub mod time_travel;
pub mod tunnels;
pub mod updates;
pub mod users;

/// What every use case needs; built once by `cli`.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// This installation.
    pub installation: InstallationId,
    /// Folder of published golden images.
    pub image_dir: PathBuf,
    /// The device certificate authority and other secrets live here, 0700.
    pub data_dir: PathBuf,
    /// Passwords, with a bound on hashes computed at once.
    pub passwords: crate::identity::password::Passwords,
    /// Where browsers reach this controller, such as `https://tram.example:8443`; no trailing slash.
    pub public_url: String,
    /// Where agents reach it, as it stands in QR codes: `https://tram.example:8444`.
    pub agent_url: String,
    /// How long sessions may last where their pool says nothing else.
    pub policy: Policy,
    /// Telephone of the helpdesk; empty: none.
    pub support_phone: String,
    /// Runbooks, and whose signatures count.
    pub runbooks: crate::identity::shelf::Shelf,
    /// How releases of the agent spread.
    pub rings: crate::domain::rings::Rings,
    /// Who may sign them.
    pub signers: crate::identity::releases::Signers,
    /// Office hours, without the days that are not as their weekday.
    pub hours: crate::domain::incident::hours::Hours,
    /// Whether this process carries connections itself, at `public_url`.
    pub embedded: bool,
    /// How often endpoints speak, and how often what they say is judged.
    pub pace: Pace,
    /// Domain that browsers send the sign-in to, for gateways under other names; empty: the controller's name only.
    pub cookie_domain: String,
}

/// Who asks, from where, and when.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// On whose behalf.
    pub caller: Caller,
    /// Address of the request; empty inside the controller.
    pub ip: String,
    /// When it was received.
    pub now: Time,
}

impl Ctx {
    /// For the controller's own work.
    #[must_use]
    pub fn system(now: Time) -> Self {
        Self { caller: Caller::System, ip: String::new(), now }
    }

    /// For `tram-controller admin`.
    #[must_use]
    pub fn local_admin(now: Time) -> Self {
        Self { caller: Caller::LocalAdmin, ip: String::new(), now }
    }

    /// Refuses unless the caller has one of these roles.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn require(&self, roles: &[Role]) -> Result<()> {
        if roles.iter().any(|r| self.caller.is(*r)) {
            Ok(())
        } else {
            Err(Error::Forbidden("A-105", "your role does not allow this".into()))
        }
    }
}

/// One fault of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Field name or line number.
    pub at: String,
    /// Short code.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// What a use case answers instead of success. The set is closed; the code is for people to search.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such thing, or not in the caller's scope.
    #[error("{1}")]
    NotFound(&'static str, String),
    /// The state of things forbids it now.
    #[error("{1}")]
    Conflict(&'static str, String),
    /// The input is wrong; every fault is named.
    #[error("{1}")]
    Invalid(&'static str, String, Vec<Fault>),
    /// Not signed in, or the credentials are wrong.
    #[error("{1}")]
    Unauthenticated(&'static str, String),
    /// Wrong sign-in name or password; so many tries are left before the account is locked.
    #[error("the sign-in name or the password is wrong; tries left: {remaining}")]
    WrongPassword {
        /// Tries left.
        remaining: i64,
    },
    /// Locked out until a time.
    #[error("{1}")]
    Locked(&'static str, String, Time),
    /// Somebody works in the session at another place; it is moved only if its officer says so.
    #[error("your desktop is open at another place; say that you want it here to move it")]
    Elsewhere(Elsewhere),
    /// Signed in, but not allowed.
    #[error("{1}")]
    Forbidden(&'static str, String),
    /// No room.
    #[error("{1}")]
    Capacity(&'static str, String),
    /// Try again later.
    #[error("{1}")]
    Unavailable(&'static str, String),
    /// Our fault. The source is logged, not shown.
    #[error("an internal error; the log has the particulars")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Shorthand for this floor's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The short code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(c, _)
            | Self::Conflict(c, _)
            | Self::Invalid(c, _, _)
            | Self::Unauthenticated(c, _)
            | Self::Locked(c, _, _)
            | Self::Forbidden(c, _)
            | Self::Capacity(c, _)
            | Self::Unavailable(c, _) => c,
            Self::WrongPassword { .. } => "A-101",
            Self::Elsewhere(_) => "S-106",
            Self::Internal(_) => "X-500",
        }
    }

    /// A single wrong field.
    #[must_use]
    pub fn field(at: &str, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Invalid(code, message.clone(), vec![Fault { at: at.into(), code, message }])
    }
}

impl From<StoreError> for Error {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Unavailable(_) | StoreError::Folder(..) => {
                Self::Unavailable("X-503", format!("{e}; nothing was changed, try again in a moment"))
            }
            StoreError::Contended(_) => {
                Self::Unavailable(CONTENDED, "several requests met; nothing was changed, try again".into())
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}

/// Code of a transaction that met another one; trying again at once is right.
pub(crate) const CONTENDED: &str = "X-504";

/// How often what met another transaction is repeated before its sender is told to try again.
pub const TRIES: usize = 5;

/// Repeats a use case of one transaction while that meets others: nothing was written then, so asking again is
/// safe. What comes through the API is repeated there.
pub(crate) async fn patiently<T, F>(mut once: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for _ in 0..TRIES {
        match once().await {
            Err(Error::Unavailable(CONTENDED, _)) => {}
            other => return other,
        }
    }
    once().await
}

/// Writes the audit row of a change that succeeded.
pub(crate) async fn audit(tx: &mut Tx, ctx: &Ctx, action: &str, target: &str, detail: Value) -> Result<()> {
    let entry = Entry {
        at: ctx.now,
        actor: ctx.caller.name(),
        role: ctx.caller.role_name(),
        action,
        target,
        detail,
        ip: &ctx.ip,
        result: "ok",
    };
    Ok(tx.audit(entry).await?)
}
