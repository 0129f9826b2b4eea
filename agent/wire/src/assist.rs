//! Support looks at a session beside its officer: what the officer at an endpoint is shown, and says.
//!
//! ```text
//! agent                                     gateway
//!   marks {shown}                       →             this screen can show that somebody looks
//!                                       ←   assist    who, why, and what the officer is asked
//!   assist_answer {question, allow}     →
//!   assist_stop                         →             cuts at once, whatever the controller does
//! ```
//! An agent that can't show what it is told answers *no* and stops.

use serde::{Deserialize, Serialize};

use crate::ids::AssistId;

/// Where an assist is, as its officer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Somebody asks to look.
    Asked,
    /// They may, and have not begun.
    Allowed,
    /// They look.
    Watching,
    /// They look, and ask for keyboard and mouse.
    ControlAsked,
    /// They look, and their keyboard and mouse reach the desktop.
    Controlling,
    /// Nobody looks any more.
    Over,
    /// One made after this build: to be marked as the most that it can be.
    #[serde(other)]
    Other,
}

impl Stage {
    /// What the officer is asked now.
    #[must_use]
    pub fn question(self) -> Option<Question> {
        match self {
            Self::Asked => Some(Question::Watch),
            Self::ControlAsked => Some(Question::Control),
            _ => None,
        }
    }

    /// Whether somebody looks, or may begin to at any moment.
    #[must_use]
    pub fn seen(self) -> bool {
        !matches!(self, Self::Asked | Self::Over)
    }
}

/// What an officer is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// To let somebody look.
    Watch,
    /// To let them type and use the mouse, too.
    Control,
    /// One made after this build; answered by nobody.
    #[serde(other)]
    Other,
}

/// Somebody of support looks at the session, or asks to; said at every change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assist {
    /// Which.
    pub assist: AssistId,
    /// Where it is.
    pub stage: Stage,
    /// Name of who looks.
    pub who: String,
    /// Why, in their own words.
    pub why: String,
    /// Seconds left to answer; without an answer it is a no.
    #[serde(default)]
    pub left_s: u32,
}

/// Whether this screen can show that somebody looks. Never said means no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// It can.
    pub shown: bool,
}

/// The officer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssistAnswer {
    /// Which.
    pub assist: AssistId,
    /// What was asked.
    pub question: Question,
    /// Yes.
    pub allow: bool,
}

/// The officer wants nobody to look any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssistStop {
    /// Which.
    pub assist: AssistId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_here_is_marked_and_not_asked() {
        let text = br#"{"assist":"01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3a","stage":"recording","who":"A","why":"b"}"#;
        let assist: Assist = serde_json::from_slice(text).unwrap();
        assert_eq!((assist.stage, assist.stage.question(), assist.stage.seen()), (Stage::Other, None, true));
        assert!(!Stage::Asked.seen() && !Stage::Over.seen() && Stage::ControlAsked.seen());
    }
}
