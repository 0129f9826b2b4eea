//! The page the kiosk browser shows: one screen, served on the loopback interface to one user.
//!
//! Four things stand between it and everybody else: the kernel says who connects and it must be the kiosk's
//! user; `Host` must be the very address (a foreign name that resolves to it is refused); a change must come
//! from this page; and whatever shows or changes anything needs the secret of this start, which is handed to
//! the browser in the fragment of an address in a private file: in no argument, no cookie, no request line.

mod request;

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tram_wire::desk::SignIn;

use super::privacy;
use super::texts;
use super::view::View;
use crate::host::peer;
use crate::ledger::Ledger;
use request::{Request, Response};

/// A page that asks for news is answered after this time at the latest.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// Connections at once; a browser opens a handful.
const CONNECTIONS: usize = 16;

const HTML: &str = include_str!("desk.html");
const CSS: &str = include_str!("desk.css");
const JS: &str = include_str!("desk.js");
const PRIVACY_HTML: &str = include_str!("privacy.html");
const PRIVACY_JS: &str = include_str!("privacy.js");

/// What the officer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Signs in.
    SignIn(SignIn),
    /// Back to the desktop.
    Again,
    /// Takes the session over from where it is open.
    TakeOver,
    /// Lets support do what it asks for, or not.
    Answer {
        /// Yes.
        allow: bool,
    },
    /// Nobody shall look any more.
    StopAssist,
    /// Calls support.
    CallSupport,
    /// Lets an order be carried out on this computer, or not.
    Order {
        /// Yes.
        allow: bool,
    },
    /// Signs out.
    SignOut {
        /// The session ends too.
        end: bool,
    },
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Action {
    Again,
    TakeOver,
    SignOut,
    End,
    Allow,
    Refuse,
    StopAssist,
    CallSupport,
    OrderAllow,
    OrderRefuse,
}

/// Where wishes go, and what may be read.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// To the desk.
    pub desk: mpsc::Sender<Command>,
    /// To whom support is called by, whatever the desk is busy with.
    pub calls: mpsc::Sender<()>,
    /// To whoever asked about an order.
    pub orders: mpsc::Sender<bool>,
    /// What was sent, and what support did.
    pub ledger: Ledger,
}

impl Wishes {
    /// Passes a wish on; `false` if earlier ones are still being worked on.
    pub(super) fn send(&self, command: Command) -> bool {
        match command {
            Command::CallSupport => self.calls.try_send(()).is_ok(),
            Command::Order { allow } => self.orders.try_send(allow).is_ok(),
            other => self.desk.try_send(other).is_ok(),
        }
    }
}

#[derive(Serialize)]
struct News<'a> {
    version: u64,
    view: &'a View,
    /// The latest number that was drawn.
    drawn: u64,
}

/// What is shown, with a number that grows with every change.
pub type Shown = (u64, View);

/// The page's server.
pub struct Page {
    listener: TcpListener,
    shared: Arc<Shared>,
    start: PathBuf,
}

struct Shared {
    own: String,
    secret: String,
    uid: u32,
    view: watch::Receiver<Shown>,
    /// The latest number the page has drawn: it asks for what comes after.
    drawn: watch::Sender<u64>,
    wishes: Wishes,
}

impl Page {
    /// Listens on `port` (0: any), for the user `uid`. `folder` is private; the start page is put there.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn bind(
        port: u16,
        uid: u32,
        folder: &Path,
        view: watch::Receiver<Shown>,
        wishes: Wishes,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let own = listener.local_addr()?.to_string();
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let secret = random.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let start = folder.join("start.html");
        write_start(&start, &own, &secret)?;
        let shared = Shared { own, secret, uid, view, drawn: watch::Sender::new(0), wishes };
        Ok(Self { listener, shared: Arc::new(shared), start })
    }

    /// What the kiosk browser opens.
    #[must_use]
    pub fn start(&self) -> &Path {
        &self.start
    }

    /// How far the page got with what is shown.
    #[must_use]
    pub fn drawn(&self) -> watch::Receiver<u64> {
        self.shared.drawn.subscribe()
    }

    /// Serves until dropped.
    pub async fn serve(&self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, theirs)) => {
                    let shared = self.shared.clone();
                    tokio::spawn(async move {
                        let _ = shared.connection(stream, theirs).await;
                        drop(place);
                    });
                }
                // Out of file descriptors, usually: waiting beats spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.start);
    }
}

/// A file that sends the browser to the page: its address with the secret is in no process's arguments.
fn write_start(path: &Path, own: &str, secret: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    write!(
        file,
        "<!doctype html><meta charset=utf-8><title>Tram</title>\
         <meta http-equiv=refresh content=\"0;url=http://{own}/#{secret}\">"
    )
}

impl Shared {
    async fn connection(&self, mut stream: TcpStream, theirs: SocketAddr) -> io::Result<()> {
        // Before a byte is read: whoever it is not for learns nothing.
        if peer::owner(stream.local_addr()?, theirs).map(|o| o.uid) != Some(self.uid) {
            return Ok(());
        }
        let Some(request) = request::read(&mut stream).await? else {
            return Response::status(400).write(&mut stream).await;
        };
        self.answer(&request).await.write(&mut stream).await
    }

    async fn answer(&self, r: &Request) -> Response {
        if let Err(status) = allowed(r, &self.own, &self.secret) {
            return Response::status(status);
        }
        let text = |kind, body: &str| Response { status: 200, kind, body: body.as_bytes().to_vec() };
        match (r.method.as_str(), r.path.as_str()) {
            ("GET", "/") => text("text/html", HTML),
            ("GET", "/desk.css") => text("text/css", CSS),
            ("GET", "/desk.js") => text("text/javascript", JS),
            ("GET", "/texts.json") => text("application/json", texts::JSON),
            ("GET", "/privacy") => text("text/html", PRIVACY_HTML),
            ("GET", "/privacy.js") => text("text/javascript", PRIVACY_JS),
            ("GET", "/api/view") => self.view(&r.query).await,
            ("GET", "/api/ledger") => self.ledger(&r.query),
            ("POST", "/api/sign-in") => match serde_json::from_slice(&r.body) {
                Ok(who) => self.command(Command::SignIn(who)),
                Err(_) => Response::status(400),
            },
            ("POST", "/api/action") => match serde_json::from_slice(&r.body) {
                Ok(Action::Again) => self.command(Command::Again),
                Ok(Action::TakeOver) => self.command(Command::TakeOver),
                Ok(Action::SignOut) => self.command(Command::SignOut { end: false }),
                Ok(Action::End) => self.command(Command::SignOut { end: true }),
                Ok(Action::Allow) => self.command(Command::Answer { allow: true }),
                Ok(Action::Refuse) => self.command(Command::Answer { allow: false }),
                Ok(Action::StopAssist) => self.command(Command::StopAssist),
                Ok(Action::CallSupport) => self.command(Command::CallSupport),
                Ok(Action::OrderAllow) => self.command(Command::Order { allow: true }),
                Ok(Action::OrderRefuse) => self.command(Command::Order { allow: false }),
                Err(_) => Response::status(400),
            },
            _ => Response::status(404),
        }
    }

    fn command(&self, command: Command) -> Response {
        // A full queue means that the last wishes are still being worked on.
        Response::status(if self.wishes.send(command) { 204 } else { 503 })
    }

    /// `kind=report&skip=50`, both optional.
    fn ledger(&self, query: &str) -> Response {
        let of = |name: &str| query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
        let kind = of("kind").filter(|k| !k.is_empty());
        let skip = of("skip").and_then(|n| n.parse().ok()).unwrap_or(0);
        json(&privacy::read(&self.wishes.ledger, kind, skip))
    }

    async fn view(&self, query: &str) -> Response {
        let after = query.strip_prefix("after=").and_then(|n| n.parse().ok());
        if let Some(drawn) = after {
            self.drawn.send_replace(drawn);
        }
        let mut view = self.view.clone();
        let news = view.wait_for(|(version, _)| Some(*version) != after);
        let shown = match timeout(LONGEST_WAIT, news).await {
            Ok(Ok(shown)) => shown.clone(),
            Ok(Err(_)) | Err(_) => self.view.borrow().clone(),
        };
        let news = News { version: shown.0, view: &shown.1, drawn: *self.drawn.borrow() };
        json(&news)
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response { status: 200, kind: "application/json", body },
        Err(_) => Response::status(500),
    }
}

/// Whether a request may have an answer; else the status that says no.
fn allowed(r: &Request, own: &str, secret: &str) -> Result<(), u16> {
    if r.host.as_deref() != Some(own) {
        return Err(421);
    }
    let origin = r.origin.as_deref().map(|o| o.strip_prefix("http://") == Some(own));
    let page = match (r.method.as_str(), origin) {
        (_, Some(own)) => own,
        ("GET", None) => r.site.as_deref().is_none_or(|s| matches!(s, "same-origin" | "none") || r.path == "/"),
        (_, None) => false,
    };
    let known = r.secret.as_deref().is_some_and(|s| same(s.as_bytes(), secret.as_bytes()));
    if !page || r.path.starts_with("/api/") && !known {
        return Err(403);
    }
    Ok(())
}

/// Compares in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests;
