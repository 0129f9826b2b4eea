//! Runbooks: what a support engineer asks a non-technical officer on the telephone, step by step.
//!
//! A runbook is a TOML file, signed as it is ([`unsigned`]): what is altered by one letter is refused. It refers to
//! actions of the diagnosis catalogue by their names only, and runs nothing by itself. Its end says *fixed* only if what
//! failed is good again; else it says *answered, still failing*.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::incident::{Cause, Party};

/// Longest file.
pub const BYTES: usize = 64 * 1024;
const STEPS: usize = 40;
const ANSWERS: usize = 12;
const TEXT: usize = 600;
const NAME: usize = 40;
/// Begins the last line of a signed file.
const MARK: &str = "# tram-signature: ";

text_enum! {
    /// How far a use of a runbook is.
    RunState {
        /// Questions are left.
        Running = "running",
        /// All is answered, and what failed is good again.
        Fixed = "fixed",
        /// All is answered, and what failed still fails.
        Answered = "answered",
        /// Given up.
        Left = "left",
    }
}

/// A sentence in both languages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunbookText)]
pub struct Text {
    /// Vietnamese.
    pub vi: String,
    /// English.
    pub en: String,
}

/// One answer an officer may give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunbookAnswer)]
pub struct Answer {
    /// Its name in this step.
    pub id: String,
    /// What it says.
    pub say: Text,
    /// The step it leads to; absent: the next one. `end`: there is nothing more to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunbookStep)]
pub struct Step {
    /// Its name in the runbook.
    pub id: String,
    /// What to ask, in words an officer understands.
    pub ask: Text,
    /// What may be answered; empty: anything, in words.
    #[serde(default)]
    pub answers: Vec<Answer>,
    /// Actions of the diagnosis catalogue that may help here, by name.
    #[serde(default)]
    pub actions: Vec<String>,
    /// What should be seen if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Text>,
}

/// Whom to turn to when nothing helps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunbookEscalation)]
pub struct Escalation {
    /// Who has to act.
    pub party: Party,
    /// What to tell them.
    pub say: Text,
}

/// One runbook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunbookFile)]
pub struct Runbook {
    /// Its name: lower-case letters, digits and `_`.
    pub id: String,
    /// Counts up with each change.
    pub version: u32,
    /// What it is called.
    pub title: Text,
    /// Causes of incidents it is for.
    pub causes: Vec<Cause>,
    /// Only for these checks of a computer; empty: for any.
    #[serde(default)]
    pub checks: Vec<String>,
    /// What is to be seen in the end.
    pub result: Text,
    /// Questions in order.
    pub steps: Vec<Step>,
    /// Whom to turn to when nothing helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalate: Option<Escalation>,
}

impl Runbook {
    /// Reads a file without its signature's line.
    ///
    /// # Errors
    /// Every fault, each with its place.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        if text.len() > BYTES {
            return Err(vec![format!("a runbook has at most {BYTES} bytes")]);
        }
        let read: Self = toml::from_str(text).map_err(|e| vec![e.to_string()])?;
        let faults = read.faults();
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !name(&self.id) {
            faults.push(format!("id: {:?} is not 1 to {NAME} of a-z, 0-9 and _", self.id));
        }
        if self.causes.is_empty() {
            faults.push("causes: name at least one".to_owned());
        }
        if self.steps.is_empty() || self.steps.len() > STEPS {
            faults.push(format!("steps: give 1 to {STEPS}"));
        }
        let mut texts = vec![("title".to_owned(), &self.title), ("result".to_owned(), &self.result)];
        texts.extend(self.escalate.as_ref().map(|e| ("escalate.say".to_owned(), &e.say)));
        let ids: BTreeSet<&str> = self.steps.iter().map(|s| s.id.as_str()).collect();
        let mut seen = BTreeSet::new();
        for (at, s) in self.steps.iter().enumerate() {
            let here = format!("steps.{}", s.id);
            if !name(&s.id) || s.id == "end" || !seen.insert(&s.id) {
                faults.push(format!("{here}: give each step a name of its own of a-z, 0-9 and _, and not `end`"));
            }
            texts.push((format!("{here}.ask"), &s.ask));
            texts.extend(s.expect.as_ref().map(|e| (format!("{here}.expect"), e)));
            let mut answers = BTreeSet::new();
            if s.answers.len() == 1 || s.answers.len() > ANSWERS {
                faults.push(format!("{here}: give none or 2 to {ANSWERS} answers"));
            }
            for a in &s.answers {
                if !name(&a.id) || !answers.insert(&a.id) {
                    faults.push(format!("{here}: give each answer a name of its own of a-z, 0-9 and _"));
                }
                texts.push((format!("{here}.{}", a.id), &a.say));
                // Only forwards: a conversation that goes in circles helps nobody.
                let ahead = |n: &String| n == "end" || self.steps[at + 1..].iter().any(|s| s.id == *n);
                if let Some(next) = a.next.as_ref().filter(|n| !ahead(n)) {
                    let why = if ids.contains(next.as_str()) { "does not come later" } else { "is no step" };
                    faults.push(format!("{here}.{}: next = {next:?} {why}", a.id));
                }
            }
            faults.extend(s.actions.iter().filter(|a| !name(a)).map(|a| format!("{here}: {a:?} is no action's name")));
        }
        for (place, t) in texts {
            let bad = |s: &str| {
                s.trim().is_empty() || s.chars().count() > TEXT || s.chars().any(|c| c.is_control() && c != '\n')
            };
            if bad(&t.vi) || bad(&t.en) {
                faults.push(format!("{place}: write vi and en, 1 to {TEXT} characters each"));
            }
        }
        faults
    }

    /// The step after these answers (step and answer), `None` at the end.
    ///
    /// # Errors
    /// The first answer that fits no question in its turn.
    pub fn next<'a>(&'a self, given: &[(String, String)]) -> Result<Option<&'a Step>, usize> {
        let mut at = Some(0);
        for (n, (step, answer)) in given.iter().enumerate() {
            let now = at.and_then(|i| self.steps.get(i)).filter(|s| s.id == *step).ok_or(n)?;
            let said = now.answers.iter().find(|a| a.id == *answer);
            if said.is_none() && !now.answers.is_empty() {
                return Err(n);
            }
            let following = at.map(|i| i + 1);
            at = match said.and_then(|a| a.next.as_deref()) {
                Some("end") => None,
                Some(next) => self.steps.iter().position(|s| s.id == next),
                None => following,
            };
        }
        Ok(at.and_then(|i| self.steps.get(i)))
    }

    /// Whether it helps with this.
    #[must_use]
    pub fn is_for(&self, cause: Cause, check: &str) -> bool {
        self.causes.contains(&cause) && (self.checks.is_empty() || self.checks.iter().any(|c| c == check))
    }
}

fn name(s: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=NAME).contains(&s.len()) && s.bytes().all(good)
}

/// A signed file's text, its key's id and its signature. `None` if it is not signed.
#[must_use]
pub fn unsigned(file: &str) -> Option<(&str, &str, &str)> {
    let body = file.strip_suffix('\n')?;
    let (text, last) = match body.rfind('\n') {
        Some(at) => body.split_at(at + 1),
        None => ("", body),
    };
    let (key, signature) = last.strip_prefix(MARK)?.split_once(' ')?;
    Some((text, key, signature))
}

/// The same with its signature, in place of one it may have.
#[must_use]
pub fn signed(file: &str, key: &str, signature: &str) -> String {
    let text = unsigned(file).map_or(file, |(text, ..)| text);
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{MARK}{key} {signature}\n")
}

/// What is signed of a file: its text with a line end.
#[must_use]
pub fn body(file: &str) -> String {
    let text = unsigned(file).map_or(file, |(text, ..)| text);
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

/// Whether what failed is good again: each of these checks was found good after the last answer.
#[must_use]
pub fn is_good(failed: &[String], now: &BTreeMap<String, bool>, heard_since: bool) -> bool {
    heard_since && !failed.is_empty() && failed.iter().all(|c| now.get(c).copied().unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = r#"
id = "lamp"
version = 1
causes = ["site_line"]
title = { vi = "Đèn", en = "Lamp" }
result = { vi = "Đèn sáng", en = "The lamp is lit" }
[[steps]]
id = "power"
ask = { vi = "Có điện không?", en = "Is there power?" }
answers = [
  { id = "yes", say = { vi = "Có", en = "Yes" } },
  { id = "no", say = { vi = "Không", en = "No" }, next = "end" },
]
[[steps]]
id = "colour"
ask = { vi = "Màu gì?", en = "Which colour?" }
actions = ["ping"]
"#;

    #[test]
    fn questions_follow_each_other_by_the_answers() {
        let b = Runbook::parse(BOOK).unwrap();
        let said = |all: &[(&str, &str)]| {
            let given: Vec<_> = all.iter().map(|(s, a)| ((*s).to_owned(), (*a).to_owned())).collect();
            b.next(&given).map(|s| s.map(|s| s.id.clone()))
        };
        assert_eq!(said(&[]), Ok(Some("power".into())));
        assert_eq!(said(&[("power", "yes")]), Ok(Some("colour".into())));
        assert_eq!(said(&[("power", "no")]), Ok(None));
        assert_eq!(said(&[("power", "yes"), ("colour", "đỏ")]), Ok(None));
        assert_eq!(said(&[("colour", "đỏ")]), Err(0), "not its turn");
        assert_eq!(said(&[("power", "maybe")]), Err(0));
        assert_eq!(said(&[("power", "no"), ("colour", "đỏ")]), Err(1), "it was over");
    }

    #[test]
    fn every_fault_is_named() {
        let change = |a: &str, b: &str| Runbook::parse(&BOOK.replacen(a, b, 1)).unwrap_err().join("; ");
        for (a, b, told) in [
            ("id = \"lamp\"", "id = \"Lamp!\"", "id:"),
            ("[\"site_line\"]", "[]", "causes"),
            ("[\"site_line\"]", "[\"bad_luck\"]", "bad_luck"),
            ("next = \"end\"", "next = \"sun\"", "is no step"),
            ("next = \"end\"", "next = \"power\"", "does not come later"),
            ("id = \"colour\"", "id = \"power\"", "name of its own"),
            ("\"ping\"", "\"rm -rf /\"", "no action's name"),
            ("vi = \"Màu gì?\"", "vi = \"\"", "steps.colour.ask"),
            ("version = 1", "version = 1\nrun = \"sh\"", "unknown field"),
        ] {
            let said = change(a, b);
            assert!(said.contains(told), "{b}: {said}");
        }
        assert!(Runbook::parse(&"#".repeat(BYTES + 1)).unwrap_err()[0].contains("bytes"));
    }

    #[test]
    fn a_signature_is_one_line_at_the_end() {
        let file = signed(BOOK, "k1", "ab");
        assert_eq!(unsigned(&file), Some((BOOK, "k1", "ab")));
        assert_eq!(signed(&file, "k2", "cd"), signed(BOOK, "k2", "cd"), "signed anew, not twice");
        assert_eq!(body(&file), BOOK);
        for bad in [BOOK, "", "\n", "# tram-signature: k1\n", "# tram-signature: k1 ab"] {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn it_is_fixed_only_if_all_that_failed_is_good_and_was_looked_at_since() {
        let now = |all: &[(&str, bool)]| all.iter().map(|(c, g)| ((*c).to_owned(), *g)).collect();
        let failed = ["printer".to_owned(), "dns".to_owned()];
        assert!(is_good(&failed, &now(&[("printer", true), ("dns", true), ("fan", false)]), true));
        assert!(!is_good(&failed, &now(&[("printer", true), ("dns", true)]), false));
        assert!(!is_good(&failed, &now(&[("printer", true), ("dns", false)]), true));
        assert!(!is_good(&failed, &now(&[("printer", true)]), true), "not looked at is not good");
        assert!(!is_good(&[], &now(&[]), true));
    }
}
