//! What stands between this computer and the world besides cables: proxies, resolvers, the radio.

use tram_wire::report::Item;

use super::{Fill, item};
use crate::host::Host;

/// Proxies in force and the resolvers asked.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    let mut all = Vec::new();
    let environment = host.read("/etc/environment").unwrap_or_default();
    for line in environment.lines() {
        let Some((key, value)) = line.trim().trim_start_matches("export ").split_once('=') else { continue };
        let low = key.to_lowercase();
        if ["http_proxy", "https_proxy", "all_proxy"].contains(&low.as_str()) {
            all.push(item("proxy", &low).fact("address", Some(without_password(value.trim_matches('"')))));
        }
    }
    let resolv = host.read("/etc/resolv.conf").unwrap_or_default();
    let servers = resolv.lines().filter_map(|l| l.trim().strip_prefix("nameserver")).map(str::trim);
    all.extend(servers.filter(|s| !s.is_empty()).take(4).map(|s| item("resolver", s)));
    all
}

/// An address may carry a name and a password: they stay here.
fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{host}"),
            None => host.to_owned(),
        },
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn a_proxy_is_named_without_its_password() {
        let host = Fake::new()
            .file("/etc/environment", "PATH=/bin\nHTTPS_PROXY=\"http://lan:mat-khau@proxy.local:3128\"\n")
            .file("/etc/resolv.conf", "search x\nnameserver 10.0.0.1\nnameserver 1.1.1.1\n");
        let all = collect(&host);
        assert_eq!(all[0].facts["address"], "http://proxy.local:3128");
        assert_eq!(all[1..].iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["10.0.0.1", "1.1.1.1"]);
    }
}
