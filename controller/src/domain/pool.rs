//! Pools: how many desktops there should be, and the steps to get there.

use tram_wire::ids::DesktopId;

use super::desktop::{DesiredDesktop, DesktopState};

text_enum! {
    /// Whether a pool should exist.
    DesiredPool {
        /// Yes.
        Present = "present",
        /// No: desktops first, then the row.
        Absent = "absent",
    }
}

/// Largest pool one request may ask for.
pub const MAX_SIZE: i64 = 2000;

/// Desktops inserted per pass, so that one huge pool does not hold the writer.
pub const SURGE: usize = 200;

/// What planning needs to know of one desktop.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which one.
    pub id: DesktopId,
    /// Its number within the pool, from 1; names end with it.
    pub ordinal: i64,
    /// Where it is.
    pub state: DesktopState,
    /// What is wanted of it.
    pub desired: DesiredDesktop,
    /// Somebody has it.
    pub assigned: bool,
}

/// One change to a pool's desktops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Insert a desktop with this number.
    Add(i64),
    /// This one has to go.
    Remove(DesktopId),
}

/// The steps from what is to `size` desktops (0 for a pool that shall be absent), at most [`SURGE`].
///
/// Surplus desktops go in this order: failed ones, ones nobody has, highest number first. An assigned
/// desktop goes only if nothing else can, and the caller has asked the operator before.
#[must_use]
pub fn plan(size: i64, members: &[Member]) -> Vec<Change> {
    let mut staying: Vec<&Member> = members.iter().filter(|m| m.desired != DesiredDesktop::Absent).collect();
    let want = usize::try_from(size).unwrap_or(0);
    if staying.len() < want {
        let mut taken: Vec<i64> = members.iter().map(|m| m.ordinal).collect();
        taken.sort_unstable();
        let free = (1..).filter(|n| taken.binary_search(n).is_err());
        return free.take((want - staying.len()).min(SURGE)).map(Change::Add).collect();
    }
    staying.sort_by_key(|m| (m.assigned, m.state != DesktopState::Failed, -m.ordinal));
    let surplus = staying.len() - want;
    staying.into_iter().take(surplus.min(SURGE)).map(|m| Change::Remove(m.id)).collect()
}

/// A desktop's name: pool name, hyphen, number with at least two digits.
#[must_use]
pub fn desktop_name(pool: &str, ordinal: i64) -> String {
    format!("{pool}-{ordinal:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn member(ordinal: i64, state: DesktopState, assigned: bool) -> Member {
        Member {
            id: DesktopId(Uuid::from_u128(ordinal.unsigned_abs().into())),
            ordinal,
            state,
            desired: DesiredDesktop::Running,
            assigned,
        }
    }

    #[test]
    fn growing_fills_gaps_and_never_reuses_the_number_of_one_on_its_way_out() {
        let mut two = member(2, DesktopState::Deleting, false);
        two.desired = DesiredDesktop::Absent;
        let members = [member(1, DesktopState::Running, false), two, member(4, DesktopState::Running, false)];
        assert_eq!(plan(4, &members), [Change::Add(3), Change::Add(5)]);
    }

    #[test]
    fn shrinking_spares_the_assigned_and_takes_the_failed_first() {
        let members = [
            member(1, DesktopState::Failed, false),
            member(2, DesktopState::Running, false),
            member(3, DesktopState::Running, true),
        ];
        let id = |n| DesktopId(Uuid::from_u128(n));
        assert_eq!(plan(2, &members), [Change::Remove(id(1))]);
        assert_eq!(plan(1, &members), [Change::Remove(id(1)), Change::Remove(id(2))]);
        assert_eq!(plan(0, &members).len(), 3);
    }

    #[test]
    fn applying_the_plan_reaches_the_size_and_then_nothing_is_left_to_do() {
        for (from, to) in [(0, 50), (50, 3), (7, 7), (0, 1000), (450, 0)] {
            let mut members: Vec<_> = (1..=from).map(|n| member(n, DesktopState::Running, n % 3 == 0)).collect();
            for _ in 0..20 {
                let steps = plan(to, &members);
                if steps.is_empty() {
                    break;
                }
                for s in steps {
                    match s {
                        Change::Add(n) => members.push(member(n, DesktopState::Planned, false)),
                        Change::Remove(id) => members.retain(|m| m.id != id),
                    }
                }
            }
            assert_eq!(members.len() as i64, to);
            assert!(plan(to, &members).is_empty());
        }
    }
}
