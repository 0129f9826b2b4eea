//! `[gateway]`: what carries connections, inside the server and as a process of its own.

use std::net::SocketAddr;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::name;

/// As used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// `server` carries connections too.
    pub embedded: bool,
    /// Name of this gateway, one for each.
    pub name: String,
    /// Address for browsers.
    pub listen: SocketAddr,
    /// Address for endpoints' tunnels.
    pub agent_listen: SocketAddr,
    /// Where browsers reach it.
    pub public_url: String,
    /// Where endpoints reach it.
    pub agent_url: String,
    /// It stands on the controller's machine and reaches that one's libvirt; else only hosts with a node.
    pub local_hosts: bool,
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    embedded: Option<bool>,
    name: Option<String>,
    listen: Option<String>,
    agent_listen: Option<String>,
    public_url: Option<String>,
    agent_url: Option<String>,
    local_hosts: Option<bool>,
}

impl Written {
    pub(super) fn gateway(
        self,
        env: impl Fn(&str) -> Option<String>,
        server: &str,
        cookie_domain: &str,
    ) -> Result<Gateway, ConfigError> {
        let text = |key: &str, value: Option<String>, usual: String| env(key).or(value).unwrap_or(usual);
        let address = |key: &'static str, value: String| {
            value.parse::<SocketAddr>().map_err(|_| ConfigError::Value {
                key,
                why: "give an address and a port, such as 0.0.0.0:9443".into(),
                value,
            })
        };
        let switch = |key: &'static str, variable: &str, value: Option<bool>| match env(variable).as_deref() {
            None => Ok(value.unwrap_or(true)),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(ConfigError::Value { key, value: other.into(), why: "give true or false".into() }),
        };
        let gateway_name = text("TRAM_GATEWAY_NAME", self.name, host_name());
        name::check(&gateway_name).map_err(|why| ConfigError::Value {
            key: "gateway.name",
            value: gateway_name.clone(),
            why: why.to_string(),
        })?;
        let listen = text("TRAM_GATEWAY_LISTEN", self.listen, "127.0.0.1:9443".into());
        let listen = address("gateway.listen", listen)?;
        let agent_listen = text("TRAM_GATEWAY_AGENT_LISTEN", self.agent_listen, "127.0.0.1:9444".into());
        let agent_listen = address("gateway.agent_listen", agent_listen)?;
        let here = |port: u16| beside(server, port);
        let public_url = text("TRAM_GATEWAY_PUBLIC_URL", self.public_url, here(listen.port()));
        let public_url = url("gateway.public_url", public_url)?;
        let agent_url = text("TRAM_GATEWAY_AGENT_URL", self.agent_url, here(agent_listen.port()));
        let agent_url = url("gateway.agent_url", agent_url)?;
        let (own, theirs) = (host_of(&public_url), host_of(server));
        if own != theirs && !below(own, cookie_domain) {
            let why = format!(
                "browsers would not show their sign-in there: give another port of {theirs}, or a name below server.cookie_domain"
            );
            return Err(ConfigError::Value { key: "gateway.public_url", value: public_url, why });
        }
        Ok(Gateway {
            embedded: switch("gateway.embedded", "TRAM_GATEWAY_EMBEDDED", self.embedded)?,
            name: gateway_name,
            listen,
            agent_listen,
            public_url,
            agent_url,
            local_hosts: switch("gateway.local_hosts", "TRAM_GATEWAY_LOCAL_HOSTS", self.local_hosts)?,
        })
    }
}

/// The machine's name, as far as it may be a name here.
#[must_use]
pub fn host_name() -> String {
    let raw = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    let first = raw.split('.').next().unwrap_or_default().to_ascii_lowercase();
    if name::check(&first).is_ok() { first } else { "gateway".into() }
}

/// The name of an address, which its certificate is for, with another port.
pub(super) fn beside(url: &str, port: u16) -> String {
    match host_of(url) {
        v6 if v6.contains(':') => format!("https://[{v6}]:{port}"),
        host => format!("https://{host}:{port}"),
    }
}

/// An address for browsers or endpoints.
pub(super) fn url(key: &'static str, value: String) -> Result<String, ConfigError> {
    let rest = value.strip_prefix("https://").unwrap_or_default();
    let fine = !rest.is_empty() && rest.len() <= 270 && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if fine {
        return Ok(value);
    }
    Err(ConfigError::Value { key, value, why: "give https://NAME[:PORT] without a slash at the end".into() })
}

/// The domain of the sign-in: the controller's own name, or one above it.
pub(super) fn cookie_domain(value: String, server: &str) -> Result<String, ConfigError> {
    let plain = value.split('.').all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    if value.is_empty() || plain && value.contains('.') && below(host_of(server), &value) {
        return Ok(value);
    }
    let why = format!("give the name in server.public_url, {}, or a domain above it", host_of(server));
    Err(ConfigError::Value { key: "server.cookie_domain", value, why })
}

fn host_of(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => rest.split(':').next().unwrap_or_default(),
    }
}

fn below(host: &str, domain: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>().is_ok();
    !domain.is_empty() && !address && (host == domain || host.strip_suffix(domain).is_some_and(|h| h.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, server: &str, domain: &str) -> Result<Gateway, String> {
        let domain = cookie_domain(domain.into(), server).map_err(|e| e.to_string())?;
        let written: Written = toml::from_str(text).map_err(|e| e.to_string())?;
        written.gateway(|_| None, server, &domain).map_err(|e| e.to_string())
    }

    #[test]
    fn a_gateway_stands_where_the_sign_in_reaches() {
        let server = "https://tram.hanoi.example:8443";
        let at = |name: &str| format!("public_url = \"https://{name}\"");
        assert!(read(&at("tram.hanoi.example:9443"), server, "").is_ok(), "another port of the same name");
        assert!(read(&at("gw1.hanoi.example"), server, "").unwrap_err().contains("gateway.public_url"));
        assert!(read(&at("gw1.hanoi.example"), server, "hanoi.example").is_ok());
        for stranger in ["gw1.evil.example", "xhanoi.example", "10.0.0.7"] {
            assert!(read(&at(stranger), server, "hanoi.example").is_err(), "{stranger}");
        }
        for domain in ["example.org", "example", "hanoi.example; Path=/x", ".example", "10.0.0.1"] {
            assert!(read(&at("tram.hanoi.example"), server, domain).is_err(), "{domain}");
        }
        assert!(read("", "https://127.0.0.1:8443", "").is_ok(), "all on one machine");
    }

    #[test]
    fn faults_name_the_key() {
        for (text, key) in [
            ("listen = \"here\"", "gateway.listen"),
            ("name = \"a b\"", "gateway.name"),
            ("agent_url = \"http://x\"", "gateway.agent_url"),
            ("agent_url = \"https://x/\"", "gateway.agent_url"),
            ("embeded = true", "embeded"),
        ] {
            let said = read(text, "https://127.0.0.1:8443", "").unwrap_err();
            assert!(said.contains(key), "{text}: {said}");
        }
    }
}
