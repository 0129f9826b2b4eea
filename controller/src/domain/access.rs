//! Who may do what: roles and the part of the site tree a person works for.

use tram_wire::ids::UserId;

text_enum! {
    /// What a person is here for.
    Role {
        /// Runs the data centre: hosts, images, pools, people.
        Operator = "operator",
        /// Answers the phone: endpoints and sessions of the sites in scope.
        Support = "support",
        /// Serves citizens at a commune desk: an own desktop and nothing else.
        Officer = "officer",
    }
}

/// The part of the site tree somebody works for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every site.
    All,
    /// These sites (codes): the person's own site and everything below it.
    Sites(Vec<String>),
}

impl Scope {
    /// Whether a site lies in it.
    #[must_use]
    pub fn covers(&self, site_code: &str) -> bool {
        match self {
            Self::All => true,
            Self::Sites(codes) => codes.iter().any(|c| c == site_code),
        }
    }
}

/// On whose behalf something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A signed-in person.
    User {
        /// Who.
        id: UserId,
        /// Sign-in name, for the audit.
        username: String,
        /// What they may do.
        role: Role,
        /// Where they may do it.
        scope: Scope,
    },
    /// Somebody with a shell on the controller (`tram-controller admin`).
    LocalAdmin,
    /// The controller itself: reconcilers and the gateway.
    System,
}

impl Caller {
    /// Name for the audit.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User { username, .. } => username,
            Self::LocalAdmin => "local-admin",
            Self::System => "system",
        }
    }

    /// Role for the audit.
    #[must_use]
    pub fn role_name(&self) -> &'static str {
        match self {
            Self::User { role, .. } => role.as_str(),
            Self::LocalAdmin => "local-admin",
            Self::System => "system",
        }
    }

    /// Whether they may do what this role may.
    #[must_use]
    pub fn is(&self, wanted: Role) -> bool {
        match self {
            Self::User { role, .. } => *role == wanted,
            Self::LocalAdmin | Self::System => true,
        }
    }

    /// The sites they may see.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::User { scope, .. } => scope.clone(),
            Self::LocalAdmin | Self::System => Scope::All,
        }
    }
}
