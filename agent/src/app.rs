//! The one loop that joins the parts: the machine says what is due, this does it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until};
use tram_wire::check::Finding;
use tram_wire::diagnosis::OrderNews;
use tram_wire::enrol::Issued;
use tram_wire::heartbeat::{Beat, Goodbye, GoodbyeReason};
use tram_wire::plan::{Live, MAX_LIVE_S, Plan};
use tram_wire::report::{Note, Record};
use tram_wire::{AgentMessage, ControllerMessage, Refusal};

use crate::actions::{Here, Orders};
use crate::checks::Reach;
use crate::collect::collectors;
use crate::collect::keeper::Keeper;
use crate::collect::line::{self, Line};
use crate::config::{Address, Config, ConfigError};
use crate::host::{Burst, Host};
use crate::identity::{self, Identity, IdentityError, Request};
use crate::ledger::Ledger;
use crate::link::machine::{Due, Heard, Machine};
use crate::link::{Link, LinkError, time, tls, way};
use crate::outbox::Outbox;
use crate::report::{Gathered, LinkFacts, Reporter, Want};
use crate::status::{LinkStatus, Status};
use crate::trusted;
use upgrade::Upgrade;

mod standing;
mod upgrade;

/// Why the agent can't run at all. A link that doesn't work is not such a reason.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No usable identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its folder can't be written.
    #[error("the state folder can't be used: {0}")]
    State(std::io::Error),
    /// Another agent works with this state folder.
    #[error("another tram-agent runs with this state folder")]
    Twice,
    /// The identity names no usable address.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate or key isn't usable.
    #[error("the identity can't be used for TLS: {0}")]
    Tls(std::io::Error),
}

type Opening = Pin<Box<dyn Future<Output = Opened>>>;

/// What became of a try.
enum Opened {
    Link(Link),
    /// A certificate for a new key: the old one had ended.
    Renewed(Request, Issued),
    /// The ended certificate is not renewed.
    Refused(Refusal),
    Failed(LinkError),
}

/// What a look came to.
#[expect(clippy::large_enum_variant, reason = "made once a minute and taken apart at once")]
enum Said {
    /// For a controller that gives plans.
    Record(Option<Record>),
    /// For one that does not.
    Message(Option<AgentMessage>),
}

/// A burst of packets to the data centre, and where it went.
type Measuring = Pin<Box<dyn Future<Output = (SocketAddr, Option<Burst>)>>>;
type Reporting<H> = Pin<Box<dyn Future<Output = (Reporter<H>, Said)>>>;

/// Between two looks whether something was plugged in.
const PLUGGED: Duration = Duration::from_secs(2);
/// How long a controller may take to send a plan before it counts as one that gives none.
const PLAN_WITHIN: Duration = Duration::from_secs(30);
/// From a cut to the record that tells of it.
const AFTER_CUT: Duration = Duration::from_secs(5);
/// Where the last plan is kept, for as long as there is no line.
const PLAN_FILE: &str = "plan.json";

/// The reporter, or the report it is busy with.
#[expect(clippy::large_enum_variant, reason = "there is one, as long as the agent runs")]
enum Desk<H> {
    Idle(Reporter<H>),
    Busy(Reporting<H>),
    /// Only between two statements.
    Moving,
}

struct App<H> {
    state: PathBuf,
    to: Address,
    identity: Identity,
    tls: Arc<ClientConfig>,
    machine: Machine,
    begun: Instant,
    desk: Desk<H>,
    opening: Option<Opening>,
    link: Option<Link>,
    renewal: Option<Request>,
    status: LinkStatus,
    /// A report of this process was acknowledged.
    reported: bool,
    /// The reporter, and the host with it, may be away with a report; the clock never is.
    clock: fn() -> i64,
    keeper: Keeper<H>,
    /// Another handle, for what costs nothing to read.
    host: H,
    boot: String,
    /// Tells this run from another one with the same identity.
    nonce: String,
    /// What is to be done before the next word: a new identity is asked for.
    rekey: bool,
    /// The certificate has ended: the next try asks for a new one.
    ended: bool,
    /// What stands in the way, if that is known.
    blocked: Option<&'static str>,
    outbox: Outbox,
    ledger: Ledger,
    plan: Option<Plan>,
    /// Since when this link is up, and whether it brought a plan.
    up: Option<(Duration, bool)>,
    /// How often it came up.
    links: u64,
    /// What was looked at before then is of the past.
    fresh_from: Duration,
    /// When the report that is being made was begun.
    looked_at: Duration,
    next_key: Duration,
    /// A whole report was due while another one was being made.
    owed: bool,
    next_delta: Duration,
    next_plugged: Duration,
    live_until: Duration,
    /// What was plugged in, to see that it changed.
    plugged: Vec<String>,
    /// Something happened while the reporter was busy.
    news: bool,
    line: Line,
    measuring: Option<Measuring>,
    /// Where the last link led.
    peer: Option<SocketAddr>,
    /// What the checks found last; the reporter that knows may be away.
    findings: Vec<Finding>,
    /// What support asked for.
    orders: Orders,
    /// Set by an order that wants everything told anew.
    resend: Arc<AtomicBool>,
    upgrade: Upgrade,
}

/// What the loop woke up for.
#[expect(clippy::large_enum_variant, reason = "made once a wake-up and taken apart at once")]
enum Woke {
    Timer,
    Opened(Opened),
    Message(Result<ControllerMessage, LinkError>),
    Reported(Said),
    Looked(bool),
    Measured(SocketAddr, Option<Burst>),
    Ordered(OrderNews),
    /// Whether a WebSocket gets through by now.
    Upgrades(bool),
    Stop(GoodbyeReason),
}

/// Runs until `stop` resolves. `clock` is the wall clock; `seed` spreads retries between endpoints.
pub async fn run<H: Host + Send + 'static>(
    config: &Config,
    host: H,
    clock: fn() -> i64,
    seed: u64,
    stop: impl Future<Output = GoodbyeReason>,
) -> Result<(), RunError> {
    let identity = Identity::load(&config.state)?;
    trusted::recall(&config.state);
    let held = identity::hold(&config.state).map_err(RunError::State)?;
    let _held = held.ok_or(RunError::Twice)?;
    let begun = Instant::now();
    let mut app = App {
        state: config.state.clone(),
        to: identity.controller.parse()?,
        orders: Orders::new(&config.state, &config.deny, identity.endpoint_id),
        resend: Arc::default(),
        upgrade: Upgrade::new(config.upgrade_again),
        findings: Vec::new(),
        tls: tls::link(&identity).map_err(RunError::Tls)?,
        identity,
        machine: Machine::new(Duration::ZERO, seed),
        begun,
        keeper: Keeper::new(host.again(), collectors()),
        boot: host.read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        nonce: format!("{seed:016x}"),
        rekey: false,
        ended: false,
        blocked: None,
        outbox: Outbox::open(&config.state),
        ledger: Ledger::of(&config.state),
        plan: std::fs::read(config.state.join(PLAN_FILE)).ok().and_then(|b| serde_json::from_slice(&b).ok()),
        up: None,
        links: 0,
        fresh_from: Duration::ZERO,
        looked_at: Duration::ZERO,
        next_key: Duration::ZERO,
        owed: false,
        next_delta: Duration::ZERO,
        next_plugged: Duration::ZERO,
        live_until: Duration::ZERO,
        plugged: Vec::new(),
        news: false,
        line: Line::default(),
        measuring: None,
        peer: None,
        host: host.again(),
        desk: Desk::Idle(Reporter::new(host, config.into())),
        opening: None,
        link: None,
        renewal: None,
        status: LinkStatus::Down { reason: "starting".to_owned(), code: None },
        reported: false,
        clock,
    };
    app.save_status();
    let mut stop = std::pin::pin!(stop);
    loop {
        app.do_what_is_due().await;
        let woke = app.wait(stop.as_mut()).await;
        match woke {
            Woke::Timer => {}
            Woke::Opened(opened) => app.opened(opened),
            Woke::Message(Err(e)) => app.lost(&e.to_string()),
            Woke::Message(Ok(message)) => app.heard(message),
            Woke::Reported(said) => app.reported(said).await,
            Woke::Looked(new) => app.looked(new),
            Woke::Measured(to, burst) => app.measured(to, burst),
            Woke::Ordered(news) => app.ordered(news).await,
            Woke::Upgrades(through) => app.upgraded(through),
            Woke::Stop(reason) => {
                app.stop(reason).await;
                return Ok(());
            }
        }
    }
}

impl<H: Host + Send + 'static> App<H> {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn wait(&mut self, stop: Pin<&mut impl Future<Output = GoodbyeReason>>) -> Woke {
        let idle = matches!(self.desk, Desk::Idle(_));
        let mut wake = self.machine.wake().min(self.keeper.wake()).min(self.next_plugged).min(self.upgrade.wake());
        if self.plan.is_some() && idle && !self.old_fashioned() {
            wake = wake.min(self.next_key).min(self.next_delta);
        }
        if self.measures() && self.measuring.is_none() {
            wake = wake.min(self.line.next());
        }
        if self.planned() {
            wake = self.outbox.wake().map_or(wake, |at| wake.min(at));
        }
        let wake = self.begun + wake.max(self.now());
        let begun = self.begun;
        let Self { opening, link, desk, keeper, measuring, orders, upgrade, .. } = self;
        let opened = async {
            match opening {
                Some(o) => o.await,
                None => std::future::pending().await,
            }
        };
        let message = async {
            match link {
                Some(l) => l.next().await,
                None => std::future::pending().await,
            }
        };
        let reported = async {
            match desk {
                Desk::Busy(job) => job.await,
                Desk::Idle(_) | Desk::Moving => std::future::pending().await,
            }
        };
        let measured = async {
            match measuring {
                Some(m) => m.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = stop => Woke::Stop(reason),
            result = opened => {
                self.opening = None;
                Woke::Opened(result)
            }
            result = message => Woke::Message(result),
            (reporter, said) = reported => {
                self.desk = Desk::Idle(reporter);
                Woke::Reported(said)
            }
            (to, burst) = measured => {
                self.measuring = None;
                Woke::Measured(to, burst)
            }
            new = keeper.news(|| begun.elapsed()) => Woke::Looked(new),
            news = orders.next() => Woke::Ordered(news),
            through = upgrade.asked() => Woke::Upgrades(through),
            () = sleep_until(wake) => Woke::Timer,
        }
    }

    async fn do_what_is_due(&mut self) {
        self.look_around();
        self.ask_upgrade();
        if self.owed && matches!(self.desk, Desk::Idle(_)) && self.machine.is_up() && self.old_fashioned() {
            self.begin_report(true);
        }
        if std::mem::take(&mut self.rekey) {
            self.renew().await;
        }
        self.ship().await;
        while let Some(due) = self.machine.due(self.now()) {
            match due {
                Due::Open => self.open(),
                Due::Drop(why) => self.dropped(why),
                Due::Hello => {
                    let hello = self.hello();
                    self.send(&AgentMessage::Hello(hello)).await;
                }
                Due::Beat { seq, rtt_us } => {
                    let at_ms = self.wall_ms();
                    self.send(&AgentMessage::Beat(Beat { seq, at_ms, rtt_us })).await;
                }
                Due::Snapshot if self.old_fashioned() => self.begin_report(true),
                Due::Change if self.old_fashioned() => self.begin_report(false),
                // Records have their own times: they are made without a line, too.
                Due::Snapshot | Due::Change => {}
                Due::Renew => self.renew().await,
            }
        }
    }

    /// This link brought a plan: records are wanted on it.
    fn planned(&self) -> bool {
        self.link.is_some() && self.up.is_some_and(|(_, plan)| plan)
    }

    /// The controller at the other end gives no plans.
    fn old_fashioned(&self) -> bool {
        let apart = matches!(self.status, LinkStatus::Quarantined { .. });
        let waits = |since: Duration| self.plan.is_some() && !apart && self.now() < since + PLAN_WITHIN;
        self.up.is_some_and(|(since, planned)| !planned && !waits(since))
    }

    /// Lets collectors look, notices what was plugged in, and makes the records that are due.
    fn look_around(&mut self) {
        let now = self.now();
        if now >= self.next_plugged {
            self.next_plugged = now + PLUGGED;
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
    fn measures(&self) -> bool {
        self.peer.is_some() && self.plan.as_ref().is_some_and(|p| p.prober)
    }

    /// Sends the next burst to the data centre, if it is time for one.
    fn measure(&mut self, now: Duration) {
        let (Some(to), Some(plan)) = (self.peer.filter(|_| self.measures()), &self.plan) else { return };
        if self.measuring.is_some() || now < self.line.next() {
            return;
        }
        self.line.began(now, plan);
        let (host, packets) = (self.host.again(), line::packets(plan));
        self.measuring =
            Some(Box::pin(async move { (to, host.burst(to.ip(), &[to.port()], packets, line::WITHIN).await) }));
    }

    fn measured(&mut self, to: SocketAddr, burst: Option<Burst>) {
        let (now, up) = (self.now(), self.machine.is_up());
        let Some(plan) = &self.plan else { return };
        // What answers no packets while the link is up has the habit.
        if burst.is_some() || !up {
            self.line.took(now, plan, to.ip(), burst);
        }
    }

    fn gathered(&mut self) -> Gathered {
        let mut notes = self.keeper.notes();
        let damaged = self.outbox.damage();
        if damaged > 0 {
            let params = [("bytes".to_owned(), damaged.to_string())].into();
            notes.push(Note { code: "queue_damaged".to_owned(), params });
        }
        Gathered { inventory: self.keeper.inventory(), events: self.keeper.events(), notes, off: self.keeper.off() }
    }

    fn begin_record(&mut self, want: Want, plan: Plan) {
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

    fn looked(&mut self, new: bool) {
        // The first words of all collectors come with the first keyframe or soon after: no hurry for those.
        self.news |= new && self.keeper.settled();
    }

    /// Sends what waits, one batch at a time.
    async fn ship(&mut self) {
        if !self.planned() || !self.machine.is_up() {
            return;
        }
        let clock = (self.boot.clone(), self.host.boot_ms(), self.wall_ms());
        let now = self.now();
        if let Some(report) = self.outbox.next(now, (&clock.0, clock.1, clock.2)) {
            self.send(&AgentMessage::Report(Box::new(report))).await;
        }
    }

    fn plan(&mut self, plan: Plan) {
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

    fn live(&mut self, live: Live) {
        self.live_until = self.now() + Duration::from_secs(live.for_s.min(MAX_LIVE_S).into());
        self.next_delta = self.now();
    }

    fn reporter(&self) -> Option<&Reporter<H>> {
        match &self.desk {
            Desk::Idle(r) => Some(r),
            Desk::Busy(_) | Desk::Moving => None,
        }
    }

    fn wall_ms(&self) -> i64 {
        (self.clock)()
    }

    fn open(&mut self) {
        self.identity.connects += 1;
        if let Err(e) = self.identity.save(&self.state) {
            note(&format!("the connection count can't be saved: {e}"));
        }
        let (to, tls) = (self.to.clone(), self.tls.clone());
        let (ca, floor) = (self.identity.issued.ca_pem.clone(), self.identity.issued.issued_ms);
        let ended = std::mem::take(&mut self.ended);
        self.opening = Some(Box::pin(async move {
            if ended {
                return standing::renew_ended(&to, tls).await;
            }
            match Link::open(&to, tls.clone()).await {
                // This computer's clock says so. The controller's may not.
                Err(LinkError::Connect(e)) if time::is_about_dates(&e) => {
                    let trust = tls::Trust::Ca(ca);
                    if let Err(e) = time::ask(&to, &trust, floor).await {
                        note(&format!(
                            "this computer's clock can't be right, and the controller's time is not known: {e}"
                        ));
                    }
                    Link::open(&to, tls).await.map_or_else(Opened::Failed, Opened::Link)
                }
                other => other.map_or_else(Opened::Failed, Opened::Link),
            }
        }));
    }

    fn opened(&mut self, opened: Opened) {
        match opened {
            Opened::Link(link) => {
                self.peer = link.peer();
                self.blocked = None;
                self.upgrade.linked(self.now(), link.is_by_requests());
                self.link = Some(link);
                self.machine.opened(self.now());
            }
            Opened::Renewed(request, issued) => {
                self.renewal = Some(request);
                self.renewed(issued);
                self.lost("the certificate had ended and was renewed");
                self.machine.hurry(self.now());
            }
            Opened::Refused(refusal) => {
                self.machine.rest(self.now(), &refusal);
                self.refused(&refusal);
            }
            Opened::Failed(e) => {
                self.blocked = e.code();
                self.lost(&e.to_string());
            }
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        note(&format!("refused ({}): {refusal}", refusal.code()));
        self.link = None;
        self.up = None;
        self.outbox.cut();
        self.orders.cut();
        self.status = LinkStatus::Refused { code: refusal.code().to_owned(), reason: refusal.to_string() };
        self.save_status();
    }

    /// Begins a report beside the loop: its probes wait for the network, beats must not.
    fn begin_report(&mut self, whole: bool) {
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

    async fn reported(&mut self, said: Said) {
        if let Some(r) = self.reporter() {
            self.findings = r.findings().to_vec();
        }
        match said {
            Said::Record(None) | Said::Message(None) => return,
            Said::Message(Some(message)) => self.send(&message).await,
            Said::Record(Some(record)) => {
                // What a look saw that began before this line was up goes with the backlog.
                let line = self.planned() && self.machine.is_up() && self.looked_at >= self.fresh_from;
                let news = record.key || !record.checks.is_empty();
                self.outbox.put(&self.boot, record, line);
                self.ship().await;
                if !news {
                    return;
                }
            }
        }
        self.save_status();
    }

    fn facts(&self) -> LinkFacts {
        let controller = match self.blocked {
            _ if self.machine.is_up() && self.is_polled() => Reach::Polled,
            _ if self.machine.is_up() => Reach::Linked,
            Some(code) => Reach::Blocked(code),
            None => Reach::Silent,
        };
        LinkFacts {
            rtt: self.machine.rtt().filter(|_| self.machine.is_up()),
            skew_ms: self.machine.skew_ms(),
            not_after_ms: Some(self.identity.issued.not_after_ms),
            controller,
            line: self.line.probe(),
            links: self.links,
        }
    }

    fn heard(&mut self, message: ControllerMessage) {
        let (now, wall) = (self.now(), self.wall_ms());
        let keys = match &message {
            ControllerMessage::HelloAck(ack) => ack.order_keys.clone(),
            _ => Vec::new(),
        };
        match &message {
            ControllerMessage::HelloAck(a) => trusted::learn(a.server_ms),
            ControllerMessage::BeatAck(a) => trusted::learn(a.server_ms),
            _ => {}
        }
        match self.machine.heard(now, wall, message) {
            Heard::Welcome => {
                note(&format!("linked to {}", self.to));
                let by = self.is_polled().then(|| "requests".to_owned());
                self.status = LinkStatus::Up { since_ms: wall, by };
                self.up = Some((now, false));
                self.links += 1;
                self.line.back(now);
                self.measuring = None;
                self.orders.keys(&keys);
                self.settled();
                self.schedule_renewal(self.identity.issued.renew_at_ms());
                self.save_status();
            }
            Heard::Quarantined => self.quarantined(wall),
            Heard::NewIdentity => self.rekey = true,
            Heard::Reborn(answer) => self.reborn(answer),
            Heard::Refused(refusal) => {
                self.refused(&refusal);
                if refusal == Refusal::Expired {
                    // Perhaps it was switched off for weeks: whoever has the key may have it renewed.
                    self.ended = true;
                    self.machine.hurry(now);
                }
            }
            Heard::Renewed(issued) => self.renewed(issued),
            Heard::Kept(batch) => {
                self.outbox.kept(batch);
                if !std::mem::replace(&mut self.reported, true) {
                    self.save_status();
                }
            }
            Heard::Plan(plan) => self.plan(plan),
            Heard::Live(live) => {
                self.ledger.note(wall, "asked", &format!("{{\"live_s\":{}}}", live.for_s));
                self.live(live);
            }
            Heard::Order(order) => {
                let entry = self.orders.take(&order, &self.host, self.here(), wall);
                self.ledger.note(wall, "asked", &entry);
            }
            Heard::Cancel(order) => self.orders.cancel(order),
            Heard::Answered | Heard::Stale => {}
        }
    }

    /// What orders may know without looking.
    fn here(&self) -> Here {
        Here {
            controller: (self.to.host.clone(), self.to.port),
            rtt: self.machine.rtt(),
            skew_ms: self.machine.skew_ms(),
            findings: self.findings.clone(),
            resend: self.resend.clone(),
            bandwidth: Some(standing::measure(self.to.clone(), self.tls.clone())),
            reread_proxy: Some(way::reread),
        }
    }

    async fn ordered(&mut self, news: OrderNews) {
        if self.resend.swap(false, Ordering::Relaxed) {
            self.next_key = self.now();
        }
        self.send(&AgentMessage::OrderNews(news)).await;
    }

    /// The certificate's times are the controller's, so the skew counts.
    async fn send(&mut self, message: &AgentMessage) {
        let wall = self.wall_ms();
        let Some(link) = &mut self.link else { return };
        if !matches!(message, AgentMessage::Beat(_))
            && let Ok(text) = message.encode()
        {
            self.ledger.note(wall, "sent", &text);
        }
        let plan = self.plan.as_ref().filter(|_| self.up.is_some_and(|(_, planned)| planned));
        let (binary, dictionary) = plan.map_or((false, 0), |p| (p.binary, p.dictionary));
        let sending = async {
            match message {
                AgentMessage::Beat(beat) if binary => link.beat(beat).await,
                message if binary => link.send_packed(message, dictionary).await,
                message => link.send(message).await,
            }
        };
        // A peer that reads nothing must not hold the loop; the machine's deadlines do the rest.
        match tokio::time::timeout(Duration::from_secs(10), sending).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.lost(&e.to_string()),
            Err(_) => self.lost("the line takes no data"),
        }
    }

    fn lost(&mut self, why: &str) {
        self.machine.lost(self.now());
        self.dropped(why);
    }

    fn dropped(&mut self, why: &str) {
        self.opening = None;
        self.link = None;
        self.upgrade.cut();
        self.owed = false;
        if self.up.take().is_some() {
            // What there is to say of a cut is said soon, not with the next period.
            self.next_delta = self.next_delta.min(self.now() + AFTER_CUT);
        }
        self.outbox.cut();
        // Nobody listens to what was asked for.
        self.orders.cut();
        // A refusal explains more than the closing that follows it.
        if !matches!(self.status, LinkStatus::Refused { .. }) {
            let down = LinkStatus::Down { reason: why.to_owned(), code: self.blocked.map(str::to_owned) };
            let news = self.status != down;
            self.status = down;
            if news {
                note(&format!("no link: {why}"));
                self.save_status();
            }
        }
    }

    async fn stop(&mut self, reason: GoodbyeReason) {
        if self.machine.is_up() {
            self.send(&AgentMessage::Goodbye(Goodbye { reason })).await;
        }
        if let Some(link) = &mut self.link {
            let _ = tokio::time::timeout(Duration::from_secs(1), link.close()).await;
        }
        self.outbox.cut();
        self.status = LinkStatus::Stopped;
        self.save_status();
    }

    fn save_status(&self) {
        let status = Status {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            at_ms: self.wall_ms(),
            endpoint_id: self.identity.endpoint_id,
            controller: self.identity.controller.clone(),
            link: self.status.clone(),
            reported: self.reported,
            key: self.identity.key_place().as_str().to_owned(),
            certificate_not_after_ms: self.identity.issued.not_after_ms,
            findings: self.reporter().map(|r| r.findings().to_vec()).unwrap_or_default(),
        };
        if let Err(e) = status.save(Path::new(&self.state)) {
            note(&format!("the status can't be written: {e}"));
        }
    }
}

/// One line for the journal.
pub fn note(text: &str) {
    eprintln!("tram-agent: {text}");
}
