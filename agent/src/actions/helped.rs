//! What needs more than the agent may: asked of the helpers, done with what we may ourselves where there are none.

use std::path::Path;
use std::time::Duration;

use tram_wire::helper::{Answer, Request, Why};

use super::{Desk, Found};
use crate::helper::{deed, room_for};
use crate::host::{Host, Ran};

/// Beyond what the helper itself gives a request.
const SLACK: Duration = Duration::from_millis(500);

/// What became of a request.
pub(super) struct Asked {
    pub(super) ran: Ran,
    /// By a helper, which may.
    helped: bool,
}

impl Asked {
    /// What is told of it, where an exit code is all that counts.
    pub(super) fn found(&self) -> Found {
        match (&self.ran, self.helped) {
            (Ran::Done { code, .. }, false) if *code != 0 => {
                Found::unknown("not_permitted").fact("exit", code).fact("needs", "tram-agent-helper")
            }
            (ran, _) => Found::done(ran),
        }
    }

    /// As [`Asked::found`], with what it comes to if it ended well.
    pub(super) fn map(self, well: impl FnOnce(String) -> Found) -> Found {
        match self.ran {
            Ran::Done { code: 0, out } => well(out),
            _ => self.found(),
        }
    }
}

/// Asks; what can't be done is a finding.
pub(super) fn ask<H: Host>(d: &Desk<H>, request: &Request) -> Result<Asked, Found> {
    let stop = || d.stopped();
    let Some(bytes) = d.host.helped(request, room_for(request).0 + SLACK, &stop) else {
        let ran = deed(request, &d.host, Path::new("/"), &stop).map_err(refused)?;
        return Ok(Asked { ran, helped: false });
    };
    match Answer::read(&bytes) {
        Some((Answer::Ran { code }, out)) => Ok(Asked { ran: Ran::Done { code, out }, helped: true }),
        Some((Answer::Absent, _)) => Ok(Asked { ran: Ran::Absent, helped: true }),
        Some((Answer::TimedOut, _)) => Ok(Asked { ran: Ran::TimedOut, helped: true }),
        Some((Answer::Refused { why }, _)) => Err(refused(why)),
        None => Err(Found::crit("timed_out").fact("by", "tram-agent-helper")),
    }
}

/// The helper would not.
fn refused(why: Why) -> Found {
    match why {
        Why::NotThat => Found::crit("not_that"),
        other => Found::unknown("not_permitted").fact("refused", other.name()),
    }
}

/// Does it, where an exit code is all that counts.
pub(super) fn done<H: Host>(d: &Desk<H>, request: &Request) -> Found {
    ask(d, request).map_or_else(|f| f, |asked| asked.found())
}
