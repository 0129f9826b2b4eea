//! Gateways this endpoint knows: what the controller named last, kept on disk for when it can't be asked.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::config::Address;

/// Most that are kept of what a controller names.
const MOST: usize = 16;

fn file(state: &Path) -> PathBuf {
    state.join("gateways.json")
}

/// Keeps what the controller named, the best first. What can't be written is named again the next time.
pub fn keep(state: &Path, named: &[String]) {
    let good: Vec<String> = named.iter().filter(|g| g.parse::<Address>().is_ok()).take(MOST).cloned().collect();
    let Ok(text) = serde_json::to_string(&good) else { return };
    if fs::read_to_string(file(state)).is_ok_and(|old| old == text) {
        return;
    }
    let new = file(state).with_extension("new");
    let written = fs::File::create(&new).and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()));
    if let Err(e) = written.and_then(|()| fs::rename(&new, file(state))) {
        eprintln!("tram-agent: the gateways the controller named could not be kept: {e}");
    }
}

/// What the controller named last.
#[must_use]
pub fn known(state: &Path) -> Vec<Address> {
    let text = fs::read_to_string(file(state)).unwrap_or_default();
    let named: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
    named.iter().filter_map(|g| g.parse().ok()).take(MOST).collect()
}

/// All there are, in the order they are tried, each once.
#[must_use]
pub fn all(named: Vec<Address>, configured: &[Address], controller: Address) -> Vec<Address> {
    let mut out: Vec<Address> = Vec::new();
    for one in named.into_iter().chain(configured.iter().cloned()).chain([controller]) {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> Address {
        s.parse().unwrap()
    }

    #[test]
    fn what_was_named_comes_first_and_the_controller_last() {
        let named = vec![at("https://gw2:1"), at("https://gw1:1")];
        let all = all(named, &[at("https://gw1:1"), at("https://gw0:1")], at("https://tram:1"));
        let text: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["https://gw2:1", "https://gw1:1", "https://gw0:1", "https://tram:1"]);
    }

    #[test]
    fn what_was_named_last_is_kept_and_rubbish_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(known(dir.path()).is_empty());
        keep(dir.path(), &["https://gw1:9444".into(), "ftp://x".into(), "https://gw2:9444".into()]);
        assert_eq!(known(dir.path()), [at("https://gw1:9444"), at("https://gw2:9444")]);
        fs::write(file(dir.path()), "[\"https://gw").unwrap();
        assert!(known(dir.path()).is_empty(), "half a file is none");
        keep(dir.path(), &[]);
        assert_eq!(fs::read_to_string(file(dir.path())).unwrap(), "[]");
        keep(&dir.path().join("gone"), &["https://gw1:9444".into()]);
    }
}
