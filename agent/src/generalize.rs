//! Making a disk fit to be copied: whatever makes this computer *this* endpoint goes, the configuration stays.
//!
//! A copied key is two computers with one identity. The controller notices and quarantines both; an image made after
//! `tram-agent generalize` never gets that far.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::identity;

/// What is kept in the state folder, and what it is for people.
const KEPT: [(&str, &str); 15] = [
    ("identity.json", "identity: key and certificate"),
    (".identity.json.new", "a half-written identity"),
    ("enrolling.json", "an enrolment that waits for approval: token and key"),
    ("enrol-asked.json", "an enrolment that was not answered: token and key"),
    (".enrolling.json.new", "a half-written enrolment"),
    ("enrol-refused.json", "an enrolment that was refused"),
    ("leases", "leases of officers"),
    ("queue", "records that were not sent"),
    ("queue.damaged", "damaged records"),
    ("plan.json", "the reporting plan"),
    ("gateways.json", "the list of gateways"),
    ("time.json", "the controller's time"),
    ("ledger.jsonl", "the ledger"),
    ("ledger.1.jsonl", "the older ledger"),
    ("status.json", "the status"),
];

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum GeneralizeError {
    /// The agent would write all of it again.
    #[error("the agent runs (it holds {0}); stop it first, or give --force")]
    Runs(PathBuf),
    /// Something can't be removed.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Removes identity, queue, ledger, leases and what else belongs to one computer; what was there.
///
/// # Errors
/// [`GeneralizeError`]; what was removed before an error stays removed, and running it again goes on.
pub fn generalize(state: &Path, force: bool) -> Result<Vec<String>, GeneralizeError> {
    let held = match identity::hold(state) {
        Ok(held) => held,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(GeneralizeError::Io(state.to_owned(), e)),
    };
    if held.is_none() && !force {
        return Err(GeneralizeError::Runs(state.join(identity::LOCK)));
    }
    let mut gone = Vec::new();
    for (name, what) in KEPT {
        let path = state.join(name);
        if remove(&path).map_err(|e| GeneralizeError::Io(path.clone(), e))? {
            gone.push(format!("{}: {what}", path.display()));
        }
    }
    Ok(gone)
}

/// Forgets what was made under an identity that this computer doesn't have any more; the new one stays.
pub fn forget(state: &Path) {
    for name in ["leases", "queue", "queue.damaged", "plan.json"] {
        // What can't be removed is refused by the controller, or useless without the old key.
        let _ = remove(&state.join(name));
    }
}

fn remove(path: &Path) -> io::Result<bool> {
    let done = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match done {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_one_computer_goes_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["identity.json", "ledger.jsonl", "time.json"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir_all(dir.path().join("queue")).unwrap();
        fs::write(dir.path().join("queue/00000001.seg"), "x").unwrap();
        fs::write(dir.path().join("notes-of-the-technician"), "x").unwrap();
        let gone = generalize(dir.path(), false).unwrap();
        assert_eq!(gone.len(), 4, "{gone:?}");
        assert!(gone[0].ends_with("identity.json: identity: key and certificate"), "{gone:?}");
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [identity::LOCK, "notes-of-the-technician"]);
        assert!(generalize(dir.path(), false).unwrap().is_empty());
        assert!(generalize(&dir.path().join("nowhere"), false).unwrap().is_empty());
    }

    #[test]
    fn a_running_agent_is_not_robbed_unless_somebody_insists() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.json"), "x").unwrap();
        let runs = identity::hold(dir.path()).unwrap().unwrap();
        let refused = generalize(dir.path(), false).unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert!(dir.path().join("identity.json").exists());
        assert_eq!(generalize(dir.path(), true).unwrap().len(), 1);
        drop(runs);
    }
}
