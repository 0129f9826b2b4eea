//! A libvirt URI as the operator wrote it: what is ours taken out, what is dangerous refused.

use super::xml::Network;
use crate::uri::Uri;
use crate::{Error, Result};

/// Parameters of libvirt's that only say where its socket is. Others can name a program to run
/// (`command`, `netcat`) or switch verification off, and a host is a line somebody types into a console.
const ALLOWED: &[&str] = &["socket", "mode"];

pub(super) struct Options {
    /// What libvirt gets.
    pub(super) uri: String,
    /// libvirt's test driver.
    pub(super) test_driver: bool,
    pub(super) network: Network,
    pub(super) keep_alive: (i32, u32),
}

impl Options {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parsed = Uri::parse(text)?;
        let (driver, transport) = parsed.scheme.split_once('+').unwrap_or((&parsed.scheme, ""));
        if !matches!(driver, "qemu" | "test") {
            return Err(invalid("hosts are qemu:///system, qemu:///session or libvirt's test driver"));
        }
        if !matches!(transport, "" | "unix") || !parsed.rest.starts_with("///") {
            return Err(Error::Unsupported(
                "hosts on other machines: run a controller there, displays and disks need the host itself".into(),
            ));
        }
        let mut kept = Vec::new();
        let (mut network, mut keep_alive) = (Network::default(), (5, 3));
        for (key, value) in &parsed.query {
            match key.as_str() {
                "tram_network" => network = parse_network(value)?,
                "tram_keepalive" => {
                    let parts = value.split_once(',').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
                    keep_alive = parts
                        .filter(|(i, n): &(i32, u32)| (1..=60).contains(i) && (1..=20).contains(n))
                        .ok_or_else(|| invalid("tram_keepalive is written SECONDS,COUNT, such as 5,3"))?;
                }
                key if ALLOWED.contains(&key) => kept.push((key, value)),
                _ => {
                    return Err(invalid(
                        "a host's URI may have socket, mode, tram_network and tram_keepalive, no more",
                    ));
                }
            }
        }
        let mut uri = format!("{}:{}", parsed.scheme, parsed.rest);
        for (n, (key, value)) in kept.iter().enumerate() {
            let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_');
            if !value.bytes().all(safe) {
                return Err(invalid("the path in a host's URI has only letters, digits and / . - _"));
            }
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(&format!("{key}={value}"));
        }
        Ok(Self { uri, test_driver: driver == "test", network, keep_alive })
    }
}

fn parse_network(value: &str) -> Result<Network> {
    let name = |name: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 50 || !name.bytes().all(plain) {
            return Err(invalid("a network's name has only letters, digits and - _ ."));
        }
        Ok(name.to_owned())
    };
    match value.split_once(':') {
        None if value == "none" => Ok(Network::Isolated),
        None if value == "user" => Ok(Network::User),
        Some(("network", n)) => Ok(Network::Named(name(n)?)),
        Some(("bridge", n)) => Ok(Network::Bridge(name(n)?)),
        _ => Err(invalid("tram_network is none, user, network:NAME or bridge:NAME")),
    }
}

fn invalid(text: &str) -> Error {
    Error::Invalid(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_taken_out_and_the_rest_kept() {
        let o = Options::parse("qemu:///system?tram_network=user&socket=/run/x/sock&tram_keepalive=1,2").unwrap();
        assert_eq!(o.uri, "qemu:///system?socket=/run/x/sock");
        assert_eq!((o.network, o.keep_alive, o.test_driver), (Network::User, (1, 2), false));
        assert_eq!(Options::parse("test:///default").unwrap().uri, "test:///default");
        assert!(Options::parse("test+unix:///default?socket=/a").unwrap().test_driver);
    }

    #[test]
    fn uris_that_run_programs_or_leave_the_machine_are_refused() {
        for bad in [
            "qemu+ext:///system?command=/bin/sh",
            "qemu+ssh://root@host/system?command=/tmp/x",
            "qemu+ssh://host/system",
            "qemu+tcp://host/system",
            "qemu:///system?command=/bin/sh",
            "qemu:///system?no_verify=1",
            "qemu:///system?socket=/a%26command=/bin/sh",
            "qemu://host/system",
            "lxc:///system",
            "xen:///",
            "http://x",
            "qemu",
            "qemu:///system?tram_network=bridge:",
            "qemu:///system?tram_network=bridge:a<b",
            "qemu:///system?tram_keepalive=0,0",
            "qemu:///sys\ntem",
        ] {
            assert!(matches!(Options::parse(bad), Err(Error::Invalid(_) | Error::Unsupported(_))), "{bad:?}");
        }
    }
}
