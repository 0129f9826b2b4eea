//! One server per SQLite file, and one gateway of a name per data folder.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::{Result, StoreError};

/// Held by a running server or gateway for as long as it lives; the kernel lets go of it even after `kill -9`.
#[derive(Debug)]
pub struct ServerLock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

impl ServerLock {
    /// Takes the lock beside a SQLite file (`<file>.server`).
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another server has it, [`StoreError::Folder`] if the folder can't be written.
    pub fn take(database: &Path) -> Result<Self> {
        Self::lock(&database.with_extension("server"), |pid| StoreError::InUse { pid })
    }

    /// Takes the lock of a gateway's name in a data folder.
    ///
    /// # Errors
    /// [`StoreError::Named`] if a gateway of that name runs there, [`StoreError::Folder`] if it can't be written.
    pub fn gateway(data: &Path, name: &str) -> Result<Self> {
        let busy = |pid| StoreError::Named { name: name.to_owned(), pid };
        Self::lock(&data.join(format!("gateway-{name}.lock")), busy)
    }

    fn lock(path: &Path, busy: impl Fn(u32) -> StoreError) -> Result<Self> {
        let fault = |e| StoreError::Folder(path.display().to_string(), e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fault)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fault)?;
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
                Err(busy(text.trim().parse().unwrap_or(0)))
            }
        }
    }
}
