//! What every backend keeps. One suite on the simulated host, on libvirt's test driver over real RPC,
//! and on QEMU in software emulation with a guest that boots to its agent.
//!
//! What a backend can't do is said on stderr, never passed over in silence.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::pki::{Authority, Served};
use common::{Daemon, Place, event, found, sees, spec, until};
use tram_hypervisor::overlay::{self, State};
use tram_hypervisor::{
    Accel, DesktopId, DesktopSpec, Display, Error, GuestProfile, HostEvent, Hypervisor, InstallationId, Power, Stop,
    error::Class, libvirt, open,
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// A backend under test and what it can't do.
struct Case<'a> {
    name: &'a str,
    hv: Arc<dyn Hypervisor>,
    place: Place,
    /// Disks are files in `place`.
    files: bool,
    display: bool,
    reset: bool,
    stats: bool,
    /// Something of others is on the host under this id.
    foreign: Vec<DesktopId>,
}

impl Case<'_> {
    fn skip(&self, what: &str) {
        eprintln!("{}: skipped, this backend can't do it: {what}", self.name);
    }
}

async fn suite(case: &Case<'_>) {
    host(case).await;
    nothing_is_there(case).await;
    a_life(case).await;
    a_rebuild(case).await;
    hostile_input(case).await;
    same_name(case).await;
    foreign(case).await;
    many(case).await;
    assert_eq!(found(&case.hv).await, [], "{}: the suite left something", case.name);
    eprintln!("{}: conforms", case.name);
}

async fn host(case: &Case<'_>) {
    let info = case.hv.host_info().await.unwrap();
    assert!(!info.hostname.is_empty() && info.cpus > 0 && info.memory_mib > 0 && info.disk_mib > 0, "{info:?}");
    assert!(info.disk_free_mib <= info.disk_mib);
    assert!(info.accel_reason.ends_with('.') && !info.accel_code.is_empty(), "{info:?}");
}

async fn nothing_is_there(case: &Case<'_>) {
    let (hv, id) = (&case.hv, DesktopId(Uuid::now_v7()));
    assert_eq!(sees(hv, id).await, Default::default());
    for gone in [
        hv.ensure_running(id).await,
        hv.reset(id).await,
        hv.open_display(id, Display::Vnc).await.map(drop),
        hv.screenshot(id).await.map(drop),
        hv.signed_in(id).await.map(drop),
    ] {
        assert!(matches!(&gone, Err(e) if e.class() == Class::Gone), "{gone:?}");
    }
    hv.ensure_stopped(id, Stop::Graceful).await.unwrap();
    hv.ensure_stopped(id, Stop::Force).await.unwrap();
    hv.ensure_absent(id).await.unwrap();
}

async fn a_life(case: &Case<'_>) {
    let hv = &case.hv;
    let mut s = spec("life-1");
    let mut events = hv.events();

    for _twice in 0..2 {
        hv.ensure_disk(&s).await.unwrap();
        let seen = sees(hv, s.id).await;
        assert_eq!((seen.disk, seen.disk_generation, seen.power), (true, Some(1), None));
    }
    let all = found(hv).await;
    assert_eq!(all.len(), 1, "a disk without a domain is found: {all:?}");
    assert_eq!(all[0].id, s.id);

    for _twice in 0..2 {
        hv.ensure_defined(&s).await.unwrap();
        assert_eq!(sees(hv, s.id).await.power, Some(Power::Off), "defined, not started");
    }
    event(&mut events, Duration::from_secs(10), |e| *e == HostEvent::Desktop(s.id)).await;
    s.memory_mib += 16;
    hv.ensure_defined(&s).await.unwrap();
    s.name = "life-2".into();
    hv.ensure_defined(&s).await.unwrap();
    assert_eq!(sees(hv, s.id).await.power, Some(Power::Off));
    assert!(matches!(hv.open_display(s.id, Display::Vnc).await, Err(Error::Busy(_))), "no display while off");
    assert!(matches!(hv.signed_in(s.id).await, Err(Error::Busy(_))), "nobody works on what is off");
    assert!(matches!(hv.reset(s.id).await, Err(Error::Busy(_))));

    for _twice in 0..2 {
        hv.ensure_running(s.id).await.unwrap();
        assert_eq!(sees(hv, s.id).await.power, Some(Power::Running));
    }
    event(&mut events, Duration::from_secs(10), |e| *e == HostEvent::Desktop(s.id)).await;
    assert_eq!(found(hv).await[0].observed.power, Some(Power::Running));
    hv.ensure_disk(&s).await.unwrap();
    let newer = DesktopSpec { generation: 2, ..s.clone() };
    assert!(matches!(hv.ensure_disk(&newer).await, Err(Error::Busy(_))), "never under a running desktop");
    let renamed = DesktopSpec { name: "life-3".into(), ..s.clone() };
    assert!(matches!(hv.ensure_defined(&renamed).await, Err(Error::Busy(_))));

    let signed_in = hv.signed_in(s.id).await.unwrap();
    assert!(signed_in.is_none_or(|is| !is), "nobody touched it; not known is an honest answer: {signed_in:?}");
    let png = hv.screenshot(s.id).await.unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 100, "{} bytes", png.len());
    if case.stats {
        let stats = hv.stats().await.unwrap();
        assert_eq!(stats.iter().map(|s| s.id).collect::<Vec<_>>(), [s.id]);
    } else {
        case.skip("statistics of running desktops only");
    }
    if case.display {
        two_look(hv, s.id).await;
        if case.files {
            greet_spice(hv.open_display(s.id, Display::Spice).await.unwrap());
        } else {
            assert!(matches!(hv.open_display(s.id, Display::Spice).await, Err(Error::Unsupported(_))));
            case.skip("SPICE");
        }
    } else {
        assert!(matches!(hv.open_display(s.id, Display::Vnc).await, Err(Error::Unsupported(_))));
        case.skip("displays");
    }
    if case.reset {
        hv.reset(s.id).await.unwrap();
        assert_eq!(sees(hv, s.id).await.power, Some(Power::Running));
    } else {
        case.skip("reset");
    }

    for _twice in 0..2 {
        hv.ensure_stopped(s.id, Stop::Force).await.unwrap();
        assert_eq!(sees(hv, s.id).await.power, Some(Power::Off));
    }
    hv.ensure_running(s.id).await.unwrap();
    // From running to nothing in one call.
    for _twice in 0..2 {
        hv.ensure_absent(s.id).await.unwrap();
        assert_eq!(sees(hv, s.id).await, Default::default());
    }
    if case.files {
        assert_eq!(std::fs::read_dir(&case.place.owner.disk_dir).unwrap().count(), 0, "no file is left");
    }
}

/// A link of SPICE for the main channel, up to the server's reply. The channel is never authenticated.
fn greet_spice(fd: std::os::fd::OwnedFd) {
    let mut s = UnixStream::from(fd);
    s.set_nonblocking(false).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let link = [&b"REDQ"[..], &[2, 0, 0, 0, 2, 0, 0, 0, 22, 0, 0, 0], &[0; 4], &[1, 0]].concat();
    let caps = [1u32, 0, 18, 0b1011].map(u32::to_le_bytes).concat();
    s.write_all(&[link, caps].concat()).unwrap();
    let mut reply = [9; 20];
    s.read_exact(&mut reply).unwrap();
    assert_eq!((&reply[..4], &reply[16..]), (&b"REDQ"[..], &[0; 4][..]), "SPICE agrees to the link");
}

/// RFB 3.8 up to the size of the screen; security None, because the descriptor itself is the right.
/// A second viewer of a desktop does not put out the first.
async fn two_look(hv: &Arc<dyn Hypervisor>, id: DesktopId) {
    let mut first = greet_display(hv.open_display(id, Display::Vnc).await.unwrap());
    let mut second = greet_display(hv.open_display(id, Display::Vnc).await.unwrap());
    for viewer in [&mut second, &mut first] {
        // One pixel, whether it changed or not.
        viewer.write_all(&[3, 0, 0, 0, 0, 0, 0, 1, 0, 1]).unwrap();
        let mut kind = [9; 2];
        viewer.read_exact(&mut kind).unwrap();
        assert_eq!(kind[0], 0, "a FramebufferUpdate");
        read_rectangles(viewer);
    }
}

/// The rest of an update: rectangles of raw pixels, since no other encoding was asked for.
fn read_rectangles(s: &mut UnixStream) {
    let mut count = [0; 2];
    s.read_exact(&mut count).unwrap();
    for _ in 0..u16::from_be_bytes(count) {
        let mut head = [0; 12];
        s.read_exact(&mut head).unwrap();
        assert_eq!(head[8..], [0; 4], "raw");
        let side = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
        s.read_exact(&mut vec![0; side(4) * side(6) * 4]).unwrap();
    }
}

/// The first picture was asked for and read.
fn greet_display(fd: std::os::fd::OwnedFd) -> UnixStream {
    let mut s = UnixStream::from(fd);
    s.set_nonblocking(false).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut version = [0; 12];
    s.read_exact(&mut version).unwrap();
    assert_eq!(&version, b"RFB 003.008\n");
    s.write_all(&version).unwrap();
    let mut kinds = [0; 1];
    s.read_exact(&mut kinds).unwrap();
    let mut offered = vec![0; usize::from(kinds[0])];
    s.read_exact(&mut offered).unwrap();
    assert!(offered.contains(&1), "security None is offered: {offered:?}");
    s.write_all(&[1]).unwrap();
    let mut result = [9; 4];
    s.read_exact(&mut result).unwrap();
    assert_eq!(result, [0; 4]);
    s.write_all(&[1]).unwrap();
    let mut init = [0; 24];
    s.read_exact(&mut init).unwrap();
    let (w, h) = (u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]]));
    assert!(w >= 320 && h >= 200, "{w}x{h}");
    // One full frame, asked for as a viewer does.
    s.write_all(&[3, 0, 0, 0, 0, 0, init[0], init[1], init[2], init[3]]).unwrap();
    let mut name = vec![0; u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize];
    s.read_exact(&mut name).unwrap();
    let mut update = [9; 2];
    s.read_exact(&mut update).unwrap();
    assert_eq!(update[0], 0, "a FramebufferUpdate");
    read_rectangles(&mut s);
    s
}

/// Somebody copied one of our domains, mark and all (`virt-clone` does that).
async fn a_copy_is_not_ours(case: &Case<'_>, virsh: impl Fn(&[&str]) -> String) {
    let s = spec("copied");
    case.hv.ensure_disk(&s).await.unwrap();
    case.hv.ensure_defined(&s).await.unwrap();
    let copy = Uuid::new_v4();
    let uuid = format!("<uuid>{}</uuid>", s.id);
    let xml = virsh(&["dumpxml", "--inactive", "copied"]);
    assert!(xml.contains(&uuid));
    let xml = xml.replace("<name>copied</name>", "<name>copy</name>").replace(&uuid, &format!("<uuid>{copy}</uuid>"));
    let file = case.place.folder.path().join("copy.xml");
    std::fs::write(&file, xml).unwrap();
    virsh(&["define", file.to_str().unwrap()]);
    assert_eq!(found(&case.hv).await.iter().map(|f| f.id).collect::<Vec<_>>(), [s.id]);
    assert!(matches!(case.hv.ensure_absent(DesktopId(copy)).await, Err(Error::Refused(_))));
    case.hv.ensure_absent(s.id).await.unwrap();
    assert_eq!(virsh(&["domuuid", "copy"]).trim(), copy.to_string(), "the copy stays");
    virsh(&["undefine", "copy"]);
}

async fn a_rebuild(case: &Case<'_>) {
    let hv = &case.hv;
    let s = spec("rebuilt");
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    let path = overlay::path_of(&case.place.owner.disk_dir, s.id);
    if case.files {
        // What a user left on the disk must be gone afterwards.
        let wrote = std::process::Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", "write -P 9 0 1M"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(wrote.status.success());
    }
    let newer = DesktopSpec { generation: 2, ..s.clone() };
    hv.ensure_disk(&newer).await.unwrap();
    hv.ensure_defined(&newer).await.unwrap();
    let seen = sees(hv, s.id).await;
    assert_eq!((seen.disk_generation, seen.power), (Some(2), Some(Power::Off)));
    if case.files {
        let read = std::process::Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", "read -P 0 0 1M"])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&read.stdout);
        assert!(read.status.success() && !text.contains("verification failed"), "{text}");
    }
    hv.ensure_running(s.id).await.unwrap();
    hv.ensure_absent(s.id).await.unwrap();
}

async fn hostile_input(case: &Case<'_>) {
    let hv = &case.hv;
    for name in ["a<b", "a&b", "a\0b", "a\nb", "../../etc/x", "", "x'y", "q\"", &"n".repeat(10_240), "-rf", "ế"] {
        let s = DesktopSpec { name: name.into(), ..spec("x") };
        for refused in [hv.ensure_disk(&s).await, hv.ensure_defined(&s).await] {
            assert!(matches!(&refused, Err(e) if e.class() == Class::Permanent), "{name:?}: {refused:?}");
            assert!(refused.unwrap_err().to_string().len() < 200, "the answer does not carry 10 kB back");
        }
    }
    for image_file in ["../small.qcow2", "/etc/passwd", "a\0", "<x>.qcow2", "a\nb", ""] {
        let s = DesktopSpec { image_file: image_file.into(), ..spec("hostile") };
        assert!(matches!(hv.ensure_disk(&s).await, Err(Error::Invalid(_))), "{image_file:?}");
    }
    let s = DesktopSpec { image_file: "missing.qcow2".into(), ..spec("hostile") };
    assert!(matches!(hv.ensure_disk(&s).await, Err(Error::NotFound(_))));
    if case.files {
        // An image that would read one of the host's files, put in place behind everybody's back.
        let base = case.place.golden("evil.qcow2", "64M");
        let rebased = std::process::Command::new("qemu-img")
            .args(["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/hostname"])
            .arg(&base)
            .status();
        assert!(rebased.unwrap().success());
        let s = DesktopSpec { image_file: "evil.qcow2".into(), ..spec("hostile") };
        let refused = hv.ensure_disk(&s).await.unwrap_err();
        assert!(matches!(&refused, Error::Invalid(t) if t.contains("I-108")), "{refused}");
        let small = DesktopSpec { disk_gib: Some(1), image_file: "big.qcow2".into(), ..spec("hostile") };
        case.place.golden("big.qcow2", "3G");
        assert!(matches!(hv.ensure_disk(&small).await, Err(Error::Invalid(_))), "smaller than its image");
    }
    assert_eq!(found(hv).await, [], "nothing half done");
}

async fn same_name(case: &Case<'_>) {
    let hv = &case.hv;
    let (first, second) = (spec("twin"), spec("twin"));
    hv.ensure_defined(&first).await.unwrap();
    let refused = hv.ensure_defined(&second).await.unwrap_err();
    assert!(refused.to_string().contains("twin"), "{refused}");
    assert_eq!(sees(hv, first.id).await.power, Some(Power::Off));
    assert_eq!(sees(hv, second.id).await.power, None);
    hv.ensure_absent(first.id).await.unwrap();
}

async fn foreign(case: &Case<'_>) {
    let hv = &case.hv;
    assert!(!case.foreign.is_empty());
    for id in &case.foreign {
        let s = DesktopSpec { id: *id, ..spec("not-yours") };
        for refused in [
            hv.ensure_defined(&s).await,
            hv.ensure_running(*id).await,
            hv.ensure_stopped(*id, Stop::Force).await,
            hv.reset(*id).await,
            hv.ensure_absent(*id).await,
            hv.observe(*id).await.map(drop),
            hv.open_display(*id, Display::Vnc).await.map(drop),
            hv.screenshot(*id).await.map(drop),
            hv.signed_in(*id).await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::Refused(_))), "{}: {refused:?}", case.name);
        }
    }
    assert_eq!(found(hv).await, [], "{}: foreign things are not listed", case.name);
    let stats = hv.stats().await.unwrap();
    assert!(stats.iter().all(|s| !case.foreign.contains(&s.id)));
    if case.files {
        let (id, theirs) = (DesktopId(Uuid::now_v7()), InstallationId(Uuid::now_v7()));
        let dir = &case.place.owner.disk_dir;
        let mark = overlay::Mark { installation: theirs, desktop: id, generation: 1 };
        overlay::create(dir, mark, &case.place.owner.image_dir.join("small.qcow2"), 64 << 20).unwrap();
        let s = DesktopSpec { id, ..spec("not-yours") };
        assert!(matches!(hv.ensure_disk(&s).await, Err(Error::Refused(_))));
        hv.ensure_absent(id).await.unwrap();
        assert_eq!(found(hv).await, []);
        assert_eq!(overlay::state(dir, id).unwrap(), State::Ours(mark), "another installation's disk stays");
        overlay::remove(dir, id, theirs).unwrap();
    }
}

async fn many(case: &Case<'_>) {
    let specs: Vec<_> = (0..20).map(|n| spec(&format!("many-{n}"))).collect();
    let started = Instant::now();
    let tasks: Vec<_> = specs
        .iter()
        .cloned()
        .map(|s| {
            let hv = Arc::clone(&case.hv);
            tokio::spawn(async move {
                hv.ensure_disk(&s).await.unwrap();
                hv.ensure_defined(&s).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    eprintln!("{}: 20 desktops defined in {:?}", case.name, started.elapsed());
    let all = found(&case.hv).await;
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|f| f.observed.disk && f.observed.power == Some(Power::Off)));
    for s in &specs {
        case.hv.ensure_absent(s.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_host_conforms() {
    let place = Place::new();
    let state = place.folder.path().join("world");
    let uri = format!("sim:///one?images=1&state={}", state.display());
    let sim = tram_hypervisor::sim::Sim::open(&uri, place.options(DEADLINE)).unwrap();
    let id = DesktopId(Uuid::now_v7());
    sim.add_foreign(id, "not-yours").unwrap();
    let before = sim.everything();
    let sim = Arc::new(sim);
    let case = Case {
        name: "simulated host",
        hv: Arc::clone(&sim) as Arc<dyn Hypervisor>,
        place,
        files: false,
        display: true,
        reset: true,
        stats: true,
        foreign: vec![id],
    };
    suite(&case).await;
    assert_eq!(sim.everything(), before, "what belongs to others was touched");
}

/// Two domains that are not ours: one without any mark, one of another installation.
fn plant(define: impl Fn(&Path), kind: &str) -> Vec<DesktopId> {
    let folder = tempfile::tempdir().unwrap();
    let ids = [DesktopId(Uuid::now_v7()), DesktopId(Uuid::now_v7())];
    let theirs = format!(
        "<metadata><tram:desktop xmlns:tram='https://tram.invalid/xmlns/desktop/1' installation='{}' id='{}' generation='1' form=''/></metadata>",
        Uuid::now_v7(),
        ids[1]
    );
    for (id, metadata) in ids.iter().zip(["", &theirs]) {
        let file = folder.path().join("d.xml");
        let xml = format!(
            "<domain type='{kind}'><name>foreign-{id}</name><uuid>{id}</uuid>{metadata}<memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
        );
        std::fs::write(&file, xml).unwrap();
        define(&file);
    }
    ids.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirts_test_driver_over_rpc_conforms() {
    let daemon = Daemon::start();
    let place = Place::new();
    let hv = open(&daemon.test_uri(), place.options(DEADLINE)).unwrap();
    // The driver's world lives as long as somebody is connected: be first.
    hv.host_info().await.unwrap();
    let foreign = plant(|file| drop(daemon.test_driver(&["define", file.to_str().unwrap()])), "test");
    let before: Vec<_> = foreign.iter().map(|id| daemon.test_driver(&["dumpxml", &id.to_string()])).collect();
    let case = Case {
        name: "libvirt's test driver",
        hv,
        place,
        files: true,
        display: false,
        reset: true,
        stats: false,
        foreign,
    };
    assert_eq!(case.hv.host_info().await.unwrap().accel, Accel::None);
    suite(&case).await;
    a_copy_is_not_ours(&case, |args| daemon.test_driver(args)).await;
    let after: Vec<_> = case.foreign.iter().map(|id| daemon.test_driver(&["dumpxml", &id.to_string()])).collect();
    assert_eq!(after, before, "what belongs to others was touched");
    let list = daemon.test_driver(&["list", "--all", "--name"]);
    assert!(list.lines().any(|l| l == "test"), "the driver's own domain is still there: {list}");
}

/// The same suite once more, with a node and its connections in between: on what simulates, and on libvirt.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_behind_a_node_conform() {
    let daemon = Daemon::start();
    let authority = Authority::new();
    for name in ["simulated host", "libvirt"] {
        let place = Place::new();
        let real = name == "libvirt";
        let simulated = format!("sim:///one?images=1&state={}", place.folder.path().join("world").display());
        let mut foreign = vec![DesktopId(Uuid::now_v7())];
        if !real {
            let sim = tram_hypervisor::sim::Sim::open(&simulated, place.options(DEADLINE)).unwrap();
            sim.add_foreign(foreign[0], "not-yours").unwrap();
        }
        let uri = if real { daemon.test_uri() } else { simulated };
        let node = Served::start(&uri, place.options(DEADLINE), &authority).await;
        let hv = node.backend(place.options(DEADLINE), &authority);
        // The test driver's world lives as long as somebody is connected, and here that is the node.
        hv.host_info().await.unwrap();
        if real {
            foreign = plant(|file| drop(daemon.test_driver(&["define", file.to_str().unwrap()])), "test");
        }
        let name = format!("a node before {name}");
        let case = Case { name: &name, hv, place, files: real, display: !real, reset: true, stats: !real, foreign };
        suite(&case).await;
    }
}

/// The image the guest tests boot. Missing is a failure: a run that skips in silence proves nothing.
fn test_image() -> Option<PathBuf> {
    if std::env::var_os("TRAM_SKIP_QEMU").is_some() {
        eprintln!("TRAM_SKIP_QEMU is set: nothing is run on QEMU");
        return None;
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache"));
    let image = std::env::var_os("TRAM_TEST_IMAGE")
        .map_or_else(|| cache.join("tram/images/test/tram-test.qcow2"), PathBuf::from);
    assert!(
        image.is_file(),
        "{} is missing: run `make images`, or set TRAM_SKIP_QEMU=1 to go without",
        image.display()
    );
    Some(image)
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_conforms_and_boots_a_guest_to_its_agent() {
    let Some(image) = test_image() else { return };
    let daemon = Daemon::start();
    let place = Place::new();
    let hv = open(&daemon.qemu_uri(), place.options(DEADLINE)).unwrap();
    let info = hv.host_info().await.unwrap();
    eprintln!("QEMU: {info:?}");
    assert!(info.hypervisor_version.starts_with("QEMU "), "{}", info.hypervisor_version);
    let foreign = plant(|file| drop(daemon.qemu(&["define", file.to_str().unwrap()])), "qemu");
    let before: Vec<_> = foreign.iter().map(|id| daemon.qemu(&["dumpxml", &id.to_string()])).collect();
    let case = Case { name: "QEMU", hv, place, files: true, display: true, reset: true, stats: true, foreign };
    suite(&case).await;
    a_copy_is_not_ours(&case, |args| daemon.qemu(args)).await;
    let after: Vec<_> = case.foreign.iter().map(|id| daemon.qemu(&["dumpxml", &id.to_string()])).collect();
    assert_eq!(after, before, "what belongs to others was touched");

    machines(&daemon, &case).await;
    boots(&daemon, &case, &image).await;
}

/// The firmware and the TPM that other systems expect: QEMU starts with them, and what they keep goes with the desktop.
async fn machines(daemon: &Daemon, case: &Case<'_>) {
    let hv = &case.hv;
    for (guest, secure) in [(GuestProfile::LinuxUefi, "secure='no'"), (GuestProfile::Windows, "secure='yes'")] {
        let s = DesktopSpec { guest, memory_mib: 256, ..spec("uefi-1") };
        hv.ensure_disk(&s).await.unwrap();
        hv.ensure_defined(&s).await.unwrap();
        hv.ensure_running(s.id).await.unwrap();
        assert_eq!(sees(hv, s.id).await.power, Some(Power::Running), "{guest:?}");
        let xml = daemon.qemu(&["dumpxml", &s.name]);
        let loader = xml.split("<loader ").nth(1).and_then(|l| l.split('>').next()).unwrap();
        // An older libvirt leaves out what is not so.
        assert!(
            loader.contains(secure) || (secure.contains("no") && !loader.contains("secure=")),
            "{guest:?}: {loader}"
        );
        assert_eq!(xml.contains("<tpm "), guest == GuestProfile::Windows, "{guest:?}");
        hv.ensure_absent(s.id).await.unwrap();
        let other = daemon.qemu(&["list", "--all", "--name"]);
        assert!(!other.contains("uefi-1"), "{other}");
    }
}

/// From an overlay to a guest agent that answers, a picture, and off again because the guest agreed.
async fn boots(daemon: &Daemon, case: &Case<'_>, image: &Path) {
    let golden = case.place.owner.image_dir.join("tram-test.qcow2");
    std::os::unix::fs::symlink(image.canonicalize().unwrap(), &golden).unwrap();
    let size = image.metadata().unwrap().len();
    let hv = &case.hv;
    let s = DesktopSpec { image_file: "tram-test.qcow2".into(), vcpus: 2, memory_mib: 768, ..spec("boots-1") };
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    let xml = daemon.qemu(&["dumpxml", "--inactive", &s.name]);
    let graphics = xml.split("<graphics ").nth(1).and_then(|g| g.split("</graphics>").next()).unwrap();
    assert!(graphics.contains("<listen type='none'/>") && !graphics.contains("port='5"), "no TCP port: {graphics}");
    let started = Instant::now();
    hv.ensure_running(s.id).await.unwrap();
    let mut events = hv.events();
    until("the guest agent answers", Duration::from_secs(300), async || {
        // The agent's event wakes us as it would a reconciler.
        let _ = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
        sees(hv, s.id).await.guest_ready
    })
    .await;
    eprintln!("QEMU: guest agent after {:?}", started.elapsed());
    let name = daemon.qemu(&["qemu-agent-command", &s.name, r#"{"execute":"guest-get-host-name"}"#]);
    assert!(name.contains("\"boots-1\""), "the guest took its name from us: {name}");
    drop(greet_display(hv.open_display(s.id, Display::Vnc).await.unwrap()));

    // A display does not stand behind slow work.
    let other = spec("slow-start");
    hv.ensure_disk(&other).await.unwrap();
    hv.ensure_defined(&other).await.unwrap();
    let slow = tokio::spawn({
        let hv = Arc::clone(hv);
        async move { hv.ensure_running(other.id).await.map(|()| other.id) }
    });
    let opening = Instant::now();
    drop(hv.open_display(s.id, Display::Vnc).await.unwrap());
    eprintln!("QEMU: display opened in {:?} while another guest starts", opening.elapsed());
    hv.ensure_absent(slow.await.unwrap().unwrap()).await.unwrap();

    // The agent may answer before anything is drawn: a blank screen has about 900 bytes.
    until("the screen shows something", Duration::from_secs(180), async || {
        hv.screenshot(s.id).await.unwrap().len() > 2000
    })
    .await;
    let signed_in = hv.signed_in(s.id).await.unwrap();
    eprintln!("QEMU: somebody is signed in: {signed_in:?}");
    assert!(signed_in.is_some(), "the guest's agent answers, and knows");
    hv.ensure_stopped(s.id, Stop::Graceful).await.unwrap();
    until("the guest switches itself off", Duration::from_secs(120), async || {
        sees(hv, s.id).await.power == Some(Power::Off)
    })
    .await;
    hv.ensure_absent(s.id).await.unwrap();
    assert_eq!(image.metadata().unwrap().len(), size);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_guest_ends_in_emulation_and_tells_a_working_kvm_from_a_hanging_one() {
    if std::env::var_os("TRAM_SKIP_QEMU").is_some() {
        eprintln!("TRAM_SKIP_QEMU is set: no probe guest is run");
        return;
    }
    let daemon = Daemon::start();
    let place = Place::new();
    let (uri, folder) = (daemon.qemu_uri(), place.owner.disk_dir.clone());
    let probe = move |kind, seconds| libvirt::run_probe(&uri, &folder, Duration::from_secs(seconds), kind).unwrap();
    let (emulated, kvm) =
        tokio::task::spawn_blocking(move || (probe(Accel::Tcg, 60), probe(Accel::Kvm, 10))).await.unwrap();
    eprintln!("probe in emulation: {}", emulated.reason);
    eprintln!("probe with KVM: {} ({})", kvm.reason, kvm.code);
    assert_eq!((emulated.accel, emulated.code), (Accel::Tcg, "probe_ok"));
    let machine = libvirt::accel::Machine::read();
    if machine.device && machine.flags == Some(false) {
        assert_eq!(kvm.accel, Accel::Tcg, "a KVM without processor support can't have run a guest");
        assert!(matches!(kvm.code, "probe_hung" | "probe_failed"), "{}", kvm.code);
    } else if !machine.device {
        assert_eq!(kvm.code, "probe_failed");
    }
    assert_eq!(daemon.qemu(&["list", "--all", "--name"]).trim(), "", "the probe guest is gone");
    assert_eq!(std::fs::read_dir(&place.owner.disk_dir).unwrap().count(), 0, "and its disk too");
}
