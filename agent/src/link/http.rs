//! One HTTPS request to the controller: a connection each, because there are few of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tram_wire::SERVER_NAME;

use super::tls;
use crate::config::Address;

const DEADLINE: Duration = Duration::from_secs(30);
const MAX_ANSWER: u64 = 64 * 1024;

/// What is asked.
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Below the controller's address.
    pub path: &'static str,
    /// For `Authorization: Bearer`.
    pub bearer: Option<&'a str>,
    /// JSON.
    pub body: &'a [u8],
}

/// An answer, whatever its status.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, or no proof of the controller.
    #[error("{0}")]
    Connect(io::Error),
    /// No answer in time.
    #[error("no answer within 30 s")]
    Timeout,
    /// It answered something else.
    #[error("the controller's answer made no sense: {0}")]
    Garbled(String),
}

/// Asks once.
///
/// # Errors
/// [`HttpError`]; a status that says no is an answer.
pub async fn ask(to: &Address, config: Arc<ClientConfig>, request: &Request<'_>) -> Result<Answer, HttpError> {
    let Request { method, path, body, .. } = request;
    // What goes into a line of the head must not end that line.
    let bearer = match request.bearer {
        Some(token) if token.bytes().all(|b| b.is_ascii_graphic()) => format!("authorization: Bearer {token}\r\n"),
        Some(_) => return Err(HttpError::Garbled("the token is no token".to_owned())),
        None => String::new(),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {SERVER_NAME}\r\n{bearer}content-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let bytes = timeout(DEADLINE, async {
        let mut stream = tls::connect(to, config).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        match stream.take(MAX_ANSWER).read_to_end(&mut answer).await {
            // Closing without TLS's farewell is common; the length says whether the answer is whole.
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
            _ => Ok(answer),
        }
    });
    parse(&bytes.await.map_err(|_| HttpError::Timeout)?.map_err(HttpError::Connect)?)
}

/// Reads a whole answer.
pub(super) fn parse(answer: &[u8]) -> Result<Answer, HttpError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let garbled = |what: &str| HttpError::Garbled(what.to_owned());
    let head = match response.parse(answer) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Err(garbled("it ended early")),
        Err(e) => return Err(garbled(&format!("not HTTP: {e}"))),
    };
    let status = response.code.ok_or_else(|| garbled("it has no status"))?;
    let length = response
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"))
        .and_then(|h| std::str::from_utf8(h.value).ok()?.parse::<usize>().ok())
        .or((status == 204).then_some(0))
        .ok_or_else(|| garbled("it has no length"))?;
    let body = answer.get(head..head.saturating_add(length)).ok_or_else(|| garbled("it ended early"))?;
    Ok(Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: &str) -> String {
        parse(answer.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        assert!(said("HTTP/1.1 200 OK\r\nconte").contains("ended early"));
        assert!(said("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}").contains("ended early"));
        assert!(said("HTTP/1.1 200 OK\r\n\r\n{}").contains("no length"));
        assert!(said("SSH-2.0-OpenSSH\r\n").contains("not HTTP"));
    }

    #[test]
    fn a_status_without_a_body_is_an_answer() {
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), Answer { status: 204, body: vec![] });
    }
}
