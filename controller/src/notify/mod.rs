//! Floor 2: ways to somebody outside: mail, SMS, webhook. Each sends one message to one target and says
//! whether trying again may help.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::notify::{Channel, Message};

mod email;
mod http;
mod smpp;

/// How long one message may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why a message did not go out.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Trying again may help.
    #[error("{0}")]
    Retry(String),
    /// It never will: the target or the configuration is wrong.
    #[error("{0}")]
    Permanent(String),
}

/// How the ways are reached; what is `None` is not configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// A mail server.
    pub smtp: Option<Smtp>,
    /// An SMS centre or an SMS gateway.
    pub sms: Option<Sms>,
    /// Signs what webhooks get; without it they get nothing signed.
    pub webhook_secret: Option<PathBuf>,
    /// Certificates that webhooks and SMS gateways may show besides the public ones.
    pub ca: Option<PathBuf>,
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// In the clear: for a server on this machine.
    None,
    /// STARTTLS, or nothing is sent.
    Required,
    /// TLS from the first byte.
    Wrapped,
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub tls: SmtpTls,
    /// Who the mail is from.
    pub from: String,
    /// Account, and the file with its password.
    pub login: Option<(String, PathBuf)>,
}

/// A way for SMS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sms {
    /// An SMS centre that speaks SMPP.
    Smpp {
        /// Name and port.
        server: String,
        /// Account.
        system_id: String,
        /// File with its password.
        password: PathBuf,
        /// What phones show as sender.
        from: String,
    },
    /// A gateway that takes a POST with `{"to", "text", "from"}`.
    Http {
        /// Its address.
        url: String,
        /// File with the bearer token, if it wants one.
        token: Option<PathBuf>,
        /// What phones show as sender.
        from: String,
    },
}

impl Ways {
    /// Whether a channel is configured.
    #[must_use]
    pub fn has(&self, channel: Channel) -> bool {
        match channel {
            Channel::Email => self.smtp.is_some(),
            Channel::Sms => self.sms.is_some(),
            Channel::Webhook => true,
        }
    }

    /// Sends one message. `event` is what programs get.
    ///
    /// # Errors
    /// [`NotifyError`], with what the other side said.
    pub async fn send(
        &self,
        channel: Channel,
        target: &str,
        message: &Message,
        event: &serde_json::Value,
    ) -> Result<(), NotifyError> {
        let sending = async {
            match (channel, &self.smtp, &self.sms) {
                (Channel::Email, Some(smtp), _) => email::send(smtp, target, message).await,
                (Channel::Sms, _, Some(Sms::Smpp { server, system_id, password, from })) => {
                    smpp::send(server, system_id, &secret(password)?, from, target, &message.sms).await
                }
                (Channel::Sms, _, Some(Sms::Http { url, token, from })) => {
                    let token = token.as_deref().map(secret).transpose()?;
                    let body = serde_json::json!({"to": target, "text": message.sms, "from": from});
                    http::post(url, &body, token.as_deref(), None, self.ca.as_deref()).await
                }
                (Channel::Webhook, ..) => {
                    let key = self.webhook_secret.as_deref().map(secret).transpose()?;
                    http::post(target, event, None, key.as_deref(), self.ca.as_deref()).await
                }
                (Channel::Email | Channel::Sms, ..) => {
                    Err(NotifyError::Permanent(format!("{channel} is not configured in [notify]")))
                }
            }
        };
        match tokio::time::timeout(PATIENCE, sending).await {
            Ok(done) => done,
            Err(_) => Err(NotifyError::Retry(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }
}

/// Reads a secret from its file, without the newline editors leave.
fn secret(file: &std::path::Path) -> Result<String, NotifyError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| NotifyError::Retry(format!("the secret in {} can't be read: {e}", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
