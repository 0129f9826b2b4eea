//! A stream of a tunnel.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tram_wire::tunnel::StreamError;

use super::Tunnel;

/// Read at once from what is copied into a stream.
const PIECE: usize = 64 * 1024;
/// Pieces taken from the tunnel at once, and written with one call.
const PIECES: usize = 8;

/// Bytes both ways. Survives its tunnel's connections. Dropping it, or both halves, without a shutdown breaks it
/// off.
pub struct Stream {
    read: ReadStream,
    write: WriteStream,
}

/// The half that is read.
pub struct ReadStream {
    held: Arc<Held>,
    /// What was taken from the tunnel; of the first piece, `read` bytes were read.
    pieces: VecDeque<Vec<u8>>,
    read: usize,
    /// Pieces that were read, on their way back to the tunnel.
    used: Vec<Vec<u8>>,
    ended: bool,
}

/// The half that is written.
pub struct WriteStream {
    held: Arc<Held>,
}

/// Somebody has an interest in the stream as long as this lives.
struct Held {
    tunnel: Tunnel,
    id: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.tunnel.lock();
        inner.readers.remove(&self.id);
        inner.writers.remove(&self.id);
        inner.mux.drop_stream(self.id, 0);
        inner.wake_driver();
    }
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
        let held = Arc::new(Held { tunnel, id });
        let read = ReadStream { held: held.clone(), pieces: VecDeque::new(), read: 0, used: Vec::new(), ended: false };
        Self { read, write: WriteStream { held } }
    }

    /// Its number in the tunnel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.read.held.id
    }

    /// Both halves, to be used at the same time.
    #[must_use]
    pub fn into_split(self) -> (ReadStream, WriteStream) {
        (self.read, self.write)
    }

    /// Breaks it off with a code for the other end.
    pub fn reset(self, code: u16) {
        self.write.reset(code);
    }

    /// Copies both ways until both have ended, or one fails; the bytes from and to the stream.
    ///
    /// # Errors
    /// The first one of either side.
    pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(self, other: &mut S) -> io::Result<(u64, u64)> {
        let (mut from_stream, mut to_stream) = self.into_split();
        let (mut from_other, mut to_other) = tokio::io::split(other);
        let out = async {
            let mut total = 0;
            loop {
                if from_stream.fill_buf().await?.is_empty() {
                    to_other.shutdown().await?;
                    return Ok(total);
                }
                // Written from where it arrived, and as much at once as there is.
                let n = poll_fn(|cx| {
                    let mut slices = [IoSlice::new(&[]); PIECES];
                    let n = from_stream.slices(&mut slices);
                    Pin::new(&mut to_other).poll_write_vectored(cx, &slices[..n])
                });
                let n = n.await?;
                if n == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                from_stream.consume(n);
                total += n as u64;
            }
        };
        let into = async {
            let mut total = 0;
            let mut buffer = vec![0; PIECE].into_boxed_slice();
            loop {
                let n = from_other.read(&mut buffer).await?;
                if n == 0 {
                    to_stream.shutdown().await?;
                    return Ok(total);
                }
                to_stream.write_all(&buffer[..n]).await?;
                total += n as u64;
            }
        };
        tokio::try_join!(out, into)
    }
}

impl ReadStream {
    /// What can be read at once; how many slices that is.
    fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut n = 0;
        for (slot, piece) in into.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(if n == 0 { &piece[self.read..] } else { piece });
            n += 1;
        }
        n
    }
}

impl WriteStream {
    /// Breaks the stream off with a code for the other end.
    pub fn reset(&self, code: u16) {
        let mut inner = self.held.tunnel.lock();
        inner.mux.reset(self.held.id, code);
        inner.wake_driver();
    }
}

impl AsyncBufRead for ReadStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.pieces.is_empty() && !this.ended {
            let now = this.held.tunnel.now();
            let mut inner = this.held.tunnel.lock();
            if inner.closed {
                return Poll::Ready(Err(error(StreamError::Gone)));
            }
            match inner.mux.take(now, this.held.id).map_err(error)? {
                None => {
                    inner.readers.insert(this.held.id, cx.waker().clone());
                    return Poll::Pending;
                }
                Some(piece) if piece.is_empty() => this.ended = true,
                Some(piece) => {
                    this.pieces.push_back(piece);
                    while this.pieces.len() < PIECES && inner.mux.more(this.held.id) {
                        this.pieces.extend(inner.mux.take(now, this.held.id).map_err(error)?);
                    }
                    this.used.drain(..).for_each(|buffer| inner.mux.recycle(buffer));
                    if inner.mux.has_urgent() {
                        inner.wake_driver();
                    }
                }
            }
        }
        Poll::Ready(Ok(this.pieces.front().map_or(&[], |piece| &piece[this.read..])))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        let this = self.get_mut();
        this.read += n;
        while let Some(piece) = this.pieces.front().filter(|piece| this.read >= piece.len()) {
            this.read -= piece.len();
            this.used.extend(this.pieces.pop_front());
        }
        if this.pieces.is_empty() && this.used.len() < PIECES {
            // Little traffic: nothing is kept for it.
            this.used = Vec::new();
        }
    }
}

impl AsyncRead for ReadStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..n]);
        AsyncBufRead::consume(self, n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut inner = self.held.tunnel.lock();
        if inner.closed {
            return Poll::Ready(Err(error(StreamError::Gone)));
        }
        let n = inner.mux.write(self.held.id, data).map_err(error)?;
        if n == 0 {
            inner.writers.insert(self.held.id, cx.waker().clone());
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
        let mut inner = self.held.tunnel.lock();
        inner.mux.end(self.held.id);
        inner.wake_driver();
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().read).poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        AsyncBufRead::consume(Pin::new(&mut self.get_mut().read), n);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_shutdown(cx)
    }
}
