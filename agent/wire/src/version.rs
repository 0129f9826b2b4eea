//! Protocol versions and how two ends agree on one.

use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;

/// The newest version this build speaks.
pub const CURRENT: u16 = 1;

/// The oldest version this build still speaks.
pub const MINIMUM: u16 = 1;

/// An inclusive range of versions one end speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Oldest.
    pub min: u16,
    /// Newest.
    pub max: u16,
}

/// What this build speaks.
pub const OURS: Versions = Versions { min: MINIMUM, max: CURRENT };

/// The newest version both ends speak, or the refusal that tells the other end what we do speak.
pub fn negotiate(theirs: Versions) -> Result<u16, Refusal> {
    agree(OURS, theirs).ok_or(Refusal::Version { min: MINIMUM, max: CURRENT })
}

fn agree(ours: Versions, theirs: Versions) -> Option<u16> {
    let newest = ours.max.min(theirs.max);
    (newest >= ours.min.max(theirs.min)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(min: u16, max: u16) -> Versions {
        Versions { min, max }
    }

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(agree(v(2, 4), v(1, 3)), Some(3));
        assert_eq!(agree(v(2, 4), v(4, 9)), Some(4));
    }

    #[test]
    fn ranges_that_do_not_meet_are_refused() {
        assert_eq!(agree(v(2, 4), v(1, 1)), None);
        assert_eq!(agree(v(2, 4), v(5, 9)), None);
        assert_eq!(negotiate(v(CURRENT + 1, CURRENT + 2)), Err(Refusal::Version { min: MINIMUM, max: CURRENT }));
    }

    #[test]
    fn an_inverted_range_is_refused_not_guessed() {
        assert_eq!(agree(v(1, 4), v(3, 2)), None);
    }
}
