//! What the kernel knows of the connections to viewers: how much it had to send again.
//!
//! Asked by `sock_diag` for all of them at once, so that no socket has to be reached through TLS and HTTP. Only
//! connections of this network namespace are seen; of others nothing is known.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// `SOCK_DIAG_BY_FAMILY`, `NLMSG_DONE`, `NLMSG_ERROR`; `NLM_F_REQUEST | NLM_F_DUMP`.
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP: u16 = 0x301;
/// `TCP_ESTABLISHED`, as a bit; TCP; `INET_DIAG_INFO`, as a bit and as an attribute.
const ESTABLISHED: u32 = 1 << 1;
const TCP: u8 = 6;
const INFO: u8 = 2;
/// Lengths of a message's head, of `inet_diag_msg` and of an attribute's head.
const HEAD: usize = 16;
const SOCKET: usize = 72;
const ATTRIBUTE: usize = 4;
/// Where `tcp_info` has `tcpi_total_retrans` and `tcpi_segs_out`.
const RETRANS: usize = 100;
const SEGMENTS: usize = 136;
/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: i64 = 2;

/// Segments of one connection, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Sent.
    pub sent: u64,
    /// Of these, sent again.
    pub again: u64,
}

/// The open TCP connections of this machine, by the other end's address. Blocks for as long as the kernel takes.
///
/// # Errors
/// The kernel's, where it has no `sock_diag`.
pub fn connections() -> io::Result<HashMap<SocketAddr, Segments>> {
    let mut all = HashMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        dump(family as i32 as u8, &mut all)?;
    }
    Ok(all)
}

fn dump(family: u8, all: &mut HashMap<SocketAddr, Segments>) -> io::Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    sendto(fd.as_raw_fd(), &question(family), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if n == 0 || take(&buffer[..n], all)? {
            return Ok(());
        }
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`: every established TCP connection of a family.
fn question(family: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + 56);
    out.extend_from_slice(&(HEAD as u32 + 56).to_ne_bytes());
    out.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&DUMP.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[family, TCP, 1 << (INFO - 1), 0]);
    out.extend_from_slice(&ESTABLISHED.to_ne_bytes());
    out.resize(HEAD + 56, 0);
    out
}

/// Takes what a datagram tells; whether it was the last.
fn take(mut rest: &[u8], all: &mut HashMap<SocketAddr, Segments>) -> io::Result<bool> {
    while let Some(length) = number(rest, 0).map(|n| n as usize).filter(|n| (HEAD..=rest.len()).contains(n)) {
        let message = &rest[HEAD..length];
        match u16::from_ne_bytes([rest[4], rest[5]]) {
            DONE => return Ok(true),
            ERROR => {
                let code = number(message, 0).map_or(0, |n| (n as i32).wrapping_neg());
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(code)) };
            }
            BY_FAMILY => all.extend(connection(message)),
            _ => {}
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(false)
}

fn connection(message: &[u8]) -> Option<(SocketAddr, Segments)> {
    let (id, mut attributes) = message.split_at_checked(SOCKET)?;
    // family, state, timer, retransmits; then ports and addresses, ours first.
    let port = u16::from_be_bytes([id[6], id[7]]);
    let address: [u8; 16] = id[24..40].try_into().ok()?;
    let address = match i32::from(id[0]) {
        f if f == AddressFamily::Inet as i32 => {
            IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
        }
        _ => IpAddr::V6(Ipv6Addr::from(address)),
    };
    while let Some(head) = attributes.get(..ATTRIBUTE) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let body = attributes.get(ATTRIBUTE..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) == u16::from(INFO) {
            let (again, sent) = (number(body, RETRANS)?, number(body, SEGMENTS)?);
            let at = SocketAddr::new(address.to_canonical(), port);
            return Some((at, Segments { sent: sent.into(), again: again.into() }));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_found_by_its_other_end_with_what_was_sent() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(local) else { continue };
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut served, peer) = listener.accept().unwrap();
            let before = connections().unwrap()[&peer];
            served.write_all(&[7; 100_000]).unwrap();
            client.read_exact(&mut [0; 100_000]).unwrap();
            let after = connections().unwrap()[&peer];
            assert!(after.sent > before.sent && after.again <= after.sent, "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let mut all = HashMap::new();
        assert!(!take(&[], &mut all).unwrap());
        assert!(!take(&[255; 40], &mut all).unwrap(), "longer than what came");
        let short = [&20_u32.to_ne_bytes()[..], &BY_FAMILY.to_ne_bytes(), &[0; 14]].concat();
        assert!(!take(&short, &mut all).unwrap());
        let refused = [&20_u32.to_ne_bytes()[..], &ERROR.to_ne_bytes(), &[0; 10], &(-13_i32).to_ne_bytes()].concat();
        assert_eq!(take(&refused, &mut all).unwrap_err().raw_os_error(), Some(13));
        assert!(all.is_empty());
    }
}
