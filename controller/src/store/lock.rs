//! One server per SQLite file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::{Result, StoreError};

/// Held by a running server for as long as it lives; the kernel lets go of it even after `kill -9`.
#[derive(Debug)]
pub struct ServerLock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

impl ServerLock {
    /// Takes the lock beside a SQLite file (`<file>.server`).
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another server has it, [`StoreError::Folder`] if the folder can't be written.
    pub fn take(database: &Path) -> Result<Self> {
        let path = database.with_extension("server");
        let fault = |e| StoreError::Folder(path.display().to_string(), e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fault)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                // The process id is only for the other's error message; failing to write it is no fault.
                let _ =
                    lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
                Ok(Self(lock))
            }
            Err((mut file, _)) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                Err(StoreError::InUse { pid: text.trim().parse().unwrap_or(0) })
            }
        }
    }
}
