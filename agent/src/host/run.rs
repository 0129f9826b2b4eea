//! Programs of the distribution and local services, each with an end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Most bytes of an answer.
const MOST: u64 = 256 * 1024;
/// Where programs of the distribution are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Between two looks whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Between two looks whether an answer is still wanted.
const ASK_LOOK: Duration = Duration::from_millis(200);

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It isn't installed, or may not be run.
    Absent,
    /// It was killed when its time was over.
    TimedOut,
    /// It ended.
    Done {
        /// Its exit code; -1 if a signal ended it.
        code: i32,
        /// What it wrote, cut at a sane length.
        out: String,
    },
}

impl Ran {
    /// What it wrote, whatever its exit code.
    #[must_use]
    pub fn out(&self) -> Option<&str> {
        match self {
            Self::Done { out, .. } => Some(out),
            Self::Absent | Self::TimedOut => None,
        }
    }
}

/// Runs it in a process group of its own, without input and in English.
pub fn run(program: &str, args: &[&str], within: Duration) -> Ran {
    run_until(program, args, within, MOST, &|| false)
}

/// As [`run`], with so many bytes of what it writes, and killed as soon as `stop` says so.
pub(super) fn run_until(program: &str, args: &[&str], within: Duration, most: u64, stop: &dyn Fn() -> bool) -> Ran {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return Ran::Absent };
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let (send, receive) = mpsc::channel();
    let out = child.stdout.take();
    // Reading must not wait longer than the program may run: a grandchild could hold the pipe.
    let reader = move || {
        let mut bytes = Vec::new();
        if let Some(out) = out {
            let _ = out.take(most).read_to_end(&mut bytes);
        }
        let _ = send.send(bytes);
    };
    if thread::Builder::new().stack_size(64 * 1024).spawn(reader).is_err() {
        let _ = child.kill();
    }
    let until = Instant::now() + within;
    let code = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.code().unwrap_or(-1),
            Ok(None) if Instant::now() < until && !stop() => thread::sleep(LOOK),
            Ok(None) | Err(_) => {
                let _ = group.map(|g| killpg(g, Signal::SIGKILL));
                // One that hangs in the kernel can't be waited for; it is left to init.
                thread::sleep(LOOK);
                let _ = child.try_wait();
                return Ran::TimedOut;
            }
        }
    };
    let left = until.saturating_duration_since(Instant::now()).max(LOOK);
    let bytes = receive.recv_timeout(left).unwrap_or_default();
    let _ = group.map(|g| killpg(g, Signal::SIGKILL));
    Ran::Done { code, out: String::from_utf8_lossy(&bytes).into_owned() }
}

/// Sends a request to `/path/of/a.socket` or `127.0.0.1:631`, and reads until the other end closes.
pub(super) fn ask(at: &str, request: &[u8], within: Duration) -> Option<Vec<u8>> {
    let until = Instant::now() + within;
    if at.starts_with('/') {
        let mut s = UnixStream::connect(at).ok()?;
        s.set_write_timeout(Some(within)).ok()?;
        s.write_all(request).ok()?;
        read(|left, buffer| s.set_read_timeout(Some(left)).and_then(|()| s.read(buffer)), until)
    } else {
        let mut s = TcpStream::connect_timeout(&at.parse().ok()?, within).ok()?;
        s.set_write_timeout(Some(within)).ok()?;
        s.write_all(request).ok()?;
        read(|left, buffer| s.set_read_timeout(Some(left)).and_then(|()| s.read(buffer)), until)
    }
}

/// As [`ask`], of a socket; `stop` ends it sooner. `None`: nobody is there; nothing: no answer.
pub(super) fn ask_until(at: &Path, request: &[u8], within: Duration, stop: &dyn Fn() -> bool) -> Option<Vec<u8>> {
    let mut s = UnixStream::connect(at).ok()?;
    let until = Instant::now() + within;
    let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
    if s.set_write_timeout(Some(within)).and_then(|()| s.write_all(request)).is_err() {
        return Some(all);
    }
    while Instant::now() < until && !stop() && s.set_read_timeout(Some(ASK_LOOK)).is_ok() {
        match s.read(&mut buffer) {
            Ok(0) => return Some(all),
            Ok(n) if all.len() as u64 > MOST + n as u64 => return Some(all),
            Ok(n) => all.extend_from_slice(buffer.get(..n)?),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            // Who answers before it has read everything cuts the line after its answer.
            Err(_) => return Some(all),
        }
    }
    Some(Vec::new())
}

fn read(mut some: impl FnMut(Duration, &mut [u8]) -> std::io::Result<usize>, until: Instant) -> Option<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let left = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())?;
        match some(left, &mut buffer).ok()? {
            0 => return Some(all),
            n if all.len() as u64 > MOST => return (n > 0).then_some(all),
            n => all.extend_from_slice(buffer.get(..n)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_comes_back_and_its_exit_code_too() {
        let ran = run("sh", &["-c", "echo xin chào; exit 3"], Duration::from_secs(10));
        assert_eq!(ran, Ran::Done { code: 3, out: "xin chào\n".into() });
        assert_eq!(run("no-such-program-here", &[], Duration::from_secs(1)), Ran::Absent);
    }

    #[test]
    fn a_program_that_never_returns_is_killed_with_its_children() {
        let begun = Instant::now();
        // The shell's child ignores what it is told, and holds the pipe.
        let ran = run("sh", &["-c", "trap '' TERM; sleep 600 & sleep 600"], Duration::from_millis(300));
        assert_eq!(ran, Ran::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn who_is_told_to_stop_is_killed_and_long_answers_are_cut() {
        let begun = Instant::now();
        let stop = || begun.elapsed() > Duration::from_millis(100);
        assert_eq!(run_until("sleep", &["600"], Duration::from_secs(600), MOST, &stop), Ran::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(60));
        let ran = run_until("yes", &[], Duration::from_secs(60), 1000, &|| false);
        assert_eq!(ran.out().map(str::len), Some(1000), "{ran:?}");
    }

    #[test]
    fn a_child_that_keeps_the_pipe_open_does_not_keep_us() {
        let ran = run("sh", &["-c", "echo done; sleep 600 &"], Duration::from_secs(2));
        assert!(matches!(ran, Ran::Done { code: 0, .. }), "{ran:?}");
    }

    #[test]
    fn a_service_that_says_nothing_is_left_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("s");
        let _mute = std::os::unix::net::UnixListener::bind(&at).unwrap();
        assert_eq!(ask(at.to_str().unwrap(), b"hello", Duration::from_millis(200)), None);
        assert_eq!(ask("/no/such/socket", b"", Duration::from_secs(1)), None);
    }
}
