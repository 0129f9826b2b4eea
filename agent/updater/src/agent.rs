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

/// Name and beginning of a process.
fn known(pid: i32) -> Option<(String, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, brackets too; what comes behind it does not.
    let (head, tail) = (stat.find('(')?, stat.rfind(')')?);
    let fields: Vec<&str> = stat.get(tail + 1..)?.split_whitespace().collect();
    let ended = matches!(fields.first(), Some(&("Z" | "X")));
    let began = fields.get(19)?.parse::<u64>().ok()? * TICK_MS;
    (!ended).then(|| stat.get(head + 1..tail).map(|name| (name.to_owned(), began)))?
}

/// When a process began, if it is an agent.
fn began_ms(pid: i32) -> Option<u64> {
    known(pid).filter(|(name, _)| name == PROGRAM).map(|(_, began)| began)
}

/// Processes that were begun as this program, whatever they have become: one that hangs before it says anything is
/// found only so.
fn begun_as(program: &Path) -> Vec<Process> {
    let program = program.as_os_str().as_encoded_bytes();
    let is = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A script has its interpreter before it.
        line.split(|b| *b == 0).take(2).any(|word| word == program)
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is);
    pids.filter_map(|pid| Some(Process { pid, began_ms: known(pid)?.1 })).collect()
}

/// Has whatever runs as the agent begin anew: what it says of itself, and what was begun as `program`.
pub async fn restart_all(agent_state: &Path, program: &Path) {
    let said = look(agent_state, false).process;
    for process in said.into_iter().chain(begun_as(program)) {
        restart(process).await;
    }
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
        seen.process = began_ms(pid).map(|began_ms| Process { pid, began_ms });
        seen.reported = status.reported && seen.process.is_some();
    }
    seen
}

/// Asks the agent to go, and makes it if it does not. Its supervisor starts it again, from `current`.
pub async fn restart(process: Process) {
    let there = || known(process.pid).is_some_and(|(_, began)| began == process.began_ms);
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
        let began = known(own).unwrap().1;
        assert!(began <= System::new().boot_ms() + 1000, "{began}");
        assert_eq!(began_ms(own), None, "another program with its number is not the agent");
        let line = std::fs::read("/proc/self/cmdline").unwrap();
        let program =
            std::path::PathBuf::from(String::from_utf8(line.split(|b| *b == 0).next().unwrap().to_vec()).unwrap());
        assert!(begun_as(&program).contains(&Process { pid: own, began_ms: began }));
        assert!(!begun_as(Path::new("/nowhere/tram-agent")).iter().any(|p| p.pid == own));
    }

    #[tokio::test]
    async fn it_goes_when_it_is_told_or_made_to_and_nobody_else_does() {
        for script in ["trap '' TERM; while :; do sleep 0.05; done", "while :; do sleep 0.05; done"] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let began_ms = known(pid).unwrap().1;
            // A stranger with that number is left alone.
            restart(Process { pid, began_ms: began_ms + 1000 }).await;
            assert!(child.try_wait().unwrap().is_none());
            restart(Process { pid, began_ms }).await;
            child.wait().unwrap();
            assert_eq!(known(pid), None);
        }
    }
}
