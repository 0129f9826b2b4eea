//! What the officer sees now, as data; the page puts it into words.

use std::path::Path;

use serde::Serialize;
use tram_wire::desk::{Problem, Session, Step};
use tram_wire::ids::SessionId;
use tram_wire::session::Warn;

use super::assist::Seen;
use super::call::Called;
use super::cause::Cause;
use super::control::ControlError;
use super::orders::Wanted;
use crate::enrolling::{Refused, Waiting};
use crate::identity::{Identity, IdentityError};

/// Where the officer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Name and password are asked for.
    #[default]
    SignIn,
    /// They are being checked.
    Signing,
    /// The desktop is on its way.
    Waiting,
    /// The desktop is open elsewhere: is it to be taken over?
    TakeOver,
    /// The way to the desktop is being opened.
    Opening,
    /// The viewer covers the screen.
    Desktop,
    /// Support asks for something: the page asks the officer, before the viewer.
    Asked,
    /// Something will happen to the session soon: the page says so before the viewer, until the officer goes back.
    Warned,
    /// The line is cut; the desktop waits.
    Lost,
    /// The viewer is closed: back to the desktop, or sign out?
    Left,
}

/// Why the officer is back here: a code the page has a sentence for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Code, such as `end_staff` or `G-106`.
    pub code: String,
}

/// This computer is no endpoint yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Enrolling {
    /// A person has to approve it.
    Waits {
        /// They stand on the console's screen, too.
        digits: String,
    },
    /// That was refused, or nobody answered in time.
    Refused {
        /// The refusal's code.
        code: String,
        /// Why, as it was written.
        reason: String,
    },
}

impl Enrolling {
    /// How far it is; `None`: it has an identity, or nobody asked for one.
    #[must_use]
    pub fn of(state: &Path) -> Option<Self> {
        if !matches!(Identity::load(state), Err(IdentityError::Missing(_))) {
            return None;
        }
        let waits = Waiting::load(state).and_then(|w| w.digits).map(|digits| Self::Waits { digits });
        waits.or_else(|| Refused::load(state).map(|Refused { code, reason }| Self::Refused { code, reason }))
    }
}

/// What the page shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct View {
    /// Where the officer is.
    pub phase: Phase,
    /// Who is signed in.
    pub name: Option<String>,
    /// Their desktop.
    pub desktop: Option<String>,
    /// What is waited for.
    pub step: Option<Step>,
    /// Why the last thing they asked for was not done.
    pub problem: Option<Problem>,
    /// Why they are here again.
    pub notice: Option<Notice>,
    /// What will happen to the session soon.
    pub warning: Option<Warn>,
    /// The controller is away, and a lease lets the officer in until then.
    pub lease_until_ms: Option<i64>,
    /// Support looks, or asks to.
    pub assist: Option<Seen>,
    /// While the line is lost: the gateway's side is at fault, as far as can be told from here.
    pub gateway_lost: bool,
    /// Telephone of the helpdesk; empty: none is known.
    pub phone: String,
    /// How this computer and its line do.
    pub cause: Cause,
    /// The officer called support.
    pub call: Option<Called>,
    /// What support wants to do to this computer.
    pub order: Option<Wanted>,
    /// This computer is no endpoint yet.
    pub enrolling: Option<Enrolling>,
    /// The session, for who is called; the page has no use for it.
    #[serde(skip)]
    pub session: Option<SessionId>,
}

impl View {
    /// Asks for name and password, and says why if there is a reason.
    #[must_use]
    pub fn sign_in(notice: Option<Notice>) -> Self {
        Self { notice, ..Self::default() }
    }

    /// Signed in: waits.
    #[must_use]
    pub fn waiting(name: &str) -> Self {
        Self { phase: Phase::Waiting, name: Some(name.to_owned()), ..Self::default() }
    }

    /// What is known of the session.
    pub fn about(&mut self, session: &Session) {
        self.session = Some(session.id);
        self.desktop = Some(session.desktop.clone());
        self.step = session.step.clone();
    }
}

impl Notice {
    /// A notice.
    pub fn new(code: impl Into<String>) -> Self {
        Self { code: code.into() }
    }

    /// The code a person reads out: that of the connection's end where there is none of its own.
    #[must_use]
    pub fn searchable(&self) -> String {
        match self.code.strip_prefix("over_") {
            Some(close) => format!("V-{close}"),
            None if self.code.starts_with("end_") => "V-4000".to_owned(),
            None => self.code.clone(),
        }
    }
}

/// What the page is told of a fault; only the code is put into words there.
#[must_use]
pub fn problem(e: &ControlError) -> Problem {
    match e {
        ControlError::Refused(p) => p.clone(),
        other => {
            Problem { code: other.code().to_owned(), detail: other.to_string(), remaining: None, retry_after_s: None }
        }
    }
}
