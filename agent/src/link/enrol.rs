//! Enrolment: one HTTPS POST, once in a computer's life.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tram_wire::enrol::{EnrolRequest, EnrolResponse};
use tram_wire::token::{BadToken, EnrolToken};
use tram_wire::{ENROL_PATH, Refusal, SERVER_NAME};

use super::tls;
use crate::config::Address;

const DEADLINE: Duration = Duration::from_secs(30);
const MAX_ANSWER: u64 = 64 * 1024;

/// Why enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Not a token.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The token has no pin and no CA file was given.
    #[error("this token doesn't name the controller's CA; give its file with --ca")]
    NoTrust,
    /// No connection, or no proof of the controller.
    #[error("{0}")]
    Connect(io::Error),
    /// The server proved another CA than the token names.
    #[error(
        "the server is not the controller that issued this token (its certificate chain doesn't end in the CA the token names); the token was not sent"
    )]
    WrongController,
    /// No answer in time.
    #[error("no answer within 30 s")]
    Timeout,
    /// It answered something else.
    #[error("the controller's answer made no sense: {0}")]
    Answer(String),
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Shows the token and the request to the controller, which answers with an identity.
pub async fn enrol(to: &Address, request: &EnrolRequest, ca_pem: Option<&str>) -> Result<EnrolResponse, EnrolError> {
    let token: EnrolToken = request.token.parse()?;
    if ca_pem.is_none() && token.pins(&[0; 32]).is_none() {
        return Err(EnrolError::NoTrust);
    }
    let config = tls::enrol(&token, ca_pem).map_err(EnrolError::Connect)?;
    let answer = timeout(DEADLINE, async {
        let mut stream = tls::connect(to, config).await.map_err(connect_error)?;
        let body = serde_json::to_string(request).map_err(|e| EnrolError::Answer(e.to_string()))?;
        let head = format!(
            "POST {ENROL_PATH} HTTP/1.1\r\nhost: {SERVER_NAME}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.map_err(EnrolError::Connect)?;
        stream.write_all(body.as_bytes()).await.map_err(EnrolError::Connect)?;
        stream.flush().await.map_err(EnrolError::Connect)?;
        let mut answer = Vec::new();
        match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
            // Closing without TLS's farewell is common; the length says whether the answer is whole.
            Ok(_) => Ok(answer),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(answer),
            Err(e) => Err(EnrolError::Connect(e)),
        }
    })
    .await
    .map_err(|_| EnrolError::Timeout)??;
    read_answer(&answer)
}

fn connect_error(e: io::Error) -> EnrolError {
    let unknown_issuer = e
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)));
    if unknown_issuer { EnrolError::WrongController } else { EnrolError::Connect(e) }
}

fn read_answer(answer: &[u8]) -> Result<EnrolResponse, EnrolError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let garbled = |what: &str| EnrolError::Answer(what.to_owned());
    let head = match response.parse(answer) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Err(garbled("it ended early")),
        Err(e) => return Err(garbled(&format!("not HTTP: {e}"))),
    };
    let length = response
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"))
        .and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok())
        .ok_or_else(|| garbled("it has no length"))?;
    let body = answer.get(head..head.saturating_add(length)).ok_or_else(|| garbled("it ended early"))?;
    match response.code {
        Some(200) => serde_json::from_slice(body).map_err(|e| garbled(&e.to_string())),
        Some(status) => match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(garbled(&format!("HTTP status {status}"))),
        },
        None => Err(garbled("it has no status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: &str) -> String {
        read_answer(answer.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_is_read_from_the_body() {
        let body = r#"{"code":"token"}"#;
        let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert!(matches!(read_answer(answer.as_bytes()), Err(EnrolError::Refused(Refusal::Token))));
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        assert!(said("HTTP/1.1 200 OK\r\nconte").contains("ended early"));
        assert!(said("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}").contains("ended early"));
        assert!(said("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").contains("endpoint_id"));
        assert!(said("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno").contains("502"));
        assert!(said("SSH-2.0-OpenSSH\r\n").contains("not HTTP"));
    }
}
