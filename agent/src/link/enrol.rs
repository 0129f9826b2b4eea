//! Enrolment: one HTTPS POST, once in a computer's life.

use std::io;

use tram_wire::enrol::{EnrolRequest, EnrolResponse};
use tram_wire::token::{BadToken, EnrolToken};
use tram_wire::{ENROL_PATH, Refusal};

use super::http::{self, HttpError};
use super::time;
use super::tls::{self, Trust};
use crate::config::Address;

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
    let body = serde_json::to_vec(request).map_err(|e| EnrolError::Answer(e.to_string()))?;
    let request = http::Request { method: "POST", path: ENROL_PATH, bearer: None, body: &body };
    let mut answer = http::ask(to, config.clone(), &request).await;
    if let Err(HttpError::Connect(e)) = &answer
        && time::is_about_dates(e)
    {
        let trust = ca_pem.map_or_else(|| Trust::Token(token.clone()), |pem| Trust::Ca(pem.to_owned()));
        if time::ask(to, &trust, 0).await.is_ok() {
            answer = http::ask(to, config, &request).await;
        }
    }
    let answer = answer.map_err(|e| match e {
        HttpError::Connect(e) => connect_error(e),
        HttpError::Timeout => EnrolError::Timeout,
        HttpError::Garbled(what) => EnrolError::Answer(what),
    })?;
    read_answer(&answer)
}

fn connect_error(e: io::Error) -> EnrolError {
    let unknown_issuer = e
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)));
    if unknown_issuer { EnrolError::WrongController } else { EnrolError::Connect(e) }
}

fn read_answer(answer: &http::Answer) -> Result<EnrolResponse, EnrolError> {
    let garbled = |e: String| EnrolError::Answer(e);
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|e| garbled(e.to_string())),
        status => match serde_json::from_slice::<Refusal>(&answer.body) {
            Ok(refusal) => Err(refusal.into()),
            Err(_) => Err(garbled(format!("HTTP status {status}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str) -> Result<EnrolResponse, EnrolError> {
        read_answer(&http::parse(answer.as_bytes()).unwrap())
    }

    #[test]
    fn a_refusal_is_read_from_the_body() {
        let body = r#"{"code":"token"}"#;
        let answer = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert!(matches!(read(&answer), Err(EnrolError::Refused(Refusal::Token))));
    }

    #[test]
    fn another_answer_is_named() {
        let said = |answer: &str| read(answer).unwrap_err().to_string();
        assert!(said("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").contains("endpoint_id"));
        assert!(said("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno").contains("502"));
    }
}
