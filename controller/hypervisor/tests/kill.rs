//! Provisioning on real QEMU while the controller or libvirtd is killed: in the end there is exactly what
//! was asked for, and what belongs to others is as it was.

mod common;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Daemon, Place, found, spec, until};
use tram_hypervisor::{
    AccelPolicy, DesktopId, DesktopSpec, Hypervisor, InstallationId, OpenOptions, Owner, Power, Result, open,
};
use uuid::Uuid;

const DESKTOPS: u128 = 20;

fn specs() -> Vec<DesktopSpec> {
    (0..DESKTOPS).map(|n| DesktopSpec { id: DesktopId(Uuid::from_u128(n + 1)), ..spec(&format!("pc-{n}")) }).collect()
}

/// The step of the child's at which it says so and goes no further, while its other calls go on: what a kill
/// hits is then a matter of steps, not of how fast a machine is.
const KILL_AT: &str = "TRAM_KILL_AT";

/// One more step is done.
async fn step() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let Some(at) = std::env::var(KILL_AT).ok().and_then(|at| at.parse::<usize>().ok()) else { return };
    if DONE.fetch_add(1, Ordering::SeqCst) + 1 == at {
        // The test harness swallows what is printed, but not what is written.
        std::io::stderr().write_all(b"!").unwrap();
        std::future::pending::<()>().await;
    }
}

async fn provision(hv: &Arc<dyn Hypervisor>) -> Vec<Result<()>> {
    let one = |s: DesktopSpec| {
        let hv = Arc::clone(hv);
        tokio::spawn(async move {
            hv.ensure_disk(&s).await?;
            step().await;
            hv.ensure_defined(&s).await?;
            step().await;
            Ok(())
        })
    };
    let mut results = Vec::new();
    for task in specs().into_iter().map(one).collect::<Vec<_>>() {
        results.push(task.await.unwrap());
    }
    results
}

fn skipped() -> bool {
    let skip = std::env::var_os("TRAM_SKIP_QEMU").is_some();
    if skip {
        eprintln!("TRAM_SKIP_QEMU is set: nothing is killed on QEMU");
    }
    skip
}

/// Twenty desktops, whole, and no file or domain beside them.
async fn exactly_twenty(hv: &Arc<dyn Hypervisor>, daemon: &Daemon, place: &Place, when: &str) {
    let all = found(hv).await;
    let wanted: BTreeSet<_> = specs().iter().map(|s| s.id).collect();
    assert_eq!(all.iter().map(|f| f.id).collect::<BTreeSet<_>>(), wanted, "{when}");
    assert!(all.iter().all(|f| f.observed.disk && f.observed.power == Some(Power::Off)), "{when}: {all:?}");
    let names = daemon.qemu(&["list", "--all", "--name"]);
    assert_eq!(names.split_whitespace().count(), specs().len() + 1, "{when}: ours and the foreign one: {names}");
    let files: BTreeSet<_> = std::fs::read_dir(&place.owner.disk_dir)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: BTreeSet<_> = specs().iter().map(|s| format!("{}.qcow2", s.id)).collect();
    expected.insert("theirs.qcow2".into());
    assert_eq!(files, expected, "{when}");
    for s in specs() {
        let disk = place.owner.disk_dir.join(format!("{}.qcow2", s.id));
        let check = Command::new("qemu-img").args(["check", "-q", "-f", "qcow2"]).arg(&disk).status().unwrap();
        assert!(check.success(), "{when}: {}", disk.display());
    }
}

fn plant(daemon: &Daemon, place: &Place) -> String {
    std::fs::create_dir_all(&place.owner.disk_dir).unwrap();
    std::fs::write(place.owner.disk_dir.join("theirs.qcow2"), b"theirs").unwrap();
    let file = place.folder.path().join("foreign.xml");
    let xml = "<domain type='qemu'><name>theirs</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>";
    std::fs::write(&file, xml).unwrap();
    daemon.qemu(&["define", file.to_str().unwrap()]);
    daemon.qemu(&["dumpxml", "theirs"])
}

/// Not a test of its own: the controller that gets killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by a_killed_controller"]
async fn child_that_provisions() {
    let (Ok(uri), Ok(folder)) = (std::env::var("TRAM_KILL_URI"), std::env::var("TRAM_KILL_FOLDER")) else { return };
    let folder = Path::new(&folder);
    let owner = Owner {
        installation: InstallationId(Uuid::nil()),
        image_dir: folder.join("images"),
        disk_dir: folder.join("disks"),
    };
    let options = OpenOptions { owner, accel: AccelPolicy::Tcg, deadline: Duration::from_secs(60), tls: None };
    let hv = open(&uri, options).unwrap();
    for result in provision(&hv).await {
        result.unwrap();
    }
    // Half of them again, away: kills hit removals too.
    for s in specs().iter().step_by(2) {
        hv.ensure_absent(s.id).await.unwrap();
        step().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_leaves_nothing_that_is_not_taken_up_again() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start();
    let mut place = Place::new();
    place.owner.installation = InstallationId(Uuid::nil());
    let theirs = plant(&daemon, &place);
    let hv = open(&daemon.qemu_uri(), place.options(Duration::from_secs(60))).unwrap();
    hv.host_info().await.unwrap();
    // Two steps for each of twenty desktops, then ten removals.
    for (round, at) in [1, 4, 9, 15, 21, 28, 35, 40, 43, 48].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_that_provisions", "-q"])
            .env("TRAM_KILL_URI", daemon.qemu_uri())
            .env("TRAM_KILL_FOLDER", place.folder.path())
            .env(KILL_AT, at.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = child.stderr.take().unwrap();
        let reached = tokio::task::spawn_blocking(move || {
            let mut word = [0];
            // What else is on its stderr is no word of ours.
            while said.read(&mut word).unwrap() == 1 && word != *b"!" {}
            word == *b"!"
        });
        let reached = reached.await.unwrap();
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success() && reached, "the child ended before its step {at}");
        // libvirtd may still be finishing the dead one's last call.
        for result in provision(&hv).await {
            result.unwrap();
        }
        exactly_twenty(&hv, &daemon, &place, &format!("controller killed at step {at}")).await;
        // Every second round starts from nothing, the others from what is there.
        if round % 2 == 0 {
            for s in specs() {
                hv.ensure_absent(s.id).await.unwrap();
            }
            assert_eq!(found(&hv).await, []);
        }
    }
    assert_eq!(daemon.qemu(&["dumpxml", "theirs"]), theirs);
    assert_eq!(std::fs::read(place.owner.disk_dir.join("theirs.qcow2")).unwrap(), b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_libvirtd_leaves_nothing_that_is_not_taken_up_again() {
    if skipped() {
        return;
    }
    let mut daemon = Daemon::start();
    let place = Place::new();
    let theirs = plant(&daemon, &place);
    let hv = open(&daemon.qemu_uri(), place.options(Duration::from_secs(60))).unwrap();
    hv.host_info().await.unwrap();
    let mut cut = 0;
    for after in [5, 15, 30, 50, 80] {
        let provisioning = tokio::spawn({
            let hv = Arc::clone(&hv);
            async move { provision(&hv).await }
        });
        tokio::time::sleep(Duration::from_millis(after)).await;
        daemon.kill9();
        cut += provisioning.await.unwrap().iter().filter(|r| r.is_err()).count();
        daemon.restart();
        until("the host is back", Duration::from_secs(60), async || hv.host_info().await.is_ok()).await;
        for result in provision(&hv).await {
            result.unwrap();
        }
        exactly_twenty(&hv, &daemon, &place, &format!("libvirtd killed after {after} ms")).await;
        for s in specs() {
            hv.ensure_absent(s.id).await.unwrap();
        }
        assert_eq!(found(&hv).await, []);
    }
    assert!(cut > 0, "no kill ever hit a call");
    assert_eq!(daemon.qemu(&["dumpxml", "theirs"]), theirs);
}
