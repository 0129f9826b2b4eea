//! Connections a tunnel runs on, and what their sockets are told.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest};
use tokio::net::{TcpStream, UnixStream};

/// Unsent bytes the kernel may hold before the line is known.
const UNSENT: u32 = 16 * 1024;
/// Sent bytes that nobody acknowledges for this long mean a dead line.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// What a tunnel runs on.
pub trait Line: AsyncRead + AsyncWrite + Unpin + Send {
    /// From now on at most about so many bytes should be held that were not sent.
    fn hold(&self, _unsent: usize) {}

    /// Waits until little of what was written is still unsent.
    fn poll_room(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
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
    socket.set_tcp_notsent_lowat(UNSENT)
}

impl Line for TcpStream {
    fn hold(&self, unsent: usize) {
        // Only the speed depends on it.
        let _ = SockRef::from(self).set_tcp_notsent_lowat(u32::try_from(unsent).unwrap_or(UNSENT));
    }

    /// The kernel takes far more than the limit as long as its last segment can grow; but it calls a socket
    /// writable only below the limit. So it is asked, rather than tried.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.poll_write_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let asked = self.try_io(Interest::WRITABLE, || {
                let mut fd = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut fd, PollTimeout::ZERO) {
                    // The runtime forgets that it was writable, and wakes at the kernel's word.
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if !asked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(());
            }
        }
    }
}

impl<L: Line> Line for tokio_rustls::client::TlsStream<L> {
    fn hold(&self, unsent: usize) {
        self.get_ref().0.hold(unsent);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().0.poll_room(cx)
    }
}

impl<L: Line> Line for tokio_rustls::server::TlsStream<L> {
    fn hold(&self, unsent: usize) {
        self.get_ref().0.hold(unsent);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().0.poll_room(cx)
    }
}

impl Line for Box<dyn Line> {
    fn hold(&self, unsent: usize) {
        (**self).hold(unsent);
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_room(cx)
    }
}

impl Line for UnixStream {}
impl Line for DuplexStream {}
