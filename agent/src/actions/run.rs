//! One order from its beginning to its end: a thread a step, what they say cut to its cap, and a deadline for each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tram_wire::check::CheckState;
use tram_wire::diagnosis::{Action, CHUNK, MAX_NEWS, News, Order, OrderNews, Outcome, Refused, Step};

use super::consent::{self, Said};
use super::{Desk, Found, Here, perform};
use crate::host::Host;

/// Progress is told no more often.
const PROGRESS: Duration = Duration::from_millis(500);
/// Messages of progress of one order.
const PROGRESS_MOST: u32 = 24;
/// From the order to stop until a step is left behind.
const LEAVE: Duration = Duration::from_secs(1);

pub(super) struct Job<H> {
    pub(super) order: Order,
    pub(super) actions: Vec<Action>,
    /// One for each step.
    pub(super) hosts: Vec<H>,
    pub(super) here: Here,
    pub(super) cancel: Arc<Notify>,
    /// Threads of steps, of all orders.
    pub(super) alive: Arc<AtomicUsize>,
    pub(super) send: mpsc::Sender<OrderNews>,
    pub(super) socket: PathBuf,
    /// How long the officer has.
    pub(super) answer: Duration,
}

enum Heard {
    Progress(String),
    Done(Found, Duration),
}

/// One that begins.
struct Open {
    action: Action,
    until: Instant,
    done: bool,
}

struct Teller {
    order: tram_wire::ids::OrderId,
    n: u32,
    send: mpsc::Sender<OrderNews>,
}

impl Teller {
    async fn tell(&mut self, news: News) {
        // The end is always told.
        if self.n + 1 < MAX_NEWS || matches!(news, News::Ended { .. } | News::Refused { .. }) {
            let _ = self.send.send(OrderNews { order: self.order, n: self.n, news }).await;
            self.n += 1;
        }
    }

    async fn step(&mut self, n: u16, action: &Action, found: Found, took: Duration) {
        let (text, cut) = cut(found.text, action.spec().cap);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(CHUNK));
            self.tell(News::Text { step: n, text: piece.to_owned() }).await;
            rest = after;
        }
        self.tell(News::Step(Step {
            step: n,
            action: action.name().to_owned(),
            state: found.state,
            code: found.code.to_owned(),
            facts: found.facts,
            took_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
            cut,
        }))
        .await;
    }
}

/// What may be told of a text: no control characters, no more than the cap.
fn cut(text: String, cap: usize) -> (String, bool) {
    let mut text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let over = text.len() > cap;
    text.truncate(text.floor_char_boundary(cap));
    (text, over)
}

impl<H: Host + Send + 'static> Job<H> {
    pub(super) async fn run(self) {
        let mut tell = Teller { order: self.order.id, n: 0, send: self.send.clone() };
        if self.order.work.class().consent() == tram_wire::diagnosis::Consent::Ask {
            tell.tell(News::Asking).await;
        }
        let said = tokio::select! {
            said = consent::officer(&self.order, &self.socket, self.answer) => said,
            () = self.cancel.notified() => {
                return tell.tell(News::Ended { outcome: Outcome::Cancelled }).await;
            }
        };
        let refused = match said {
            Said::Yes => None,
            Said::No => Some(Refused::Declined),
            Said::NobodyThere => Some(Refused::NobodyThere),
        };
        if let Some(code) = refused {
            return tell.tell(News::Refused { code }).await;
        }
        tell.tell(News::Begun).await;
        let outcome = self.steps(&mut tell).await;
        tell.tell(News::Ended { outcome }).await;
    }

    async fn steps(self, tell: &mut Teller) -> Outcome {
        let (send, mut heard) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let all = Instant::now() + Duration::from_secs(self.order.work.deadline_s().into());
        let mut open = Vec::new();
        for ((n, action), host) in (0_u16..).zip(self.actions).zip(self.hosts) {
            let own = Duration::from_secs(action.spec().deadline_s.into());
            let until = all.min(Instant::now() + own);
            let desk = Desk {
                host,
                here: self.here.clone(),
                order: self.order.id,
                socket: self.socket.clone(),
                stop: stop.clone(),
                // What runs out by itself can still say what it saw.
                deadline: until.saturating_duration_since(Instant::now()).mul_f32(0.9),
                cap: action.spec().cap,
                say: progress(n, send.clone()),
            };
            spawn(n, action.clone(), desk, send.clone(), self.alive.clone());
            open.push(Open { action, until, done: false });
        }
        let (mut outcome, mut told) = (Outcome::Done, 0);
        while open.iter().any(|o| !o.done) {
            let next = open.iter().filter(|o| !o.done).map(|o| o.until).min().unwrap_or(all);
            tokio::select! {
                Some((n, news)) = heard.recv() => match (news, open.get_mut(usize::from(n))) {
                    (Heard::Done(found, took), Some(o)) if !o.done => {
                        o.done = true;
                        let action = o.action.clone();
                        tell.step(n, &action, found, took).await;
                    }
                    (Heard::Progress(text), Some(o)) if !o.done && told < PROGRESS_MOST => {
                        told += 1;
                        tell.tell(News::Progress { step: n, text }).await;
                    }
                    _ => {}
                },
                () = self.cancel.notified() => {
                    stop.store(true, Ordering::Relaxed);
                    leave(&mut heard, &mut open, tell).await;
                    return Outcome::Cancelled;
                }
                () = sleep_until(next) => {
                    let now = Instant::now();
                    for (n, o) in (0_u16..).zip(&mut open).filter(|(_, o)| !o.done && o.until <= now) {
                        o.done = true;
                        outcome = Outcome::TimedOut;
                        let action = o.action.clone();
                        let took = Duration::from_secs(action.spec().deadline_s.into());
                        tell.step(n, &action, Found::crit("timed_out"), took).await;
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        outcome
    }
}

/// Gives what was told to stop a moment to say what it saw.
async fn leave(heard: &mut mpsc::UnboundedReceiver<(u16, Heard)>, open: &mut [Open], tell: &mut Teller) {
    let until = Instant::now() + LEAVE;
    while open.iter().any(|o| !o.done) {
        tokio::select! {
            Some((n, news)) = heard.recv() => {
                if let (Heard::Done(found, took), Some(o)) = (news, open.get_mut(usize::from(n))) && !o.done {
                    o.done = true;
                    let action = o.action.clone();
                    tell.step(n, &action, found, took).await;
                }
            }
            () = sleep_until(until) => return,
        }
    }
}

fn progress(n: u16, send: mpsc::UnboundedSender<(u16, Heard)>) -> Box<dyn Fn(String) + Send> {
    let last = std::cell::Cell::new(None::<Instant>);
    Box::new(move |text| {
        if last.get().is_none_or(|at| at.elapsed() >= PROGRESS) {
            last.set(Some(Instant::now()));
            let _ = send.send((n, Heard::Progress(text.chars().take(256).collect())));
        }
    })
}

/// A step in a thread of its own: what hangs in the kernel holds up nobody else.
fn spawn<H: Host + Send + 'static>(
    n: u16,
    action: Action,
    mut desk: Desk<H>,
    send: mpsc::UnboundedSender<(u16, Heard)>,
    alive: Arc<AtomicUsize>,
) {
    alive.fetch_add(1, Ordering::Relaxed);
    let begun = Instant::now();
    let (back, count) = (send.clone(), alive.clone());
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let found = match runtime {
            Ok(r) => r.block_on(perform(&action, &mut desk)),
            Err(_) => Found::unknown("no_room"),
        };
        count.fetch_sub(1, Ordering::Relaxed);
        let _ = send.send((n, Heard::Done(found, begun.elapsed())));
    };
    if std::thread::Builder::new().stack_size(512 * 1024).spawn(work).is_err() {
        alive.fetch_sub(1, Ordering::Relaxed);
        let _ = back.send((n, Heard::Done(Found::of(CheckState::Unknown, "no_room"), Duration::ZERO)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_letter_and_hold_no_control_characters() {
        assert_eq!(cut("a\u{1b}[31mb\n\u{0}ế".into(), 100), ("a[31mb\nế".into(), false));
        let (text, over) = cut("ế".repeat(100), 10);
        assert_eq!((text.len(), over), (9, true));
    }
}
