//! Whose display is opened: by the desktop's id alone, and only while nobody else has a way in.

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::{Daemon, Place, sees, spec};
use tram_hypervisor::{DesktopSpec, Display, Error, Hypervisor, Power, Stop, open};

const DEADLINE: Duration = Duration::from_secs(60);

/// The name a display gives its desktop.
fn name_of(display: OwnedFd) -> String {
    let mut s = UnixStream::from(display);
    s.set_nonblocking(false).unwrap();
    s.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut take = |n: usize, answer: &[u8]| {
        let mut words = vec![0; n];
        s.read_exact(&mut words).unwrap();
        s.write_all(answer).unwrap();
        words
    };
    let version = take(12, b"RFB 003.008\n");
    assert_eq!(version, b"RFB 003.008\n");
    let kinds = take(1, b"")[0];
    take(kinds.into(), &[1]);
    take(4, &[1]);
    let init = take(24, b"");
    String::from_utf8(take(init[23].into(), b"")).unwrap()
}

async fn made(hv: &dyn Hypervisor, name: &str) -> DesktopSpec {
    let s = spec(name);
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    s
}

#[tokio::test(flavor = "multi_thread")]
async fn a_display_is_found_by_the_desktops_id_whoever_had_its_place_before() {
    if std::env::var_os("TRAM_SKIP_QEMU").is_some() {
        eprintln!("TRAM_SKIP_QEMU is set: nothing is run on QEMU");
        return;
    }
    let (daemon, place) = (Daemon::start(), Place::new());
    let hv = open(&daemon.qemu_uri(), place.options(DEADLINE)).unwrap();
    let (a, b) = (made(&*hv, "place-a").await, made(&*hv, "place-b").await);
    let shown = async |s: &DesktopSpec| hv.open_display(s.id, Display::Vnc).await.map(name_of);
    hv.ensure_running(a.id).await.unwrap();
    assert_eq!(shown(&a).await.unwrap(), "QEMU (place-a)");
    // The one takes the other's place on the host: its turn, its number, and its name in the end.
    hv.ensure_stopped(a.id, Stop::Force).await.unwrap();
    hv.ensure_running(b.id).await.unwrap();
    assert!(matches!(shown(&a).await, Err(Error::Busy(_))), "a desktop that is off has no display");
    assert_eq!(shown(&b).await.unwrap(), "QEMU (place-b)");
    hv.ensure_running(a.id).await.unwrap();
    assert_eq!(shown(&b).await.unwrap(), "QEMU (place-b)");
    assert_eq!(shown(&a).await.unwrap(), "QEMU (place-a)");
    hv.ensure_absent(a.id).await.unwrap();
    let heir = made(&*hv, "place-a").await;
    hv.ensure_running(heir.id).await.unwrap();
    assert!(matches!(shown(&a).await, Err(Error::NotFound(_))), "the same name is not the same desktop");
    assert_eq!(shown(&heir).await.unwrap(), "QEMU (place-a)");

    // Somebody gives a running desktop's definition a way in by the network: what runs is still closed, and is shown;
    // once it was switched off it is not started again.
    let xml = daemon.qemu(&["dumpxml", "--inactive", "--security-info", "place-b"]);
    let file = place.folder.path().join("bent.xml");
    let listen = "<listen type='none'/>";
    assert!(xml.contains(listen), "{xml}");
    std::fs::write(&file, xml.replacen(listen, "<listen type='address' address='0.0.0.0'/>", 1)).unwrap();
    daemon.qemu(&["define", file.to_str().unwrap()]);
    assert_eq!(shown(&b).await.unwrap(), "QEMU (place-b)");
    hv.ensure_stopped(b.id, Stop::Force).await.unwrap();
    let opened = hv.ensure_running(b.id).await;
    assert!(matches!(&opened, Err(Error::Invalid(why)) if why.contains("listens on the network")), "{opened:?}");
    // Started by that somebody, too, it is not shown: who else looks is not known.
    daemon.qemu(&["start", "place-b"]);
    let opened = shown(&b).await;
    assert!(matches!(&opened, Err(Error::Invalid(why)) if why.contains("listens on the network")), "{opened:?}");
    // A rebuild mends it.
    hv.ensure_stopped(b.id, Stop::Force).await.unwrap();
    let anew = DesktopSpec { generation: 2, ..b.clone() };
    hv.ensure_disk(&anew).await.unwrap();
    hv.ensure_defined(&anew).await.unwrap();
    hv.ensure_running(b.id).await.unwrap();
    assert_eq!(shown(&b).await.unwrap(), "QEMU (place-b)");
    for s in [&b, &heir] {
        hv.ensure_absent(s.id).await.unwrap();
    }
}

/// What was written into one of our definitions, and what is said of it. libvirt's test driver shows no display, but it
/// keeps definitions.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_was_opened_to_others_is_not_started() {
    let (daemon, place) = (Daemon::start(), Place::new());
    let hv = open(&daemon.test_uri(), place.options(DEADLINE)).unwrap();
    hv.host_info().await.unwrap();
    let never = "passwd='abcdefgh' passwdValidTo='1970-01-01T00:00:01'";
    let none = "<listen type='none'/>";
    for (n, (graphics, wanted)) in [
        (format!("<graphics type='vnc' {never}>{none}</graphics>"), None),
        (format!("<graphics type='vnc'>{none}</graphics>"), Some("password")),
        (format!("<graphics type='vnc' passwd='abcdefgh'>{none}</graphics>"), Some("password")),
        (format!("<graphics type='vnc' port='5999' listen='127.0.0.1' {never}/>"), Some("listens")),
        (
            format!(
                "<graphics type='spice' autoport='yes' {never}><listen type='address' address='0.0.0.0'/></graphics>"
            ),
            Some("listens"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let s = made(&*hv, &format!("opened-{n}")).await;
        let xml = daemon.test_driver(&["dumpxml", "--inactive", &s.name]);
        let devices = if xml.contains("<devices/>") { "<devices/>" } else { "</devices>" };
        let bent = if devices == "<devices/>" {
            format!("<devices>{graphics}</devices>")
        } else {
            format!("{graphics}</devices>")
        };
        define(&daemon, &place, &xml.replacen(devices, &bent, 1));
        let started = hv.ensure_running(s.id).await;
        match wanted {
            None => started.unwrap(),
            Some(why) => {
                assert!(matches!(&started, Err(Error::Invalid(said)) if said.contains(why)), "{graphics}: {started:?}");
                assert_eq!(sees(&hv, s.id).await.power, Some(Power::Off));
            }
        }
        hv.ensure_absent(s.id).await.unwrap();
    }
}

fn define(daemon: &Daemon, place: &Place, xml: &str) {
    let file: &Path = &place.folder.path().join("bent.xml");
    std::fs::write(file, xml).unwrap();
    daemon.test_driver(&["define", file.to_str().unwrap()]);
}
