//! A stream of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tram_wire::tunnel::StreamError;

use super::Tunnel;

/// Bytes both ways. Survives its tunnel's connections. Dropping it without [`shutdown`](tokio::io::AsyncWriteExt)
/// breaks it off.
pub struct Stream {
    tunnel: Tunnel,
    id: u32,
    /// The piece that is being read.
    piece: Vec<u8>,
    read: usize,
    ended: bool,
}

fn error(e: StreamError) -> io::Error {
    let kind = match e {
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        _ => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, e)
}

impl Stream {
    pub(super) fn new(tunnel: Tunnel, id: u32) -> Self {
        Self { tunnel, id, piece: Vec::new(), read: 0, ended: false }
    }

    /// Its number in the tunnel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Breaks it off with a code for the other end.
    pub fn reset(self, code: u16) {
        let mut inner = self.tunnel.lock();
        inner.mux.reset(self.id, code);
        inner.wake_driver();
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.read >= this.piece.len() && !this.ended {
            let now = this.tunnel.now();
            let mut inner = this.tunnel.lock();
            if inner.closed {
                return Poll::Ready(Err(error(StreamError::Gone)));
            }
            match inner.mux.take(now, this.id).map_err(error)? {
                None => {
                    inner.readers.insert(this.id, cx.waker().clone());
                    return Poll::Pending;
                }
                Some(piece) => {
                    if inner.mux.has_urgent() {
                        inner.wake_driver();
                    }
                    this.ended = piece.is_empty();
                    (this.piece, this.read) = (piece, 0);
                }
            }
        }
        Poll::Ready(Ok(&this.piece[this.read..]))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let this = self.get_mut();
        this.read += n;
        if this.read >= this.piece.len() {
            (this.piece, this.read) = (Vec::new(), 0);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = std::task::ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut inner = self.tunnel.lock();
        if inner.closed {
            return Poll::Ready(Err(error(StreamError::Gone)));
        }
        let n = inner.mux.write(self.id, data).map_err(error)?;
        if n == 0 {
            inner.writers.insert(self.id, cx.waker().clone());
            return Poll::Pending;
        }
        inner.wake_driver();
        Poll::Ready(Ok(n))
    }

    /// Nothing to do: what was written leaves as soon as it may, over this connection or the next.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.tunnel.lock();
        inner.mux.end(self.id);
        inner.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.tunnel.lock();
        inner.readers.remove(&self.id);
        inner.writers.remove(&self.id);
        inner.mux.drop_stream(self.id, 0);
        inner.wake_driver();
    }
}
