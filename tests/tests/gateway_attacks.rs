//! What attackers and broken viewers try at a gateway's doors, beyond what its other tests have on the way: the same
//! ticket at two gateways, bent tickets, the WebSocket zoo, handshakes that never end, certificates that prove nothing.
//! The table of all cases is `docs/operations/session-attacks.md`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};
use tram_agent::identity::Identity;
use tram_controller::domain::session::Policy;
use tram_controller::identity::ca::DeviceCa;
use tram_controller::nudge::Bus;
use tram_controller::services::{Ctx, endpoints};
use tram_controller::store::{Db, Store};
use tram_tests::db;
use tram_tests::gate::{Gate, close_code, masked};
use tram_tests::office::Plan;
use tram_tests::tunnels::{Commune, ask, dial, open, rectangle, say, shake_hands};
use tram_tunnel::{Stream, Tunnel, read_words, write_words};
use tram_wire::ids::SessionId;
use tram_wire::session::{Denial, Hello, Protocol, StreamHeader, ToAgent, ToGateway};
use tram_wire::tunnel::Class;
use tram_wire::version;

/// The machine may be slow and busy; the time is no part of the claim.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_gateways_get_the_same_ticket_a_thousand_times_and_one_opens() -> Result<()> {
    for db in db::both().await? {
        let mut gate = Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        // One controller a file; on PostgreSQL the second gateway has connections of its own.
        let store = match db.store.db() {
            Db::Sqlite { .. } => db.store.clone(),
            Db::Postgres(_) => Store::open(&db.url, Bus::default()).await?,
        };
        let doors = [gate.address, gate.beside(&store).await?];
        let (gate, start) = (Arc::new(gate), Arc::new(Barrier::new(doors.len())));
        let mut wins = [0; 2];
        for round in 0..1000 {
            let (_, ticket) = gate.ticket(0).await?;
            let knocks = doors.map(|door| {
                let (gate, start, ticket) = (gate.clone(), start.clone(), ticket.clone());
                tokio::spawn(async move {
                    start.wait().await;
                    gate.raw_knock(door, &ticket, "").await
                })
            });
            let mut won = 0;
            for (knock, wins) in knocks.into_iter().zip(&mut wins) {
                let (socket, answer) = knock.await??;
                match answer.split(' ').nth(1) {
                    Some("101") => (won, *wins) = (won + 1, *wins + 1),
                    Some("403") => {}
                    other => bail!("{other:?} in round {round}: {answer}"),
                }
                drop(socket);
            }
            ensure!(won == 1, "{won} opened in round {round} on {}", db.store.engine());
        }
        eprintln!("{}: {wins:?} of 1000", db.store.engine());
    }
    Ok(())
}

#[tokio::test]
async fn a_ticket_that_was_bent_or_blown_up_is_as_bad_as_none() -> Result<()> {
    let db = db::sqlite().await?;
    let gate = Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (_, good) = gate.ticket(0).await?;
    let (_, none) = gate.raw_knock(gate.address, "vdt1_x", "").await?;
    ensure!(none.starts_with("HTTP/1.1 403"), "{none}");
    let mut refused = 0;
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bent = good.clone().into_bytes();
            bent[at] ^= 1 << bit;
            // What can't stand in a header, or stands for two tickets, is another test's.
            if !bent[at].is_ascii_graphic() || bent[at] == b',' {
                continue;
            }
            let bent = String::from_utf8(bent)?;
            let (_, answer) = gate.raw_knock(gate.address, &bent, "").await?;
            // But for the time, word for word.
            let same = |a: &str| a.lines().filter(|l| !l.starts_with("date:")).map(str::to_owned).collect::<Vec<_>>();
            ensure!(same(&answer) == same(&none), "bit {bit} of {at}: {answer}");
            refused += 1;
        }
    }
    ensure!(refused > 200, "{refused}");
    // Ten megabytes are refused before they are read, and nobody pays for them.
    let mut socket = TcpStream::connect(gate.address).await?;
    socket.write_all(b"GET /gateway/v1/vnc HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: binary, vdt1_").await?;
    let blow = async {
        for _ in 0..160 {
            socket.write_all(&[b'A'; 65_536]).await?;
        }
        anyhow::Ok(())
    };
    let _ = timeout(PATIENCE, blow).await.context("it is neither taken nor refused")?;
    let mut answer = Vec::new();
    // A reset may overtake the answer.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.context("it stays open")?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // All that spoiled nothing.
    gate.knock(&good).await?.shake_hands().await?;
    Ok(())
}

#[tokio::test]
async fn compression_is_not_agreed_to_and_endless_messages_end() -> Result<()> {
    let db = db::sqlite().await?;
    let gate = Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let (_, mut bystander) = gate.view(1).await?;
    let (_, ticket) = gate.ticket(0).await?;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame\r\n";
    let (mut socket, answer) = gate.raw_knock(gate.address, &ticket, offer).await?;
    ensure!(answer.starts_with("HTTP/1.1 101") && !answer.to_lowercase().contains("extensions"), "{answer}");
    // A bomb: ten bytes that would become a thousand times as many.
    let bomb = masked(0xc2, &[0xec, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90, 0xfe]);
    socket.write_all(&bomb).await?;
    assert_eq!(timeout(PATIENCE, close_code(&mut socket)).await??, 1002, "what was not agreed to is not spoken");

    let fragment = |first| masked(first, &[7; 65_536]);
    let endless = std::iter::once(fragment(0x02)).chain((0..40).map(|_| fragment(0x00))).flatten().collect::<Vec<_>>();
    // What fills RFB messages without a fault, so that only the frames can be at fault.
    let mut honest = masked(0x02, &[6, 0, 0, 0, 0, 16, 0, 0]);
    for _ in 0..40 {
        honest.extend(masked(0x00, &[b'x'; 32_768]));
    }
    for (name, bytes, codes) in [
        ("fragments without end", honest, &[1009][..]),
        ("fragments without end, of nonsense", endless, &[1002, 1009]),
        ("a message inside another", [masked(0x02, b""), masked(0x82, b"")].concat(), &[1002]),
        ("a continuation of nothing", masked(0x80, b""), &[1002]),
        ("an unknown kind", masked(0x83, b""), &[1002]),
        ("an unknown control frame", masked(0x8b, b""), &[1002]),
        ("a control frame of 126 bytes", masked(0x89, &[0; 126]), &[1002]),
        ("length 2^64-1", vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[1009]),
        ("a goodbye without a code", masked(0x88, b""), &[1000]),
    ] {
        let mut socket = gate.raw(0).await?;
        // A refused frame may be answered before all of it is sent.
        let _ = socket.write_all(&bytes).await;
        let code = timeout(PATIENCE, close_code(&mut socket)).await.context(name)?.context(name)?;
        ensure!(codes.contains(&code), "{name}: {code}");
    }
    bystander.picture(640, 400).await?;
    Ok(())
}

fn stream(tunnel: &Tunnel, session: SessionId, protocol: Protocol) -> Result<Stream> {
    let header = serde_json::to_vec(&StreamHeader { session, protocol })?;
    Ok(tunnel.open(Class::Input, Class::Display, &header)?)
}

/// Until the other side ends it; the bytes that came before.
async fn ended<S: AsyncReadExt + Unpin>(what: &str, line: &mut S) -> Result<Vec<u8>> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, line.read_to_end(&mut rest)).await.with_context(|| format!("{what}: never left"))?;
    Ok(rest)
}

/// A byte, and then one more every 200 ms: each is progress, and the sum never is.
async fn dribble<S: AsyncWriteExt + AsyncReadExt + Unpin>(what: &str, line: &mut S, words: &[u8]) -> Result<Vec<u8>> {
    let slow = async {
        let mut byte = [0];
        for word in words.iter().cycle() {
            tokio::select! {
                end = line.read(&mut byte) => if !matches!(end, Ok(n) if n > 0) { return },
                () = sleep(Duration::from_millis(200)) => {
                    if line.write_all(&[*word]).await.is_err() || line.flush().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    timeout(PATIENCE, slow).await.with_context(|| format!("{what}: a byte now and then is enough"))?;
    Ok(Vec::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_dribbles_is_left_at_every_stage_and_others_are_served() -> Result<()> {
    let db = db::sqlite().await?;
    let policy = Policy { handshake: Duration::from_secs(2), ..Policy::default() };
    let commune = Commune::open(&db.store, Plan::default(), "picture", policy).await?;
    let device = commune.device().await?;
    let raw = async || dial(&device).await?.map_err(|code| anyhow::anyhow!("HTTP {code}"));

    // Before the first words, inside them, and before the first message.
    let (mut silent, mut slow) = (raw().await?, raw().await?);
    let mut words = Vec::new();
    write_words(&mut words, ToGateway::Hello(Hello { versions: version::OURS }).encode()?.as_bytes()).await?;
    let (mut asks_nothing, answer) = say(&device, &ToGateway::Hello(Hello { versions: version::OURS })).await?;
    ensure!(matches!(answer, ToAgent::Welcome(_)), "{answer:?}");
    // Inside RFB's handshake and a link of SPICE, on streams of a session that works.
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, opened, _line) = open(&device, &ticket).await?;
    let mut good = stream(&tunnel, opened.session, Protocol::Vnc)?;
    let size = shake_hands(&mut good).await?;
    let mut rfb = stream(&tunnel, opened.session, Protocol::Vnc)?;
    let mut spice = stream(&tunnel, opened.session, Protocol::Spice)?;
    let (mut mute_rfb, mut mute_spice) =
        (stream(&tunnel, opened.session, Protocol::Vnc)?, stream(&tunnel, opened.session, Protocol::Spice)?);
    // Right after the upgrade of a WebSocket.
    let (_, ticket) = commune.gate.ticket(1).await?;
    let mut socket = commune.gate.raw_upgrade(&ticket).await?;

    let link = [&b"REDQ"[..], &[2, 0, 0, 0, 2, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 1, 0]].concat();
    let stages = async {
        tokio::try_join!(
            ended("no first words", &mut silent),
            dribble("first words", &mut slow, &words),
            ended("no first message", &mut asks_nothing),
            dribble("RFB", &mut rfb, b"RFB 003.00"),
            dribble("SPICE", &mut spice, &link),
            ended("RFB without a word", &mut mute_rfb),
            ended("SPICE without a word", &mut mute_spice),
            async {
                // Nothing at all: closed with the code of a limit.
                let code = timeout(PATIENCE, close_code(&mut socket)).await.context("WebSocket: never left")??;
                ensure!(code == 4003, "{code}");
                anyhow::Ok(Vec::<u8>::new())
            },
        )
    };
    stages.await?;
    ask(&mut good, size).await?;
    timeout(PATIENCE, rectangle(&mut good)).await.context("the session that works")??;
    ensure!(commune.gate.gateway.connections() == 1, "nothing is left of them");
    Ok(())
}

#[tokio::test]
async fn a_huge_clipboard_ends_its_stream_of_a_tunnel_at_its_header() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "sink", Policy::default()).await?;
    let device = commune.device().await?;
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, opened, _line) = open(&device, &ticket).await?;
    for message in [
        [&[6, 0, 0, 0][..], &0x7fff_ffff_u32.to_be_bytes()].concat(),
        [&[6, 0, 0, 0][..], &0x8000_0000_u32.to_be_bytes()].concat(),
        vec![2, 0, 0xff, 0xff],
        vec![99],
    ] {
        let mut one = stream(&tunnel, opened.session, Protocol::Vnc)?;
        shake_hands(&mut one).await?;
        one.write_all(&message).await?;
        let e = timeout(PATIENCE, one.read_u8()).await.context("it goes on")?.unwrap_err();
        ensure!(e.to_string().contains("1002"), "{message:?}: {e}");
    }
    // 2^32-1 is -1: an extended clipboard of one byte, and legal.
    let mut one = stream(&tunnel, opened.session, Protocol::Vnc)?;
    shake_hands(&mut one).await?;
    one.write_all(&[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 4, 1, 0, 0, 0, 0, 0, 97]).await?;
    ensure!(timeout(Duration::from_secs(1), one.read_u8()).await.is_err(), "it was ended");
    Ok(())
}

/// The answer of the tunnels' door.
async fn door(device: &Identity) -> Result<&'static str> {
    // A certificate that is refused is refused by an answer; only who shows none at all is cut by TLS, or not.
    match dial(device).await {
        Ok(Ok(_)) => Ok("open"),
        Ok(Err(403)) => Ok("403"),
        Ok(Err(code)) => bail!("HTTP {code}"),
        Err(e) => bail!("{e:#}"),
    }
}

#[tokio::test]
async fn the_tunnels_door_opens_to_good_certificates_only() -> Result<()> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
    let app = commune.gate.office.app.clone();
    let now = app.clock.now();
    let device = commune.device().await?;
    ensure!(door(&device).await? == "open");
    let day = Duration::from_secs(86_400);
    let elsewhere = tempfile::tempdir()?;
    let other = DeviceCa::open(elsewhere.path(), now)?;
    let nobody = Identity { endpoint_id: uuid::Uuid::now_v7().into(), ..device.clone() };
    for (what, bad) in [
        ("expired", commune.reissued(&device, None, now.minus(day * 31))?),
        ("not yet good", commune.reissued(&device, None, now.plus(day * 40))?),
        ("another authority's", commune.reissued(&device, Some(&other), now)?),
        ("ours, for nobody", commune.reissued(&nobody, None, now)?),
    ] {
        ensure!(door(&bad).await? == "403", "{what}");
    }
    ensure!(door(&commune.reissued(&device, None, now)?).await? == "open", "one that was renewed");

    // Copied to a second computer, it has neither the ticket, which is used, nor the secret to go on with.
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, opened, line) = open(&device, &ticket).await?;
    let mut mine = stream(&tunnel, opened.session, Protocol::Vnc)?;
    let size = shake_hands(&mut mine).await?;
    let copy = device.clone();
    ensure!(open(&copy, &ticket).await.is_err(), "the ticket again");
    let guess = tram_wire::session::Resume {
        versions: version::OURS,
        session: opened.session,
        secret: "0".repeat(43),
        last: 0,
    };
    let (_, answer) = say(&copy, &ToGateway::Resume(guess)).await?;
    ensure!(matches!(&answer, ToAgent::Refused(r) if r.reason == Denial::Secret), "{answer:?}");
    ask(&mut mine, size).await?;
    timeout(PATIENCE, rectangle(&mut mine)).await.context("the first one goes on")??;

    // One withdrawal ends both.
    let mut held = dial(&copy).await?.map_err(|code| anyhow::anyhow!("HTTP {code}"))?;
    endpoints::revoke(&app, &Ctx::local_admin(app.clock.now()), device.endpoint_id, "copied").await?;
    timeout(PATIENCE, line).await.context("the tunnel goes on")??;
    ensure!(door(&copy).await? == "403");
    write_words(&mut held, ToGateway::Hello(Hello { versions: version::OURS }).encode()?.as_bytes()).await?;
    // It stood in the door; there is no ticket for it to come further.
    let _ = read_words(&mut held).await;
    ensure!(commune.gate.gateway.connections() == 0);
    Ok(())
}
