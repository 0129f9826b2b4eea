//! Health checks: one finding each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but somebody should look.
    Warn,
    /// Doesn't work, or soon won't.
    Crit,
    /// Couldn't be told; not a fault by itself.
    #[default]
    #[serde(other)]
    Unknown,
}

impl CheckState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Crit => "crit",
        }
    }

    /// From good to bad. What can't be told is worse than good and better than any fault.
    pub fn severity(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warn => 2,
            Self::Crit => 3,
        }
    }
}

/// What one check found.
///
/// `check` and `code` are open strings: a new check in an agent needs no new controller. `code` names
/// the sentence a person reads (the console translates it), `params` fills its blanks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check, such as `disk_space`.
    pub check: String,
    /// How bad.
    pub state: CheckState,
    /// Which sentence, such as `disk_low`.
    pub code: String,
    /// The blanks of the sentence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// The worst state of a set; `Unknown` if the set is empty.
pub fn worst(findings: &[Finding]) -> CheckState {
    findings.iter().map(|f| f.state).max_by_key(|s| s.severity()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(state: CheckState) -> Finding {
        Finding { check: "c".into(), state, code: "x".into(), params: BTreeMap::new() }
    }

    #[test]
    fn the_worst_finding_is_the_verdict() {
        assert_eq!(worst(&[]), CheckState::Unknown);
        assert_eq!(worst(&[f(CheckState::Ok), f(CheckState::Unknown)]), CheckState::Unknown);
        assert_eq!(worst(&[f(CheckState::Warn), f(CheckState::Unknown), f(CheckState::Ok)]), CheckState::Warn);
        assert_eq!(worst(&[f(CheckState::Warn), f(CheckState::Crit)]), CheckState::Crit);
    }

    #[test]
    fn a_state_from_the_future_reads_as_unknown() {
        let f: Finding = serde_json::from_str(r#"{"check":"a","state":"maintenance","code":"x"}"#).unwrap();
        assert_eq!(f.state, CheckState::Unknown);
    }
}
