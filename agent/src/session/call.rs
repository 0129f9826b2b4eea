//! "Call support": one press shows a code to read out on the telephone, and sends support how this computer is.
//!
//! The call is on disk before anything else happens; it is sent as soon as the line allows, again after a restart too.
//! The code is good at once, also while the line is down ([`tram_wire::call::code`]). While support works on it, it is
//! asked now and then how far they are.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tram_wire::call::{Call, FINDINGS, SHOWN, Snapshot, code};

use super::control::{Control, ControlError};
use super::page::Shown;
use super::view::View;
use crate::config::Config;
use crate::doctor;
use crate::host::{System, wall_ms};
use crate::identity::{self, Identity};
use crate::ledger::Ledger;

/// In the folder of the identity.
const FILE: &str = "calls.json";
/// Calls that wait for the line.
const MOST: usize = 8;
/// Who presses again within this time reads out the same code, unless support is done with it.
const SAME: Duration = Duration::from_secs(12 * 3600);
/// Between two tries to send, and two questions how far support is.
const AGAIN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest that the computer is examined for it.
const EXAMINE: Duration = Duration::from_secs(15);

/// What the page shows of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Called {
    /// To be read out; empty: none can be made.
    pub code: String,
    /// `made`, `queued`, or how far support is with it.
    pub state: String,
    /// Who looks after it.
    pub by: Option<String>,
}

/// Calls that are not over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Book {
    next: u32,
    calls: VecDeque<Made>,
    #[serde(skip)]
    state: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    call: Call,
    /// How far support is; `None`: it was not sent yet.
    kept: Option<String>,
}

impl Book {
    /// What an earlier run left. A damaged file is an empty one: the controller tells the next number.
    fn open(state: &Path) -> Self {
        let read = std::fs::read(state.join(FILE)).ok();
        let mut book: Self = read.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        book.state = state.to_owned();
        book.calls.truncate(MOST);
        book
    }

    fn save(&self) {
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::other);
        if let Err(e) = bytes.and_then(|b| identity::write_private(&self.state, FILE, &b)) {
            // It is sent all the same, unless the computer is switched off before.
            eprintln!("tram-agent: the call can't be kept: {e}");
        }
    }

    /// The call of who presses now: the last one, or another.
    fn press(&mut self, identity: &Identity, view: &View, now_ms: i64) -> std::io::Result<Call> {
        let fresh = |m: &&Made| now_ms.abs_diff(m.call.at_ms) < SAME.as_millis() as u64;
        if let Some(last) = self.calls.back().filter(fresh) {
            return Ok(last.call.clone());
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        self.next = self.next.max(1);
        let call = Call {
            id: uuid::Builder::from_random_bytes(random).into_uuid(),
            number: self.next,
            code: code(identity.endpoint_id, self.next),
            at_ms: now_ms,
            session: view.session,
            snapshot: None,
        };
        self.next += 1;
        self.calls.push_back(Made { call: call.clone(), kept: None });
        while self.calls.len() > MOST {
            self.calls.pop_front();
        }
        self.save();
        Ok(call)
    }

    fn found(&mut self, id: uuid::Uuid, snapshot: Snapshot) {
        if let Some(made) = self.calls.iter_mut().find(|m| m.call.id == id && m.kept.is_none()) {
            made.call.snapshot = Some(snapshot);
            self.save();
        }
    }

    /// What the controller says of a call; one that is over is forgotten.
    fn heard(&mut self, id: uuid::Uuid, state: &str, next: u32) {
        self.next = self.next.max(next);
        if matches!(state, "solved" | "closed") {
            self.calls.retain(|m| m.call.id != id);
        } else if let Some(made) = self.calls.iter_mut().find(|m| m.call.id == id) {
            made.kept = Some(state.to_owned());
            made.call.snapshot = None;
        }
        self.save();
    }
}

/// Serves presses until dropped.
pub(super) async fn serve(config: &Config, view: &watch::Sender<Shown>, mut presses: mpsc::Receiver<()>) {
    let mut book = Book::open(&config.state);
    if let Some(last) = book.calls.back() {
        let state = last.kept.clone().unwrap_or_else(|| "queued".to_owned());
        show(view, Called { code: last.call.code.clone(), state, by: None });
    }
    let mut next = Instant::now();
    loop {
        let due = !book.calls.is_empty();
        tokio::select! {
            pressed = presses.recv() => {
                if pressed.is_none() {
                    return;
                }
                press(config, view, &mut book).await;
            }
            () = sleep_until(next), if due => {}
        }
        deliver(config, view, &mut book).await;
        next = Instant::now() + AGAIN;
    }
}

/// Shows a code at once, then looks at the computer.
async fn press(config: &Config, view: &watch::Sender<Shown>, book: &mut Book) {
    let seen = view.borrow().1.clone();
    let identity = Identity::load(&config.state).map_err(|e| std::io::Error::other(e.to_string()));
    let call = match identity.and_then(|identity| book.press(&identity, &seen, wall_ms())) {
        Ok(call) => call,
        Err(e) => {
            eprintln!("tram-agent: no call can be made: {e}");
            return show(view, Called { code: String::new(), state: "none".to_owned(), by: None });
        }
    };
    let known = book.calls.iter().find(|m| m.call.id == call.id).and_then(|m| m.kept.clone());
    let state = known.clone().unwrap_or_else(|| "made".to_owned());
    show(view, Called { code: call.code.clone(), state, by: None });
    if known.is_some() {
        return;
    }
    let found = timeout(EXAMINE, doctor::examine(config, System::new())).await;
    let mut snapshot = Snapshot {
        cause: word(&seen.cause),
        phase: word(&seen.phase),
        shown: shown(&seen),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Snapshot::default()
    };
    if let Ok(d) = found {
        snapshot.verdict = d.verdict;
        snapshot.findings = d.findings;
        snapshot.findings.truncate(FINDINGS);
    }
    book.found(call.id, snapshot);
}

/// Codes the officer has before them.
fn shown(view: &View) -> Vec<String> {
    let lost = (view.phase == super::view::Phase::Lost).then_some(if view.gateway_lost { "G-503" } else { "K-102" });
    let codes = [
        view.problem.as_ref().map(|p| p.code.clone()),
        view.notice.as_ref().map(super::view::Notice::searchable),
        view.warning.as_ref().map(|w| w.code.clone()),
        lost.map(str::to_owned),
        view.step.as_ref().map(|s| s.code.clone()),
    ];
    codes.into_iter().flatten().take(SHOWN).collect()
}

/// Sends what waits, oldest first, and asks how far support is with the rest.
async fn deliver(config: &Config, view: &watch::Sender<Shown>, book: &mut Book) {
    let control = Identity::load(&config.state)
        .map_err(|e| ControlError::Identity(e.to_string()))
        .and_then(|identity| Control::new(&identity));
    let all: Vec<Made> = book.calls.iter().cloned().collect();
    let newest = all.last().map(|m| m.call.id);
    for Made { call, kept } in all {
        let answer = match &control {
            Ok(control) => timeout(PATIENCE, control.call(&call)).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        let (state, by) = match answer {
            Some(answer) => {
                if kept.is_none() {
                    write_down(&config.state, &call);
                }
                book.heard(call.id, &answer.state, answer.next);
                (answer.state, answer.by)
            }
            // What support knows of stays as it was while the line is away.
            None => (kept.unwrap_or_else(|| "queued".to_owned()), None),
        };
        if newest == Some(call.id) {
            show(view, Called { code: call.code, state, by });
        }
    }
}

/// What was sent stands in the book that the officer can read.
fn write_down(state: &Path, call: &Call) {
    let Ok(text) = serde_json::to_string(&serde_json::json!({"kind": "call", "call": call})) else { return };
    Ledger::of(state).note(wall_ms(), "sent", &text);
}

fn show(view: &watch::Sender<Shown>, call: Called) {
    view.send_if_modified(|(version, shown)| {
        let news = shown.call.as_ref() != Some(&call);
        if news {
            (*version, shown.call) = (*version + 1, Some(call));
        }
        news
    });
}

fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tram_wire::enrol::Issued;

    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn identity() -> Identity {
        Identity {
            controller: "https://127.0.0.1:8444".into(),
            endpoint_id: "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a".parse().unwrap(),
            key_pem: "k".into(),
            issued: Issued { certificate_pem: "c".into(), ca_pem: "a".into(), issued_ms: 1, not_after_ms: 2 },
            connects: 3,
            copy: None,
        }
    }

    #[test]
    fn one_code_until_support_is_done_and_another_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::open(dir.path());
        let view = View::default();
        let first = book.press(&identity(), &view, HOUR_MS).unwrap();
        assert_eq!((first.number, first.code.clone()), (1, code(identity().endpoint_id, 1)));
        book.found(first.id, Snapshot { cause: "router".into(), ..Snapshot::default() });
        // Another press, after a restart and with a clock that stepped back.
        let mut book = Book::open(dir.path());
        assert_eq!(book.press(&identity(), &view, 0).unwrap().code, first.code);
        assert_eq!(book.calls[0].call.snapshot.as_ref().unwrap().cause, "router");
        book.heard(first.id, "taken", 2);
        assert!(book.calls[0].call.snapshot.is_none(), "sent once");
        book.heard(first.id, "solved", 2);
        let second = book.press(&identity(), &view, HOUR_MS).unwrap();
        assert_eq!(second.number, 2);
        // Days without a line: a new one each half day, the oldest fall out.
        for n in 1..=20 {
            book.press(&identity(), &view, n * 13 * HOUR_MS).unwrap();
        }
        assert_eq!((Book::open(dir.path()).calls.len(), book.next), (MOST, 23));
    }

    #[test]
    fn a_damaged_book_costs_the_calls_in_it_and_the_controller_mends_the_number() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{\"next\":7,\"calls\":[{\"ca").unwrap();
        let mut book = Book::open(dir.path());
        let call = book.press(&identity(), &View::default(), 1).unwrap();
        assert_eq!(call.number, 1);
        book.heard(call.id, "closed", 9);
        assert_eq!(book.press(&identity(), &View::default(), 2).unwrap().number, 9);
    }
}
