//! Opening and closing backends. Alone in its program, because it counts the process's threads.

mod common;

use std::time::Duration;

use common::{Daemon, Place, until};
use tram_hypervisor::open;

const LIMIT: Duration = Duration::from_secs(30);

/// A host whose address or policy is changed is opened anew: neither threads nor connections may pile up.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_backend_takes_its_threads_and_connections_along() {
    let place = Place::new();
    let daemon = Daemon::start();
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let once = async || {
        let hv = open(&daemon.test_uri(), place.options(Duration::from_secs(10))).unwrap();
        until("the host is up", LIMIT, async || hv.host_info().await.is_ok()).await;
    };
    once().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (threads, files) = (count("task"), count("fd"));
    for _ in 0..20 {
        once().await;
    }
    // Each has six threads and up to six connections while it lives.
    until("threads end", LIMIT, async || count("task") <= threads + 3).await;
    until("connections are closed", LIMIT, async || count("fd") <= files + 6).await;
}
