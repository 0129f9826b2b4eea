//! The doors of a real controller: TLS of the wrong kind, greetings that never end, and a clock that is wrong.
//! The table of all cases is `docs/operations/session-attacks.md`.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tram_agent::identity::Identity;
use tram_tests::db;
use tram_tests::device::{Console, Device, WallClock};
use tram_tests::world::{PATIENCE, World};
use tram_wire::{SERVER_NAME, TUNNEL_PATH, TUNNEL_UPGRADE};

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Trusts one authority, and shows a certificate if it has one.
fn client(ca: &str, own: Option<&Identity>, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(der?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots);
    Ok(match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain =
                CertificateDer::pem_slice_iter(own.issued.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes())?)?
        }
    })
}

/// A server that runs, its authority, and an endpoint that is enrolled.
fn furnished() -> Result<(World, String, Identity)> {
    let mut world = World::new()?;
    world.start()?;
    let ca = std::fs::read_to_string(world.path().join("tls/ca.pem"))?;
    let (device, _) = Device::enrolled(&world)?;
    let identity = serde_json::from_value(device.identity()?)?;
    Ok((world, ca, identity))
}

/// A `ClientHello` of TLS 1.1: no extensions, two suites of its time.
fn hello_of_2006() -> Vec<u8> {
    let body = [&[3, 2][..], &[7; 32], &[0], &[0, 4, 0xc0, 0x13, 0xc0, 0x09], &[1, 0]].concat();
    let length = u8::try_from(body.len()).expect("short");
    [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
}

#[test]
fn old_tls_other_names_and_early_data_lead_nowhere() -> Result<()> {
    let (world, ca, device) = furnished()?;
    for (door, at) in [("browsers", world.web), ("agents", world.agents)] {
        let mut socket = std::net::TcpStream::connect(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(&hello_of_2006())?;
        let mut alert = [0; 7];
        socket.read_exact(&mut alert).context(door)?;
        // An alert, fatal: protocol version, or nothing in common.
        ensure!(alert[0] == 0x15 && matches!(alert[5..], [2, 40 | 70]), "{door}: {alert:?}");
    }

    // Both are offered: nobody in the middle talks them down, as both sides agree on the best in what they sign.
    let name = |name: &'static str| ServerName::try_from(name);
    let shake = |config: &Arc<ClientConfig>, at: SocketAddr, name: ServerName<'static>| -> Result<ClientConnection> {
        let mut socket = std::net::TcpStream::connect(at)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(config.clone(), name)?;
        ensure!(tls.early_data().is_none(), "something may be sent twice");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        tls.writer().write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        tls.complete_io(&mut socket)?;
        // Tickets to come back with arrive with the answer.
        let mut answer = [0; 1];
        while let Err(e) = tls.reader().read(&mut answer) {
            ensure!(e.kind() == std::io::ErrorKind::WouldBlock, "{e}");
            tls.complete_io(&mut socket)?;
        }
        Ok(tls)
    };
    let mut config = client(&ca, None, BOTH)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_early_data = true;
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    let first = shake(&config, world.web, name("localhost")?)?;
    ensure!(first.protocol_version() == Some(ProtocolVersion::TLSv1_3));
    // Who comes back may be known, but nothing they said before they were is listened to.
    let again = shake(&config, world.web, name("localhost")?)?;
    ensure!(again.handshake_kind() == Some(HandshakeKind::Resumed), "{:?}", again.handshake_kind());

    // Another name gets the one certificate there is, which is not its own.
    let other = shake(&config, world.web, name("other.example")?).err().context("another name")?.to_string();
    ensure!(other.contains("not valid for name"), "{other}");
    let mut config = client(&device.issued.ca_pem, Some(&device), BOTH)?;
    config.enable_early_data = true;
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _twice in 0..2 {
        let tls = shake(&config, world.agents, name(SERVER_NAME)?)?;
        ensure!(tls.handshake_kind() != Some(HandshakeKind::Resumed), "agents prove their key each time");
    }
    shake(&config, world.agents, name("other.example")?).err().context("another name")?;
    Ok(())
}

/// The status of the tunnels' door.
async fn tunnel_door(world: &World, config: ClientConfig) -> Result<String> {
    let mut line = secure(world.agents, config, SERVER_NAME).await?;
    let head =
        format!("GET {TUNNEL_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {TUNNEL_UPGRADE}\r\n\r\n");
    line.write_all(head.as_bytes()).await?;
    let mut status = [0; 12];
    timeout(PATIENCE, line.read_exact(&mut status)).await??;
    Ok(String::from_utf8_lossy(&status[9..]).into_owned())
}

async fn secure(at: SocketAddr, config: ClientConfig, name: &'static str) -> Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(at).await?;
    Ok(timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name.try_into()?, socket)).await??)
}

/// Until the other side ends it, however it does.
async fn ended<S: AsyncRead + Unpin>(what: &str, mut line: S) -> Result<()> {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, line.read_to_end(&mut rest)).await.with_context(|| format!("{what}: never left"))?;
    Ok(())
}

/// A byte a second, and each looks like the beginning of something.
async fn dribble<S: AsyncRead + AsyncWrite + Unpin>(what: &str, mut line: S, words: &[u8]) -> Result<()> {
    let slow = async {
        let mut byte = [0];
        for word in words.iter().chain(std::iter::repeat(&b'a')) {
            tokio::select! {
                end = line.read(&mut byte) => if !matches!(end, Ok(n) if n > 0) { return },
                () = sleep(Duration::from_secs(1)) => {
                    if line.write_all(&[*word]).await.is_err() || line.flush().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    timeout(PATIENCE, slow).await.with_context(|| format!("{what}: a byte a second is enough"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_a_second_holds_no_door() -> Result<()> {
    let (world, ca, device) = tokio::task::spawn_blocking(furnished).await??;
    ensure!(tunnel_door(&world, client(&device.issued.ca_pem, Some(&device), BOTH)?).await? == "101");
    let old = client(&device.issued.ca_pem, Some(&device), &[&rustls::version::TLS12])?;
    ensure!(tunnel_door(&world, old).await? == "403", "a tunnel by TLS 1.2");
    ensure!(tunnel_door(&world, client(&device.issued.ca_pem, None, BOTH)?).await? == "403", "without a certificate");

    let web = async |alpn: &[&str]| -> Result<TlsStream<TcpStream>> {
        let mut config = client(&ca, None, BOTH)?;
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        secure(world.web, config, "localhost").await
    };
    let agent = async || secure(world.agents, client(&device.issued.ca_pem, Some(&device), BOTH)?, SERVER_NAME).await;
    let (web_tcp, web_hello) = (TcpStream::connect(world.web).await?, TcpStream::connect(world.web).await?);
    let (agent_tcp, agent_hello) = (TcpStream::connect(world.agents).await?, TcpStream::connect(world.agents).await?);
    let (silent, greets, head) = (web(&["http/1.1"]).await?, web(&["h2"]).await?, web(&["http/1.1"]).await?);
    let (mute, guess) = (web(&["h2"]).await?, web(&[]).await?);
    let (agent_silent, agent_head) = (agent().await?, agent().await?);
    let upgrade = b"GET /gateway/v1/vnc HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX: ";
    let hello = hello_of_2006();
    tokio::try_join!(
        ended("browsers, TCP", web_tcp),
        dribble("browsers, TLS", web_hello, &hello),
        ended("browsers, HTTP/1.1 without a word", silent),
        ended("browsers, HTTP/2 without a word", mute),
        ended("browsers, no version", guess),
        dribble("browsers, HTTP/2's greeting", greets, b"PRI * HTTP/2.0\r\n\r\n"),
        dribble("browsers, the head of an upgrade", head, upgrade),
        ended("agents, TCP", agent_tcp),
        dribble("agents, TLS", agent_hello, &hello),
        ended("agents, HTTP without a word", agent_silent),
        dribble("agents, the head of an upgrade", agent_head, b"GET /agent/v1/tunnel HTTP/1.1\r\nX: "),
    )?;
    // Who speaks is served as before.
    let mut line = web(&["http/1.1"]).await?;
    line.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut status = [0; 12];
    timeout(PATIENCE, line.read_exact(&mut status)).await??;
    ensure!(&status == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&status));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_whose_clock_is_an_hour_off_writes_the_databases_time() -> Result<()> {
    let db = db::postgres().await?;
    let url = db.url.clone();
    let mut world = tokio::task::spawn_blocking(move || World::on(Some(url))).await??;
    let pool = sqlx::PgPool::connect(&db.url).await?;
    for (role, offset) in [("operator", "-1h"), ("support", "+1h")] {
        let clock = WallClock::new(world.path())?;
        clock.off_by(offset)?;
        let env = clock.environment()?;
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        tokio::task::block_in_place(|| {
            world.start_with(&env)?;
            world.listening()?;
            Console::sign_in(&world, role).map(drop)
        })?;
        let off: i64 = sqlx::query_scalar(
            "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT) - last_used_at / 1000000 FROM web_sessions ORDER BY created_at DESC LIMIT 1",
        )
        .fetch_one(&pool)
        .await?;
        ensure!((-5..300).contains(&off), "{offset}: written {off} s ago");
        ensure!(world.log().contains("differs from the database's"), "and nobody is told: {}", world.log());
        tokio::task::block_in_place(|| world.stop())?;
        std::fs::remove_file(world.path().join("server.log"))?;
    }
    Ok(())
}
