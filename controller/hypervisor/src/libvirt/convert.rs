//! From libvirt's words to ours.

use virt::domain::{DomainShutoffReason, DomainState, DomainStateEnum, DomainStateReason, DomainStateReasonEnum};
use virt::enumutil::Enum;
use virt::error::{Error as VirtError, ErrorDomain, ErrorNumber};

use crate::{Error, Power};

/// What a libvirt error means to a caller.
pub(super) fn error(e: VirtError) -> Error {
    use ErrorNumber as N;
    let text = e.message().trim().to_owned();
    let Enum::Known(code) = e.code() else { return Error::Refused(text) };
    let rpc = e.domain() == Enum::Known(ErrorDomain::Rpc);
    match code {
        N::NoDomain => Error::NotFound("the desktop's domain".into()),
        // A refusal by the far side's policy comes from the RPC layer too, but trying again is no use soon.
        N::AuthFailed | N::AuthUnavailable | N::AuthCancelled | N::AccessDenied => Error::Refused(text),
        N::NoSupport | N::OperationUnsupported | N::ConfigUnsupported => Error::Unsupported(text),
        _ if rpc => Error::Unreachable(text),
        N::Rpc | N::NoConnect | N::InvalidConn => Error::Unreachable(text),
        N::ResourceBusy | N::OperationInvalid | N::OperationTimeout | N::AgentUnresponsive | N::BlockCopyActive => {
            Error::Busy(text)
        }
        N::NoMemory => Error::Full(text),
        _ if text.contains("No space left")
            || text.contains("annot allocate memory")
            || text.contains("Disk quota") =>
        {
            Error::Full(text)
        }
        N::XmlError | N::XmlDetail | N::InvalidArg | N::XmlInvalidSchema | N::InvalidDomain => Error::Invalid(text),
        _ => Error::Refused(text),
    }
}

/// As [`error`], for the start of a guest: says what to do about folders QEMU's own user can't enter.
pub(super) fn start_error(e: VirtError) -> Error {
    match error(e) {
        Error::Refused(text) if text.contains("Permission denied") => Error::Refused(format!(
            "{text}. QEMU runs as a user of its own: every folder above the image and disk folders must let others pass (chmod o+x)"
        )),
        other => other,
    }
}

/// Whether the error says that the object is simply not there.
pub(super) fn is_gone(e: &VirtError) -> bool {
    e.code() == Enum::Known(ErrorNumber::NoDomain)
}

/// Whether the domain was not in the state the call needs (already on, already off).
pub(super) fn is_wrong_state(e: &VirtError) -> bool {
    e.code() == Enum::Known(ErrorNumber::OperationInvalid)
}

/// Whether there simply is no such metadata.
pub(super) fn is_no_metadata(e: &VirtError) -> bool {
    e.code() == Enum::Known(ErrorNumber::NoDomainMetadata)
}

/// A domain's state in our words.
pub(super) fn power(state: DomainStateEnum, reason: &DomainStateReasonEnum) -> Power {
    let Enum::Known(state) = state else { return Power::Paused };
    match state {
        DomainState::Running | DomainState::Blocked | DomainState::Shutdown => Power::Running,
        DomainState::Paused | DomainState::PMSuspended | DomainState::NoState => Power::Paused,
        DomainState::Crashed => Power::Crashed,
        DomainState::Shutoff => match reason {
            Enum::Known(DomainStateReason::Shutoff(Enum::Known(DomainShutoffReason::Crashed))) => Power::Crashed,
            _ => Power::Off,
        },
    }
}

/// libvirt's version number as people write it.
pub(super) fn version(n: u32) -> String {
    format!("{}.{}.{}", n / 1_000_000, n / 1000 % 1000, n % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_unreachable_and_a_missing_domain_is_gone() {
        let refused = virt::connect::Connect::open(Some("test+unix:///default?socket=/nonexistent/sock")).unwrap_err();
        assert!(matches!(error(refused), Error::Unreachable(_)));
        let conn = virt::connect::Connect::open(Some("test:///default")).unwrap();
        let missing = conn.lookup_domain_by_name("nobody").unwrap_err();
        assert!(is_gone(&missing));
        assert!(matches!(error(missing), Error::NotFound(_)));
        let bad = conn.define_domain_xml("<domain").unwrap_err();
        assert!(matches!(error(bad), Error::Invalid(_)));
    }

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version(11_003_000), "11.3.0");
        assert_eq!(version(10_000_002), "10.0.2");
    }
}
