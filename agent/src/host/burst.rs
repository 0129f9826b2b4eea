//! Bursts of packets: how a way does, without privileges and without a program of the distribution.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};
use tram_wire::report::Trips;

use super::probe::icmp_socket;

/// Between two packets of a burst.
const GAP: Duration = Duration::from_millis(20);
/// Handshakes are dearer than packets: no more of them in one burst.
const HANDSHAKES: u16 = 10;

/// What became of the packets of one burst.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// Sent.
    pub sent: u16,
    /// Round trips of those that came back, microseconds, in the order they were sent.
    pub took_us: Vec<u32>,
    /// They were handshakes.
    pub tcp: bool,
}

impl Burst {
    /// All of them lost.
    #[must_use]
    pub fn lost(sent: u16) -> Self {
        Self { sent, ..Self::default() }
    }

    /// What some bursts come to together. Times are 0 if nothing came back.
    #[must_use]
    pub fn trips<'a>(bursts: impl IntoIterator<Item = &'a Self>) -> Trips {
        let (mut sent, mut took, mut apart) = (0_u16, Vec::new(), Vec::new());
        for b in bursts {
            sent = sent.saturating_add(b.sent);
            apart.extend(b.took_us.windows(2).map(|w| u64::from(w[0].abs_diff(w[1]))));
            took.extend_from_slice(&b.took_us);
        }
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied();
        let mean = apart.iter().sum::<u64>() / u64::try_from(apart.len()).unwrap_or(1).max(1);
        Trips {
            sent,
            lost: sent.saturating_sub(u16::try_from(took.len()).unwrap_or(u16::MAX)),
            p50_us: at(50).unwrap_or(0),
            p95_us: at(95).unwrap_or(0),
            jitter_us: u32::try_from(mean).unwrap_or(u32::MAX),
        }
    }
}

/// Sends a burst by unprivileged ICMP where the kernel allows it (`net.ipv4.ping_group_range`), else by handshakes
/// with one of these ports: a refusal is an answer, too. One way for a whole burst, so that a lost packet is lost.
/// `None`: nothing answers. `within`: how long the last packet is waited for.
pub(super) async fn burst(to: IpAddr, ports: &[u16], packets: u16, within: Duration) -> Option<Burst> {
    if let Ok(socket) = icmp_socket(to)
        && let Ok(b) = by_icmp(&socket, to, packets, within).await
        && !b.took_us.is_empty()
    {
        return Some(b);
    }
    for port in ports {
        if handshake(to, *port, within).await.is_some() {
            return Some(by_tcp(to, *port, packets.min(HANDSHAKES), within).await);
        }
    }
    None
}

async fn by_icmp(socket: &UdpSocket, to: IpAddr, packets: u16, within: Duration) -> io::Result<Burst> {
    socket.connect((to, 0)).await?;
    let (request, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let mut sent: Vec<Instant> = Vec::new();
    let mut took: Vec<Option<u32>> = Vec::new();
    let mut next = Instant::now();
    let mut answer = [0_u8; 64];
    loop {
        if sent.len() < packets.into() && Instant::now() >= next {
            let seq = u16::try_from(sent.len()).unwrap_or(u16::MAX).to_be_bytes();
            sent.push(Instant::now());
            took.push(None);
            // Type, code, checksum, id (both filled in by the kernel), sequence, payload. A packet that finds no way
            // out is lost like one that finds none back.
            let _ = socket.send(&[request, 0, 0, 0, 0, 0, seq[0], seq[1], b't', b'r', b'a', b'm']).await;
            next += GAP;
        }
        let all = sent.len() >= packets.into();
        if all && took.iter().all(Option::is_some) {
            break;
        }
        let until = if all { sent.last().map_or(next, |at| *at + within) } else { next };
        match timeout_at(until, socket.recv(&mut answer)).await {
            Err(_) if all => break,
            // The next one is due.
            Err(_) => {}
            Ok(Err(_)) => tokio::time::sleep(GAP / 4).await,
            Ok(Ok(n)) if n >= 8 && answer[0] == reply => {
                let seq = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
                if let (Some(at), Some(place)) = (sent.get(seq), took.get_mut(seq)) {
                    *place = place.or(Some(micros(at.elapsed())));
                }
            }
            Ok(Ok(_)) => {}
        }
    }
    Ok(Burst { sent: packets, took_us: took.into_iter().flatten().collect(), tcp: false })
}

/// A lost packet of a handshake is sent again after a second: whatever takes that long was lost.
async fn handshake(to: IpAddr, port: u16, within: Duration) -> Option<u32> {
    let begun = Instant::now();
    match timeout(within.min(Duration::from_millis(900)), TcpStream::connect((to, port))).await {
        Ok(Ok(_)) => Some(micros(begun.elapsed())),
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Some(micros(begun.elapsed())),
        Ok(Err(_)) | Err(_) => None,
    }
}

async fn by_tcp(to: IpAddr, port: u16, packets: u16, within: Duration) -> Burst {
    let mut took_us = Vec::new();
    for _ in 0..packets {
        took_us.extend(handshake(to, port, within).await);
        tokio::time::sleep(GAP).await;
    }
    Burst { sent: packets, took_us, tcp: true }
}

fn micros(d: Duration) -> u32 {
    u32::try_from(d.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SHORT: Duration = Duration::from_millis(600);
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn loopback_loses_nothing_by_either_way() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let by = by_tcp(HERE, port, 5, SHORT).await;
        assert_eq!((by.sent, by.took_us.len(), by.tcp), (5, 5, true));
        let any = burst(HERE, &[port], 8, SHORT).await.unwrap();
        assert_eq!(usize::from(any.sent), any.took_us.len());
    }

    #[tokio::test]
    async fn what_answers_nothing_is_not_called_lossy() {
        // The discard-only prefix: no network answers it.
        assert_eq!(burst("100::1".parse().unwrap(), &[9], 3, Duration::from_millis(100)).await, None);
    }

    #[test]
    fn bursts_add_up() {
        let of = |took: &[u32]| Burst { sent: 10, took_us: took.to_vec(), tcp: false };
        let t = Burst::trips(&[of(&[1000; 10]), of(&[1000, 3000, 1000, 3000]), Burst::lost(10)]);
        assert_eq!((t.sent, t.lost, t.p50_us, t.p95_us), (30, 16, 1000, 3000));
        assert_eq!(t.jitter_us, 6000 / 12);
        assert_eq!(Burst::trips(&[Burst::lost(4)]), Trips { sent: 4, lost: 4, ..Trips::default() });
    }
}
