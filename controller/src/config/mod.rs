//! Configuration: one TOML file, every key with a default, `TRAM_<SECTION>_<KEY>` overrides.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::session::Policy;

mod gateway;
mod health;
mod limits;
mod notify;
mod runbooks;
mod sessions;
mod support;
mod updates;

pub use gateway::{Gateway, host_name};
pub use health::Health;

/// As used: complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Everything the controller keeps.
    pub data: PathBuf,
    /// Address for browsers and the API.
    pub listen: SocketAddr,
    /// Address for agents.
    pub agent_listen: SocketAddr,
    /// Where browsers reach the controller.
    pub public_url: String,
    /// Where agents reach it, as it stands in QR codes.
    pub agent_url: String,
    /// Domain browsers send the sign-in to, for gateways under other names; empty: the controller's name only.
    pub cookie_domain: String,
    /// What carries connections.
    pub gateway: Gateway,
    /// Database.
    pub database_url: String,
    /// Server certificate, key and authority.
    pub tls: crate::identity::tls::Files,
    /// Published golden images.
    pub image_dir: PathBuf,
    /// Desktops' overlay disks.
    pub disk_dir: PathBuf,
    /// How long sessions may last.
    pub sessions: Policy,
    /// Telephone of the helpdesk; empty: none is shown.
    pub support_phone: String,
    /// Office hours, and what the controller itself must reach.
    pub health: Health,
    /// Runbooks, and whose signatures count.
    pub runbooks: crate::identity::shelf::Shelf,
    /// How releases of the agent spread, and who may sign them.
    pub updates: (crate::domain::rings::Rings, crate::identity::releases::Signers),
    /// How mail, SMS and webhooks are sent.
    pub notify: crate::notify::Ways,
    /// `text` or `json`.
    pub log_format: String,
    /// Log level or filter.
    pub log_level: String,
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    server: Server,
    gateway: gateway::Written,
    database: Database,
    tls: Tls,
    images: Folder,
    disks: Folder,
    sessions: sessions::Sessions,
    limits: limits::Written,
    support: support::Support,
    health: health::Written,
    notify: notify::Written,
    runbooks: runbooks::Written,
    updates: updates::Written,
    log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Server {
    listen: Option<String>,
    agent_listen: Option<String>,
    public_url: Option<String>,
    agent_url: Option<String>,
    cookie_domain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Database {
    url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Folder {
    dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    format: Option<String>,
    level: Option<String>,
}

/// What is wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("the configuration file {0} can't be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// The file is not TOML, or has a key Tram does not know.
    #[error("the configuration file {path} has a fault:\n{fault}", path = .0.display(), fault = told(.1))]
    Parse(PathBuf, toml::de::Error),
    /// A value is out of range.
    #[error("{key} = {value:?} is wrong: {why}")]
    Value {
        /// Which key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        why: String,
    },
}

/// The fault with the line it is in; without the line where that is no line any more, as in a file of zeros after a power cut.
fn told(e: &toml::de::Error) -> String {
    let whole = e.to_string();
    if whole.len() <= 1000 { whole } else { e.message().chars().take(200).collect() }
}

impl Config {
    /// Reads the file (none: defaults), then `env` (a look-up of environment variables).
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn load(file: Option<&Path>, data: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Self::of(Written::default(), data, env) };
        let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.into(), e))?;
        Self::read(path, &text, data, env)
    }

    /// The same of what is, or will be, in this file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn read(
        file: &Path,
        text: &str,
        data: &Path,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::of(toml::from_str(text).map_err(|e| ConfigError::Parse(file.into(), e))?, data, env)
    }

    fn of(written: Written, data: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text =
            |key: &str, value: Option<String>, default: &str| env(key).or(value).unwrap_or_else(|| default.into());
        let path =
            |key: &str, value: Option<PathBuf>, default: PathBuf| env(key).map(Into::into).or(value).unwrap_or(default);
        let address = |key: &'static str, value: String| {
            value.parse::<SocketAddr>().map_err(|_| ConfigError::Value {
                key,
                why: "give an address and a port, such as 0.0.0.0:8443".into(),
                value,
            })
        };
        let listen = address("server.listen", text("TRAM_SERVER_LISTEN", written.server.listen, "127.0.0.1:8443"))?;
        let agent_listen = address(
            "server.agent_listen",
            text("TRAM_SERVER_AGENT_LISTEN", written.server.agent_listen, "127.0.0.1:8444"),
        )?;
        let public_url = text("TRAM_SERVER_PUBLIC_URL", written.server.public_url, &format!("https://{listen}"));
        let public_url = gateway::url("server.public_url", public_url)?;
        let agent_url = gateway::beside(&public_url, agent_listen.port());
        let agent_url = text("TRAM_SERVER_AGENT_URL", written.server.agent_url, &agent_url);
        let agent_url = gateway::url("server.agent_url", agent_url)?;
        let cookie_domain = text("TRAM_SERVER_COOKIE_DOMAIN", written.server.cookie_domain, "");
        let cookie_domain = gateway::cookie_domain(cookie_domain, &public_url)?;
        let usual = crate::identity::tls::Files::below(data);
        let log_format = text("TRAM_LOG_FORMAT", written.log.format, "text");
        if !["text", "json"].contains(&log_format.as_str()) {
            return Err(ConfigError::Value { key: "log.format", value: log_format, why: "give text or json".into() });
        }
        let default_db = format!("sqlite://{}", data.join("tram.db").display());
        Ok(Self {
            data: data.to_owned(),
            listen,
            agent_listen,
            gateway: written.gateway.gateway(&env, &public_url, &cookie_domain)?,
            public_url,
            agent_url,
            cookie_domain,
            database_url: text("TRAM_DATABASE_URL", written.database.url, &default_db),
            tls: crate::identity::tls::Files {
                ca: path("TRAM_TLS_CA", written.tls.ca, usual.ca),
                cert: path("TRAM_TLS_CERT", written.tls.cert, usual.cert),
                key: path("TRAM_TLS_KEY", written.tls.key, usual.key),
            },
            image_dir: path("TRAM_IMAGES_DIR", written.images.dir, data.join("images")),
            disk_dir: path("TRAM_DISKS_DIR", written.disks.dir, data.join("disks")),
            sessions: Policy { limits: written.limits.limits(&env)?, ..written.sessions.policy(&env)? },
            support_phone: written.support.phone(&env)?,
            health: written.health.health(&env)?,
            runbooks: written.runbooks.shelf(&env)?,
            updates: written.updates.updates(&env)?,
            notify: written.notify.ways()?,
            log_format,
            log_level: text("TRAM_LOG_LEVEL", written.log.level, "info"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tram.toml");
        std::fs::write(&file, text).unwrap();
        let get = |k: &str| env.iter().find(|(n, _)| *n == k).map(|(_, v)| (*v).to_owned());
        Config::load(Some(&file), Path::new("/data"), get)
    }

    #[test]
    fn defaults_stand_below_the_data_folder() {
        let c = load("", &[]).unwrap();
        assert_eq!(c.database_url, "sqlite:///data/tram.db");
        assert_eq!(c.public_url, "https://127.0.0.1:8443");
        assert_eq!(c.disk_dir, Path::new("/data/disks"));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let c = load("[server]\nlisten = \"0.0.0.0:1\"", &[("TRAM_SERVER_LISTEN", "0.0.0.0:2")]).unwrap();
        assert_eq!(c.listen.port(), 2);
    }

    #[test]
    fn sessions_last_as_long_as_written() {
        let c = load("[sessions]\ngrace_minutes = 5", &[("TRAM_SESSIONS_IDLE_MINUTES", "7")]).unwrap();
        assert_eq!((c.sessions.grace.as_secs(), c.sessions.idle.as_secs()), (300, 420));
        assert_eq!(c.sessions.grace_persistent, Policy::default().grace_persistent);
        assert_eq!(load("", &[("TRAM_SESSIONS_LEASE_MINUTES", "0")]).unwrap().sessions.lease.as_secs(), 0);
        for wrong in ["0", "-1", "9999999999"] {
            let e = load("", &[("TRAM_SESSIONS_GRACE_MINUTES", wrong)]).unwrap_err().to_string();
            assert!(e.contains("sessions.grace_minutes"), "{e}");
        }
    }

    #[test]
    fn lines_are_filled_as_far_as_written() {
        let c = load("[limits]\nsite_percent = 70", &[("TRAM_LIMITS_GATEWAY_KBIT", "200000")]).unwrap();
        assert_eq!((c.sessions.limits.site_percent, c.sessions.limits.gateway_kbit), (70, Some(200_000)));
        assert_eq!(load("", &[]).unwrap().sessions.limits, crate::domain::limits::Limits::default());
        for (key, wrong) in
            [("site_percent", "0"), ("site_percent", "101"), ("gateway_kbit", "1"), ("gateway_kbit", "-5")]
        {
            let e = load("", &[(&format!("TRAM_LIMITS_{}", key.to_uppercase()), wrong)]).unwrap_err().to_string();
            assert!(e.contains(&format!("limits.{key}")), "{e}");
        }
    }

    #[test]
    fn the_helpdesk_has_a_number_or_none() {
        assert_eq!(load("", &[]).unwrap().support_phone, "");
        assert_eq!(load("[support]\nphone = \"024 3825 3536\"", &[]).unwrap().support_phone, "024 3825 3536");
        let wrong = load("", &[("TRAM_SUPPORT_PHONE", "<b>call</b>")]).unwrap_err().to_string();
        assert!(wrong.contains("support.phone"), "{wrong}");
    }

    #[test]
    fn faults_name_the_key() {
        let unknown = load("[server]\nlissten = \"x\"", &[]).unwrap_err().to_string();
        assert!(unknown.contains("lissten"), "{unknown}");
        let bad = load("[server]\nlisten = \"here\"", &[]).unwrap_err().to_string();
        assert!(bad.contains("server.listen"), "{bad}");
        let url = load("[server]\npublic_url = \"http://x/\"", &[]).unwrap_err().to_string();
        assert!(url.contains("server.public_url"), "{url}");
    }
}
