//! What a supporter's viewer gets through to a real QEMU, which itself says which input reached it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tram_controller::gateway::link::Link;
use tram_controller::gateway::protocol::vnc;
use tram_controller::gateway::protocol::vnc::requests::Rights;
use tram_controller::gateway::relay::{self, Buffers, Inbox};
use tram_tests::gate::masked;
use tram_tests::guest::Guest;
use tram_tests::screen::{PATIENCE, wait};
use tram_wire::ids::{DesktopId, SessionId};
use uuid::Uuid;

/// Raw pixels, and the clipboard: QEMU answers who lists it with a cut text message of its own.
const ENCODINGS: &[u8] = &[2, 0, 0, 2, 0, 0, 0, 0, 0xc0, 0xa1, 0xe5, 0xce];
/// One pixel; QEMU adds what changed besides.
const REQUEST: &[u8] = &[3, 0, 0, 0, 0, 0, 0, 1, 0, 1];
/// A key both ways a viewer can say it, the mouse, and text.
const INPUT: &[&[u8]] = &[
    &[4, 1, 0, 0, 0, 0, 0, b'a'],
    &[4, 0, 0, 0, 0, 0, 0, b'a'],
    &[255, 0, 0, 1, 0, 0, 0, b'b', 0, 0, 0, 48],
    &[255, 0, 0, 0, 0, 0, 0, b'b', 0, 0, 0, 48],
    &[5, 1, 0, 9, 0, 9],
    &[5, 0, 0, 9, 0, 9],
    &[6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c'],
];

/// Payload of the next frame.
async fn frame(from: &mut DuplexStream) -> Result<Vec<u8>> {
    from.read_u8().await?;
    let length = match from.read_u8().await? {
        126 => from.read_u16().await?.into(),
        n => usize::from(n),
    };
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(payload)
}

/// Sends everything with these rights, and a request for a pixel behind it; the kinds of QEMU's messages up to its answer.
async fn send_all(folder: &Path, rights: Rights) -> Result<Vec<u8>> {
    let mut display = UnixStream::connect(folder.join("vnc.sock")).await?;
    vnc::greet(&mut display).await.context("QEMU shakes hands")?;
    display.write_all(&[vnc::SHARED]).await?;
    let link = Link::new(SessionId(Uuid::now_v7()), DesktopId(Uuid::now_v7()), 0);
    link.grant(rights);
    let (mut viewer, gateway) = tokio::io::duplex(1 << 20);
    let (from_viewer, mut to_viewer) = tokio::io::split(gateway);
    let buffers = Buffers::default();
    let mut inbox = Inbox::new(from_viewer, &buffers);
    let speak = async {
        for message in [&[ENCODINGS], INPUT, &[REQUEST]].concat() {
            viewer.write_all(&masked(0x82, message)).await?;
        }
        let (mut have, mut kinds) = (Vec::new(), Vec::new());
        // The desktop's size and name come first.
        while have.len() < 24 || have.len() < 24 + usize::from(have[23]) {
            have.extend(frame(&mut viewer).await?);
        }
        have.drain(..24 + usize::from(have[23]));
        loop {
            let whole = match have.as_slice() {
                [0, ..] => 1,
                [3, _, _, _, a, b, c, d, ..] => 8 + i32::from_be_bytes([*a, *b, *c, *d]).unsigned_abs() as usize,
                _ => usize::MAX,
            };
            if have.len() < whole {
                have.extend(frame(&mut viewer).await?);
                continue;
            }
            kinds.push(have[0]);
            if have[0] == 0 {
                return Ok(kinds);
            }
            have.drain(..whole);
        }
    };
    let relayed = relay::run(&mut inbox, &mut to_viewer, &mut display, &link, &buffers, || ());
    tokio::select! {
        kinds = timeout(PATIENCE, speak) => kinds?,
        end = relayed => anyhow::bail!("the relay ended: {end:?}"),
    }
}

#[tokio::test]
async fn qemu_hears_nothing_of_who_only_looks() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("input.log");
    let _guest = Guest::start_with(folder.path(), &["-trace", "input_event_*", "-D", &log.display().to_string()])?;
    let heard = |what: &str| fs::read_to_string(&log).unwrap_or_default().matches(what).count();

    let kinds = send_all(folder.path(), Rights::Look).await?;
    assert_eq!(kinds, [0], "a picture, and nothing of the clipboard");
    // QEMU works a connection off in order: the answer came after all that was before it.
    ensure!(heard("input_event") == 0, "{}", fs::read_to_string(&log)?);

    assert_eq!(send_all(folder.path(), Rights::Control).await?, [0], "nor with keys and mouse");
    wait("both keys, down and up", || Ok((heard("input_event_key") >= 4).then_some(())))?;
    wait("the mouse", || Ok((heard("input_event_btn") >= 2).then_some(())))?;
    assert_eq!(send_all(folder.path(), Rights::default()).await?, [3, 0], "the session's own viewer has the clipboard");
    Ok(())
}
