//! Copies: whether who shows an endpoint's identity now is who showed it before.
//!
//! A key can be copied with its disk. Three signals tell, each of which has harmless causes of its own; two together
//! have none that happens by itself:
//!
//! | signal | it means | harmless alone |
//! |---|---|---|
//! | sessions | a run of the agent is back after another one had taken its place: both are alive | - |
//! | hardware | most of the serial numbers are others | a new board, a disk moved to another box |
//! | counter | the count of connections went back | a restored backup |

use serde::{Deserialize, Serialize};
use tram_wire::hello::Hello;
use tram_wire::instance::{Instance, Marks};

/// So many signals make a copy.
pub const NEEDED: usize = 2;
/// Runs remembered that another one took the place of.
const RUNS: usize = 8;
/// Longest text of a claim.
const TEXT: usize = 64;

text_enum! {
    /// What tells a copy.
    Signal {
        /// Two runs of the agent with one key are alive.
        Sessions = "sessions",
        /// The hardware is another one.
        Hardware = "hardware",
        /// The count of connections went back.
        Counter = "counter",
    }
}

text_enum! {
    /// What becomes of a desktop session that is open when its computer's identity goes into quarantine. In either case
    /// nothing is opened any more for that identity: no ticket, no lease, no way back on a new line.
    OpenSession {
        /// It goes on until it ends or its line breaks: the officer's work may be in the real computer's.
        GoesOn = "goes_on",
        /// It is cut at once.
        IsCut = "is_cut",
    }
}

/// Who shows an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// What the computer calls itself.
    pub hostname: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Address it comes from.
    pub address: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// How often this identity has connected, by its own count.
    pub connects: u64,
    /// The run of its agent and the serial numbers.
    #[serde(flatten)]
    pub instance: Instance,
}

impl Claim {
    /// What a computer says of itself, within bounds.
    #[must_use]
    pub fn new(hello: &Hello, address: &str) -> Self {
        let short = |s: &str| -> String { s.chars().filter(|c| !c.is_control()).take(TEXT).collect() };
        let said = hello.instance.clone().unwrap_or_default();
        Self {
            hostname: short(&hello.hostname),
            agent_version: short(&hello.agent_version),
            address: short(address),
            boot_id: short(&hello.boot_id),
            // A number that a database keeps.
            connects: hello.connects.min(i64::MAX.unsigned_abs()),
            instance: Instance {
                nonce: short(&said.nonce),
                copy: said.copy.as_deref().map(short).filter(|c| !c.is_empty()),
                marks: said.marks.plain(),
            },
        }
    }

    /// What tells this computer from others with the same identity.
    #[must_use]
    pub fn key(&self) -> String {
        let Instance { nonce, copy, .. } = &self.instance;
        copy.clone().unwrap_or_else(|| if nonce.is_empty() { format!("boot-{}", self.boot_id) } else { nonce.clone() })
    }
}

/// Who showed an identity so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// The last one.
    pub last: Claim,
    /// Runs whose place another one took, the newest first.
    pub before: Vec<String>,
}

impl Known {
    /// Only this one.
    #[must_use]
    pub fn only(last: Claim) -> Self {
        Self { last, before: Vec::new() }
    }

    /// With this one as the last.
    #[must_use]
    pub fn then(mut self, claim: Claim) -> Self {
        let old = self.last.instance.nonce;
        if !old.is_empty() && old != claim.instance.nonce {
            self.before.retain(|n| *n != old);
            self.before.insert(0, old);
            self.before.truncate(RUNS);
        }
        Self { last: claim, before: self.before }
    }
}

/// Which signals this claim gives against what is known.
#[must_use]
pub fn signals(known: &Known, claim: &Claim) -> Vec<Signal> {
    let last = &known.last;
    let back = last.connects > 0 && claim.connects > 0 && claim.connects <= last.connects;
    let nonce = &claim.instance.nonce;
    // A run counts its own connections upwards; one that doesn't was forked, with its memory, into two.
    let forked = *nonce == last.instance.nonce && back;
    let returned = known.before.contains(nonce);
    let mut found = Vec::new();
    if !nonce.is_empty() && (returned || forked) {
        found.push(Signal::Sessions);
    }
    if other_hardware(&last.instance.marks, &claim.instance.marks) {
        found.push(Signal::Hardware);
    }
    if back {
        found.push(Signal::Counter);
    }
    found
}

/// Whether so many signals make a copy.
#[must_use]
pub fn is_copy(signals: &[Signal]) -> bool {
    signals.len() >= NEEDED
}

/// Whether most of the kinds of serial numbers that both sides have differ. Disks and network cards are the same if any
/// is: one may be replaced or added.
#[must_use]
pub fn other_hardware(a: &Marks, b: &Marks) -> bool {
    let lists = |a: &[String], b: &[String]| match a.is_empty() || b.is_empty() {
        true => None,
        false => Some(!a.iter().any(|v| b.contains(v))),
    };
    let board = match (&a.board, &b.board) {
        (Some(a), Some(b)) => Some(a != b),
        _ => None,
    };
    let told: Vec<bool> = [board, lists(&a.disks, &b.disks), lists(&a.macs, &b.macs)].into_iter().flatten().collect();
    let differ = told.iter().filter(|d| **d).count();
    2 * differ > told.len()
}

/// Why an identity is in quarantine: for people who decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suspicion {
    /// The signals.
    pub signals: Vec<String>,
    /// Who was known.
    pub known: Claim,
    /// Who came.
    pub came: Claim,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(board: &str, disks: &[&str], macs: &[&str]) -> Marks {
        let list = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
        Marks { board: Some(board.to_owned()).filter(|b| !b.is_empty()), disks: list(disks), macs: list(macs) }
    }

    fn office() -> Marks {
        marks("B1", &["D1"], &["00:1b:21:00:00:01"])
    }

    fn claim(nonce: &str, connects: u64, marks: Marks) -> Claim {
        let instance = Instance { nonce: nonce.into(), copy: None, marks };
        Claim { connects, instance, ..Claim::default() }
    }

    /// An office computer that ran twice, and connected ten times.
    fn known() -> Known {
        Known::only(claim("run1", 4, office())).then(claim("run2", 10, office()))
    }

    #[test]
    fn what_happens_to_computers_and_what_it_looks_like() {
        use Signal::{Counter, Hardware, Sessions};
        let other = || marks("B2", &["D2"], &["00:1b:21:00:00:02"]);
        let bare = Marks::default;
        let mac_only = |mac: &str| marks("", &[], &[mac]);
        let table: [(&str, Claim, &[Signal], bool); 16] = [
            ("the same run, again", claim("run2", 11, office()), &[], false),
            ("a restart", claim("run3", 11, office()), &[], false),
            ("connections that failed count too", claim("run3", 400, office()), &[], false),
            (
                "a dock with a card of its own",
                claim("run3", 11, marks("B1", &["D1"], &["00:1b:21:00:00:01", "00:e0:4c:00:00:09"])),
                &[],
                false,
            ),
            (
                "only the dock's card is seen",
                claim("run3", 11, marks("B1", &["D1"], &["00:e0:4c:00:00:09"])),
                &[],
                false,
            ),
            (
                "the disk was replaced, its content kept",
                claim("run3", 11, marks("B1", &["D9"], &["00:1b:21:00:00:01"])),
                &[],
                false,
            ),
            ("a second disk", claim("run3", 11, marks("B1", &["D0", "D1"], &["00:1b:21:00:00:01"])), &[], false),
            (
                "the board was replaced, with its card",
                claim("run3", 11, marks("B2", &["D1"], &["00:1b:21:00:00:02"])),
                &[Hardware],
                false,
            ),
            (
                "the disk was put into another box",
                claim("run3", 11, marks("B2", &["D1"], &["00:1b:21:00:00:02"])),
                &[Hardware],
                false,
            ),
            ("a backup was restored", claim("run3", 7, office()), &[Counter], false),
            ("nothing can be read", claim("run3", 11, bare()), &[], false),
            ("an image of before, on another computer", claim("run3", 5, other()), &[Hardware, Counter], true),
            ("the original is back after a copy", claim("run1", 11, other()), &[Sessions, Hardware], true),
            ("a copy of the folder on the same computer", claim("run1", 10, office()), &[Sessions, Counter], true),
            ("a virtual machine copied with its memory", claim("run2", 10, office()), &[Sessions, Counter], true),
            ("an agent that says nothing of itself", Claim { connects: 3, ..Claim::default() }, &[Counter], false),
        ];
        for (what, claim, expected, copy) in table {
            let found = signals(&known(), &claim);
            assert_eq!((found.as_slice(), is_copy(&found)), (expected, copy), "{what}");
        }
        // With nothing but a card to go by, another card is another computer: one signal, which decides nothing.
        assert!(other_hardware(&mac_only("00:1b:21:00:00:01"), &mac_only("00:1b:21:00:00:02")));
        assert!(!other_hardware(&mac_only("00:1b:21:00:00:01"), &bare()));
    }

    #[test]
    fn a_virtual_machine_that_was_cloned_is_found_when_both_have_been_seen() {
        // Same board, no serial numbers: the clone and its original count on from the same number.
        let bare = Marks::default;
        let first = Known::only(claim("a", 10, bare()));
        let clone = claim("b", 11, bare());
        assert!(signals(&first, &clone).is_empty());
        let second = first.then(clone);
        let original = claim("a", 11, bare());
        assert!(is_copy(&signals(&second, &original)));
    }

    #[test]
    fn an_image_taken_of_a_computer_that_was_off_is_found_when_the_original_comes_back() {
        let first = Known::only(claim("a", 10, office()));
        let copy = claim("b", 11, marks("B2", &["D2"], &["00:1b:21:00:00:02"]));
        assert_eq!(signals(&first, &copy), [Signal::Hardware]);
        let original = claim("c", 11, office());
        assert!(is_copy(&signals(&first.then(copy), &original)));
    }

    #[test]
    fn only_so_many_runs_are_remembered() {
        let k = (0..50).fold(known(), |k, n| k.then(claim(&format!("n{n}"), 11 + n, office())));
        assert_eq!((k.before.len(), k.before[0].as_str()), (RUNS, "n48"));
    }

    #[test]
    fn what_a_computer_says_is_cut() {
        let mut hello: Hello = serde_json::from_value(serde_json::json!({
            "versions": {"min": 1, "max": 1}, "agent_version": "1", "at_ms": 0, "hostname": "x\u{0}".repeat(500),
        }))
        .unwrap();
        hello.connects = u64::MAX;
        hello.instance = Some(Instance { nonce: "n".repeat(500), copy: Some("\n".into()), marks: Marks::default() });
        let c = Claim::new(&hello, "10.0.0.1");
        assert_eq!((c.hostname.len(), c.instance.nonce.len(), c.instance.copy.as_deref()), (64, 64, None));
        assert_eq!(c.connects, i64::MAX.unsigned_abs());
        assert_eq!(c.key(), c.instance.nonce);
    }
}
