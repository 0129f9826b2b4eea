//! The real viewers on a screen of their own, shown the display of a real QEMU through the agent's sockets, and
//! for SPICE through the gateway's guard.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tram_agent::session::viewer::{self, Viewer};
use tram_controller::gateway::protocol::spice::guard::{self, Note};
use tram_controller::gateway::protocol::spice::session::Channels;
use tram_controller::gateway::shape::Grant;
use tram_tests::guest::Guest;
use tram_tests::screen::{Screen, pictures, wait};

const REMOTE_VIEWER: &str = "/usr/bin/remote-viewer";
const TIGER: &str = "/usr/bin/xtigervncviewer";

/// Only for the test below, which starts this program once more on a screen: what a viewer sees of the
/// environment is this process's.
#[tokio::test]
#[ignore = "started by the other test"]
async fn shown() -> Result<()> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from).context(name.to_owned());
    let (folder, program) = (var("TRAM_TEST_FOLDER")?, var("TRAM_TEST_VIEWER")?);
    let (viewer, display) = match var("TRAM_TEST_KIND")?.to_str() {
        Some("spice") => (Viewer::Spice(program), "spice.sock"),
        Some("tiger") => (Viewer::Tiger(program), "vnc.sock"),
        _ => (Viewer::Vnc(program), "vnc.sock"),
    };
    let (guarded, display) = (matches!(viewer, Viewer::Spice(_)), folder.join(display));
    let drawn = folder.join("drawn");
    let channels = Channels::default();
    let open = move |_, _| {
        let connect = |path: &Path| {
            let stream = StdUnixStream::connect(path)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        };
        if !guarded {
            return connect(&display);
        }
        // As at a gateway: the guard stands between the viewer's channels and QEMU.
        let (viewer, mut ours) = UnixStream::pair()?;
        let (channels, display, drawn) = (channels.clone(), display.clone(), drawn.clone());
        tokio::spawn(async move {
            let open = || async { connect(&display) };
            let Ok(linked) = guard::link(&mut ours, &channels, Duration::from_secs(60), open).await else { return };
            let (from, mut to) = ours.into_split();
            let note = |note| {
                if note == Note::Picture {
                    let _ = std::fs::write(&drawn, "");
                }
            };
            linked
                .carry(&mut BufReader::new(from), &mut to, note, || std::future::ready(Grant::free(usize::MAX)))
                .await;
        });
        Ok(viewer)
    };
    viewer::run(&viewer, &folder.join("desk"), open).await?;
    Ok(())
}

#[test]
fn every_viewer_shows_the_guest_full_screen() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _guest = Guest::start(folder.path())?;
    for (kind, program) in [("spice", REMOTE_VIEWER), ("tiger", TIGER), ("vnc", REMOTE_VIEWER)] {
        let screen = Screen::start()?;
        let mut showing = screen
            .command(std::env::current_exe()?)
            .args(["--exact", "shown", "--ignored"])
            .env("TRAM_TEST_KIND", kind)
            .env("TRAM_TEST_VIEWER", program)
            .env("TRAM_TEST_FOLDER", folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let picture = pictures().join(format!("viewer-{kind}.png"));
        let seen = wait(kind, || {
            // Now and then the window manager puts a window that covers the screen beside its own border: +-5+-5.
            let full = screen.windows()?.contains(" 1280x800+");
            // The firmware's words are more than one colour.
            // A window that complains has colours too: of SPICE it is known that QEMU drew.
            let drawn = kind != "spice" || folder.path().join("drawn").exists();
            Ok((full && drawn && screen.picture(&picture)? > 2).then_some(()))
        });
        let windows = screen.windows()?;
        let _ = showing.kill();
        let _ = showing.wait();
        seen.with_context(|| windows)?;
    }
    Ok(())
}
