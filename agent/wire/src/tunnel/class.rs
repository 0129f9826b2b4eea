//! Who goes first.

use serde::{Deserialize, Serialize};

/// What a stream carries, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Set-up of sessions and channels.
    Control,
    /// Keys and the mouse.
    Input,
    /// Sound: late is worse than never.
    Audio,
    /// Pictures.
    Display,
    /// Files, devices, the clipboard.
    Bulk,
}

impl Class {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Control, Self::Input, Self::Audio, Self::Display, Self::Bulk];

    /// Its place among them.
    #[must_use]
    pub fn rank(self) -> usize {
        self as usize
    }

    pub(super) fn of_rank(rank: u8) -> Option<Self> {
        Self::ALL.get(usize::from(rank)).copied()
    }
}
