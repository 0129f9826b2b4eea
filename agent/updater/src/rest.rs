//! Waiting in next to no memory: hours lie between two questions, and what a question needed stays with the process. So
//! the program begins anew, as the same process, and waits before it does anything else.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Seconds to wait first, from the one before.
const VARIABLE: &str = "TRAM_UPDATER_RESTS";
/// No controller has an updater wait longer.
const MOST: u64 = 86_400;

/// Begins anew with the same arguments, to wait so long. Comes back only with the reason why it could not.
#[must_use]
pub fn begin(left: Duration) -> io::Error {
    let mut words = std::env::args_os();
    let Some(program) = words.next() else { return io::ErrorKind::InvalidInput.into() };
    // By its name: a package that was installed meanwhile is what begins, and `/proc/self/exe` would name what is deleted.
    Command::new(program).args(words).env(VARIABLE, left.as_secs().min(MOST).to_string()).exec()
}

/// Waits as the one before said; not at all if there was none.
pub fn wait() {
    if let Some(seconds) = std::env::var(VARIABLE).ok().and_then(|s| s.parse().ok()) {
        std::thread::sleep(Duration::from_secs(MOST.min(seconds)));
    }
}
