//! `tram-agent desk`: everything an endpoint's screen needs, from switching on to switching off.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::call;
use super::cause::cause;
use super::desk::{Desk, Settings};
use super::listen::private;
use super::orders;
use super::page::{self, Page, Shown, Wishes};
use super::screen;
use super::support;
use super::terminal;
use super::view::{Enrolling, Phase, View};
use super::viewer::{Profile, Viewer};
use crate::config::Config;
use crate::doctor;
use crate::host::{System, limits, peer};
use crate::ledger::Ledger;

/// Between two looks at this computer and its line, while the officer looks at the page.
const LOOK: Duration = Duration::from_secs(15);
/// The same while somebody waits for this computer's approval.
const LOOK_WAITING: Duration = Duration::from_secs(3);
/// Before a browser that ended is started again.
const BROWSER_AGAIN: Duration = Duration::from_secs(2);
/// Wishes that may wait.
const WISHES: usize = 4;

/// Why there is no desk.
#[derive(Debug, thiserror::Error)]
pub enum KioskError {
    /// Nowhere to put sockets.
    #[error("XDG_RUNTIME_DIR is not set: start `tram-agent desk` from the kiosk's graphical session")]
    NoFolder,
    /// A part that never ends did.
    #[error("the desk ended by itself")]
    Ended,
    /// The operating system says no.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
}

/// Serves the screen until dropped.
///
/// # Errors
/// [`KioskError`] at the start; afterwards faults are shown to the officer and mended.
pub async fn run(config: &Config, browser: bool) -> Result<Infallible, KioskError> {
    let (folder, settings) = prepare(config)?;
    let Wires { view, seen, wishes, commands, presses, answers } = Wires::of(config);
    let profile = settings.profile.clone();
    let uid = peer::own_uid().map_err(|e| KioskError::Io("/proc", e))?;
    let page = Page::bind(config.desk.port, uid, &folder, seen.clone(), wishes)
        .await
        .map_err(|e| KioskError::Io("the page's port", e))?;
    eprintln!("tram-agent: the desk is at {}", page.start().display());
    let browsing = async {
        match config.desk.browser.split_first() {
            Some((program, fixed)) if browser => browse(Path::new(program), fixed, &folder, page.start()).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        never = browsing => match never {},
        () = page.serve() => Err(KioskError::Ended),
        () = look(config, &view) => Err(KioskError::Ended),
        () = support::follow(&config.state, &view) => Err(KioskError::Ended),
        () = call::serve(config, &view, presses) => Err(KioskError::Ended),
        () = orders::serve(&config.state, &view, answers, &profile) => Err(KioskError::Ended),
        () = arrange(seen) => Err(KioskError::Ended),
        () = Desk::new(settings, view.clone(), commands).on_page(page.drawn()).run() => Err(KioskError::Ended),
    }
}

/// Serves the terminal this was started in, until its input ends.
///
/// # Errors
/// [`KioskError`].
pub async fn in_terminal(config: &Config) -> Result<(), KioskError> {
    let (_, settings) = prepare(config)?;
    let Wires { view, seen, wishes, commands, presses, .. } = Wires::of(config);
    tokio::select! {
        done = terminal::run(seen, wishes) => done.map_err(|e| KioskError::Io("the terminal", e)),
        () = look(config, &view) => Err(KioskError::Ended),
        () = support::follow(&config.state, &view) => Err(KioskError::Ended),
        () = call::serve(config, &view, presses) => Err(KioskError::Ended),
        () = Desk::new(settings, view.clone(), commands).run() => Err(KioskError::Ended),
    }
}

/// Between the desk and whoever shows it.
struct Wires {
    view: watch::Sender<Shown>,
    seen: watch::Receiver<Shown>,
    wishes: Wishes,
    commands: mpsc::Receiver<page::Command>,
    presses: mpsc::Receiver<()>,
    answers: mpsc::Receiver<bool>,
}

impl Wires {
    fn of(config: &Config) -> Self {
        let phone = support::kept(&config.state);
        let (view, seen) = watch::channel((1, View { phone, ..View::default() }));
        let (desk, commands) = mpsc::channel(WISHES);
        // One press that waits is as good as many.
        let (calls, presses) = mpsc::channel(1);
        let (orders, answers) = mpsc::channel(1);
        let wishes = Wishes { desk, calls, orders, ledger: Ledger::of(&config.state) };
        Self { view, seen, wishes, commands, presses, answers }
    }
}

/// A private folder, and what the desk works with.
fn prepare(config: &Config) -> Result<(PathBuf, Settings), KioskError> {
    // A core dump would hold tokens and pictures.
    limits::no_core_dumps().map_err(|e| KioskError::Io("core dumps can't be switched off", e))?;
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| Path::new(d).is_absolute());
    let folder = PathBuf::from(runtime.ok_or(KioskError::NoFolder)?).join("tram-desk");
    private(&folder).map_err(|e| KioskError::Io("the runtime folder", e))?;
    let settings = Settings {
        state: config.state.clone(),
        folder: folder.clone(),
        gateways: config.desk.gateways.clone(),
        profile: Profile::of(std::env::var_os("HOME").map(PathBuf::from)),
        viewers: Viewer::installed(&config.desk.remote_viewer, &config.desk.vnc_viewer),
    };
    Ok((folder, settings))
}

/// Keeps the browser on the screen. Its profile is thrown away with the runtime folder.
async fn browse(program: &Path, fixed: &[String], folder: &Path, start: &Path) -> Infallible {
    let mut profile = OsString::from("--user-data-dir=");
    profile.push(folder.join("browser"));
    let mut address = OsString::from("file://");
    address.push(start);
    loop {
        let mut command = Command::new(program);
        command.args(fixed).arg(&profile).arg(&address).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(mut child) => {
                let _ = child.wait().await;
                eprintln!("tram-agent: the browser ended; starting it again");
            }
            Err(e) => eprintln!("tram-agent: {} can't be started: {e}", program.display()),
        }
        sleep(BROWSER_AGAIN).await;
    }
}

/// Looks at this computer and its line while somebody reads the page.
async fn look(config: &Config, view: &watch::Sender<Shown>) {
    let mut seen = view.subscribe();
    loop {
        let found = cause(&doctor::glance(config, System::new()).await);
        let enrolling = Enrolling::of(&config.state);
        let waits = enrolling.is_some();
        view.send_if_modified(|(version, shown)| {
            let news = shown.cause != found || shown.enrolling != enrolling;
            if news {
                (*version, shown.cause, shown.enrolling) = (*version + 1, found, enrolling);
            }
            news
        });
        // A change of what is shown is often a change of the line: look again soon, not at once.
        let phase = seen.borrow_and_update().1.phase;
        let pause = if waits { LOOK_WAITING } else { LOOK };
        let _ = timeout(pause, seen.wait_for(|(_, v)| v.phase != phase)).await;
        sleep(Duration::from_secs(1)).await;
        let _ = seen.wait_for(|(_, v)| v.phase != Phase::Desktop).await;
    }
}

/// Puts the page before a desktop that stands still, and the desktop before the page when it goes on.
async fn arrange(mut seen: watch::Receiver<Shown>) {
    let mut before = Phase::SignIn;
    while let Ok(shown) = seen.wait_for(|(_, v)| v.phase != before).await {
        let phase = shown.1.phase;
        drop(shown);
        match (before, phase) {
            (Phase::Lost | Phase::Warned | Phase::Asked, Phase::Desktop) => screen::front(screen::VIEWER).await,
            (_, Phase::Lost | Phase::Left | Phase::Warned | Phase::Asked) => screen::front(screen::PAGE).await,
            _ => {}
        }
        before = phase;
    }
}
