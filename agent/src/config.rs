//! The configuration file as written, and what it means.
//!
//! Every key has a default; an absent file is an empty one. A key this version doesn't know is a fault,
//! because a misspelt limit that does nothing is worse than an agent that says so.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tram_wire::diagnosis::ANSWER_S;

/// Where the file is looked for unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/tram/agent.toml";

/// Where identity and status are kept unless told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/tram-agent";

/// What stands there is never done for a controller: an action, a class or a bundle a line, or `all`.
pub const DEFAULT_DENY: &str = "/etc/tram/deny";

/// A validated configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Folder of identity and status.
    pub state: PathBuf,
    /// Share of a disk that should be free: warn, crit.
    pub disk_free_percent: (u64, u64),
    /// Share of memory that should be available: warn, crit.
    pub memory_free_percent: (u64, u64),
    /// Degrees where a sensor names no limit: warn, crit.
    pub celsius: (f32, f32),
    /// What `tram-agent desk` works with.
    pub desk: Desk,
    /// What remote diagnosis may not do here.
    pub deny: PathBuf,
    /// How long the officer has to answer before it is a no.
    pub answer: Duration,
    /// Where those listen that may do more than the agent.
    pub helpers: PathBuf,
    /// Where this computer's key is made.
    pub key: TpmSettings,
    /// How the controller is reached; absent: as the environment says.
    pub proxy: Option<Proxy>,
    /// How often the better way is tried again, where no WebSocket got through or TLS was opened on the way.
    pub upgrade_again: Duration,
    /// What becomes of the link where somebody opens TLS on the way.
    pub intercepted: Intercepted,
}

/// What becomes of the link where somebody opens TLS on the way to the controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intercepted {
    /// There is none: nothing is told to whoever it is.
    #[default]
    Refuse,
    /// Requests that are signed at both ends carry it. Whoever opens TLS can read this computer's reports.
    Signed,
}

/// Whether the key is in a TPM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TpmUse {
    /// If there is one that can be used; else in a file.
    #[default]
    Auto,
    /// There, or nowhere.
    Required,
    /// In a file.
    Off,
}

/// Where this computer's key is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSettings {
    /// Whether it is in a TPM.
    pub tpm: TpmUse,
    /// How the TPM is reached, as `tpm2-tools` name it.
    pub tcti: String,
}

/// The kernel's resource manager: programs don't see what others load.
const TCTI: &str = "device:/dev/tpmrm0";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct KeyFile {
    tpm: TpmUse,
    tcti: Option<String>,
}

impl KeyFile {
    fn validate(self) -> Result<TpmSettings, ConfigError> {
        let tcti = self.tcti.unwrap_or_else(|| TCTI.to_owned());
        if tcti.is_empty() || tcti.starts_with('-') || tcti.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(ConfigError::value("key.tcti", "write it as tpm2-tools name it, such as device:/dev/tpmrm0"));
        }
        Ok(TpmSettings { tpm: self.tpm, tcti })
    }
}

/// A proxy on the way to the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// `http://name:port`; absent: straight, whatever the environment says.
    pub url: Option<String>,
    /// Its name for us.
    pub user: Option<String>,
    /// The file with the password.
    pub password_file: Option<PathBuf>,
    /// Hosts, domains and networks that are reached straight.
    pub not_for: Vec<String>,
}

/// The screen of an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Desk {
    /// Kiosk browser with its arguments; empty: none is started.
    pub browser: Vec<String>,
    /// `remote-viewer`.
    pub remote_viewer: PathBuf,
    /// TigerVNC's viewer.
    pub vnc_viewer: PathBuf,
    /// Gateways to try after those the controller names; the controller's own address comes last.
    pub gateways: Vec<Address>,
    /// Port of the page on the loopback interface; 0: any.
    pub port: u16,
}

/// A browser that shows one page and nothing else.
const BROWSER: [&str; 14] = [
    "/usr/bin/chromium",
    "--kiosk",
    "--incognito",
    "--no-first-run",
    "--noerrdialogs",
    "--disable-session-crashed-bubble",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--disable-background-networking",
    // A slow computer needs more than the usual 15 seconds; parts that gave up leave the page grey.
    "--ipc-connection-timeout=120",
    "--disable-component-update",
    "--disable-sync",
    "--disable-domain-reliability",
    "--disable-breakpad",
    // The page is on this computer: its browser finds no other, and asks nobody.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    state: Option<PathBuf>,
    checks: Checks,
    desk: DeskFile,
    diagnosis: DiagnosisFile,
    key: KeyFile,
    proxy: Option<ProxyFile>,
    link: LinkFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LinkFile {
    upgrade_again_s: Option<u64>,
    intercepted: Intercepted,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DiagnosisFile {
    deny: Option<PathBuf>,
    answer_s: Option<u16>,
    helpers: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProxyFile {
    url: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    not_for: Vec<String>,
}

impl ProxyFile {
    fn validate(self) -> Result<Proxy, ConfigError> {
        let fault = |key, why| Err(ConfigError::value(key, why));
        if self.url.as_ref().is_some_and(|u| !u.starts_with("http://") || u.contains('@')) {
            return fault("proxy.url", "write http://name:port; name and password have keys of their own");
        }
        if self.user.is_some() != self.password_file.is_some() {
            return fault("proxy.user", "write user and password_file together");
        }
        if self.password_file.as_ref().is_some_and(|p| !p.is_absolute()) {
            return fault("proxy.password_file", "write the whole path, from /");
        }
        let Self { url, user, password_file, not_for } = self;
        Ok(Proxy { url, user, password_file, not_for })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DeskFile {
    browser: Option<Vec<String>>,
    remote_viewer: Option<PathBuf>,
    vnc_viewer: Option<PathBuf>,
    gateways: Vec<String>,
    port: u16,
}

/// A path from the root, or the usual one.
///
/// # Errors
/// [`ConfigError::Value`].
pub fn absolute(key: &'static str, path: Option<PathBuf>, usual: &str) -> Result<PathBuf, ConfigError> {
    match path {
        None => Ok(PathBuf::from(usual)),
        Some(path) if path.is_absolute() => Ok(path),
        Some(_) => Err(ConfigError::value(key, "write the whole path, from /")),
    }
}

impl DeskFile {
    fn validate(self) -> Result<Desk, ConfigError> {
        let browser = self.browser.unwrap_or_else(|| BROWSER.map(str::to_owned).to_vec());
        if browser.first().is_some_and(|program| !program.starts_with('/')) {
            return Err(ConfigError::value("desk.browser", "write the program's whole path, from /"));
        }
        Ok(Desk {
            browser,
            remote_viewer: absolute("desk.remote_viewer", self.remote_viewer, "/usr/bin/remote-viewer")?,
            vnc_viewer: absolute("desk.vnc_viewer", self.vnc_viewer, "/usr/bin/xtigervncviewer")?,
            gateways: self.gateways.iter().map(|g| g.parse()).collect::<Result<_, _>>()?,
            port: self.port,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Checks {
    disk_free_percent: Option<[u64; 2]>,
    memory_free_percent: Option<[u64; 2]>,
    celsius: Option<[f32; 2]>,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{0} can't be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file isn't TOML, or has a key or value we don't know.
    #[error("{path}: {fault}", path = .0.display(), fault = told(.1))]
    Parse(PathBuf, toml::de::Error),
    /// A value makes no sense.
    #[error("{key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        why: Cow<'static, str>,
    },
    /// The controller's address.
    #[error("`{0}` is not a controller address; write https://name:port")]
    Address(String),
}

/// The fault with the line it is in; without the line where that is no line any more, as in a file of zeros after a power cut.
fn told(e: &toml::de::Error) -> String {
    let whole = e.to_string();
    if whole.len() <= 1000 { whole } else { e.message().chars().take(200).collect() }
}

impl ConfigError {
    /// A value that makes no sense.
    pub fn value(key: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Value { key, why: why.into() }
    }
}

/// A file as it is written. Without `file` it is `usual`, and nothing is written if that is not there.
///
/// # Errors
/// [`ConfigError`].
pub fn read<F: DeserializeOwned + Default>(file: Option<&Path>, usual: &str) -> Result<F, ConfigError> {
    let path = file.unwrap_or(Path::new(usual));
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|e| ConfigError::Parse(path.into(), e)),
        Err(e) if file.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(F::default()),
        Err(e) => Err(ConfigError::Read(path.into(), e)),
    }
}

impl Config {
    /// Reads and validates. Without `file` the default one is read if it exists.
    pub fn load(file: Option<&Path>, state: Option<&Path>) -> Result<Self, ConfigError> {
        Self::validate(read(file, DEFAULT_FILE)?, state)
    }

    fn validate(file: File, state: Option<&Path>) -> Result<Self, ConfigError> {
        let falling = |key, value: Option<[u64; 2]>, default| match value {
            None => Ok(default),
            Some([warn, crit]) if crit <= warn && warn < 100 => Ok((warn, crit)),
            Some(_) => Err(ConfigError::value(key, "write [warn, crit] in per cent, the second not larger")),
        };
        let celsius = match file.checks.celsius {
            None => (85.0, 95.0),
            Some([warn, crit]) if 0.0 < warn && warn <= crit && crit < 150.0 => (warn, crit),
            Some(_) => {
                let why = "write [warn, crit] in degrees, the second not smaller";
                return Err(ConfigError::value("checks.celsius", why));
            }
        };
        Ok(Self {
            state: state.map(Path::to_path_buf).or(file.state).unwrap_or_else(|| DEFAULT_STATE.into()),
            disk_free_percent: falling("checks.disk_free_percent", file.checks.disk_free_percent, (10, 3))?,
            memory_free_percent: falling("checks.memory_free_percent", file.checks.memory_free_percent, (10, 4))?,
            celsius,
            desk: file.desk.validate()?,
            deny: absolute("diagnosis.deny", file.diagnosis.deny, DEFAULT_DENY)?,
            answer: match file.diagnosis.answer_s.unwrap_or(ANSWER_S) {
                // The controller waits no longer than that.
                s @ 1..=ANSWER_S => Duration::from_secs(s.into()),
                _ => return Err(ConfigError::value("diagnosis.answer_s", "write 1 to 30 seconds")),
            },
            helpers: absolute("diagnosis.helpers", file.diagnosis.helpers, tram_wire::helper::FOLDER)?,
            key: file.key.validate()?,
            proxy: file.proxy.map(ProxyFile::validate).transpose()?,
            intercepted: file.link.intercepted,
            upgrade_again: match file.link.upgrade_again_s {
                None => Duration::from_secs(1800),
                Some(s @ 1..=86_400) => Duration::from_secs(s),
                Some(_) => {
                    return Err(ConfigError::value("link.upgrade_again_s", "write 1 to 86400 seconds"));
                }
            },
        })
    }
}

/// Host and port of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = ConfigError;

    fn from_str(s: &str) -> Result<Self, ConfigError> {
        parse_address(s).ok_or_else(|| ConfigError::Address(s.chars().take(200).collect()))
    }
}

fn parse_address(s: &str) -> Option<Address> {
    let rest = s.strip_prefix("https://")?.trim_end_matches('/');
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, tail) = v6.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if tail.is_empty() { "443" } else { tail.strip_prefix(':')? })
        }
        None => rest.split_once(':').unwrap_or((rest, "443")),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
    if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
        return None;
    }
    Some(Address { host: host.to_owned(), port: port.parse().ok().filter(|p| *p > 0)? })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let file = toml::from_str(text).map_err(|e| e.to_string())?;
        Config::validate(file, None).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let c = parse("").unwrap();
        assert_eq!((c.state.to_str(), c.disk_free_percent), (Some(DEFAULT_STATE), (10, 3)));
        assert_eq!(c.desk.remote_viewer.to_str(), Some("/usr/bin/remote-viewer"));
        assert_eq!(parse("[desk]\nbrowser = []").unwrap().desk.browser, [""; 0]);
        assert_eq!(c.intercepted, Intercepted::Refuse);
        assert_eq!(parse("[link]\nintercepted = \"signed\"").unwrap().intercepted, Intercepted::Signed);
    }

    #[test]
    fn values_are_read_and_nonsense_is_named() {
        let c = parse("state = \"/x\"\n[checks]\ndisk_free_percent = [20, 5]\ncelsius = [70, 80]").unwrap();
        assert_eq!((c.state.to_str(), c.disk_free_percent, c.celsius), (Some("/x"), (20, 5), (70.0, 80.0)));
        for (bad, names) in [
            ("[checks]\ndisk_free_percent = [5, 20]", "disk_free_percent"),
            ("[checks]\ncelsius = [90, 80]", "celsius"),
            ("[checks]\ndisc = 1", "disc"),
            ("state = 5", "state"),
            ("[desk]\nbrowser = [\"chromium\"]", "desk.browser"),
            ("[desk]\nremote_viewer = \"viewer\"", "desk.remote_viewer"),
            ("[diagnosis]\ndeny = \"deny\"", "diagnosis.deny"),
            ("[diagnosis]\nhelpers = \"run\"", "diagnosis.helpers"),
            ("[diagnosis]\nanswer_s = 31", "diagnosis.answer_s"),
            ("[desk]\ngateways = [\"gw1\"]", "gw1"),
            ("[key]\ntpm = \"maybe\"", "tpm"),
            ("[key]\ntcti = \"-x\"", "key.tcti"),
            ("[link]\nintercepted = \"allow\"", "intercepted"),
            ("[link]\nupgrade_again_s = 0", "link.upgrade_again_s"),
            ("[proxy]\nurl = \"http://a:b@p:1\"", "proxy.url"),
            ("[proxy]\nurl = \"http://p:1\"\nuser = \"a\"", "proxy.user"),
            ("[proxy]\nuser = \"a\"\npassword_file = \"x\"", "proxy.password_file"),
        ] {
            assert!(parse(bad).unwrap_err().contains(names), "{bad}");
        }
    }

    #[test]
    fn a_file_of_zeros_is_told_of_in_a_sentence() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0; 100_000]).unwrap();
        let said = Config::load(Some(file.path()), None).unwrap_err().to_string();
        assert!(said.len() < 500, "{} bytes", said.len());
        std::fs::write(file.path(), "heartbeat = 5\n").unwrap();
        let said = Config::load(Some(file.path()), None).unwrap_err().to_string();
        assert!(said.contains("line 1") && said.contains("heartbeat"), "{said}");
    }

    #[test]
    fn addresses() {
        for (text, host, port) in [
            ("https://127.0.0.1:8444", "127.0.0.1", 8444),
            ("https://tram.example/", "tram.example", 443),
            ("https://[::1]:8444", "::1", 8444),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), Address { host: host.into(), port });
        }
        assert_eq!("https://[::1]:8444".parse::<Address>().unwrap().to_string(), "https://[::1]:8444");
        for bad in [
            "",
            "http://x:1",
            "https://",
            "https://x:0",
            "https://x:99999",
            "https://a b",
            "https://x/y",
            "https://[x]:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
