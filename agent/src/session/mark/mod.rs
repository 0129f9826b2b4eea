//! The mark: a bar over everything on the screen that says who looks at it, with a button that stops it.
//!
//! A full-screen viewer covers whatever a window manager keeps *above*, and grabs keyboard and mouse. So the bar is a
//! window no window manager has a say in, raised again whenever something covers it, and its key and clicks are seen in the
//! raw events of the devices, which no grab holds back. It needs X; where there is none, nothing is shown, and
//! who can't be shown is not let in.

mod paint;
mod window;

use std::sync::mpsc as orders;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

pub use paint::Tone;

/// An X server that answers later than this is no screen to rely on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the bar says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// Who looks, and why.
    pub sentence: String,
    /// On the button; empty: there is none.
    pub stop: String,
    /// How loudly.
    pub tone: Tone,
}

/// Whether this screen can show a mark. Asked once a session: it opens a connection.
pub async fn possible() -> bool {
    let asked = tokio::task::spawn_blocking(|| paint::Fonts::installed().is_some() && window::possible());
    matches!(timeout(PATIENCE, asked).await, Ok(Ok(true)))
}

/// A bar on the screen, until this is dropped.
pub struct Mark {
    words: orders::Sender<Words>,
    stops: mpsc::Receiver<()>,
}

impl Mark {
    /// Puts one on the screen.
    #[must_use]
    pub fn show(words: Words) -> Self {
        let (send, orders) = orders::channel();
        let (stop, stops) = mpsc::channel(4);
        let mark = Self { words: send, stops };
        mark.say(words);
        // A thread of its own: X waits for nobody. It ends when the bar is dropped, or can't be shown.
        std::thread::spawn(move || {
            if let Err(e) = window::run(&orders, &stop) {
                eprintln!("tram-agent: the mark can't be shown: {e}");
            }
        });
        mark
    }

    /// Says something else.
    pub fn say(&self, words: Words) {
        // If nobody listens any more, `stopped` says so.
        let _ = self.words.send(words);
    }

    /// Waits until the officer stops it; `None` if it is not on the screen any more.
    pub async fn stopped(&mut self) -> Option<()> {
        self.stops.recv().await
    }
}
