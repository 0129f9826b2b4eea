//! As much HTTP as one browser on the same computer needs: a request a connection, small and bounded.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A request must be here within this time.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest head.
const HEAD: usize = 16 * 1024;
/// Longest body: a name and a password.
const BODY: usize = 4096;

/// What the guard and the routes look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// What follows `?`.
    pub query: String,
    /// `Host`; twice is never.
    pub host: Option<String>,
    /// `Origin`.
    pub origin: Option<String>,
    /// `Sec-Fetch-Site`.
    pub site: Option<String>,
    /// `X-Tram-Desk`.
    pub secret: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

/// Reads one request. `None` for whatever is none.
///
/// # Errors
/// Those of the connection.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    timeout(DEADLINE, read_slowly(stream)).await.unwrap_or(Ok(None))
}

async fn read_slowly(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut bytes = Vec::with_capacity(1024);
    let (mut request, head, length) = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        match head_of(&bytes) {
            Head::Whole(request, head, length) if length <= BODY => break (request, head, length),
            Head::Part if bytes.len() < HEAD => {}
            _ => return Ok(None),
        }
    };
    while bytes.len() < head + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    request.body = bytes[head..head + length].to_vec();
    // What was typed must not stay in memory longer than it has to.
    bytes.fill(0);
    Ok(Some(*request))
}

enum Head {
    Whole(Box<Request>, usize, usize),
    Part,
    Wrong,
}

fn head_of(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Head::Part,
        Err(_) => return Head::Wrong,
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    let mut length = None;
    for h in parsed.headers.iter() {
        let Ok(value) = std::str::from_utf8(h.value) else { return Head::Wrong };
        let field = match h.name.to_ascii_lowercase().as_str() {
            "host" => &mut request.host,
            "origin" => &mut request.origin,
            "sec-fetch-site" => &mut request.site,
            "x-tram-desk" => &mut request.secret,
            "content-length" => &mut length,
            // One way to tell a length is enough for a page of ours.
            "transfer-encoding" => return Head::Wrong,
            _ => continue,
        };
        if field.replace(value.to_owned()).is_some() {
            return Head::Wrong;
        }
    }
    match length.map_or(Ok(0), |l| l.parse()) {
        Ok(length) => Head::Whole(Box::new(request), head, length),
        Err(_) => Head::Wrong,
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// Without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, kind: "text/plain", body: Vec::new() }
    }

    /// Nothing from elsewhere, nothing inline, in nobody's frame, nothing kept.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let Self { status, kind, body } = self;
        let head = format!(
            "HTTP/1.1 {status} .\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\
             cache-control: no-store\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\
             cross-origin-opener-policy: same-origin\r\ncross-origin-resource-policy: same-origin\r\n\
             content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        stream.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(text: &str) -> Option<Request> {
        read(&mut text.as_bytes()).await.unwrap()
    }

    #[tokio::test]
    async fn a_request_is_read_whole() {
        let text =
            "POST /api/sign-in?x=1 HTTP/1.1\r\nHost: 127.0.0.1:5\r\nX-Tram-Desk: s\r\nContent-Length: 2\r\n\r\n{}";
        let r = parsed(text).await.unwrap();
        assert_eq!((r.method.as_str(), r.path.as_str(), r.query.as_str()), ("POST", "/api/sign-in", "x=1"));
        assert_eq!(
            (r.host.as_deref(), r.secret.as_deref(), r.body.as_slice()),
            (Some("127.0.0.1:5"), Some("s"), &b"{}"[..])
        );
    }

    #[tokio::test]
    async fn what_is_ambiguous_or_large_is_no_request() {
        for bad in [
            "",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n{}",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{}",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert_eq!(parsed(bad).await, None, "{bad:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD));
        assert_eq!(parsed(&long).await, None);
    }
}
