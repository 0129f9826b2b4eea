//! The simulated display: RFB 3.8 without security on one end of a socket pair.
//!
//! Only what a viewer needs: raw rectangles, any true-colour pixel format, key events that change
//! pixels. Keys live in the [`Screen`], so a viewer that comes back sees what was typed before.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::DesktopId;

/// What the display does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A desktop that answers requests and echoes keys.
    #[default]
    Picture,
    /// After the first request, full frames without end: measures a relay's way down.
    Flood,
    /// After the handshake reads and drops all: measures a relay's way up.
    Sink,
}

const CELL: u16 = 16;
const MAX_CUT_TEXT: u32 = 1 << 20;

/// One desktop's picture, shared by its viewers.
pub(super) struct Screen {
    id: DesktopId,
    width: u16,
    height: u16,
    keys: Mutex<Vec<u32>>,
    version: watch::Sender<u64>,
    /// Counts viewers that wanted the desktop for themselves.
    alone: watch::Sender<u64>,
}

impl Screen {
    pub(super) fn new(id: DesktopId, width: u16, height: u16) -> Arc<Self> {
        Arc::new(Self {
            id,
            width,
            height,
            keys: Mutex::default(),
            version: watch::Sender::new(0),
            alone: watch::Sender::new(0),
        })
    }

    fn cells(&self) -> (u16, u16) {
        ((self.width / CELL).max(1), (self.height / CELL).max(1))
    }

    /// Whether a key ever went down.
    pub(super) fn typed(&self) -> bool {
        *self.version.borrow() > 0
    }

    /// A key went down: the next cell takes its colour, all round the screen.
    fn press(&self, key: u32) {
        let (columns, rows) = self.cells();
        let room = usize::from(columns) * usize::from(rows);
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let n = *self.version.borrow() as usize;
        match keys.get_mut(n % room) {
            Some(cell) => *cell = key,
            None => keys.push(key),
        }
        self.version.send_modify(|v| *v += 1);
    }

    /// Cells touched between two versions, as rectangles.
    fn changed(&self, from: u64, to: u64) -> Vec<Rect> {
        let (columns, rows) = self.cells();
        let room = u64::from(columns) * u64::from(rows);
        let cell = |n: u64| {
            let n = n % room;
            let (column, row) = ((n % u64::from(columns)) as u16, (n / u64::from(columns)) as u16);
            Rect { x: column * CELL, y: row * CELL, w: CELL.min(self.width), h: CELL.min(self.height) }
        };
        (from.max(to.saturating_sub(room))..to).map(cell).collect()
    }

    fn rgb(&self, keys: &[u32], x: u16, y: u16) -> [u8; 3] {
        let (columns, _) = self.cells();
        let cell = usize::from(y / CELL) * usize::from(columns) + usize::from((x / CELL).min(columns - 1));
        if let Some(key) = keys.get(cell) {
            let mixed = key.wrapping_mul(2_654_435_761).to_be_bytes();
            return [mixed[0] | 0x80, mixed[1] | 0x40, mixed[2]];
        }
        let seed = self.id.0.as_bytes();
        [(x / 4) as u8 ^ seed[13], (y / 4) as u8 ^ seed[14], ((x ^ y) / 8) as u8 ^ seed[15]]
    }

    /// The whole picture, 3 bytes a pixel.
    pub(super) fn picture(&self) -> (u32, u32, Vec<u8>) {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pixels = (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y)));
        (self.width.into(), self.height.into(), pixels.flat_map(|(x, y)| self.rgb(&keys, x, y)).collect())
    }

    /// Starts a viewer's task and gives its end of the connection.
    pub(super) fn serve(self: &Arc<Self>, mode: Mode) -> io::Result<(OwnedFd, JoinHandle<()>)> {
        let (theirs, ours) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let screen = Arc::clone(self);
        let task = tokio::spawn(async move {
            // A viewer that leaves, at any point, is no fault.
            let _ = viewer(ours, &screen, mode).await;
        });
        Ok((theirs.into(), task))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rect {
    x: u16,
    y: u16,
    w: u16,
    h: u16,
}

/// How the viewer wants its pixels.
#[derive(Clone, Copy)]
struct PixelFormat {
    bytes: u8,
    big_endian: bool,
    max: [u16; 3],
    shift: [u8; 3],
}

impl PixelFormat {
    const WIRE: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

    fn parse(b: &[u8; 16]) -> io::Result<Self> {
        let bytes = b[0] / 8;
        let shift = [b[10], b[11], b[12]];
        if !matches!(b[0], 8 | 16 | 32) || b[3] == 0 || shift.iter().any(|s| *s > 31) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "only true colour with 8, 16 or 32 bits"));
        }
        let max = [4, 6, 8].map(|i| u16::from_be_bytes([b[i], b[i + 1]]));
        Ok(Self { bytes, big_endian: b[2] != 0, max, shift })
    }

    fn put(self, out: &mut Vec<u8>, rgb: [u8; 3]) {
        let mut pixel = 0u32;
        for ((value, max), shift) in rgb.into_iter().zip(self.max).zip(self.shift) {
            pixel |= (u32::from(value) * u32::from(max) / 255) << shift;
        }
        let n = usize::from(self.bytes);
        if self.big_endian {
            out.extend_from_slice(&pixel.to_be_bytes()[4 - n..]);
        } else {
            out.extend_from_slice(&pixel.to_le_bytes()[..n]);
        }
    }
}

async fn viewer(mut stream: UnixStream, screen: &Screen, mode: Mode) -> io::Result<()> {
    let shared = handshake(&mut stream, screen).await?;
    let mut alone = screen.alone.subscribe();
    if !shared {
        screen.alone.send_modify(|n| *n += 1);
        alone.mark_unchanged();
    }
    tokio::select! {
        end = serve(&mut stream, screen, mode) => end,
        // As QEMU does it: whoever does not want to share throws all others out.
        _ = alone.changed() => Ok(()),
    }
}

async fn serve(stream: &mut UnixStream, screen: &Screen, mode: Mode) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    match mode {
        Mode::Sink => {
            let mut buffer = vec![0; 64 * 1024];
            while from.read(&mut buffer).await? > 0 {}
            Ok(())
        }
        Mode::Picture => picture(&mut from, &mut to, screen).await,
        Mode::Flood => {
            let mut format = PixelFormat::parse(&PixelFormat::WIRE)?;
            while message(&mut from, screen, &mut format).await?.is_none() {}
            let frame = update(screen, &[Rect { x: 0, y: 0, w: screen.width, h: screen.height }], format);
            let drain = async {
                loop {
                    message(&mut from, screen, &mut format).await?;
                }
            };
            let pour = async {
                loop {
                    to.write_all(&frame).await?;
                }
            };
            tokio::select! { end = drain => end, end = pour => end }
        }
    }
}

/// Whether the viewer shares the desktop.
async fn handshake(stream: &mut UnixStream, screen: &Screen) -> io::Result<bool> {
    stream.write_all(b"RFB 003.008\n").await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    if !version.starts_with(b"RFB 003.") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.write_all(&[1, 1]).await?;
    if stream.read_u8().await? != 1 {
        let reason = b"only security type None";
        stream.write_all(&[0, 0, 0, 1, 0, 0, 0, reason.len() as u8]).await?;
        stream.write_all(reason).await?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    stream.write_all(&[0; 4]).await?;
    let shared = stream.read_u8().await? != 0;
    let name = format!("simulated {}", screen.id);
    let mut init = Vec::with_capacity(64);
    init.extend_from_slice(&screen.width.to_be_bytes());
    init.extend_from_slice(&screen.height.to_be_bytes());
    init.extend_from_slice(&PixelFormat::WIRE);
    init.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
    init.extend_from_slice(name.as_bytes());
    stream.write_all(&init).await?;
    Ok(shared)
}

async fn picture<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    from: &mut R,
    to: &mut W,
    screen: &Screen,
) -> io::Result<()> {
    let mut format = PixelFormat::parse(&PixelFormat::WIRE)?;
    let mut versions = screen.version.subscribe();
    let mut sent = *versions.borrow_and_update();
    let mut waiting = false;
    loop {
        let now = *versions.borrow_and_update();
        if waiting && now != sent {
            to.write_all(&update(screen, &screen.changed(sent, now), format)).await?;
            (sent, waiting) = (now, false);
        }
        // Only the wait for a message's first byte may be given up half-way; `kind` can't be lost.
        let kind = tokio::select! {
            kind = from.read_u8() => kind?,
            _ = versions.changed(), if waiting => continue,
        };
        match body(kind, from, screen, &mut format).await? {
            Some(Request { incremental: true, .. }) => waiting = true,
            Some(Request { rect, .. }) => {
                sent = *versions.borrow_and_update();
                let rect = clip(rect, screen);
                to.write_all(&update(screen, &[rect], format)).await?;
            }
            None => {}
        }
    }
}

struct Request {
    incremental: bool,
    rect: Rect,
}

async fn message<R: AsyncRead + Unpin>(
    from: &mut R,
    screen: &Screen,
    format: &mut PixelFormat,
) -> io::Result<Option<Request>> {
    let kind = from.read_u8().await?;
    body(kind, from, screen, format).await
}

/// The rest of one message; an update request is given back, all else is dealt with here.
async fn body<R: AsyncRead + Unpin>(
    kind: u8,
    from: &mut R,
    screen: &Screen,
    format: &mut PixelFormat,
) -> io::Result<Option<Request>> {
    match kind {
        0 => {
            let mut b = [0; 19];
            from.read_exact(&mut b).await?;
            let mut wire = [0; 16];
            wire.copy_from_slice(&b[3..]);
            *format = PixelFormat::parse(&wire)?;
        }
        2 => {
            from.read_u8().await?;
            let count = from.read_u16().await?;
            skip(from, u32::from(count) * 4).await?;
        }
        3 => {
            let incremental = from.read_u8().await? != 0;
            let (x, y) = (from.read_u16().await?, from.read_u16().await?);
            let (w, h) = (from.read_u16().await?, from.read_u16().await?);
            return Ok(Some(Request { incremental, rect: Rect { x, y, w, h } }));
        }
        4 => {
            let down = from.read_u8().await? != 0;
            from.read_u16().await?;
            let key = from.read_u32().await?;
            if down {
                screen.press(key);
            }
        }
        5 => skip(from, 5).await?,
        6 => {
            skip(from, 3).await?;
            // Negative for the extended clipboard: the length is its absolute value.
            let length = from.read_i32().await?.unsigned_abs();
            if length > MAX_CUT_TEXT {
                return Err(io::ErrorKind::InvalidData.into());
            }
            skip(from, length).await?;
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    Ok(None)
}

async fn skip<R: AsyncRead + Unpin>(from: &mut R, bytes: u32) -> io::Result<()> {
    let mut left = bytes as usize;
    let mut buffer = [0; 256];
    while left > 0 {
        let n = left.min(buffer.len());
        from.read_exact(&mut buffer[..n]).await?;
        left -= n;
    }
    Ok(())
}

fn clip(r: Rect, screen: &Screen) -> Rect {
    let (x, y) = (r.x.min(screen.width), r.y.min(screen.height));
    Rect { x, y, w: r.w.min(screen.width - x), h: r.h.min(screen.height - y) }
}

/// A FramebufferUpdate with raw rectangles.
fn update(screen: &Screen, rects: &[Rect], format: PixelFormat) -> Vec<u8> {
    let keys = screen.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let pixels: usize = rects.iter().map(|r| usize::from(r.w) * usize::from(r.h)).sum();
    let mut out = Vec::with_capacity(4 + rects.len() * 12 + pixels * usize::from(format.bytes));
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&u16::try_from(rects.len()).unwrap_or(u16::MAX).to_be_bytes());
    for r in rects.iter().take(usize::from(u16::MAX)) {
        for v in [r.x, r.y, r.w, r.h, 0, 0] {
            out.extend_from_slice(&v.to_be_bytes());
        }
        for y in r.y..r.y + r.h {
            for x in r.x..r.x + r.w {
                format.put(&mut out, screen.rgb(&keys, x, y));
            }
        }
    }
    out
}
