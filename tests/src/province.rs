//! Offices with networks of their own around a data centre, made of network namespaces: everything that can break
//! between an officer's computer and the controller is there, and breaks for real.
//!
//! ```text
//! computer ─ eth0 ─┐
//! computer ─ eth0 ─┴─ lan [office's router] wan ─ line ─ [carrier] ─ trunk ─ (this thread: the data centre)
//! ```
//! The thread that makes it *is* the data centre afterwards: what it starts, listens there.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::device::Device;

/// The data centre's address.
pub const CENTRE: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 1);
/// A service's in it, that a firewall may single out.
pub const PORTAL: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 2);
/// Its resolver.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 90, 0, 53);

static MADE: AtomicUsize = AtomicUsize::new(0);

/// Whether such a network can be made here; if not, why.
///
/// # Errors
/// The reason, for whoever skips.
pub fn possible() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    let tool = |name: &str, arg: &str| Command::new(name).arg(arg).output().is_ok_and(|o| o.status.success());
    ensure!(tool("ip", "-V") && tool("iptables", "-V"), "iproute2 or iptables is missing; run `make setup`");
    Ok(())
}

/// The network.
pub struct Province {
    tag: String,
    spaces: Vec<String>,
    offices: Vec<usize>,
}

impl Drop for Province {
    fn drop(&mut self) {
        for name in &self.spaces {
            let _ = run(&["ip", "netns", "del", name]);
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let (program, rest) = args.split_first().context("no program")?;
    let out = Command::new(program).args(rest).stdin(Stdio::null()).output().with_context(|| (*program).to_owned())?;
    ensure!(out.status.success(), "{}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim());
    Ok(())
}

impl Province {
    /// Turns this thread's network into a data centre with so many carriers.
    ///
    /// # Errors
    /// If this machine can't, with the reason.
    pub fn new(carriers: usize) -> Result<Self> {
        possible()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let tag = format!("tram{:x}-{}", std::process::id(), MADE.fetch_add(1, Ordering::SeqCst));
        let mut me = Self { tag, spaces: Vec::new(), offices: Vec::new() };
        run(&["ip", "link", "set", "lo", "up"])?;
        for own in [CENTRE, PORTAL, RESOLVER] {
            run(&["ip", "addr", "add", &format!("{own}/32"), "dev", "lo"])?;
        }
        for k in 0..carriers {
            let space = me.space(&format!("c{k}"))?;
            let trunk = format!("trunk{k}");
            run(&["ip", "link", "add", &trunk, "type", "veth", "peer", "name", "trunk", "netns", &space])?;
            run(&["ip", "addr", "add", &format!("10.91.{k}.1/30"), "dev", &trunk])?;
            run(&["ip", "link", "set", &trunk, "up"])?;
            me.up(&space, "trunk", &format!("10.91.{k}.2/30"))?;
            run(&["ip", "-n", &space, "route", "add", "default", "via", &format!("10.91.{k}.1")])?;
        }
        Ok(me)
    }

    fn space(&mut self, name: &str) -> Result<String> {
        let name = format!("{}-{name}", self.tag);
        run(&["ip", "netns", "add", &name])?;
        self.spaces.push(name.clone());
        run(&["ip", "-n", &name, "link", "set", "lo", "up"])?;
        within(&name, || Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        Ok(name)
    }

    fn up(&self, space: &str, device: &str, address: &str) -> Result<()> {
        run(&["ip", "-n", space, "addr", "add", address, "dev", device])?;
        run(&["ip", "-n", space, "link", "set", device, "up"])
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.tag)
    }

    /// Adds an office with so many computers; its number.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn office(&mut self, carrier: usize, computers: usize) -> Result<usize> {
        let s = self.offices.len();
        self.offices.push(carrier);
        let router = self.space(&format!("r{s}"))?;
        let (above, line) = (self.name(&format!("c{carrier}")), format!("line{s}"));
        run(&["ip", "-n", &above, "link", "add", &line, "type", "veth", "peer", "name", "wan", "netns", &router])?;
        run(&["ip", "-n", &above, "addr", "add", &format!("10.92.{s}.1/30"), "dev", &line])?;
        self.up(&router, "wan", &format!("10.92.{s}.2/30"))?;
        self.mend_line(s)?;
        run(&["ip", "-n", &router, "route", "add", "default", "via", &format!("10.92.{s}.1")])?;
        run(&["ip", "-n", &router, "link", "add", "lan", "type", "bridge"])?;
        self.up(&router, "lan", &format!("10.93.{s}.1/24"))?;
        for e in 0..computers {
            let (space, port) = (self.space(&format!("e{s}-{e}"))?, format!("port{e}"));
            run(&["ip", "-n", &router, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            run(&["ip", "-n", &router, "link", "set", &port, "master", "lan", "up"])?;
            self.up(&space, "eth0", &format!("10.93.{s}.{}/24", 10 + e))?;
            run(&["ip", "-n", &space, "route", "add", "default", "via", &format!("10.93.{s}.1")])?;
            if e > 0 {
                // Distributions allow it; a computer that may not measures by handshakes.
                within(&space, || Ok(std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?))?;
            }
        }
        Ok(s)
    }

    /// An endpoint at that place, with its resolver in `resolv.conf` and a folder of programs of its own before
    /// those of the distribution.
    ///
    /// # Errors
    /// If its folder can't be made.
    pub fn device(&self, s: usize, e: usize, resolver: Ipv4Addr) -> Result<Device> {
        let space = self.name(&format!("e{s}-{e}"));
        let mut made = Ok(());
        let device = Device::run_by(|folder| {
            let (tools, resolv) = (folder.join("sbin"), folder.join("resolv.conf"));
            made = std::fs::create_dir_all(&tools)
                .and_then(|()| std::fs::write(&resolv, format!("nameserver {resolver}\n")));
            let mounts = format!(
                "mount --bind {} /etc/resolv.conf && mount -t overlay tools -o lowerdir={}:/usr/sbin /usr/sbin && exec \"$@\"",
                resolv.display(),
                tools.display()
            );
            ["ip", "netns", "exec", &space, "sh", "-c", &mounts, "sh"].map(str::to_owned).to_vec()
        })?;
        made?;
        Ok(device)
    }

    /// Cuts an office's line: its router still answers the office.
    ///
    /// # Errors
    /// If it can't.
    pub fn cut_line(&self, s: usize) -> Result<()> {
        run(&["ip", "-n", &self.name(&format!("c{}", self.offices[s])), "link", "set", &format!("line{s}"), "down"])
    }

    /// Mends it.
    ///
    /// # Errors
    /// If it can't.
    pub fn mend_line(&self, s: usize) -> Result<()> {
        let carrier = self.offices[s];
        let above = self.name(&format!("c{carrier}"));
        run(&["ip", "-n", &above, "link", "set", &format!("line{s}"), "up"])?;
        let lan = format!("10.93.{s}.0/24");
        run(&["ip", "-n", &above, "route", "replace", &lan, "via", &format!("10.92.{s}.2")])?;
        self.routes(s)
    }

    fn routes(&self, s: usize) -> Result<()> {
        let via = format!("10.91.{}.2", self.offices[s]);
        for net in [format!("10.92.{s}.0/30"), format!("10.93.{s}.0/24")] {
            run(&["ip", "route", "replace", &net, "via", &via])?;
        }
        Ok(())
    }

    /// Cuts a carrier off from the data centre.
    ///
    /// # Errors
    /// If it can't.
    pub fn cut_carrier(&self, k: usize) -> Result<()> {
        run(&["ip", "link", "set", &format!("trunk{k}"), "down"])
    }

    /// Mends it.
    ///
    /// # Errors
    /// If it can't.
    pub fn mend_carrier(&self, k: usize) -> Result<()> {
        run(&["ip", "link", "set", &format!("trunk{k}"), "up"])?;
        let theirs = self.offices.iter().enumerate().filter(|(_, c)| **c == k);
        theirs.map(|(s, _)| s).try_for_each(|s| self.routes(s))
    }

    /// Has an office's router lose this share of what it forwards, both ways.
    ///
    /// # Errors
    /// If it can't.
    pub fn lose(&self, s: usize, share: f32) -> Result<()> {
        self.tables(&format!("r{s}"), &format!("-A FORWARD -m statistic --mode random --probability {share} -j DROP"))
    }

    /// Has a computer's cable lose this share of what comes in.
    ///
    /// # Errors
    /// If it can't.
    pub fn lose_at(&self, s: usize, e: usize, share: f32) -> Result<()> {
        let rule = format!("-A INPUT -i eth0 -m statistic --mode random --probability {share} -j DROP");
        self.tables(&format!("e{s}-{e}"), &rule)
    }

    /// Has an office's router keep an address from its computers without a word.
    ///
    /// # Errors
    /// If it can't.
    pub fn block(&self, s: usize, address: Ipv4Addr) -> Result<()> {
        self.tables(&format!("r{s}"), &format!("-I FORWARD -d {address} -j DROP"))
    }

    /// Has an office's router answer its computers' web requests itself.
    ///
    /// # Errors
    /// If it can't.
    pub fn portal(&self, s: usize) -> Result<Server> {
        let server =
            self.serve_at(s, "HTTP/1.1 302 Found\r\nLocation: http://wifi/login\r\nContent-Length: 0\r\n\r\n")?;
        self.tables(&format!("r{s}"), "-t nat -A PREROUTING -i lan -p tcp --dport 80 -j REDIRECT --to-ports 80")?;
        Ok(server)
    }

    fn serve_at(&self, s: usize, answer: &'static str) -> Result<Server> {
        within(&self.name(&format!("r{s}")), move || Server::start((Ipv4Addr::UNSPECIFIED, 80).into(), answer))
    }

    /// A resolver in an office's router that says `right`, or `wrong` once it lies.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn resolver(&self, s: usize, right: Ipv4Addr, wrong: Ipv4Addr) -> Result<Names> {
        within(&self.name(&format!("r{s}")), move || Names::start(Ipv4Addr::UNSPECIFIED, right, wrong))
    }

    /// Does something in a computer's network, such as listening on its loopback.
    ///
    /// # Errors
    /// Those of the work.
    pub fn at_computer<T: Send>(&self, s: usize, e: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&self.name(&format!("e{s}-{e}")), work)
    }

    /// Takes all rules of an office's router and computers back.
    ///
    /// # Errors
    /// If it can't.
    pub fn mend_office(&self, s: usize, computers: usize) -> Result<()> {
        let all = (0..computers).map(|e| format!("e{s}-{e}")).chain([format!("r{s}")]);
        for space in all {
            self.tables(&space, "-F")?;
        }
        self.tables(&format!("r{s}"), "-t nat -F")
    }

    fn tables(&self, space: &str, rule: &str) -> Result<()> {
        let space = self.name(space);
        let words: Vec<&str> = rule.split_whitespace().collect();
        run(&[&["ip", "netns", "exec", &space, "iptables", "-w"], &words[..]].concat())
    }
}

/// Does something in a network.
fn within<T: Send>(space: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let space = File::open(Path::new("/run/netns").join(space))?;
    // A thread of its own: the namespace is the thread's, and ends with it. Its sockets stay.
    std::thread::scope(|s| {
        s.spawn(move || {
            setns(space, CloneFlags::CLONE_NEWNET)?;
            work()
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread fell over"))?
    })
}

/// Puts a program into a folder of an endpoint's own programs, before the endpoint is started. In its script `$says`
/// is the file that [`says`] writes.
///
/// # Errors
/// If it can't be written.
pub fn program(device: &Device, name: &str, script: &str) -> Result<()> {
    let at: PathBuf = device.state().with_file_name("sbin").join(name);
    let says = device.state().with_file_name(name);
    std::fs::write(&at, format!("#!/bin/sh\nsays={}\n{script}\n", says.display()))?;
    Ok(std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o755))?)
}

/// What such a program says from now on.
///
/// # Errors
/// If it can't be written.
pub fn says(device: &Device, name: &str, text: &str) -> Result<()> {
    let at = device.state().with_file_name(name);
    // By a rename: nobody reads half of it.
    let new = at.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, at)?)
}

/// A small server that says the same to everybody. Dropped, it refuses.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens there, in this thread's network.
    ///
    /// # Errors
    /// If it can't.
    pub fn start(at: SocketAddr, answer: &'static str) -> Result<Self> {
        Self::saying(at, answer.as_bytes().to_vec())
    }

    /// The same with any bytes.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn saying(at: SocketAddr, answer: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let stop = Arc::<AtomicBool>::default();
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut client, _)) => {
                        let _ = (client.set_nonblocking(false), client.set_read_timeout(Some(Duration::from_secs(2))));
                        let mut request = [0; 4096];
                        let _ = (client.read(&mut request), client.write_all(&answer));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A resolver that knows one address for every name, and another one when it lies.
pub struct Names {
    /// Whether it lies.
    pub lies: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Answers on port 53 of an address, in this thread's network.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(at: Ipv4Addr, right: Ipv4Addr, wrong: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((IpAddr::V4(at), 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (lies, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (liar, ended) = (lies.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut query = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut query) else { continue };
                let mut answer = query[..n].to_vec();
                if n < 12 {
                    continue;
                }
                answer[2] |= 0x80;
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
                answer.extend(if liar.load(Ordering::Relaxed) { wrong } else { right }.octets());
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(Self { lies, stop, thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
