//! The real agent behind proxies of the test's own: one that wants a password, one that wants something else, one that
//! refuses, one that opens TLS; before a front that takes the switch to WebSocket away; and where signed requests get through
//! what opens TLS, whatever it tries.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tram_agent::identity::Identity;
use tram_agent::link::tls;
use tram_controller::domain::time::Time;
use tram_controller::identity::ca::DeviceCa;
use tram_tests::device::{Console, Device, token};
use tram_tests::front::{Front, Meddling};
use tram_tests::inspector::{Doing, Inspector};
use tram_tests::world::World;
use tram_wire::SERVER_NAME;

/// What a proxy does with a `CONNECT`.
#[derive(Clone)]
enum Mode {
    /// Lets through who says this, as it stands in the header.
    Basic(&'static str),
    /// Answers this and closes.
    Says(&'static str),
    /// Ends TLS itself.
    Opens(Arc<ServerConfig>),
}

/// A proxy, as long as the test runs.
struct Proxy {
    at: SocketAddr,
    let_through: Arc<AtomicUsize>,
}

impl Proxy {
    fn new(mode: Mode) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (at, let_through) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let count = let_through.clone();
        std::thread::spawn(move || {
            for line in listener.incoming().flatten() {
                let (mode, count) = (mode.clone(), count.clone());
                std::thread::spawn(move || serve(line, &mode, &count));
            }
        });
        Ok(Self { at, let_through })
    }

    fn count(&self) -> usize {
        self.let_through.load(Ordering::SeqCst)
    }
}

fn serve(mut line: TcpStream, mode: &Mode, count: &AtomicUsize) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        line.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let to = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    match mode {
        Mode::Basic(login) if head.contains(&format!("proxy-authorization: Basic {login}\r\n")) => {
            let far = TcpStream::connect(to).ok()?;
            count.fetch_add(1, Ordering::SeqCst);
            line.write_all(b"HTTP/1.1 200 Connection established\r\nvia: office\r\n\r\n").ok()?;
            let (mut a, mut b) = (line.try_clone().ok()?, far.try_clone().ok()?);
            let back = std::thread::spawn(move || std::io::copy(&mut b, &mut a));
            let (mut line, mut far) = (line, far);
            let _ = std::io::copy(&mut line, &mut far);
            let _ = far.shutdown(std::net::Shutdown::Both);
            let _ = back.join();
        }
        Mode::Basic(_) => {
            line.write_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"office\"\r\n\r\n").ok()?;
        }
        Mode::Says(answer) => line.write_all(answer.as_bytes()).ok()?,
        Mode::Opens(tls) => {
            line.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
            front(line, tls, count);
        }
    }
    Some(())
}

/// Ends TLS and reads what comes; whoever sends something was let through.
fn front(line: TcpStream, tls: &Arc<ServerConfig>, count: &AtomicUsize) -> Option<()> {
    let mut line = StreamOwned::new(ServerConnection::new(tls.clone()).ok()?, line);
    let mut head = [0; 4096];
    if line.read(&mut head).ok()? > 0 {
        count.fetch_add(1, Ordering::SeqCst);
        line.write_all(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").ok()?;
        line.flush().ok()?;
        // Closing at once would reset the line, and the answer with it.
        let _ = line.read(&mut head);
    }
    Some(())
}

fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// A firewall's own certificate in the controller's name.
fn firewall() -> Result<Arc<ServerConfig>> {
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Office Firewall CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let leaf = CertificateParams::new(vec![SERVER_NAME.to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    server(vec![leaf.der().clone(), authority.der().clone()], key)
}

fn controller() -> Result<World> {
    let mut world = World::new()?;
    world.start()?;
    world.listening()?;
    Ok(world)
}

fn by(proxy: SocketAddr, login: &str) -> String {
    format!("[proxy]\nurl = \"http://{proxy}\"\n{login}")
}

fn said(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Waits until the agent names this code of its link.
fn down(world: &mut World, device: &Device, code: &str) -> Result<String> {
    let mut link = Value::Null;
    let seen = world.until(&format!("the agent says {code}"), |_| {
        link = device.link()?;
        Ok(link["state"] == "down" && link["code"] == code)
    });
    seen.with_context(|| format!("{link}\n{}", device.log()))?;
    Ok(link["reason"].as_str().unwrap_or_default().to_owned())
}

/// What doctor says of the controller.
fn doctor(device: &Device) -> Result<String> {
    let out = device.run(&["doctor", "--json"])?;
    let diagnosis: Value = serde_json::from_slice(&out.stdout)?;
    let found = diagnosis["findings"].as_array().into_iter().flatten().find(|f| f["check"] == "controller");
    Ok(found.and_then(|f| f["code"].as_str()).context("no finding")?.to_owned())
}

#[test]
fn an_endpoint_behind_a_proxy_with_a_password_enrols_links_and_keeps_the_password_to_itself() -> Result<()> {
    let mut world = controller()?;
    // may-01:mat khau
    let proxy = Proxy::new(Mode::Basic("bWF5LTAxOm1hdCBraGF1"))?;
    let mut device = Device::new()?;
    let secret = world.path().join("proxy.secret");
    std::fs::write(&secret, "mat khau\n")?;
    let login = format!("user = \"may-01\"\npassword_file = \"{}\"\n", secret.display());
    device.configure(&by(proxy.at, &login))?;
    let done = device.enrol(&world, &token(&world)?)?;
    ensure!(done.status.success(), "{}", said(&done));
    ensure!(proxy.count() == 1, "enrolment went another way");
    device.start()?;
    world.until("it is linked", |_| Ok(device.link()?["state"] == "up"))?;
    ensure!(proxy.count() >= 2, "the link went another way");
    assert_eq!(doctor(&device)?, "controller_ok");

    // The password was changed at the proxy: at the next link it is said, and doctor says the same.
    device.kill9()?;
    std::fs::write(&secret, "another\n")?;
    device.start()?;
    let reason = down(&mut world, &device, "proxy_password")?;
    ensure!(reason.contains(&proxy.at.to_string()), "{reason}");
    assert_eq!(doctor(&device)?, "proxy_password");
    let bundle = world.path().join("bundle.json");
    device.run(&["doctor", "--bundle", bundle.to_str().context("path")?])?;
    for text in
        [device.log(), std::fs::read_to_string(device.state().join("status.json"))?, std::fs::read_to_string(bundle)?]
    {
        ensure!(!text.contains("another") && !text.contains("mat khau") && !text.contains("bWF5"), "{text}");
    }
    Ok(())
}

#[test]
fn what_a_proxy_refuses_is_named() -> Result<()> {
    let mut world = controller()?;
    let (mut device, _) = Device::enrolled(&world)?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let says = |answer| Proxy::new(Mode::Says(answer)).map(|p| p.at);
    let negotiate = says("HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n")?;
    for (code, at, words) in [
        ("proxy_scheme", negotiate, "Negotiate, NTLM"),
        ("proxy_refuses", says("HTTP/1.1 403 Forbidden\r\n\r\n")?, "HTTP 403"),
        ("proxy_garbled", says("SSH-2.0-OpenSSH_9.2\r\n\r\n")?, "does not answer like a proxy"),
        ("proxy_unreachable", nobody, "can't be reached"),
    ] {
        device.configure(&by(at, ""))?;
        device.start()?;
        let reason = down(&mut world, &device, code)?;
        ensure!(reason.contains(words), "{code}: {reason}");
        assert_eq!(doctor(&device)?, code);
        device.kill9()?;
    }
    // An exception, and it is reached straight.
    device.configure(&by(nobody, "not_for = [\"127.0.0.0/8\"]\n"))?;
    device.start()?;
    world.until("it is linked", |_| Ok(device.link()?["state"] == "up"))?;
    Ok(())
}

#[test]
fn a_firewall_that_opens_tls_is_named_and_told_nothing() -> Result<()> {
    let mut world = controller()?;
    let proxy = Proxy::new(Mode::Opens(firewall()?))?;
    let (mut device, _) = Device::enrolled(&world)?;
    device.configure(&by(proxy.at, ""))?;
    device.start()?;
    let reason = down(&mut world, &device, "tls_intercepted")?;
    ensure!(reason.contains("Office Firewall CA"), "{reason}");
    assert_eq!(doctor(&device)?, "tls_intercepted");
    let fresh = Device::new()?;
    fresh.configure(&by(proxy.at, ""))?;
    let refused = fresh.enrol(&world, &token(&world)?)?;
    ensure!(!refused.status.success() && said(&refused).contains("Office Firewall CA"), "{}", said(&refused));
    ensure!(proxy.count() == 0, "something was said to the firewall");
    Ok(())
}

#[test]
fn a_front_that_takes_the_upgrade_away_is_named() -> Result<()> {
    let mut world = controller()?;
    let (mut device, _) = Device::enrolled(&world)?;
    // Whoever runs the data centre put it there, with a certificate of the controller's own authority.
    let now = Time::from_micros(chrono_now()?);
    let ca = DeviceCa::open(world.path(), now)?;
    let (chain, key) = ca.listener(now)?;
    let tls = server(chain, key)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    std::thread::spawn(move || {
        let count = AtomicUsize::new(0);
        for line in listener.incoming().flatten() {
            front(line, &tls, &count);
        }
    });
    let mut identity = device.identity()?;
    identity["controller"] = format!("https://{at}").into();
    device.set_identity(&identity)?;
    device.start()?;
    let reason = down(&mut world, &device, "upgrade_removed")?;
    ensure!(reason.contains("HTTP 426"), "{reason}");
    Ok(())
}

/// An endpoint whose way to the controller leads by a front, and the front.
fn behind(world: &World, mode: Meddling, config: &str) -> Result<(Device, String, Front)> {
    let (device, id) = Device::enrolled(world)?;
    let now = Time::from_micros(chrono_now()?);
    let (chain, key) = DeviceCa::open(world.path(), now)?.listener(now)?;
    let client = tls::link(&Identity::load(&device.state())?)?;
    let front = Front::start(server(chain, key)?, world.agents, client, mode)?;
    let mut identity = device.identity()?;
    identity["controller"] = format!("https://{}", front.at).into();
    device.set_identity(&identity)?;
    device.configure(config)?;
    Ok((device, id, front))
}

/// Waits until the link is up, by this.
fn linked(world: &mut World, device: &Device, console: &Console, id: &str, by: Option<&str>) -> Result<()> {
    let mut last = (Value::Null, Value::Null);
    let way = match by {
        None => "websocket",
        Some("signed") => "signed",
        Some(_) => "poll",
    };
    let seen = world.until(&format!("it is linked by {way}"), |_| {
        last = (device.link()?, console.get(&format!("/api/v1/endpoints/{id}"))?.1["link"].clone());
        Ok(last.0["state"] == "up" && last.0["by"].as_str() == by && last.1 == way)
    });
    seen.with_context(|| format!("{last:?}\n{}", device.log()))
}

#[test]
fn where_no_upgrade_gets_through_the_link_goes_on_by_requests() -> Result<()> {
    let mut world = World::new()?;
    world.start_with(&[("TRAM_HEALTH_BEAT_SECONDS", "2"), ("TRAM_HEALTH_REPORT_SECONDS", "3")])?;
    world.listening()?;
    let console = Console::sign_in(&world, "support")?;
    let (mut device, id, front) = behind(&world, Meddling::NoUpgrade, "[link]\nupgrade_again_s = 2\n")?;
    device.start()?;
    linked(&mut world, &device, &console, &id, Some("requests"))?;
    assert_eq!(doctor(&device)?, "controller_polled");
    let health = format!("/api/v1/endpoints/{id}/health");
    world.until("it reports", |_| Ok(console.get(&health)?.1["gauges"]["cpu"].is_number()))?;
    // Both directions, with much to say: what support asks for is done.
    let (status, asked) = console.post(&format!("/api/v1/endpoints/{id}/diagnoses"), &json!({"action": "line"}))?;
    ensure!(status == 200, "{asked}");
    let path = format!("/api/v1/diagnoses/{}", asked["id"].as_str().context("id")?);
    world.until("it is done", |_| Ok(console.get(&path)?.1["state"] == "ended"))?;
    ensure!(console.get(&path)?.1["outcome"] == "done");
    // Answers were lost on the way, and nothing with them.
    world.until("answers are lost", |_| Ok(front.requests().1 >= 3))?;
    world.until("it is heard", |_| Ok(console.get(&format!("/api/v1/endpoints/{id}"))?.1["state"] == "online"))?;

    // The front is mended: the endpoint finds out by itself.
    front.meddle(Meddling::None);
    linked(&mut world, &device, &console, &id, None)?;
    // And broken again; then the endpoint is withdrawn, which it is told by requests, too.
    front.meddle(Meddling::NoUpgrade);
    front.cut();
    linked(&mut world, &device, &console, &id, Some("requests"))?;
    world.cli(&["admin", "endpoint", "revoke", &id, "--reason", "thay máy"])?;
    world.until("it is refused", |_| Ok(device.link()?["code"] == "revoked"))?;
    Ok(())
}

#[test]
fn a_front_that_eats_pings_does_not_end_the_link() -> Result<()> {
    let mut world = World::new()?;
    world.start_with(&[("TRAM_HEALTH_BEAT_SECONDS", "2"), ("TRAM_HEALTH_REPORT_SECONDS", "3")])?;
    world.listening()?;
    let console = Console::sign_in(&world, "support")?;
    let (mut device, id, front) = behind(&world, Meddling::EatsPings, "")?;
    device.start()?;
    linked(&mut world, &device, &console, &id, None)?;
    let since = device.link()?["since_ms"].clone();
    world.until("pongs are eaten and beats are not", |_| {
        let (eaten, frames) = front.frames();
        Ok(eaten >= 4 && frames >= 30)
    })?;
    let now = device.link()?;
    ensure!(now["state"] == "up" && now["since_ms"] == since, "{now}\n{}", device.log());
    Ok(())
}

/// An endpoint whose TLS is opened on the way, and who opens it.
fn inspected(world: &World) -> Result<(Device, String, Inspector)> {
    let (device, id) = Device::enrolled(world)?;
    let mut roots = RootCertStore::empty();
    let mut identity = device.identity()?;
    let ca = identity["ca_pem"].as_str().context("no authority")?;
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let inspector = Inspector::start(firewall()?, world.agents, Arc::new(client))?;
    identity["controller"] = format!("https://{}", inspector.at).into();
    device.set_identity(&identity)?;
    Ok((device, id, inspector))
}

/// A world that hears endpoints often, and somebody of support.
fn attentive() -> Result<(World, Console)> {
    let mut world = World::new()?;
    world.start_with(&[("TRAM_HEALTH_BEAT_SECONDS", "2"), ("TRAM_HEALTH_REPORT_SECONDS", "3")])?;
    world.listening()?;
    let console = Console::sign_in(&world, "support")?;
    Ok((world, console))
}

/// How often the controller refused signed requests for this reason.
fn refusals(world: &World, reason: &str) -> Result<u64> {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--cacert"]).arg(world.path().join("tls/ca.pem")).arg(format!("https://{}/metrics", world.web));
    let all = String::from_utf8(curl.output()?.stdout)?;
    let name = format!("agent_signed_refusals_total{{reason=\"{reason}\"}} ");
    all.lines().find_map(|l| l.strip_prefix(&name)).map_or(Ok(0), |n| Ok(n.parse()?))
}

const SIGNED: &str = "[link]\nintercepted = \"signed\"\nupgrade_again_s = 2\n";

#[test]
fn where_tls_is_opened_signed_requests_carry_the_link_if_that_is_wanted() -> Result<()> {
    let (mut world, console) = attentive()?;
    let (mut device, id, inspector) = inspected(&world)?;
    // Nobody wants it unless somebody said so.
    device.start()?;
    let reason = down(&mut world, &device, "tls_intercepted")?;
    ensure!(reason.contains("Office Firewall CA"), "{reason}");
    assert_eq!(doctor(&device)?, "tls_intercepted");
    assert_eq!(inspector.requests(), 0, "something was said to whoever opens TLS");
    device.kill9()?;

    device.configure(SIGNED)?;
    device.start()?;
    linked(&mut world, &device, &console, &id, Some("signed"))?;
    assert_eq!(doctor(&device)?, "tls_intercepted", "the cause keeps being named");
    let health = format!("/api/v1/endpoints/{id}/health");
    world.until("it reports, and warns", |_| {
        let seen = console.get(&health)?.1;
        let warned = seen["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|f| f["check"] == "controller" && f["text_code"] == "tls_intercepted" && f["state"] == "warn");
        Ok(seen["gauges"]["cpu"].is_number() && warned)
    })?;
    let diagnosis = |console: &Console, work: Value| -> Result<String> {
        let (status, asked) = console.post(&format!("/api/v1/endpoints/{id}/diagnoses"), &work)?;
        ensure!(status == 200, "{asked}");
        Ok(format!("/api/v1/diagnoses/{}", asked["id"].as_str().context("id")?))
    };
    let path = diagnosis(&console, json!({"action": "line"}))?;
    world.until("it is done", |_| Ok(console.get(&path)?.1["state"] == "ended"))?;
    assert_eq!(console.get(&path)?.1["outcome"], "done");
    // What is in a journal is nobody's business on the way.
    let path = diagnosis(&console, json!({"action": "journal", "arguments": {"unit": "cups", "lines": 10}}))?;
    world.until("it is refused", |_| Ok(console.get(&path)?.1["state"] == "ended"))?;
    let refused = console.get(&path)?.1;
    assert_eq!((&refused["outcome"], &refused["code"]), (&json!("refused"), &json!("inspected")), "{refused}");

    // The controller was excepted: the endpoint finds out by itself, and nobody reads along any more.
    inspector.does(Doing::Nothing);
    linked(&mut world, &device, &console, &id, None)?;
    assert_ne!(doctor(&device)?, "tls_intercepted");
    // And it ends; then the endpoint is withdrawn, which it is told by signed requests, too.
    inspector.does(Doing::Reads);
    inspector.cut();
    linked(&mut world, &device, &console, &id, Some("signed"))?;
    world.cli(&["admin", "endpoint", "revoke", &id, "--reason", "thay máy"])?;
    world.until("it is refused", |_| Ok(device.link()?["code"] == "revoked"))?;
    Ok(())
}

#[test]
fn whoever_opens_tls_can_change_replay_exchange_and_make_up_nothing() -> Result<()> {
    let (mut world, console) = attentive()?;
    let (mut device, id, inspector) = inspected(&world)?;
    device.configure(SIGNED)?;
    device.start()?;
    linked(&mut world, &device, &console, &id, Some("signed"))?;

    // Said again: the controller has heard it, and the endpoint goes on.
    inspector.does(Doing::Replays);
    world.until("requests are said again", |_| Ok(inspector.answered().len() >= 3))?;
    let answered = inspector.answered();
    ensure!(answered.iter().all(|s| *s == 409), "a replay was taken: {answered:?}");
    ensure!(refusals(&world, "replayed")? >= 3);

    // Changed by a bit: it is not the endpoint's word any more.
    inspector.does(Doing::Flips);
    world.until("requests are changed", |_| Ok(inspector.answered().len() >= 2))?;
    let answered = inspector.answered();
    ensure!(answered.iter().all(|s| *s == 403), "a changed request was taken: {answered:?}");
    ensure!(refusals(&world, "signature")? >= 2);

    // Exchanged, or made up: the endpoint believes nothing of it.
    for doing in [Doing::Swaps, Doing::Answers] {
        inspector.does(Doing::Reads);
        linked(&mut world, &device, &console, &id, Some("signed"))?;
        let before = device.log().matches("an answer was not the controller's").count();
        inspector.does(doing);
        world.until(&format!("{doing:?} is found out"), |_| {
            Ok(inspector.lies() > 0 && device.log().matches("an answer was not the controller's").count() > before)
        })?;
    }
    inspector.does(Doing::Reads);
    linked(&mut world, &device, &console, &id, Some("signed"))?;
    world.until("it is told", |_| {
        let (_, points) = console.get(&format!("/api/v1/endpoints/{id}/samples"))?;
        Ok(points["items"].as_array().into_iter().flatten().any(|p| p["notes"].to_string().contains("answers_forged")))
    })?;
    Ok(())
}

/// The time of this computer, microseconds.
fn chrono_now() -> Result<i64> {
    let out = std::process::Command::new("date").arg("+%s").output()?;
    Ok(String::from_utf8(out.stdout)?.trim().parse::<i64>()? * 1_000_000)
}
