//! `[notify]`: how mail, SMS and webhooks are sent. Secrets stand in files of their own.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use crate::notify::{Sms, Smtp, SmtpTls, Ways};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    smtp: Option<WrittenSmtp>,
    sms: Option<WrittenSms>,
    webhook_secret_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSmtp {
    host: String,
    port: Option<u16>,
    tls: Option<String>,
    from: String,
    user: Option<String>,
    password_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
enum WrittenSms {
    Smpp { server: String, system_id: String, password_file: PathBuf, from: String },
    Http { url: String, token_file: Option<PathBuf>, from: String },
}

impl Written {
    pub(super) fn ways(&self) -> Result<Ways, ConfigError> {
        let wrong = |key, value: &str, why: &str| ConfigError::Value { key, value: value.into(), why: why.into() };
        let smtp = match &self.smtp {
            None => None,
            Some(s) => {
                let tls = match s.tls.as_deref().unwrap_or("starttls") {
                    "none" => SmtpTls::None,
                    "starttls" => SmtpTls::Required,
                    "tls" => SmtpTls::Wrapped,
                    other => return Err(wrong("notify.smtp.tls", other, "give none, starttls or tls")),
                };
                if !s.from.contains('@') {
                    return Err(wrong("notify.smtp.from", &s.from, "give a mail address"));
                }
                let login = match (&s.user, &s.password_file) {
                    (Some(user), Some(file)) => Some((user.clone(), file.clone())),
                    (None, None) => None,
                    _ => return Err(wrong("notify.smtp.user", "", "give user and password_file, or neither")),
                };
                let usual = if tls == SmtpTls::Wrapped { 465 } else { 587 };
                Some(Smtp { host: s.host.clone(), port: s.port.unwrap_or(usual), tls, from: s.from.clone(), login })
            }
        };
        let sms = match &self.sms {
            None => None,
            Some(WrittenSms::Smpp { server, system_id, password_file, from }) => {
                if !server.contains(':') {
                    return Err(wrong("notify.sms.server", server, "give name and port, such as smsc.example:2775"));
                }
                Some(Sms::Smpp {
                    server: server.clone(),
                    system_id: system_id.clone(),
                    password: password_file.clone(),
                    from: from.clone(),
                })
            }
            Some(WrittenSms::Http { url, token_file, from }) => {
                if !url.starts_with("https://") && !url.starts_with("http://127.0.0.1") {
                    return Err(wrong("notify.sms.url", url, "give an address that begins with https://"));
                }
                Some(Sms::Http { url: url.clone(), token: token_file.clone(), from: from.clone() })
            }
        };
        Ok(Ways { smtp, sms, webhook_secret: self.webhook_secret_file.clone(), ca: self.ca.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(toml: &str) -> Result<Ways, ConfigError> {
        toml::from_str::<Written>(toml).unwrap().ways()
    }

    #[test]
    fn ways_are_read_and_faults_named() {
        let good = ways("[smtp]\nhost = \"mail\"\nfrom = \"tram@x.vn\"\n[sms]\nkind = \"smpp\"\nserver = \"smsc:2775\"\nsystem_id = \"tram\"\npassword_file = \"/p\"\nfrom = \"TRAM\"").unwrap();
        assert_eq!(good.smtp.as_ref().map(|s| (s.port, s.tls)), Some((587, SmtpTls::Required)));
        assert!(good.sms.is_some());
        assert_eq!(ways("").unwrap(), Ways::default());
        for (bad, key) in [
            ("[smtp]\nhost = \"m\"\nfrom = \"tram\"", "notify.smtp.from"),
            ("[smtp]\nhost = \"m\"\nfrom = \"a@b\"\ntls = \"ssl\"", "notify.smtp.tls"),
            ("[smtp]\nhost = \"m\"\nfrom = \"a@b\"\nuser = \"u\"", "notify.smtp.user"),
            ("[sms]\nkind = \"http\"\nurl = \"http://sms.example\"\nfrom = \"T\"", "notify.sms.url"),
        ] {
            assert!(ways(bad).unwrap_err().to_string().contains(key), "{bad}");
        }
    }
}
