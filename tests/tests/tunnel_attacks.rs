//! What an agent may not do to the gateway through its tunnel, on real parts.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tram_agent::identity::Identity;
use tram_controller::domain::session::Policy;
use tram_tests::db;
use tram_tests::office::Plan;
use tram_tests::tunnels::{Commune, RawLine, ask, dial, drive, open, rectangle, say, shake_hands};
use tram_tunnel::{LineEnd, Stream, Tunnel};
use tram_wire::ids::SessionId;
use tram_wire::session::{Again, Denial, Hello, Opened, Protocol, Resume, Resumed, StreamHeader, ToAgent, ToGateway};
use tram_wire::tunnel::{Class, Header, Kind, THIN_PAYLOAD};
use tram_wire::version::{self, Versions};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

async fn commune(display: &str) -> Result<(Commune, db::TestDb)> {
    let db = db::sqlite().await?;
    let commune = Commune::open(&db.store, Plan::default(), display, Policy::default()).await?;
    Ok((commune, db))
}

fn stream(tunnel: &Tunnel, session: SessionId, protocol: Protocol) -> Result<Stream> {
    let header = serde_json::to_vec(&StreamHeader { session, protocol })?;
    Ok(tunnel.open(Class::Input, Class::Display, &header)?)
}

fn words(tunnel: &Tunnel, session: SessionId, secret: &str) -> ToGateway {
    let last = tunnel.stop();
    ToGateway::Resume(Resume { versions: version::OURS, session, secret: secret.to_owned(), last })
}

async fn resume(device: &Identity, words: &ToGateway) -> Result<(RawLine, Resumed)> {
    match say(device, words).await? {
        (line, ToAgent::Resumed(r)) => Ok((line, r)),
        (_, other) => anyhow::bail!("{other:?}"),
    }
}

async fn denied(device: &Identity, words: &ToGateway) -> Result<Denial> {
    match say(device, words).await? {
        (_, ToAgent::Refused(r)) => Ok(r.reason),
        (_, other) => anyhow::bail!("{other:?}"),
    }
}

/// Whether the session still works, over its stream that was open all the time.
async fn lives(stream: &mut Stream, size: (u16, u16)) -> Result<()> {
    ask(stream, size).await?;
    timeout(PATIENCE, rectangle(stream)).await??;
    Ok(())
}

#[tokio::test]
async fn only_the_latest_secret_of_the_same_endpoint_resumes() -> Result<()> {
    let (commune, _db) = commune("picture").await?;
    let (device, other) = (commune.device().await?, commune.device().await?);
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, Opened { session, secret, .. }, line) = open(&device, &ticket).await?;
    let mut stream = stream(&tunnel, session, Protocol::Vnc)?;
    let size = shake_hands(&mut stream).await?;
    let good = words(&tunnel, session, &secret);
    line.await?;
    assert_eq!(denied(&other, &good).await?, Denial::UnknownSession, "somebody else's endpoint");
    assert_eq!(denied(&device, &words(&tunnel, session, "")).await?, Denial::Secret);
    assert_eq!(denied(&device, &words(&tunnel, session, &"0".repeat(43))).await?, Denial::Secret);
    let unknown = words(&tunnel, Uuid::now_v7().into(), &secret);
    assert_eq!(denied(&device, &unknown).await?, Denial::UnknownSession);
    let ToGateway::Resume(right) = good else { unreachable!() };
    for last in [right.last + 1000, u64::MAX] {
        let beyond = ToGateway::Resume(Resume { last, ..right.clone() });
        assert_eq!(denied(&device, &beyond).await?, Denial::Window, "never sent: {last}");
    }
    let old = ToGateway::Resume(Resume { versions: Versions { min: 9, max: 9 }, ..right.clone() });
    assert_eq!(denied(&device, &old).await?, Denial::Version);

    // The answer got lost on its way: the same secret once more, and it works.
    let good = ToGateway::Resume(right);
    drop(resume(&device, &good).await?);
    let (line, resumed) = resume(&device, &good).await?;
    assert_ne!(resumed.secret, secret);
    let line = drive(&tunnel, line, resumed.last);
    lives(&mut stream, size).await?;
    // From now on it is void.
    assert_eq!(denied(&device, &good).await?, Denial::Secret);
    lives(&mut stream, size).await?;
    let next = words(&tunnel, session, &resumed.secret);
    line.await?;
    let (line, resumed) = resume(&device, &next).await?;
    drive(&tunnel, line, resumed.last);
    lives(&mut stream, size).await
}

#[tokio::test]
async fn of_two_that_resume_at_once_one_carries_and_nothing_is_lost() -> Result<()> {
    let (commune, _db) = commune("flood").await?;
    let device = commune.device().await?;
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, Opened { session, mut secret, .. }, mut line) = open(&device, &ticket).await?;
    let mut stream = stream(&tunnel, session, Protocol::Vnc)?;
    let size = shake_hands(&mut stream).await?;
    ask(&mut stream, size).await?;
    let first = rectangle(&mut stream).await?;
    // The display sends the same update without end: a lost or doubled byte shifts all that follows.
    let (count, mut counted) = watch::channel(0_u32);
    let reader = tokio::spawn(async move {
        while let Ok(next) = rectangle(&mut stream).await {
            assert!(next == first);
            count.send_modify(|n| *n += 1);
        }
    });
    for round in 0..10 {
        let words = words(&tunnel, session, &secret);
        line.await?;
        let (a, b) = tokio::join!(resume(&device, &words), resume(&device, &words));
        // Whichever was answered last holds the session; the other's line is closed by the gateway.
        let (mut carried, mut ends, mut secrets) = (None, Vec::new(), vec![secret.clone()]);
        for answer in [a, b] {
            let (line, resumed) = match answer {
                Ok(answered) => answered,
                Err(e) => {
                    ends.push(format!("{e:#}"));
                    continue;
                }
            };
            secrets.push(resumed.secret.clone());
            match carries(&tunnel, line, resumed.last, &mut counted).await? {
                Ok(line) => {
                    carried = Some((line, resumed.secret));
                    break;
                }
                Err(end) => ends.push(end),
            }
        }
        // What was sent over the one may have made the other's answer old; an agent then dials again, with
        // the secret it was given last.
        while let (None, Some(latest)) = (&carried, secrets.pop()) {
            let words = self::words(&tunnel, session, &latest);
            let Ok((line, resumed)) = resume(&device, &words).await else { continue };
            match carries(&tunnel, line, resumed.last, &mut counted).await? {
                Ok(line) => carried = Some((line, resumed.secret)),
                Err(end) => ends.push(end),
            }
        }
        (line, secret) = carried.with_context(|| format!("neither carried in round {round}: {ends:?}"))?;
    }
    assert!(!reader.is_finished());
    Ok(())
}

/// Drives a line until two more pictures came over it; else why it ended.
async fn carries(
    tunnel: &Tunnel,
    line: RawLine,
    last: u64,
    counted: &mut watch::Receiver<u32>,
) -> Result<Result<JoinHandle<LineEnd>, String>> {
    let goal = *counted.borrow() + 2;
    let mut line = drive(tunnel, line, last);
    tokio::select! {
        end = &mut line => Ok(Err(end?.to_string())),
        more = timeout(PATIENCE, counted.wait_for(|n| *n >= goal)) => {
            more.context("nothing came and nothing ended")??;
            Ok(Ok(line))
        }
    }
}

#[tokio::test]
async fn a_breach_ends_the_line_and_not_the_session() -> Result<()> {
    let (commune, _db) = commune("picture").await?;
    let device = commune.device().await?;
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, Opened { session, secret, .. }, line) = open(&device, &ticket).await?;
    let mut stream = stream(&tunnel, session, Protocol::Vnc)?;
    let size = shake_hands(&mut stream).await?;
    sleep(Duration::from_millis(200)).await;
    let mut words = words(&tunnel, session, &secret);
    line.await?;
    let frame = |kind, stream, number, payload: &[u8]| {
        let length = u16::try_from(payload.len()).unwrap();
        [&Header { kind, class: 0x13, length, stream, number }.encode()[..], payload].concat()
    };
    let data = [7; THIN_PAYLOAD];
    for round in 0..8 {
        let (mut line, resumed) = resume(&device, &words).await?;
        let n = resumed.last + 1;
        let bad = match round {
            0 => frame(Kind::Data, 99, n, b"x"),
            1 => frame(Kind::Open, 77, n, b"{}"),
            2 => frame(Kind::Credit, 1, n, &u32::MAX.to_be_bytes()),
            3 => frame(Kind::Data, 1, 0, b"x"),
            4 => frame(Kind::Data, 1, n + 5, b"x"),
            5 => frame(Kind::Ack, 0, u64::MAX, b""),
            6 => vec![0xff; 100],
            _ => frame(Kind::Hello, 0, 0, b"{}"),
        };
        line.write_all(&bad).await?;
        let mut rest = Vec::new();
        // Closed by the gateway, without TLS's goodbye or with.
        let _ = timeout(PATIENCE, line.read_to_end(&mut rest)).await.context("it was not closed")?;
        let ToGateway::Resume(again) = &mut words else { unreachable!() };
        again.secret = resumed.secret;
    }
    let (line, resumed) = resume(&device, &words).await?;
    drive(&tunnel, line, resumed.last);
    lives(&mut stream, size).await?;
    // Beyond the credit: a display that takes nothing, and an agent that sends on.
    drop((tunnel, data));
    Ok(())
}

#[tokio::test]
async fn data_beyond_the_credit_ends_the_line() -> Result<()> {
    let (commune, _db) = commune("picture").await?;
    let device = commune.device().await?;
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, Opened { session, secret, .. }, line) = open(&device, &ticket).await?;
    sleep(Duration::from_millis(200)).await;
    let words = words(&tunnel, session, &secret);
    line.await?;
    let (mut line, resumed) = resume(&device, &words).await?;
    let header = serde_json::to_vec(&StreamHeader { session, protocol: Protocol::Vnc })?;
    let mut number = resumed.last;
    let mut frame = |kind, payload: &[u8]| {
        number += 1;
        let length = u16::try_from(payload.len()).unwrap();
        [&Header { kind, class: 0x13, length, stream: 1, number }.encode()[..], payload].concat()
    };
    line.write_all(&frame(Kind::Open, &header)).await?;
    // The gateway waits for RFB's first words and reads no more than those: credit runs out.
    let mut sent = 0;
    let ended = timeout(PATIENCE, async {
        while line.write_all(&frame(Kind::Data, &[0; 4000])).await.is_ok() {
            sent += 4000;
        }
    });
    ended.await.context("it took everything")?;
    assert!(sent < 8 << 20, "{sent}");
    Ok(())
}

#[tokio::test]
async fn streams_are_limited_to_what_the_session_may_have() -> Result<()> {
    let (commune, _db) = commune("picture").await?;
    let device = commune.device().await?;
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, Opened { session, .. }, _line) = open(&device, &ticket).await?;
    for (what, mut stream) in [
        ("another session", stream(&tunnel, Uuid::now_v7().into(), Protocol::Vnc)?),
        ("an unknown protocol", stream(&tunnel, session, Protocol::Other)?),
        ("no header", tunnel.open(Class::Input, Class::Display, b"")?),
    ] {
        let e = timeout(PATIENCE, stream.read_u8()).await?.unwrap_err();
        assert!(e.to_string().contains("4010"), "{what}: {e}");
    }
    let mut codes = Vec::new();
    for _ in 0..40 {
        let mut one = stream(&tunnel, session, Protocol::Other)?;
        codes.push(timeout(PATIENCE, one.read_u8()).await?.unwrap_err().to_string());
    }
    assert!(codes.iter().any(|c| c.contains("4011")), "openings are slowed down");
    Ok(())
}

#[tokio::test]
async fn who_says_the_wrong_first_words_is_sent_away() -> Result<()> {
    let (commune, _db) = commune("picture").await?;
    let device = commune.device().await?;
    let version = ToGateway::Hello(Hello { versions: Versions { min: 7, max: 9 } });
    assert_eq!(denied(&device, &version).await?, Denial::Version);
    let again = Again { session: Uuid::now_v7().into(), token: "vda1_x".into() };
    assert_eq!(denied(&device, &ToGateway::Again(again)).await?, Denial::Malformed);
    let mut line = dial(&device).await?.map_err(|code| anyhow::anyhow!("HTTP {code}"))?;
    line.write_all(b"GET / HTTP/1.1\r\n\r\n----------------").await?;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, line.read_to_end(&mut rest)).await.context("it was not closed")?;
    assert!(rest.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_token_takes_a_session_up_once_and_only_for_its_endpoint() -> Result<()> {
    for db in db::both().await? {
        let commune = Commune::open(&db.store, Plan::default(), "picture", Policy::default()).await?;
        let (device, other) = (commune.device().await?, commune.device().await?);
        let ticket = commune.ticket(0, &device).await?;
        let (_tunnel, opened, _line) = open(&device, &ticket).await?;
        let again = async |device: &Identity, token: &str| -> Result<ToAgent> {
            let (line, _) = say(device, &ToGateway::Hello(Hello { versions: version::OURS })).await?;
            let tunnel = Tunnel::new(tram_tunnel::Role::Agent, tram_tunnel::Limits::default());
            let _line = drive(&tunnel, line, 0);
            let ask = Again { session: opened.session, token: token.to_owned() };
            tunnel.send(ToGateway::Again(ask).encode()?.as_bytes())?;
            let message = timeout(PATIENCE, tunnel.message()).await?.context("closed")?;
            match ToAgent::decode(&message)? {
                tram_wire::Incoming::Message(m) => Ok(m),
                tram_wire::Incoming::Unknown { kind } => anyhow::bail!("{kind}"),
            }
        };
        let no = |m: ToAgent| matches!(m, ToAgent::Refused(r) if r.reason == Denial::Ticket);
        assert!(no(again(&other, &opened.again).await?), "another endpoint");
        assert!(no(again(&device, &format!("vda1_{}", "A".repeat(43))).await?), "a guess");
        assert!(no(again(&device, "").await?));
        // At the same time: one wins.
        let (a, b) = tokio::join!(again(&device, &opened.again), again(&device, &opened.again));
        let won = [a?, b?].into_iter().filter(|m| matches!(m, ToAgent::Opened(_))).count();
        assert_eq!(won, 1, "on {}", db.store.engine());
        assert!(no(again(&device, &opened.again).await?), "a second time");
    }
    Ok(())
}

#[tokio::test]
async fn a_viewer_that_never_reads_costs_its_credit_and_nobody_else_notices() -> Result<()> {
    let (commune, _db) = commune("flood").await?;
    let device = commune.device().await?;
    let ticket = commune.ticket(0, &device).await?;
    let (tunnel, Opened { session, .. }, _line) = open(&device, &ticket).await?;
    let mut stalled = stream(&tunnel, session, Protocol::Vnc)?;
    let size = shake_hands(&mut stalled).await?;
    ask(&mut stalled, size).await?;
    // What arrived at the agent stops at the credit: the gateway sends no more.
    let mut before = 0;
    timeout(PATIENCE, async {
        loop {
            sleep(Duration::from_millis(500)).await;
            let now = tunnel.stats().received;
            if now > 60_000 && now - before < 2_000 {
                return;
            }
            before = now;
        }
    })
    .await
    .context("it sends on and on")?;
    assert!(before < 5 << 20, "{before} bytes for a viewer that reads nothing");
    let mut lively = stream(&tunnel, session, Protocol::Vnc)?;
    shake_hands(&mut lively).await?;
    ask(&mut lively, size).await?;
    let first = timeout(PATIENCE, rectangle(&mut lively)).await??;
    for _ in 0..5 {
        assert!(timeout(PATIENCE, rectangle(&mut lively)).await?? == first);
    }
    Ok(())
}
