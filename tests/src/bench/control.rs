//! Rows of the control plane: provisioning, the API, long lists.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tram_controller::clock::Clock;
use tram_controller::domain::access::Role;
use tram_controller::domain::host::AccelSetting;
use tram_controller::domain::image::Guest;
use tram_controller::fleet::Fleet;
use tram_controller::reconcile::host_inventory::HostInventory;
use tram_controller::reconcile::pool_size::PoolSize;
use tram_controller::reconcile::{World, desktop_lifecycle, driver};
use tram_controller::services::{App, Ctx, hosts, images, pools};
use tram_controller::store::desktops::Filter;
use tram_hypervisor::{AccelPolicy, OpenOptions, Owner};
use tram_wire::ids::ImageId;
use uuid::Uuid;

use super::{Row, median};
use crate::db;
use crate::http::{COMMUNE, TestApi};
use crate::office::{Office, Plan, noon};

const CLONES: usize = 30;
const ROUNDS: usize = 3;

/// The rows whose names are wanted.
pub async fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    let mut rows = Vec::new();
    if wanted("provision.defined") {
        rows.push(provision().await.unwrap_or_else(|e| Row::failed("provision.defined", "s", "<= 1.15x", &e)));
    }
    if wanted("api.pool_create_ms") {
        rows.push(pool_create().await.unwrap_or_else(|e| Row::failed("api.pool_create_ms", "ms", "< 50 ms", &e)));
    }
    if wanted("list.desktops_5k_ms") {
        rows.push(list().await.unwrap_or_else(|e| Row::failed("list.desktops_5k_ms", "ms", "p99 < 50 ms", &e)));
    }
    rows
}

/// Thirty linked clones from the request to *defined*, against a bare loop of `qemu-img create -b` and
/// `virsh define`, in turn, on the same libvirt.
async fn provision() -> Result<Row> {
    let folder = tempfile::Builder::new().prefix("tram-bench-").tempdir_in("/var/tmp")?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let base = folder.path().join("base.qcow2");
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&base).arg("2G"))?;
    let plant = Plant::start(folder.path(), &base).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        ours.push(plant.round(round).await?);
        bare.push(bare_loop(folder.path(), &base)?);
    }
    plant.stop.cancel();
    let (ours, bare) = (median(ours), median(bare));
    Ok(Row {
        row: "provision.defined",
        ours: Some(ours),
        anchor: Some(bare),
        anchor_name: "qemu-img create -b + virsh define, 30 times".into(),
        ratio: Some(ours / bare),
        unit: "s",
        goal: "<= 1.15x",
        ok: ours <= 1.15 * bare,
    })
}

/// A controller without listeners on this machine's libvirt.
struct Plant {
    app: App,
    image: ImageId,
    stop: CancellationToken,
    _db: db::TestDb,
}

impl Plant {
    async fn start(folder: &Path, base: &Path) -> Result<Self> {
        let db = db::sqlite().await?;
        let mut app = Office::app(&db.store, Clock::system());
        app.image_dir = folder.join("images");
        TestApi::new(&db.store).await?;
        let ctx = Ctx::local_admin(app.clock.now());
        hosts::put(&app, &ctx, "here", "qemu:///system", AccelSetting::Tcg).await?;
        let image = images::add(&app, &ctx, "base", "1", Guest::LinuxBios, base, |_, _| {}).await?.id;
        let owner =
            Owner { installation: app.installation, image_dir: app.image_dir.clone(), disk_dir: folder.join("disks") };
        let stop = CancellationToken::new();
        let world = World {
            app: app.clone(),
            fleet: Fleet::default(),
            worker: Uuid::now_v7(),
            open: Arc::new(move |_| OpenOptions {
                owner: owner.clone(),
                accel: AccelPolicy::Tcg,
                deadline: Duration::from_secs(40),
                tls: None,
            }),
            stop: stop.clone(),
        };
        tokio::spawn(driver::run(world.clone(), HostInventory::default()));
        tokio::spawn(driver::run(world.clone(), PoolSize));
        tokio::spawn(desktop_lifecycle::run(world));
        let plant = Self { app, image, stop, _db: db };
        let began = Instant::now();
        while plant.app.store.rooms().await?.iter().all(|r| !r.usable) {
            ensure!(began.elapsed() < Duration::from_secs(30), "libvirt (qemu:///system) does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(plant)
    }

    async fn round(&self, n: usize) -> Result<f64> {
        let ctx = Ctx::local_admin(self.app.clock.now());
        let request = pools::Request {
            name: format!("bench-{n}"),
            site_code: COMMUNE.into(),
            image_id: self.image,
            size: CLONES as i64,
            vcpus: 1,
            memory_mib: 256,
            disk_gib: None,
            persistent: false,
            start: false,
        };
        let began = Instant::now();
        let pool = pools::create(&self.app, &ctx, request).await?;
        self.until(CLONES, "defined").await?;
        let took = began.elapsed().as_secs_f64();
        pools::delete(&self.app, &ctx, pool.pool.id, true).await?;
        self.until(0, "").await?;
        Ok(took)
    }

    async fn until(&self, n: usize, state: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let filter = Filter { limit: 1000, ..Filter::default() };
            let (all, _) = self.app.store.desktops(&filter).await?;
            if all.len() == n && all.iter().all(|d| d.state.as_str() == state) {
                return Ok(());
            }
            ensure!(began.elapsed() < Duration::from_secs(120), "{n} desktops were not {state} within two minutes");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn bare_loop(folder: &Path, base: &Path) -> Result<f64> {
    let began = Instant::now();
    let names: Vec<String> = (0..CLONES).map(|n| format!("tram-bare-{}-{n}", std::process::id())).collect();
    for name in &names {
        let disk = folder.join(format!("{name}.qcow2"));
        run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(base).arg(&disk))?;
        let xml = folder.join("bare.xml");
        std::fs::write(
            &xml,
            format!(
                "<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>\
            <os><type arch='x86_64' machine='q35'>hvm</type></os><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
            <source file='{}'/><target dev='vda' bus='virtio'/></disk></devices></domain>",
                disk.display()
            ),
        )?;
        run(Command::new("virsh").args(["-q", "-c", "qemu:///system", "define"]).arg(&xml))?;
    }
    let took = began.elapsed().as_secs_f64();
    for name in &names {
        run(Command::new("virsh").args(["-q", "-c", "qemu:///system", "undefine", name]))?;
        std::fs::remove_file(folder.join(format!("{name}.qcow2")))?;
    }
    Ok(took)
}

fn run(command: &mut Command) -> Result<()> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// `POST /pools` until it has answered, through the whole router, on SQLite with full synchronisation.
async fn pool_create() -> Result<Row> {
    let db = db::sqlite().await?;
    let office =
        Office::build(&db.store, noon(), Plan { desktops: 1, officers: 0, persistent: false, running: false }).await?;
    let api = TestApi::new(&db.store).await?;
    let browser = api.signed_in(Role::Operator).await?;
    let image = office.app.store.images().await?.first().context("image")?.id;
    let mut took = Vec::new();
    for n in 0..100 {
        let body = json!({"name": format!("p-{n}"), "site_code": COMMUNE, "image_id": image, "size": 50});
        let began = Instant::now();
        let answer = browser.post("/api/v1/pools", body).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 202, "{}: {}", answer.status, answer.json);
    }
    Ok(limit("api.pool_create_ms", p99(took), "< 50 ms"))
}

/// `GET /desktops?limit=5000` with 5,000 desktops, through the whole router.
async fn list() -> Result<Row> {
    let db = db::sqlite().await?;
    Office::build(&db.store, noon(), Plan { desktops: 5000, officers: 0, persistent: false, running: true }).await?;
    let api = TestApi::new(&db.store).await?;
    let browser = api.signed_in(Role::Operator).await?;
    let mut took = Vec::new();
    let whole = browser.get("/api/v1/desktops?limit=5000").await?;
    ensure!(whole.json["total"] == 5000, "{}", whole.json["total"]);
    for _ in 0..100 {
        // Up to the last byte of the answer; what a client makes of two megabytes of JSON is its own affair.
        let (status, bytes, time) = browser.timed("/api/v1/desktops?limit=5000").await?;
        took.push(time.as_secs_f64() * 1e3);
        ensure!(status == 200 && bytes >= whole.bytes.len() / 2, "{status}, {bytes} bytes");
    }
    Ok(limit("list.desktops_5k_ms", p99(took), "p99 < 50 ms"))
}

fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * 99 / 100]
}

/// A row against a limit of 50 ms instead of a tool.
fn limit(row: &'static str, ours: f64, goal: &'static str) -> Row {
    Row {
        row,
        ours: Some(ours),
        anchor: Some(50.0),
        anchor_name: "limit, p99 of 100 requests".into(),
        ratio: Some(ours / 50.0),
        unit: "ms",
        goal,
        ok: ours < 50.0,
    }
}
