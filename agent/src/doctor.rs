//! `tram-agent doctor`: what is wrong here, in words, with no controller and no privilege.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use tram_wire::check::{CheckState, Finding, worst};

use crate::checks::Reach;
use crate::config::{Address, Config};
use crate::host::Host;
use crate::identity::{Identity, IdentityError};
use crate::report::{LinkFacts, Reporter};

const REACH_DEADLINE: Duration = Duration::from_secs(2);

/// The result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The worst state.
    pub verdict: CheckState,
    /// The controller asked, if this computer is enrolled and we may read that.
    pub controller: Option<String>,
    /// All findings.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// 0 fine or can't tell, 1 worth a look, 2 broken.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            CheckState::Ok | CheckState::Unknown => 0,
            CheckState::Warn => 1,
            CheckState::Crit => 2,
        }
    }
}

/// Examines this computer.
pub async fn examine(config: &Config, host: impl Host) -> Diagnosis {
    let identity = Identity::load(&config.state);
    let mut facts = LinkFacts { rtt: None, skew_ms: None, not_after_ms: None, controller: Reach::NotEnrolled };
    let mut controller = None;
    if let Ok(identity) = &identity {
        facts.not_after_ms = Some(identity.issued.not_after_ms);
        controller = Some(identity.controller.clone());
        if let Ok(Address { host: name, port }) = identity.controller.parse() {
            facts.rtt = host.reach(&name, port, REACH_DEADLINE).await;
            facts.controller = if facts.rtt.is_some() { Reach::Answers } else { Reach::Silent };
        }
    }
    let mut reporter = Reporter::new(host, config.into());
    let mut findings = reporter.snapshot(&facts).await.findings;
    if let Err(e @ (IdentityError::Damaged(..) | IdentityError::Io(..))) = &identity {
        findings.push(unreadable(e));
    }
    Diagnosis { verdict: worst(&findings), controller, findings }
}

fn unreadable(e: &IdentityError) -> Finding {
    let (state, code) = match e {
        IdentityError::Damaged(..) => (CheckState::Crit, "identity_damaged"),
        // An ordinary user may not read the key, and needs not.
        _ => (CheckState::Unknown, "identity_unreadable"),
    };
    let params = [("detail".to_owned(), e.to_string())].into();
    Finding { check: "identity".to_owned(), state, code: code.to_owned(), params }
}

/// For people: one line a check, and what to do about those that aren't fine.
#[must_use]
pub fn render(d: &Diagnosis) -> String {
    let mut out = String::new();
    for f in &d.findings {
        let (what, next) = sentence(f);
        let _ = writeln!(out, "{:<8}{:<13}{what}", f.state.as_str(), f.check);
        if f.state != CheckState::Ok && !next.is_empty() {
            let _ = writeln!(out, "{:21}-> {next}", "");
        }
    }
    let _ = writeln!(out, "\nverdict: {}", d.verdict.as_str());
    out
}

/// What a finding says, and the next step.
fn sentence(f: &Finding) -> (String, &'static str) {
    let p = |name: &str| f.params.get(name).map_or("?", String::as_str);
    match f.code.as_str() {
        "controller_ok" => (format!("the controller answers in {} ms", p("ms")), ""),
        "controller_slow" => (
            format!("the controller answers in {} ms", p("ms")),
            "the line to the data centre is slow or full; compare with the neighbour's computer",
        ),
        "controller_silent" => {
            ("the controller doesn't answer".into(), "check the internet line; if others work, call support")
        }
        "controller_refused" => (format!("the controller refuses us: {}", p("reason")), "call support"),
        "controller_not_enrolled" => {
            ("this computer isn't enrolled".into(), "ask an operator for a token, then run `tram-agent enrol`")
        }
        "gateway_ok" => (format!("the router {} answers in {} ms", p("gateway"), p("ms")), ""),
        "gateway_slow" => {
            (format!("the router {} takes {} ms", p("gateway"), p("ms")), "restart the router; prefer a cable to Wi-Fi")
        }
        "gateway_silent" => {
            (format!("the router {} doesn't answer", p("gateway")), "check its power and the network cable")
        }
        "gateway_mute" => (format!("the router {} answers no probes", p("gateway")), ""),
        "gateway_none" => ("there is no default route".into(), "plug in the network cable, or join the Wi-Fi"),
        "dns_ok" => (format!("the resolver {} answers in {} ms", p("resolver"), p("ms")), ""),
        "dns_slow" => {
            (format!("the resolver {} takes {} ms", p("resolver"), p("ms")), "names load slowly; tell support")
        }
        "dns_silent" => {
            (format!("the resolver {} doesn't answer", p("resolver")), "names can't be found; restart the router")
        }
        "dns_none" => ("no resolver is set".into(), ""),
        "cable_ok" => ("the network cable is fine".into(), ""),
        "cable_slow" => (
            format!("{} runs at {} Mbit/s or half duplex", p("interface"), p("mbit")),
            "change the cable or the switch port",
        ),
        "cable_none" => ("no network interface is up".into(), "plug in the network cable"),
        "clock_ok" => ("the clock is right".into(), ""),
        "clock_drifts" => (format!("the clock is off by {} s", p("seconds")), "check time synchronization"),
        "clock_wrong" => (
            format!("the clock is off by {} s", p("seconds")),
            "sign-in and signatures will fail: set the clock; if it comes back, change the battery",
        ),
        "clock_unknown" => ("no other clock to compare with".into(), ""),
        "certificate_ok" => (format!("the certificate is good for {} days", p("days")), ""),
        "certificate_ends" => {
            (format!("the certificate ends in {} days", p("days")), "it renews itself over the link: mend that first")
        }
        "certificate_expired" => ("the certificate has expired".into(), "ask an operator for a token and enrol again"),
        "certificate_none" => ("there is no certificate yet".into(), ""),
        "disk_ok" => (format!("{} % of {} is free", p("free_percent"), p("mount")), ""),
        "disk_low" => (format!("only {} % of {} is free", p("free_percent"), p("mount")), "delete what isn't needed"),
        "disk_full" => {
            (format!("{} is full ({} % free)", p("mount"), p("free_percent")), "delete what isn't needed, now")
        }
        "disk_read_only" => (
            format!("{} is read-only", p("mount")),
            "unless this is meant, the disk may be dying: save your work, call support",
        ),
        "disk_unknown" => ("no file system can be read".into(), ""),
        "memory_ok" => (format!("{} % of memory is free", p("free_percent")), ""),
        "memory_low" => (format!("only {} % of memory is free", p("free_percent")), "close programmes"),
        "memory_out" => (format!("memory is used up ({} % free)", p("free_percent")), "close programmes or restart"),
        "memory_unknown" => ("memory can't be read".into(), ""),
        "temperature_ok" => (format!("{}: {} °C", p("sensor"), p("celsius")), ""),
        "temperature_high" => (format!("{}: {} °C", p("sensor"), p("celsius")), "clean the fan; make room around it"),
        "temperature_critical" => {
            (format!("{}: {} °C", p("sensor"), p("celsius")), "switch off, let it cool, clean the fan, call support")
        }
        "temperature_unknown" => ("no sensor can be read".into(), ""),
        "identity_damaged" => (p("detail").to_owned(), "ask an operator for a token and enrol again"),
        "identity_unreadable" => (p("detail").to_owned(), "run as root to see the controller's side too"),
        other => (other.to_owned(), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn config(state: &std::path::Path) -> Config {
        Config::load(None, Some(state)).unwrap()
    }

    #[tokio::test]
    async fn a_computer_that_was_never_enrolled_gets_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let d = examine(&config(dir.path()), Fake::new()).await;
        assert_eq!((d.verdict, d.exit_code()), (CheckState::Warn, 1)); // no default route
        let text = render(&d);
        assert!(text.contains("isn't enrolled") && text.contains("tram-agent enrol"), "{text}");
    }

    #[tokio::test]
    async fn a_damaged_identity_is_critical() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identity.json"), "{").unwrap();
        let d = examine(&config(dir.path()), Fake::new()).await;
        assert_eq!(d.exit_code(), 2);
        assert!(render(&d).contains("damaged"));
    }

    #[tokio::test]
    async fn every_code_a_check_can_give_has_a_sentence() {
        // The codes stand in the sources of the checks; a new one without a sentence would be shown raw.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checks");
        let mut codes = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for part in ["Outcome::ok(\"", "Outcome::warn(\"", "Outcome::crit(\"", "Outcome::unknown(\""] {
                for rest in source.split(part).skip(1) {
                    let code = rest.split('"').next().unwrap();
                    let f = Finding {
                        check: "x".into(),
                        state: CheckState::Ok,
                        code: code.into(),
                        params: Default::default(),
                    };
                    assert_ne!(sentence(&f).0, code, "no sentence for {code}");
                    codes += 1;
                }
            }
        }
        assert!(codes > 25, "found only {codes}");
    }
}
