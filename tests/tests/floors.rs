//! The house has floors: a module uses only floors below its own, never sideways. This reads the `use`
//! lines and the paths of every source file and fails on a breach.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Modules of the controller with their floors, bottom up.
const CONTROLLER: &[(&str, u8)] = &[
    ("domain", 1),
    ("clock", 1),
    ("nudge", 1),
    ("store", 2),
    ("identity", 2),
    ("notify", 2),
    ("config", 3),
    ("fleet", 2),
    ("services", 3),
    ("api", 4),
    ("agents", 4),
    ("gateway", 4),
    ("reconcile", 4),
    ("telemetry", 4),
    ("cli", 5),
];

/// Modules of the agent with their floors, bottom up.
const AGENT: &[(&str, u8)] = &[
    ("host", 1),
    ("config", 1),
    ("identity", 2),
    ("queue", 2),
    ("ledger", 2),
    ("deny", 2),
    ("helper", 3),
    ("trusted", 3),
    ("outbox", 3),
    ("generalize", 3),
    ("collect", 2),
    ("checks", 3),
    ("link", 4),
    ("actions", 4),
    ("session", 6),
    ("doctor", 5),
    ("enrolling", 5),
    ("report", 4),
    ("status", 4),
    ("app", 6),
    ("cli", 5),
];

/// A sideways import that is meant: `(from, to, why)`.
const MEANT: &[(&str, &str, &str)] = &[("clock", "domain", "the clock hands out domain::time::Time")];

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    Ok(out)
}

/// The modules a source text names by `crate::…` outside comments.
fn named(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut out = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `tram_wire_crate::` is no path of ours.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let inside = list.split('}').next().unwrap_or_default();
            out.extend(inside.split(',').map(|p| first_word(p.trim())));
        } else {
            out.push(first_word(rest));
        }
    }
    out
}

fn first_word(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn breaches(root: &str, floors: &[(&str, u8)]) -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(root);
    let floor = |m: &str| floors.iter().find(|(n, _)| *n == m).map(|(_, f)| *f);
    let mut out = Vec::new();
    let mut seen = 0;
    for file in sources(&root)? {
        let below = file.strip_prefix(&root)?;
        let module = below.components().next().context("file")?.as_os_str().to_string_lossy().replace(".rs", "");
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(own) = floor(&module) else {
            out.push(format!("{}: `{module}` has no floor; give it one in tests/floors.rs", file.display()));
            continue;
        };
        seen += 1;
        for used in named(&fs::read_to_string(&file)?) {
            let meant = MEANT.iter().any(|(a, b, _)| *a == module && *b == used);
            if used != module && !meant && floor(&used).is_some_and(|f| f >= own) {
                out.push(format!("{}: `{module}` (floor {own}) uses `{used}`", file.display()));
            }
        }
    }
    assert!(seen > 5, "hardly any file was read below {}", root.display());
    Ok(out)
}

#[test]
fn no_module_imports_upward_or_sideways() -> Result<()> {
    let mut all = breaches("controller/src", CONTROLLER)?;
    all.extend(breaches("agent/src", AGENT)?);
    assert!(all.is_empty(), "{}", all.join("\n"));
    Ok(())
}

#[test]
fn a_breach_would_be_seen() {
    assert_eq!(named("use crate::api::router;\nlet x = crate::store::Store;"), ["api", "store"]);
    assert_eq!(named("use crate::{domain::time, nudge};"), ["domain", "nudge"]);
    assert!(named("// crate::api\n/// [`crate::api`]\nuse other_crate::api;").is_empty());
}

#[test]
fn sql_stands_in_the_store_only_and_xml_in_the_hypervisor_only() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/src");
    for file in sources(&root)? {
        let text = fs::read_to_string(&file)?;
        if !file.starts_with(root.join("store")) {
            for word in ["sqlx::query", "SELECT ", "INSERT INTO", "UPDATE desktops"] {
                assert!(!text.contains(word), "{}: SQL (`{word}`) outside store/", file.display());
            }
        }
        assert!(!text.contains("<domain"), "{}: domain XML outside the hypervisor package", file.display());
    }
    Ok(())
}

#[test]
fn no_file_is_a_whole_floor() -> Result<()> {
    for root in [
        "controller/src",
        "controller/hypervisor/src",
        "agent/src",
        "agent/wire/src",
        "agent/tunnel/src",
        "agent/updater/src",
        "tests/src",
        "tests/tests",
    ] {
        for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(root))? {
            let lines = fs::read_to_string(&file)?.lines().count();
            assert!(lines <= 800, "{} has {lines} lines: that is two rooms", file.display());
        }
    }
    Ok(())
}

/// Codes that several use cases give for the same reason.
const SHARED_CODES: &[&str] = &["A-105", "E-205", "G-101", "H-201", "I-106"];

/// The console has a sentence for a code, not for a code of a use case.
#[test]
fn a_code_means_one_thing() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../controller/src/services");
    let mut givers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources(&root)? {
        let giver = file.strip_prefix(&root)?.iter().next().context("a file")?.to_string_lossy().replace(".rs", "");
        for word in fs::read_to_string(&file)?.split('"') {
            let code = matches!(word.as_bytes(), [b'A'..=b'Z', b'-', digits @ ..] if digits.len() == 3 && digits.iter().all(u8::is_ascii_digit));
            if code && !SHARED_CODES.contains(&word) {
                givers.entry(word.to_owned()).or_default().insert(giver.clone());
            }
        }
    }
    assert!(givers.len() > 50, "the codes are not found: {givers:?}");
    let twice: Vec<_> = givers.iter().filter(|(_, by)| by.len() > 1).collect();
    assert!(twice.is_empty(), "given by several use cases: {twice:?}");
    Ok(())
}

/// Every test that the table of attacks names is in the file it names, as a test that runs.
#[test]
fn the_table_of_attacks_names_tests_that_exist() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let table = fs::read_to_string(root.join("docs/operations/session-attacks.md"))?;
    let rows: Vec<&str> = table.lines().filter(|l| l.starts_with("| ") && l.as_bytes()[2].is_ascii_digit()).collect();
    for (n, row) in (1..).zip(&rows) {
        anyhow::ensure!(row.starts_with(&format!("| {n} |")), "case {n} is missing or out of order: {row}");
        anyhow::ensure!(row.contains(".rs::"), "case {n} names no test");
    }
    anyhow::ensure!(rows.len() == 32, "{} cases", rows.len());
    let named = table.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::"));
    let mut tests = 0;
    for (file, name) in named {
        let source = fs::read_to_string(root.join(format!("{file}.rs"))).with_context(|| format!("{file}.rs"))?;
        let at = source.find(&format!("fn {name}(")).with_context(|| format!("{file}.rs has no {name}"))?;
        let before = source[..at].lines().rev().take(8).collect::<Vec<_>>().join("\n");
        anyhow::ensure!(before.contains("#[test]") || before.contains("#[tokio::test"), "{file}.rs::{name} is no test");
        tests += 1;
    }
    anyhow::ensure!(tests > 40, "only {tests} tests were found in the table");
    Ok(())
}
