//! The one loop that joins the parts: the machine says what is due, this does it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until};
use tram_wire::check::Finding;
use tram_wire::diagnosis::OrderNews;
use tram_wire::heartbeat::{Beat, GoodbyeReason};
use tram_wire::plan::Plan;
use tram_wire::{AgentMessage, ControllerMessage};

use crate::actions::Orders;
use crate::collect::collectors;
use crate::collect::keeper::Keeper;
use crate::collect::line::Line;
use crate::config::{Address, Config, ConfigError, Intercepted};
use crate::host::uevents::Uevents;
use crate::host::{Burst, Host};
use crate::identity::{self, Identity, IdentityError, Request};
use crate::ledger::Ledger;
use crate::link::machine::{Due, Machine};
use crate::link::{Link, LinkError, tls};
use crate::outbox::Outbox;
use crate::report::Reporter;
use crate::status::LinkStatus;
use crate::trusted;
use linking::{Opened, Opening};
use records::{PLAN_FILE, SETTLES, Said};
use upgrade::Upgrade;

mod linking;
mod records;
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

/// A burst of packets to the data centre, and where it went.
type Measuring = Pin<Box<dyn Future<Output = (SocketAddr, Option<Burst>)>>>;
type Reporting<H> = Pin<Box<dyn Future<Output = (Reporter<H>, Said)>>>;

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
    /// Says when a device came or went, where the kernel can be heard.
    uevents: Option<Uevents>,
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
    /// What becomes of a link where somebody opens TLS on the way.
    intercepted: Intercepted,
    /// Answers that were not the controller's, and that nobody was told of yet.
    forged: u64,
}

/// What the loop woke up for.
#[expect(clippy::large_enum_variant, reason = "made once a wake-up and taken apart at once")]
enum Woke {
    Timer,
    Opened(Opened),
    Message(Result<ControllerMessage, LinkError>),
    Reported(Said),
    Looked(bool),
    /// A device came or went.
    Plugged,
    Measured(SocketAddr, Option<Burst>),
    Ordered(OrderNews),
    /// Whether a better way gets through by now.
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
        orders: Orders::new(&config.state, &config.deny, identity.endpoint_id).answered_within(config.answer),
        resend: Arc::default(),
        upgrade: Upgrade::new(config.upgrade_again),
        intercepted: config.intercepted,
        forged: 0,
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
        uevents: Uevents::open().inspect_err(|e| eprintln!("tram-agent: the kernel's events can't be heard: {e}")).ok(),
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
            Woke::Message(Err(e)) => app.broke(&e),
            Woke::Message(Ok(message)) => app.heard(message),
            Woke::Reported(said) => app.reported(said).await,
            Woke::Looked(new) => app.looked(new),
            Woke::Plugged => app.next_plugged = app.next_plugged.min(app.now() + SETTLES),
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
        let Self { opening, link, desk, keeper, measuring, orders, upgrade, uevents, .. } = self;
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
        let plugged = async {
            match uevents {
                Some(u) => u.news().await,
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
            () = plugged => Woke::Plugged,
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
                    self.beat(Beat { seq, at_ms, rtt_us }).await;
                }
                Due::Snapshot if self.old_fashioned() => self.begin_report(true),
                Due::Change if self.old_fashioned() => self.begin_report(false),
                // Records have their own times: they are made without a line, too.
                Due::Snapshot | Due::Change => {}
                Due::Renew => self.renew().await,
            }
        }
    }

    fn wall_ms(&self) -> i64 {
        (self.clock)()
    }
}

/// One line for the journal.
pub fn note(text: &str) {
    eprintln!("tram-agent: {text}");
}
