//! One line for somebody who is no engineer: what is wrong between this computer and the data centre.

use serde::Serialize;
use tram_wire::check::{CheckState, Finding};

/// The nearest fault, seen from the officer's chair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Not looked yet.
    #[default]
    Looking,
    /// Nothing is wrong.
    Fine,
    /// The network cable is out, or there is no network at all.
    Cable,
    /// The office's router does not answer.
    Router,
    /// The router answers, and nothing beyond it does.
    Carrier,
    /// The internet is there, the data centre is not.
    DataCentre,
    /// The data centre answers slowly.
    Slow,
    /// The office's proxy lets us not through.
    Proxy,
    /// Somebody on the way opens the encrypted connection.
    Intercepted,
    /// The data centre refuses this computer.
    Refused,
    /// This computer's certificate has ended.
    Certificate,
    /// This computer was never enrolled, or its identity is damaged.
    NotEnrolled,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Looking,
        Self::Fine,
        Self::Cable,
        Self::Router,
        Self::Carrier,
        Self::DataCentre,
        Self::Slow,
        Self::Proxy,
        Self::Intercepted,
        Self::Refused,
        Self::Certificate,
        Self::NotEnrolled,
    ];
}

/// Judges what the checks found. A mute router is no fault while the data centre answers: many never
/// answer probes.
#[must_use]
pub fn cause(findings: &[Finding]) -> Cause {
    let has = |code: &str| findings.iter().any(|f| f.code == code);
    let identity = findings.iter().any(|f| f.check == "identity" && f.state == CheckState::Crit);
    if has("controller_not_enrolled") || identity {
        return Cause::NotEnrolled;
    }
    if has("certificate_expired") {
        return Cause::Certificate;
    }
    // Also while signed requests carry the link: a desktop's line is nothing for others to read.
    if has("tls_intercepted") || has("answer_forged") {
        return Cause::Intercepted;
    }
    if findings.iter().any(|f| f.check == "controller" && f.code.starts_with("proxy_")) {
        return Cause::Proxy;
    }
    if has("upgrade_removed") {
        return Cause::DataCentre;
    }
    if has("controller_refused") {
        return Cause::Refused;
    }
    if has("controller_ok") {
        return Cause::Fine;
    }
    if has("controller_slow") {
        return Cause::Slow;
    }
    if !has("controller_silent") {
        return Cause::Looking;
    }
    if has("cable_none") || has("gateway_none") {
        Cause::Cable
    } else if has("gateway_silent") {
        Cause::Router
    } else if has("dns_ok") || has("dns_slow") {
        Cause::DataCentre
    } else {
        Cause::Carrier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(codes: &[&str]) -> Cause {
        let finding = |code: &&str| Finding {
            check: code.split('_').next().unwrap().to_owned(),
            state: CheckState::Crit,
            code: (*code).to_owned(),
            params: Default::default(),
        };
        cause(&codes.iter().map(finding).collect::<Vec<_>>())
    }

    #[test]
    fn the_nearest_fault_is_named() {
        assert_eq!(judged(&["controller_silent", "cable_none", "gateway_none", "dns_silent"]), Cause::Cable);
        assert_eq!(judged(&["controller_silent", "gateway_silent", "dns_silent"]), Cause::Router);
        assert_eq!(judged(&["controller_silent", "gateway_ok", "dns_silent"]), Cause::Carrier);
        assert_eq!(judged(&["controller_silent", "gateway_mute", "dns_none"]), Cause::Carrier);
        assert_eq!(judged(&["controller_silent", "gateway_ok", "dns_ok"]), Cause::DataCentre);
        assert_eq!(judged(&["controller_slow"]), Cause::Slow);
        assert_eq!(judged(&["controller_refused"]), Cause::Refused);
        assert_eq!(judged(&["tls_intercepted", "gateway_ok", "dns_ok"]), Cause::Intercepted);
        assert_eq!(judged(&["answer_forged", "gateway_ok", "dns_ok"]), Cause::Intercepted);
        assert_eq!(judged(&["upgrade_removed", "dns_ok"]), Cause::DataCentre);
        assert_eq!(judged(&["controller_not_enrolled", "cable_none"]), Cause::NotEnrolled);
        assert_eq!(judged(&["certificate_expired", "controller_ok"]), Cause::Certificate);
    }

    #[test]
    fn a_proxy_is_named_only_by_the_check_of_the_controller() {
        let finding = |check: &str| Finding {
            check: check.to_owned(),
            state: CheckState::Crit,
            code: "proxy_password".to_owned(),
            params: Default::default(),
        };
        assert_eq!(cause(&[finding("controller")]), Cause::Proxy);
        assert_eq!(cause(&[finding("proxy")]), Cause::Looking);
    }

    #[test]
    fn what_answers_is_not_blamed() {
        assert_eq!(judged(&["controller_ok", "gateway_silent", "dns_silent"]), Cause::Fine);
        assert_eq!(judged(&[]), Cause::Looking);
    }
}
