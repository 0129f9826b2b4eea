//! Golden images on their way to a host: sent by a controller, taken in by the node.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use uuid::Uuid;

use super::wire::{self, Piece};
use crate::{Error, Result, image, spec};

/// Bytes in one piece.
const PIECE: usize = 256 << 10;
/// Files that are not whole begin so.
const PART: &str = ".part-";

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Removes what an interrupted transfer left.
pub(super) fn clear(folder: &Path) {
    let parts = fs::read_dir(folder).into_iter().flatten().flatten();
    for part in parts.filter(|e| e.file_name().to_string_lossy().starts_with(PART)) {
        let _ = fs::remove_file(part.path());
    }
}

/// Sends a file; `said` is told the bytes that have left.
pub(super) async fn send<W: AsyncWrite + Unpin>(to: &mut W, file: File, mut said: impl FnMut(u64)) -> io::Result<()> {
    let mut file = tokio::fs::File::from_std(file);
    let (mut piece, mut digest, mut sent) = (vec![0; PIECE], Sha256::new(), 0);
    loop {
        let n = file.read(&mut piece).await?;
        if n == 0 {
            break;
        }
        digest.update(&piece[..n]);
        wire::send(to, &Piece::More, &piece[..n]).await?;
        sent += n as u64;
        said(sent);
    }
    wire::send(to, &Piece::End { sha256: hexadecimal(&digest.finalize()) }, &[]).await
}

/// A file that is being taken in. Its own name goes in any case; once published it has another one.
struct Part<'a> {
    path: std::path::PathBuf,
    file: File,
    folder: &'a Path,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes a golden image in as `name`: written beside, compared, inspected as any image is, published read-only
/// under its name. There is never half an image, and one that is there is never replaced.
///
/// # Errors
/// [`Error::Invalid`] for a bad name, other bytes than announced or an image that may not be used;
/// [`Error::Full`]; [`Error::Refused`] when the sender broke off.
pub(super) async fn take<R: AsyncRead + Unpin>(from: &mut R, folder: &Path, name: &str, size: u64) -> Result<()> {
    spec::image_file(name)?;
    fs::create_dir_all(folder).map_err(|e| fault(&e))?;
    let path = folder.join(format!("{PART}{}", Uuid::new_v4()));
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(|e| fault(&e))?;
    let mut part = Part { path, file, folder };
    let (mut digest, mut got) = (Sha256::new(), 0_u64);
    let sha256 = loop {
        let (piece, bytes) = wire::receive::<Piece, _>(from)
            .await
            .map_err(|e| Error::Refused(format!("the image's transfer broke off: {e}")))?;
        match piece {
            Piece::More => {
                got += bytes.len() as u64;
                if got > size {
                    return Err(Error::Invalid("the image has more bytes than were announced".into()));
                }
                digest.update(&bytes);
                tokio::task::block_in_place(|| part.file.write_all(&bytes)).map_err(|e| fault(&e))?;
            }
            Piece::End { sha256 } => break sha256,
        }
    };
    if got != size || hexadecimal(&digest.finalize()) != sha256 {
        return Err(Error::Invalid("the image arrived with other bytes than it was sent with".into()));
    }
    tokio::task::block_in_place(|| publish(&part, name))
}

fn publish(part: &Part<'_>, name: &str) -> Result<()> {
    image::inspect(&part.path, Some("qcow2")).map_err(|e| Error::Invalid(e.to_string()))?;
    let done = || {
        part.file.sync_all()?;
        part.file.set_permissions(fs::Permissions::from_mode(0o444))?;
        let to = part.folder.join(name);
        match fs::hard_link(&part.path, &to) {
            // Another controller was first; names of images are never given twice.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        File::open(part.folder)?.sync_all()
    };
    done().map_err(|e| fault(&e))
}

fn fault(e: &io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(format!("the image folder: {e}")),
        _ => Error::Refused(format!("the image folder: {e}")),
    }
}
