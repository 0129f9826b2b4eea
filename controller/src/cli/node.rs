//! `node`: this host's libvirt, for the controllers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use tram_hypervisor::node::{Node, Settings, serve};
use tram_hypervisor::{AccelPolicy, OpenOptions, Owner};
use tram_wire::ids::InstallationId;

use super::{listener, server};
use crate::clock::Clock;
use crate::identity::node_certificate::NodeCertificate;
use crate::services::nodes::METRICS;
use crate::telemetry;

/// Longest a call to libvirt may take; below what controllers wait.
const DEADLINE: Duration = Duration::from_secs(35);
/// Longest libvirt may take until the node is called ill.
const HEALTH: Duration = Duration::from_secs(5);

/// As written, by `admin node issue` or by hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    listen: SocketAddr,
    installation: InstallationId,
    uri: String,
    image_dir: PathBuf,
    disk_dir: PathBuf,
    certificate: PathBuf,
    ca: PathBuf,
    /// Figures and health, without TLS: for the host itself unless somebody says otherwise.
    #[serde(default = "loopback")]
    metrics: SocketAddr,
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, METRICS).into()
}

pub(super) async fn run(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!("reading {}; `tram-controller admin node issue` on a controller makes it", file.display())
    })?;
    let written: Written = toml::from_str(&text).with_context(|| format!("{} has a fault", file.display()))?;
    let beside = |path: &Path| file.parent().unwrap_or(Path::new(".")).join(path);
    let (ca, certificate) = (beside(&written.ca), beside(&written.certificate));
    let certificate = NodeCertificate::open(&ca, &certificate, Clock::system()).map_err(|e| anyhow!(e))?;
    let tls = certificate.server_config().map_err(|e| anyhow!(e))?;
    let owner = Owner { installation: written.installation, image_dir: written.image_dir, disk_dir: written.disk_dir };
    for folder in [&owner.image_dir, &owner.disk_dir] {
        std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    }
    let options = OpenOptions { owner, accel: AccelPolicy::Auto, deadline: DEADLINE, tls: None };
    let settings = Settings { uri: written.uri.clone(), options, certificate: Some(certificate) };
    let node = Node::open(settings).context("opening the hypervisor")?;
    let socket = listener::bind(written.listen, "listen").await?;
    let watched = listener::bind(written.metrics, "metrics").await?;
    let watch = axum::serve(watched, router(node.clone(), telemetry::metrics()?));
    tracing::info!(address = %written.listen, metrics = %written.metrics, hypervisor = written.uri, "the node is listening");
    tokio::select! {
        end = serve(node, socket, tls) => end.context("the node can't accept any more"),
        end = async { watch.await } => end.context("the node's figures can't be served any more"),
        stop = server::stopped() => {
            tracing::info!("the node stops; its desktops go on");
            stop
        }
    }
}

/// For whoever watches the node: its figures, and whether it and libvirt behind it are well.
fn router(node: Arc<Node>, handle: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(|State((node, handle))| async move { figures(node, handle).await }))
        .route(
            "/healthz",
            get(|State((node, _)): State<(Arc<Node>, PrometheusHandle)>| async move { health(&node).await }),
        )
        .with_state((node, handle))
}

async fn health(node: &Node) -> (StatusCode, String) {
    match tokio::time::timeout(HEALTH, node.look()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok\n".into()),
        Ok(Err(e)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{e} ({})\n", e.code())),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("the hypervisor did not answer within {HEALTH:?}\n")),
    }
}

async fn figures(node: Arc<Node>, handle: PrometheusHandle) -> String {
    let seen = tokio::time::timeout(HEALTH, node.look()).await.ok().and_then(Result::ok);
    gauge!("node_hypervisor_up").set(f64::from(u8::from(seen.is_some())));
    if let Some(info) = seen {
        gauge!("node_memory_free_mib").set(info.memory_free_mib.unwrap_or(0) as f64);
        gauge!("node_disk_free_mib").set(info.disk_free_mib as f64);
    }
    if let Some(until) = node.certificate_until() {
        gauge!("node_certificate_not_after_seconds").set(until as f64 / 1e6);
    }
    for (name, n) in node.figures().all() {
        if name.ends_with("_total") {
            counter!(name).absolute(n);
        } else {
            gauge!(name).set(n as f64);
        }
    }
    handle.render()
}
