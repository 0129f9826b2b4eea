//! The streams of a tunnel: each to its own display of the desktop.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tram_hypervisor::Display;
use tram_tunnel::{ReadStream, Stream, Tunnel, WriteStream};
use tram_wire::session::{Protocol, StreamHeader};

use super::super::Gateway;
use super::super::link::Link;
use super::super::protocol::next_piece;
use super::super::protocol::spice::guard::{self, LinkError, Note};
use super::super::protocol::spice::session::Channels;
use super::super::protocol::spice::{Failure, guard::End as SpiceEnd};
use super::super::protocol::vnc;
use super::super::protocol::vnc::pace::Pacer;
use super::super::protocol::vnc::requests::Requests;
use super::Entry;
use crate::domain::session::Cut;
use crate::domain::ticket;

/// Streams that may be opened at once, and how fast that fills up again: an honest viewer of SPICE opens ten
/// in its first second.
const BURST: u32 = 16;
const REFILL: Duration = Duration::from_millis(250);

/// Codes of streams that are broken off; those of sessions are the codes of [`Cut`].
mod code {
    /// The header makes no sense, or wants what the session may not have.
    pub const NOT_ALLOWED: u16 = 4010;
    /// Too many were opened.
    pub const TOO_FAST: u16 = 4011;
    /// The viewer broke the rules of its protocol.
    pub const PROTOCOL: u16 = 1002;
}

/// Serves what the agent opens, until the tunnel is closed.
pub(super) async fn accept(gateway: Gateway, tunnel: Tunnel, link: Arc<Link>, entry: Arc<Entry>) {
    let mut streams = JoinSet::new();
    let channels = Channels::default().with_sound(entry.policy.audio);
    let (mut budget, mut filled) = (BURST, Instant::now());
    loop {
        let next = tokio::select! {
            next = tunnel.accept() => next,
            Some(_) = streams.join_next() => continue,
        };
        let Some((stream, header)) = next else { return };
        while budget < BURST && filled.elapsed() >= REFILL {
            budget += 1;
            filled += REFILL;
        }
        if budget == BURST {
            filled = Instant::now();
        }
        if budget == 0 {
            stream.reset(code::TOO_FAST);
            continue;
        }
        budget -= 1;
        match allowed(&header, &entry) {
            Some(Protocol::Vnc) => {
                streams.spawn(vnc_stream(gateway.clone(), link.clone(), entry.clone(), stream));
            }
            Some(Protocol::Spice) => {
                let channels = channels.clone();
                streams.spawn(spice_stream(gateway.clone(), link.clone(), entry.clone(), stream, channels));
            }
            Some(Protocol::Other) | None => stream.reset(code::NOT_ALLOWED),
        }
    }
}

fn allowed(header: &[u8], entry: &Entry) -> Option<Protocol> {
    let header: StreamHeader =
        serde_json::from_slice(header).ok().filter(|h: &StreamHeader| h.session == entry.session)?;
    let wanted = match header.protocol {
        Protocol::Vnc => ticket::Protocol::Vnc,
        Protocol::Spice => ticket::Protocol::Spice,
        Protocol::Other => return None,
    };
    entry.protocols.has(wanted).then_some(header.protocol)
}

async fn vnc_stream(gateway: Gateway, link: Arc<Link>, entry: Arc<Entry>, mut stream: Stream) {
    let began = Instant::now();
    let open = async {
        let display = gateway.open_display(entry.session, entry.desktop).await;
        link.opened(began.elapsed());
        display
    };
    let hands = timeout(gateway.0.policy.handshake, vnc::welcome(&mut stream));
    let (display, hands) = tokio::join!(open, hands);
    let mut display = match (display, hands) {
        (Ok(display), Ok(Ok(()))) => display,
        // The officer is told why, not which viewer failed.
        (Err(cut), _) => return link.cut(cut),
        (_, Ok(Err(_)) | Err(_)) => return stream.reset(code::PROTOCOL),
    };
    if display.write_all(&[vnc::SHARED]).await.is_err() {
        if !gateway.display_closed(&link).await {
            stream.reset(Cut::DesktopGone.code());
        }
        return;
    }
    let first = || gateway.first_picture(&link, entry.age);
    let (mut from_viewer, mut to_viewer) = stream.into_split();
    match copy(&link, &mut from_viewer, &mut to_viewer, &mut display, first).await {
        End::Viewer => {
            // The rest of what the viewer wanted to say has been said.
            let _ = display.shutdown().await;
        }
        End::Display => {
            if !gateway.display_closed(&link).await {
                to_viewer.reset(Cut::DesktopGone.code());
            }
        }
        End::Message(fault) => {
            tracing::warn!(session = %entry.session, fault = fault.0, "a viewer broke the rules of RFB");
            to_viewer.reset(code::PROTOCOL);
        }
    }
}

async fn spice_stream(gateway: Gateway, link: Arc<Link>, entry: Arc<Entry>, mut stream: Stream, channels: Channels) {
    let began = Instant::now();
    let open = async || {
        let display = gateway.open_raw(entry.session, entry.desktop, Display::Spice).await;
        link.opened(began.elapsed());
        display
    };
    let linked = match guard::link(&mut stream, &channels, gateway.0.policy.handshake, open).await {
        Ok(linked) => linked,
        Err(LinkError::Open(Some(cut))) => return link.cut(cut),
        // Nothing was said yet: the agent tries another viewer.
        Err(LinkError::Open(None)) => return stream.reset(code::NOT_ALLOWED),
        Err(LinkError::Link(Failure::Display)) => {
            if !gateway.display_closed(&link).await {
                stream.reset(Cut::DesktopGone.code());
            }
            return;
        }
        Err(LinkError::Link(why)) => {
            counter!("gateway_spice_refused_total").increment(1);
            tracing::warn!(session = %entry.session, error = %why, "a channel was not let in");
            return match why {
                // It was told in the protocol's own words, which an end at once would overtake.
                Failure::Refused(_) => drop(stream),
                _ => stream.reset(code::PROTOCOL),
            };
        }
    };
    let (mut from_viewer, mut to_viewer) = stream.into_split();
    let note = |note| match note {
        Note::Up(n) => link.heard(n),
        Note::Input => link.touched(),
        Note::Down(n) => {
            link.written(n);
            link.drew(0);
        }
        Note::Unasked(n) => {
            link.written(n);
            link.unasked(n);
        }
        Note::Picture => gateway.first_picture(&link, entry.age),
    };
    let shared: &Link = &link;
    match linked.carry(&mut from_viewer, &mut to_viewer, note, || shared.room()).await {
        SpiceEnd::Viewer => {}
        SpiceEnd::Display => {
            if !gateway.display_closed(&link).await {
                to_viewer.reset(Cut::DesktopGone.code());
            }
        }
        SpiceEnd::TooLong => {
            tracing::warn!(session = %entry.session, "a viewer broke the rules of SPICE");
            to_viewer.reset(code::PROTOCOL);
        }
    }
}

enum End {
    Viewer,
    Display,
    Message(vnc::client::Fault),
}

/// Both ways until one side ends. A line that is lost, or a viewer that does not read, holds one piece here
/// and the tunnel's credit; the desktop feels the back-pressure.
async fn copy(
    link: &Link,
    from_viewer: &mut ReadStream,
    to_viewer: &mut WriteStream,
    display: &mut UnixStream,
    first: impl FnOnce(),
) -> End {
    let (from_display, mut to_display) = display.split();
    let pacer = Pacer::following();
    let up = async {
        let (mut requests, mut out) = (Requests::default(), Vec::new());
        requests.grant(link.rights());
        loop {
            let piece = tokio::select! {
                piece = from_viewer.fill_buf() => Some(piece),
                () = pacer.ask_due(), if requests.between() => None,
            };
            let n = match piece {
                Some(Ok(piece)) if !piece.is_empty() => {
                    link.heard(piece.len());
                    match requests.feed(piece, &mut out, |ask, out| pacer.viewer(ask, out)) {
                        Ok(true) => link.touched(),
                        Ok(false) => {}
                        Err(fault) => return End::Message(fault),
                    }
                    piece.len()
                }
                None => 0,
                Some(_) => return End::Viewer,
            };
            from_viewer.consume(n);
            if requests.between() {
                pacer.take_asks(&mut out);
            }
            if to_display.write_all(&out).await.is_err() {
                return End::Display;
            }
            out.clear();
        }
    };
    let down = async {
        let mut first = Some(first);
        let mut piece = Vec::new();
        loop {
            let Some(n) = next_piece(&from_display, &mut piece, || link.room()).await else { return End::Display };
            pacer.cap(link.allowance());
            let passed = pacer.desktop(&piece[..n]);
            if to_viewer.write_all(&piece[..n]).await.is_err() {
                return End::Viewer;
            }
            link.written(n);
            if passed.picture {
                link.drew(passed.pictures);
                if let Some(first) = first.take() {
                    first();
                }
            }
        }
    };
    tokio::select! {
        end = up => end,
        end = down => end,
    }
}
