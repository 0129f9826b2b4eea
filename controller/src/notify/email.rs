//! Mail, over SMTP.

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::{NotifyError, Smtp, SmtpTls};
use crate::domain::notify;

pub(super) async fn send(smtp: &Smtp, target: &str, message: &notify::Message) -> Result<(), NotifyError> {
    let mailbox = |text: &str| {
        text.parse::<Mailbox>().map_err(|e| NotifyError::Permanent(format!("{text} is no mail address: {e}")))
    };
    let builder: MessageBuilder = Message::builder().from(mailbox(&smtp.from)?).to(mailbox(target)?);
    let mail = builder
        .subject(&message.subject)
        .header(ContentType::TEXT_PLAIN)
        .body(message.text.clone())
        .map_err(|e| NotifyError::Permanent(e.to_string()))?;
    let tls = || TlsParameters::new(smtp.host.clone()).map_err(|e| NotifyError::Permanent(e.to_string()));
    let tls = match smtp.tls {
        SmtpTls::None => Tls::None,
        SmtpTls::Required => Tls::Required(tls()?),
        SmtpTls::Wrapped => Tls::Wrapper(tls()?),
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host).port(smtp.port).tls(tls);
    if let Some((user, password)) = &smtp.login {
        transport = transport.credentials(Credentials::new(user.clone(), super::secret(password)?));
    }
    match transport.build().send(mail).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_permanent() => Err(NotifyError::Permanent(format!("the mail server refuses it: {e}"))),
        Err(e) => Err(NotifyError::Retry(format!("the mail server did not take it: {e}"))),
    }
}
