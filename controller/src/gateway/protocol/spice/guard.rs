//! Brings a viewer's channel and QEMU together without ever leaving QEMU with half a display channel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::super::super::shape::Grant;
use super::super::next_piece;
use super::frames::{self, DISPLAY_INIT, DOWNWARD_LIMIT, Frames, HEADER, MAIN_INIT, UPWARD_LIMIT};
use super::link::{self, AUTHENTICATION, Kind, Link};
use super::session::{Channels, Seat};
use super::{Failure, Refusal};

/// How long QEMU may take for its part of a link.
const DISPLAY: Duration = Duration::from_secs(10);
/// How long a viewer may take for its first message on a display channel.
const INIT: Duration = Duration::from_secs(5);
/// The longest such message.
const INIT_LIMIT: u32 = 64;
/// How long QEMU's side outlives a viewer that went before the channel had begun; and how long a display
/// channel's viewer waits when there is nothing to be drawn.
const LINGER: Duration = Duration::from_secs(2);
/// All went well, as the answer to a ticket.
const OK: [u8; 4] = [0; 4];

/// What passes, for whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Bytes came from the viewer.
    Up(usize),
    /// A person did something.
    Input,
    /// Bytes went to the viewer.
    Down(usize),
    /// The same without asking for room: they never wait.
    Unasked(usize),
    /// Something was drawn.
    Picture,
}

/// How a channel that was open ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The viewer closed it.
    Viewer,
    /// QEMU closed it.
    Display,
    /// The viewer announced a message no honest one sends.
    TooLong,
}

/// QEMU's side of a channel. However this is dropped, by an error or with the task it lives in, a channel QEMU
/// has just been let into is read from until it has begun.
#[derive(Debug)]
struct Held {
    display: Option<UnixStream>,
    /// The ticket went out and the channel has not begun yet.
    beginning: AtomicBool,
}

impl Held {
    fn new(display: UnixStream) -> Self {
        Self { display: Some(display), beginning: AtomicBool::new(false) }
    }

    fn stream(&mut self) -> Result<&mut UnixStream, Failure> {
        self.display.as_mut().ok_or(Failure::Display)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (Some(mut display), true) = (self.display.take(), *self.beginning.get_mut()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut piece = [0; 4096];
            let drained = async { while display.read(&mut piece).await.is_ok_and(|n| n > 0) {} };
            let _ = timeout(LINGER, drained).await;
        });
    }
}

/// A channel that is open on both sides.
#[derive(Debug)]
pub struct Linked {
    held: Held,
    seat: Seat,
}

/// Links one channel. `open` gets a descriptor for it from the hypervisor and is asked only once the viewer's
/// link holds together; `limit` is the viewer's time for its link and its ticket.
///
/// # Errors
/// [`Failure`]; a refusal has been told to the viewer, unless nothing was said at all.
pub async fn link<V, O, E>(
    viewer: &mut V,
    channels: &Channels,
    limit: Duration,
    open: impl FnOnce() -> O,
) -> Result<Linked, LinkError<E>>
where
    V: AsyncRead + AsyncWrite + Unpin,
    O: Future<Output = Result<UnixStream, E>>,
{
    let asked = timeout(limit, Link::read(viewer)).await.map_err(|_| Failure::Viewer)?.map_err(|_| Failure::Viewer)?;
    let judged = asked.and_then(|link| channels.enter(&link).map(|seat| (link, seat)));
    let (link, seat) = match judged {
        Ok(judged) => judged,
        Err(why) => return Err(refuse(viewer, why, limit).await.into()),
    };
    let mut held = Held::new(open().await.map_err(LinkError::Open)?);
    let reply = timeout(DISPLAY, async {
        let display = held.stream().ok()?;
        display.write_all(&link.words).await.ok()?;
        link::read_reply(display).await.ok().flatten()
    });
    let reply = reply.await.ok().flatten().ok_or(Failure::Display)?;
    let ticket = timeout(limit, async {
        viewer.write_all(&reply).await?;
        let mut ticket = [0; AUTHENTICATION];
        viewer.read_exact(&mut ticket).await.map(|_| ticket)
    });
    let ticket = ticket.await.map_err(|_| Failure::Viewer)?.map_err(|_| Failure::Viewer)?;
    if !link::by_ticket(&ticket) {
        return Err(Failure::Refused(Refusal::Data).into());
    }
    let mut words = ticket.to_vec();
    if seat.kind() == Kind::Display {
        words.extend(timeout(INIT, first_message(viewer)).await.map_err(|_| Failure::Viewer)??);
    }
    timeout(DISPLAY, admit(&mut held, &words)).await.map_err(|_| Failure::Display)??;
    if seat.kind() != Kind::Display {
        timeout(limit, viewer.write_all(&OK)).await.map_err(|_| Failure::Viewer)?.map_err(|_| Failure::Viewer)?;
    }
    Ok(Linked { held, seat })
}

/// Why [`link`] failed.
#[derive(Debug)]
pub enum LinkError<E> {
    /// The link itself.
    Link(Failure),
    /// No descriptor could be had.
    Open(E),
}

impl<E> From<Failure> for LinkError<E> {
    fn from(failure: Failure) -> Self {
        Self::Link(failure)
    }
}

async fn refuse<V: AsyncWrite + Unpin>(viewer: &mut V, why: Refusal, limit: Duration) -> Failure {
    let said = timeout(limit, async {
        viewer.write_all(&link::refusal(why)).await?;
        viewer.shutdown().await
    });
    // Who does not listen to it is refused as well.
    let _ = said.await;
    Failure::Refused(why)
}

/// Tells the viewer that it is let in, and waits for the message that must come first.
async fn first_message<V: AsyncRead + AsyncWrite + Unpin>(viewer: &mut V) -> Result<Vec<u8>, Failure> {
    viewer.write_all(&OK).await.map_err(|_| Failure::Viewer)?;
    let mut words = vec![0; HEADER];
    viewer.read_exact(&mut words).await.map_err(|_| Failure::Viewer)?;
    let size = u32::from_le_bytes([words[2], words[3], words[4], words[5]]);
    if u16::from_le_bytes([words[0], words[1]]) != DISPLAY_INIT || size > INIT_LIMIT {
        return Err(Failure::Refused(Refusal::Data));
    }
    words.resize(HEADER + size as usize, 0);
    viewer.read_exact(&mut words[HEADER..]).await.map_err(|_| Failure::Viewer)?;
    Ok(words)
}

/// Sends what QEMU needs to let the channel in, all at once, and hears its answer.
async fn admit(held: &mut Held, words: &[u8]) -> Result<(), Failure> {
    held.beginning.store(true, Ordering::Relaxed);
    let display = held.stream()?;
    display.write_all(words).await.map_err(|_| Failure::Display)?;
    let mut answer = [0; 4];
    display.read_exact(&mut answer).await.map_err(|_| Failure::Display)?;
    if answer == OK { Ok(()) } else { Err(Failure::Display) }
}

impl Linked {
    /// Both ways until one side ends. A viewer that does not read holds one piece here; QEMU feels it.
    /// `room` waits until pictures may be read, and says how many bytes of them; it is asked when there are some.
    pub async fn carry<'a, R, W, F>(
        mut self,
        from_viewer: &mut R,
        to_viewer: &mut W,
        note: impl Fn(Note),
        room: impl Fn() -> F,
    ) -> End
    where
        R: AsyncBufRead + Unpin,
        W: AsyncWrite + Unpin,
        F: Future<Output = Grant<'a>>,
    {
        let Held { display, beginning } = &mut self.held;
        let Some(display) = display.as_mut() else { return End::Display };
        let (from_display, mut to_display) = display.split();
        let (seat, kind) = (&self.seat, self.seat.kind());
        let begun = Notify::new();
        let up = async {
            // QEMU reads on while it works on DISPLAY_INIT: whatever makes it close the channel then, a broken
            // message as much as an end, is as deadly as an end before it. So it hears no more until it draws.
            if kind == Kind::Display {
                let _ = timeout(LINGER, begun.notified()).await;
                beginning.store(false, Ordering::Relaxed);
            }
            let mut frames = Frames::new(UPWARD_LIMIT);
            loop {
                let piece = match from_viewer.fill_buf().await {
                    Ok(piece) if !piece.is_empty() => piece,
                    _ => return End::Viewer,
                };
                let n = piece.len();
                note(Note::Up(n));
                let mut input = false;
                if frames.feed(piece, |m, _| input |= kind == Kind::Inputs && frames::is_input(m)).is_err() {
                    return End::TooLong;
                }
                if input {
                    note(Note::Input);
                }
                if to_display.write_all(piece).await.is_err() {
                    return End::Display;
                }
                from_viewer.consume(n);
            }
        };
        let down = async {
            // Followed only until it is known what is looked for.
            let mut frames = matches!(kind, Kind::Main | Kind::Display).then(|| Frames::new(DOWNWARD_LIMIT));
            let mut piece = Vec::new();
            loop {
                let most = async || if kind == Kind::Display { room().await } else { Grant::free(usize::MAX) };
                let Some(n) = next_piece(&from_display, &mut piece, most).await else { return End::Display };
                if kind != Kind::Display {
                    beginning.store(false, Ordering::Relaxed);
                }
                let mut found = false;
                let followed = frames.as_mut().map(|f| {
                    f.feed(&piece[..n], |m, word| match (kind, m, word) {
                        (Kind::Main, MAIN_INIT, Some(id)) => {
                            seat.named(id);
                            found = true;
                        }
                        (Kind::Display, m, None) => {
                            if m >= frames::OF_THE_CHANNEL {
                                begun.notify_one();
                            }
                            if !found && frames::is_picture(m) {
                                note(Note::Picture);
                                found = true;
                            }
                        }
                        _ => {}
                    })
                });
                if found || followed.is_some_and(|f| f.is_err()) {
                    frames = None;
                }
                if to_viewer.write_all(&piece[..n]).await.is_err() {
                    return End::Viewer;
                }
                note(if kind == Kind::Display { Note::Down(n) } else { Note::Unasked(n) });
            }
        };
        tokio::select! {
            end = up => end,
            end = down => end,
        }
    }
}
