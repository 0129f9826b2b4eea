//! Floor 4: remote diagnosis at this end. What can be ordered is `tram_wire::diagnosis`; one file a family here.
//!
//! ```text
//! order ── gate: key, signature, endpoint, expiry, replay, deny file, room
//!            └── consent: the desk asks the officer, or tells them
//!                  └── run: a thread a step, each with its deadline and its cap ── news
//! ```
//! No shell: programs of the distribution are run by name with fixed arguments; hosts, units and printers come from
//! types that can't be options. What hangs is killed with its children, or left behind and counted. What the agent may
//! not do is asked of the helpers (`tram_wire::helper`).

pub(crate) mod consent;
mod gate;
mod helped;
mod machine;
mod printers;
mod reach;
mod redact;
mod run;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tram_wire::bandwidth::Arrived;
use tram_wire::check::{CheckState, Finding};
use tram_wire::diagnosis::{ANSWER_S, AT_ONCE, Action, News, Order, OrderNews, Refused, SignedOrder};
use tram_wire::ids::{EndpointId, OrderId};

pub use consent::{Answer, Question, SOCKET};
pub use gate::{Gate, keep_keys};

use crate::host::{Host, Ran};

/// Threads of steps that may be alive, those left behind included.
const THREADS: usize = 16;

/// What the agent knows already.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// The controller's host and port.
    pub controller: (String, u16),
    /// Round trip of the beats.
    pub rtt: Option<Duration>,
    /// Our clock less the controller's.
    pub skew_ms: Option<i64>,
    /// What the checks found last.
    pub findings: Vec<Finding>,
    /// Somebody on the way can read what is answered.
    pub read_along: bool,
    /// Set by an order to send everything anew.
    pub resend: Arc<AtomicBool>,
    /// Measures the line to the controller.
    pub bandwidth: Option<Measure>,
    /// Reads anew how the controller is reached, and says it.
    pub reread_proxy: Option<fn() -> Result<String, String>>,
}

/// Fills the line for a moment, under an order: what passed down and up, or the code of why nothing did.
#[derive(Clone)]
pub struct Measure(pub Arc<dyn Fn(OrderId) -> Measuring + Send + Sync>);
/// One that runs.
pub type Measuring = Pin<Box<dyn Future<Output = Result<(Arrived, Arrived), String>>>>;

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measure")
    }
}

/// What a step found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    state: CheckState,
    code: &'static str,
    facts: BTreeMap<String, String>,
    text: String,
}

impl Found {
    fn of(state: CheckState, code: &'static str) -> Self {
        Self { state, code, facts: BTreeMap::new(), text: String::new() }
    }
    fn ok(code: &'static str) -> Self {
        Self::of(CheckState::Ok, code)
    }
    fn warn(code: &'static str) -> Self {
        Self::of(CheckState::Warn, code)
    }
    fn crit(code: &'static str) -> Self {
        Self::of(CheckState::Crit, code)
    }
    fn unknown(code: &'static str) -> Self {
        Self::of(CheckState::Unknown, code)
    }
    fn fact(mut self, name: &str, value: impl ToString) -> Self {
        let plain: String = value.to_string().chars().filter(|c| !c.is_control()).take(256).collect();
        if self.facts.len() < 48 && !plain.is_empty() {
            self.facts.insert(name.chars().take(80).collect(), plain);
        }
        self
    }
    fn facts<V: ToString>(self, all: impl IntoIterator<Item = (String, V)>) -> Self {
        all.into_iter().fold(self, |f, (name, value)| f.fact(&name, value))
    }
    fn text(self, text: String) -> Self {
        Self { text, ..self }
    }
    /// What became of a program that was to do something.
    fn done(ran: &Ran) -> Self {
        match ran {
            Ran::Absent => Self::unknown("absent"),
            Ran::TimedOut => Self::crit("timed_out"),
            Ran::Done { code: 0, .. } => Self::ok("done"),
            Ran::Done { code, out } => Self::crit("failed").fact("exit", code).text(out.clone()),
        }
    }
}

/// What a step works with.
pub(crate) struct Desk<H> {
    host: H,
    here: Here,
    order: OrderId,
    /// The desk's.
    socket: std::path::PathBuf,
    stop: Arc<AtomicBool>,
    deadline: Duration,
    cap: usize,
    say: Box<dyn Fn(String) + Send>,
}

impl<H: Host> Desk<H> {
    /// How far it is, for who waits.
    fn say(&self, text: String) {
        (self.say)(text);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs a program of the distribution. The arguments are ours.
    fn run(&self, program: &str, args: &[&str]) -> Ran {
        self.run_for(program, args, self.deadline)
    }

    fn run_for(&self, program: &str, args: &[&str], within: Duration) -> Ran {
        self.host.run_until(program, args, within, self.cap, &|| self.stopped())
    }
}

/// Does what an action says. The one place where actions become deeds.
async fn perform<H: Host>(action: &Action, d: &mut Desk<H>) -> Found {
    match action {
        Action::Health {} => machine::health(d),
        Action::Top { count } => machine::top(d, *count),
        Action::Disks {} => machine::disks(d),
        Action::Smart {} => machine::smart(d),
        Action::SmartTest { disk } => machine::smart_test(d, disk),
        Action::Usb {} => machine::usb(d),
        Action::UsbCycle { usb_port } => machine::usb_cycle(d, usb_port),
        Action::Readers {} => machine::readers(d),
        Action::Clock {} => machine::clock(d),
        Action::Ntp {} => machine::ntp(d),
        Action::ResetViewer {} => match consent::act(action.name(), &d.socket).await {
            Some(true) => Found::ok("done"),
            Some(false) => Found::crit("failed"),
            None => Found::unknown("nobody_there"),
        },
        Action::RereadProxy {} => machine::reread_proxy(d),
        Action::ResendInventory {} => machine::resend(d),
        Action::Unit { unit } => units::state(d, unit),
        Action::Journal { unit, lines } => units::journal(d, unit, *lines),
        Action::RestartUnit { unit } => units::restart(d, unit),
        Action::Reboot {} => units::reboot(d),
        Action::LogOut {} => units::log_out(d),
        Action::Network {} => reach::network(d),
        Action::Ping { to, count } => reach::ping(d, to, *count).await,
        Action::Trace { to, hops } => reach::trace(d, to, *hops),
        Action::Mtu { to } => reach::mtu(d, to),
        Action::Dns { name } => reach::dns(d, name).await,
        Action::Tcp { host, port } => reach::service(d, "tcp", host, *port).await,
        Action::Tls { host, port } => reach::service(d, "tls", host, *port).await,
        Action::Http { host, port } => reach::service(d, "http", host, *port).await,
        Action::Https { host, port } => reach::service(d, "https", host, *port).await,
        Action::Bandwidth {} => reach::bandwidth(d).await,
        Action::RenewDhcp {} => reach::renew_dhcp(d),
        Action::FlushDns {} => Found::done(&d.run("resolvectl", &["flush-caches"])),
        Action::Capture { seconds } => reach::capture(d, *seconds),
        Action::Printers {} => printers::list(d),
        Action::TestPage { printer } => printers::test_page(d, printer),
        Action::ResumeQueue { printer } => printers::resume(d, printer),
        Action::ClearQueue { printer } => printers::clear(d, printer),
    }
}

struct Running {
    id: OrderId,
    /// Told to stop.
    cancel: Arc<tokio::sync::Notify>,
    task: JoinHandle<()>,
}

/// Orders that run, and what they have to say.
pub struct Orders {
    gate: Gate,
    running: Vec<Running>,
    alive: Arc<AtomicUsize>,
    send: mpsc::Sender<OrderNews>,
    news: mpsc::Receiver<OrderNews>,
    socket: std::path::PathBuf,
    /// How long the officer has.
    answer: Duration,
}

impl Orders {
    /// None yet.
    #[must_use]
    pub fn new(state: &std::path::Path, deny: &std::path::Path, endpoint: EndpointId) -> Self {
        let (send, news) = mpsc::channel(64);
        let gate = Gate::open(state, deny, endpoint);
        Self {
            gate,
            running: Vec::new(),
            alive: Arc::default(),
            send,
            news,
            socket: state.join(SOCKET),
            answer: Duration::from_secs(ANSWER_S.into()),
        }
    }

    /// With less time for the officer than the usual half minute.
    #[must_use]
    pub fn answered_within(self, answer: Duration) -> Self {
        Self { answer, ..self }
    }

    /// Takes over what proves orders.
    pub fn keys(&mut self, keys: &[tram_wire::diagnosis::OrderKey]) {
        self.gate.keys(keys);
    }

    /// What there is to tell. Safe to drop half-way.
    pub async fn next(&mut self) -> OrderNews {
        match self.news.recv().await {
            Some(n) => n,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Takes an order, or refuses it; what the ledger says of it.
    pub fn take<H: Host + Send + 'static>(
        &mut self,
        signed: &SignedOrder,
        host: &H,
        here: Here,
        now_ms: i64,
    ) -> String {
        self.running.retain(|r| !r.task.is_finished());
        let server_ms = now_ms.saturating_sub(here.skew_ms.unwrap_or(0));
        let order = self.gate.prove(signed, server_ms).and_then(|order| {
            let busy = self.running.len() >= AT_ONCE || self.alive.load(Ordering::Relaxed) >= THREADS;
            let private = here.read_along && order.work.actions().iter().any(Action::is_private);
            match (private, busy) {
                (true, _) => Err((Some(Box::new(order)), Refused::Inspected)),
                (_, true) => Err((Some(Box::new(order)), Refused::Busy)),
                _ => Ok(order),
            }
        });
        match order {
            Ok(order) => {
                let entry = entry(Some(&order), signed.id, "begun");
                self.begin(order, host, here);
                entry
            }
            Err((order, code)) => {
                let news = OrderNews { order: signed.id, n: 0, news: News::Refused { code } };
                // A full channel means a controller that floods us; it hears of this one by its own deadline.
                let _ = self.send.try_send(news);
                entry(order.as_deref(), signed.id, code.code())
            }
        }
    }

    fn begin<H: Host + Send + 'static>(&mut self, order: Order, host: &H, here: Here) {
        let cancel = Arc::new(tokio::sync::Notify::new());
        let id = order.id;
        let actions = order.work.actions();
        let hosts = actions.iter().map(|_| host.again()).collect();
        let job = run::Job {
            order,
            actions,
            hosts,
            here,
            cancel: cancel.clone(),
            alive: self.alive.clone(),
            send: self.send.clone(),
            socket: self.socket.clone(),
            answer: self.answer,
        };
        let task = tokio::spawn(job.run());
        self.running.push(Running { id, cancel, task });
    }

    /// Stops one.
    pub fn cancel(&mut self, id: OrderId) {
        self.running.iter().filter(|r| r.id == id).for_each(|r| r.cancel.notify_one());
    }

    /// Nobody listens any more: stops all, and forgets what they had to say.
    pub fn cut(&mut self) {
        self.running.iter().for_each(|r| r.cancel.notify_one());
        while self.news.try_recv().is_ok() {}
    }
}

/// A line of the ledger.
fn entry(order: Option<&Order>, id: OrderId, answer: &str) -> String {
    let said = match order {
        Some(o) => serde_json::json!({"order": id, "do": o.work.name(), "work": o.work, "by": o.by, "why": o.why,
            "agreed": o.agreed, "answer": answer}),
        None => serde_json::json!({"order": id, "answer": answer}),
    };
    said.to_string()
}

#[cfg(test)]
mod tests;
