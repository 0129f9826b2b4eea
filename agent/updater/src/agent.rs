//! The agent as it is seen from outside: by the file it writes, and by the process that the kernel shows.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tram_agent::host::{Host, System};
use tram_agent::status::{LinkStatus, Status};

use crate::place::PROGRAM;
use crate::watch::{Process, Seen};

/// The kernel counts process times in hundredths of a second, whatever it does inside.
const TICK_MS: u64 = 10;
/// An agent that was asked to go does it within this time.
const GOES: Duration = Duration::from_secs(10);

/// When a process began, if it is one of this name.
fn began_ms(pid: i32, name: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets too; what comes behind it does not.
    let (head, tail) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat.get(tail + 1..)?.split_whitespace().collect();
    let ended = matches!(fields.first(), Some(&("Z" | "X")));
    (stat.get(head + 1..tail)? == name && !ended).then_some(())?;
    Some(fields.get(19)?.parse::<u64>().ok()? * TICK_MS)
}

/// Looks once. `answered`: the controller answered us when it was asked last.
#[must_use]
pub fn look(agent_state: &Path, answered: bool) -> Seen {
    let host = System::new();
    let mut seen = Seen {
        answered,
        boot: host.read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        up_ms: host.boot_ms(),
        ..Seen::default()
    };
    if let Ok(status) = Status::load(agent_state)
        && let Ok(pid) = i32::try_from(status.pid)
    {
        if status.link == LinkStatus::Stopped {
            seen.stopped = Some(pid);
        }
        seen.process = began_ms(pid, PROGRAM).map(|began_ms| Process { pid, began_ms });
        seen.reported = status.reported && seen.process.is_some();
    }
    seen
}

/// Asks the agent to go, and makes it if it does not. Its supervisor starts it again, from `current`.
pub async fn restart(process: Process) {
    let there = || began_ms(process.pid, PROGRAM) == Some(process.began_ms);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if !there() || kill(Pid::from_raw(process.pid), signal).is_err() {
            return;
        }
        let begun = tokio::time::Instant::now();
        while there() && begun.elapsed() < GOES {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_name_and_beginning() {
        let own = i32::try_from(std::process::id()).unwrap();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        let began = began_ms(own, name.trim()).unwrap();
        assert!(began <= System::new().boot_ms() + 1000, "{began}");
        assert_eq!(began_ms(own, "tram-agent"), None, "another program with its number is not the agent");
    }

    #[tokio::test]
    async fn it_goes_when_it_is_told_and_when_it_is_made_to() {
        // Both ignore what is asked politely but the second.
        for script in ["trap '' TERM; while :; do sleep 0.05; done", "while :; do sleep 0.05; done"] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let began_ms = began_ms(pid, "sh").unwrap();
            // A stranger with that number is left alone.
            restart(Process { pid, began_ms: began_ms + 1000 }).await;
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(super::began_ms(pid, "sh"), None);
        }
    }
}
