//! Floor 3: the other side of `tram_wire::helper`: one connection, one request, one answer, and the process ends.
//!
//! systemd accepts the connection and gives it to a process of its own as its standard input. What the process may do
//! is what its unit leaves it; what is done stands in [`deeds`], an arm a request.
//!
//! Why three rooms and not one: packets are seen only in the computer's own network, where a process that restarts
//! services has no business; a raw socket handed over from there would be the same power with more moving parts. Disks
//! want capabilities that are as good as root's; whoever holds them does nothing else.

mod deeds;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tram_wire::helper::{ARRIVES, Answer, MOST, Request, Room, Why};

use crate::deny;
use crate::host::{Host, Ran};

pub use deeds::{deed, room_for};

/// How long an answer may take to be taken.
const TAKEN: Duration = Duration::from_secs(5);

/// Who is served with what.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Which requests.
    pub room: Room,
    /// The agent's user.
    pub uid: u32,
    /// The agent's unit: others of its user, such as the kiosk's browser, are not served. `None` where there is no systemd.
    pub unit: Option<String>,
    /// What this computer forbids.
    pub deny: PathBuf,
    /// Where `/sys` and `/proc` are.
    pub root: PathBuf,
}

/// Serves one connection; the lines for the journal go to `log`.
///
/// # Errors
/// Those of the connection; whoever asked is then gone.
pub fn serve<H: Host>(mut line: UnixStream, host: &H, rules: &Rules, log: &mut dyn FnMut(&str)) -> std::io::Result<()> {
    let (answer, said) = match hear(&mut line, rules, log) {
        Ok(request) => {
            let ran = deed(&request, host, &rules.root, &|| gone(&line));
            let answer = match ran {
                Ok(Ran::Absent) => (Answer::Absent, String::new()),
                Ok(Ran::TimedOut) => (Answer::TimedOut, String::new()),
                Ok(Ran::Done { code, out }) => (Answer::Ran { code }, out),
                Err(why) => (Answer::Refused { why }, String::new()),
            };
            log(&format!("{}: {}", request.action(), word(&answer.0)));
            answer
        }
        Err(why) => {
            log(&format!("refused: {}", why.name()));
            (Answer::Refused { why }, String::new())
        }
    };
    line.set_write_timeout(Some(TAKEN))?;
    line.write_all(&answer.write(&said))
}

fn word(answer: &Answer) -> String {
    match answer {
        Answer::Ran { code } => format!("ended with {code}"),
        Answer::Absent => "not installed".to_owned(),
        Answer::TimedOut => "killed".to_owned(),
        Answer::Refused { why } => format!("refused: {}", why.name()),
    }
}

/// Who is it, what is asked, and may it be done?
fn hear(line: &mut UnixStream, rules: &Rules, log: &mut dyn FnMut(&str)) -> Result<Request, Why> {
    let peer = getsockopt(line, PeerCredentials).map_err(|_| Why::Peer)?;
    if peer.uid() != rules.uid || !rules.unit.as_ref().is_none_or(|unit| of_unit(peer.pid(), unit)) {
        log(&format!("process {} of user {} is not the agent", peer.pid(), peer.uid()));
        return Err(Why::Peer);
    }
    let bytes = read_line(line).ok_or(Why::Malformed)?;
    let request = Request::parse(&bytes).ok_or(Why::Malformed)?;
    // The request as it was understood: words of our own, no text of somebody else's.
    log(&format!("process {} asks: {}", peer.pid(), String::from_utf8_lossy(&request.line()).trim_end()));
    if request.room() != rules.room {
        return Err(Why::Room);
    }
    if deny::forbids(&rules.deny, request.action(), &[request.action()]) {
        return Err(Why::Denied);
    }
    Ok(request)
}

/// Whether a process runs in that unit. Of the same user as the agent there may be others: the kiosk's browser is one.
fn of_unit(pid: i32, unit: &str) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.lines().any(|l| l.rsplit('/').next() == Some(unit))
}

fn read_line(line: &mut UnixStream) -> Option<Vec<u8>> {
    let until = Instant::now() + ARRIVES;
    let (mut bytes, mut piece) = (Vec::new(), [0; MOST]);
    loop {
        let left = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())?;
        line.set_read_timeout(Some(left)).ok()?;
        let n = line.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(piece.get(..n)?);
        if let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            bytes.truncate(end);
            return Some(bytes);
        }
        if bytes.len() > MOST {
            return None;
        }
    }
}

/// Whoever asked does not want it any more. One that only says no more is still there.
fn gone(line: &UnixStream) -> bool {
    let mut ends = [PollFd::new(line.as_fd(), PollFlags::empty())];
    let woke = poll(&mut ends, PollTimeout::ZERO).is_ok_and(|n| n > 0);
    let over = PollFlags::POLLHUP | PollFlags::POLLERR;
    woke && ends.iter().any(|e| e.revents().is_some_and(|r| r.intersects(over)))
}

#[cfg(test)]
mod tests;
