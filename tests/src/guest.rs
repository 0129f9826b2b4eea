//! The least real QEMU there is.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Result;

use crate::screen::wait;

/// A computer without a disk: its firmware says so on the screen, which is all that is needed.
#[derive(Debug)]
pub struct Guest(Child);

impl Guest {
    /// Its displays are `vnc.sock` and `spice.sock` in `folder`; both are there.
    ///
    /// # Errors
    /// QEMU can't be started, or its sockets don't come.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// The same with more words for QEMU.
    ///
    /// # Errors
    /// As for [`Guest::start`].
    pub fn start_with(folder: &Path, more: &[&str]) -> Result<Self> {
        let spice = format!("unix=on,addr={},disable-ticketing=on", folder.join("spice.sock").display());
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-m", "64", "-nodefaults", "-vga", "std", "-display", "none", "-spice", &spice])
            .args(["-vnc", &format!("unix:{}", folder.join("vnc.sock").display())])
            .args(more)
            .stdin(Stdio::null())
            .spawn()?;
        let guest = Self(child);
        wait("QEMU", || {
            let there = |name| folder.join(name).exists();
            Ok((there("spice.sock") && there("vnc.sock")).then_some(()))
        })?;
        Ok(guest)
    }

    /// Whether QEMU still runs.
    ///
    /// # Errors
    /// It can't be asked.
    pub fn lives(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
