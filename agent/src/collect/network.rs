//! Interfaces, gateway, resolver, and how fast they answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tram_wire::heartbeat::{Interface, Network};
use tram_wire::report::Probe;

use super::line::Window;
use crate::host::probe::ROUTER_PORTS;
use crate::host::{Burst, Host};

/// A probe that takes longer than this has failed.
const DEADLINE: Duration = Duration::from_millis(1500);
const MOST: usize = 16;
/// Packets of a burst to the router.
const BURST: u16 = 10;

/// Reads interfaces, gateway and resolver; times are left empty.
#[must_use]
pub fn read(host: &impl Host) -> Network {
    let gateway = host.read("/proc/net/route").and_then(|t| default_gateway(&t)).map(IpAddr::V4);
    let resolver = host.read("/etc/resolv.conf").and_then(|t| first_resolver(&t));
    Network {
        interfaces: interfaces(host),
        gateway: gateway.map(|ip| ip.to_string()),
        resolver: resolver.map(|ip| ip.to_string()),
        ..Network::default()
    }
}

/// Probes the gateway by a burst, and the first resolver. What only the link knows (controller round trip, skew) is
/// left empty.
pub async fn probe(host: &impl Host, n: &mut Network, router: &mut Window) -> Option<Probe> {
    let resolver: Option<IpAddr> = n.resolver.as_deref().and_then(|r| r.parse().ok());
    let gateway = n.gateway.as_deref();
    let gateway: Option<IpAddr> = gateway.and_then(|g| g.parse().ok());
    let (dns, burst) = tokio::join!(
        async {
            match resolver {
                Some(ip) => host.dns(SocketAddr::new(ip, 53), DEADLINE).await,
                None => None,
            }
        },
        async {
            match gateway {
                Some(ip) => host.burst(ip, &ROUTER_PORTS, BURST, DEADLINE / 2).await,
                None => None,
            }
        }
    );
    n.dns_ms = dns.map(millis);
    let gateway = gateway?;
    let now = burst.as_ref().filter(|b| !b.took_us.is_empty()).map(|b| Burst::trips([b]).p50_us);
    n.gateway_rtt_ms = now.map(|us| millis(Duration::from_micros(us.into())));
    router.took(gateway, BURST, burst);
    router.probe("gateway")
}

/// Milliseconds with two decimals.
#[must_use]
pub fn millis(d: Duration) -> f32 {
    (d.as_secs_f32() * 100_000.0).round() / 100.0
}

/// The gateway of the default route with the lowest metric.
fn default_gateway(route: &str) -> Option<Ipv4Addr> {
    route
        .lines()
        .skip(1)
        .filter_map(|line| {
            let f: Vec<&str> = line.split_whitespace().collect();
            let (destination, gateway, metric, mask) = (f.get(1)?, f.get(2)?, f.get(6)?, f.get(7)?);
            // Addresses are printed as a native-endian word.
            let gateway = u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes();
            let is_default = *destination == "00000000" && *mask == "00000000" && gateway != [0; 4];
            is_default.then_some((metric.parse::<u32>().ok()?, Ipv4Addr::from(gateway)))
        })
        .min()
        .map(|(_, ip)| ip)
}

fn first_resolver(resolv_conf: &str) -> Option<IpAddr> {
    resolv_conf.lines().find_map(|l| {
        let mut words = l.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        words.next()?.parse().ok()
    })
}

fn interfaces(host: &impl Host) -> Vec<Interface> {
    let addresses = host.addresses();
    host.list("/sys/class/net")
        .into_iter()
        .filter(|n| n != "lo")
        .filter_map(|name| {
            let read = |leaf: &str| host.read(&format!("/sys/class/net/{name}/{leaf}"));
            let number = |leaf: &str| read(leaf).and_then(|v| v.parse::<i64>().ok());
            let own: Vec<String> = addresses.iter().filter(|(n, _)| *n == name).map(|(_, a)| a.clone()).collect();
            let is_virtual = host.list(&format!("/sys/class/net/{name}/device")).is_empty();
            // A virtual interface (bridge, tap) without an address says nothing about this office.
            if is_virtual && own.is_empty() {
                return None;
            }
            let state = read("operstate").unwrap_or_default();
            Some(Interface {
                mac: read("address").filter(|m| m != "00:00:00:00:00:00" && !m.is_empty()),
                // Point-to-point links are "unknown" when they work.
                up: state == "up" || (state == "unknown" && number("carrier") != Some(0)),
                speed_mbit: number("speed").and_then(|s| u32::try_from(s).ok()).filter(|s| *s > 0 && *s < 1_000_000),
                duplex: read("duplex").filter(|d| d == "full" || d == "half"),
                carrier_changes: number("carrier_changes").unwrap_or(0).unsigned_abs(),
                errors: ["rx_errors", "tx_errors"]
                    .iter()
                    .map(|e| number(&format!("statistics/{e}")).unwrap_or(0).unsigned_abs())
                    .sum(),
                addresses: own,
                name,
            })
        })
        .take(MOST)
        .collect()
}

/// Whether `now` differs enough from what was last told.
#[must_use]
pub fn differs(told: &Network, now: &Network) -> bool {
    // A time counts when it appears, disappears, or both doubles (or halves) and moves by 5 ms.
    let apart = |a: Option<f32>, b: Option<f32>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() >= 5.0 && (a > 2.0 * b || b > 2.0 * a),
        (None, None) => false,
        _ => true,
    };
    let skewed = match (told.skew_ms, now.skew_ms) {
        (Some(a), Some(b)) => a.abs_diff(b) >= 1000,
        (a, b) => a.is_some() != b.is_some(),
    };
    told.gateway != now.gateway
        || told.resolver != now.resolver
        || told.interfaces != now.interfaces
        || apart(told.gateway_rtt_ms, now.gateway_rtt_ms)
        || apart(told.dns_ms, now.dns_ms)
        || apart(told.controller_rtt_ms, now.controller_rtt_ms)
        || skewed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
        eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_route_with_the_lowest_metric_is_the_gateway() {
        assert_eq!(default_gateway(ROUTE), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(default_gateway("Iface\n"), None);
        assert_eq!(default_gateway("\u{0}\nrubbish\n"), None);
    }

    #[test]
    fn the_first_resolver_counts() {
        assert_eq!(
            first_resolver("# x\nsearch local\nnameserver  10.0.0.2\nnameserver 1.1.1.1"),
            Some("10.0.0.2".parse().unwrap())
        );
        assert_eq!(first_resolver("nameserver\noptions edns0"), None);
    }

    #[tokio::test]
    async fn a_commune_office_network() {
        let mut host = Fake::new()
            .file("/proc/net/route", ROUTE)
            .file("/etc/resolv.conf", "nameserver 192.168.1.1")
            .file("/sys/class/net/lo/operstate", "unknown")
            .file("/sys/class/net/eth0/operstate", "up")
            .file("/sys/class/net/eth0/device/vendor", "0x8086")
            .file("/sys/class/net/eth0/address", "52:54:00:12:34:56")
            .file("/sys/class/net/eth0/speed", "100")
            .file("/sys/class/net/eth0/duplex", "half")
            .file("/sys/class/net/eth0/carrier_changes", "12")
            .file("/sys/class/net/eth0/statistics/rx_errors", "3")
            .file("/sys/class/net/eth0/statistics/tx_errors", "4")
            .file("/sys/class/net/wlan0/operstate", "down")
            .file("/sys/class/net/wlan0/device/vendor", "0x8086")
            .file("/sys/class/net/wlan0/speed", "-1")
            .file("/sys/class/net/virbr0/operstate", "down");
        host.addresses = vec![("eth0".into(), "192.168.1.23/24".into())];
        host.pings = vec![("192.168.1.1".parse().unwrap(), Duration::from_micros(510))];
        let mut n = read(&host);
        probe(&host, &mut n, &mut Window::default()).await;
        let names: Vec<_> = n.interfaces.iter().map(|i| (i.name.as_str(), i.up)).collect();
        assert_eq!(names, [("eth0", true), ("wlan0", false)]);
        let eth = &n.interfaces[0];
        assert_eq!((eth.speed_mbit, eth.duplex.as_deref(), eth.errors), (Some(100), Some("half"), 7));
        assert_eq!(n.interfaces[1].speed_mbit, None);
        assert_eq!((n.gateway_rtt_ms, n.dns_ms), (Some(0.51), None));
    }

    #[test]
    fn a_jittering_line_is_not_news_but_a_lost_one_is() {
        let n = |rtt| Network { gateway_rtt_ms: rtt, ..Network::default() };
        assert!(!differs(&n(Some(0.5)), &n(Some(1.8))));
        assert!(!differs(&n(Some(20.0)), &n(Some(29.0))));
        assert!(differs(&n(Some(9.0)), &n(Some(29.0))));
        assert!(differs(&n(Some(0.5)), &n(None)));
    }
}
