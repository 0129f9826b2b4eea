//! Display protocols, as far as the gateway takes part in them.

use std::io::ErrorKind;

use tokio::net::unix::ReadHalf;

use super::shape::Grant;

pub mod spice;
pub mod vnc;

/// Read from a display at once.
const PIECE: usize = 64 * 1024;

/// The next piece from a display into `piece`, of as many bytes as there is room for once it has something, and its
/// length; `None` at its end. An idle desktop holds no buffer and takes no room.
pub(super) async fn next_piece<'a, F: Future<Output = Grant<'a>>>(
    display: &ReadHalf<'_>,
    piece: &mut Vec<u8>,
    room: impl Fn() -> F,
) -> Option<usize> {
    loop {
        display.readable().await.ok()?;
        let room = room().await;
        piece.resize(PIECE.min(room.bytes()), 0);
        match display.try_read(piece) {
            Ok(n) => {
                room.spent(n);
                return (n > 0).then_some(n);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => *piece = Vec::new(),
            Err(_) => return None,
        }
    }
}
