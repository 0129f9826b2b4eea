//! `node`: this host's libvirt, for the controllers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tram_hypervisor::node::{Node, Settings, serve};
use tram_hypervisor::{AccelPolicy, OpenOptions, Owner};
use tram_wire::ids::InstallationId;

use super::{listener, server};
use crate::identity::nodes;

/// Longest a call to libvirt may take; below what controllers wait.
const DEADLINE: Duration = Duration::from_secs(35);

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
}

pub(super) async fn run(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!("reading {}; `tram-controller admin node issue` on a controller makes it", file.display())
    })?;
    let written: Written = toml::from_str(&text).with_context(|| format!("{} has a fault", file.display()))?;
    let beside = |path: &Path| file.parent().unwrap_or(Path::new(".")).join(path);
    let tls = nodes::server_config(&beside(&written.ca), &beside(&written.certificate)).map_err(|e| anyhow!(e))?;
    let owner = Owner { installation: written.installation, image_dir: written.image_dir, disk_dir: written.disk_dir };
    for folder in [&owner.image_dir, &owner.disk_dir] {
        std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    }
    let options = OpenOptions { owner, accel: AccelPolicy::Auto, deadline: DEADLINE, tls: None };
    let node = Node::open(Settings { uri: written.uri.clone(), options }).context("opening the hypervisor")?;
    let socket = listener::bind(written.listen, "listen").await?;
    tracing::info!(address = %written.listen, hypervisor = written.uri, "the node is listening");
    tokio::select! {
        end = serve(node, socket, tls) => end.context("the node can't accept any more"),
        stop = server::stopped() => {
            tracing::info!("the node stops; its desktops go on");
            stop
        }
    }
}
