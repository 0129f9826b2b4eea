//! What left this computer, for whoever sits in front of it: every report as it was sent, readable with any editor.
//!
//! Beats are left out: they say "I am here" and nothing else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "ledger.jsonl";
const OLDER: &str = "ledger.1.jsonl";
/// Two files of this size: weeks of a usual computer.
const MOST: u64 = 1024 * 1024;

/// The book.
#[derive(Clone, Debug)]
pub struct Ledger(PathBuf);

impl Ledger {
    /// Of this state folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self(state.to_owned())
    }

    /// Writes down what was sent, or what was asked of us (`way`: `sent` or `asked`), or what support did
    /// here (`support`). Without room for it the agent
    /// goes on.
    pub fn note(&self, at_ms: i64, way: &str, message: &str) {
        let line = format!("{{\"at_ms\":{at_ms},\"{way}\":{message}}}\n");
        let path = self.0.join(FILE);
        let write = || -> io::Result<()> {
            if fs::metadata(&path).is_ok_and(|m| m.len() > MOST) {
                fs::rename(&path, self.0.join(OLDER))?;
            }
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?.write_all(line.as_bytes())
        };
        let _ = write();
    }

    /// All lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let read = |name| fs::read_to_string(self.0.join(name)).unwrap_or_default();
        [read(OLDER), read(FILE)].iter().flat_map(|t| t.lines()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_book_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let l = Ledger::of(dir.path());
        l.note(1, "sent", r#"{"kind":"report"}"#);
        assert_eq!(l.lines(), [r#"{"at_ms":1,"sent":{"kind":"report"}}"#]);
        let big = format!("\"{}\"", "x".repeat(60_000));
        (0..60).for_each(|n| l.note(n, "sent", &big));
        let size: u64 = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 3 * MOST, "{size}");
        Ledger::of(Path::new("/proc/nowhere")).note(1, "sent", "{}");
    }
}
