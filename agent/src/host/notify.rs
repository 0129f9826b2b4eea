//! What systemd wants to hear of its service.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How often systemd wants to hear of us; `None`: it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let us = std::env::var("WATCHDOG_USEC").ok()?.parse::<u64>().ok().filter(|us| *us > 0)?;
    std::env::var_os("NOTIFY_SOCKET")?;
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |p| p == std::process::id().to_string());
    ours.then(|| Duration::from_micros(us))
}

/// Tells it something. Nobody there is nobody told.
pub fn tell(what: &str) {
    let Some(at) = std::env::var("NOTIFY_SOCKET").ok() else { return };
    let to = match at.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&at),
    };
    if let (Ok(to), Ok(socket)) = (to, UnixDatagram::unbound()) {
        let _ = socket.send_to_addr(what.as_bytes(), &to);
    }
}
