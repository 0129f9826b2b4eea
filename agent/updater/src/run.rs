//! The loop: ask the controller, fetch, switch, watch, and keep or take back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tram_agent::config::{Address, Config as AgentConfig};
use tram_agent::identity::{Identity, IdentityError};
use tram_agent::link::http::{self, Request};
use tram_agent::link::{tls, way};
use tram_agent::trusted;
use tram_wire::update::{Answer, Ask, Manifest, Offer, Stage, UPDATE_PATH};
use tram_wire::version::CURRENT;

use crate::agent;
use crate::config::Config;
use crate::fetch::{FetchError, Source, fetch};
use crate::keep::{self, Kept};
use crate::place::Place;
use crate::proof::Here;
use crate::state::{No, Release, State};
use crate::watch::{Patience, Trial, Verdict};

/// Between two looks at a release that is being tried.
const LOOK: Duration = Duration::from_secs(1);
/// Between two questions while one is tried: whether the controller is there decides what silence means.
const ASK_ON_TRIAL: Duration = Duration::from_secs(30);
/// After a question without an answer; doubled each time.
const AGAIN: Duration = Duration::from_secs(30);
const AGAIN_MOST: Duration = Duration::from_secs(900);
/// Between two looks whether this computer is enrolled by now: until then there is nobody to ask.
const ENROLLED: Duration = Duration::from_secs(20);
/// A shorter wait is not worth a new beginning.
const REST: Duration = Duration::from_secs(120);

/// One updater at work.
pub struct Updater {
    config: Config,
    agent: AgentConfig,
    place: Place,
    state: State,
    /// The controller answered when it was asked last.
    answered: bool,
    failures: u32,
    ask_at: Instant,
    /// Not tried again before.
    rest_until: Option<Instant>,
    offered: Option<Release>,
    kept: Kept,
    keeping: Option<(tokio::task::JoinHandle<()>, u16)>,
}

/// The way to the controller.
struct Way {
    to: Address,
    tls: Arc<ClientConfig>,
    now_ms: i64,
    /// Spreads what many computers do at once.
    seed: u32,
}

/// One line for the journal.
fn note(text: &str) {
    eprintln!("tram-updater: {text}");
}

impl Updater {
    /// Takes up what an earlier one left.
    ///
    /// # Errors
    /// If its folder can't be used.
    pub fn open(config: Config, agent: AgentConfig) -> io::Result<Self> {
        let place = Place::open(&config.state, &config.packaged)?;
        let state = State::load(&config.state)?;
        trusted::recall(&agent.state);
        way::set(agent.proxy.as_ref());
        tram_agent::identity::tpm::set(&agent.key);
        Ok(Self {
            place,
            state,
            config,
            agent,
            answered: false,
            failures: 0,
            ask_at: Instant::now(),
            rest_until: None,
            offered: None,
            kept: Kept::default(),
            keeping: None,
        })
    }

    /// What is remembered.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Back to the package's own program, as an administrator who installs a package wants it.
    ///
    /// # Errors
    /// If it can't be written down or done.
    pub fn use_packaged(&mut self) -> io::Result<()> {
        (self.state.trial, self.state.committed) = (None, None);
        self.save()?;
        self.place.switch(None)
    }

    /// Forgets what failed, so that it may be tried again.
    ///
    /// # Errors
    /// If it can't be written down.
    pub fn forget(&mut self) -> io::Result<()> {
        self.state.past.clear();
        self.save()
    }

    fn save(&self) -> io::Result<()> {
        self.state.save(&self.config.state)
    }

    /// Works until there is nothing to do for a while: how long. Everything is written down before it is done: it may end
    /// at any time.
    pub async fn run(&mut self) -> Duration {
        self.settle().await;
        loop {
            if let Some(rest) = self.rest() {
                return rest;
            }
            let look = self.state.trial.is_some().then(|| Instant::now() + LOOK);
            sleep_until(look.map_or(self.ask_at, |l| l.min(self.ask_at))).await;
            if self.state.trial.is_some() {
                self.watch().await;
            }
            if Instant::now() >= self.ask_at {
                self.ask().await;
            }
        }
    }

    /// How long nothing is to be done, if what is in memory is of no use until then.
    fn rest(&self) -> Option<Duration> {
        let busy = self.state.trial.is_some() || self.keeping.is_some() || self.failures > 0;
        let rests = self.rest_until.is_some_and(|until| until > Instant::now());
        let left = self.ask_at.saturating_duration_since(Instant::now());
        (!busy && !rests && left >= REST).then_some(left)
    }

    /// Finishes what was decided: `current` is what the state says, and what it says is whole.
    async fn settle(&mut self) {
        if let Some(trial) = &self.state.trial
            && self.place.whole(&trial.release).is_none()
        {
            self.state.take_back("damaged", "the program on the disk is not what was signed".to_owned());
        }
        if let Some(release) = &self.state.committed
            && self.place.whole(release).is_none()
        {
            note(&format!("release {} is damaged: back to the package's own", release.version));
            self.state.committed = None;
        }
        if let Err(e) = self.save() {
            note(&format!("the state can't be written: {e}"));
        }
        let trial = self.state.trial.as_ref().map(|t| t.release.clone());
        let wanted = trial.or_else(|| self.state.committed.clone());
        if !self.place.is_current(wanted.as_ref()) {
            self.put(wanted.as_ref()).await;
        }
    }

    /// Makes it current and has the agent begin anew.
    async fn put(&mut self, release: Option<&Release>) {
        match self.place.switch(release) {
            Ok(()) => agent::restart_all(&self.agent.state, &self.place.program()).await,
            Err(e) => note(&format!("`current` can't be changed: {e}")),
        }
    }

    async fn watch(&mut self) {
        let seen = agent::look(&self.agent.state, self.answered);
        let patience = Patience { start: self.config.start_within, report: self.config.report_within };
        let Some(trial) = &mut self.state.trial else { return };
        let before = (trial.process, trial.stopped, trial.restarts);
        let verdict = trial.look(&seen, patience);
        let news = before != (trial.process, trial.stopped, trial.restarts);
        let version = trial.release.version.clone();
        match verdict {
            Verdict::Wait if news => {
                if let Err(e) = self.save() {
                    note(&format!("the state can't be written: {e}"));
                }
            }
            Verdict::Wait => {}
            Verdict::Commit => {
                note(&format!("release {version} runs well and stays"));
                self.state.commit();
                if let Err(e) = self.save() {
                    note(&format!("the state can't be written: {e}"));
                }
                self.tidy();
                self.ask_at = Instant::now();
            }
            Verdict::Back(code) => self.take_back(code).await,
        }
    }

    async fn take_back(&mut self, code: &str) {
        let Some(trial) = &self.state.trial else { return };
        let (version, before) = (trial.release.version.clone(), trial.before.clone());
        note(&format!("release {version} is taken back: {code}"));
        self.state.take_back(code, String::new());
        let before = before.filter(|b| self.place.whole(b).is_some());
        self.state.committed.clone_from(&before);
        if let Err(e) = self.save() {
            // It is done all the same: the link that is followed at the next start is the one on the disk.
            note(&format!("the state can't be written: {e}"));
        }
        self.put(before.as_ref()).await;
        self.rest_until = Some(Instant::now() + self.config.retry);
        self.ask_at = Instant::now();
    }

    fn tidy(&self) {
        let trial = self.state.trial.as_ref();
        let all = [
            self.state.committed.as_ref(),
            trial.map(|t| &t.release),
            trial.and_then(|t| t.before.as_ref()),
            self.offered.as_ref(),
            self.state.keeps.as_ref(),
        ];
        self.place.tidy(&all.into_iter().flatten().collect::<Vec<_>>());
    }

    fn way(&mut self) -> Result<Way, String> {
        // Read anew each time: certificates are renewed by the agent.
        let identity = Identity::load(&self.agent.state).map_err(|e| e.to_string())?;
        let now_ms = trusted::now_ms(identity.issued.issued_ms.max(self.state.time_ms));
        self.state.time_ms = now_ms;
        let id = identity.endpoint_id.0.as_bytes();
        Ok(Way {
            to: identity.controller.parse().map_err(|e: tram_agent::config::ConfigError| e.to_string())?,
            tls: tls::link(&identity).map_err(|e| e.to_string())?,
            now_ms,
            seed: u32::from_le_bytes([id[12], id[13], id[14], id[15]]),
        })
    }

    async fn ask(&mut self) {
        if let Err(IdentityError::Missing(_)) = Identity::load(&self.agent.state) {
            self.ask_at = Instant::now() + ENROLLED;
            return;
        }
        let way = self.way();
        let answer = match &way {
            Ok(way) => self.question(way).await,
            Err(e) => Err(e.clone()),
        };
        let seed = way.as_ref().map_or(0, |w| w.seed);
        match answer {
            Ok(answer) => {
                (self.answered, self.failures) = (true, 0);
                self.ask_at = Instant::now() + Duration::from_secs(u64::from(answer.again_s.clamp(1, 86_400)));
                self.keep(answer.keep, way.as_ref().ok()).await;
                if let (Some(offer), Ok(way)) = (answer.offer, &way) {
                    self.offer(offer, way).await;
                }
            }
            Err(e) => {
                if self.answered || self.failures == 0 {
                    note(&format!("the controller can't be asked: {e}"));
                }
                self.answered = false;
                let wait = AGAIN.saturating_mul(1 << self.failures.min(5)).min(AGAIN_MOST);
                // Between three quarters and five quarters: not all at once when the line is back.
                self.ask_at = Instant::now() + wait * 3 / 4 + wait * (seed % 1024) / 2048;
                self.failures = self.failures.saturating_add(1);
            }
        }
        if self.state.trial.is_some() {
            self.ask_at = self.ask_at.min(Instant::now() + ASK_ON_TRIAL);
        }
    }

    async fn question(&self, way: &Way) -> Result<Answer, String> {
        let ask = Ask {
            protocol: CURRENT,
            arch: std::env::consts::ARCH.to_owned(),
            release: self.state.committed.as_ref().map(|r| r.version.clone()),
            counter: self.state.counter,
            progress: self.state.last.clone(),
            keeps_at: self.keeping.as_ref().and_then(|(_, port)| lan(&way.to, *port)),
            keeps: self.kept.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(sha256, _)| sha256.clone()),
        };
        let body = serde_json::to_vec(&ask).map_err(|e| e.to_string())?;
        let request = Request { method: "POST", path: UPDATE_PATH, bearer: None, body: &body };
        let answer = http::ask(&way.to, way.tls.clone(), &request).await.map_err(|e| e.to_string())?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|e| e.to_string()),
            status => Err(format!("HTTP status {status}")),
        }
    }

    /// Begins or ends keeping a copy for the office.
    async fn keep(&mut self, wanted: bool, way: Option<&Way>) {
        match (&self.keeping, wanted && self.config.keep && way.is_some()) {
            (None, true) => match TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], self.config.keep_port))).await {
                Ok(listener) => {
                    let port = listener.local_addr().map_or(self.config.keep_port, |a| a.port());
                    let release = self.state.keeps.clone();
                    self.hold(release.as_ref());
                    self.keeping = Some((tokio::spawn(keep::serve(listener, self.kept.clone())), port));
                    // The others of the office wait for the address.
                    self.ask_at = self.ask_at.min(Instant::now() + LOOK);
                }
                Err(e) => note(&format!("no copy can be kept for the office at port {}: {e}", self.config.keep_port)),
            },
            (Some((task, _)), false) => {
                task.abort();
                self.keeping = None;
                self.state.keeps = None;
            }
            _ => {}
        }
    }

    /// Gives a release to who asks, if it is here.
    fn hold(&mut self, release: Option<&Release>) {
        let here = release.and_then(|r| Some((r.sha256.clone(), self.place.whole(r)?)));
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = here;
    }

    /// Notes how far a release is; news are told soon.
    fn tell(&mut self, counter: u64, stage: Stage, code: &str, detail: String) {
        let failed = self.state.last.as_ref().is_some_and(|p| p.counter == counter && p.stage == Stage::RolledBack);
        if failed && stage == Stage::Ready && code.is_empty() {
            // That it could be tried again is no news; that it failed is what has to be known.
            return;
        }
        if self.state.tell(counter, stage, code, detail) {
            if let Some(p) = self.state.last.as_ref().filter(|p| !p.code.is_empty()) {
                note(&format!("release {counter}: {} {}", p.code, p.detail));
            }
            if let Err(e) = self.save() {
                note(&format!("the state can't be written: {e}"));
            }
            self.ask_at = self.ask_at.min(Instant::now() + LOOK);
        }
    }

    async fn offer(&mut self, offer: Offer, way: &Way) {
        let here = Here {
            arch: std::env::consts::ARCH,
            ring: offer.ring,
            now_ms: way.now_ms,
            counter: self.state.counter,
            protocol: CURRENT,
        };
        let manifest = match self.config.keys.prove(&offer.signed, &here) {
            Ok(manifest) => manifest,
            Err(refusal) => {
                // Nothing it says is believed, its number neither: it only names what is refused.
                let counter = offer.signed.read().map_or(0, |m| m.counter);
                return self.tell(counter, Stage::Refused, refusal.code, refusal.detail);
            }
        };
        let release = Release::from(&manifest);
        let runs = self.state.committed.as_ref() == Some(&release);
        if self.state.trial.is_some() || (runs && self.keeping.is_none()) {
            if runs {
                self.tell(manifest.counter, Stage::Committed, "", String::new());
            }
            return;
        }
        if !runs && offer.wait_s.is_some() {
            match self.state.may_try(&release.sha256) {
                Ok(()) => {}
                Err(No::Banned) => {
                    let why =
                        self.state.last.as_ref().filter(|p| p.counter == manifest.counter).map(|p| p.code.clone());
                    return self.tell(manifest.counter, Stage::Banned, &why.unwrap_or_default(), String::new());
                }
                Err(No::Loop) => return self.tell(manifest.counter, Stage::Banned, "loop", String::new()),
            }
        }
        self.offered = Some(release.clone());
        if self.place.whole(&release).is_none() && !self.get(&manifest, &release, &offer.peers, way).await {
            return;
        }
        self.state.keeps = self.keeping.is_some().then(|| release.clone());
        self.hold(self.keeping.is_some().then_some(&release));
        self.tidy();
        match offer.wait_s {
            _ if runs => self.tell(manifest.counter, Stage::Committed, "", String::new()),
            Some(0) => self.begin(&manifest, release, offer.alive_s).await,
            wait => {
                self.tell(manifest.counter, Stage::Ready, "", String::new());
                if let Some(s) = wait {
                    self.ask_at = self.ask_at.min(Instant::now() + Duration::from_secs(s));
                }
            }
        }
    }

    /// Fetches it; whether it is here.
    async fn get(&mut self, manifest: &Manifest, release: &Release, peers: &[String], way: &Way) -> bool {
        let (counter, part) = (manifest.counter, self.place.part(&release.sha256));
        let have = std::fs::metadata(&part).map_or(0, |m| m.len());
        if !self.place.has_room(manifest.size.saturating_sub(have)) {
            self.tell(counter, Stage::Fetching, "disk_full", format!("{} bytes have no room", manifest.size));
            return false;
        }
        let mut sources: Vec<Source> = peers.iter().take(4).cloned().map(Source::Peer).collect();
        sources.push(Source::Controller(way.to.clone(), way.tls.clone()));
        let mut why = (String::new(), String::new());
        for source in sources {
            let got = fetch(&source, &release.sha256, manifest.size, &part).await;
            let bytes = std::fs::metadata(&part).map_or(0, |m| m.len());
            let peer = matches!(source, Source::Peer(_));
            match got {
                Ok(new) => match self.place.take_in(release) {
                    Ok(_) => {
                        self.tell(counter, Stage::Ready, "", String::new());
                        self.fetched(bytes, if peer { new } else { 0 });
                        return true;
                    }
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => why = ("sha256".to_owned(), e.to_string()),
                    Err(e) => why = ("disk".to_owned(), e.to_string()),
                },
                Err(e @ FetchError::Disk(_)) => {
                    why = (e.code().to_owned(), e.to_string());
                    break;
                }
                Err(e) => why = (e.code().to_owned(), e.to_string()),
            }
        }
        let stage = if why.0 == "sha256" { Stage::Refused } else { Stage::Fetching };
        self.tell(counter, stage, &why.0, why.1);
        self.fetched(std::fs::metadata(&part).map_or(0, |m| m.len()), 0);
        self.ask_at = self.ask_at.min(Instant::now() + AGAIN);
        false
    }

    fn fetched(&mut self, bytes: u64, from_peer: u64) {
        if let Some(last) = &mut self.state.last {
            (last.bytes, last.from_peer) = (bytes, last.from_peer.saturating_add(from_peer));
        }
    }

    async fn begin(&mut self, manifest: &Manifest, release: Release, alive_s: u32) {
        if let Some(wait) = self.rest_until.and_then(|until| until.checked_duration_since(Instant::now())) {
            self.ask_at = self.ask_at.min(Instant::now() + wait);
            return;
        }
        let seen = agent::look(&self.agent.state, true);
        let Some(old) = seen.process else {
            // Nobody could say whether it runs better than what does not run.
            return self.tell(manifest.counter, Stage::Ready, "agent_not_running", String::new());
        };
        note(&format!("release {} is tried", release.version));
        let trial = Trial {
            release: release.clone(),
            before: self.state.committed.clone(),
            alive_s: alive_s.clamp(1, 86_400),
            old: Some(old),
            boot: seen.boot,
            since_ms: seen.up_ms,
            seen_ms: seen.up_ms,
            ..Trial::default()
        };
        self.state.begin(trial);
        let switched = self.save().and_then(|()| self.place.switch(Some(&release)));
        if let Err(e) = switched {
            self.state.trial = None;
            return self.tell(manifest.counter, Stage::Ready, "disk", e.to_string());
        }
        agent::restart_all(&self.agent.state, &self.place.program()).await;
        let up_ms = agent::look(&self.agent.state, true).up_ms;
        if let Some(trial) = &mut self.state.trial {
            (trial.since_ms, trial.seen_ms) = (up_ms, up_ms);
        }
        self.ask_at = Instant::now();
    }
}

/// Where computers of the office reach this one: the address that the way to the controller begins at.
fn lan(to: &Address, port: u16) -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: it only asks the kernel for a route.
    socket.connect((to.host.as_str(), to.port)).ok()?;
    Some(SocketAddr::new(socket.local_addr().ok()?.ip(), port).to_string())
}
