//! Who is at the other end of a connection on this computer.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;

/// The kernel's table of IPv4 connections.
const TABLE: &str = "/proc/net/tcp";
/// Longest table worth reading: 25,000 connections.
const LONGEST: u64 = 4 << 20;

/// The owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user who made it.
    pub uid: u32,
    /// Its number among all sockets.
    pub inode: u64,
}

/// Who made the other end of a loopback connection. `None` if it is not from this computer, or was closed
/// already: a closed socket has no owner any more, and the table then says root.
pub fn owner(ours: SocketAddr, theirs: SocketAddr) -> Option<Owner> {
    let (SocketAddr::V4(ours), SocketAddr::V4(theirs)) = (ours, theirs) else { return None };
    let mut table = String::new();
    fs::File::open(TABLE).ok()?.take(LONGEST).read_to_string(&mut table).ok()?;
    find(&table, ours, theirs)
}

/// Whether a process holds a socket.
pub fn holds(pid: u32, inode: u64) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let name = format!("socket:[{inode}]");
    open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == name.as_str()))
}

/// The user this process is.
pub fn own_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// As seen from the other end: what is remote here is local there.
fn find(table: &str, ours: SocketAddrV4, theirs: SocketAddrV4) -> Option<Owner> {
    const ESTABLISHED: &str = "01";
    let (local, remote) = (hex(theirs), hex(ours));
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (a, b, state) = (words.next()?, words.next()?, words.next()?);
        if (a, b, state) != (local.as_str(), remote.as_str(), ESTABLISHED) {
            return None;
        }
        // Queues, timer and retransmissions stand between.
        let uid = words.nth(3)?.parse().ok()?;
        Some(Owner { uid, inode: words.nth(1)?.parse().ok()? })
    })
}

/// The kernel prints the address as a number of this machine's byte order.
fn hex(address: SocketAddrV4) -> String {
    let mut text = String::with_capacity(13);
    let _ = write!(text, "{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    text
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_this_process_is_known_as_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, theirs) = listener.accept().unwrap();
        let owner = owner(server.local_addr().unwrap(), theirs).unwrap();
        assert_eq!(owner.uid, own_uid().unwrap());
        assert!(holds(std::process::id(), owner.inode));
        assert!(!holds(1, owner.inode) && !holds(std::process::id(), u64::MAX));
        drop(client);
        // No owner, rather than root, whom a closed socket seems to belong to.
        assert_eq!(super::owner(server.local_addr().unwrap(), theirs), None);
    }

    #[test]
    fn only_the_other_end_of_this_connection_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1\n\
             1: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 20 4 30 10 -1\n\
             2: 0100007F:C002 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0\n";
        let at = |port| SocketAddrV4::new([127, 0, 0, 1].into(), port);
        assert_eq!(find(table, at(0x1F90), at(0xC001)), Some(Owner { uid: 1000, inode: 12 }));
        assert_eq!(find(table, at(0x1F90), at(0xC002)), None, "closed");
        assert_eq!(find(table, at(0x1F91), at(0xC001)), None, "another listener");
        assert_eq!(find("", at(1), at(2)), None);
    }
}
