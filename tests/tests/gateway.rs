//! The gateway over real TCP, before a simulated host: good viewers, bad tickets, bad frames, and cuts.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tram_controller::domain::session::{Policy, SessionState};
use tram_controller::services::broker;
use tram_hypervisor::{Hypervisor, Stop};
use tram_tests::db;
use tram_tests::gate::{Gate, Viewer, close_code, masked};
use tram_tests::office::Plan;
use tram_wire::ids::SessionId;

async fn gate(plan: Plan, display: &str) -> Result<(db::TestDb, Gate)> {
    let db = db::sqlite().await?;
    let gate = Gate::open(&db.store, plan, display, Policy::default()).await?;
    Ok((db, gate))
}

async fn state(gate: &Gate, id: SessionId) -> SessionState {
    gate.office.app.store.session(id).await.unwrap().unwrap().state
}

/// Waits until a session is in a state.
async fn reaches(gate: &Gate, id: SessionId, wanted: SessionState) {
    let until = Instant::now() + Duration::from_secs(5);
    while state(gate, id).await != wanted {
        assert!(Instant::now() < until, "the session never became {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn refusal(e: WsError) -> (u16, String) {
    match e {
        WsError::Http(r) => {
            (r.status().as_u16(), String::from_utf8_lossy(r.body().as_deref().unwrap_or_default()).into_owned())
        }
        other => panic!("not an HTTP answer: {other}"),
    }
}

#[tokio::test]
async fn an_officer_types_leaves_and_finds_what_was_typed() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (id, ticket) = gate.ticket(0).await?;
    let mut viewer = gate.knock(&ticket).await?;
    let (w, h) = viewer.shake_hands().await?;
    let before = viewer.picture(w, h).await?;
    reaches(&gate, id, SessionState::Active).await;
    viewer.send(&[4, 1, 0, 0, 0, 0, 0x1e, 0xa1]).await?;
    let after = viewer.picture(w, h).await?;
    assert!(before != after, "a key changes the picture");
    // An independent implementation of the protocol answers our pings and gets answers to its own.
    viewer.stream.send(Message::Ping(b"are you there"[..].into())).await?;
    let pong = viewer.stream.next().await.expect("an answer")?;
    assert_eq!(pong, Message::Pong(b"are you there"[..].into()));
    viewer.stream.close(None).await?;
    reaches(&gate, id, SessionState::Disconnected).await;
    assert_eq!(gate.gateway.connections(), 0);

    let (again, mut viewer) = gate.view(0).await?;
    assert_eq!(again, id);
    assert!(viewer.picture(w, h).await? == after, "the same desktop, with what was typed");
    drop(viewer);
    reaches(&gate, id, SessionState::Disconnected).await;
    let row = gate.office.app.store.session(id).await?.unwrap();
    assert_eq!(row.resumes, 1);
    assert!(row.first_frame_at.is_some());
    assert!(row.bytes_up > 20 && row.bytes_down > 3 * i64::from(w) * i64::from(h) * 4, "{row:?}");
    Ok(())
}

/// The fence behind a picture comes, and goes back.
async fn drawn(viewer: &mut Viewer) -> Result<()> {
    let fence = viewer.read(13).await?;
    assert_eq!((fence[0], fence[4] & 0x80, fence[8]), (248, 0x80, 4), "a fence behind each picture");
    viewer.send(&[&[248, 0, 0, 0, 0, 0, 0, 1, 4][..], &fence[9..]].concat()).await
}

#[tokio::test]
async fn a_viewer_that_knows_fences_gets_pictures_without_asking() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (_, ticket) = gate.ticket(0).await?;
    let mut viewer = gate.knock(&ticket).await?;
    let (w, h) = viewer.shake_hands().await?;
    // Raw, Fence, ContinuousUpdates.
    viewer.send(&[2, 0, 0, 3, 0, 0, 0, 0, 255, 255, 254, 200, 255, 255, 254, 199]).await?;
    assert_eq!(viewer.read(1).await?, [150], "the gateway knows them too");
    viewer.picture(w, h).await?;
    drawn(&mut viewer).await?;
    viewer.send(&[&[150, 1, 0, 0, 0, 0][..], &w.to_be_bytes(), &h.to_be_bytes()].concat()).await?;
    for _ in 0..20 {
        viewer.send(&[4, 1, 0, 0, 0, 0, 0x1e, 0xa1]).await?;
        viewer.rectangle().await?;
        drawn(&mut viewer).await?;
    }
    // Asking stays possible, and so does switching it off.
    viewer.picture(w, h).await?;
    drawn(&mut viewer).await?;
    viewer.send(&[&[150, 0, 0, 0, 0, 0][..], &w.to_be_bytes(), &h.to_be_bytes()].concat()).await?;
    assert_eq!(viewer.read(1).await?, [150]);
    Ok(())
}

#[tokio::test]
async fn every_bad_ticket_gets_the_same_answer() -> Result<()> {
    for db in db::both().await? {
        let gate = Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let (_, void) = gate.ticket(0).await?;
        let (_, used) = gate.ticket(0).await?;
        let viewer = gate.knock(&used).await?;
        let (_, expired) = gate.ticket(1).await?;
        gate.office.sql("UPDATE tickets SET issued_at = issued_at - 31000000, expires_at = expires_at - 31000000 WHERE redeemed_at IS NULL").await?;
        let huge = format!("vdt1_{}", "A".repeat(60_000));
        let unknown = format!("vdt1_{}", "A".repeat(43));
        let mut answers = Vec::new();
        for ticket in
            [&void, &used, &expired, &huge, &unknown, &used[..40], "x", "vdt1_", "vdt1_%00'; DROP TABLE tickets"]
        {
            let answer = refusal(gate.knock(ticket).await.err().expect("refused"));
            answers.push(answer);
        }
        assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
        assert_eq!(answers[0].0, 403);
        assert!(answers[0].1.contains("G-101"), "{}", answers[0].1);

        // The same time, too: medians of the two kinds that take the most different ways inside, in turns. The
        // pause lets the note about the last refusal, which is written after its answer, come to rest.
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..25 {
            for (ticket, times) in ["x", &used].into_iter().zip(&mut times) {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let began = Instant::now();
                gate.knock(ticket).await.err().expect("refused");
                times.push(began.elapsed());
            }
        }
        let medians = times.map(|mut t| {
            t.sort();
            t[12].as_secs_f64()
        });
        let ratio = medians[0] / medians[1];
        assert!((0.5..2.0).contains(&ratio), "{medians:?} on {}", db.store.engine());
        drop(viewer);
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_page_is_refused_and_the_ticket_stays_good() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (_, ticket) = gate.ticket(0).await?;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let (status, body) = refusal(gate.knock_from(&ticket, origin).await.err().expect("refused"));
        assert_eq!(status, 403, "{origin}");
        assert!(body.contains("G-102"), "{body}");
    }
    gate.knock(&ticket).await?.shake_hands().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ticket_used_twice_at_once_opens_once() -> Result<()> {
    for db in db::both().await? {
        let gate = std::sync::Arc::new(Gate::open(&db.store, Plan::default(), "picture", Policy::default()).await?);
        for round in 0..20 {
            let (_, ticket) = gate.ticket(0).await?;
            let tries: Vec<_> = (0..3)
                .map(|_| {
                    let (gate, ticket) = (gate.clone(), ticket.clone());
                    tokio::spawn(async move { gate.knock(&ticket).await.is_ok() })
                })
                .collect();
            let mut won = 0;
            for t in tries {
                won += usize::from(t.await?);
            }
            assert_eq!(won, 1, "round {round} on {}", db.store.engine());
        }
    }
    Ok(())
}

#[tokio::test]
async fn bad_frames_close_with_their_code_and_others_stay() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (_, mut bystander) = gate.view(1).await?;
    let cases: [(&str, Vec<u8>, u16); 8] = [
        ("unmasked", vec![0x82, 3, 1, 2, 3], 1002),
        ("compressed", masked(0xc2, b"x"), 1002),
        ("text", masked(0x81, b"hello"), 1003),
        ("2^63 bytes", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], 1009),
        ("over the limit", masked(0x82, &vec![3; (1 << 20) + 1]), 1009),
        ("a fragmented ping", masked(0x09, b"x"), 1002),
        ("65535 encodings", masked(0x82, &[2, 0, 0xff, 0xff]), 1002),
        ("an unknown message", masked(0x82, &[99]), 1002),
    ];
    for (name, bytes, code) in cases {
        let mut socket = gate.raw(0).await?;
        // A refused frame may be answered before all of it is sent.
        let _ = socket.write_all(&bytes).await;
        assert_eq!(timeout(Duration::from_secs(5), close_code(&mut socket)).await??, code, "{name}");
    }
    bystander.picture(640, 400).await?;
    Ok(())
}

#[tokio::test]
async fn a_huge_clipboard_is_stopped_at_its_header() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "sink").await?;
    for length in [0x7fff_ffff_u32, 0x8000_0000, (1 << 20) + 1] {
        let mut socket = gate.raw(0).await?;
        let message = [&[6, 0, 0, 0][..], &length.to_be_bytes()].concat();
        socket.write_all(&masked(0x82, &message)).await?;
        assert_eq!(timeout(Duration::from_secs(5), close_code(&mut socket)).await??, 1002, "{length}");
    }
    // 2^32-1 is -1: an extended clipboard of one byte, and legal.
    let mut socket = gate.raw(0).await?;
    socket.write_all(&masked(0x82, &[6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0])).await?;
    socket.write_all(&masked(0x88, b"")).await?;
    assert_eq!(timeout(Duration::from_secs(5), close_code(&mut socket)).await??, 1000);
    Ok(())
}

#[tokio::test]
async fn a_newer_window_takes_over() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (id, mut old) = gate.view(0).await?;
    let (same, mut new) = gate.view(0).await?;
    assert_eq!(id, same);
    assert_eq!(timeout(Duration::from_secs(3), old.closed()).await??, 4004);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(state(&gate, id).await, SessionState::Active, "the old one's end is not the session's");
    new.picture(640, 400).await?;
    assert_eq!(gate.gateway.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn ending_disabling_and_stopping_cut_within_seconds() -> Result<()> {
    for db in db::both().await? {
        let gate =
            Gate::open(&db.store, Plan { desktops: 3, officers: 3, ..Plan::default() }, "picture", Policy::default())
                .await?;
        let app = &gate.office.app;
        let (ended, mut first) = gate.view(0).await?;
        let (_, mut second) = gate.view(1).await?;
        let (third_id, mut third) = gate.view(2).await?;

        let began = Instant::now();
        broker::end(app, &gate.office.officer(0), ended).await?;
        assert_eq!(timeout(Duration::from_secs(5), first.closed()).await??, 4000);
        assert!(began.elapsed() < Duration::from_secs(2), "ended after {:?}", began.elapsed());

        let began = Instant::now();
        gate.office.sql("UPDATE users SET disabled = TRUE WHERE username = 'officer1'").await?;
        assert_eq!(timeout(Duration::from_secs(6), second.closed()).await??, 4000);
        assert!(began.elapsed() < Duration::from_secs(5), "disabled after {:?}", began.elapsed());

        let desktop = app.store.session(third_id).await?.unwrap().desktop_id.unwrap();
        let began = Instant::now();
        gate.sim.ensure_stopped(desktop.into(), Stop::Force).await?;
        assert_eq!(timeout(Duration::from_secs(5), third.closed()).await??, 4001);
        assert!(began.elapsed() < Duration::from_secs(2), "stopped after {:?}", began.elapsed());
        reaches(&gate, third_id, SessionState::Disconnected).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_ticket_of_an_ended_session_shows_nothing() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (id, ticket) = gate.ticket(0).await?;
    // Redeemed, then ended before the handshake is done: revoked between redemption and first picture.
    let mut viewer = gate.knock(&ticket).await?;
    viewer.read(12).await?;
    broker::end(&gate.office.app, &gate.office.officer(0), id).await?;
    viewer.send(b"RFB 003.008\n").await?;
    viewer.read(2).await?;
    viewer.send(&[1]).await?;
    viewer.read(4).await?;
    viewer.send(&[1]).await?;
    assert_eq!(timeout(Duration::from_secs(5), viewer.closed()).await??, 4000);
    Ok(())
}

#[tokio::test]
async fn a_display_that_does_not_open_is_said_by_its_code() -> Result<()> {
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let (id, ticket) = gate.ticket(0).await?;
    let desktop = gate.office.app.store.session(id).await?.unwrap().desktop_id.unwrap();
    gate.sim.ensure_stopped(desktop.into(), Stop::Force).await?;
    assert_eq!(timeout(Duration::from_secs(5), gate.knock(&ticket).await?.closed()).await??, 4001);
    gate.sim.ensure_running(desktop.into()).await?;
    gate.sim.set_offline(true);
    let (_, ticket) = gate.ticket(0).await?;
    assert_eq!(timeout(Duration::from_secs(5), gate.knock(&ticket).await?.closed()).await??, 4002);
    Ok(())
}

#[tokio::test]
async fn an_idle_viewer_and_a_gateway_that_stops_say_goodbye() -> Result<()> {
    let db = db::sqlite().await?;
    let policy = Policy { idle: Duration::from_secs(3), ..Policy::default() };
    let gate = Gate::open(&db.store, Plan::default(), "picture", policy).await?;
    let (_, mut idle) = gate.view(0).await?;
    assert_eq!(timeout(Duration::from_secs(8), idle.closed()).await??, 4003);
    let (id, mut viewer) = gate.view(1).await?;
    let (drained, code) = tokio::join!(gate.gateway.drain(), timeout(Duration::from_secs(5), viewer.closed()));
    let () = drained;
    assert_eq!(code??, 1012);
    assert_eq!(state(&gate, id).await, SessionState::Disconnected);
    let (status, _) = refusal(gate.knock("vdt1_x").await.err().expect("refused"));
    assert_eq!(status, 503);
    Ok(())
}

#[tokio::test]
async fn a_stalled_viewer_does_not_grow_memory_and_others_go_on() -> Result<()> {
    let (_db, gate) = gate(Plan { desktops: 12, officers: 12, ..Plan::default() }, "flood").await?;
    let ask = masked(0x82, &[3, 0, 0, 0, 0, 0, 2, 128, 1, 144]);
    let mut stalled = Vec::new();
    let before = resident_kib();
    for n in 0..10 {
        let mut socket = gate.raw(n).await?;
        socket.write_all(&ask).await?;
        stalled.push(socket);
    }
    // Somebody reads meanwhile: 50 MB pass by the ten that never read.
    let mut reader = gate.raw(10).await?;
    reader.write_all(&ask).await?;
    let mut left: i64 = 50 << 20;
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        left -= timeout(Duration::from_secs(10), reader.read(&mut buffer)).await?? as i64;
    }
    let grown = resident_kib().saturating_sub(before);
    // Per stalled viewer: a buffer of 64 KiB, and the 1 MiB picture the simulated desktop itself holds.
    assert!(grown < 10 * (64 + 1024 + 256) + 4096, "{grown} KiB for ten stalled viewers");
    assert_eq!(gate.gateway.connections(), 11);
    Ok(())
}

#[tokio::test]
async fn a_handshake_of_a_byte_a_second_ends() -> Result<()> {
    let db = db::sqlite().await?;
    let policy = Policy { handshake: Duration::from_secs(2), ..Policy::default() };
    let gate = Gate::open(&db.store, Plan::default(), "picture", policy).await?;
    let (id, ticket) = gate.ticket(0).await?;
    let mut socket = gate.raw_upgrade(&ticket).await?;
    let began = Instant::now();
    let slow = async {
        // Each byte is a whole good frame: only the sum is too slow.
        for byte in b"RFB 003.008\n" {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if socket.write_all(&masked(0x82, &[*byte])).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    let _ = timeout(Duration::from_secs(3), slow).await;
    assert_eq!(timeout(Duration::from_secs(5), close_code(&mut socket)).await??, 4003);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(state(&gate, id).await, SessionState::Ready, "nobody was connected");
    Ok(())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn large_input_arrives_whole_in_any_cut() -> Result<()> {
    // The simulated desktop checks every message: one wrong byte of framing and it hangs up.
    let (_db, gate) = gate(Plan::default(), "picture").await?;
    let mut socket = gate.raw(0).await?;
    let text = vec![b'x'; 300_000];
    let mut message = [&[6, 0, 0, 0][..], &300_000_u32.to_be_bytes(), &text].concat();
    for key in 0..50_u8 {
        message.extend_from_slice(&[4, 1, 0, 0, 0, 0, 0, key]);
    }
    let mut stream = Vec::new();
    for (n, part) in message.chunks(7_777).enumerate() {
        stream.extend(masked(if n == 0 { 0x02 } else { 0x00 }, part));
        stream.extend(masked(0x89, b"beat"));
    }
    stream.extend(masked(0x80, &[3, 0, 0, 0, 0, 0, 2, 128, 1, 144]));
    for piece in stream.chunks(1_111) {
        socket.write_all(piece).await?;
    }
    let mut pongs = 0;
    let mut picture = 0;
    while picture < 640 * 400 * 4 + 16 {
        let (first, second) =
            timeout(Duration::from_secs(5), async { anyhow::Ok((socket.read_u8().await?, socket.read_u8().await?)) })
                .await??;
        let length = if second == 126 { socket.read_u16().await?.into() } else { usize::from(second) };
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await?;
        match first {
            0x8a => pongs += 1,
            0x82 => picture += length,
            other => panic!("frame {other:x}"),
        }
    }
    assert!(pongs >= 1);
    Ok(())
}
