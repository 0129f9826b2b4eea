//! Which window is in front. Without `xdotool`, or on Wayland, the order stays as the window manager likes it:
//! the page's banner is then seen only after the viewer is left.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

const XDOTOOL: &str = "/usr/bin/xdotool";
const PATIENCE: Duration = Duration::from_secs(5);

/// Our page, by its title.
pub const PAGE: &str = "^Tram desk";
/// The viewer: by the title we gave it, or by TigerVNC's own.
pub const VIEWER: &str = "^Tram( \\(|$)| - TigerVNC$";

/// Whether the window that has the keyboard has this title. Without `xdotool` nobody knows, and so it has not.
pub async fn is_front(title: &str) -> bool {
    let mut command = Command::new(XDOTOOL);
    command.args(["getactivewindow", "getwindowname"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(Ok(out)) = timeout(PATIENCE, command.output()).await else { return false };
    let plain = title.trim_start_matches('^');
    String::from_utf8_lossy(&out.stdout).starts_with(plain)
}

/// Brings the window with this title to the front.
pub async fn front(title: &str) {
    if !Path::new(XDOTOOL).is_file() {
        return;
    }
    // Raised for bare X, activated for a window manager that keeps a full-screen window in front.
    for action in ["windowraise", "windowactivate"] {
        let mut command = Command::new(XDOTOOL);
        command.args(["search", "--onlyvisible", "--name", title, action]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = timeout(PATIENCE, command.status()).await;
    }
}
