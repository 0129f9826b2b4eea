//! Fetching a program: from a computer of the office first, then from the controller; going on where it was cut off.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tram_agent::config::Address;
use tram_agent::link::tls;
use tram_wire::SERVER_NAME;
use tram_wire::update::RELEASE_PATH;

/// A computer of the office answers at once or is away.
const PEER: Duration = Duration::from_secs(5);
/// Nothing for so long, and the connection is given up; what came is kept.
const SILENT: Duration = Duration::from_secs(60);
/// Longest head of an answer.
const HEAD: usize = 8 * 1024;

/// Where a program comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A computer of the office, `address:port`. It is not trusted: what it gives is hashed.
    Peer(String),
    /// The controller, by this endpoint's certificate.
    Controller(Address, Arc<ClientConfig>),
}

/// Why it is not here yet.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The line ended; what came is kept.
    #[error("the line ended: {0}")]
    Line(io::Error),
    /// It answers something else.
    #[error("{0}")]
    Answer(String),
    /// It can't be written here.
    #[error("it can't be kept here: {0}")]
    Disk(io::Error),
}

impl FetchError {
    /// In one word.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Line(_) => "cut_off",
            Self::Answer(_) => "not_given",
            Self::Disk(e) if e.kind() == io::ErrorKind::StorageFull => "disk_full",
            Self::Disk(_) => "disk",
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(source: &Source) -> io::Result<Box<dyn Stream>> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    match source {
        Source::Peer(at) => Ok(Box::new(timeout(PEER, TcpStream::connect(at)).await.map_err(late)??)),
        Source::Controller(to, tls) => {
            Ok(Box::new(timeout(SILENT, tls::connect(to, tls.clone())).await.map_err(late)??))
        }
    }
}

/// Fetches until `part` has `size` bytes; bytes that came now. Whether they are the right ones, a hash says.
///
/// # Errors
/// [`FetchError`]; what came before it is in `part`, unless the disk is full: then that is given back.
pub async fn fetch(source: &Source, sha256: &str, size: u64, part: &Path) -> Result<u64, FetchError> {
    let done = go_on(source, sha256, size, part).await;
    if matches!(&done, Err(e) if e.code() == "disk_full") {
        // Half a program is worth nothing to a computer that has no room for its own work.
        let _ = tokio::fs::remove_file(part).await;
    }
    done
}

async fn go_on(source: &Source, sha256: &str, size: u64, part: &Path) -> Result<u64, FetchError> {
    let mut have = tokio::fs::metadata(part).await.map_or(0, |m| m.len());
    if have > size {
        tokio::fs::remove_file(part).await.map_err(FetchError::Disk)?;
        have = 0;
    }
    if have == size {
        return Ok(0);
    }
    let mut stream = connect(source).await.map_err(FetchError::Line)?;
    let range = if have > 0 { format!("range: bytes={have}-\r\n") } else { String::new() };
    let head =
        format!("GET {RELEASE_PATH}{sha256} HTTP/1.1\r\nhost: {SERVER_NAME}\r\n{range}connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(FetchError::Line)?;
    stream.flush().await.map_err(FetchError::Line)?;
    let (status, from, begun) = answer(&mut stream).await?;
    let at = match (status, from) {
        (206, Some(at)) if at == have => have,
        // It does not know of parts: from the beginning.
        (200, _) => 0,
        (status, _) => return Err(FetchError::Answer(format!("HTTP status {status} for the release"))),
    };
    let mut file = open(part, at).await.map_err(FetchError::Disk)?;
    let mut room = size - at;
    room = keep(&mut file, &begun, room).await?;
    let mut piece = vec![0; 32 * 1024];
    while room > 0 {
        let read = timeout(SILENT, stream.read(&mut piece)).await;
        match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)) {
            Ok(Ok(n)) if n > 0 => room = keep(&mut file, &piece[..n], room).await?,
            Ok(Ok(_)) => break,
            Ok(Err(e)) | Err(e) => {
                file.sync_all().await.map_err(FetchError::Disk)?;
                return Err(FetchError::Line(e));
            }
        }
    }
    file.sync_all().await.map_err(FetchError::Disk)?;
    if room > 0 {
        return Err(FetchError::Line(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(size - at)
}

async fn open(part: &Path, at: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(part).await?;
    file.set_len(at).await?;
    drop(file);
    OpenOptions::new().append(true).open(part).await
}

/// Writes what has room; how much room is left. More than was announced is not taken.
async fn keep(file: &mut File, bytes: &[u8], room: u64) -> Result<u64, FetchError> {
    let n = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
    file.write_all(&bytes[..n]).await.map_err(FetchError::Disk)?;
    file.flush().await.map_err(FetchError::Disk)?;
    if n < bytes.len() {
        return Err(FetchError::Answer("it is longer than was signed".to_owned()));
    }
    Ok(room - n as u64)
}

/// Status, where the part begins, and what of it came with the head.
async fn answer(stream: &mut Box<dyn Stream>) -> Result<(u16, Option<u64>, Vec<u8>), FetchError> {
    let mut got = Vec::with_capacity(HEAD);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&got) {
            Ok(httparse::Status::Complete(n)) => {
                let status = response.code.unwrap_or(0);
                let range = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-range"));
                let from = range
                    .and_then(|h| std::str::from_utf8(h.value).ok())
                    .and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
                return Ok((status, from, got.split_off(n)));
            }
            Ok(httparse::Status::Partial) if got.len() < HEAD => {}
            _ => return Err(FetchError::Answer("it does not speak HTTP".to_owned())),
        }
        let mut piece = [0; 4096];
        let read = timeout(SILENT, stream.read(&mut piece)).await;
        match read.map_err(|_| FetchError::Line(io::ErrorKind::TimedOut.into()))? {
            Ok(0) => return Err(FetchError::Line(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => got.extend_from_slice(&piece[..n]),
            Err(e) => return Err(FetchError::Line(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A peer that answers each connection by the next of these and closes it.
    async fn peer(answers: Vec<Vec<u8>>) -> (Source, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut got = Vec::new();
                while !got.windows(4).any(|w| w == b"\r\n\r\n") {
                    let mut piece = [0; 1024];
                    let n = stream.read(&mut piece).await.unwrap();
                    got.extend_from_slice(&piece[..n]);
                }
                asked.push(String::from_utf8(got).unwrap());
                let _ = stream.write_all(&answer).await;
            }
            asked
        });
        (Source::Peer(at), task)
    }

    fn whole(body: &[u8]) -> Vec<u8> {
        [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n".as_slice(), body].concat()
    }

    fn rest(from: usize, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-9/10\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn what_was_cut_off_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("p");
        let (source, asked) = peer(vec![whole(b"0123"), rest(4, b"45"), rest(6, b"6789")]).await;
        for left in [4, 6] {
            assert_eq!(fetch(&source, "x", 10, &part).await.unwrap_err().code(), "cut_off");
            assert_eq!(std::fs::read(&part).unwrap().len(), left);
        }
        assert_eq!(fetch(&source, "x", 10, &part).await.unwrap(), 4);
        assert_eq!(std::fs::read(&part).unwrap(), b"0123456789");
        assert_eq!(fetch(&source, "x", 10, &part).await.unwrap(), 0, "it is all there");
        let asked = asked.await.unwrap();
        assert!(!asked[0].contains("range:") && asked[1].contains("range: bytes=4-"), "{asked:?}");
        assert!(asked[2].contains("range: bytes=6-"), "{asked:?}");
    }

    #[tokio::test]
    async fn who_does_not_know_of_parts_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("p");
        std::fs::write(&part, b"xxx").unwrap();
        let (source, _) = peer(vec![whole(b"0123456789")]).await;
        assert_eq!(fetch(&source, "x", 10, &part).await.unwrap(), 10);
        assert_eq!(std::fs::read(&part).unwrap(), b"0123456789");
        // A rest that is longer than the whole is none.
        std::fs::write(&part, b"0123456789abc").unwrap();
        let (source, _) = peer(vec![whole(b"0123456789")]).await;
        assert_eq!(fetch(&source, "x", 10, &part).await.unwrap(), 10);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("p");
        let (source, _) = peer(vec![whole(b"0123456789abcdef")]).await;
        assert_eq!(fetch(&source, "x", 10, &part).await.unwrap_err().code(), "not_given", "longer than signed");
        for bad in [b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), b"SSH-2.0\r\n\r\n".to_vec(), rest(3, b"3456789")] {
            let part = dir.path().join("q");
            let (source, _) = peer(vec![bad]).await;
            assert_eq!(fetch(&source, "x", 10, &part).await.unwrap_err().code(), "not_given");
            assert!(!part.exists());
        }
        let (source, _) = peer(vec![Vec::new()]).await;
        assert_eq!(fetch(&source, "x", 10, &part.with_extension("r")).await.unwrap_err().code(), "cut_off");
    }

    #[tokio::test]
    async fn a_full_disk_gets_its_room_back() {
        // The kernel's own full disk.
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("p");
        let mut full = OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        let e = keep(&mut full, b"0123", 10).await.unwrap_err();
        assert_eq!(e.code(), "disk_full");
        std::os::unix::fs::symlink("/dev/full", &part).unwrap();
        let (source, _) = peer(vec![whole(b"0123456789")]).await;
        let e = fetch(&source, "x", 10, &part).await.unwrap_err();
        assert!(matches!(e.code(), "disk_full" | "disk"), "{e}");
    }
}
