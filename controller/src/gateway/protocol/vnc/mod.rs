//! RFB (RFC 6143): both handshakes end at the gateway.
//!
//! To the desktop it speaks 3.8 with security None over a private socket, to the viewer 3.8 with security
//! None inside the TLS of the WebSocket, and always asks for a shared desktop, so that no viewer can throw
//! another out. After that pixels and input pass untouched. What the viewer sends is followed message by
//! message ([`client`]): to stop lengths that no honest viewer sends before they reach the hypervisor, to know
//! whether anybody still types, and to take out what concerns pacing ([`requests`]). What the desktop sends is
//! followed by its lengths ([`updates`]): to know when a picture was there, and where one ends. [`pace`] asks
//! for pictures in the place of a viewer that can be paced, as its [`line`](mod@line) allows.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub mod client;
pub mod line;
pub mod pace;
pub mod requests;
pub mod updates;

/// The only version spoken.
pub const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security types offered to the viewer: one, None.
pub const SECURITY: [u8; 2] = [1, NONE];
/// Security type None.
pub const NONE: u8 = 1;
/// Security went well.
pub const OK: [u8; 4] = [0; 4];
/// `ClientInit` with the shared flag.
pub const SHARED: u8 = 1;

/// The handshake with the desktop, up to (and without) `ClientInit`.
///
/// # Errors
/// If the desktop does not speak RFB 3.8 or wants a password: nothing a viewer could do about it.
pub async fn greet<S: AsyncRead + AsyncWrite + Unpin>(display: &mut S) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut version = [0; 12];
    display.read_exact(&mut version).await?;
    if !version.starts_with(b"RFB 003.") || version[8..11] < b"008"[..] {
        return Err(bad("the display does not speak RFB 3.8"));
    }
    display.write_all(VERSION).await?;
    let count = display.read_u8().await?;
    if count == 0 {
        return Err(bad("the display refuses viewers"));
    }
    let mut kinds = vec![0; count.into()];
    display.read_exact(&mut kinds).await?;
    if !kinds.contains(&NONE) {
        return Err(bad("the display wants a password"));
    }
    display.write_u8(NONE).await?;
    if display.read_u32().await? != 0 {
        return Err(bad("the display refused the connection"));
    }
    Ok(())
}

/// The handshake with a viewer on a byte stream, up to and with `ClientInit`: whether it wants the desktop for
/// itself is not its choice.
///
/// # Errors
/// The stream's, or [`io::ErrorKind::InvalidData`] for a viewer that does not speak RFB 3.8 with security None.
pub async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(viewer: &mut S) -> io::Result<()> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    viewer.write_all(VERSION).await?;
    let mut version = [0; 12];
    viewer.read_exact(&mut version).await?;
    if version != *VERSION {
        return Err(bad("the viewer does not speak RFB 3.8"));
    }
    viewer.write_all(&SECURITY).await?;
    if viewer.read_u8().await? != NONE {
        return Err(bad("the viewer chose a security type that was not offered"));
    }
    viewer.write_all(&OK).await?;
    viewer.read_u8().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn greeted(display_says: &[u8]) -> io::Result<()> {
        let (mut ours, mut theirs) = tokio::io::duplex(256);
        theirs.write_all(display_says).await?;
        theirs.shutdown().await?;
        greet(&mut ours).await
    }

    #[tokio::test]
    async fn only_an_open_rfb_3_8_display_will_do() {
        assert!(greeted(b"RFB 003.008\n\x02\x02\x01\0\0\0\0").await.is_ok());
        assert!(greeted(b"RFB 003.889\n\x01\x01\0\0\0\0").await.is_ok());
        for bad in [
            &b"RFB 003.003\n\0\0\0\x01"[..],
            b"SSH-2.0-OpenSSH",
            b"RFB 003.008\n\x00\0\0\0\x04full",
            b"RFB 003.008\n\x01\x02",
            b"RFB 003.008\n\x01\x01\0\0\0\x01",
            b"RFB 003.008\n",
            b"",
        ] {
            assert!(greeted(bad).await.is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
