//! The simulated host's own promises: it survives kill -9 at any point, stays cheap, and its display
//! does what viewers and benchmarks need.

mod common;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Place, event, found, sees, spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tram_hypervisor::sim::Sim;
use tram_hypervisor::{
    AccelPolicy, DesktopId, DesktopSpec, Error, HostEvent, Hypervisor, InstallationId, OpenOptions, Owner, Power, Stop,
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(5);

fn sim(place: &Place, query: &str) -> Arc<Sim> {
    Arc::new(Sim::open(&format!("sim:///t?{query}"), place.options(DEADLINE)).unwrap())
}

fn five() -> Vec<DesktopSpec> {
    (0..5).map(|n| DesktopSpec { id: DesktopId(Uuid::from_u128(n + 1)), ..spec(&format!("pc-{n}")) }).collect()
}

async fn provision(sim: &Sim) -> tram_hypervisor::Result<()> {
    for s in five() {
        sim.ensure_disk(&s).await?;
        sim.ensure_defined(&s).await?;
        sim.ensure_running(s.id).await?;
    }
    Ok(())
}

/// Not a test of its own: the process that gets killed.
#[tokio::test]
#[ignore = "started by kill_9_at_every_point"]
async fn child_that_provisions() {
    let Some(state) = std::env::var_os("TRAM_SIM_CHILD_STATE") else { return };
    // No folder of its own: a killed process can't remove it.
    let state = Path::new(&state);
    let owner = Owner { installation: InstallationId(Uuid::nil()), image_dir: state.into(), disk_dir: state.into() };
    let options = OpenOptions { owner, accel: AccelPolicy::Auto, deadline: DEADLINE, tls: None };
    provision(&Sim::open(&format!("sim:///t?state={}", state.display()), options).unwrap()).await.unwrap();
}

#[tokio::test]
async fn kill_9_at_every_point_leaves_no_orphan_and_the_rest_is_made_up() {
    let mut place = Place::new();
    place.owner.installation = InstallationId(Uuid::nil());
    let mut kills = 0;
    for point in 1.. {
        let state = place.folder.path().join(format!("world-{point}"));
        let uri = format!("state={}", state.display());
        let theirs = DesktopId(Uuid::now_v7());
        sim(&place, &uri).add_foreign(theirs, "theirs").unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_that_provisions", "-q"])
            .env("TRAM_SIM_CHILD_STATE", &state)
            .env("TRAM_SIM_KILL_AT", point.to_string())
            .output()
            .unwrap();
        let after = sim(&place, &uri);
        let seen = after.inventory().await.unwrap();
        assert!(seen.iter().all(|f| five().iter().any(|s| s.id == f.id)), "point {point}: an orphan");
        assert!(
            seen.iter().all(|f| f.observed.power.is_none() || f.observed.disk),
            "point {point}: a domain on half a disk: {seen:?}"
        );
        provision(&after).await.unwrap();
        let all = after.inventory().await.unwrap();
        assert_eq!(all.len(), 5, "point {point}");
        assert!(all.iter().all(|f| f.observed.power == Some(Power::Running) && f.observed.disk), "point {point}");
        assert_eq!(after.everything().len(), 6, "point {point}: what belongs to others is still there");
        if child.status.success() {
            break;
        }
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.status.signal(), Some(9), "{}", String::from_utf8_lossy(&child.stderr));
        kills += 1;
    }
    assert_eq!(kills, 5 * 8, "two writes for a disk, one for a domain, one for its start, a point on each side");
}

#[tokio::test]
async fn halted_in_the_middle_it_goes_on_where_it_stood() {
    let place = Place::new();
    let sim = sim(&place, "");
    sim.faults().set_halt_at(6);
    assert!(matches!(provision(&sim).await, Err(Error::Unreachable(_))));
    let passed = sim.faults().points_passed();
    sim.faults().set_halt_at(0);
    assert!(passed >= 6);
    provision(&sim).await.unwrap();
    assert_eq!(sim.inventory().await.unwrap().len(), 5);
}

#[tokio::test]
async fn failures_delays_and_outages_are_as_ordered() {
    let place = Place::new();
    let state = place.folder.path().join("w");
    let sim = sim(&place, &format!("fail_every=3&state={}", state.display()));
    let mut refused = 0;
    for _ in 0..9 {
        refused += usize::from(matches!(sim.inventory().await, Err(Error::Refused(_))));
    }
    assert_eq!(refused, 3);
    sim.faults().set_fail_every(0);

    sim.faults().set_delay(Duration::from_millis(30));
    let started = Instant::now();
    sim.inventory().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30));
    sim.faults().set_delay(Duration::ZERO);
    let hasty = Sim::open("sim:///hasty?delay_ms=60000", place.options(Duration::from_millis(50))).unwrap();
    assert!(matches!(hasty.inventory().await, Err(Error::Timeout(_))));

    let mut events = sim.events();
    sim.set_offline(true);
    assert!(matches!(sim.inventory().await, Err(Error::Unreachable(_))));
    sim.set_offline(false);
    sim.inventory().await.unwrap();
    assert_eq!([events.recv().await.unwrap(), events.recv().await.unwrap()], [HostEvent::Lost, HostEvent::Resync]);
    std::fs::write(state.join("offline"), b"").unwrap();
    assert!(matches!(sim.inventory().await, Err(Error::Unreachable(_))), "also from outside");
}

#[tokio::test]
async fn a_boot_and_a_stop_take_their_time_and_say_when_they_are_done() {
    let place = Place::new();
    let sim = sim(&place, "boot_ms=80&stop_ms=60");
    let hv = Arc::clone(&sim) as Arc<dyn Hypervisor>;
    let s = spec("slow");
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    hv.ensure_running(s.id).await.unwrap();
    assert!(!sees(&hv, s.id).await.guest_ready);
    let mut events = hv.events();
    event(&mut events, DEADLINE, |e| *e == HostEvent::Desktop(s.id)).await;
    let seen = sees(&hv, s.id).await;
    assert!(seen.guest_ready && seen.addresses.len() == 1, "{seen:?}");
    hv.ensure_stopped(s.id, Stop::Graceful).await.unwrap();
    assert_eq!(sees(&hv, s.id).await.power, Some(Power::Running), "it was only asked");
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(sees(&hv, s.id).await.power, Some(Power::Off));
    hv.ensure_running(s.id).await.unwrap();
    sim.crash(s.id).unwrap();
    assert_eq!(sees(&hv, s.id).await.power, Some(Power::Crashed));
    hv.ensure_running(s.id).await.unwrap();
    assert_eq!(sees(&hv, s.id).await.power, Some(Power::Running));
}

#[tokio::test]
async fn the_memory_of_the_host_is_not_without_end() {
    let place = Place::new();
    let sim = sim(&place, "memory_mib=100");
    for (n, want) in [(0, true), (1, true), (2, true), (3, false)] {
        let s = spec(&format!("m-{n}"));
        sim.ensure_disk(&s).await.unwrap();
        sim.ensure_defined(&s).await.unwrap();
        let started = sim.ensure_running(s.id).await;
        assert_eq!(started.is_ok(), want, "{started:?}");
        assert!(want || matches!(started, Err(Error::Full(_))));
    }
}

/// Starts `count` desktops, one after the other, and says how long it took.
async fn start_many(hv: &Arc<dyn Hypervisor>, count: usize) -> Duration {
    let started = Instant::now();
    for n in 0..count {
        let s = spec(&format!("many-{n}"));
        hv.ensure_disk(&s).await.unwrap();
        hv.ensure_defined(&s).await.unwrap();
        hv.ensure_running(s.id).await.unwrap();
    }
    started.elapsed()
}

#[tokio::test]
async fn five_thousand_desktops_are_cheap() {
    let place = Place::new();
    let hv = sim(&place, "memory_mib=1000000") as Arc<dyn Hypervisor>;
    eprintln!("5,000 desktops started in {:?}", start_many(&hv, 5000).await);
    let asked = Instant::now();
    assert_eq!(found(&hv).await.len(), 5000);
    assert!(asked.elapsed() < Duration::from_millis(500), "an inventory took {:?}", asked.elapsed());

    let uri = format!("state={}", place.folder.path().join("w").display());
    let hv = sim(&place, &uri) as Arc<dyn Hypervisor>;
    eprintln!("500 kept in files started in {:?}", start_many(&hv, 500).await);
    assert_eq!(sim(&place, &uri).everything().len(), 500);
}

async fn viewer(sim: &Sim, id: DesktopId) -> UnixStream {
    viewer_that(sim, id, 1).await
}

/// `shared`: as QEMU takes it, 0 throws all others out.
async fn viewer_that(sim: &Sim, id: DesktopId, shared: u8) -> UnixStream {
    let fd: OwnedFd = sim.open_display(id, tram_hypervisor::Display::Vnc).await.unwrap();
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true).unwrap();
    let mut s = UnixStream::from_std(stream).unwrap();
    let mut version = [0; 12];
    s.read_exact(&mut version).await.unwrap();
    s.write_all(b"RFB 003.008\n").await.unwrap();
    let mut kinds = [0; 2];
    s.read_exact(&mut kinds).await.unwrap();
    assert_eq!(kinds, [1, 1]);
    s.write_all(&[1]).await.unwrap();
    let mut result = [9; 4];
    s.read_exact(&mut result).await.unwrap();
    assert_eq!(result, [0; 4]);
    s.write_all(&[shared]).await.unwrap();
    let mut init = [0; 24];
    s.read_exact(&mut init).await.unwrap();
    let mut name = vec![0; u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize];
    s.read_exact(&mut name).await.unwrap();
    s
}

async fn running(sim: &Sim) -> DesktopId {
    let s = spec("seen");
    sim.ensure_disk(&s).await.unwrap();
    sim.ensure_defined(&s).await.unwrap();
    sim.ensure_running(s.id).await.unwrap();
    s.id
}

fn ask(incremental: bool, w: u16, h: u16) -> Vec<u8> {
    let mut m = vec![3, u8::from(incremental), 0, 0, 0, 0];
    m.extend_from_slice(&w.to_be_bytes());
    m.extend_from_slice(&h.to_be_bytes());
    m
}

/// Reads one update of raw rectangles with 4 bytes a pixel.
async fn update(s: &mut UnixStream) -> Vec<([u16; 4], Vec<u8>)> {
    let mut head = [9; 4];
    tokio::time::timeout(DEADLINE, s.read_exact(&mut head)).await.expect("an update").unwrap();
    assert_eq!(head[0], 0);
    let mut rects = Vec::new();
    for _ in 0..u16::from_be_bytes([head[2], head[3]]) {
        let mut r = [0; 12];
        s.read_exact(&mut r).await.unwrap();
        let at = |i: usize| u16::from_be_bytes([r[i], r[i + 1]]);
        assert_eq!(&r[8..], &[0; 4], "raw");
        let mut pixels = vec![0; usize::from(at(4)) * usize::from(at(6)) * 4];
        s.read_exact(&mut pixels).await.unwrap();
        rects.push(([at(0), at(2), at(4), at(6)], pixels));
    }
    rects
}

#[tokio::test]
async fn who_does_not_share_throws_the_others_out() {
    let place = Place::new();
    let sim = sim(&place, "width=64&height=48");
    let id = running(&sim).await;
    let (mut one, mut two) = (viewer(&sim, id).await, viewer(&sim, id).await);
    one.write_all(&ask(false, 64, 48)).await.unwrap();
    update(&mut one).await;
    let mut alone = viewer_that(&sim, id, 0).await;
    for s in [&mut one, &mut two] {
        assert_eq!(tokio::time::timeout(DEADLINE, s.read(&mut [0; 1])).await.expect("thrown out").unwrap(), 0);
    }
    let mut guest = viewer(&sim, id).await;
    for s in [&mut alone, &mut guest] {
        s.write_all(&ask(false, 64, 48)).await.unwrap();
        update(s).await;
    }
}

#[tokio::test]
async fn a_key_changes_pixels_for_every_viewer_and_stays_for_the_next() {
    let place = Place::new();
    let sim = sim(&place, "width=64&height=48");
    let id = running(&sim).await;
    let (mut one, mut two) = (viewer(&sim, id).await, viewer(&sim, id).await);
    one.write_all(&ask(false, 64, 48)).await.unwrap();
    let before = update(&mut one).await;
    assert_eq!(before[0].0, [0, 0, 64, 48]);
    // A request for changes waits for one; it comes from the other viewer's keyboard.
    one.write_all(&ask(true, 64, 48)).await.unwrap();
    two.write_all(&[4, 1, 0, 0, 0, 0, 0, 0x61]).await.unwrap();
    let changed = update(&mut one).await;
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0, [0, 0, 16, 16]);
    assert_ne!(changed[0].1[..4], before[0].1[..4], "the pixels are others now");
    drop((one, two));
    // Drops the connection, comes back to the same desktop.
    let mut three = viewer(&sim, id).await;
    three.write_all(&ask(false, 64, 48)).await.unwrap();
    assert_eq!(update(&mut three).await[0].1[..4], changed[0].1[..4]);
    // Power off cuts the viewer off.
    sim.ensure_stopped(id, Stop::Force).await.unwrap();
    let end = tokio::time::timeout(DEADLINE, three.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn a_viewer_chooses_its_pixels_and_nonsense_ends_it() {
    let place = Place::new();
    let sim = sim(&place, "width=16&height=16");
    let id = running(&sim).await;
    let mut s = viewer(&sim, id).await;
    // 16 bits, big endian, 5-6-5; then encodings, a pointer, a cut text, all to be skipped.
    s.write_all(&[0, 0, 0, 0, 16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0]).await.unwrap();
    s.write_all(&[2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5]).await.unwrap();
    s.write_all(&[5, 0, 0, 1, 0, 1]).await.unwrap();
    s.write_all(&[6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c']).await.unwrap();
    s.write_all(&ask(false, 16, 16)).await.unwrap();
    let mut frame = vec![0; 4 + 12 + 16 * 16 * 2];
    tokio::time::timeout(DEADLINE, s.read_exact(&mut frame)).await.unwrap().unwrap();
    s.write_all(&[6, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]).await.unwrap();
    let end = tokio::time::timeout(DEADLINE, s.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "2 GB of clipboard: {end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_and_sink_carry_bulk_for_benchmarks() {
    let place = Place::new();
    let flood = sim(&place, "display=flood");
    let id = running(&flood).await;
    let mut s = viewer(&flood, id).await;
    s.write_all(&ask(true, 640, 400)).await.unwrap();
    let (started, mut buffer, mut got) = (Instant::now(), vec![0; 64 * 1024], 0);
    while got < 64 << 20 {
        got += tokio::time::timeout(DEADLINE, s.read(&mut buffer)).await.unwrap().unwrap();
    }
    eprintln!("flood: {:.2} GB/s", got as f64 / started.elapsed().as_secs_f64() / 1e9);

    let sink = sim(&place, "display=sink");
    let id = running(&sink).await;
    let mut s = viewer(&sink, id).await;
    let started = Instant::now();
    for _ in 0..1024 {
        tokio::time::timeout(DEADLINE, s.write_all(&buffer)).await.unwrap().unwrap();
    }
    eprintln!("sink: {:.2} GB/s", (64 << 20) as f64 / started.elapsed().as_secs_f64() / 1e9);
}

#[tokio::test]
async fn a_uri_that_is_not_understood_is_refused() {
    let place = Place::new();
    for bad in [
        "sim:",
        "sim:///",
        "sim:///a/b",
        "sim:///a?nonsense=1",
        "sim:///a?cpus=x",
        "sim:///a?display=tv",
        "sim:///a?width=0",
    ] {
        assert!(matches!(Sim::open(bad, place.options(DEADLINE)), Err(Error::Invalid(_))), "{bad}");
    }
}
