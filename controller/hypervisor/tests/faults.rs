//! What goes wrong between us and libvirt: killed, frozen, flooded, not there, gone in mid-call.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Daemon, Place, event, found, sees, spec, until};
use nix::sys::signal::Signal;
use tram_hypervisor::{Error, HostEvent, Hypervisor, Power, error::Class, open};

const LOST: Duration = Duration::from_secs(30);

async fn up(uri: &str, place: &Place, deadline: Duration) -> Arc<dyn Hypervisor> {
    let hv = open(&format!("{uri}&tram_keepalive=1,2"), place.options(deadline)).unwrap();
    until("the host is up", Duration::from_secs(60), async || hv.host_info().await.is_ok()).await;
    hv
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_not_there_is_unreachable_and_comes_up_by_itself() {
    let place = Place::new();
    let mut daemon = Daemon::start();
    daemon.kill9();
    let hv = open(&daemon.test_uri(), place.options(Duration::from_secs(5))).unwrap();
    let started = Instant::now();
    let answer = hv.inventory().await;
    assert!(matches!(answer, Err(Error::Unreachable(_))), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "and said so at once");
    let mut events = hv.events();
    daemon.restart();
    event(&mut events, LOST, |e| *e == HostEvent::Resync).await;
    hv.inventory().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_libvirtd_is_noticed_at_once_and_all_is_there_after_its_return() {
    if std::env::var_os("TRAM_SKIP_QEMU").is_some() {
        eprintln!("TRAM_SKIP_QEMU is set: libvirtd with QEMU is not killed");
        return;
    }
    let place = Place::new();
    let mut daemon = Daemon::start();
    let hv = up(&daemon.qemu_uri(), &place, Duration::from_secs(60)).await;
    let (on, off) = (spec("on"), spec("off"));
    for s in [&on, &off] {
        hv.ensure_disk(s).await.unwrap();
        hv.ensure_defined(s).await.unwrap();
    }
    hv.ensure_running(on.id).await.unwrap();
    let mut events = hv.events();

    // In mid-call: the start of a guest takes far longer than the kill.
    let call = tokio::spawn({
        let (hv, id) = (Arc::clone(&hv), off.id);
        async move { hv.ensure_running(id).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let killed = Instant::now();
    daemon.kill9();
    event(&mut events, Duration::from_secs(5), |e| *e == HostEvent::Lost).await;
    eprintln!("loss noticed after {:?}", killed.elapsed());
    let cut = call.await.unwrap();
    assert!(cut.is_ok() || cut.as_ref().is_err_and(|e| e.class() == Class::Retry), "{cut:?}");
    let refused = Instant::now();
    assert!(matches!(hv.observe(on.id).await, Err(Error::Unreachable(_))));
    assert!(refused.elapsed() < Duration::from_secs(1), "a lost host is not waited for");

    daemon.restart();
    event(&mut events, LOST, |e| *e == HostEvent::Resync).await;
    eprintln!("back after {:?}", killed.elapsed());
    assert_eq!(sees(&hv, on.id).await.power, Some(Power::Running), "the guest lived on");
    assert_eq!(found(&hv).await.len(), 2);
    // The same calls again end in the same place.
    for s in [&on, &off] {
        hv.ensure_disk(s).await.unwrap();
        hv.ensure_defined(s).await.unwrap();
        hv.ensure_running(s.id).await.unwrap();
        assert_eq!(sees(&hv, s.id).await.power, Some(Power::Running));
        // And events flow on the new connection.
        hv.ensure_absent(s.id).await.unwrap();
        event(&mut events, Duration::from_secs(10), |e| *e == HostEvent::Desktop(s.id)).await;
    }
    assert_eq!(found(&hv).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_libvirtd_holds_nobody_up_and_is_forgiven_when_it_wakes() {
    let place = Place::new();
    let daemon = Daemon::start();
    let deadline = Duration::from_millis(1500);
    let hv = up(&daemon.test_uri(), &place, deadline).await;
    let s = spec("frozen");
    hv.ensure_disk(&s).await.unwrap();
    hv.ensure_defined(&s).await.unwrap();
    let mut events = hv.events();

    daemon.signal(Signal::SIGSTOP);
    let started = Instant::now();
    let first = hv.observe(s.id).await;
    assert!(matches!(first, Err(Error::Timeout(_))), "{first:?}");
    assert!(started.elapsed() < deadline + Duration::from_secs(1));
    event(&mut events, LOST, |e| *e == HostEvent::Lost).await;
    eprintln!("freeze noticed after {:?}", started.elapsed());
    let refused = Instant::now();
    assert!(matches!(hv.observe(s.id).await, Err(Error::Unreachable(_))));
    assert!(refused.elapsed() < Duration::from_millis(500), "at once, not after the deadline");

    daemon.signal(Signal::SIGCONT);
    event(&mut events, LOST, |e| *e == HostEvent::Resync).await;
    until("calls work again", LOST, async || hv.observe(s.id).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_libvirtd_that_is_then_killed_is_replaced() {
    let place = Place::new();
    let mut daemon = Daemon::start();
    let hv = up(&daemon.test_uri(), &place, Duration::from_secs(1)).await;
    let mut events = hv.events();
    daemon.signal(Signal::SIGSTOP);
    event(&mut events, LOST, |e| *e == HostEvent::Lost).await;
    // By now the keeper hangs in opening a connection that the frozen daemon never accepts.
    tokio::time::sleep(Duration::from_secs(2)).await;
    daemon.kill9();
    daemon.restart();
    event(&mut events, LOST, |e| *e == HostEvent::Resync).await;
    until("calls work again", LOST, async || hv.inventory().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_calls_is_refused_not_queued_without_end() {
    let place = Place::new();
    let daemon = Daemon::start();
    let deadline = Duration::from_secs(2);
    let hv = up(&daemon.test_uri(), &place, deadline).await;
    daemon.signal(Signal::SIGSTOP);
    let started = Instant::now();
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let hv = Arc::clone(&hv);
            tokio::spawn(async move { hv.inventory().await })
        })
        .collect();
    let (mut overloaded, mut others) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Err(Error::Overloaded) => overloaded += 1,
            Err(Error::Timeout(_) | Error::Unreachable(_)) => others += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() < deadline + Duration::from_secs(3));
    assert!(overloaded > 800 && others > 0, "{overloaded} refused, {others} timed out");
    daemon.signal(Signal::SIGCONT);
    until("calls work again", LOST, async || hv.inventory().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_folder_and_a_read_only_one_leave_nothing_half_done() {
    let place = Place::new();
    let daemon = Daemon::start();
    let hv = up(&daemon.test_uri(), &place, Duration::from_secs(10)).await;
    // A file where the folder should be: the same for root, whom permissions don't stop.
    std::fs::write(&place.owner.disk_dir, b"").unwrap();
    let s = spec("no-room");
    let refused = hv.ensure_disk(&s).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    std::fs::remove_file(&place.owner.disk_dir).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::fs::create_dir(&place.owner.disk_dir).unwrap();
        let mount = |options: &str| {
            let done = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(&place.owner.disk_dir)
                .status();
            assert!(done.unwrap().success());
        };
        let unmount =
            || assert!(std::process::Command::new("umount").arg(&place.owner.disk_dir).status().unwrap().success());
        mount("size=8k");
        let full = hv.ensure_disk(&s).await;
        let left = std::fs::read_dir(&place.owner.disk_dir).unwrap().count();
        unmount();
        assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
        assert_eq!(left, 0, "nothing half done");
        mount("ro");
        let read_only = hv.ensure_disk(&s).await;
        unmount();
        assert!(matches!(read_only, Err(Error::Refused(_))), "{read_only:?}");
    } else {
        eprintln!("skipped, not root: a full and a read-only disk folder");
    }
    hv.ensure_disk(&s).await.unwrap();
}
