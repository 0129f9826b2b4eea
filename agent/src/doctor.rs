//! `tram-agent doctor`: what is wrong here, in words, with no controller and no privilege.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tram_wire::check::{CheckState, Finding, worst};
use tram_wire::heartbeat::Hardware;
use tram_wire::hello::Hello;
use tram_wire::plan::Plan;

use crate::checks::Reach;
use crate::collect::gauges::Gauges;
use crate::collect::keeper::Keeper;
use crate::collect::{Inventory, collectors};
use crate::config::{Address, Config};
use crate::host::Host;
use crate::identity::{Identity, IdentityError};
use crate::ledger::Ledger;
use crate::link::{tls, way};
use crate::report::{Gathered, LinkFacts, Reporter, Want};
use crate::status::{LinkStatus, Status};

const REACH_DEADLINE: Duration = Duration::from_secs(2);
/// Longest that anybody waits for the collectors.
const PATIENCE: Duration = Duration::from_millis(2500);

/// The result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The worst state.
    pub verdict: CheckState,
    /// The controller asked, if this computer is enrolled and we may read that.
    pub controller: Option<String>,
    /// All findings.
    pub findings: Vec<Finding>,
    /// What the computer is made of.
    pub hardware: Hardware,
    /// Its gauges.
    pub gauges: Gauges,
    /// What is plugged in.
    pub inventory: Inventory,
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

/// Examines this computer: every collector beside the others, for as long as somebody waits.
pub async fn examine<H: Host + Send + 'static>(config: &Config, host: H) -> Diagnosis {
    let other = host.again();
    judge(config, host, gather(other)).await
}

/// The same judgement of the line and of what costs nothing to read, for the line below the sign-in page.
pub async fn glance<H: Host + Send + 'static>(config: &Config, host: H) -> Vec<Finding> {
    judge(config, host, async { Gathered::default() }).await.findings
}

async fn judge<H: Host + Send + 'static>(
    config: &Config,
    host: H,
    gathering: impl Future<Output = Gathered>,
) -> Diagnosis {
    let identity = Identity::load(&config.state);
    let mut facts = LinkFacts {
        rtt: None,
        skew_ms: None,
        not_after_ms: None,
        controller: Reach::NotEnrolled,
        line: None,
        links: 0,
    };
    let mut controller = None;
    let mut to = None;
    if let Ok(identity) = &identity {
        facts.not_after_ms = Some(identity.issued.not_after_ms);
        controller = Some(identity.controller.clone());
        to = identity.controller.parse::<Address>().ok();
    }
    let ca = identity.as_ref().ok().map(|i| i.issued.ca_pem.clone());
    let (gathered, found) = tokio::join!(gathering, async {
        match (&to, &ca) {
            (Some(to), Some(ca)) => Some(reach(&host, to, ca).await),
            _ => None,
        }
    });
    if let Some((rtt, reach)) = found {
        (facts.rtt, facts.controller) = (rtt, reach);
        // How the running agent gets there only it knows.
        let status = Status::load(&config.state).ok().map(|s| s.link);
        if let Some(LinkStatus::Up { by: Some(by), .. }) = status {
            facts.controller = match facts.controller {
                Reach::Answers if by == "requests" => Reach::Polled,
                Reach::Blocked("tls_intercepted") if by == "signed" => Reach::Signed,
                other => other,
            };
        }
    }
    let mut reporter = Reporter::new(host, config.into());
    let (seen, hardware) = reporter.look(&facts, &gathered, Want::Key, &Plan::default()).await;
    let mut findings = seen.findings;
    if let Err(e @ (IdentityError::Damaged(..) | IdentityError::Io(..))) = &identity {
        findings.push(unreadable(e));
    }
    let inventory = gathered.inventory;
    Diagnosis { verdict: worst(&findings), controller, findings, hardware, gauges: seen.gauges, inventory }
}

/// Whether the controller answers, and whether it is the controller that does.
async fn reach(host: &impl Host, to: &Address, ca_pem: &str) -> (Option<Duration>, Reach) {
    let straight = matches!(way::proxy_for(to), Ok(None));
    let rtt = if straight { host.reach(&to.host, to.port, REACH_DEADLINE).await } else { None };
    if straight && rtt.is_none() {
        return (None, Reach::Silent);
    }
    let proved = timeout(REACH_DEADLINE, tls::prove(to, ca_pem)).await;
    let reach = match proved {
        Ok(Err(e)) => way::Blocked::within(&e).map_or(Reach::Answers, |b| Reach::Blocked(b.code())),
        // The proxy took its time, or the controller did.
        Err(_) if !straight => Reach::Silent,
        Ok(Ok(())) | Err(_) => Reach::Answers,
    };
    (rtt, reach)
}

/// What the collectors see within the time somebody waits; those that don't come back are named.
async fn gather<H: Host + Send + 'static>(host: H) -> Gathered {
    let begun = Instant::now();
    let mut keeper = Keeper::new(host, collectors());
    keeper.tend(Duration::ZERO);
    while !keeper.settled() {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        if timeout(left, keeper.news(|| begun.elapsed())).await.is_err() {
            break;
        }
    }
    let seen = keeper.inventory();
    let off = collectors::<H>().iter().map(|c| c.section).filter(|s| !seen.contains_key(*s)).collect();
    Gathered { inventory: seen, off, ..Gathered::default() }
}

/// Everything support needs in one file, without what is nobody's business: no key, no password, no address of a
/// network card.
///
/// # Errors
/// If the file can't be written.
pub fn bundle(d: &Diagnosis, hello: &Hello, ledger: &Ledger, to: &Path) -> std::io::Result<()> {
    const LINES: usize = 200;
    let lines = ledger.lines();
    let sent: Vec<Value> = lines.iter().rev().take(LINES).rev().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let mut all = json!({"tram_bundle": 1, "hello": hello, "diagnosis": d, "sent": sent});
    redact(&mut all);
    std::fs::write(to, serde_json::to_vec_pretty(&all)?)
}

fn redact(v: &mut Value) {
    match v {
        Value::Object(fields) => {
            fields.retain(|k, _| {
                !matches!(k.as_str(), "mac" | "macs" | "nonce" | "csr_pem" | "key_pem" | "token" | "password")
            });
            fields.values_mut().for_each(redact);
        }
        Value::Array(all) => all.iter_mut().for_each(redact),
        _ => {}
    }
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

/// The languages people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Vietnamese.
    Vi,
    /// English.
    En,
}

impl Language {
    /// What the environment asks for.
    #[must_use]
    pub fn of(lang: &str) -> Self {
        if lang.starts_with("vi") { Self::Vi } else { Self::En }
    }
}

/// For people: one line a check, and what to do about those that aren't fine.
#[must_use]
pub fn render(d: &Diagnosis, language: Language) -> String {
    let texts: BTreeMap<String, Sentences> = serde_json::from_str(TEXTS).unwrap_or_default();
    let mut out = String::new();
    for f in &d.findings {
        let (what, next) = sentence(&texts, f, language);
        let _ = writeln!(out, "{:<8}{:<16}{what}", word(f.state), f.check);
        if f.state != CheckState::Ok && !next.is_empty() {
            let _ = writeln!(out, "{:24}-> {next}", "");
        }
    }
    let _ = writeln!(out, "\n{}: {}", if language == Language::Vi { "kết luận" } else { "verdict" }, word(d.verdict));
    out
}

/// On a screen, what is critical is a failure.
fn word(s: CheckState) -> &'static str {
    if s == CheckState::Crit { "fail" } else { s.as_str() }
}

/// What every code says and what to do, in both languages; the console reads the same file.
const TEXTS: &str = include_str!("checks/texts.json");

#[derive(Deserialize)]
struct Sentences {
    vi: (String, String),
    en: (String, String),
}

fn sentence(texts: &BTreeMap<String, Sentences>, f: &Finding, language: Language) -> (String, String) {
    let Some(all) = texts.get(&f.code) else { return (f.code.clone(), String::new()) };
    let (what, next) = if language == Language::Vi { &all.vi } else { &all.en };
    let filled = f.params.iter().fold(what.clone(), |t, (name, value)| t.replace(&format!("{{{name}}}"), value));
    (filled, next.clone())
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
        let text = render(&d, Language::En);
        assert!(text.contains("isn't enrolled") && text.contains("tram-agent enrol"), "{text}");
    }

    #[tokio::test]
    async fn a_damaged_identity_is_critical() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("identity.json"), "{").unwrap();
        let d = examine(&config(dir.path()), Fake::new()).await;
        assert_eq!(d.exit_code(), 2);
        assert!(render(&d, Language::En).contains("damaged"));
    }

    #[tokio::test]
    async fn every_code_a_check_can_give_has_a_sentence() {
        // The codes stand in the sources of the checks; a new one without a sentence would be shown raw.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checks");
        let texts: BTreeMap<String, Sentences> = serde_json::from_str(TEXTS).unwrap();
        let mut codes = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for part in ["Outcome::ok(\"", "Outcome::warn(\"", "Outcome::crit(\"", "Outcome::unknown(\""] {
                for rest in source.split(part).skip(1) {
                    let code = rest.split('"').next().unwrap();
                    let all = texts.get(code).unwrap_or_else(|| panic!("no sentence for {code}"));
                    assert!(!all.vi.0.is_empty() && !all.en.0.is_empty());
                    assert_eq!(all.vi.1.is_empty(), all.en.1.is_empty(), "{code}");
                    codes += 1;
                }
            }
        }
        assert!(codes > 100, "found only {codes}");
    }

    #[tokio::test]
    async fn thirty_checks_in_both_languages() {
        let dir = tempfile::tempdir().unwrap();
        let d = examine(&config(dir.path()), Fake::new()).await;
        assert!(d.findings.len() >= 30, "{}", d.findings.len());
        assert!(render(&d, Language::of("vi_VN.UTF-8")).contains("máy này chưa được ghi danh"));
    }

    #[tokio::test]
    async fn a_bundle_holds_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(dir.path());
        ledger.note(1, "sent", r#"{"kind":"renew","csr_pem":"SECRET","interfaces":[{"mac":"52:54:00:12:34:56"}]}"#);
        let d = examine(&config(dir.path()), Fake::new()).await;
        let to = dir.path().join("b.json");
        bundle(&d, &crate::collect::hello(&Fake::new(), 1), &ledger, &to).unwrap();
        let text = std::fs::read_to_string(to).unwrap();
        assert!(text.contains("controller_not_enrolled") && !text.contains("SECRET") && !text.contains("52:54"));
    }
}
