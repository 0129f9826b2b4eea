//! The first words on a connection, before the tunnel runs on it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tram_wire::tunnel::{HEADER, Header, Kind, hello};

/// Says them.
///
/// # Errors
/// The connection's.
pub async fn write_words<W: AsyncWrite + Unpin>(io: &mut W, words: &[u8]) -> io::Result<()> {
    io.write_all(&hello(words)).await?;
    io.flush().await
}

/// Hears them, and not a byte more.
///
/// # Errors
/// The connection's, or [`io::ErrorKind::InvalidData`] for anything else than first words.
pub async fn read_words<R: AsyncRead + Unpin>(io: &mut R) -> io::Result<Vec<u8>> {
    let mut head = [0; HEADER];
    io.read_exact(&mut head).await?;
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    let header = Header::decode(&head).map_err(invalid)?;
    if header.kind != Kind::Hello {
        return Err(invalid(tram_wire::tunnel::Fault::Kind));
    }
    let mut words = vec![0; header.length.into()];
    io.read_exact(&mut words).await?;
    Ok(words)
}
