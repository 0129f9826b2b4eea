//! The officer's day at this endpoint: sign in, wait, work, come back, sign out.
//!
//! ```text
//! sign-in ─► waiting ─► opening ─► desktop ⇄ lost
//!    ▲          ▲                     │
//!    │          └──── again ── left ◄─┘ viewer closed, or the session ended: with the reason
//!    └── signed out ◄──┘
//! ```
//! One task, one officer. [`super::show`] is the part with the desktop on the screen.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tram_wire::desk::{Connected, Problem, Ticket};
use tram_wire::lease::Signed;

use super::control::{Control, ControlError};
use super::gateways;
use super::lease::Lessee;
use super::page::{Command, Shown};
use super::view::{Notice, Phase, View, problem};
use super::viewer::{Profile, Viewer};
use crate::config::Address;
use crate::identity::Identity;

/// Between two questions whether the desktop is ready.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The officer waits in front of the screen: a goodbye takes no longer.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the desk works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the identity.
    pub state: PathBuf,
    /// A private folder for sockets.
    pub folder: PathBuf,
    /// Gateways to try after those the controller names; the controller's own address comes last.
    pub gateways: Vec<Address>,
    /// Viewers, the best first.
    pub viewers: Vec<Viewer>,
    /// What they keep.
    pub profile: Profile,
}

/// How the officer leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leave {
    /// The session ends too.
    pub(super) end: bool,
    /// The sign-in is void already; why.
    pub(super) notice: Option<Notice>,
}

/// What became of a desktop that was on the screen.
pub(super) enum After {
    /// Ask the officer what next.
    Ask(Option<Notice>),
    /// Get a new ticket and go on; with a fault that is shown meanwhile.
    Again(Option<Problem>),
    /// Signed out.
    Leave(Leave),
}

/// One endpoint's desk.
pub struct Desk {
    pub(super) settings: Settings,
    pub(super) commands: mpsc::Receiver<Command>,
    view: watch::Sender<Shown>,
    /// This screen can show a bar over everything.
    pub(super) marks: bool,
    /// The language the officer reads.
    pub(super) language: String,
    /// How far the page got with it.
    pub(super) page: Option<watch::Receiver<u64>>,
    /// What lets the officer in while the controller is away.
    pub(super) lease: Lessee,
}

/// Who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Officer {
    /// Name for people.
    pub(super) name: String,
    /// For the controller; none for who came in by a lease.
    pub(super) token: Option<String>,
}

/// What opens the desktop.
pub(super) enum Way {
    /// From the controller.
    Ticket(Ticket),
    /// The controller is away.
    Lease(Signed),
}

impl Desk {
    /// A desk that shows on `view` and hears `commands`.
    #[must_use]
    pub fn new(settings: Settings, view: watch::Sender<Shown>, commands: mpsc::Receiver<Command>) -> Self {
        let lease = Lessee::new(&settings.state);
        Self { settings, commands, view, marks: false, language: "vi".to_owned(), page: None, lease }
    }

    /// With a page that says how far it got with what is shown: only there officers are asked anything.
    #[must_use]
    pub fn on_page(self, drawn: watch::Receiver<u64>) -> Self {
        Self { page: Some(drawn), ..self }
    }

    /// Serves officers until nobody can command it any more.
    pub async fn run(mut self) {
        let mut notice = None;
        while let Some((control, me)) = self.sign_in(notice.take()).await {
            let leave = self.work(&control, &me).await;
            if let Some(token) = me.token.as_ref().filter(|_| leave.notice.is_none()) {
                // Without an answer the token ends by itself; the agent forgets it here and now.
                let _ = timeout(GOODBYE, control.sign_out(token, leave.end)).await;
            }
            self.lease.leave(leave.end);
            notice = leave.notice;
        }
    }

    /// Shows something else; its number. What the line does, whom to call, and how far that and the enrolment are, is
    /// somebody else's to say.
    pub(super) fn say(&self, view: View) -> u64 {
        self.view.send_modify(|(version, shown)| {
            let (phone, call, order) = (shown.phone.clone(), shown.call.clone(), shown.order.clone());
            let enrolling = shown.enrolling.clone();
            let view = View { cause: shown.cause, phone, call, order, enrolling, ..view };
            if *shown != view {
                (*version, *shown) = (*version + 1, view);
            }
        });
        self.view.borrow().0
    }

    /// Whom to call.
    pub(super) fn phone(&self) -> String {
        self.view.borrow().1.phone.clone()
    }

    async fn sign_in(&mut self, notice: Option<Notice>) -> Option<(Control, Officer)> {
        self.say(View::sign_in(notice));
        loop {
            let Command::SignIn(who) = self.commands.recv().await? else { continue };
            self.say(View { phase: Phase::Signing, ..View::default() });
            // Read each time: it was renewed since, or the computer was enrolled anew.
            let control = Identity::load(&self.settings.state)
                .map_err(|e| ControlError::Identity(e.to_string()))
                .and_then(|identity| Control::new(&identity));
            let control = match control {
                Ok(control) => control,
                Err(e) => {
                    self.say(View { problem: Some(problem(&e)), ..View::default() });
                    continue;
                }
            };
            let refused = match self.lease.signing_in(&who, control.sign_in(&who)).await {
                Ok(me) => {
                    self.language = me.language;
                    return Some((control, Officer { name: me.display_name, token: Some(me.token) }));
                }
                Err(e) if e.is_away() => match self.lease.open(&who, &e).await {
                    Ok(name) => return Some((control, Officer { name, token: None })),
                    Err(problem) => problem,
                },
                Err(e) => {
                    self.lease.refused(&who.username, e.code());
                    problem(&e)
                }
            };
            self.say(View { problem: Some(refused), ..View::default() });
        }
    }

    async fn work(&mut self, control: &Control, me: &Officer) -> Leave {
        let mut view = View::waiting(&me.name);
        let mut take_over = false;
        loop {
            let way = match self.wait(control, me, &mut view, take_over).await {
                Ok(way) => way,
                Err(leave) => return leave,
            };
            let after = self.show(control, me, way, &mut view).await;
            (view.warning, view.assist) = (None, None);
            match after {
                After::Leave(leave) => return leave,
                After::Again(problem) => {
                    view = View { phase: Phase::Waiting, problem, ..view };
                    // Not at once: whatever is wrong would be asked in a circle.
                    if let Err(leave) = self.pause(&view).await {
                        return leave;
                    }
                }
                After::Ask(notice) => {
                    view = View { phase: Phase::Left, notice, problem: None, ..view };
                    self.say(view.clone());
                    match self.ask().await {
                        Ok(()) => view = View::waiting(&me.name),
                        Err(leave) => return leave,
                    }
                }
            }
            take_over = false;
        }
    }

    /// Until the desktop is ready.
    async fn wait(
        &mut self,
        control: &Control,
        me: &Officer,
        view: &mut View,
        mut take_over: bool,
    ) -> Result<Way, Leave> {
        let Some(token) = &me.token else { return self.by_lease(view, "G-112") };
        loop {
            self.say(view.clone());
            match control.connect(token, take_over).await {
                Ok(Connected { session, ticket, gateways }) => {
                    view.about(&session);
                    if ticket.is_some() {
                        gateways::keep(&self.settings.state, &gateways);
                    }
                    (view.phase, view.problem) = (Phase::Waiting, None);
                    if let Some(ticket) = ticket {
                        view.lease_until_ms = None;
                        return Ok(Way::Ticket(ticket));
                    }
                }
                Err(e) if e.is_away() && self.lease.held().is_some() => return self.by_lease(view, e.code()),
                Err(e) => match self.refused(&e, view).await? {
                    Some(wish) => take_over = wish,
                    None => view.problem = Some(problem(&e)),
                },
            }
            self.pause(view).await?;
        }
    }

    /// By the lease in hand; without one it is back to the beginning.
    fn by_lease(&self, view: &mut View, otherwise: &str) -> Result<Way, Leave> {
        let Some((signed, lease)) = self.lease.held() else {
            return Err(Leave { end: false, notice: Some(Notice::new(otherwise)) });
        };
        view.desktop = Some(lease.desktop_name.clone());
        view.lease_until_ms = Some(lease.expires_ms);
        Ok(Way::Lease(signed))
    }

    /// What a refusal means; `Some` if the officer was asked whether to take over.
    async fn refused(&mut self, e: &ControlError, view: &mut View) -> Result<Option<bool>, Leave> {
        match e.code() {
            // The sign-in is over: nothing is left to sign out of.
            code @ ("A-100" | "A-105" | "E-301" | "E-302" | "E-303" | "E-306") => {
                Err(Leave { end: false, notice: Some(Notice::new(code)) })
            }
            "S-106" => {
                view.phase = Phase::TakeOver;
                self.say(view.clone());
                loop {
                    match self.commands.recv().await {
                        Some(Command::TakeOver | Command::Again) => break,
                        Some(Command::SignOut { end }) => return Err(Leave { end, notice: None }),
                        Some(_) => {}
                        None => return Err(gone()),
                    }
                }
                view.phase = Phase::Waiting;
                Ok(Some(true))
            }
            _ => Ok(None),
        }
    }

    /// A moment, in which the officer may leave.
    async fn pause(&mut self, view: &View) -> Result<(), Leave> {
        self.say(view.clone());
        let wait = sleep(ASK_AGAIN);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(Command::SignOut { end }) => return Err(Leave { end, notice: None }),
                    Some(_) => {}
                    None => return Err(gone()),
                },
            }
        }
    }

    /// Until the officer says whether to go back.
    async fn ask(&mut self) -> Result<(), Leave> {
        loop {
            match self.commands.recv().await {
                Some(Command::Again | Command::TakeOver) => return Ok(()),
                Some(Command::SignOut { end }) => return Err(Leave { end, notice: None }),
                Some(_) => {}
                None => return Err(gone()),
            }
        }
    }
}

/// The agent ends: the desktop waits as its policy says.
pub(super) fn gone() -> Leave {
    Leave { end: false, notice: None }
}
