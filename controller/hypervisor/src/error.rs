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

    /// The part that is not the variant's own sentence.
    pub(crate) fn inner(&self) -> String {
        match self {
            Self::Unreachable(t)
            | Self::Busy(t)
            | Self::NotFound(t)
            | Self::Full(t)
            | Self::Invalid(t)
            | Self::Unsupported(t)
            | Self::Refused(t) => t.clone(),
            Self::Timeout(after) => after.as_secs().to_string(),
            Self::Overloaded => String::new(),
        }
    }

    /// Puts an error together again from its code and [`Error::inner`].
    pub(crate) fn from_code(code: &str, inner: String) -> Self {
        match code {
            "H-101" => Self::Unreachable(inner),
            "H-102" => Self::Timeout(std::time::Duration::from_secs(inner.parse().unwrap_or(0))),
            "H-103" => Self::Overloaded,
            "H-104" => Self::Busy(inner),
            "H-105" => Self::NotFound(inner),
            "H-106" => Self::Full(inner),
            "H-107" => Self::Invalid(inner),
            "H-108" => Self::Unsupported(inner),
            _ => Self::Refused(inner),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_being_taken_apart() {
        let t = || "why".to_owned();
        for e in [
            Error::Unreachable(t()),
            Error::Timeout(std::time::Duration::from_secs(40)),
            Error::Overloaded,
            Error::Busy(t()),
            Error::NotFound(t()),
            Error::Full(t()),
            Error::Invalid(t()),
            Error::Unsupported(t()),
            Error::Refused(t()),
        ] {
            let again = Error::from_code(e.code(), e.inner());
            assert_eq!((again.code(), again.to_string()), (e.code(), e.to_string()));
        }
    }
}
