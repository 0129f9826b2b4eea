//! Starts a viewer, carries its connections, and says how it ended.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tram_wire::tunnel::Class;

use super::Viewer;
use crate::session::listen::{Listener, Local};

/// A viewer that has not connected by then never will.
const FIRST_CONNECTION: Duration = Duration::from_secs(20);
/// A connection must say what it is within this time.
const FIRST_WORDS: Duration = Duration::from_secs(10);
/// Connections of one viewer: SPICE has about ten channels.
const CONNECTIONS: usize = 16;
/// One piece carried at once.
const PIECE: usize = 16 * 1024;

/// What a viewer may see of our environment: the screen, the language, its own folders.
const ENVIRONMENT: [&str; 12] = [
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE",
    "DBUS_SESSION_BUS_ADDRESS",
    "PULSE_SERVER",
    "HOME",
    "USER",
    "PATH",
    "LANG",
    "LC_ALL",
];

/// How a viewer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The officer closed it.
    Closed,
    /// It crashed, or was killed.
    Crashed,
}

/// Why a viewer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ViewerError {
    /// No socket for it.
    #[error("no socket for the viewer: {0}")]
    Listen(io::Error),
    /// It can't be started.
    #[error("the viewer can't be started: {0}")]
    Start(io::Error),
    /// The gateway carries no such protocol for this desktop.
    #[error("the desktop does not speak what this viewer speaks")]
    NotSpoken,
    /// It runs, but does not connect.
    #[error("the viewer did not connect within 20 s")]
    Silent,
}

/// Shows the desktop until the viewer ends; dropping this ends the viewer and all of its connections.
/// `open` opens a way to the desktop for one connection.
///
/// # Errors
/// [`ViewerError`].
pub async fn run<S, F>(viewer: &Viewer, folder: &Path, open: F) -> Result<Ended, ViewerError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(Class, Class) -> io::Result<S> + Clone + Send + 'static,
{
    let listener = Listener::bind(viewer.kind(), folder).map_err(ViewerError::Listen)?;
    let mut child = start(viewer, viewer.arguments(listener.place())).map_err(ViewerError::Start)?;
    let pid = child.id().ok_or_else(|| ViewerError::Start(io::ErrorKind::NotFound.into()))?;
    let mut carried = JoinSet::new();
    let patience = Instant::now() + FIRST_CONNECTION;
    let mut connected = false;
    let heard = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = async {
            if connected { Ok(listener.accept(pid).await) } else { timeout_at(patience, listener.accept(pid)).await }
        };
        tokio::select! {
            status = child.wait() => {
                let fine = status.is_ok_and(|s| s.success());
                return Ok(if fine { Ended::Closed } else { Ended::Crashed });
            }
            Some(ended) = carried.join_next() => {
                // The first connection was refused: the viewer would only show its own words for that.
                if heard.load(Ordering::Relaxed) <= viewer.refusal() && matches!(ended, Ok(Err(_))) {
                    return Err(ViewerError::NotSpoken);
                }
            }
            accepted = accepted, if carried.len() < CONNECTIONS => match accepted {
                Ok(Ok(local)) => {
                    connected = true;
                    carried.spawn(carry(viewer.clone(), local, open.clone(), heard.clone()));
                }
                Ok(Err(e)) => return Err(ViewerError::Listen(e)),
                Err(_) => return Err(ViewerError::Silent),
            },
        }
    }
}

fn start(viewer: &Viewer, arguments: Vec<OsString>) -> io::Result<Child> {
    let mut command = Command::new(viewer.program());
    command.env_clear().args(arguments).kill_on_drop(true);
    command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    // What a viewer has to say about a line is no news, and may hold what was typed.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn()
}

/// One connection of the viewer becomes one stream to the desktop.
async fn carry<S, F>(viewer: Viewer, mut local: Box<dyn Local>, open: F, heard: Arc<AtomicUsize>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    F: Fn(Class, Class) -> io::Result<S>,
{
    let mut first = vec![0; viewer.first_words()];
    timeout(FIRST_WORDS, local.read_exact(&mut first)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let (up, down) = viewer.classes(&first);
    let mut stream = Noting { stream: open(up, down)?, heard, refusal: viewer.refusal() };
    stream.write_all(&first).await?;
    copy_bidirectional_with_sizes(&mut local, &mut stream, PIECE, PIECE).await?;
    Ok(())
}

/// A stream that notes how much the desktop said. One that ends after a refusal at most has failed: to the
/// viewer it would be a reason for a window with words of its own.
struct Noting<S> {
    stream: S,
    /// Bytes heard on all connections of the viewer.
    heard: Arc<AtomicUsize>,
    refusal: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noting<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining() > 0);
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let n = buf.filled().len() - before;
        let heard = self.heard.fetch_add(n, Ordering::Relaxed) + n;
        if n == 0 && room && heard <= self.refusal {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noting<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tokio::io::DuplexStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    /// A program in the place of a viewer; the path of its socket, or the port, is in `$to`.
    fn program(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("viewer");
        let text = format!("#!/usr/bin/env bash\nto=${{!#}}; to=${{to##*:}}\n{script}\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A desktop that answers each connection with one line.
    fn desktop(_: Class, _: Class) -> io::Result<DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let _ = theirs.write_all(b"RFB 003.008\n").await;
            let _ = theirs.read(&mut [0; 16]).await;
        });
        Ok(ours)
    }

    async fn shown(script: &str) -> Result<Ended, ViewerError> {
        let dir = tempfile::tempdir().unwrap();
        let viewer = Viewer::Vnc(program(dir.path(), script));
        timeout(SOON, run(&viewer, &dir.path().join("desk"), desktop)).await.unwrap()
    }

    #[tokio::test]
    async fn a_viewer_sees_the_desktop_and_its_end_is_told_apart() {
        let look = r#"exec 3<>"/dev/tcp/127.0.0.1/$to"; read -r line <&3; [ "$line" = "RFB 003.008" ] || exit 9"#;
        assert_eq!(shown(&format!("{look}; exit 0")).await.unwrap(), Ended::Closed);
        assert_eq!(shown(&format!("{look}; kill -SEGV $$")).await.unwrap(), Ended::Crashed);
        assert!(matches!(shown("exit 0").await, Ok(Ended::Closed)));
    }

    #[tokio::test]
    async fn a_protocol_the_desktop_does_not_speak_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        // It would stand there with a message of its own.
        let script = r#"exec 3<>"/dev/tcp/127.0.0.1/$to"; exec sleep 1000"#;
        let viewer = Viewer::Vnc(program(dir.path(), script));
        let refuse = |_, _| -> io::Result<DuplexStream> { Err(io::ErrorKind::ConnectionReset.into()) };
        let done = timeout(SOON, run(&viewer, &dir.path().join("desk"), refuse)).await.unwrap();
        assert!(matches!(done, Err(ViewerError::NotSpoken)), "{done:?}");
    }

    #[tokio::test]
    async fn a_refusal_in_the_protocols_own_words_is_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"exec python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1].removeprefix("spice+unix://"))
s.sendall(bytes(64))
time.sleep(1000)' "${!#}""#;
        let viewer = Viewer::Spice(program(dir.path(), script));
        let refuse = |_, _| -> io::Result<DuplexStream> {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            tokio::spawn(async move {
                let _ = theirs.read(&mut [0; 64]).await;
                let _ = theirs.write_all(&[0; super::super::spice::REFUSAL]).await;
            });
            Ok(ours)
        };
        let done = timeout(SOON, run(&viewer, &dir.path().join("desk"), refuse)).await.unwrap();
        assert!(matches!(done, Err(ViewerError::NotSpoken)), "{done:?}");
    }

    #[tokio::test]
    async fn a_viewer_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let done = run(&Viewer::Vnc("/nonexistent/viewer".into()), dir.path(), desktop).await;
        assert!(matches!(done, Err(ViewerError::Start(_))));
    }

    #[tokio::test]
    async fn the_environment_holds_nothing_but_the_screen_and_the_language() {
        let dir = tempfile::tempdir().unwrap();
        let seen = dir.path().join("seen");
        let script =
            format!("env > {0}.new; tr '\\0' '\\n' < /proc/$$/cmdline >> {0}.new; mv {0}.new {0}", seen.display());
        let viewer = Viewer::Vnc(program(dir.path(), &script));
        run(&viewer, dir.path(), desktop).await.unwrap();
        let seen = fs::read_to_string(seen).unwrap();
        for line in seen.lines().filter(|l| l.contains('=') && !l.starts_with("--")) {
            let name = line.split('=').next().unwrap();
            // The last ones are the shell's own.
            assert!(ENVIRONMENT.contains(&name) || ["PWD", "SHLVL", "_"].contains(&name), "{line}");
        }
        assert!(!seen.contains("CARGO"), "{seen}");
    }

    #[tokio::test]
    async fn dropping_it_ends_the_viewer() {
        let dir = tempfile::tempdir().unwrap();
        let alive = dir.path().join("pid");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", alive.display());
        let viewer = Viewer::Vnc(program(dir.path(), &script));
        let folder = dir.path().join("desk");
        let running = tokio::spawn(async move { run(&viewer, &folder, desktop).await });
        let pid = loop {
            if let Ok(pid) = fs::read_to_string(&alive) {
                break pid.trim().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        running.abort();
        let gone = async {
            // Killed, and not even a zombie of ours remains.
            while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, gone).await.unwrap();
    }
}
