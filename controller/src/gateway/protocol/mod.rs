//! Display protocols, as far as the gateway takes part in them.

use std::io::ErrorKind;

use tokio::net::unix::ReadHalf;

pub mod spice;
pub mod vnc;

/// Read from a display at once.
const PIECE: usize = 64 * 1024;

/// The next piece from a display into `piece`, of at most `most` bytes, and its length; `None` at its end. An idle
/// desktop holds no buffer.
pub(super) async fn next_piece(display: &ReadHalf<'_>, piece: &mut Vec<u8>, most: usize) -> Option<usize> {
    loop {
        display.readable().await.ok()?;
        piece.resize(PIECE.min(most), 0);
        match display.try_read(piece) {
            Ok(n) => return (n > 0).then_some(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => *piece = Vec::new(),
            Err(_) => return None,
        }
    }
}
