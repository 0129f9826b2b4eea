//! Copies between a viewer's WebSocket and a desktop's display, one task for both ways.
//!
//! Way down: the display's socket is read right behind a gap that takes the frame's header, so one read and
//! one write carry up to 64 KiB, and nothing is read before the last frame has left: a stalled viewer holds
//! one buffer and the desktop feels the back-pressure. Way up: payload is unmasked where it was read and
//! written from there. Large buffers are borrowed from a pool for as long as data flows; an idle connection
//! has only a small one of its own.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};

use super::link::Link;
use super::protocol::vnc::client;
use super::protocol::vnc::pace::Pacer;
use super::protocol::vnc::requests::Requests;
use super::shape::Grant;
use super::ws::{self, Decoder, GAP, Item, LEAST_BUFFER, Opcode, PAYLOAD_LIMIT};
use crate::domain::session::Cut;

/// Why a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The viewer went away, with or without goodbye.
    Viewer,
    /// The display closed.
    Display,
    /// Somebody cut it.
    Cut(Cut),
    /// The viewer broke the rules of the WebSocket.
    Frame(ws::Fault),
    /// The viewer broke the rules of RFB.
    Message(client::Fault),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Viewer
    }
}

/// Idle connections read into this much.
const SMALL: usize = 2048;
/// Busy ones into this much; reads of it make the unmasking and the writing cheap.
const LARGE: usize = GAP + PAYLOAD_LIMIT;
/// Most that a short frame takes.
const SHORT: usize = 125;
/// Free buffers kept.
const SPARE: usize = 64;
/// Frames written before others get a turn.
const BURST: usize = 16;
/// How long a frame that is under way may hold up a cut.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Large buffers for whoever is busy.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Box<[u8]>>>);

impl Buffers {
    fn take(&self) -> Box<[u8]> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; LARGE].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }
}

/// A large buffer that finds its way back.
struct Borrowed<'a>(&'a Buffers, Box<[u8]>);

impl<'a> Borrowed<'a> {
    fn new(buffers: &'a Buffers) -> Self {
        Self(buffers, buffers.take())
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.0.give(std::mem::take(&mut self.1));
    }
}

/// What comes from a viewer: payload, piece by piece. Pings are noted on the link by who drives it.
pub struct Inbox<'a, R> {
    io: R,
    decoder: Decoder,
    buffers: &'a Buffers,
    small: Box<[u8]>,
    large: Option<Borrowed<'a>>,
    /// Read and not looked at.
    unread: Range<usize>,
    /// Unmasked and not taken.
    data: Range<usize>,
    small_reads: u32,
    /// The latest ping, for [`Inbox::take_ping`].
    ping: Option<Vec<u8>>,
    /// Our own ping was answered since the last look.
    pong: bool,
}

impl<'a, R: AsyncRead + Unpin> Inbox<'a, R> {
    /// An empty one.
    pub fn new(io: R, buffers: &'a Buffers) -> Self {
        let small = vec![0; SMALL].into_boxed_slice();
        Self {
            io,
            decoder: Decoder::default(),
            buffers,
            small,
            large: None,
            unread: 0..0,
            data: 0..0,
            small_reads: 0,
            ping: None,
            pong: false,
        }
    }

    fn buffer(&mut self) -> &mut [u8] {
        match &mut self.large {
            Some(b) => &mut b.1,
            None => &mut self.small,
        }
    }

    /// The next `N` bytes of payload: for handshakes.
    ///
    /// # Errors
    /// [`End`] when the viewer leaves or breaks the rules.
    pub async fn exact<const N: usize>(&mut self) -> Result<[u8; N], End> {
        let mut out = [0; N];
        let mut have = 0;
        while have < N {
            let range = self.piece().await?;
            let n = range.len().min(N - have);
            let data = range.start..range.start + n;
            out[have..have + n].copy_from_slice(&self.buffer()[data]);
            self.data = range.start + n..range.end;
            have += n;
        }
        Ok(out)
    }

    /// The next piece of payload, as a range of [`Inbox::bytes`]; taken by returning.
    async fn piece(&mut self) -> Result<Range<usize>, End> {
        if !self.data.is_empty() {
            return Ok(std::mem::take(&mut self.data));
        }
        loop {
            let unread = self.unread.clone();
            let decoder = &mut self.decoder;
            let buffer = match &mut self.large {
                Some(b) => &mut b.1,
                None => &mut self.small,
            };
            let Some((used, item)) = decoder.decode(&mut buffer[unread.clone()]).map_err(End::Frame)? else {
                self.read().await?;
                continue;
            };
            self.unread.start += used;
            let at = unread.start;
            match item {
                Item::Data(r) => return Ok(at + r.start..at + r.end),
                // Signs of life are for the caller to note before it waits for more.
                Item::Ping(r) => {
                    self.ping = Some(buffer[at + r.start..at + r.end].to_vec());
                    return Ok(0..0);
                }
                Item::Pong => {
                    self.pong = true;
                    return Ok(0..0);
                }
                Item::Close => return Err(End::Viewer),
                Item::Header => {}
            }
        }
    }

    /// Reads more behind what is left, into as large a buffer as the flow deserves.
    async fn read(&mut self) -> Result<(), End> {
        let left = self.unread.len();
        debug_assert!(left < LEAST_BUFFER && self.data.is_empty());
        let unread = self.unread.clone();
        if self.large.is_some() && self.small_reads > 2 {
            if let Some(large) = self.large.take() {
                self.small[..left].copy_from_slice(&large.1[unread]);
            }
        } else if self.large.is_none() && unread.end == SMALL {
            let mut large = Borrowed::new(self.buffers);
            large.1[..left].copy_from_slice(&self.small[unread]);
            self.large = Some(large);
            self.small_reads = 0;
        } else {
            self.buffer().copy_within(unread, 0);
        }
        self.unread = 0..left;
        let buffer = match &mut self.large {
            Some(b) => &mut b.1,
            None => &mut self.small,
        };
        let n = self.io.read(&mut buffer[left..]).await?;
        if n == 0 {
            return Err(End::Viewer);
        }
        self.small_reads = if n < SMALL / 2 { self.small_reads + 1 } else { 0 };
        self.unread.end += n;
        Ok(())
    }

    /// Reads and drops what the viewer still sends, until it closes: closing over unread bytes would reset the
    /// connection, and the close frame with it.
    pub async fn drain(&mut self) {
        while self.io.read(&mut self.small).await.is_ok_and(|n| n > 0) {}
    }

    /// The latest ping since the last call.
    fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }
}

/// Copies both ways until one side ends or the link is cut. Called when both handshakes are done; `first` is
/// called at the first picture.
pub async fn run<R, W>(
    inbox: &mut Inbox<'_, R>,
    viewer: &mut W,
    display: &mut UnixStream,
    link: &Link,
    buffers: &Buffers,
    first: impl FnOnce(),
) -> End
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (from_display, to_display) = display.split();
    let hard_cut = async {
        let why = link.cut_off().await;
        tokio::time::sleep(LAST_WORDS).await;
        End::Cut(why)
    };
    let pacer = Pacer::default();
    let end = tokio::select! {
        end = up(inbox, to_display, link, &pacer) => end.err().unwrap_or(End::Viewer),
        end = down(from_display, viewer, link, &pacer, buffers, first) => end.err().unwrap_or(End::Display),
        end = hard_cut => end,
    };
    let (pictures, paced) = pacer.pictures();
    metrics::counter!("gateway_pictures_total", "paced" => if paced { "yes" } else { "no" }).increment(pictures);
    end
}

async fn up<R: AsyncRead + Unpin>(
    inbox: &mut Inbox<'_, R>,
    mut display: WriteHalf<'_>,
    link: &Link,
    pacer: &Pacer,
) -> Result<(), End> {
    let mut requests = Requests::default();
    let mut out = Vec::new();
    loop {
        let piece = tokio::select! {
            piece = inbox.piece() => Some(piece?),
            () = pacer.ask_due(), if requests.between() => None,
        };
        if let Some(range) = piece {
            link.heard(range.len());
            if let Some(ping) = inbox.take_ping() {
                link.ponder(&ping);
            }
            if std::mem::take(&mut inbox.pong) {
                link.answered();
            }
            let piece = &inbox.buffer()[range];
            requests.grant(link.rights());
            if requests.feed(piece, &mut out, |ask, out| pacer.viewer(ask, out)).map_err(End::Message)? {
                link.touched();
            }
        }
        if requests.between() {
            pacer.take_asks(&mut out);
        }
        if !out.is_empty() {
            display.write_all(&out).await.map_err(|_| End::Display)?;
            out.clear();
            // An idle viewer keeps no more than a small buffer.
            out.shrink_to(SMALL);
        }
    }
}

async fn down<W: AsyncWrite + Unpin>(
    display: ReadHalf<'_>,
    viewer: &mut W,
    link: &Link,
    pacer: &Pacer,
    buffers: &Buffers,
    first: impl FnOnce(),
) -> Result<(), End> {
    let mut first = Some(first);
    loop {
        tokio::select! {
            biased;
            why = link.cut_off() => return Err(End::Cut(why)),
            () = link.control_due() => control(viewer, link).await?,
            () = pacer.word_due() => {
                link.writing();
                say(viewer, &pacer.take_words()).await?;
                viewer.flush().await?;
                link.written(0);
            }
            grant = async { Ok::<_, io::Error>({ display.readable().await?; link.room().await }) } => {
                let Ok(grant) = grant else { return Err(End::Display) };
                pacer.cap(link.allowance());
                if !burst(&display, viewer, (link, grant), pacer, buffers, &mut first).await? {
                    return Err(End::Display);
                }
            }
        }
    }
}

/// Sends what the display has, up to a limit. `false` when it closed.
async fn burst<W: AsyncWrite + Unpin, F: FnOnce()>(
    display: &ReadHalf<'_>,
    viewer: &mut W,
    (link, grant): (&Link, Grant<'_>),
    pacer: &Pacer,
    buffers: &Buffers,
    first: &mut Option<F>,
) -> Result<bool, End> {
    let mut buffer = Borrowed::new(buffers);
    let mut grant = Some(grant);
    for _ in 0..BURST {
        // What is over the cap stays with the desktop, which then draws less often.
        let Some(room) = grant.take().or_else(|| link.room_now()) else { return Ok(true) };
        let n = match display.try_read(&mut buffer.1[GAP..GAP + room.bytes().min(PAYLOAD_LIMIT)]) {
            Ok(0) => return Ok(false),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                pacer.paused();
                return Ok(true);
            }
            Err(_) => return Ok(false),
        };
        room.spent(n);
        let passed = pacer.desktop(&buffer.1[GAP..GAP + n]);
        link.writing();
        let mut from = 0;
        if let Some((at, words)) = passed.put {
            if at > 0 {
                viewer.write_all(ws::frame(&mut buffer.1, Opcode::Binary, at)).await?;
            }
            say(viewer, &words).await?;
            from = at;
        }
        if from < n {
            // What has left already makes room for the header.
            viewer.write_all(ws::frame(&mut buffer.1[from..], Opcode::Binary, n - from)).await?;
        }
        viewer.flush().await?;
        link.written(n);
        if passed.picture {
            link.drew(passed.pictures);
        }
        if passed.picture
            && let Some(first) = first.take()
        {
            first();
        }
    }
    tokio::task::yield_now().await;
    Ok(true)
}

/// Words of the gateway's own, between two messages of the desktop.
async fn say<W: AsyncWrite + Unpin>(viewer: &mut W, words: &[u8]) -> Result<(), End> {
    for part in words.chunks(SHORT) {
        viewer.write_all(&ws::short_frame(Opcode::Binary, part)).await?;
    }
    Ok(())
}

async fn control<W: AsyncWrite + Unpin>(viewer: &mut W, link: &Link) -> Result<(), End> {
    link.writing();
    if let Some(payload) = link.take_pong() {
        viewer.write_all(&ws::short_frame(Opcode::Pong, &payload)).await?;
    }
    if link.take_ping() {
        link.asked();
        viewer.write_all(&ws::short_frame(Opcode::Ping, b"")).await?;
    }
    viewer.flush().await?;
    link.written(0);
    Ok(())
}

/// Payload to a viewer during the handshake.
///
/// # Errors
/// [`End::Viewer`].
pub async fn send<W: AsyncWrite + Unpin>(viewer: &mut W, payload: &[u8]) -> Result<(), End> {
    viewer.write_all(&ws::short_frame(Opcode::Binary, payload)).await?;
    viewer.flush().await?;
    Ok(())
}
