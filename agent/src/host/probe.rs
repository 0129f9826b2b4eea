//! Small network measurements that need no privilege.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// Ports a router is likely to answer on, if only with a refusal.
pub const ROUTER_PORTS: [u16; 3] = [53, 80, 443];

/// Round trip by unprivileged ICMP where the kernel allows it (`net.ipv4.ping_group_range`), else by
/// TCP: a handshake and a refusal both prove that the host is there.
pub(super) async fn ping(to: IpAddr, within: Duration) -> Option<Duration> {
    if let Ok(socket) = icmp_socket(to)
        && let Some(rtt) = timeout(within / 2, echo(socket, to)).await.ok().and_then(Result::ok)
    {
        return Some(rtt);
    }
    for port in ROUTER_PORTS {
        let begun = Instant::now();
        match timeout(within / 6, TcpStream::connect((to, port))).await {
            Ok(Ok(_)) => return Some(begun.elapsed()),
            Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => return Some(begun.elapsed()),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    None
}

pub(super) fn icmp_socket(to: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) =
        if to.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

async fn echo(socket: UdpSocket, to: IpAddr) -> io::Result<Duration> {
    // Type, code, checksum, id (both filled in by the kernel), sequence, payload.
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let request = [kind, 0, 0, 0, 0, 0, 0, 1, b't', b'r', b'a', b'm'];
    socket.connect(SocketAddr::new(to, 0)).await?;
    let begun = Instant::now();
    socket.send(&request).await?;
    let mut answer = [0_u8; 64];
    loop {
        let n = socket.recv(&mut answer).await?;
        let reply = if to.is_ipv4() { 0 } else { 129 };
        if n >= 8 && answer[0] == reply {
            return Ok(begun.elapsed());
        }
    }
}

/// Asks for the root's name servers: any resolver has an answer to that, and even a refusal is timed.
pub(super) async fn dns(resolver: SocketAddr, within: Duration) -> Option<Duration> {
    timeout(within, ask(resolver)).await.ok()?.ok()
}

async fn ask(resolver: SocketAddr) -> io::Result<Duration> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    let mut id = [0_u8; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    // Header: id, recursion desired, one question. Question: root, type NS, class IN.
    let query = [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let begun = Instant::now();
    socket.send(&query).await?;
    let mut answer = [0_u8; 512];
    loop {
        let n = socket.recv(&mut answer).await?;
        let is_answer = n >= 12 && answer[..2] == id && answer[2] & 0x80 != 0;
        if is_answer {
            return Ok(begun.elapsed());
        }
    }
}

/// A TCP handshake with a named host.
pub(super) async fn reach(host: &str, port: u16, within: Duration) -> Option<Duration> {
    let begun = Instant::now();
    timeout(within, TcpStream::connect((host, port))).await.ok()?.ok()?;
    Some(begun.elapsed())
}

pub use service::service;

pub mod path;
mod service;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(600);

    #[tokio::test]
    async fn loopback_answers_a_ping() {
        assert!(ping(Ipv4Addr::LOCALHOST.into(), SHORT).await.is_some());
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_no_answer_in_time() {
        let begun = Instant::now();
        // The discard-only prefix: no network answers it.
        assert_eq!(ping("100::1".parse().unwrap(), SHORT).await, None);
        assert!(begun.elapsed() < SHORT * 2);
    }

    #[tokio::test]
    async fn a_dns_answer_must_carry_our_id() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut q = [0_u8; 64];
            let (n, from) = server.recv_from(&mut q).await.unwrap();
            let mut forged = q[..n].to_vec();
            forged[0] ^= 0xff;
            forged[2] |= 0x80;
            server.send_to(&forged, from).await.unwrap();
            tokio::time::sleep(Duration::from_millis(60)).await;
            q[2] |= 0x80;
            server.send_to(&q[..n], from).await.unwrap();
        });
        let took = dns(at, SHORT).await.expect("answered");
        assert!(took >= Duration::from_millis(50), "took the forged answer: {took:?}");
    }

    #[tokio::test]
    async fn a_resolver_that_is_not_there_is_no_answer() {
        let port = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(dns(SocketAddr::from(([127, 0, 0, 1], port)), SHORT).await, None);
    }
}
