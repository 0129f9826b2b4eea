//! What there is to tell: records and older reports, made beside the loop, and how they get onto the line.

use std::net::SocketAddr;
use std::time::Duration;

use tram_wire::AgentMessage;
use tram_wire::plan::{Live, MAX_LIVE_S, Plan};
use tram_wire::report::{Note, Record};

use super::{App, Desk, note};
use crate::collect::line;
use crate::host::{Burst, Host};
use crate::outbox::Turn;
use crate::report::{Gathered, Reporter, Want};
use crate::status::LinkStatus;

/// What a look came to.
#[expect(clippy::large_enum_variant, reason = "made once a minute and taken apart at once")]
pub(super) enum Said {
    /// For a controller that gives plans.
    Record(Option<Record>),
    /// For one that does not.
    Message(Option<AgentMessage>),
}

/// Between two looks whether something was plugged in, where the kernel can't be heard.
const PLUGGED: Duration = Duration::from_millis(1500);
/// The same where it says so by itself: in case that a word of it was lost.
const PLUGGED_HEARD: Duration = Duration::from_secs(60);
/// From its first word until all parts of what was plugged in are there.
pub(super) const SETTLES: Duration = Duration::from_millis(300);
/// How long a controller may take to send a plan before it counts as one that gives none.
const PLAN_WITHIN: Duration = Duration::from_secs(30);
/// Where the last plan is kept, for as long as there is no line.
pub(super) const PLAN_FILE: &str = "plan.json";

impl<H: Host + Send + 'static> App<H> {
    /// This link brought a plan: records are wanted on it.
    pub(super) fn planned(&self) -> bool {
        self.link.is_some() && self.up.is_some_and(|(_, plan)| plan)
    }

    /// The controller at the other end gives no plans.
    pub(super) fn old_fashioned(&self) -> bool {
        let apart = matches!(self.status, LinkStatus::Quarantined { .. });
        let waits = |since: Duration| self.plan.is_some() && !apart && self.now() < since + PLAN_WITHIN;
        self.up.is_some_and(|(since, planned)| !planned && !waits(since))
    }

    /// Lets collectors look, notices what was plugged in, and makes the records that are due.
    pub(super) fn look_around(&mut self) {
        let now = self.now();
        if now >= self.next_plugged {
            self.next_plugged = now + if self.uevents.is_some() { PLUGGED_HEARD } else { PLUGGED };
            let plugged = self.host.list("/sys/bus/usb/devices");
            if plugged != self.plugged {
                self.plugged = plugged;
                self.keeper.hurry("usb", now);
            }
        }
        self.keeper.tend(now);
        self.measure(now);
        let Some(plan) = &self.plan else { return };
        if !matches!(self.desk, Desk::Idle(_)) || self.old_fashioned() {
            return;
        }
        let want = if now >= self.next_key {
            Want::Key
        } else if self.news || (now < self.live_until && now >= self.next_delta) {
            Want::Quick
        } else if now >= self.next_delta {
            Want::Delta
        } else {
            return;
        };
        let seconds = |s: u32, least| Duration::from_secs(s.clamp(least, 86_400).into());
        self.news = false;
        if want == Want::Key {
            self.next_key = now + seconds(plan.keyframe_s, 60);
        }
        self.next_delta = now + if now < self.live_until { Duration::from_secs(1) } else { seconds(plan.delta_s, 2) };
        self.begin_record(want, plan.clone());
    }

    /// This endpoint measures its office's line.
    pub(super) fn measures(&self) -> bool {
        self.peer.is_some() && self.plan.as_ref().is_some_and(|p| p.prober)
    }

    /// Sends the next burst to the data centre, if it is time for one.
    pub(super) fn measure(&mut self, now: Duration) {
        let (Some(to), Some(plan)) = (self.peer.filter(|_| self.measures()), &self.plan) else { return };
        if self.measuring.is_some() || now < self.line.next() {
            return;
        }
        self.line.began(now, plan);
        let (host, packets) = (self.host.again(), line::packets(plan));
        self.measuring =
            Some(Box::pin(async move { (to, host.burst(to.ip(), &[to.port()], packets, line::WITHIN).await) }));
    }

    pub(super) fn measured(&mut self, to: SocketAddr, burst: Option<Burst>) {
        let (now, up) = (self.now(), self.machine.is_up());
        let Some(plan) = &self.plan else { return };
        // What answers no packets while the link is up has the habit.
        if burst.is_some() || !up {
            self.line.took(now, plan, to.ip(), burst);
        }
    }

    pub(super) fn gathered(&mut self) -> Gathered {
        let mut notes = self.keeper.notes();
        let damaged = self.outbox.damage();
        if damaged > 0 {
            let params = [("bytes".to_owned(), damaged.to_string())].into();
            notes.push(Note { code: "queue_damaged".to_owned(), params });
        }
        let forged = std::mem::take(&mut self.forged);
        if forged > 0 {
            let params = [("count".to_owned(), forged.to_string())].into();
            notes.push(Note { code: "answers_forged".to_owned(), params });
        }
        Gathered { inventory: self.keeper.inventory(), events: self.keeper.events(), notes, off: self.keeper.off() }
    }

    pub(super) fn begin_record(&mut self, want: Want, plan: Plan) {
        let (facts, gathered) = (self.facts(), self.gathered());
        self.looked_at = self.now();
        self.desk = match std::mem::replace(&mut self.desk, Desk::Moving) {
            Desk::Idle(mut reporter) => Desk::Busy(Box::pin(async move {
                let record = reporter.record(&facts, gathered, want, &plan).await;
                (reporter, Said::Record(record))
            })),
            busy => busy,
        };
    }

    pub(super) fn looked(&mut self, new: bool) {
        // The first words of all collectors come with the first keyframe or soon after: no hurry for those.
        self.news |= new && self.keeper.settled();
    }

    /// Sends what waits and may not wait for the next beat, one batch at a time.
    pub(super) async fn ship(&mut self) {
        let turn = if self.now() < self.live_until || !self.short() { Turn::All } else { Turn::Pressing };
        if let Some(report) = self.batch(turn) {
            self.send(&report).await;
        }
    }

    /// The next batch, if there is one for this line.
    pub(super) fn batch(&mut self, turn: Turn) -> Option<AgentMessage> {
        if !self.planned() || !self.machine.is_up() {
            return None;
        }
        let clock = (self.boot.clone(), self.host.boot_ms(), self.wall_ms());
        let report = self.outbox.next(self.now(), (&clock.0, clock.1, clock.2), turn)?;
        Some(AgentMessage::Report(Box::new(report)))
    }

    /// The controller reads and writes short forms.
    pub(super) fn short(&self) -> bool {
        self.planned() && self.plan.as_ref().is_some_and(|p| p.binary)
    }

    pub(super) fn plan(&mut self, plan: Plan) {
        let first = !self.up.is_some_and(|(_, planned)| planned);
        if self.plan.as_ref() != Some(&plan) {
            let kept = serde_json::to_vec(&plan).map_err(std::io::Error::other);
            if let Err(e) = kept.and_then(|b| crate::identity::write_private(&self.state, PLAN_FILE, &b)) {
                note(&format!("the plan can't be kept: {e}"));
            }
        }
        if !plan.prober {
            self.line.rest();
        }
        self.plan = Some(plan);
        if first {
            // Newest state first, then what waited.
            self.next_key = self.now();
            self.fresh_from = self.now();
        }
        if let Some(up) = &mut self.up {
            up.1 = true;
        }
    }

    pub(super) fn live(&mut self, live: Live) {
        self.live_until = self.now() + Duration::from_secs(live.for_s.min(MAX_LIVE_S).into());
        self.next_delta = self.now();
    }

    pub(super) fn reporter(&self) -> Option<&Reporter<H>> {
        match &self.desk {
            Desk::Idle(r) => Some(r),
            Desk::Busy(_) | Desk::Moving => None,
        }
    }

    /// Begins a report beside the loop: its probes wait for the network, beats must not.
    pub(super) fn begin_report(&mut self, whole: bool) {
        let (facts, gathered) = (self.facts(), self.gathered());
        self.desk = match std::mem::replace(&mut self.desk, Desk::Moving) {
            Desk::Idle(mut reporter) => {
                self.owed &= !whole;
                Desk::Busy(Box::pin(async move {
                    let message = if whole {
                        Some(AgentMessage::Snapshot(Box::new(reporter.snapshot(&facts, &gathered).await)))
                    } else {
                        let change = reporter.change(&facts, &gathered).await;
                        (!change.is_empty()).then(|| AgentMessage::Change(Box::new(change)))
                    };
                    (reporter, Said::Message(message))
                }))
            }
            // The last one still waits for a probe: a change comes with the next period, a whole report when it is done.
            busy => {
                self.owed |= whole;
                busy
            }
        };
    }

    pub(super) async fn reported(&mut self, said: Said) {
        let mut repeats = false;
        if let Some(r) = self.reporter() {
            repeats = r.repeats();
            self.findings = r.findings().to_vec();
        }
        match said {
            Said::Record(None) | Said::Message(None) => return,
            Said::Message(Some(message)) => self.send(&message).await,
            Said::Record(Some(record)) => {
                // What a look saw that began before this line was up goes with the backlog.
                let line = self.planned() && self.machine.is_up() && self.looked_at >= self.fresh_from;
                let news = record.key || !record.checks.is_empty();
                if repeats {
                    self.outbox.repeats(record.seq);
                }
                self.outbox.put(&self.boot, record, line);
                self.ship().await;
                if !news {
                    return;
                }
            }
        }
        self.save_status();
    }
}
