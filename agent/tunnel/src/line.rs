//! Connections a tunnel runs on, and what their sockets are told.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};

/// Unsent bytes the kernel may hold of a thin line: what is there can't be overtaken any more.
const THIN_UNSENT: u32 = 16 * 1024;
/// Of a wide one, where waking up for every 16 KiB costs more than it gains.
const WIDE_UNSENT: u32 = 1024 * 1024;
/// Sent bytes that nobody acknowledges for this long mean a dead line.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// What a tunnel runs on.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send {
    /// The line proved to be wide, or thin.
    fn widen(&self, _wide: bool) {}
}

/// Tells a new socket what a tunnel wants of it: no delay for small frames, BBR where the kernel has it, an
/// early end when nothing is acknowledged, and little unsent data, so that urgent frames overtake the rest
/// here rather than wait behind it in the kernel.
///
/// # Errors
/// If a setting every Linux has is refused; a kernel without BBR is no error.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_congestion(b"bbr");
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_notsent_lowat(THIN_UNSENT)
}

impl Line for TcpStream {
    fn widen(&self, wide: bool) {
        // Only the speed depends on it.
        let _ = SockRef::from(self).set_tcp_notsent_lowat(if wide { WIDE_UNSENT } else { THIN_UNSENT });
    }
}

impl<L: Line> Line for tokio_rustls::client::TlsStream<L> {
    fn widen(&self, wide: bool) {
        self.get_ref().0.widen(wide);
    }
}

impl<L: Line> Line for tokio_rustls::server::TlsStream<L> {
    fn widen(&self, wide: bool) {
        self.get_ref().0.widen(wide);
    }
}

impl Line for Box<dyn Line> {
    fn widen(&self, wide: bool) {
        (**self).widen(wide);
    }
}

impl Line for UnixStream {}
impl Line for DuplexStream {}
