//! What can be reached from here, how fast, and by which way.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tram_wire::bandwidth::Arrived;
use tram_wire::check::CheckState;
use tram_wire::diagnosis::{HostName, Target};
use tram_wire::helper::{Interface, Request, Seconds};
use tram_wire::plan::Service;

use super::{Desk, Found, helped};
use crate::collect::network as nic;
use crate::host::probe::{self, path};
use crate::host::{Host, Ran};

/// One packet's answer.
const PACKET: Duration = Duration::from_millis(1000);
/// Between two packets.
const BETWEEN: Duration = Duration::from_millis(100);
/// One desktop in use wants that much.
const ENOUGH_MBIT: f64 = 2.0;
/// A router in the same room answers faster than this, whoever is farther away faster than that.
const SLOW_MS: (f32, f32) = (20.0, 150.0);

/// Where a target is; the port is the controller's own.
fn find<H: Host>(d: &Desk<H>, to: &Target) -> Result<(IpAddr, Option<u16>), &'static str> {
    let n = || nic::read(&d.host);
    let parsed = |text: Option<String>, none| text.and_then(|t| t.parse().ok()).ok_or(none);
    let named = |host: &str, port: u16| {
        let all = (host, port).to_socket_addrs().map_err(|_| "no_such_name")?;
        let all: Vec<IpAddr> = all.map(|a| a.ip()).collect();
        all.iter().find(|ip| ip.is_ipv4()).or(all.first()).copied().ok_or("no_such_name")
    };
    match to {
        Target::Gateway => Ok((parsed(n().gateway, "no_gateway")?, None)),
        Target::Resolver => Ok((parsed(n().resolver, "no_resolver")?, None)),
        Target::Controller => {
            let (host, port) = &d.here.controller;
            Ok((named(host, *port)?, Some(*port)))
        }
        Target::Host(h) => Ok((named(h.as_str(), 443)?, None)),
    }
}

/// Interfaces, routes and resolvers.
pub(super) fn network<H: Host>(d: &Desk<H>) -> Found {
    let n = nic::read(&d.host);
    let mut text = String::new();
    for i in &n.interfaces {
        let speed = i.speed_mbit.map_or_else(String::new, |s| format!(" {s} Mbit/s"));
        let (up, duplex) = (if i.up { "up" } else { "down" }, i.duplex.as_deref().unwrap_or_default());
        let _ = writeln!(text, "{} {up}{speed} {duplex} {} errors={}", i.name, i.addresses.join(","), i.errors);
    }
    let resolv = d.host.read("/etc/resolv.conf").unwrap_or_default();
    resolv.lines().filter(|l| l.starts_with("nameserver")).for_each(|l| text.extend([l, "\n"]));
    let up = n.interfaces.iter().filter(|i| i.up).count();
    let half = n.interfaces.iter().any(|i| i.up && i.duplex.as_deref() == Some("half"));
    let found = match () {
        () if n.interfaces.is_empty() => Found::unknown("no_interface"),
        () if up == 0 => Found::crit("no_cable"),
        () if n.gateway.is_none() => Found::warn("no_gateway"),
        () if half => Found::warn("half_duplex"),
        () => Found::ok("done"),
    };
    found
        .facts(n.gateway.map(|g| ("gateway".to_owned(), g)))
        .facts(n.resolver.map(|r| ("resolver".to_owned(), r)))
        .fact("interfaces_up", up)
        .fact("flaps", n.interfaces.iter().map(|i| i.carrier_changes).max().unwrap_or(0))
        .text(text)
}

/// Round trips: by ICMP where the kernel lets us, else by TCP, where a refusal is an answer too; to the controller
/// always by TCP, as that is how it is used.
pub(super) async fn ping<H: Host>(d: &Desk<H>, to: &Target, count: u16) -> Found {
    let (ip, port) = match find(d, to) {
        Ok(found) => found,
        Err(code) if matches!(to, Target::Gateway | Target::Resolver) => return Found::unknown(code),
        Err(code) => return Found::crit(code),
    };
    let begun = Instant::now();
    let (mut trips, mut sent) = (Vec::new(), 0_u16);
    for n in 0..count {
        if d.stopped() || begun.elapsed() + PACKET > d.deadline {
            break;
        }
        if n > 0 {
            sleep(BETWEEN).await;
        }
        sent += 1;
        let took = match port {
            Some(port) => d.host.reach(&ip.to_string(), port, PACKET).await,
            None => d.host.ping(ip, PACKET).await,
        };
        match took {
            Some(t) => {
                trips.push(nic::millis(t));
                d.say(format!("{} {:.1} ms", n + 1, nic::millis(t)));
            }
            None => {
                d.say(format!("{} -", n + 1));
                // One that answers nothing is not asked twenty times.
                if trips.is_empty() && n >= 1 {
                    break;
                }
            }
        }
    }
    judge(to, &trips, sent).fact("address", ip)
}

fn judge(to: &Target, trips: &[f32], sent: u16) -> Found {
    let text = trips.iter().fold(String::new(), |mut text, t| {
        let _ = writeln!(text, "{t:.2} ms");
        text
    });
    let mut sorted = trips.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = |share: usize| sorted.get((sorted.len() * share / 100).min(sorted.len().saturating_sub(1))).copied();
    let lost = usize::from(sent).saturating_sub(trips.len());
    let limit = if matches!(to, Target::Gateway | Target::Resolver) { SLOW_MS.0 } else { SLOW_MS.1 };
    let found = match (at(50), lost) {
        (None, _) => Found::crit("no_answer"),
        (Some(_), lost) if lost > 0 => Found::warn("lossy"),
        (Some(median), _) if median > limit => Found::warn("slow"),
        _ => Found::ok("done"),
    };
    let ms = |name: &str, v: Option<f32>| v.map(|v| (name.to_owned(), format!("{v:.2}")));
    let jitter = trips.windows(2).map(|w| (w[0] - w[1]).abs()).fold(0.0_f32, f32::max);
    found
        .facts(ms("median_ms", at(50)))
        .facts(ms("p95_ms", at(95)))
        .facts(ms("jitter_ms", Some(jitter).filter(|_| trips.len() > 1)))
        .fact("sent", sent)
        .fact("lost", lost)
        .text(text)
}

fn v4<H: Host>(d: &Desk<H>, to: &Target) -> Result<Ipv4Addr, Found> {
    match find(d, to) {
        Ok((IpAddr::V4(ip), _)) => Ok(ip),
        Ok((IpAddr::V6(_), _)) => Err(Found::unknown("only_ipv4")),
        Err(code) => Err(Found::crit(code)),
    }
}

/// Router by router.
pub(super) fn trace<H: Host>(d: &Desk<H>, to: &Target, hops: u16) -> Found {
    let ip = match v4(d, to) {
        Ok(ip) => ip,
        Err(found) => return found,
    };
    let (mut text, mut silent, mut seen, mut there) = (String::new(), 0, 0_u16, false);
    let begun = Instant::now();
    for n in 1..=hops {
        if d.stopped() || begun.elapsed() + PACKET > d.deadline {
            break;
        }
        let steps = u8::try_from(n).unwrap_or(u8::MAX);
        let line = match path::hop(ip, steps, PACKET) {
            Some(h) => {
                (silent, seen, there) = (0, n, h.there || h.from == ip);
                format!("{n} {} {:.1} ms", h.from, nic::millis(h.took))
            }
            None => {
                silent += 1;
                format!("{n} *")
            }
        };
        let _ = writeln!(text, "{line}");
        d.say(line);
        // Beyond four who say nothing there is a firewall.
        if there || silent == 4 {
            break;
        }
    }
    let found = if there { Found::ok("done") } else { Found::warn("way_unknown") };
    found.fact("address", ip).fact("hops", seen).text(text)
}

/// The largest packet that passes.
pub(super) fn mtu<H: Host>(d: &Desk<H>, to: &Target) -> Found {
    let ip = match v4(d, to) {
        Ok(ip) => ip,
        Err(found) => return found,
    };
    let Some((size, seen)) = path::mtu(ip, d.deadline) else { return Found::unknown("no_answer") };
    let found = match size {
        s if s < 1280 => Found::warn("mtu_small"),
        _ => Found::ok("done"),
    };
    found.fact("address", ip).fact("mtu", size).fact("seen_to_arrive", seen)
}

/// Asks each resolver, and compares.
pub(super) async fn dns<H: Host>(d: &Desk<H>, name: &HostName) -> Found {
    let resolv = d.host.read("/etc/resolv.conf").unwrap_or_default();
    let all: Vec<IpAddr> = resolv
        .lines()
        .filter_map(|l| l.strip_prefix("nameserver"))
        .filter_map(|r| r.trim().parse().ok())
        .take(4)
        .collect();
    if all.is_empty() {
        return Found::crit("no_resolver");
    }
    let share = d.deadline / u32::try_from(all.len()).unwrap_or(1);
    let (mut facts, mut answers) = (Vec::new(), Vec::new());
    for r in all {
        let asked = asking("dns", name, 0, share);
        let Some(p) = probe::service(&asked, &[r]).await else { continue };
        let ms = p.resolve_us.map_or_else(String::new, |us| format!(" in {} ms", us / 1000));
        let answer = p.facts.get("answer").cloned().unwrap_or_default();
        let mut sorted: Vec<&str> = answer.split(',').collect();
        sorted.sort_unstable();
        answers.push(if p.error.is_none() { sorted.join(",") } else { String::new() });
        facts.push((r.to_string(), format!("{}{ms}", p.error.unwrap_or(answer))));
    }
    let first = answers.first().cloned().unwrap_or_default();
    let found = match () {
        () if answers.iter().all(String::is_empty) => Found::crit("no_such_name"),
        () if answers.iter().any(String::is_empty) => Found::warn("resolver_silent"),
        () if answers.iter().any(|a| *a != first) => Found::warn("answers_differ"),
        () => Found::ok("done"),
    };
    found.fact("name", name.as_str()).facts(facts)
}

fn asking(kind: &str, host: &HostName, port: u16, within: Duration) -> Service {
    Service {
        name: "asked".to_owned(),
        kind: kind.to_owned(),
        host: host.as_str().to_owned(),
        port,
        budget_ms: u32::try_from(within.as_millis()).unwrap_or(5000),
        ..Service::default()
    }
}

/// A port of a listed service, phase by phase.
pub(super) async fn service<H: Host>(d: &Desk<H>, kind: &str, host: &HostName, port: u16) -> Found {
    // Sooner than the order's end, so that the phase that hangs can be named.
    let within = d.deadline.min(Duration::from_millis(2500));
    let Some(p) = probe::service(&asking(kind, host, port, within), &[]).await else {
        return Found::unknown("absent");
    };
    let ms = |name: &str, us: Option<u32>| us.map(|us| (name.to_owned(), format!("{}.{}", us / 1000, us % 1000 / 100)));
    let failed = p.failed.and_then(|f| serde_json::to_value(f).ok()).and_then(|v| v.as_str().map(str::to_owned));
    let found = match (p.state, p.error.as_deref()) {
        (CheckState::Ok, _) => Found::ok("done"),
        (_, Some("timeout")) => Found::crit("no_answer"),
        (_, Some("refused")) => Found::crit("refused"),
        (_, Some("no_such_name")) => Found::crit("no_such_name"),
        (_, Some("untrusted")) => Found::crit("untrusted"),
        _ => Found::crit("failed"),
    };
    found
        .fact("service", format!("{kind} {}:{port}", host.as_str()))
        .facts(ms("resolve_ms", p.resolve_us))
        .facts(ms("connect_ms", p.connect_us))
        .facts(ms("tls_ms", p.tls_us))
        .facts(ms("first_byte_ms", p.first_byte_us))
        .facts(failed.map(|f| ("failed_at".to_owned(), f)))
        .facts(p.error.map(|e| ("error".to_owned(), e)))
        .facts(p.facts)
}

/// How much passes between here and the controller.
pub(super) async fn bandwidth<H: Host>(d: &Desk<H>) -> Found {
    let Some(measure) = &d.here.bandwidth else { return Found::unknown("absent") };
    let (down, up) = match timeout(d.deadline, (measure.0)(d.order)).await {
        Ok(Ok(passed)) => passed,
        Ok(Err(code)) => {
            return match code.as_str() {
                "session_open" => Found::unknown("session_open"),
                "no_room" => Found::unknown("no_room"),
                "no_answer" => Found::crit("no_answer"),
                "refused" => Found::unknown("refused"),
                _ => Found::crit("failed"),
            };
        }
        Err(_) => return Found::crit("timed_out"),
    };
    let (fast, slow) = (down.mbit_s(), down.mbit_s().is_some_and(|m| m < ENOUGH_MBIT));
    let found = match fast {
        None => Found::crit("lossy"),
        Some(_) if slow => Found::warn("slow"),
        Some(_) => Found::ok("done"),
    };
    let mbit = |name: &str, a: &Arrived| a.mbit_s().map(|m| (name.to_owned(), format!("{m:.1}")));
    found
        .facts(mbit("down_mbit_s", &down))
        .facts(mbit("up_mbit_s", &up))
        .fact("down_kb", down.bytes / 1000)
        .fact("up_kb", up.bytes / 1000)
}

/// Asks for the address anew, where the way out is.
pub(super) fn renew_dhcp<H: Host>(d: &Desk<H>) -> Found {
    let route = d.host.read("/proc/net/route").unwrap_or_default();
    let out = route.lines().skip(1).find_map(|l| {
        let mut f = l.split_whitespace();
        let name = f.next()?;
        (f.next()? == "00000000").then(|| name.to_owned())
    });
    let named = out.filter(|n| d.host.list("/sys/class/net").contains(n)).and_then(|n| Interface::try_from(n).ok());
    let Some(interface) = named else { return Found::crit("no_gateway") };
    helped::done(d, &Request::RenewDhcp { interface: interface.clone() }).fact("interface", interface.as_str())
}

/// Headers of packets, a line each: 96 bytes of each are read, none of them printed.
pub(super) fn capture<H: Host>(d: &Desk<H>, seconds: u16) -> Found {
    let Ok(seconds) = Seconds::try_from(seconds) else { return Found::unknown("absent") };
    let asked = match helped::ask(d, &Request::Capture { seconds }) {
        Ok(asked) => asked,
        Err(found) => return found,
    };
    match &asked.ran {
        Ran::Done { out, .. } if !out.is_empty() => {
            Found::ok("done").fact("packets", out.lines().count()).text(out.clone())
        }
        // `timeout` says so when the time was over, and when there is no program.
        Ran::Done { code: 124, .. } => Found::ok("nothing_said"),
        Ran::Done { code: 127, .. } => Found::unknown("absent"),
        _ => asked.found(),
    }
}
