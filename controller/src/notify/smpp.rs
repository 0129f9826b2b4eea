//! SMS through an SMS centre (*tổng đài nhắn tin*), over SMPP.

use std::str::FromStr;
use std::time::Duration;

use rusmpp::pdus::{BindTransmitter, SubmitSm};
use rusmpp::types::{COctetString, OctetString};
use rusmpp::values::{Npi, RegisteredDelivery, Ton};
use rusmppc::ConnectionBuilder;
use rusmppc::error::Error;

use super::NotifyError;

/// How long the centre may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) async fn send(
    server: &str,
    system_id: &str,
    password: &str,
    from: &str,
    to: &str,
    text: &str,
) -> Result<(), NotifyError> {
    let wrong = |what: &str| NotifyError::Permanent(format!("{what} does not fit into SMPP"));
    let bind = BindTransmitter::builder()
        .system_id(COctetString::from_str(system_id).map_err(|_| wrong("sms.system_id"))?)
        .password(COctetString::from_str(password).map_err(|_| wrong("the password (8 characters at most)"))?)
        .build();
    // A name as sender is told apart from a number by its type.
    let named = from.bytes().any(|b| b.is_ascii_alphabetic());
    let submit = SubmitSm::builder()
        .source_addr_ton(if named { Ton::Alphanumeric } else { Ton::Unknown })
        .source_addr_npi(Npi::Unknown)
        .source_addr(COctetString::from_str(from).map_err(|_| wrong("sms.from"))?)
        .dest_addr_ton(Ton::International)
        .dest_addr_npi(Npi::Isdn)
        .destination_addr(COctetString::from_str(to.trim_start_matches('+')).map_err(|_| wrong("the number"))?)
        .registered_delivery(RegisteredDelivery::default())
        .short_message(OctetString::from_str(text).map_err(|_| wrong("the text"))?)
        .build();
    // Events are deliveries and background errors; a request's own error comes back from it.
    let (client, _events) = ConnectionBuilder::new()
        .response_timeout(ANSWER)
        .connect(format!("smpp://{server}"))
        .await
        .map_err(|e| NotifyError::Retry(format!("the SMS centre can't be reached: {e}")))?;
    let sent = async {
        client.bind_transmitter(bind).await.map_err(|e| refused("signing in", &e))?;
        client.submit_sm(submit).await.map_err(|e| refused("the message", &e))?;
        Ok(())
    }
    .await;
    // What was answered is answered; how the line ends changes nothing.
    let _ = client.unbind().await;
    let _ = client.close().await;
    sent
}

fn refused(what: &str, e: &Error) -> NotifyError {
    NotifyError::Retry(format!("the SMS centre refuses {what}: {e}"))
}
