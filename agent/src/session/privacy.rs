//! What the officer may know of this computer: everything it sent, and everything support did here, newest first.

use serde::Serialize;
use serde_json::Value;

use super::assist::Seen;
use crate::host::wall_ms;
use crate::ledger::Ledger;

/// Entries of one page.
const PAGE: usize = 50;

/// One line of the book.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// When.
    pub at_ms: i64,
    /// `sent`: it left this computer; `asked`: the data centre asked for something; `support`: somebody of support.
    pub way: &'static str,
    /// What it was, such as `report`.
    pub kind: String,
    /// All of it.
    pub what: Value,
}

/// Some entries, and how many there are of each kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entries {
    /// The newest first.
    pub entries: Vec<Entry>,
    /// How many there are of this kind, or of all.
    pub total: usize,
    /// Kinds with their number.
    pub kinds: Vec<(String, usize)>,
}

/// A page of the book: without the first `skip`, only of this kind if one is named.
#[must_use]
pub fn read(ledger: &Ledger, kind: Option<&str>, skip: usize) -> Entries {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    let (mut entries, mut total) = (Vec::new(), 0);
    for entry in ledger.lines().iter().rev().filter_map(|l| entry(l)) {
        *kinds.entry(entry.kind.clone()).or_default() += 1;
        if kind.is_some_and(|k| k != entry.kind) {
            continue;
        }
        if total >= skip && entries.len() < PAGE {
            entries.push(entry);
        }
        total += 1;
    }
    Entries { entries, total, kinds: kinds.into_iter().collect() }
}

/// What a line says; one that was cut short by a power cut says nothing.
fn entry(line: &str) -> Option<Entry> {
    let Value::Object(mut fields) = serde_json::from_str(line).ok()? else { return None };
    let at_ms = fields.get("at_ms")?.as_i64()?;
    let way = ["sent", "asked", "support"].into_iter().find(|w| fields.contains_key(*w))?;
    let what = fields.remove(way)?;
    let named = what.get("kind").and_then(Value::as_str).map(str::to_owned);
    let kind = named.unwrap_or_else(|| match way {
        "support" => "assist".to_owned(),
        "asked" if what.get("live_s").is_some() => "live".to_owned(),
        _ => way.to_owned(),
    });
    Some(Entry { at_ms, way, kind, what })
}

/// Writes down what support does on this screen, whenever that becomes something else.
pub(super) fn remember(ledger: &Ledger, before: Option<&Seen>, now: Option<&Seen>) {
    let Some(now) = now.filter(|n| before.map(|b| (b.stage, &b.who)) != Some((n.stage, &n.who))) else { return };
    let text = serde_json::json!({"kind": "assist", "stage": now.stage, "who": now.who, "why": now.why}).to_string();
    ledger.note(wall_ms(), "support", &text);
}

#[cfg(test)]
mod tests {
    use tram_wire::assist::Stage;

    use super::*;

    #[test]
    fn the_newest_comes_first_and_each_kind_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(dir.path());
        ledger.note(1, "sent", r#"{"kind":"hello"}"#);
        ledger.note(2, "sent", r#"{"kind":"report","batch":1}"#);
        ledger.note(3, "asked", r#"{"live_s":60}"#);
        let seen = |stage| Seen { stage, who: "Hoa".into(), why: "máy in".into(), left_s: 9 };
        remember(&ledger, None, Some(&seen(Stage::Watching)));
        // The clock of the question runs; nothing else does.
        remember(&ledger, Some(&seen(Stage::Watching)), Some(&Seen { left_s: 3, ..seen(Stage::Watching) }));
        remember(&ledger, Some(&seen(Stage::Watching)), Some(&seen(Stage::Over)));
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("ledger.jsonl"))
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"{\"at_ms\":9,\"se"))
            .unwrap();
        let all = read(&ledger, None, 0);
        let kinds: Vec<_> = all.entries.iter().map(|e| (e.way, e.kind.as_str())).collect();
        let support = ("support", "assist");
        assert_eq!(kinds, [support, support, ("asked", "live"), ("sent", "report"), ("sent", "hello")]);
        assert_eq!((all.total, all.kinds.len(), all.entries[0].what["who"].as_str()), (5, 4, Some("Hoa")));
        let reports = read(&ledger, Some("report"), 0);
        assert_eq!((reports.total, reports.entries[0].what["batch"].as_i64()), (1, Some(1)));
        assert_eq!(read(&ledger, None, 4).entries.len(), 1);
    }
}
