//! Two hypervisor hosts with a node each, by the real programs: what an operator types, and what happens when a
//! node or the controller is killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tram_tests::world::{World, free_address, program};

/// A node's process on a host that is simulated and keeps its world in a folder.
struct Node {
    name: &'static str,
    folder: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl Node {
    /// Issued by the controller, with its settings changed as an operator would.
    fn issue(world: &World, name: &'static str) -> Result<Self> {
        let folder = world.path().join(name);
        let address = free_address()?;
        let out = folder.to_str().context("path")?;
        let said = world.cli(&["admin", "node", "issue", "--name", name, "--names", "127.0.0.1", "--out", out])?;
        ensure!(said.contains("node.pem") && said.contains("node://127.0.0.1"), "{said}");
        let file = folder.join("node.toml");
        let settings = fs::read_to_string(&file)?
            .replace("0.0.0.0:8445", &address.to_string())
            .replace("qemu:///system", &format!("sim:///{name}?images=1&state={out}/world"))
            .replace("/var/lib/libvirt/images/tram", out);
        fs::write(&file, settings)?;
        Ok(Self { name, folder, address, child: None })
    }

    fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join("node.log"))?;
        let mut command = Command::new(program("tram-controller")?);
        command.args(["node", "--settings"]).arg(self.folder.join("node.toml"));
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no node")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn uri(&self) -> String {
        format!("node://{}", self.address)
    }

    /// Desktops' worlds on it.
    fn domains(&self) -> usize {
        fs::read_dir(self.folder.join("world"))
            .map_or(0, |all| all.flatten().filter(|e| e.file_name().to_string_lossy().len() > 30).count())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill9();
        }
    }
}

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
