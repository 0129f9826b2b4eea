//! The kernel's own word that a device came or went, so that nobody has to look for it again and again.

use std::future::pending;
use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Group of what the kernel says; udev has another one for what it makes of it.
const KERNEL: u32 = 1;
/// The kernel's longest word.
const WORD: usize = 8 * 1024;

/// Hears the kernel. Anybody may.
pub struct Uevents {
    /// No UDP, but waited for alike.
    socket: UdpSocket,
}

impl Uevents {
    /// Begins to listen; needs the runtime.
    ///
    /// # Errors
    /// Where there is no such socket: in a network of a container's user, or without the family.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let kind = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, kind)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self { socket: UdpSocket::from_std(StdUdpSocket::from(socket))? })
    }

    /// Waits until a device, whichever, came or went. What comes in between two calls is not lost.
    pub async fn news(&self) {
        let mut word = [0_u8; WORD];
        loop {
            if self.socket.readable().await.is_err() {
                return pending().await;
            }
            let mut moved = false;
            loop {
                let heard = self
                    .socket
                    .try_io(Interest::READABLE, || Ok(recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut word)?));
                match heard {
                    // Another process may speak here, too; its number is not 0.
                    Ok((n, Some(from))) if from.pid() == 0 => moved |= came_or_went(&word[..n]),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // There was more than could wait.
                    Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => moved = true,
                    Err(_) => return pending().await,
                }
            }
            if moved {
                return;
            }
        }
    }
}

/// `ACTION@PATH`, then the variables.
fn came_or_went(word: &[u8]) -> bool {
    word.starts_with(b"add@") || word.starts_with(b"remove@")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_only_changed_is_no_news() {
        assert!(came_or_went(b"add@/devices/pci0000:00/usb1/1-4\0ACTION=add\0"));
        assert!(came_or_went(b"remove@/devices/pci0000:00/usb1/1-4\0"));
        for other in [&b"change@/devices/x"[..], b"libudev\0add@", b"", b"add"] {
            assert!(!came_or_went(other));
        }
    }

    #[tokio::test]
    async fn the_kernel_is_heard_and_nobody_else() {
        let heard = Uevents::open().unwrap();
        let within = |s| Duration::from_millis(s);
        // Root alone can have the kernel say something.
        let Ok(()) = std::fs::write("/sys/devices/virtual/mem/null/uevent", "add") else { return };
        assert!(tokio::time::timeout(within(5000), heard.news()).await.is_ok(), "the kernel's word");
        // Other tests plug things in, too, so that only our own word can be missed, not silence be shown.
        let forged = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )
        .unwrap();
        let to = NetlinkAddr::new(0, KERNEL);
        let sent =
            nix::sys::socket::sendto(forged.as_raw_fd(), b"add@/forged\0", &to, nix::sys::socket::MsgFlags::empty());
        if sent.is_ok() {
            let mut word = [0_u8; WORD];
            let until = std::time::Instant::now() + within(5000);
            let from = loop {
                assert!(std::time::Instant::now() < until, "what was said so is not heard at all");
                match recvfrom::<NetlinkAddr>(heard.socket.as_raw_fd(), &mut word) {
                    Ok((n, from)) if word[..n].starts_with(b"add@/forged") => break from,
                    Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => tokio::time::sleep(within(5)).await,
                    Err(e) => panic!("{e}"),
                }
            };
            assert_ne!(from.map(|f| f.pid()), Some(0), "a process shows its number");
        }
    }
}
