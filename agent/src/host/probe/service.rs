//! Probes of services, split by phase: name, connection, TLS, first byte, and whether the answer is the one expected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tram_wire::check::CheckState;
use tram_wire::plan::Service;
use tram_wire::report::{Phase, Probe};

/// What the distribution trusts.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const HEAD: usize = 1024;

/// Probes one service; `None` if this agent doesn't know its kind.
pub async fn service(s: &Service, resolvers: &[IpAddr]) -> Option<Probe> {
    let budget = Duration::from_millis(s.budget_ms.clamp(100, 10_000).into());
    let until = Instant::now() + budget;
    let mut p = Probe { name: s.name.clone(), kind: s.kind.clone(), state: CheckState::Ok, ..Probe::default() };
    let done = match s.kind.as_str() {
        "dns" => names(s, resolvers, until, &mut p).await,
        "tcp" | "tls" | "http" | "https" | "captive" => reach(s, until, &mut p).await,
        _ => return None,
    };
    if let Err((phase, error)) = done {
        (p.state, p.failed, p.error) = (CheckState::Crit, Some(phase), Some(error));
    }
    Some(p)
}

type Step<T> = Result<T, (Phase, String)>;

async fn step<T>(
    phase: Phase,
    until: Instant,
    took: &mut Option<u32>,
    work: impl Future<Output = io::Result<T>>,
) -> Step<T> {
    let begun = Instant::now();
    let done = timeout_at(until, work).await;
    *took = u32::try_from(begun.elapsed().as_micros()).ok();
    match done {
        Err(_) => Err((phase, "timeout".to_owned())),
        Ok(Err(e)) => Err((phase, word(&e).to_owned())),
        Ok(Ok(value)) => Ok(value),
    }
}

fn word(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::NotFound => "no_such_name",
        _ if e.to_string().contains("certificate") => "untrusted",
        _ if e.to_string().contains("lookup") => "no_such_name",
        _ => "failed",
    }
}

async fn reach(s: &Service, until: Instant, p: &mut Probe) -> Step<()> {
    let port = match (s.port, s.kind.as_str()) {
        (0, "http" | "captive") => 80,
        (0, _) => 443,
        (port, _) => port,
    };
    let host = s.host.as_str();
    let mut all = step(Phase::Resolve, until, &mut p.resolve_us, lookup_host((host, port))).await?;
    let at = all.next().ok_or((Phase::Resolve, "no_such_name".to_owned()))?;
    p.facts.insert("address".into(), at.ip().to_string());
    let mut tcp = step(Phase::Connect, until, &mut p.connect_us, TcpStream::connect(at)).await?;
    if let Ok(mss) = socket2::SockRef::from(&tcp).tcp_mss() {
        // What both ends agreed on: a tunnel or a carrier that takes some of it shows here.
        p.facts.insert("mss".into(), mss.to_string());
    }
    match s.kind.as_str() {
        "tcp" => Ok(()),
        "http" | "captive" => ask(s, until, &mut tcp, p).await,
        _ => {
            let (config, name) = secured(host).map_err(|e| (Phase::Tls, e))?;
            let tls = TlsConnector::from(config).connect(name, tcp);
            let mut tls = step(Phase::Tls, until, &mut p.tls_us, tls).await?;
            if s.kind == "tls" { Ok(()) } else { ask(s, until, &mut tls, p).await }
        }
    }
}

fn secured(host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
    let mut roots = RootCertStore::empty();
    let pem = std::fs::read(ROOTS).map_err(|_| "no_roots".to_owned())?;
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "failed".to_owned())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "no_such_name".to_owned())?;
    Ok((Arc::new(config), name))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(s: &Service, until: Instant, to: &mut S, p: &mut Probe) -> Step<()> {
    let path = s.path.as_deref().filter(|t| t.bytes().all(|b| b.is_ascii_graphic())).unwrap_or("/");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tram-agent\r\nConnection: close\r\n\r\n", s.host);
    let mut head = vec![0; HEAD];
    let first = async {
        to.write_all(request.as_bytes()).await?;
        to.flush().await?;
        match to.read(&mut head).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    };
    let n = step(Phase::FirstByte, until, &mut p.first_byte_us, first).await?;
    let text = String::from_utf8_lossy(head.get(..n).unwrap_or_default()).into_owned();
    let status = text.split(' ').nth(1).filter(|_| text.starts_with("HTTP/")).unwrap_or("none").to_owned();
    p.facts.insert("status".into(), status.chars().take(8).collect());
    let good = match s.expect.as_deref() {
        Some(wanted) => wanted == status,
        // A portal of the office's router answers anything with a page of its own.
        None if s.kind == "captive" => status == "204",
        None => status.starts_with('2') || status.starts_with('3'),
    };
    if good { Ok(()) } else { Err((Phase::Expect, format!("status_{}", status.chars().take(8).collect::<String>()))) }
}

/// Asks every resolver for the name: the wrong answer of one of them is what users feel now and then.
async fn names(s: &Service, resolvers: &[IpAddr], until: Instant, p: &mut Probe) -> Step<()> {
    let wanted: Vec<&str> = s.expect.as_deref().unwrap_or_default().split(',').filter(|w| !w.is_empty()).collect();
    if resolvers.is_empty() {
        return Err((Phase::Resolve, "no_resolver".to_owned()));
    }
    for r in resolvers {
        let at = SocketAddr::new(*r, if s.port == 0 { 53 } else { s.port });
        let found = step(Phase::Resolve, until, &mut p.resolve_us, addresses(at, &s.host)).await;
        p.facts.insert("resolver".into(), r.to_string());
        let found = found?;
        let all = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        p.facts.insert("answer".into(), all.join(","));
        if found.is_empty() {
            return Err((Phase::Resolve, "no_such_name".to_owned()));
        }
        if !wanted.is_empty() && !all.iter().all(|a| wanted.contains(&a.as_str())) {
            return Err((Phase::Expect, "wrong_address".to_owned()));
        }
    }
    Ok(())
}

/// The IPv4 addresses one resolver has for a name.
async fn addresses(resolver: SocketAddr, name: &str) -> io::Result<Vec<Ipv4Addr>> {
    let any: SocketAddr = if resolver.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        "[::]:0".parse().map_err(io::Error::other)?
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut query = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).ok().filter(|n| (1..64).contains(n)).ok_or(io::ErrorKind::InvalidInput)?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut answer = [0; 1232];
    for _ in 0..3 {
        socket.send(&query).await?;
        let wait = async {
            loop {
                let n = socket.recv(&mut answer).await?;
                if n >= 12 && answer[..2] == id && answer[2] & 0x80 != 0 {
                    return Ok::<_, io::Error>(n);
                }
            }
        };
        if let Ok(n) = timeout(Duration::from_millis(700), wait).await {
            let n = n?;
            return parse(answer.get(..n).unwrap_or_default(), query.len())
                .ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn parse(answer: &[u8], mut at: usize) -> Option<Vec<Ipv4Addr>> {
    let records = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let mut all = Vec::new();
    for _ in 0..records.min(32) {
        // A name is labels, or ends in a pointer of two bytes.
        loop {
            match *answer.get(at)? {
                0 => break at += 1,
                n if n >= 0xc0 => break at += 2,
                n => at += 1 + usize::from(n),
            }
        }
        let kind = answer.get(at..at + 2)?;
        let length = usize::from(u16::from_be_bytes([*answer.get(at + 8)?, *answer.get(at + 9)?]));
        let data = answer.get(at + 10..at + 10 + length)?;
        if kind == [0, 1] {
            let four: [u8; 4] = data.try_into().ok()?;
            all.push(Ipv4Addr::from(four));
        }
        at += 10 + length;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn tcp(kind: &str, port: u16) -> Service {
        Service {
            name: "s".into(),
            kind: kind.into(),
            host: "127.0.0.1".into(),
            port,
            budget_ms: 800,
            ..Service::default()
        }
    }

    async fn serve(answer: &'static [u8]) -> u16 {
        let l = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = l.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut s, _)) = l.accept().await {
                let mut b = [0; 512];
                let _ = s.read(&mut b).await;
                let _ = s.write_all(answer).await;
                if answer.is_empty() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn the_phase_that_fails_is_named() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let p = service(&tcp("tcp", closed), &[]).await.unwrap();
        assert_eq!((p.state, p.failed, p.error.as_deref()), (CheckState::Crit, Some(Phase::Connect), Some("refused")));
        let mute = serve(b"").await;
        let p = service(&tcp("https", mute), &[]).await.unwrap();
        assert_eq!((p.failed, p.error.as_deref(), p.connect_us.is_some()), (Some(Phase::Tls), Some("timeout"), true));
        let p = service(&tcp("http", mute), &[]).await.unwrap();
        assert_eq!(p.failed, Some(Phase::FirstByte));
        let sick = serve(b"HTTP/1.1 503 Sorry\r\n\r\n").await;
        let p = service(&tcp("http", sick), &[]).await.unwrap();
        assert_eq!((p.failed, p.error.as_deref()), (Some(Phase::Expect), Some("status_503")));
        let well = serve(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        let p = service(&tcp("captive", well), &[]).await.unwrap();
        assert_eq!((p.state, p.failed, p.first_byte_us.is_some()), (CheckState::Ok, None, true));
        let portal = serve(b"HTTP/1.1 302 Found\r\nLocation: http://router/login\r\n\r\n").await;
        assert_eq!(service(&tcp("captive", portal), &[]).await.unwrap().failed, Some(Phase::Expect));
        assert_eq!(service(&tcp("quic", 1), &[]).await, None);
    }

    #[tokio::test]
    async fn a_resolver_that_lies_is_caught() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut q = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut q).await {
                let mut a = q[..n].to_vec();
                a[2] |= 0x80;
                a[7] = 1;
                a.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 9, 9, 9]);
                let _ = socket.send_to(&a, from).await;
            }
        });
        let ask =
            |expect: &str| Service { host: "vdi.hanoi.gov.vn".into(), expect: Some(expect.into()), ..tcp("dns", port) };
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let p = service(&ask("10.9.9.9,10.9.9.8"), &here).await.unwrap();
        assert_eq!((p.state, p.facts["answer"].as_str()), (CheckState::Ok, "10.9.9.9"));
        let p = service(&ask("10.0.0.5"), &here).await.unwrap();
        assert_eq!((p.failed, p.error.as_deref()), (Some(Phase::Expect), Some("wrong_address")));
    }

    #[test]
    fn a_torn_answer_is_no_answer() {
        let whole = [0, 1, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];
        assert_eq!(parse(&whole, 12), Some(vec![Ipv4Addr::new(1, 2, 3, 4)]));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], 12), None, "{cut}");
        }
    }
}
