//! What happened by lease while the database was away, in one file of the data folder until it can be written down.
//!
//! A line of JSON each, on the disk before anybody is let in by it: a gateway that is killed tells of it when it
//! starts again. Half a line, as a kill may leave it, is passed over. The file is bounded, and refusals may fill
//! only half of it, so that nobody can keep officers out by being refused.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::domain::lease::{Event, What};

const FILE: &str = "lease-events.jsonl";
/// An event takes about 450 bytes: a day of a city without its database.
const MOST: u64 = 8 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    most: u64,
    /// One at a time.
    lock: Mutex<()>,
}

impl Spool {
    /// In this data folder; nothing is made before there is something to keep.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), most: MOST, lock: Mutex::default() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an event; it is on the disk then.
    ///
    /// # Errors
    /// The disk's, or the file is full.
    pub(super) fn append(&self, event: &Event) -> io::Result<()> {
        let _one = self.lock();
        let line = serde_json::to_string(event)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path())?;
        let size = file.metadata()?.len();
        let room = if matches!(event.what, What::Refused { .. }) { self.most / 2 } else { self.most };
        if size + line.len() as u64 >= room {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "too many events wait for the database"));
        }
        // Half a line of a killed process must not spoil this one.
        let gap = if ends_well(&mut file, size)? { "" } else { "\n" };
        file.write_all(format!("{gap}{line}\n").as_bytes())?;
        file.sync_data()?;
        if size == 0 {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(())
    }

    /// How many events are kept.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn waiting(&self) -> io::Result<usize> {
        let _one = self.lock();
        match fs::read(self.path()) {
            Ok(bytes) => Ok(bytes.iter().filter(|b| **b == b'\n').count()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Events that are kept, in order.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn read(&self) -> io::Result<Vec<Event>> {
        let _one = self.lock();
        Ok(self.lines()?.into_iter().map(|(event, _)| event).collect())
    }

    /// Lets go of events that were written down.
    ///
    /// # Errors
    /// The disk's; they are written down again then, which changes nothing.
    pub(super) fn forget(&self, done: &HashSet<Uuid>) -> io::Result<()> {
        let _one = self.lock();
        let kept: Vec<String> =
            self.lines()?.into_iter().filter(|(e, _)| !done.contains(&e.id)).map(|(_, line)| line).collect();
        if kept.is_empty() {
            return fs::remove_file(self.path());
        }
        let new = self.folder.join(format!(".{FILE}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(format!("{}\n", kept.join("\n")).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        File::open(&self.folder)?.sync_all()
    }

    fn lines(&self) -> io::Result<Vec<(Event, String)>> {
        let mut bytes = Vec::new();
        match File::open(self.path()) {
            Ok(file) => file.take(self.most * 2).read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let whole = bytes.split(|b| *b == b'\n').filter_map(|line| {
            let event = serde_json::from_slice(line).ok()?;
            Some((event, String::from_utf8(line.to_vec()).ok()?))
        });
        Ok(whole.collect())
    }
}

fn ends_well(file: &mut File, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::lease::Fault;

    fn event(what: What) -> Event {
        let nil = Uuid::nil();
        Event {
            id: Uuid::now_v7(),
            at: 1,
            lease: nil.into(),
            session: nil.into(),
            username: "lan".into(),
            endpoint: nil.into(),
            desktop: "d".into(),
            gateway: nil,
            ip: "192.0.2.1".into(),
            what,
        }
    }

    #[test]
    fn what_is_kept_survives_half_a_line_and_goes_once_it_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(&dir.path().join("data"));
        assert_eq!(spool.read().unwrap(), []);
        let (a, b) = (event(What::Entered), event(What::Left { from: 1, why: "1000".into(), up: 1, down: 2 }));
        spool.append(&a).unwrap();
        let mut file = OpenOptions::new().append(true).open(spool.path()).unwrap();
        file.write_all(b"{\"id\":\"half").unwrap();
        spool.append(&b).unwrap();
        assert_eq!(Spool::new(&dir.path().join("data")).read().unwrap(), [a.clone(), b.clone()]);
        assert_eq!(fs::metadata(spool.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(spool.waiting().unwrap() >= 2, "nothing that is kept goes uncounted");
        spool.forget(&HashSet::from([a.id])).unwrap();
        assert_eq!(spool.read().unwrap(), std::slice::from_ref(&b));
        spool.forget(&HashSet::from([b.id])).unwrap();
        assert!(!spool.path().exists());
        assert_eq!(spool.waiting().unwrap(), 0);
    }

    #[test]
    fn the_file_has_an_end_and_refusals_reach_it_first() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool { most: 20_000, ..Spool::new(dir.path()) };
        let refused = || spool.append(&event(What::Refused { why: Fault::Signature }));
        let n = (0..).take_while(|_| refused().is_ok()).count();
        assert!((10..60).contains(&n), "{n}");
        let m = (0..).take_while(|_| spool.append(&event(What::Entered)).is_ok()).count();
        assert!(m > 10, "{m}");
        assert!(fs::metadata(spool.path()).unwrap().len() <= 20_000);
        assert_eq!(spool.read().unwrap().len(), n + m);
    }
}
