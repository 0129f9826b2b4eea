//! Assist: somebody of support looks at an officer's session beside them, and nobody is put out for it.
//!
//! ```text
//! asked -> allowed -> active
//!   any of them ------------> ended
//! ```
//! Looking is one thing, keyboard and mouse another: that is asked for by itself, while looking.

use std::time::Duration;

use super::ticket::Place;

text_enum! {
    /// What an officer says before somebody looks.
    Consent {
        /// Nothing: by law or by the role. The mark is shown all the same.
        None = "none",
        /// Nothing, but they are told.
        Notify = "notify",
        /// They are asked; who does not answer has said no.
        Ask = "ask",
    }
}

text_enum! {
    /// Where an assist is.
    AssistState {
        /// The officer has the question before them.
        Asked = "asked",
        /// It may begin.
        Allowed = "allowed",
        /// Somebody looks.
        Active = "active",
        /// Over.
        Ended = "ended",
    }
}

text_enum! {
    /// Whether support's keys and mouse reach the desktop.
    Control {
        /// Not asked for.
        None = "none",
        /// The officer has the question before them.
        Asked = "asked",
        /// They do.
        Granted = "granted",
        /// The officer said no.
        Refused = "refused",
    }
}

text_enum! {
    /// Why an assist is over.
    AssistEnd {
        /// The officer said no.
        Refused = "refused",
        /// The officer did not answer in time.
        Expired = "expired",
        /// It was allowed, and nobody came.
        Unused = "unused",
        /// The officer stopped it.
        Officer = "officer",
        /// Who asked for it stopped it.
        Supporter = "supporter",
        /// Another one of support or an operator stopped it.
        Staff = "staff",
        /// Their viewer went away.
        Left = "left",
        /// The session is over.
        SessionOver = "session_over",
        /// Who asked for it signed out, or may not look at this session any more.
        NotAllowed = "not_allowed",
        /// It lasted as long as one may.
        Longest = "longest",
        /// Its gateway is gone.
        GatewayLost = "gateway_lost",
    }
}

text_enum! {
    /// What an officer is asked.
    Question {
        /// To let somebody look.
        Watch = "watch",
        /// To let them type and use the mouse, too.
        Control = "control",
    }
}

/// How long an officer has to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long a permission waits for whoever asked for it.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(60);
/// How long one assist may last; who needs longer asks again.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Longest reason given for one.
pub const REASON_MOST: usize = 200;

impl Consent {
    /// What holds where the session is used. An endpoint without a screen of which it said that it can show a
    /// mark over the viewer tells its officer nothing: what can't be told must be asked, whatever the policy.
    #[must_use]
    pub fn at(self, place: Option<Place>, shown: bool) -> Self {
        if place == Some(Place::Endpoint) && !shown { Self::Ask } else { self }
    }

    /// Where an assist begins.
    #[must_use]
    pub fn first_state(self) -> (AssistState, Duration) {
        match self {
            Self::Ask => (AssistState::Asked, ANSWER_WITHIN),
            Self::None | Self::Notify => (AssistState::Allowed, BEGIN_WITHIN),
        }
    }

    /// What becomes of a request for control. To be told is enough for being looked at, not for having
    /// one's mouse taken.
    #[must_use]
    pub fn first_control(self) -> Control {
        if self == Self::None { Control::Granted } else { Control::Asked }
    }
}

/// What is known of a live assist.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Where it is.
    pub state: AssistState,
    /// Its session is not over.
    pub session_live: bool,
    /// Who asked for it is still signed in, of support or an operator, and has the site in scope.
    pub allowed: bool,
    /// The state it is in has run out.
    pub overdue: bool,
    /// The gateway that carries it lives.
    pub gateway_lives: bool,
}

/// Whether an assist is over, and why.
#[must_use]
pub fn over(s: &Standing) -> Option<AssistEnd> {
    let by_time = match s.state {
        AssistState::Asked => AssistEnd::Expired,
        AssistState::Allowed => AssistEnd::Unused,
        AssistState::Active => AssistEnd::Longest,
        AssistState::Ended => return None,
    };
    [
        (!s.session_live, AssistEnd::SessionOver),
        (!s.allowed, AssistEnd::NotAllowed),
        (s.overdue, by_time),
        (!s.gateway_lives, AssistEnd::GatewayLost),
    ]
    .into_iter()
    .find_map(|(so, why)| so.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Standing =
        Standing { state: AssistState::Active, session_live: true, allowed: true, overdue: false, gateway_lives: true };

    #[test]
    fn silence_is_a_no_and_time_ends_every_state() {
        assert_eq!(over(&FINE), None);
        for (state, why) in [
            (AssistState::Asked, AssistEnd::Expired),
            (AssistState::Allowed, AssistEnd::Unused),
            (AssistState::Active, AssistEnd::Longest),
        ] {
            assert_eq!(over(&Standing { state, overdue: true, ..FINE }), Some(why));
            assert_eq!(over(&Standing { state, allowed: false, ..FINE }), Some(AssistEnd::NotAllowed));
            assert_eq!(over(&Standing { state, session_live: false, ..FINE }), Some(AssistEnd::SessionOver));
        }
        assert_eq!(over(&Standing { gateway_lives: false, ..FINE }), Some(AssistEnd::GatewayLost));
        assert_eq!(over(&Standing { state: AssistState::Ended, allowed: false, ..FINE }), None);
    }

    #[test]
    fn what_can_not_be_told_is_asked_and_control_is_asked_unless_the_law_says_otherwise() {
        let (browser, endpoint) = (Some(Place::Browser), Some(Place::Endpoint));
        for consent in Consent::ALL {
            assert_eq!(consent.at(browser, false), *consent);
            assert_eq!(consent.at(endpoint, true), *consent);
            assert_eq!(consent.at(endpoint, false), Consent::Ask, "nobody is looked at in silence");
        }
        assert_eq!(Consent::Notify.first_state().0, AssistState::Allowed);
        assert_eq!(Consent::Ask.first_state(), (AssistState::Asked, ANSWER_WITHIN));
        assert_eq!(
            [Consent::None, Consent::Notify, Consent::Ask].map(Consent::first_control),
            [Control::Granted, Control::Asked, Control::Asked]
        );
    }
}
