//! How much passes between here and the controller, each way for a moment: see `tram_wire::bandwidth`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tram_wire::SERVER_NAME;
use tram_wire::bandwidth::{Arrived, EACH_WAY, No, PATH, WITHIN};
use tram_wire::ids::OrderId;

use super::{http, tls};
use crate::config::Address;

/// Until the first answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// After the last byte, until it is told how many arrived.
const AFTER: Duration = Duration::from_secs(2);
/// Longest head or answer.
const HEAD: usize = 4096;
/// Bytes at once.
const PIECE: usize = 16 * 1024;

/// What passed down, and up.
pub type Passed = (Arrived, Arrived);

/// Measures, one way after the other.
///
/// # Errors
/// The code of what came to nothing.
pub async fn measure(to: &Address, config: Arc<ClientConfig>, order: OrderId) -> Result<Passed, String> {
    Ok((down(to, config.clone(), order).await?, up(to, config, order).await?))
}

fn lost(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::TimedOut { "no_answer" } else { "failed" }.to_owned()
}

async fn down(to: &Address, config: Arc<ClientConfig>, order: OrderId) -> Result<Arrived, String> {
    let opening = async {
        let mut s = tls::connect(to, config).await?;
        let ask = format!("GET {PATH}{order} HTTP/1.1\r\nhost: {SERVER_NAME}\r\nconnection: close\r\n\r\n");
        s.write_all(ask.as_bytes()).await?;
        s.flush().await?;
        let first = head(&mut s).await?;
        Ok::<_, io::Error>((s, first))
    };
    let (mut s, first) = timeout(PATIENCE, opening).await.map_err(|_| "no_answer")?.map_err(|e| lost(&e))?;
    let (status, body) = split(&first).ok_or("failed")?;
    if status != 200 {
        return Err(refused(&first));
    }
    let (begun, mut bytes, mut buffer) = (Instant::now(), body as u64, vec![0; PIECE]);
    let until = begun + WITHIN;
    let mut last = begun;
    while bytes < EACH_WAY {
        match timeout_at(until, s.read(&mut buffer)).await {
            Ok(Ok(n)) if n > 0 => (bytes, last) = (bytes + n as u64, Instant::now()),
            // Its time is over, or it was cut: what arrived so far is what is known.
            _ => break,
        }
    }
    Ok(Arrived { bytes, took_us: micros(last - begun) })
}

async fn up(to: &Address, config: Arc<ClientConfig>, order: OrderId) -> Result<Arrived, String> {
    let opening = async {
        let mut s = tls::connect(to, config).await?;
        let ask = format!(
            "POST {PATH}{order} HTTP/1.1\r\nhost: {SERVER_NAME}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        s.write_all(ask.as_bytes()).await?;
        Ok::<_, io::Error>(s)
    };
    let s = timeout(PATIENCE, opening).await.map_err(|_| "no_answer")?.map_err(|e| lost(&e))?;
    let (mut read, mut write) = tokio::io::split(s);
    // The controller ends it, also in the middle: only it knows what arrived, and what lies in buffers here did not.
    let answer = async {
        tokio::select! {
            answer = whole(&mut read) => answer,
            sent = send(&mut write) => {
                sent?;
                timeout(AFTER + WITHIN, whole(&mut read)).await.map_err(|_| io::ErrorKind::TimedOut)?
            }
        }
    };
    let answer = timeout(WITHIN + AFTER, answer).await.map_err(|_| "no_answer")?.map_err(|e| lost(&e))?;
    match http::parse(&answer) {
        Ok(a) if a.status == 200 => serde_json::from_slice(&a.body).map_err(|_| "failed".to_owned()),
        _ => Err(refused(&answer)),
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

async fn send(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut chunk = format!("{PIECE:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + PIECE, 0);
    chunk.extend_from_slice(b"\r\n");
    let mut sent = 0;
    while sent + (PIECE as u64) <= EACH_WAY {
        to.write_all(&chunk).await?;
        sent += PIECE as u64;
    }
    to.write_all(b"0\r\n\r\n").await?;
    to.flush().await
}

/// Reads until there is a head; what comes with it stays behind it.
async fn head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; HEAD]);
    while split(&all).is_none() {
        let n = from.read(&mut buffer).await?;
        if n == 0 || all.len() > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        all.extend_from_slice(buffer.get(..n).unwrap_or_default());
    }
    Ok(all)
}

/// Reads a whole short answer.
async fn whole(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; HEAD]);
    while http::parse(&all).is_err() {
        let n = from.read(&mut buffer).await?;
        if n == 0 || all.len() > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        all.extend_from_slice(buffer.get(..n).unwrap_or_default());
    }
    Ok(all)
}

/// Status, and how many bytes stand behind the head.
fn split(answer: &[u8]) -> Option<(u16, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(n)) => Some((response.code?, answer.len() - n)),
        _ => None,
    }
}

/// What the controller said to that.
fn refused(answer: &[u8]) -> String {
    let no = http::parse(answer).ok().and_then(|a| serde_json::from_slice::<No>(&a.body).ok());
    match no.as_ref().map(|n| n.code.as_str()) {
        Some("session_open") => "session_open",
        Some("busy") => "no_room",
        // An older controller knows no such thing.
        _ => "refused",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_in_pieces_is_put_together_and_rubbish_ends_it() {
        let (mut theirs, mut ours) = tokio::io::duplex(64);
        tokio::spawn(async move {
            for piece in ["HTTP/1.1 200 OK\r\n", "content-le", "ngth: 2\r\n\r\n", "{", "}"] {
                theirs.write_all(piece.as_bytes()).await.unwrap();
                theirs.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let all = whole(&mut ours).await.unwrap();
        assert_eq!(http::parse(&all).unwrap().body, b"{}");
        assert!(head(&mut &b"HTTP/1.1 200"[..]).await.is_err());
        assert!(head(&mut &[b'x'; 10_000][..]).await.is_err());
    }

    #[tokio::test]
    async fn what_is_sent_ends_below_its_bound() {
        let mut all = Vec::new();
        send(&mut all).await.unwrap();
        assert!(all.len() as u64 <= EACH_WAY + 10_000 && all.ends_with(b"0\r\n\r\n"));
    }

    #[test]
    fn a_no_has_a_reason() {
        let no = |code: &str| {
            let body = format!("{{\"code\":\"{code}\"}}");
            refused(format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
        };
        assert_eq!(
            (no("session_open"), no("busy"), no("moon")),
            ("session_open".into(), "no_room".into(), "refused".into())
        );
        assert_eq!(refused(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), "refused");
    }
}
