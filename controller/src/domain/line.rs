//! The waiting line: officers for whom no desktop is free, served in the order they came.
//!
//! Everybody waits for desktops of some sites (their scope). Whoever came first among those who may have a
//! desktop gets it; somebody who waits for other sites is no hindrance.

use std::time::Duration;

use tram_wire::ids::SessionId;

use super::access::Scope;

/// A place in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The session that waits.
    pub id: SessionId,
    /// For desktops of these sites.
    pub scope: Scope,
}

/// Who asked for nothing this long has gone away.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How far back desktops that became free are counted to estimate the wait.
pub const LOOK_BACK: Duration = Duration::from_secs(30 * 60);

/// Fewer than this many tell nothing.
const ENOUGH: i64 = 3;

text_enum! {
    /// Why somebody has to wait.
    Cause {
        /// Every desktop is in use.
        Busy = "busy",
        /// Some are out of order or their host is down, the others in use.
        OutOfOrder = "out_of_order",
    }
}

/// Whether two people may get the same desktop.
#[must_use]
pub fn compete(a: &Scope, b: &Scope) -> bool {
    match (a, b) {
        (Scope::All, _) | (_, Scope::All) => true,
        (Scope::Sites(a), Scope::Sites(b)) => a.iter().any(|code| b.contains(code)),
    }
}

/// The position in the line, from 1, and how long the line is, among those who compete. `line` is in order.
#[must_use]
pub fn position(line: &[Place], id: SessionId) -> Option<(usize, usize)> {
    let at = line.iter().position(|p| p.id == id)?;
    let mine = &line[at].scope;
    let competing = |places: &[Place]| places.iter().filter(|p| compete(&p.scope, mine)).count();
    Some((competing(&line[..at]) + 1, competing(line)))
}

/// Seconds until the desktop is up, from how many became free within [`LOOK_BACK`] and how long boots take.
/// `None` when too few did: then any number would be a guess.
#[must_use]
pub fn estimate(position: usize, freed: i64, boot: Duration) -> Option<u64> {
    if freed < ENOUGH {
        return None;
    }
    let each = LOOK_BACK.as_secs_f64() / freed as f64;
    Some((each * position as f64 + boot.as_secs_f64()).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn place(n: u128, sites: &[&str]) -> Place {
        let scope =
            if sites.is_empty() { Scope::All } else { Scope::Sites(sites.iter().map(|s| (*s).to_owned()).collect()) };
        Place { id: SessionId(Uuid::from_u128(n)), scope }
    }

    #[test]
    fn only_those_who_want_the_same_desktops_stand_in_front() {
        let line = [place(1, &["a"]), place(2, &["b"]), place(3, &["a", "b"]), place(4, &["a"]), place(5, &[])];
        let at = |n: u128| position(&line, SessionId(Uuid::from_u128(n)));
        assert_eq!(at(1), Some((1, 4)));
        assert_eq!(at(2), Some((1, 3)));
        assert_eq!(at(3), Some((3, 5)));
        assert_eq!(at(4), Some((3, 4)));
        assert_eq!(at(5), Some((5, 5)));
        assert_eq!(at(6), None);
    }

    #[test]
    fn an_estimate_needs_something_measured() {
        let boot = Duration::from_secs(40);
        assert_eq!(estimate(1, 2, boot), None);
        assert_eq!(estimate(1, 30, boot), Some(100));
        assert_eq!(estimate(3, 30, boot), Some(220));
    }
}
