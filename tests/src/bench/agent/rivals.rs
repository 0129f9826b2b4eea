//! The known agents: each in the foreground with a folder of its own, and with the far end that it is made for. What they
//! collect is about what Tram's agent does; how often is as they come, so every one of them is as its makers mean it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::wire::{Count, Scraper, relay, sink, zabbix};
use crate::world::{PATIENCE, free_address};

const SCRAPE: Duration = Duration::from_secs(15);
/// collectd's parts: the processor, memory, disks, line and processes of one office computer.
const COLLECTD: [&str; 12] =
    ["cpu", "df", "disk", "interface", "load", "memory", "processes", "swap", "uptime", "users", "vmem", "network"];
/// Where Debian puts them.
const COLLECTD_PARTS: &str = "/usr/lib/collectd";
const NETDATA_PARTS: &str = "/usr/lib/netdata/plugins.d";
/// What Zabbix's own Linux template asks each minute of a computer with one disk and one network card.
const ITEMS: [&str; 36] = [
    "agent.ping",
    "kernel.maxfiles",
    "kernel.maxproc",
    "proc.num",
    "proc.num[,,run]",
    "system.boottime",
    "system.cpu.intr",
    "system.cpu.load[all,avg1]",
    "system.cpu.load[all,avg5]",
    "system.cpu.load[all,avg15]",
    "system.cpu.num",
    "system.cpu.switches",
    "system.cpu.util[,idle]",
    "system.cpu.util[,iowait]",
    "system.cpu.util[,nice]",
    "system.cpu.util[,steal]",
    "system.cpu.util[,system]",
    "system.cpu.util[,user]",
    "system.hostname",
    "system.localtime",
    "system.swap.size[,free]",
    "system.swap.size[,pfree]",
    "system.swap.size[,total]",
    "system.uname",
    "system.uptime",
    "system.users.num",
    "vm.memory.size[available]",
    "vm.memory.size[pavailable]",
    "vm.memory.size[total]",
    "vfs.fs.inode[/,pfree]",
    "vfs.fs.size[/,pused]",
    "vfs.fs.size[/,used]",
    "net.if.in[lo]",
    "net.if.in[lo,errors]",
    "net.if.out[lo]",
    "net.if.out[lo,errors]",
];

/// A child that ends with this.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of them, at work.
pub struct Rival {
    /// Its package.
    pub name: &'static str,
    /// How often it does what.
    pub how: &'static str,
    /// Its process.
    pub process: Guard,
    /// Its line.
    pub wire: Count,
    /// Its program, bytes.
    pub program: u64,
    /// What it loads or starts of its own beside it, bytes.
    pub parts: u64,
    /// Keeps on asking for as long as it is there.
    _scraper: Option<Scraper>,
}

/// Starts all; those that could not be, each with the reason.
pub fn all(folder: &Path) -> (Vec<Rival>, Vec<(&'static str, String)>) {
    let tries: [(&'static str, Result<Rival>); 5] = [
        ("prometheus-node-exporter", node_exporter()),
        ("zabbix-agent2", zabbix_agent(folder)),
        ("collectd", collectd(folder, "collectd", "every 10 s, as it comes", 10)),
        ("collectd", collectd(folder, "collectd-60", "every 60 s, as Tram", 60)),
        ("netdata", netdata(folder)),
    ];
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (name, tried) in tries {
        match tried {
            Ok(rival) => there.push(rival),
            Err(e) => missing.push((name, format!("{e:#}"))),
        }
    }
    (there, missing)
}

/// Starts a program whose words nobody reads.
pub fn quiet(command: &mut Command) -> Result<Guard> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Guard(child.with_context(|| format!("{} can't be started", command.get_program().to_string_lossy()))?))
}

/// Starts a program whose words are kept for the case that it ends.
fn kept(command: &mut Command, folder: &Path) -> Result<Guard> {
    let log = File::create(folder.join("said"))?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Guard(child.with_context(|| format!("{} can't be started", command.get_program().to_string_lossy()))?))
}

/// Its size, if it is installed.
fn installed(program: &str) -> Result<u64> {
    let size = std::fs::metadata(program).map(|m| m.len());
    // Debian 13 has no netdata.
    size.with_context(|| format!("{program} is not installed (`.ci/setup bench` installs what this Debian has)"))
}

fn node_exporter() -> Result<Rival> {
    const PROGRAM: &str = "/usr/bin/prometheus-node-exporter";
    let (program, wire, at) = (installed(PROGRAM)?, Count::default(), free_address()?);
    let process = quiet(Command::new(PROGRAM).arg(format!("--web.listen-address={at}")))?;
    let scraper = Scraper::new(relay(at, &wire)?, "/metrics", SCRAPE)?;
    let (name, how) = ("prometheus-node-exporter", "scraped every 15 s");
    Ok(Rival { name, how, process, wire, program, parts: 0, _scraper: Some(scraper) })
}

fn zabbix_agent(folder: &Path) -> Result<Rival> {
    const PROGRAM: &str = "/usr/sbin/zabbix_agent2";
    let (program, wire, folder) = (installed(PROGRAM)?, Count::default(), place(folder, "zabbix")?);
    let (server, values) = zabbix(&ITEMS, &wire)?;
    // Of the ports it takes, one that nobody has.
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (10_050..32_767).find(free).context("no port below 32767 is free")?;
    let at = folder.display();
    let text = format!(
        "LogType=console\nPidFile={at}/pid\nControlSocket={at}/control\nHostname=bench\nServer=127.0.0.1\n\
         ServerActive={server}\nListenIP=127.0.0.1\nListenPort={port}\n"
    );
    let mut process = kept(Command::new(PROGRAM).arg("-c").arg(write(&folder, &text)?).arg("-f"), &folder)?;
    heard(&folder, &mut process, || values.load(Ordering::Relaxed))?;
    let (name, how) = ("zabbix-agent2", "36 items every 60 s, active");
    Ok(Rival { name, how, process, wire, program, parts: 0, _scraper: None })
}

/// From a copy: programs that run twice from one file share its memory, and look smaller than they are.
fn collectd(folder: &Path, copy: &str, how: &'static str, seconds: u32) -> Result<Rival> {
    const PROGRAM: &str = "/usr/sbin/collectd";
    let (program, wire, folder) = (installed(PROGRAM)?, Count::default(), place(folder, copy)?);
    let own = folder.join("collectd");
    std::fs::copy(PROGRAM, &own)?;
    let mut parts = 0;
    for part in COLLECTD {
        let file = format!("{part}.so");
        parts += std::fs::copy(Path::new(COLLECTD_PARTS).join(&file), folder.join(&file)).context(file)?;
    }
    let (server, at): (SocketAddr, _) = (sink(&wire)?, folder.display());
    let mut text = format!(
        "Hostname \"bench\"\nFQDNLookup false\nBaseDir \"{at}\"\nPIDFile \"{at}/pid\"\nPluginDir \"{at}\"\n\
         TypesDB \"/usr/share/collectd/types.db\"\nInterval {seconds}\n"
    );
    COLLECTD.iter().for_each(|part| text += &format!("LoadPlugin {part}\n"));
    text += &format!("<Plugin network>\n Server \"{}\" \"{}\"\n</Plugin>\n", server.ip(), server.port());
    let mut process = kept(Command::new(own).arg("-f").arg("-C").arg(write(&folder, &text)?), &folder)?;
    heard(&folder, &mut process, || wire.bytes())?;
    Ok(Rival { name: "collectd", how, process, wire, program, parts, _scraper: None })
}

fn netdata(folder: &Path) -> Result<Rival> {
    const PROGRAM: &str = "/usr/sbin/netdata";
    let (program, wire, folder) = (installed(PROGRAM)?, Count::default(), place(folder, "netdata")?);
    for name in ["cache", "lib", "log"] {
        std::fs::create_dir(folder.join(name))?;
    }
    let (web, at) = (free_address()?, folder.display());
    let text = format!(
        "[global]\n run as user = {}\n[directories]\n cache = {at}/cache\n lib = {at}/lib\n log = {at}/log\n\
         [logs]\n debug = none\n error = none\n access = none\n[web]\n bind to = 127.0.0.1\n default port = {}\n\
         [statsd]\n enabled = no\n",
        user()?,
        web.port()
    );
    let process = quiet(Command::new(PROGRAM).arg("-D").arg("-c").arg(write(&folder, &text)?))?;
    let page = "/api/v1/allmetrics?format=prometheus";
    let scraper = Scraper::new(relay(web, &wire)?, page, SCRAPE)?;
    let parts = ["apps.plugin", "nfacct.plugin"].iter().map(|p| Path::new(NETDATA_PARTS).join(p));
    let parts = parts.filter_map(|p| Some(p.metadata().ok()?.len())).sum();
    let (name, how) = ("netdata", "every second, as it comes; scraped every 15 s");
    Ok(Rival { name, how, process, wire, program, parts, _scraper: Some(scraper) })
}

fn user() -> Result<String> {
    let me = nix::unistd::User::from_uid(nix::unistd::getuid())?;
    Ok(me.context("this user has no name")?.name)
}

fn place(folder: &Path, name: &str) -> Result<PathBuf> {
    let place = folder.join(name);
    std::fs::create_dir(&place)?;
    Ok(place)
}

fn write(folder: &Path, text: &str) -> Result<PathBuf> {
    let file = folder.join("conf");
    std::fs::write(&file, text)?;
    Ok(file)
}

/// Waits for its first word: a rival that says nothing would win everything.
fn heard(folder: &Path, process: &mut Guard, words: impl Fn() -> u64) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while words() == 0 {
        if let Some(status) = process.0.try_wait()? {
            let said = std::fs::read_to_string(folder.join("said")).unwrap_or_default();
            anyhow::bail!("{status}: {}", said.lines().last().unwrap_or_default());
        }
        ensure!(Instant::now() < until, "it reports nothing");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
