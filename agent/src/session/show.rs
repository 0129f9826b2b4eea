//! The desktop on the screen: the way there, the viewer, and what happens to both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tram_wire::desk::Problem;
use tram_wire::session::Denial;

use super::assist::Watched;
use super::control::{Control, ControlError};
use super::desk::{After, Desk, Leave, Officer, Way, gone};
use super::gateways;
use super::mark::{self, Mark, Tone, Words};
use super::page::Command;
use super::privacy;
use super::texts::text;
use super::tunnel::{Door, Line, OpenError, Over, Session};
use super::view::{Notice, Phase, View};
use super::viewer::{self, Ended, Viewer, ViewerError};
use crate::config::Address;
use crate::identity::Identity;
use crate::ledger::Ledger;

/// Keeps the sign-in alive.
const STILL_HERE: Duration = Duration::from_secs(60);
/// The first lease is asked for once the session has begun at the other end.
const FIRST_LEASE: Duration = Duration::from_secs(1);
/// A viewer that crashes more often than this within [`WITHIN`] is given up.
const CRASHES: usize = 3;
const WITHIN: Duration = Duration::from_secs(60);
/// The reason for an end is asked once, and not waited for longer.
const REASON: Duration = Duration::from_secs(5);

/// When the viewer crashed of late.
#[derive(Default)]
struct Crashes(Vec<Instant>);

impl Crashes {
    /// Counts one more; whether the viewer may be started again.
    fn again(&mut self, now: Instant) -> bool {
        self.0.retain(|at| now.duration_since(*at) < WITHIN);
        self.0.push(now);
        self.0.len() <= CRASHES
    }
}

fn fault(code: &str, detail: impl ToString) -> Problem {
    Problem { code: code.to_owned(), detail: detail.to_string(), remaining: None, retry_after_s: None }
}

impl Desk {
    /// Shows the desktop this way leads to, until it is left or over.
    pub(super) async fn show(&mut self, control: &Control, me: &Officer, way: Way, view: &mut View) -> After {
        (view.phase, view.step, view.notice) = (Phase::Opening, None, None);
        self.say(view.clone());
        let door = match self.door() {
            Ok(door) => door,
            Err(e) => return After::Again(Some(fault("D-102", e))),
        };
        let opening = async {
            match way {
                Way::Ticket(ticket) => Session::open(door, &ticket.ticket).await,
                Way::Lease(lease) => Session::open_by_lease(door, lease).await,
            }
        };
        tokio::pin!(opening);
        let session = loop {
            tokio::select! {
                opened = &mut opening => match opened {
                    Ok(session) => break Arc::new(session),
                    Err(OpenError::Dial(e)) => return After::Again(Some(fault("D-105", e))),
                    Err(OpenError::Refused(d)) => {
                        if d == Denial::Lease {
                            self.lease.void();
                        }
                        return After::Again(Some(fault(d.code(), "")));
                    }
                },
                command = self.commands.recv() => match command {
                    Some(Command::SignOut { end }) => return After::Leave(Leave { end, notice: None }),
                    Some(_) => {}
                    None => return After::Leave(gone()),
                },
            }
        };
        let marks = mark::possible().await;
        self.marks = marks;
        session.can_show(marks);
        let mut watched = Watched::new(&self.language.clone(), marks, self.page.clone());
        let after = self.watch(control, me, &session, view, &mut watched).await;
        // Nobody looks at a desktop whose officer has gone away from it.
        if let Some(words) = watched.stop() {
            session.say(&words);
        }
        if let Ok(session) = Arc::try_unwrap(session).map_err(drop) {
            session.leave().await;
        }
        after
    }

    fn door(&self) -> Result<Door, String> {
        let identity = Identity::load(&self.settings.state).map_err(|e| e.to_string())?;
        let controller = identity.controller.parse::<Address>().map_err(|e| e.to_string())?;
        let named = gateways::known(&self.settings.state);
        let all = gateways::all(named, &self.settings.gateways, controller);
        Door::new(all, &identity).map_err(|e| e.to_string())
    }

    /// What the controller says of gateways while a session is open.
    fn learn(&self, session: &Session, named: &[String]) {
        if named.is_empty() {
            return;
        }
        gateways::keep(&self.settings.state, named);
        let controller = Identity::load(&self.settings.state).ok().and_then(|i| i.controller.parse().ok());
        if let Some(controller) = controller {
            let named = gateways::known(&self.settings.state);
            session.learn(gateways::all(named, &self.settings.gateways, controller));
        }
    }

    /// Starts the viewer again while that makes sense.
    async fn watch(
        &mut self,
        control: &Control,
        me: &Officer,
        session: &Arc<Session>,
        view: &mut View,
        watched: &mut Watched,
    ) -> After {
        let mut crashes = Crashes::default();
        let mut viewers = self.settings.viewers.clone();
        loop {
            let Some(viewer) = Viewer::choose(&viewers, session.protocols()).cloned() else {
                return After::Ask(Some(Notice::new("D-103")));
            };
            match self.watch_one(control, me, session, &viewer, view, watched).await {
                Ok(after) => return after,
                // A ticket names what this endpoint may use; what the desktop has is known only now.
                Err(Some(ViewerError::NotSpoken)) if session.status().borrow().line == Line::Up => {
                    viewers.retain(|v| v.protocol() != viewer.protocol());
                }
                Err(Some(e)) if !crashes.again(Instant::now()) => {
                    let code = if matches!(e, ViewerError::Start(_)) { "D-106" } else { "D-104" };
                    return After::Ask(Some(Notice::new(code)));
                }
                // It crashed, or its streams are of a gateway that is gone.
                Err(_) => {}
            }
        }
    }

    /// One run of the viewer. An error asks for another one; `None` if this one is not to blame.
    async fn watch_one(
        &mut self,
        control: &Control,
        me: &Officer,
        session: &Arc<Session>,
        viewer: &Viewer,
        view: &mut View,
        watched: &mut Watched,
    ) -> Result<After, Option<ViewerError>> {
        let mut status = session.status();
        let generation = status.borrow_and_update().generation;
        let (protocol, way) = (viewer.protocol(), session.clone());
        let open = move |up, down| way.stream(protocol, up, down).map_err(io::Error::other);
        let (folder, profile) = (self.settings.folder.clone(), self.settings.profile.clone());
        let running = viewer::run(viewer, &folder, open);
        let reset = profile.gone();
        tokio::pin!(running, reset);
        let mut still_here = interval(STILL_HERE);
        still_here.set_missed_tick_behavior(MissedTickBehavior::Delay);
        still_here.tick().await;
        let mut lease_due = Box::pin(sleep(FIRST_LEASE));
        view.problem = None;
        // What the officer was warned of and has read.
        let mut read: Option<String> = None;
        // Says over the viewer that the line stands still: its picture looks as if nothing were wrong.
        let mut stalled: Option<Mark> = None;
        loop {
            let now = status.borrow_and_update().clone();
            view.warning = now.warning.clone();
            view.lease_until_ms = self.lease.held().filter(|_| now.leased).map(|(_, lease)| lease.expires_ms);
            if let Some(words) = watched.follow(now.assist.clone()) {
                session.say(&words);
            }
            let seen = watched.seen();
            privacy::remember(&Ledger::of(&self.settings.state), view.assist.as_ref(), seen.as_ref());
            view.assist = seen;
            let warned = view.warning.as_ref().map(|w| w.code.clone());
            read = read.filter(|r| warned.as_ref() == Some(r));
            view.phase = match now.line {
                Line::Up if watched.asks() => Phase::Asked,
                Line::Up if warned.is_some() && read.is_none() => Phase::Warned,
                Line::Up => Phase::Desktop,
                Line::Lost { gateway, .. } => {
                    view.gateway_lost = gateway;
                    Phase::Lost
                }
                Line::Over(over) => return Ok(self.over(control, me, over).await),
            };
            stalled = match stalled {
                Some(bar) if now.stalled => Some(bar),
                None if now.stalled => self.bar(&self.language.clone(), "line_stalled"),
                _ => None,
            };
            if now.generation != generation {
                return Err(None);
            }
            watched.asked(self.say(view.clone()));
            tokio::select! {
                ended = &mut running => return match ended {
                    // It went because its gateway did.
                    _ if status.borrow().generation != generation => Err(None),
                    Ok(Ended::Closed) => Ok(After::Ask(None)),
                    Ok(Ended::Crashed) => Err(Some(ViewerError::Silent)),
                    Err(e) => Err(Some(e)),
                },
                changed = status.changed() => if changed.is_err() {
                    return Ok(self.over(control, me, Over::Left).await);
                },
                // Its profile was thrown away: it begins anew, with none.
                () = &mut reset => return Err(None),
                words = watched.due() => if let Some(words) = words {
                    session.say(&words);
                },
                _ = still_here.tick() => {
                    // Not awaited for long: the viewer's end must not wait for a thin line. Whatever the answer,
                    // nobody's work is taken from the screen: a sign-in that lasted as long as one may matters
                    // once the viewer is left, and who may not go on is cut by the gateway.
                    if let Some(token) = &me.token
                        && let Ok(Ok(current)) = timeout(REASON, control.session(token)).await
                    {
                        self.learn(session, &current.gateways);
                    }
                }
                () = &mut lease_due => {
                    let next = match &me.token {
                        Some(token) => timeout(REASON, self.lease.renew(token)).await.unwrap_or(STILL_HERE),
                        None => STILL_HERE,
                    };
                    session.hold(self.lease.held().map(|(signed, _)| signed));
                    lease_due = Box::pin(sleep(next));
                }
                command = self.commands.recv() => match command {
                    Some(Command::SignOut { end }) => return Ok(After::Leave(Leave { end, notice: None })),
                    Some(Command::Again) => read = warned,
                    Some(Command::Answer { allow }) => {
                        if let Some(words) = watched.answer(allow) {
                            session.say(&words);
                        }
                    }
                    Some(Command::StopAssist) => {
                        if let Some(words) = watched.stop() {
                            session.say(&words);
                        }
                    }
                    Some(_) => {}
                    None => return Ok(After::Leave(gone())),
                },
            }
        }
    }

    /// A sentence over everything; only with X.
    fn bar(&self, language: &str, key: &str) -> Option<Mark> {
        let call = text(language, "call", &[("phone", &self.phone())]).filter(|_| !self.phone().is_empty());
        let sentence = [text(language, key, &[]), call].into_iter().flatten().collect::<Vec<_>>().join(" ");
        self.marks.then(|| Mark::show(Words { sentence, stop: String::new(), tone: Tone::Look }))
    }

    /// What an end means. The controller knows best why a session ended.
    async fn over(&self, control: &Control, me: &Officer, over: Over) -> After {
        match over {
            // The gateway goes away, or knows us no more: the same desktop, by a new ticket.
            Over::Ended(1012) => return After::Again(None),
            Over::Refused(d @ (Denial::UnknownSession | Denial::Ticket | Denial::Unavailable)) => {
                return After::Again(Some(fault(d.code(), "")));
            }
            Over::Ended(_) | Over::Refused(_) | Over::Left => {}
        }
        let asked = async {
            match &me.token {
                Some(token) => control.session(token).await.map(|current| current.session),
                // Who came in by a lease has no sign-in to ask with.
                None => Ok(None),
            }
        };
        let session = match timeout(REASON, asked).await {
            Ok(Ok(session)) => session,
            // The sign-in went with the session, as when an account is switched off.
            Ok(Err(ControlError::Refused(p))) if p.code == "A-100" => {
                return After::Leave(Leave { end: false, notice: Some(Notice::new(p.code)) });
            }
            _ => None,
        };
        let reason = session.filter(|s| s.state == "ended").and_then(|s| s.end_reason);
        After::Ask(match (reason, over) {
            (Some(reason), _) => Some(Notice::new(format!("end_{reason}"))),
            (None, Over::Ended(code)) => Some(Notice::new(format!("over_{code}"))),
            (None, Over::Refused(d)) => Some(Notice::new(d.code())),
            (None, Over::Left) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_may_crash_three_times_a_minute() {
        let (mut crashes, begun) = (Crashes::default(), Instant::now());
        let at = |s| begun + Duration::from_secs(s);
        assert!(crashes.again(at(0)) && crashes.again(at(1)) && crashes.again(at(2)));
        assert!(!crashes.again(at(3)));
        assert!(crashes.again(at(70)));
    }
}
