//! What a backend may answer instead of success.

/// A failed call. The caller decides by [`Error::class`], people read the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host can't be reached or is reconnecting.
    #[error("the hypervisor on this host can't be reached: {0}")]
    Unreachable(String),
    /// The call did not end within its deadline; it may still take effect.
    #[error("the hypervisor did not answer within {0:?}")]
    Timeout(std::time::Duration),
    /// Too many calls are waiting for this host already.
    #[error("too many calls are waiting for this host")]
    Overloaded,
    /// The object is in use in a way that forbids the change now.
    #[error("{0}")]
    Busy(String),
    /// No such domain, disk or image.
    #[error("{0} does not exist on this host")]
    NotFound(String),
    /// The host has no room (disk full, memory gone).
    #[error("the host has no room: {0}")]
    Full(String),
    /// The request can't ever work as it is.
    #[error("{0}")]
    Invalid(String),
    /// This backend can't do it.
    #[error("this hypervisor can't do that: {0}")]
    Unsupported(String),
    /// Anything else the hypervisor refused.
    #[error("the hypervisor refused: {0}")]
    Refused(String),
}

/// What a reconciler does about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again later with backoff.
    Retry,
    /// Trying again can't help until somebody changes something.
    Permanent,
    /// The thing is gone: observe and plan anew.
    Gone,
}

impl Error {
    /// How to go on.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable(_)
            | Self::Timeout(_)
            | Self::Overloaded
            | Self::Busy(_)
            | Self::Full(_)
            | Self::Refused(_) => Class::Retry,
            Self::NotFound(_) => Class::Gone,
            Self::Invalid(_) | Self::Unsupported(_) => Class::Permanent,
        }
    }

    /// Short stable code, shown to people and used in metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "H-101",
            Self::Timeout(_) => "H-102",
            Self::Overloaded => "H-103",
            Self::Busy(_) => "H-104",
            Self::NotFound(_) => "H-105",
            Self::Full(_) => "H-106",
            Self::Invalid(_) => "H-107",
            Self::Unsupported(_) => "H-108",
            Self::Refused(_) => "H-109",
        }
    }
}
