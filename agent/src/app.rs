//! The one loop that joins the parts: the machine says what is due, this does it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, sleep_until};
use tram_wire::enrol::{Issued, Renew};
use tram_wire::heartbeat::{Beat, Goodbye, GoodbyeReason};
use tram_wire::{AgentMessage, ControllerMessage};

use crate::checks::Reach;
use crate::collect;
use crate::config::{Address, Config, ConfigError};
use crate::host::Host;
use crate::identity::{Identity, IdentityError, Request};
use crate::link::machine::{Due, Heard, Machine};
use crate::link::{Link, LinkError, tls};
use crate::report::{LinkFacts, Reporter};
use crate::status::{LinkStatus, Status};

/// Why the agent can't run at all. A link that doesn't work is not such a reason.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No usable identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity names no usable address.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificate or key isn't usable.
    #[error("the identity can't be used for TLS: {0}")]
    Tls(std::io::Error),
}

type Opening = Pin<Box<dyn Future<Output = Result<Link, LinkError>>>>;
type Reporting<H> = Pin<Box<dyn Future<Output = (Reporter<H>, Option<AgentMessage>)>>>;

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
    /// The reporter, and the host with it, may be away with a report; the clock never is.
    clock: fn() -> i64,
}

/// What the loop woke up for.
#[expect(clippy::large_enum_variant, reason = "made once a wake-up and taken apart at once")]
enum Woke {
    Timer,
    Opened(Result<Link, LinkError>),
    Message(Result<ControllerMessage, LinkError>),
    Reported(Option<AgentMessage>),
    Stop(GoodbyeReason),
}

/// Runs until `stop` resolves. `clock` is the wall clock; `seed` spreads retries between endpoints.
pub async fn run<H: Host + 'static>(
    config: &Config,
    host: H,
    clock: fn() -> i64,
    seed: u64,
    stop: impl Future<Output = GoodbyeReason>,
) -> Result<(), RunError> {
    let identity = Identity::load(&config.state)?;
    let begun = Instant::now();
    let mut app = App {
        state: config.state.clone(),
        to: identity.controller.parse()?,
        tls: tls::link(&identity).map_err(RunError::Tls)?,
        identity,
        machine: Machine::new(Duration::ZERO, seed),
        begun,
        desk: Desk::Idle(Reporter::new(host, config.into())),
        opening: None,
        link: None,
        renewal: None,
        status: LinkStatus::Down { reason: "starting".to_owned() },
        clock,
    };
    app.save_status();
    let mut stop = std::pin::pin!(stop);
    loop {
        app.do_what_is_due().await;
        let woke = app.wait(stop.as_mut()).await;
        match woke {
            Woke::Timer => {}
            Woke::Opened(Ok(link)) => {
                app.link = Some(link);
                app.machine.opened(app.now());
            }
            Woke::Opened(Err(e)) | Woke::Message(Err(e)) => app.lost(&e.to_string()),
            Woke::Message(Ok(message)) => app.heard(message),
            Woke::Reported(message) => app.reported(message).await,
            Woke::Stop(reason) => {
                app.stop(reason).await;
                return Ok(());
            }
        }
    }
}

impl<H: Host + 'static> App<H> {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    async fn wait(&mut self, stop: Pin<&mut impl Future<Output = GoodbyeReason>>) -> Woke {
        let wake = self.begun + self.machine.wake();
        let Self { opening, link, desk, .. } = self;
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
        tokio::select! {
            biased;
            reason = stop => Woke::Stop(reason),
            result = opened => {
                self.opening = None;
                Woke::Opened(result)
            }
            result = message => Woke::Message(result),
            (reporter, message) = reported => {
                self.desk = Desk::Idle(reporter);
                Woke::Reported(message)
            }
            () = sleep_until(wake) => Woke::Timer,
        }
    }

    async fn do_what_is_due(&mut self) {
        while let Some(due) = self.machine.due(self.now()) {
            match due {
                Due::Open => self.open(),
                Due::Drop(why) => self.dropped(why),
                Due::Hello => {
                    if let Some(hello) = self.reporter().map(|r| collect::hello(r.host(), self.identity.connects)) {
                        self.send(&AgentMessage::Hello(hello)).await;
                    } else {
                        // A probe still runs from the previous link; it ends within seconds.
                        self.lost("the last report isn't finished");
                    }
                }
                Due::Beat { seq, rtt_us } => {
                    let at_ms = self.wall_ms();
                    self.send(&AgentMessage::Beat(Beat { seq, at_ms, rtt_us })).await;
                }
                Due::Snapshot => self.begin_report(true),
                Due::Change => self.begin_report(false),
                Due::Renew => self.renew().await,
            }
        }
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
        self.opening = Some(Box::pin(async move { Link::open(&to, tls).await }));
    }

    /// Begins a report beside the loop: its probes wait for the network, beats must not.
    fn begin_report(&mut self, whole: bool) {
        let facts = LinkFacts {
            rtt: self.machine.rtt(),
            skew_ms: self.machine.skew_ms(),
            not_after_ms: Some(self.identity.issued.not_after_ms),
            controller: Reach::Linked,
        };
        self.desk = match std::mem::replace(&mut self.desk, Desk::Moving) {
            Desk::Idle(mut reporter) => Desk::Busy(Box::pin(async move {
                let message = if whole {
                    Some(AgentMessage::Snapshot(Box::new(reporter.snapshot(&facts).await)))
                } else {
                    let change = reporter.change(&facts).await;
                    (!change.is_empty()).then(|| AgentMessage::Change(Box::new(change)))
                };
                (reporter, message)
            })),
            // The last one still waits for a probe; the next period brings the next report.
            busy => busy,
        };
    }

    async fn reported(&mut self, message: Option<AgentMessage>) {
        let Some(message) = message else { return };
        self.send(&message).await;
        self.save_status();
    }

    fn heard(&mut self, message: ControllerMessage) {
        let (now, wall) = (self.now(), self.wall_ms());
        match self.machine.heard(now, wall, message) {
            Heard::Welcome => {
                note(&format!("linked to {}", self.to));
                self.status = LinkStatus::Up { since_ms: wall };
                self.schedule_renewal(self.identity.issued.renew_at_ms());
                self.save_status();
            }
            Heard::Refused(refusal) => {
                note(&format!("refused ({}): {refusal}", refusal.code()));
                self.link = None;
                self.status = LinkStatus::Refused { code: refusal.code().to_owned(), reason: refusal.to_string() };
                self.save_status();
            }
            Heard::Renewed(issued) => self.renewed(issued),
            Heard::Answered | Heard::Stale => {}
        }
    }

    /// The certificate's times are the controller's, so the skew counts.
    fn schedule_renewal(&mut self, at_ms: i64) {
        let server_now = self.wall_ms().saturating_sub(self.machine.skew_ms().unwrap_or(0));
        let wait = u64::try_from(at_ms.saturating_sub(server_now)).unwrap_or(0);
        self.machine.renew_at(self.now() + Duration::from_millis(wait));
    }

    async fn renew(&mut self) {
        match Request::new() {
            Ok(request) => {
                let message = AgentMessage::Renew(Renew { csr_pem: request.csr_pem.clone() });
                self.renewal = Some(request);
                self.send(&message).await;
            }
            Err(e) => note(&format!("renewal: {e}")),
        }
    }

    fn renewed(&mut self, issued: Issued) {
        let Some(request) = self.renewal.take() else { return };
        let next = self.identity.renewed(&request, issued);
        // A certificate that doesn't fit the key would lock us out: try it before it replaces the old.
        let usable = tls::link(&next).map_err(|e| e.to_string());
        match usable.and_then(|tls| next.save(&self.state).map(|()| tls).map_err(|e| e.to_string())) {
            Ok(tls) => {
                note("the certificate was renewed");
                self.tls = tls;
                self.identity = next;
                self.schedule_renewal(self.identity.issued.renew_at_ms());
                self.save_status();
            }
            Err(e) => note(&format!("the new certificate can't be used: {e}")),
        }
    }

    async fn send(&mut self, message: &AgentMessage) {
        let Some(link) = &mut self.link else { return };
        // A peer that reads nothing must not hold the loop; the machine's deadlines do the rest.
        match tokio::time::timeout(Duration::from_secs(10), link.send(message)).await {
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
        // A refusal explains more than the closing that follows it.
        if !matches!(self.status, LinkStatus::Refused { .. }) {
            let news = self.status != LinkStatus::Down { reason: why.to_owned() };
            self.status = LinkStatus::Down { reason: why.to_owned() };
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
