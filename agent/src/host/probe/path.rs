//! The way to a host: which routers are on it, and how large a packet passes. Needs no privilege: routers' complaints
//! come back on the sender's own error queue.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};

/// Where nobody listens, as `traceroute` has it: the end of the way says so.
const PORT: u16 = 33_434;
/// ICMP types and codes.
const UNREACHABLE: u8 = 3;
const NO_PORT: u8 = 3;

/// One router on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Who answered.
    pub from: Ipv4Addr,
    /// After how long.
    pub took: Duration,
    /// It is the end: the host itself, or a router that knows no way on.
    pub last: bool,
    /// It is the host itself.
    pub there: bool,
}

/// Asks the router so many steps away. `None`: nobody answers in time, which many routers have the habit of.
#[must_use]
pub fn hop(to: Ipv4Addr, steps: u8, within: Duration) -> Option<Hop> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    setsockopt(&socket, sockopt::Ipv4RecvErr, &true).ok()?;
    socket.set_ttl(steps.into()).ok()?;
    let begun = Instant::now();
    socket.send_to(b"tram", SocketAddrV4::new(to, PORT + u16::from(steps))).ok()?;
    loop {
        let left = within.checked_sub(begun.elapsed())?;
        let wait = PollTimeout::try_from(left.as_millis().max(1)).ok()?;
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, wait).ok()?;
        if let Some((from, kind, code)) = complaint(&socket) {
            let there = kind == UNREACHABLE && code == NO_PORT;
            return Some(Hop { from, took: begun.elapsed(), last: kind == UNREACHABLE, there });
        }
    }
}

/// Who complains of what was sent, and about what.
fn complaint(socket: &UdpSocket) -> Option<(Ipv4Addr, u8, u8)> {
    let (mut data, mut control) = ([0; 64], vec![0; 256]);
    let mut parts = [IoSliceMut::new(&mut data)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
    message.cmsgs().ok()?.find_map(|m| match m {
        ControlMessageOwned::Ipv4RecvErr(e, Some(from)) => {
            Some((Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)), e.ee_type, e.ee_code))
        }
        _ => None,
    })
}

/// The largest packet that passes all the way, as far as the kernel learns; and whether the host was seen to get one
/// of that size. Where routers' complaints are swallowed, only the second half tells.
#[must_use]
pub fn mtu(to: Ipv4Addr, within: Duration) -> Option<(u32, bool)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((to, PORT)).ok()?;
    socket.set_read_timeout(Some((within / 6).max(Duration::from_millis(50)))).ok()?;
    let known = || nix::sys::socket::getsockopt(&socket, sockopt::IpMtu).ok().and_then(|n| u32::try_from(n).ok());
    let begun = Instant::now();
    let (mut size, mut tries) = (known()?.min(9000), 0);
    while begun.elapsed() < within && tries < 5 {
        tries += 1;
        // The header of IP and that of UDP; the kernel forbids routers to cut it.
        let payload = vec![0x5a; usize::try_from(size).unwrap_or(0).saturating_sub(28)];
        let _ = socket.send(&payload);
        let refused = socket.recv(&mut [0; 64]).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
        let now = known().unwrap_or(size).min(9000);
        if now < size {
            size = now;
        } else if refused {
            return Some((size, true));
        }
    }
    Some((size, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_computer_is_one_step_away_and_large_packets_pass() {
        let hop = hop(Ipv4Addr::LOCALHOST, 1, Duration::from_secs(10)).unwrap();
        assert_eq!((hop.from, hop.last, hop.there), (Ipv4Addr::LOCALHOST, true, true));
        let (size, seen) = mtu(Ipv4Addr::LOCALHOST, Duration::from_secs(10)).unwrap();
        assert!(size >= 1500 && seen, "{size} {seen}");
    }
}
