//! A thin line between two network namespaces, made in user space: bandwidth, delay, a bottleneck's buffer and
//! loss, packet by packet. Kernels without `sch_netem` can't do it themselves.
//!
//! ```text
//! namespace A: TUN ── socat ── datagrams ──► Way (queue, loss, delay) ──► datagrams ── socat ── TUN :namespace B
//! ```
//! socat owns the TUN devices, so nothing here needs more than a UNIX socket. Both ends of a connection may be
//! used by one process, as sockets stay in the namespace they were made in: one clock times both.

use std::collections::VecDeque;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CloneFlags, setns};
use nix::sys::time::TimeSpec;
use socket2::{SockAddr, SockRef};

/// Address of the end that sends most: the gateway.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 1);
/// Address of the other: the endpoint.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 203, 0, 2);
/// How long a direction waits at least, and at most, before it looks again.
const MOMENT: Duration = Duration::from_micros(50);
const IDLE: Duration = Duration::from_millis(50);

/// One direction of a line.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Bits a second.
    pub bits: u64,
    /// Bytes that may wait at the bottleneck.
    pub buffer: usize,
    /// From the bottleneck to the other end.
    pub delay: Duration,
    /// Packets in a thousand that are lost besides.
    pub loss: u64,
}

/// A running line; goes away with everything it made.
pub struct ThinLine {
    names: [String; 2],
    helpers: Vec<Child>,
    threads: Vec<std::thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Packets dropped, by loss and by a full buffer.
    pub dropped: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

impl Drop for ThinLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for child in &mut self.helpers {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.threads.drain(..).for_each(|t| drop(t.join()));
        for name in &self.names {
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip").args(args).stdin(Stdio::null()).output().context("`ip` (iproute2) is missing")?;
    ensure!(out.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

/// Whether a thin line can be made here; if not, why.
///
/// # Errors
/// The reason, for whoever skips.
pub fn possible() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces and TUN devices need root");
    ensure!(Path::new("/dev/net/tun").exists(), "this kernel has no /dev/net/tun");
    ensure!(Command::new("socat").arg("-V").output().is_ok(), "socat is not installed; run `make setup`");
    Ok(())
}

impl ThinLine {
    /// Makes one. `down` is the way from [`NEAR`] to [`FAR`].
    ///
    /// # Errors
    /// If this machine can't, with the reason.
    pub fn new(down: Way, up: Way) -> Result<Self> {
        possible()?;
        let folder = tempfile::Builder::new().prefix("thin-").tempdir()?;
        let tag = format!("{:x}", std::process::id() ^ (Arc::as_ptr(&Arc::new(())) as usize as u32));
        let names = ["n", "f"].map(|end| format!("tram-{tag}-{end}"));
        let stop = Arc::new(AtomicBool::new(false));
        let dropped = Arc::new(AtomicU64::new(0));
        let mut line = Self { names, helpers: vec![], threads: vec![], stop, dropped, _folder: folder };
        let path = |line: &Self, name: &str| line._folder.path().join(name);
        let mut ends = Vec::new();
        for (n, (own, other)) in [(NEAR, FAR), (FAR, NEAR)].into_iter().enumerate() {
            let ours = path(&line, &format!("{n}.ours"));
            let tun = path(&line, &format!("{n}.tun"));
            let socket = UnixDatagram::bind(&ours)?;
            let name = line.names[n].clone();
            ip(&["netns", "add", &name])?;
            let child = Command::new("ip")
                .args(["netns", "exec", &name, "socat"])
                .arg("TUN,tun-name=thin,iff-no-pi,iff-up,tun-type=tun")
                .arg(format!("UNIX-SENDTO:{},bind={}", ours.display(), tun.display()))
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            line.helpers.push(child);
            wait_for(&tun)?;
            ip(&["-n", &name, "addr", "add", &format!("{own}/32"), "peer", &other.to_string(), "dev", "thin"])?;
            ip(&["-n", &name, "link", "set", "thin", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ends.push((socket, tun));
        }
        let [near, far] = <[_; 2]>::try_from(ends).map_err(|_| anyhow::anyhow!("two ends"))?;
        for (way, from, (to, at), seed) in
            [(down, near.0.try_clone()?, (far.0.try_clone()?, far.1), 1), (up, far.0, (near.0, near.1), 2)]
        {
            let (stop, dropped) = (line.stop.clone(), line.dropped.clone());
            line.threads.push(std::thread::spawn(move || carry(way, &from, &to, &at, seed, &stop, &dropped)));
        }
        Ok(line)
    }

    fn within<T: Send>(&self, end: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let space = File::open(Path::new("/run/netns").join(&self.names[end]))?;
        // A thread of its own: the namespace is the thread's, and ends with it.
        std::thread::scope(|s| {
            s.spawn(move || {
                setns(space, CloneFlags::CLONE_NEWNET)?;
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the thread fell over"))?
        })
    }

    /// Listens at the near end.
    ///
    /// # Errors
    /// The socket's.
    pub fn listen(&self) -> Result<TcpListener> {
        self.within(0, || Ok(TcpListener::bind((NEAR, 0))?))
    }

    /// Connects from the far end.
    ///
    /// # Errors
    /// The socket's.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        self.within(1, move || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(20))?))
    }
}

fn wait_for(path: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        if Instant::now() > until {
            bail!("socat did not come up: {}", path.display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One direction: a packet leaves the bottleneck when all before it have, and arrives `delay` later.
fn carry(
    way: Way,
    from: &UnixDatagram,
    to: &UnixDatagram,
    at: &Path,
    seed: u64,
    stop: &AtomicBool,
    dropped: &AtomicU64,
) {
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut free = Instant::now();
    let mut buffer = vec![0; 4096];
    let Ok(at) = SockAddr::unix(at) else { return };
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        while let Some((_, packet)) = queue.front().filter(|(due, _)| *due <= now) {
            // Never waits: socat at the other end may itself be waiting for the other direction. What it has no
            // place for is tried again in a moment; if it is gone, so is the packet.
            let sent = SockRef::from(to).send_to_with_flags(packet, &at, libc::MSG_DONTWAIT);
            if sent.is_err_and(|e| e.kind() == ErrorKind::WouldBlock) {
                break;
            }
            queue.pop_front();
        }
        let wait = queue.front().map_or(IDLE, |(due, _)| due.saturating_duration_since(now)).clamp(MOMENT, IDLE);
        // To the microsecond: the timeouts of sockets count in ticks of the kernel, each of which is a whole packet
        // of a thin line. What arrives in lumps teaches a sender wrong rates.
        let mut readable = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut readable, Some(TimeSpec::from_duration(wait)), None) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return,
        }
        let Ok(n) = from.recv(&mut buffer) else { return };
        let now = Instant::now();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let waiting = free.saturating_duration_since(now).as_secs_f64() * way.bits as f64 / 8.0;
        if dice % 1000 < way.loss || waiting as usize + n > way.buffer {
            dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        free = free.max(now) + Duration::from_secs_f64(n as f64 * 8.0 / way.bits as f64);
        queue.push_back((free + way.delay, buffer[..n].to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_line_is_as_thin_as_it_was_made() {
        if let Err(why) = possible() {
            eprintln!("skipped: {why}");
            return;
        }
        let way = Way { bits: 4_000_000, buffer: 200_000, delay: Duration::from_millis(40), loss: 0 };
        let line = ThinLine::new(way, way).unwrap();
        let listener = line.listen().unwrap();
        let to = listener.local_addr().unwrap();
        let began = Instant::now();
        let mut client = line.connect(to).unwrap();
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(80), "{took:?}");
        let (mut server, _) = listener.accept().unwrap();
        let sender = std::thread::spawn(move || server.write_all(&vec![7; 1_000_000]));
        let began = Instant::now();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        sender.join().unwrap().unwrap();
        let took = began.elapsed();
        assert_eq!(got.len(), 1_000_000);
        // 1 MB in two seconds and a bit; no faster whatever the machine does.
        assert!(took >= Duration::from_secs_f64(1.8), "{took:?}");
    }
}
