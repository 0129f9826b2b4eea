//! Two hypervisor hosts with a node each, by the real programs: what an operator types, and what happens when a
//! node or the controller is killed.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tram_tests::device::WallClock;
use tram_tests::node::Node;
use tram_tests::world::{World, program};

fn state_of(world: &World, host: &str) -> Result<String> {
    let hosts = world.json(&["admin", "host", "list", "--json"])?;
    let rows = hosts.as_array().cloned().unwrap_or_else(|| vec![hosts.clone()]);
    let row = rows.iter().find(|h| h["name"] == host).cloned().unwrap_or(Value::Null);
    Ok(row["state"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn two_hosts_share_a_pool_and_outlive_their_nodes_and_the_controller() -> Result<()> {
    let mut world = World::new()?;
    world.small_image()?;
    let mut nodes = [Node::issue(&world, "may-1")?, Node::issue(&world, "may-2")?];
    let secret = fs::metadata(nodes[0].folder.join("node.pem"))?;
    use std::os::unix::fs::PermissionsExt;
    ensure!(secret.permissions().mode() & 0o077 == 0, "the key is open to others");
    world.start()?;
    for node in &mut nodes {
        node.start()?;
        world.host(node.name, &node.uri())?;
    }
    let pool = ["--name", "p", "--site", "00004", "--image", "small", "--size", "12", "--memory-mib", "128"];
    world.cli(&[&["admin", "pool", "create"][..], &pool].concat())?;
    world.settled(12, "running")?;
    for node in &nodes {
        ensure!(node.domains() > 0, "{} has no desktop", node.name);
        let images = fs::read_dir(node.folder.join("images"))?.count();
        ensure!(images == 1, "{} has {images} images; it was sent the one it needs", node.name);
    }

    for node in &nodes {
        ensure!(node.ask("/healthz")? == (200, "ok\n".into()), "{:?}", node.ask("/healthz")?);
        ensure!(node.figure("node_hypervisor_up ")? == 1.0 && node.figure("node_connections ")? >= 1.0);
        ensure!(node.figure("node_calls_total ")? > 10.0 && node.figure("node_images_total ")? == 1.0);
    }
    let doctor = world.json(&["doctor", "--json"])?;
    let said = |check: &str| {
        doctor.as_array().into_iter().flatten().filter(|c| c["check"] == check && c["state"] == "ok").count()
    };
    ensure!((said("host"), said("node certificate"), said("nodes' authority")) == (2, 2, 1), "{doctor}");

    // A node is killed: the host is down and says so, its desktops are not given up, and come back with it.
    nodes[0].kill9()?;
    world.until("the host is down", |w| Ok(state_of(w, "may-1")? == "down"))?;
    ensure!(world.desktops()?.len() == 12, "desktops were given up");
    nodes[0].start()?;
    world.until("the host is up", |w| Ok(state_of(w, "may-1")? == "up"))?;
    world.settled(12, "running")?;

    // The controller is killed in the middle of a change: exactly what was asked for is there afterwards.
    world.cli(&["admin", "pool", "resize", "p", "20"])?;
    world.kill9()?;
    world.start()?;
    world.settled(20, "running")?;
    ensure!(nodes.iter().map(Node::domains).sum::<usize>() == 20, "something was left over or lost");

    // Nobody but a controller of this installation gets in.
    let stranger = World::new()?;
    stranger.host("theirs", &nodes[0].uri())?;
    let mut stranger = stranger;
    stranger.start()?;
    stranger.until("it is refused", |w| Ok(state_of(w, "theirs")? == "down"))?;
    Ok(())
}

/// Two thirds through its life a certificate is followed by the next one, which the controller signs over the link: no
/// hand touches the host, and its desktops do not notice.
#[test]
fn a_node_renews_its_certificate_before_it_ends() -> Result<()> {
    let mut world = World::new()?;
    let mut node = Node::issue(&world, "may-1")?;
    world.start()?;
    world.host(node.name, &node.uri())?;
    let file = node.folder.join("node.pem");
    let first = fs::read_to_string(&file)?;
    node.start()?;
    world.until("the host is up", |w| Ok(state_of(w, "may-1")? == "up"))?;
    let until = node.figure("node_certificate_not_after_seconds ")?;
    ensure!(fs::read_to_string(&file)? == first, "it is renewed too early");
    node.kill9()?;

    // A year and a half later.
    let clock = WallClock::new(&node.folder)?;
    clock.off_by("+500d")?;
    node.start_with(&clock.environment()?)?;
    world.until("the certificate is renewed", |_| Ok(fs::read_to_string(&file)? != first))?;
    use std::os::unix::fs::PermissionsExt;
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o077 == 0, "the new key is open to others");
    world.until("it serves with it", |_| Ok(node.figure("node_certificate_not_after_seconds ")? > until))?;
    let key = |pem: &str| pem.split("-----BEGIN CERTIFICATE-----").next().map(str::to_owned);
    ensure!(key(&fs::read_to_string(&file)?) != key(&first), "with a key of its own");
    node.kill9()?;
    node.start()?;
    world.until("the host is up again", |w| Ok(state_of(w, "may-1")? == "up"))?;
    let lines = world.cli(&["doctor"])?;
    ensure!(lines.contains("ok    node certificate: may-1: good until"), "{lines}");
    Ok(())
}

#[test]
fn a_node_whose_hypervisor_is_away_says_so() -> Result<()> {
    let mut world = World::new()?;
    let mut node = Node::issue(&world, "may-1")?;
    let file = node.folder.join("node.toml");
    let settings = fs::read_to_string(&file)?;
    let uri = settings.lines().find(|l| l.starts_with("uri")).context("uri")?;
    fs::write(&file, settings.replace(uri, "uri = \"test+unix:///default?socket=/nonexistent/libvirt-sock\""))?;
    node.start()?;
    world.until("it answers that it is ill", |_| Ok(node.ask("/healthz")?.0 == 503))?;
    let (_, why) = node.ask("/healthz")?;
    ensure!(why.contains("H-101") || why.contains("did not answer"), "{why}");
    ensure!(node.figure("node_hypervisor_up ")? == 0.0);
    Ok(())
}

#[test]
fn a_node_that_can_not_start_says_why() -> Result<()> {
    let world = World::new()?;
    let node = Node::issue(&world, "may-1")?;
    let file = node.folder.join("node.toml");
    let good = fs::read_to_string(&file)?;
    let run = || -> Result<String> {
        let out = Command::new(program("tram-controller")?).args(["node", "--settings"]).arg(&file).output()?;
        ensure!(out.status.code() == Some(1), "{}", out.status);
        Ok(String::from_utf8(out.stderr)?)
    };
    for (settings, wanted) in [
        (good.replace("listen", "listne"), "listne"),
        (good.replace("node.pem", "gone.pem"), "gone.pem"),
        (good.replace("sim:///", "node://"), "another node"),
        (good.replace("sim:///may-1?images=1", "sim:///may-1?image=1"), "no parameter image"),
        (good.replace(&node.address.to_string(), &world.web.to_string()), &world.web.to_string()),
    ] {
        // Somebody else has the last one's port.
        let _taken = settings.contains(&world.web.to_string()).then(|| std::net::TcpListener::bind(world.web));
        fs::write(&file, &settings)?;
        let said = run()?;
        ensure!(said.contains(wanted), "{wanted}: {said}");
    }
    let bad = world.cli(&["admin", "node", "issue", "--name", "x", "--names", "a b", "--out", "/nonexistent/x"]);
    ensure!(bad.is_err_and(|e| e.to_string().contains("host's name")));
    Ok(())
}
