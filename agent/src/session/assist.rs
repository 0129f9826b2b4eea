//! What the officer at this screen is told of support, and what they say to it.
//!
//! The question comes before the desktop on the page; while anybody looks, the [`mark`](super::mark) stands over
//! everything. A screen that can't show one of them says no, and stops.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tram_wire::assist::{Assist, AssistAnswer, AssistStop, Stage};
use tram_wire::ids::AssistId;
use tram_wire::session::ToGateway;

use super::mark::{Mark, Tone, Words};
use super::screen;
use super::texts::text;

/// A question must be before the officer's eyes within this time.
const SHOWN: Duration = Duration::from_secs(10);

/// What the page shows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Where it is.
    pub stage: Stage,
    /// Who looks, or asks to.
    pub who: String,
    /// Why.
    pub why: String,
    /// Seconds left to answer.
    pub left_s: u64,
}

/// What was heard of an assist, and when.
pub type Heard = (Assist, Instant);

/// Support at one desktop on this screen.
pub(super) struct Watched {
    language: String,
    /// The mark can be shown here.
    marks: bool,
    /// How far the page got with what is shown; there is none in a terminal.
    page: Option<watch::Receiver<u64>>,
    now: Option<Heard>,
    /// The question the officer has answered, or that has run out.
    settled: Option<(AssistId, Stage)>,
    stopping: Option<AssistId>,
    /// Until when the page must show the question; and the question's number there.
    proof: Option<(Instant, u64)>,
    mark: Option<Mark>,
}

impl Watched {
    pub(super) fn new(language: &str, marks: bool, page: Option<watch::Receiver<u64>>) -> Self {
        let language = language.to_owned();
        Self { language, marks, page, now: None, settled: None, stopping: None, proof: None, mark: None }
    }

    fn key(heard: Option<&Heard>) -> Option<(AssistId, Stage)> {
        heard.map(|(a, _)| (a.assist, a.stage))
    }

    /// Takes on what the gateway says; what has to be answered to that at once.
    pub(super) fn follow(&mut self, heard: Option<Heard>) -> Option<ToGateway> {
        if Self::key(heard.as_ref()) == Self::key(self.now.as_ref()) {
            return None;
        }
        // What is asked again, after something else was said, is a new question.
        (self.now, self.settled, self.proof) = (heard, None, None);
        let (a, at) = match &self.now {
            Some((a, at)) if a.stage != Stage::Over => (a, *at),
            _ => {
                (self.mark, self.stopping) = (None, None);
                return None;
            }
        };
        if a.stage.question().is_some() {
            if !self.marks || self.page.is_none() {
                return self.answer(false);
            }
            self.proof = Some((at + SHOWN, u64::MAX));
        }
        self.draw()
    }

    /// Brings the mark up to date; an end, if there can't be one.
    fn draw(&mut self) -> Option<ToGateway> {
        let (a, _) = self.now.as_ref().filter(|(a, _)| a.stage.seen())?;
        if !self.marks {
            return self.stop();
        }
        let (key, tone) = match a.stage {
            _ if self.stopping == Some(a.assist) => ("mark_stopping", Tone::Look),
            Stage::Allowed => ("mark_allowed", Tone::Look),
            Stage::Watching | Stage::ControlAsked => ("mark_watching", Tone::Look),
            _ => ("mark_controlling", Tone::Control),
        };
        let say = |key, values: &[(&str, &str)]| text(&self.language, key, values).unwrap_or_default();
        let sentence = say(key, &[("who", &a.who), ("why", &a.why)]);
        let words = Words { sentence, stop: say("mark_stop", &[]), tone };
        match &self.mark {
            Some(mark) => mark.say(words),
            None => self.mark = Some(Mark::show(words)),
        }
        None
    }

    /// Whether the officer has a question before them.
    pub(super) fn asks(&self) -> bool {
        let now = Self::key(self.now.as_ref());
        now.is_some_and(|(_, stage)| stage.question().is_some()) && now != self.settled
    }

    /// For the page.
    pub(super) fn seen(&self) -> Option<Seen> {
        let (a, _) = self.now.as_ref()?;
        let left_s = self.until().saturating_duration_since(Instant::now()).as_secs();
        Some(Seen { stage: a.stage, who: a.who.clone(), why: a.why.clone(), left_s })
    }

    fn until(&self) -> Instant {
        let (left, at) = self.now.as_ref().map_or((0, Instant::now()), |(a, at)| (a.left_s, *at));
        at + Duration::from_secs(left.into())
    }

    /// The question stands on the page with this number.
    pub(super) fn asked(&mut self, version: u64) {
        if let Some((_, number @ u64::MAX)) = &mut self.proof {
            *number = version;
        }
    }

    /// The officer's answer to what they are asked now.
    pub(super) fn answer(&mut self, allow: bool) -> Option<ToGateway> {
        let (a, _) = self.now.as_ref()?;
        let (assist, question) = (a.assist, a.stage.question()?);
        (self.settled, self.proof) = (Self::key(self.now.as_ref()), None);
        Some(ToGateway::AssistAnswer(AssistAnswer { assist, question, allow }))
    }

    /// Nobody shall look any more, or ask to.
    pub(super) fn stop(&mut self) -> Option<ToGateway> {
        let (a, _) = self.now.as_ref().filter(|(a, _)| a.stage != Stage::Over)?;
        let assist = a.assist;
        self.stopping = Some(assist);
        self.settled = Self::key(self.now.as_ref());
        if self.mark.is_some() {
            self.draw();
        }
        Some(ToGateway::AssistStop(AssistStop { assist }))
    }

    /// Waits for what happens on the screen by itself; perhaps with words for the gateway.
    pub(super) async fn due(&mut self) -> Option<ToGateway> {
        let (asks, until) = (self.asks(), self.until());
        let proof = self.proof.filter(|_| asks);
        let stopped = async {
            match &mut self.mark {
                Some(mark) => mark.stopped().await,
                None => std::future::pending().await,
            }
        };
        let proved = async {
            match proof {
                Some((by, _)) => sleep_until(by).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            pressed = stopped => {
                if pressed.is_none() {
                    // The bar is gone from the screen: nobody looks without one.
                    (self.mark, self.marks) = (None, false);
                }
                self.stop()
            }
            () = sleep_until(until), if asks => {
                self.settled = Self::key(self.now.as_ref());
                None
            }
            () = proved => {
                let number = proof.map_or(u64::MAX, |(_, n)| n);
                let drawn = self.page.as_ref().is_some_and(|p| *p.borrow() >= number);
                if drawn && screen::is_front(screen::PAGE).await {
                    self.proof = None;
                    return None;
                }
                self.answer(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(stage: Stage, left_s: u32) -> Option<Heard> {
        let assist = "01992f3c-7a10-7c3e-8a41-5f0c7d1e2b3b".parse().unwrap();
        Some((Assist { assist, stage, who: "Hoa".into(), why: "máy in".into(), left_s }, Instant::now()))
    }

    fn is_no(said: Option<ToGateway>) -> bool {
        matches!(said, Some(ToGateway::AssistAnswer(AssistAnswer { allow: false, .. })))
    }

    #[tokio::test]
    async fn what_can_not_be_shown_is_refused_or_stopped_at_once() {
        let page = watch::channel(0).1;
        for (marks, page) in [(false, Some(page)), (true, None)] {
            let mut w = Watched::new("vi", marks, page);
            assert!(is_no(w.follow(heard(Stage::Asked, 30))) && !w.asks());
        }
        let mut w = Watched::new("vi", false, None);
        for stage in [Stage::Allowed, Stage::Watching, Stage::Controlling, Stage::Other] {
            assert!(matches!(w.follow(heard(stage, 0)), Some(ToGateway::AssistStop(_))), "{stage:?}");
        }
    }

    fn earlier(heard: Option<Heard>, by: Duration) -> Option<Heard> {
        heard.map(|(a, at)| (a, at - by))
    }

    #[tokio::test]
    async fn a_page_that_does_not_come_up_is_a_no_and_so_is_silence() {
        let (drawn, page) = watch::channel(0);
        let mut w = Watched::new("vi", true, Some(page));
        assert_eq!(w.follow(earlier(heard(Stage::Asked, 30), SHOWN)), None);
        w.asked(7);
        drawn.send_replace(6);
        assert!(w.asks() && is_no(w.due().await), "the page never got that far");
        // Time runs out before the page could be judged.
        assert_eq!(w.follow(None), None);
        assert_eq!(w.follow(earlier(heard(Stage::Asked, 5), Duration::from_secs(5))), None);
        assert_eq!(w.due().await, None);
        assert!(!w.asks() && w.seen().is_some_and(|s| s.left_s == 0));
        // What is asked anew is asked.
        assert_eq!(w.follow(None), None);
        assert_eq!(w.follow(heard(Stage::Asked, 30)), None);
        assert!(w.asks() && w.answer(true).is_some() && !w.asks());
    }
}
