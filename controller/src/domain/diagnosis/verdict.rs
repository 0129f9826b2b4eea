//! One verdict from the steps of a bundle: the computer, the office's line, the carrier, the data centre, or the service.
//!
//! The rules stand in order, the first that holds owns the verdict: what is near explains what is far.

use serde::{Deserialize, Serialize};
use tram_wire::check::CheckState;
use tram_wire::diagnosis::{Action, Bundle, Step, Target, Work};

text_enum! {
    /// Where the fault is.
    Blame {
        /// Nothing was found.
        Fine = "fine",
        /// The computer itself, or what is plugged into it.
        Pc = "pc",
        /// The office: cable, switch, router, its names.
        OfficeLine = "office_line",
        /// The way from the office to the data centre.
        Carrier = "carrier",
        /// The data centre.
        DataCentre = "data_centre",
        /// A service outside.
        Service = "service",
        /// Too little was seen.
        Unknown = "unknown",
    }
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Where the fault is.
    pub blame: Blame,
    /// Which rule held, in one word.
    pub code: String,
    /// The steps that speak for it.
    pub evidence: Vec<u16>,
}

fn verdict(blame: Blame, code: &str, evidence: &[&Seen<'_>]) -> Verdict {
    Verdict { blame, code: code.to_owned(), evidence: evidence.iter().map(|s| s.step.step).collect() }
}

/// A step beside what it was to do.
struct Seen<'a> {
    action: &'a Action,
    step: &'a Step,
}

impl Seen<'_> {
    fn good(&self) -> bool {
        self.step.state == CheckState::Ok
    }

    fn bad(&self) -> bool {
        matches!(self.step.state, CheckState::Warn | CheckState::Crit)
    }

    fn silent(&self) -> bool {
        self.step.state == CheckState::Crit
    }

    fn said(&self, code: &str) -> bool {
        self.step.code == code
    }
}

/// What the steps of a bundle come to; `None` for a single action, which speaks for itself.
#[must_use]
pub fn judge(work: &Work, steps: &[Step]) -> Option<Verdict> {
    let Work::Bundle { bundle, .. } = work else { return None };
    let actions = work.actions();
    let seen: Vec<Seen<'_>> =
        steps.iter().filter_map(|step| Some(Seen { action: actions.get(usize::from(step.step))?, step })).collect();
    Some(match bundle {
        Bundle::Line => line(&seen),
        Bundle::Printer | Bundle::Pc => own(&seen),
        Bundle::Session => session(&seen),
    })
}

fn find<'a>(seen: &'a [Seen<'a>], is: impl Fn(&Action) -> bool) -> Option<&'a Seen<'a>> {
    seen.iter().find(|s| is(s.action))
}

fn ping_of<'a>(seen: &'a [Seen<'a>], to: &Target) -> Option<&'a Seen<'a>> {
    find(seen, |a| matches!(a, Action::Ping { to: t, .. } if t == to))
}

fn is_service(a: &Action) -> bool {
    matches!(a, Action::Tcp { .. } | Action::Tls { .. } | Action::Http { .. } | Action::Https { .. })
}

/// The way out, from near to far; `None` if all of it is good.
fn way(seen: &[Seen<'_>]) -> Option<Verdict> {
    let router = ping_of(seen, &Target::Gateway);
    let resolver = ping_of(seen, &Target::Resolver);
    let services: Vec<&Seen<'_>> = seen.iter().filter(|s| is_service(s.action)).collect();
    let (good, bad): (Vec<&Seen<'_>>, Vec<&Seen<'_>>) = services.iter().partition(|s| s.good());
    if let Some(n) = find(seen, |a| matches!(a, Action::Network {})).filter(|n| n.said("no_cable")) {
        return Some(verdict(Blame::Pc, "no_cable", &[n]));
    }
    let Some(controller) = ping_of(seen, &Target::Controller) else {
        return Some(verdict(Blame::Unknown, "too_little", &[]));
    };
    if let Some(r) = router.filter(|r| r.bad()) {
        // A router that never answers a ping may have the habit: it counts only if nothing is beyond it.
        if !r.silent() || controller.silent() {
            let code = if r.silent() { "router_silent" } else { "router_lossy" };
            return Some(verdict(Blame::OfficeLine, code, &[r, controller]));
        }
    }
    let nameless: Vec<&Seen<'_>> = services.iter().copied().filter(|s| s.said("no_such_name")).collect();
    if !nameless.is_empty() && nameless.len() == services.len() {
        let all: Vec<&Seen<'_>> = resolver.into_iter().chain(nameless).collect();
        return Some(verdict(Blame::OfficeLine, "names_fail", &all));
    }
    if controller.bad() {
        // Others beyond the same line are well: then it is not the line.
        let (blame, code) = match (controller.silent(), good.is_empty()) {
            (true, false) => (Blame::DataCentre, "controller_silent"),
            (false, false) => (Blame::DataCentre, "controller_slow"),
            (true, true) => (Blame::Carrier, "line_silent"),
            (false, true) => (Blame::Carrier, "line_lossy"),
        };
        let all: Vec<&Seen<'_>> = router.into_iter().chain([controller]).chain(good).collect();
        return Some(verdict(blame, code, &all));
    }
    if !bad.is_empty() {
        // All of several are away while the controller is there: the way to the outside is broken.
        let (blame, code) = match good.is_empty() && bad.len() > 1 {
            true => (Blame::Carrier, "outside_silent"),
            false => (Blame::Service, "service_fails"),
        };
        return Some(verdict(blame, code, &bad));
    }
    None
}

fn line(seen: &[Seen<'_>]) -> Verdict {
    if let Some(v) = way(seen) {
        return v;
    }
    let network = find(seen, |a| matches!(a, Action::Network {}));
    match network.filter(|n| n.said("half_duplex")) {
        Some(n) => verdict(Blame::OfficeLine, "half_duplex", &[n]),
        None => verdict(Blame::Fine, "line_fine", &seen.iter().collect::<Vec<_>>()),
    }
}

/// The worst of what belongs to the computer itself.
fn own(seen: &[Seen<'_>]) -> Verdict {
    let worst = seen.iter().filter(|s| s.bad()).max_by_key(|s| (s.step.state.severity(), u16::MAX - s.step.step));
    match worst {
        Some(s) => verdict(Blame::Pc, &s.step.code, &[s]),
        None if seen.iter().any(Seen::good) => verdict(Blame::Fine, "pc_fine", &seen.iter().collect::<Vec<_>>()),
        None => verdict(Blame::Unknown, "too_little", &[]),
    }
}

fn session(seen: &[Seen<'_>]) -> Verdict {
    if let Some(c) = seen.iter().find(|s| matches!(s.action, Action::Clock {}) && s.bad()) {
        return verdict(Blame::Pc, &c.step.code, &[c]);
    }
    if let Some(v) = way(seen) {
        return v;
    }
    match seen.iter().find(|s| matches!(s.action, Action::Health {}) && s.silent()) {
        Some(h) => verdict(Blame::Pc, "checks_fail", &[h]),
        // The way is good and the computer too: what is left is the desktop and its host.
        None => verdict(Blame::Fine, "way_fine", &seen.iter().collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tram_wire::diagnosis::{Listed, ListedKind};

    /// A bundle with two services whose steps came out as told: code, worst of a step by its first letter.
    fn told(bundle: Bundle, codes: &[&str]) -> (Blame, String) {
        let service = |h: &str| Listed { host: h.to_owned().try_into().unwrap(), port: 443, kind: ListedKind::Https };
        let work = Work::Bundle { bundle, listed: vec![service("portal.example"), service("mail.example")] };
        let steps: Vec<Step> = (0..)
            .zip(codes)
            .map(|(step, code)| Step {
                step,
                action: String::new(),
                state: match *code {
                    "done" | "running" => CheckState::Ok,
                    "lossy" | "slow" | "half_duplex" | "clock_off" | "disk_low" | "service_stopped" => CheckState::Warn,
                    "no_gateway" | "absent" => CheckState::Unknown,
                    _ => CheckState::Crit,
                },
                code: (*code).to_owned(),
                facts: std::collections::BTreeMap::new(),
                took_ms: 1,
                cut: false,
            })
            .collect();
        let v = judge(&work, &steps).unwrap();
        (v.blame, v.code)
    }

    #[test]
    fn what_is_near_explains_what_is_far() {
        use Blame::*;
        // network, router, resolver, controller, two services
        for (codes, blame, code) in [
            (["done", "done", "done", "done", "done", "done"], Fine, "line_fine"),
            (["no_cable", "no_answer", "no_answer", "no_answer", "no_answer", "no_answer"], Pc, "no_cable"),
            (["done", "lossy", "lossy", "lossy", "no_answer", "done"], OfficeLine, "router_lossy"),
            (["done", "slow", "done", "done", "done", "done"], OfficeLine, "router_lossy"),
            (["done", "no_answer", "done", "no_answer", "no_answer", "no_answer"], OfficeLine, "router_silent"),
            // It does not like to be asked, and lets everything through.
            (["done", "no_answer", "done", "done", "done", "done"], Fine, "line_fine"),
            (["done", "done", "no_answer", "done", "no_such_name", "no_such_name"], OfficeLine, "names_fail"),
            (["done", "done", "done", "lossy", "no_answer", "no_answer"], Carrier, "line_lossy"),
            (["done", "done", "done", "no_answer", "no_answer", "refused"], Carrier, "line_silent"),
            (["done", "done", "done", "slow", "done", "no_answer"], DataCentre, "controller_slow"),
            (["done", "done", "done", "no_answer", "done", "done"], DataCentre, "controller_silent"),
            (["done", "done", "done", "done", "no_answer", "done"], Service, "service_fails"),
            (["done", "done", "done", "done", "no_answer", "no_answer"], Carrier, "outside_silent"),
            (["half_duplex", "done", "done", "done", "done", "done"], OfficeLine, "half_duplex"),
            (["done", "no_gateway", "absent", "done", "done", "done"], Fine, "line_fine"),
        ] {
            assert_eq!(told(Bundle::Line, &codes), (blame, code.to_owned()), "{codes:?}");
        }
        assert_eq!(told(Bundle::Line, &["done"]), (Unknown, "too_little".into()));
    }

    #[test]
    fn computers_printers_and_sessions() {
        use Blame::*;
        assert_eq!(told(Bundle::Printer, &["printer_stopped", "running", "done", "disk_low"]).1, "printer_stopped");
        assert_eq!(told(Bundle::Printer, &["done", "running", "done", "done"]), (Fine, "pc_fine".into()));
        assert_eq!(told(Bundle::Pc, &["done", "done", "disk_full", "disk_failing", "done"]).1, "disk_full");
        assert_eq!(told(Bundle::Pc, &["absent"; 5]), (Unknown, "too_little".into()));
        // health, router, controller, clock, two services
        let session = |codes: [&str; 6]| told(Bundle::Session, &codes);
        assert_eq!(session(["done", "done", "done", "done", "done", "done"]), (Fine, "way_fine".into()));
        assert_eq!(session(["done", "lossy", "lossy", "clock_off", "done", "done"]), (Pc, "clock_off".into()));
        assert_eq!(session(["done", "done", "lossy", "done", "no_answer", "no_answer"]).0, Carrier);
        assert_eq!(session(["disk_full", "done", "done", "done", "done", "done"]), (Pc, "checks_fail".into()));
    }

    #[test]
    fn a_single_action_speaks_for_itself() {
        let work = Work::parse("health", serde_json::Map::new(), Vec::new()).unwrap();
        assert_eq!(judge(&work, &[]), None);
    }
}
