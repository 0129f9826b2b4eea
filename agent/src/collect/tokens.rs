//! Card readers and signing tokens as the middleware sees them. Only public objects are read, and no PIN is ever
//! asked for or given: a wrong one would lock an officer's token.

use std::time::Duration;

use tram_wire::report::Item;

use super::{Fill, item};
use crate::host::{Host, Ran};

const DEADLINE: Duration = Duration::from_secs(4);
const SOCKET: &str = "/run/pcscd/pcscd.comm";
/// Modules of tokens in use in Vietnam, and the common one.
const MODULES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/libbit4xpki.so",
    "/usr/lib/x64-athena/libASEP11.so",
    "/usr/lib/libeTPkcs11.so",
    "/usr/lib/libvnpt-ca_v34.so",
    "/usr/lib/libviettel-ca_v6.so",
];

/// The service, and each token's certificates.
#[must_use]
pub fn collect(host: &impl Host) -> Vec<Item> {
    let folder = SOCKET.rsplit_once('/').map_or("/", |(f, _)| f);
    let there = host.list(folder).iter().any(|n| SOCKET.ends_with(n.as_str()));
    let installed = there || !host.list("/usr/lib/pcsc").is_empty();
    let mut all = Vec::new();
    if installed {
        all.push(item("middleware", "pcscd").fact("running", Some(there.to_string())));
    }
    for module in MODULES.iter().filter(|m| there && exists(host, m)) {
        let short = module.rsplit('/').next().unwrap_or(module);
        // No --login: what needs a PIN stays unseen.
        match host.run("pkcs11-tool", &["--module", module, "--list-objects", "--type", "cert"], DEADLINE) {
            Ran::Done { out, .. } => all.extend(certificates(short, &out, host.wall_ms()).into_iter().take(8)),
            Ran::TimedOut => all.push(item("middleware", short).fact("answer", Some("none".to_owned()))),
            Ran::Absent => break,
        }
    }
    all
}

fn exists(host: &impl Host, path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("/", path));
    host.list(folder).iter().any(|n| n == name)
}

/// Newer versions of pkcs11-tool print the end of a certificate's life; the subject stays where it is.
fn certificates(module: &str, out: &str, now_ms: i64) -> Vec<Item> {
    let mut all: Vec<Item> = Vec::new();
    for line in out.lines() {
        let line = line.trim();
        if line.starts_with("Certificate Object") {
            all.push(item("certificate", &format!("{module} {}", all.len() + 1)));
        } else if let (Some(last), Some(end)) =
            (all.last_mut(), after(line, &["notAfter:", "not after:", "Not After:"]))
        {
            let days = day(end).map(|d| d - now_ms.div_euclid(86_400_000));
            *last = std::mem::take(last).fact("days_left", days.map(|d| d.to_string()));
        }
    }
    all
}

fn after<'a>(line: &'a str, heads: &[&str]) -> Option<&'a str> {
    heads.iter().find_map(|h| line.strip_prefix(h)).map(str::trim)
}

/// `2027-03-01 10:00:00` or `Mar  1 10:00:00 2027 GMT`, to days since 1970.
fn day(text: &str) -> Option<i64> {
    let w: Vec<&str> = text.split_whitespace().collect();
    let (y, m, d) = if let Some((y, rest)) = w.first()?.split_once('-') {
        let (m, d) = rest.split_once('-')?;
        (y.parse::<i64>().ok()?, m.parse::<i64>().ok()?, d.parse::<i64>().ok()?)
    } else {
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let m = months.iter().position(|n| w.first() == Some(n))?;
        (w.get(3)?.parse().ok()?, i64::try_from(m).ok()? + 1, w.get(1)?.parse().ok()?)
    };
    if !(1970..9999).contains(&y) || !(1..=12).contains(&m) || !(1..=31).contains(&d) {
        return None;
    }
    // Days from the civil calendar: years begin in March, so that the odd day comes last.
    let y = if m <= 2 { y - 1 } else { y };
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let doy = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    Some(era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn days() {
        assert_eq!(day("1970-01-01 00:00:00"), Some(0));
        assert_eq!(day("2024-02-29 12:00:00"), Some(19_782));
        assert_eq!(day("Mar  1 10:00:00 2027 GMT"), Some(20_878));
        for bad in ["", "soon", "2027-99-01", "Foo 1 10:00 2027", "-1-1-1"] {
            assert_eq!(day(bad), None, "{bad}");
        }
    }

    #[test]
    fn certificates_are_counted_and_dated_and_nobody_is_named() {
        let out = "Certificate Object; type = X.509 cert\n  label:      NGUYEN THI LAN\n  subject:    DN: CN=NGUYEN THI LAN\n  notAfter: 2026-12-10 00:00:00\nCertificate Object; type = X.509 cert\n  label: CA\n";
        let host = Fake::new()
            .file("/run/pcscd/pcscd.comm", "")
            .file("/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so", "")
            .program("pkcs11-tool --module /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so --list-objects", out);
        let all = collect(&host);
        assert_eq!(
            all.iter().map(|i| i.kind.as_str()).collect::<Vec<_>>(),
            ["middleware", "certificate", "certificate"]
        );
        assert!(all[1].facts.contains_key("days_left") && !all[2].facts.contains_key("days_left"));
        assert!(!format!("{all:?}").contains("NGUYEN"), "a name would be about a person");
    }

    #[test]
    fn middleware_that_is_installed_and_does_not_run_is_said() {
        let host = Fake::new().file("/usr/lib/pcsc/drivers/x", "");
        assert_eq!(collect(&host)[0].facts["running"], "false");
        assert!(collect(&Fake::new()).is_empty());
    }
}
