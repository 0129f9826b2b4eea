//! A node's process on a host that is simulated and keeps its world in a folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::world::{World, free_address, program};

/// A node's process on a host that is simulated and keeps its world in a folder.
pub struct Node {
    /// Its host's name.
    pub name: &'static str,
    /// Where its settings and its world are.
    pub folder: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it tells how it is.
    pub watched: SocketAddr,
    child: Option<Child>,
}

impl Node {
    /// Issued by the controller, with its settings changed as an operator would.
    ///
    /// # Errors
    /// If the command fails.
    pub fn issue(world: &World, name: &'static str) -> Result<Self> {
        Self::issue_with(world, name, "")
    }

    /// The same with more parameters for the simulated host.
    ///
    /// # Errors
    /// If the command fails.
    pub fn issue_with(world: &World, name: &'static str, more: &str) -> Result<Self> {
        let folder = world.path().join(name);
        let (address, watched) = (free_address()?, free_address()?);
        let out = folder.to_str().context("path")?;
        let said = world.cli(&["admin", "node", "issue", "--name", name, "--names", "127.0.0.1", "--out", out])?;
        ensure!(said.contains("node.pem") && said.contains("node://127.0.0.1"), "{said}");
        let file = folder.join("node.toml");
        let settings = fs::read_to_string(&file)?
            .replace("0.0.0.0:8445", &address.to_string())
            .replace("127.0.0.1:8446", &watched.to_string())
            .replace("qemu:///system", &format!("sim:///{name}?images=1&state={out}/world{more}"))
            .replace("/var/lib/libvirt/images/tram", out);
        fs::write(&file, settings)?;
        Ok(Self { name, folder, address, watched, child: None })
    }

    /// Starts it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same with more in its environment.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_with(&mut self, env: &[(String, String)]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.join("node.log"))?;
        let mut command = Command::new(program("tram-controller")?);
        command.args(["node", "--settings"]).arg(self.folder.join("node.toml"));
        command.envs(env.iter().map(|(k, v)| (k, v)));
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no node")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it how it is: the status and the body. 0 where nobody answers yet.
    ///
    /// # Errors
    /// If it does not answer well.
    pub fn ask(&self, path: &str) -> Result<(u16, String)> {
        let Ok(mut socket) = TcpStream::connect(self.watched) else { return Ok((0, String::new())) };
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        Ok((head.get(9..12).context("a status")?.parse()?, body.to_owned()))
    }

    /// One of its figures.
    ///
    /// # Errors
    /// If it does not answer well.
    pub fn figure(&self, name: &str) -> Result<f64> {
        let all = self.ask("/metrics")?.1;
        let line = all.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name}: {all}"))?;
        Ok(line.trim().parse()?)
    }

    /// How controllers reach it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("node://{}", self.address)
    }

    /// Desktops' worlds on it.
    #[must_use]
    pub fn domains(&self) -> usize {
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
