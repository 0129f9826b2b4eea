//! The way out of the office: straight, or through a proxy by `CONNECT`.
//!
//! TLS ends at the controller whatever is between. A proxy sees a host name, a port and, if it wants one, a password.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, RwLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Address, Config, Proxy as Configured};

/// Longest head of a proxy's answer.
const HEAD: usize = 8 * 1024;
/// What the environment's proxy is never meant for.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1/128";
/// A proxy that says nothing for so long is no way.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why a way does not lead to the controller. The code is for people to search, and for checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// The proxy isn't there.
    #[error("the proxy {0} can't be reached: {1}")]
    ProxyUnreachable(String, String),
    /// It wants a name and a password, or others than those it was given.
    #[error("the proxy {0} refuses the name and password it was given, or wants some: see [proxy] in agent.toml")]
    ProxyPassword(String),
    /// It wants something this agent can't do.
    #[error(
        "the proxy {0} asks for sign-in by {1}; this agent knows Basic only: ask for an exception for the controller"
    )]
    ProxyScheme(String, String),
    /// It lets nobody through to there.
    #[error("the proxy {0} does not let us through to the controller (HTTP {1}): ask for an exception")]
    ProxyRefuses(String, u16),
    /// It speaks something else.
    #[error("the proxy {0} does not answer like a proxy")]
    ProxyGarbled(String),
    /// Its address or password can't be read.
    #[error("{0}")]
    ProxySettings(String),
    /// Somebody answers in the controller's place.
    #[error(
        "TLS is intercepted on the way: the certificate was issued by \"{0}\", not by the controller's authority; the controller must be excepted from inspection"
    )]
    Intercepted(String),
    /// What came back for a signed request is not the controller's answer to it.
    #[error("an answer was not the controller's: somebody on the way changed it, exchanged it or made it up")]
    Forged,
    /// The controller, or who stands before it, does not switch to a WebSocket.
    #[error(
        "whoever answers for the controller does not switch to a WebSocket (HTTP {0}): a proxy before it removes the upgrade"
    )]
    Upgrade(u16),
}

impl Blocked {
    /// The code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProxyUnreachable(..) => "proxy_unreachable",
            Self::ProxyPassword(_) => "proxy_password",
            Self::ProxyScheme(..) => "proxy_scheme",
            Self::ProxyRefuses(..) => "proxy_refuses",
            Self::ProxyGarbled(_) => "proxy_garbled",
            Self::ProxySettings(_) => "proxy_settings",
            Self::Intercepted(_) => "tls_intercepted",
            Self::Forged => "answer_forged",
            Self::Upgrade(_) => "upgrade_removed",
        }
    }

    /// The reason within an error of the network, if it is one of these.
    #[must_use]
    pub fn within(e: &io::Error) -> Option<&Self> {
        let inner = e.get_ref()?;
        if let Some(blocked) = inner.downcast_ref::<Self>() {
            return Some(blocked);
        }
        match inner.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => other.0.downcast_ref::<Self>(),
            _ => None,
        }
    }
}

impl From<Blocked> for io::Error {
    fn from(b: Blocked) -> Self {
        Self::other(b)
    }
}

/// A proxy and when not to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    at: Address,
    /// `name:password`, as Basic wants it.
    basic: Option<String>,
    not_for: Vec<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("at", &self.at).field("not_for", &self.not_for).finish_non_exhaustive()
    }
}

/// How this process gets out.
fn settings() -> &'static RwLock<Option<Settings>> {
    static WAY: OnceLock<RwLock<Option<Settings>>> = OnceLock::new();
    WAY.get_or_init(RwLock::default)
}

#[derive(Clone)]
enum Settings {
    Configured(Configured),
    /// What the environment says.
    Environment {
        url: Option<String>,
        not_for: String,
    },
}

/// Goes by the configuration, else by the environment: `HTTPS_PROXY` and `NO_PROXY`, either case.
pub fn set(configured: Option<&Configured>) {
    let environment = |names: [&str; 2]| names.iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty()));
    let new = configured.cloned().map_or_else(
        || Settings::Environment {
            url: environment(["HTTPS_PROXY", "https_proxy"]),
            not_for: format!("{LOOPBACK},{}", environment(["NO_PROXY", "no_proxy"]).unwrap_or_default()),
        },
        Settings::Configured,
    );
    if let Ok(mut way) = settings().write() {
        *way = Some(new);
    }
}

/// The configuration's file, for [`reread`].
fn file() -> &'static OnceLock<Option<PathBuf>> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    &FILE
}

/// As [`set`], and remembers the file the configuration came from.
pub fn set_from(configured: Option<&Configured>, from: Option<&Path>) {
    let _ = file().set(from.map(Path::to_owned));
    set(configured);
}

/// Reads the configuration's proxy anew; a link that is up stays. What is gone by from here on.
///
/// # Errors
/// What is wrong with the file; nothing is changed then.
pub fn reread() -> Result<String, String> {
    let from = file().get().cloned().flatten();
    let config = Config::load(from.as_deref(), None).map_err(|e| e.to_string())?;
    if let Some(c) = &config.proxy {
        of_config(c).map_err(|e| e.to_string())?;
    }
    set(config.proxy.as_ref());
    Ok(match config.proxy {
        Some(c) => c.url.unwrap_or_else(|| "none".to_owned()),
        None => "environment".to_owned(),
    })
}

/// The proxy for a destination, if one is to be used. Its password is read each time: it may have been changed.
///
/// # Errors
/// [`Blocked::ProxySettings`].
pub fn proxy_for(to: &Address) -> Result<Option<Proxy>, Blocked> {
    let now = settings().read().ok().and_then(|s| s.clone());
    let proxy = match now {
        None => None,
        Some(Settings::Configured(c)) => of_config(&c)?,
        Some(Settings::Environment { url, not_for }) => url.map(|u| of_url(&u, &not_for)).transpose()?,
    };
    Ok(proxy.filter(|p| !excepted(&p.not_for, &to.host)))
}

fn of_config(c: &Configured) -> Result<Option<Proxy>, Blocked> {
    let Some(url) = &c.url else { return Ok(None) };
    let mut proxy = of_url(url, &c.not_for.join(","))?;
    if let Some(file) = &c.password_file {
        proxy.basic = Some(format!("{}:{}", c.user.as_deref().unwrap_or_default(), secret(file)?));
    }
    Ok(Some(proxy))
}

fn secret(file: &PathBuf) -> Result<String, Blocked> {
    let text = std::fs::read_to_string(file);
    let text =
        text.map_err(|e| Blocked::ProxySettings(format!("the proxy's password file {}: {e}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// `http://[name:password@]host:port`.
fn of_url(url: &str, not_for: &str) -> Result<Proxy, Blocked> {
    // The text may hold a password: it is not repeated.
    let wrong = || Blocked::ProxySettings("the proxy's address is not http://name:port".to_owned());
    let rest = url.strip_prefix("http://").unwrap_or(url);
    if rest.contains("://") {
        return Err(wrong());
    }
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(decoded(login)), host),
        None => (None, rest),
    };
    let host = host.trim_end_matches('/');
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        format!("https://{host}")
    } else {
        format!("https://{host}:3128")
    };
    let at = with_port.parse().map_err(|_| wrong())?;
    let not_for = not_for.split([',', ' ']).filter(|n| !n.is_empty()).map(str::to_lowercase).collect();
    Ok(Proxy { at, basic: login, not_for })
}

/// `%40` and the like, as they stand in an URL.
fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&b, after)) = rest.split_first() {
        let hex = (b == b'%').then(|| after.get(..2)).flatten().and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(b);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a host is reached without the proxy: `*`, a name, a domain with what is below it, an address, a network.
fn excepted(not_for: &[String], host: &str) -> bool {
    let host = host.to_lowercase();
    not_for.iter().any(|n| {
        let domain = n.trim_start_matches("*.").trim_start_matches('.');
        n == "*" || host == domain || host.ends_with(&format!(".{domain}")) || in_network(n, &host)
    })
}

fn in_network(network: &str, host: &str) -> bool {
    let Some((net, bits)) = network.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u32>() else { return false };
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (net.parse(), host.parse()) {
        (Ok(IpAddr::V4(a)), Ok(IpAddr::V4(b))) => {
            let wide = |ip: Ipv4Addr| u128::from(u32::from(ip));
            same(wide(a), wide(b), 32)
        }
        (Ok(IpAddr::V6(a)), Ok(IpAddr::V6(b))) => {
            let wide = |ip: Ipv6Addr| u128::from(ip);
            same(wide(a), wide(b), 128)
        }
        _ => false,
    }
}

/// A connection to where the controller or a gateway listens.
///
/// # Errors
/// What the network says, or [`Blocked`] within it.
pub async fn tcp(to: &Address) -> io::Result<TcpStream> {
    match proxy_for(to)? {
        None => TcpStream::connect((to.host.as_str(), to.port)).await,
        Some(proxy) => through(&proxy, to).await,
    }
}

async fn through(proxy: &Proxy, to: &Address) -> io::Result<TcpStream> {
    let name = || format!("{}:{}", proxy.at.host, proxy.at.port);
    let mut line = TcpStream::connect((proxy.at.host.as_str(), proxy.at.port))
        .await
        .map_err(|e| Blocked::ProxyUnreachable(name(), e.to_string()))?;
    let host =
        if to.host.contains(':') { format!("[{}]:{}", to.host, to.port) } else { format!("{}:{}", to.host, to.port) };
    let login = proxy
        .basic
        .as_ref()
        .map_or_else(String::new, |login| format!("proxy-authorization: Basic {}\r\n", base64(login.as_bytes())));
    let request = format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n{login}\r\n");
    let head = timeout(PATIENCE, async {
        line.write_all(request.as_bytes()).await?;
        head(&mut line).await
    })
    .await
    .map_err(|_| Blocked::ProxyUnreachable(name(), "it says nothing".to_owned()))??;
    judge(&head.ok_or_else(|| Blocked::ProxyGarbled(name()))?, &name())?;
    Ok(line)
}

/// What a proxy's answer means.
fn judge(head: &[u8], name: &str) -> Result<(), Blocked> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let garbled = || Blocked::ProxyGarbled(name.to_owned());
    if !response.parse(head).is_ok_and(|s| s.is_complete()) {
        return Err(garbled());
    }
    match response.code.ok_or_else(garbled)? {
        200..=299 => Ok(()),
        407 => {
            let asked = response.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("proxy-authenticate"));
            let schemes: Vec<String> = asked
                .filter_map(|h| std::str::from_utf8(h.value).ok()?.split_whitespace().next().map(str::to_owned))
                .map(|s| s.chars().take(20).collect())
                .collect();
            if schemes.is_empty() || schemes.iter().any(|s| s.eq_ignore_ascii_case("basic")) {
                Err(Blocked::ProxyPassword(name.to_owned()))
            } else {
                Err(Blocked::ProxyScheme(name.to_owned(), schemes.join(", ")))
            }
        }
        code => Err(Blocked::ProxyRefuses(name.to_owned(), code)),
    }
}

/// Up to the empty line, and not a byte further: what follows is TLS's. `None` if it never comes.
async fn head(line: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while head.len() < HEAD {
        match line.read_u8().await {
            Ok(b) => head.push(b),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        if head.ends_with(b"\r\n\r\n") {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            out.push(if i > three.len() { '=' } else { char::from(LETTERS[n >> (18 - 6 * i) & 63]) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_passwords_of_proxies() {
        let p = of_url("http://may%2D01:p%40ss:w@proxy.ubnd.example:8080/", "").unwrap();
        assert_eq!(
            (p.at.host.as_str(), p.at.port, p.basic.as_deref()),
            ("proxy.ubnd.example", 8080, Some("may-01:p@ss:w"))
        );
        assert!(!format!("{p:?}").contains("p@ss"));
        assert_eq!(of_url("10.0.0.9", "").unwrap().at.port, 3128);
        for bad in ["socks5://x:1", "http://", "http://a b:1", "http://secret@:0"] {
            let said = of_url(bad, "").unwrap_err().to_string();
            assert!(!said.contains("secret"), "{said}");
        }
        assert_eq!(
            ["", "a", "ab", "abc", "may-01:p@ss"].map(|t| base64(t.as_bytes())),
            ["", "YQ==", "YWI=", "YWJj", "bWF5LTAxOnBAc3M="]
        );
    }

    #[test]
    fn who_is_reached_without_the_proxy() {
        let list = |t: &str| of_url("p:1", t).unwrap().not_for;
        for (not_for, host, straight) in [
            ("", "tram.example", false),
            ("*", "tram.example", true),
            ("example", "tram.example", true),
            (".example, other", "TRAM.example", true),
            ("ample", "tram.example", false),
            ("10.0.0.0/8", "10.20.1.1", true),
            ("10.0.0.0/8", "11.20.1.1", false),
            ("10.0.0.0/99", "10.20.1.1", false),
            ("fd00::/8", "fd12::1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("", "127.0.0.1", false),
            (LOOPBACK, "127.0.0.1", true),
            (LOOPBACK, "::1", true),
        ] {
            assert_eq!(excepted(&list(not_for), host), straight, "{not_for} {host}");
        }
    }

    #[test]
    fn what_a_proxy_says_is_named() {
        let code = |head: &str| judge(head.as_bytes(), "p:1").err().map(|b| b.code());
        assert_eq!(code("HTTP/1.1 200 Connection established\r\n\r\n"), None);
        assert_eq!(code("HTTP/1.0 403 Forbidden\r\n\r\n"), Some("proxy_refuses"));
        assert_eq!(code("HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"), Some("proxy_password"));
        let both = "HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
        assert_eq!(code(both), Some("proxy_scheme"));
        assert_eq!(code("SSH-2.0-x\r\n\r\n"), Some("proxy_garbled"));
    }
}
