//! A host behind its node: strangers, restarts, displays, images on their way, and what attackers send.

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use common::pki::{Authority, Served};
use common::{Place, event, sees, spec, until};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio_rustls::TlsConnector;
use tram_hypervisor::{Display, Error, HostEvent, InstallationId, OpenOptions, open};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);
const SIM: &str = "sim:///one?images=1";

/// The error of the first call once the link has made up its mind.
async fn refused(node: &Served, options: OpenOptions) -> String {
    let hv = open(&format!("node://{}", node.address), options).unwrap();
    hv.host_info().await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_controllers_of_the_same_installation_are_served() {
    let (authority, other, place) = (Authority::new(), Authority::new(), Place::new());
    let node = Served::start(SIM, place.options(DEADLINE), &authority).await;
    let with = |tls: Arc<ClientConfig>| OpenOptions { tls: Some(tls.into()), ..place.options(DEADLINE) };
    for (who, tls) in [
        ("no certificate", authority.client(None)),
        ("another authority's", authority.client(Some((&other, ClientAuth)))),
        ("a node's own", authority.client(Some((&authority, ServerAuth)))),
    ] {
        let why = refused(&node, with(tls)).await;
        assert!(why.contains("can't be reached"), "{who}: {why}");
    }
    let why = refused(&node, with(other.controller())).await;
    assert!(why.contains("certificate"), "a node of another authority is no node: {why}");
    let mut options = with(authority.controller());
    options.owner.installation = InstallationId(Uuid::now_v7());
    let why = refused(&node, options).await;
    assert!(why.contains("another installation"), "{why}");
    assert!(open("node://127.0.0.1:1", place.options(DEADLINE)).is_err(), "without a certificate nobody tries");
    node.backend(place.options(DEADLINE), &authority).host_info().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_restarted_is_found_again_with_all_its_desktops() {
    let (authority, place) = (Authority::new(), Place::new());
    let uri = format!("{SIM}&state={}", place.folder.path().join("world").display());
    let node = Served::start(&uri, place.options(DEADLINE), &authority).await;
    let hv = node.backend(place.options(DEADLINE), &authority);
    let mut events = hv.events();
    let s = spec("stays");
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    hv.ensure_running(s.id).await.unwrap();
    event(&mut events, DEADLINE, |e| *e == HostEvent::Desktop(s.id)).await;

    let address = node.end().await;
    event(&mut events, DEADLINE, |e| *e == HostEvent::Lost).await;
    let down = hv.observe(s.id).await;
    assert!(matches!(down, Err(Error::Unreachable(_))), "told at once, not after the deadline: {down:?}");
    let _node = Served::at(&address.to_string(), &uri, place.options(DEADLINE), &authority).await;
    event(&mut events, DEADLINE, |e| *e == HostEvent::Resync).await;
    until("the node is back", DEADLINE, async || hv.observe(s.id).await.is_ok()).await;
    assert_eq!(sees(&hv, s.id).await.power, Some(tram_hypervisor::Power::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_vanishes_leaves_the_display_open_for_a_moment() {
    let (authority, place) = (Authority::new(), Place::new());
    let displays = place.folder.path().join("displays");
    std::fs::create_dir(&displays).unwrap();
    let display = UnixListener::bind(displays.join("spice.sock")).unwrap();
    let uri = format!("{SIM}&displays={}", displays.display());
    let node = Served::start(&uri, place.options(DEADLINE), &authority).await;
    let hv = node.backend(place.options(DEADLINE), &authority);
    let s = spec("shown");
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    let off = hv.open_display(s.id, Display::Spice).await;
    assert!(matches!(off, Err(Error::Busy(_))), "the host's own words come through: {off:?}");
    hv.ensure_running(s.id).await.unwrap();

    let mut gateway = UnixStream::from(hv.open_display(s.id, Display::Spice).await.unwrap());
    let (mut qemu, _) = display.accept().await.unwrap();
    gateway.write_all(b"ticket and DISPLAY_INIT").unwrap();
    let mut words = [0; 23];
    qemu.read_exact(&mut words).await.unwrap();
    qemu.write_all(b"OK").await.unwrap();
    let mut answer = [0; 2];
    tokio::task::block_in_place(|| gateway.read_exact(&mut answer)).unwrap();
    assert_eq!((&words, &answer), (b"ticket and DISPLAY_INIT", b"OK"));
    drop(gateway);
    // More than any buffer between: somebody still reads, and did not say that it is over.
    qemu.write_all(&vec![0; 4 << 20]).await.unwrap();
    assert_eq!(qemu.read(&mut [0; 1]).await.unwrap(), 0, "and then it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_image_goes_where_it_is_needed() {
    let (authority, here, there) = (Authority::new(), Place::new(), Place::new());
    let mut node_options = there.options(DEADLINE);
    node_options.owner.installation = here.owner.installation;
    // What a transfer left that was killed in the middle.
    let left = there.owner.image_dir.join(".part-left");
    std::fs::write(&left, "half").unwrap();
    let node = Served::start(SIM, node_options, &authority).await;
    assert!(!left.exists());
    let hv = node.backend(here.options(DEADLINE), &authority);

    here.golden("only-here.qcow2", "64M");
    let mut s = spec("first");
    s.image_file = "only-here.qcow2".into();
    let first = hv.ensure_disk(&s).await;
    assert!(matches!(&first, Err(Error::Busy(why)) if why.contains("on its way")), "{first:?}");
    until("the image is there", DEADLINE, async || hv.ensure_disk(&s).await.is_ok()).await;
    let (sent, came) = (here.owner.image_dir.join(&s.image_file), there.owner.image_dir.join(&s.image_file));
    assert_eq!(std::fs::read(sent).unwrap(), std::fs::read(&came).unwrap());
    assert_eq!(came.metadata().unwrap().permissions().mode() & 0o777, 0o444);

    // One that nobody has, and one that is not what it says: never there, and the reason is told.
    s.image_file = "nowhere.qcow2".into();
    assert!(matches!(hv.ensure_disk(&s).await, Err(Error::NotFound(_))));
    std::fs::write(here.owner.image_dir.join("lies.qcow2"), "#!/bin/sh\n").unwrap();
    s.image_file = "lies.qcow2".into();
    for _twice in 0..2 {
        let mut events = hv.events();
        assert!(matches!(hv.ensure_disk(&s).await, Err(Error::Busy(_))));
        event(&mut events, DEADLINE, |e| *e == HostEvent::Resync).await;
    }
    assert!(!there.owner.image_dir.join("lies.qcow2").exists());
    let parts = std::fs::read_dir(&there.owner.image_dir).unwrap().flatten();
    assert_eq!(parts.filter(|e| e.file_name().to_string_lossy().starts_with('.')).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_ends_its_own_connection_only() {
    let (authority, place) = (Authority::new(), Place::new());
    let node = Served::start(SIM, place.options(DEADLINE), &authority).await;
    let hv = node.backend(place.options(DEADLINE), &authority);
    hv.host_info().await.unwrap();
    let name = || rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let say = async |words: &[u8]| {
        let stream = TcpStream::connect(node.address).await.unwrap();
        let mut line = TlsConnector::from(authority.controller()).connect(name(), stream).await.unwrap();
        line.write_all(words).await.unwrap();
        line.flush().await.unwrap();
        let mut answer = Vec::new();
        // It may be cut without a goodbye.
        let _ = line.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let framed = |head: &str| {
        let length = u32::try_from(head.len()).unwrap().to_be_bytes();
        [&length[..], &[0; 4], head.as_bytes()].concat()
    };
    assert_eq!(say(&[0xff; 64]).await, "");
    assert_eq!(say(&framed(&"[".repeat(4000))).await, "");
    assert_eq!(say(&framed("{}")).await, "");
    let id = place.owner.installation.0;
    let hello = |version, purpose: &str| {
        framed(&format!(r#"{{"version":{version},"installation":"{id}","accel":"auto","purpose":{purpose}}}"#))
    };
    assert!(say(&hello(1, r#""Calls""#)).await.contains("same release"));
    assert!(say(&hello(2, r#"{"Image":{"file":"../../etc/passwd","size":1}}"#)).await.contains("file name"));
    let strange = [hello(2, r#""Calls""#), framed(r#"{"Call":{"n":1,"call":"Shell"}}"#)].concat();
    assert!(!say(&strange).await.contains("Answer"));
    hv.host_info().await.unwrap();
}
