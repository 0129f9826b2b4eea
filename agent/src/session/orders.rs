//! What support wants to do to this computer, before the officer's eyes: told, or asked for with a no as the answer of
//! who says nothing.
//!
//! The agent asks by a socket in the state folder ([`consent`]), one question at a time. An answer counts for the
//! question on the page alone: what was pressed before it stood there is thrown away.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tram_wire::diagnosis::{ANSWER_S, Bundle, spec};

use super::page::Shown;
use super::screen;
use super::view::Phase;
use super::viewer::Profile;
use crate::actions::consent::{Answer, Question, SOCKET};

/// A question is no longer.
const MOST: u64 = 4096;
/// It comes in one piece.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long something that is only told stands on the page.
const TOLD: Duration = Duration::from_secs(60);

/// What the page shows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// An answer is wanted.
    pub ask: bool,
    /// It was agreed to, and is for the desk to do.
    #[serde(skip)]
    pub act: bool,
    /// The action's word in the catalogue; the page has a sentence for it.
    pub action: String,
    /// Who wants it.
    pub who: String,
    /// Why.
    pub why: String,
    /// Seconds to answer.
    pub left_s: u16,
}

/// Asks and tells until dropped. `answers`: what the officer pressed.
pub(super) async fn serve(
    state: &Path,
    view: &watch::Sender<Shown>,
    mut answers: mpsc::Receiver<bool>,
    profile: &Profile,
) {
    let listener = match listen(&state.join(SOCKET)) {
        Ok(listener) => listener,
        Err(e) => {
            // Whatever interrupts work is refused then, which is the safe side.
            eprintln!("tram-agent: the officer can't be asked about diagnoses: {e}");
            return std::future::pending().await;
        }
    };
    let mut gone = None;
    loop {
        let next = tokio::select! {
            next = listener.accept() => next,
            () = sleep_until(gone.unwrap_or_else(Instant::now)), if gone.is_some() => {
                show(view, None);
                gone = None;
                continue;
            }
        };
        let Ok((mut line, _)) = next else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(wanted) = timeout(PATIENCE, read(&mut line)).await.ok().flatten() else { continue };
        let allow = if acts(&wanted) {
            profile.reset().is_ok()
        } else if wanted.ask {
            ask(view, wanted, &mut answers).await
        } else {
            tell(view, wanted)
        };
        gone = view.borrow().1.order.is_some().then(|| Instant::now() + TOLD);
        if let Ok(answer) = serde_json::to_vec(&Answer { allow }) {
            let _ = timeout(PATIENCE, line.write_all(&answer)).await;
        }
    }
}

/// A socket that only our own user opens. One that an earlier run left is in nobody's use.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// `None`: no question of ours.
async fn read(line: &mut UnixStream) -> Option<Wanted> {
    let mut bytes = Vec::new();
    line.take(MOST).read_to_end(&mut bytes).await.ok()?;
    let q: Question = serde_json::from_slice(&bytes).ok()?;
    // The page's sentences are for words of the catalogue.
    let known = spec(&q.action).is_some() || q.action.parse::<Bundle>().is_ok();
    known.then(|| Wanted {
        ask: q.ask,
        act: q.act,
        action: q.action,
        who: q.who,
        why: q.why,
        left_s: q.left_s.min(ANSWER_S),
    })
}

/// What the desk does itself, after the officer said yes to it.
fn acts(wanted: &Wanted) -> bool {
    wanted.act && wanted.action == "reset_viewer"
}

fn tell(view: &watch::Sender<Shown>, wanted: Wanted) -> bool {
    show(view, Some(wanted));
    true
}

async fn ask(view: &watch::Sender<Shown>, wanted: Wanted, answers: &mut mpsc::Receiver<bool>) -> bool {
    let until = Instant::now() + Duration::from_secs(wanted.left_s.into());
    while answers.try_recv().is_ok() {}
    show(view, Some(wanted));
    screen::front(screen::PAGE).await;
    let allow = tokio::select! {
        pressed = answers.recv() => pressed.unwrap_or(false),
        () = sleep_until(until) => false,
    };
    show(view, None);
    if view.borrow().1.phase == Phase::Desktop {
        screen::front(screen::VIEWER).await;
    }
    allow
}

fn show(view: &watch::Sender<Shown>, order: Option<Wanted>) {
    view.send_if_modified(|(version, shown)| {
        let news = shown.order != order;
        if news {
            (*version, shown.order) = (*version + 1, order.clone());
        }
        news
    });
}

#[cfg(test)]
mod tests {
    use super::super::view::View;
    use super::*;

    struct Desk {
        folder: tempfile::TempDir,
        view: watch::Receiver<Shown>,
        press: mpsc::Sender<bool>,
        _task: tokio::task::JoinHandle<()>,
    }

    async fn desk() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let (sender, view) = watch::channel((1, View::default()));
        let (press, answers) = mpsc::channel(4);
        let state = folder.path().to_owned();
        // What an earlier run left.
        fs::write(state.join(SOCKET), "").unwrap();
        let home = folder.path().join("home");
        fs::create_dir_all(home.join(".config/virt-viewer")).unwrap();
        let profile = Profile::of(Some(home));
        let _task = tokio::spawn(async move { serve(&state, &sender, answers, &profile).await });
        while fs::metadata(folder.path().join(SOCKET)).map_or(0, |m| m.permissions().mode()) & 0o777 != 0o600 {
            tokio::task::yield_now().await;
        }
        Desk { folder, view, press, _task }
    }

    async fn put(desk: &Desk, question: &[u8]) -> UnixStream {
        let mut line = loop {
            match UnixStream::connect(desk.folder.path().join(SOCKET)).await {
                Ok(line) => break line,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        line.write_all(question).await.unwrap();
        line.shutdown().await.unwrap();
        line
    }

    async fn answer(mut line: UnixStream) -> Option<Answer> {
        let mut bytes = Vec::new();
        // Who sends too much is hung up on.
        let _ = line.read_to_end(&mut bytes).await;
        serde_json::from_slice(&bytes).ok()
    }

    fn question(ask: bool, action: &str, left_s: u16) -> Vec<u8> {
        let (action, who, why) = (action.to_owned(), "lan".to_owned(), "treo máy".to_owned());
        serde_json::to_vec(&Question { ask, act: false, action, who, why, left_s }).unwrap()
    }

    #[tokio::test]
    async fn the_viewers_profile_goes_when_that_was_agreed_to() {
        let d = desk().await;
        let kept = d.folder.path().join("home/.config/virt-viewer");
        let q: Question = serde_json::from_slice(&question(false, "reset_viewer", 0)).unwrap();
        let act = |q: Question| serde_json::to_vec(&Question { act: true, ..q }).unwrap();
        // Only that is the desk's to do; anything else is told.
        let other = act(Question { action: "flush_dns".into(), ..q.clone() });
        assert_eq!(answer(put(&d, &other).await).await, Some(Answer { allow: true }));
        assert!(kept.exists());
        assert_eq!(answer(put(&d, &act(q)).await).await, Some(Answer { allow: true }));
        assert!(!kept.exists());
    }

    #[tokio::test]
    async fn the_officers_word_counts_for_the_question_before_them() {
        let mut d = desk().await;
        // Pressed before there was a question.
        d.press.send(true).await.unwrap();
        let line = put(&d, &question(true, "reboot", 30)).await;
        d.view.wait_for(|(_, v)| v.order.as_ref().is_some_and(|o| o.ask && o.action == "reboot")).await.unwrap();
        d.press.send(false).await.unwrap();
        assert_eq!(answer(line).await, Some(Answer { allow: false }));
        assert_eq!(d.view.borrow_and_update().1.order, None);
        let line = put(&d, &question(true, "log_out", 30)).await;
        d.view.wait_for(|(_, v)| v.order.is_some()).await.unwrap();
        d.press.send(true).await.unwrap();
        assert_eq!(answer(line).await, Some(Answer { allow: true }));
    }

    #[tokio::test]
    async fn silence_is_a_no_and_what_is_told_waits_for_nobody() {
        let mut d = desk().await;
        assert_eq!(answer(put(&d, &question(true, "reboot", 0)).await).await, Some(Answer { allow: false }));
        assert_eq!(answer(put(&d, &question(false, "flush_dns", 30)).await).await, Some(Answer { allow: true }));
        d.view.wait_for(|(_, v)| v.order.as_ref().is_some_and(|o| !o.ask)).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_question_is_not_shown() {
        let d = desk().await;
        for bad in [&b"{}"[..], b"", &[b'x'; 10_000], &question(true, "rm -rf", 30)] {
            assert_eq!(answer(put(&d, bad).await).await, None);
        }
        assert_eq!(d.view.borrow().1.order, None);
    }
}
