//! Linked clones to *defined*, against what anybody would write as a shell loop.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Daemon, Place, found, spec};
use tram_hypervisor::{DesktopSpec, Hypervisor, open};

const CLONES: usize = 30;
const ROUNDS: usize = 3;
const GOAL: f64 = 1.15;

#[tokio::test(flavor = "multi_thread")]
async fn thirty_clones_are_defined_no_slower_than_by_a_bare_loop() {
    if std::env::var_os("TRAM_SKIP_QEMU").is_some() {
        eprintln!("TRAM_SKIP_QEMU is set: nothing is measured on QEMU");
        return;
    }
    let daemon = Daemon::start();
    let place = Place::new();
    let hv = open(&daemon.qemu_uri(), place.options(Duration::from_secs(60))).unwrap();
    hv.host_info().await.unwrap();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let specs: Vec<_> = (0..CLONES).map(|n| spec(&format!("clone-{round}-{n}"))).collect();
        ours.push(provision(&hv, &specs).await);
        assert_eq!(found(&hv).await.len(), CLONES);
        // The loop defines the very same definitions.
        let xml: Vec<_> = specs.iter().map(|s| daemon.qemu(&["dumpxml", "--inactive", &s.name])).collect();
        for s in &specs {
            hv.ensure_absent(s.id).await.unwrap();
        }
        bare.push(shell_loop(&daemon, &place, &xml));
        for s in &specs {
            hv.ensure_absent(s.id).await.unwrap();
        }
    }
    let median = |v: &mut Vec<Duration>| {
        v.sort();
        v[v.len() / 2].as_secs_f64()
    };
    let (ours, bare) = (median(&mut ours), median(&mut bare));
    eprintln!(
        "{CLONES} clones defined: {:.0} ms, bare loop {:.0} ms, ratio {:.2}",
        ours * 1e3,
        bare * 1e3,
        ours / bare
    );
    assert!(ours <= bare * GOAL, "{ours:.3} s against {bare:.3} s");
}

async fn provision(hv: &Arc<dyn Hypervisor>, specs: &[DesktopSpec]) -> Duration {
    let started = Instant::now();
    let one = |s: DesktopSpec| {
        let hv = Arc::clone(hv);
        tokio::spawn(async move {
            hv.ensure_disk(&s).await.unwrap();
            hv.ensure_defined(&s).await.unwrap();
        })
    };
    for task in specs.iter().cloned().map(one).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    started.elapsed()
}

fn shell_loop(daemon: &Daemon, place: &Place, definitions: &[String]) -> Duration {
    let backing = place.owner.image_dir.join("small.qcow2");
    let files: Vec<_> = definitions
        .iter()
        .enumerate()
        .map(|(n, xml)| {
            let file = place.folder.path().join(format!("{n}.xml"));
            std::fs::write(&file, xml).unwrap();
            (file, place.folder.path().join(format!("{n}.qcow2")))
        })
        .collect();
    let started = Instant::now();
    for (xml, disk) in &files {
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(&backing)
            .arg(disk)
            .status();
        assert!(made.unwrap().success());
        daemon.qemu(&["define", xml.to_str().unwrap()]);
    }
    started.elapsed()
}
