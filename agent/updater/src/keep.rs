//! A copy for the computers of the office, so that a release crosses the office's line once.
//!
//! Who asks for it by its SHA-256 gets it; there is nothing else to ask for. It is no secret, and who fetches it hashes it.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tram_wire::update::{RELEASE_PATH, is_sha256};

/// At once; an office has a handful of computers, and the agent's work goes first.
const AT_ONCE: usize = 4;
const HEAD: usize = 4 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is kept: SHA-256 and file.
pub type Kept = Arc<Mutex<Option<(String, PathBuf)>>>;

/// Serves what is kept until dropped.
pub async fn serve(listener: TcpListener, kept: Kept) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        // Nobody waits here: who is turned away asks the controller.
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let kept = kept.clone();
        tokio::spawn(async move {
            let _ = timeout(PATIENCE * 20, answer(stream, &kept)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, kept: &Kept) -> io::Result<()> {
    let mut got = Vec::new();
    let (sha256, from) = loop {
        let mut piece = [0; 1024];
        let n = timeout(PATIENCE, stream.read(&mut piece)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        got.extend_from_slice(&piece[..n]);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&got) {
            Ok(httparse::Status::Complete(_)) => match asked(&request) {
                Some(asked) => break asked,
                None => return refuse(stream).await,
            },
            Ok(httparse::Status::Partial) if n > 0 && got.len() < HEAD => {}
            _ => return refuse(stream).await,
        }
    };
    let file = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some((_, path)) = file.filter(|(kept, _)| *kept == sha256) else { return refuse(stream).await };
    let mut file = File::open(path).await?;
    let size = file.metadata().await?.len();
    if from >= size {
        return refuse(stream).await;
    }
    file.seek(SeekFrom::Start(from)).await?;
    let head = if from == 0 {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n")
    } else {
        let (last, rest) = (size - 1, size - from);
        format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{last}/{size}\r\ncontent-length: {rest}\r\n\
             connection: close\r\n\r\n"
        )
    };
    stream.write_all(head.as_bytes()).await?;
    let mut piece = vec![0; 32 * 1024];
    loop {
        match file.read(&mut piece).await? {
            0 => return stream.shutdown().await,
            n => timeout(PATIENCE, stream.write_all(&piece[..n])).await.map_err(|_| io::ErrorKind::TimedOut)??,
        }
    }
}

fn asked(request: &httparse::Request<'_, '_>) -> Option<(String, u64)> {
    let sha256 = request.path?.strip_prefix(RELEASE_PATH)?;
    if request.method != Some("GET") || !is_sha256(sha256) {
        return None;
    }
    let range = request.headers.iter().find(|h| h.name.eq_ignore_ascii_case("range"));
    let from = match range {
        None => 0,
        Some(h) => std::str::from_utf8(h.value).ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?,
    };
    Some((sha256.to_owned(), from))
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::{Source, fetch};
    use crate::proof::sha256;

    #[tokio::test]
    async fn a_neighbour_gets_what_is_kept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tram-agent");
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        std::fs::write(&file, &bytes).unwrap();
        let sum = sha256(&bytes);
        let kept: Kept = Arc::new(Mutex::new(Some((sum.clone(), file))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(serve(listener, kept.clone()));
        let part = dir.path().join("part");
        let source = Source::Peer(at.clone());
        assert_eq!(fetch(&source, &sum, 200_000, &part).await.unwrap(), 200_000);
        assert_eq!(std::fs::read(&part).unwrap(), bytes);
        std::fs::write(&part, &bytes[..150_000]).unwrap();
        assert_eq!(fetch(&source, &sum, 200_000, &part).await.unwrap(), 50_000);
        assert_eq!(std::fs::read(&part).unwrap(), bytes);
        let other = dir.path().join("other");
        assert_eq!(fetch(&source, &"0".repeat(64), 10, &other).await.unwrap_err().code(), "not_given");
        for bad in
            ["GET /etc/passwd HTTP/1.1\r\n\r\n", "GET /agent/v1/release/../x HTTP/1.1\r\n\r\n", "rubbish\r\n\r\n"]
        {
            let mut stream = TcpStream::connect(&at).await.unwrap();
            stream.write_all(bad.as_bytes()).await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            assert!(said.starts_with("HTTP/1.1 404"), "{bad}: {said}");
        }
        *kept.lock().unwrap() = None;
        assert_eq!(fetch(&source, &sum, 200_000, &other).await.unwrap_err().code(), "not_given");
        serving.abort();
    }
}
