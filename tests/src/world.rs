//! A whole controller as its own process, with a data folder of its own, that a test may kill.

use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up: generous, machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The controller, its folder and its process.
pub struct World {
    path: PathBuf,
    /// Removed at the end, if this world made it.
    _folder: Option<TempDir>,
    database: Option<String>,
    /// Address of the API.
    pub web: SocketAddr,
    /// Address for agents.
    pub agents: SocketAddr,
    server: Option<Child>,
}

/// The program under test, built beside this one.
///
/// # Errors
/// If it is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    // A test lies in `deps/`, a program such as the benchmark beside the others.
    let folder = here.parent().context("no target folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("no target folder")? } else { folder };
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not built; run `cargo build --workspace` first", path.display());
    Ok(path)
}

/// An address on loopback nobody listens on right now.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl World {
    /// A data folder with a certificate, Hanoi's sites and a golden image of `image` bytes; no server yet.
    ///
    /// # Errors
    /// Whatever the commands say.
    pub fn new() -> Result<Self> {
        Self::on(None)
    }

    /// The same on another database than its own SQLite file.
    ///
    /// # Errors
    /// Whatever the commands say.
    pub fn on(database: Option<String>) -> Result<Self> {
        // Not below a home folder: QEMU's user must reach the disks.
        let folder = tempfile::Builder::new().prefix("tram-world-").tempdir_in("/var/tmp")?;
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let mut world = Self::bare(folder.path(), database)?;
        world._folder = Some(folder);
        world.furnish()?;
        Ok(world)
    }

    /// The same in a folder that somebody else made and removes.
    ///
    /// # Errors
    /// Whatever the commands say.
    pub fn at(folder: &Path) -> Result<Self> {
        let world = Self::bare(folder, None)?;
        world.furnish()?;
        Ok(world)
    }

    /// A second controller on the data of this one, at other addresses.
    ///
    /// # Errors
    /// If there are no addresses.
    pub fn twin(&self) -> Result<Self> {
        Self::bare(&self.path, self.database.clone())
    }

    fn bare(folder: &Path, database: Option<String>) -> Result<Self> {
        let (web, agents) = (free_address()?, free_address()?);
        Ok(Self { path: folder.to_owned(), _folder: None, database, web, agents, server: None })
    }

    fn furnish(&self) -> Result<()> {
        self.cli(&["admin", "init-tls", "--names", "localhost,127.0.0.1"])?;
        self.cli(&["admin", "site", "import", "--builtin", "hanoi-2016"]).map(|_| ())
    }

    /// The database's address.
    #[must_use]
    pub fn database(&self) -> String {
        let own = || format!("sqlite://{}", self.path.join("tram.db").display());
        self.database.clone().unwrap_or_else(own)
    }

    /// The data folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a small empty qcow2 in as image `small`, version 1.
    ///
    /// # Errors
    /// Whatever qemu-img or the command says.
    pub fn small_image(&self) -> Result<()> {
        let file = self.path().join("small.qcow2");
        let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&file).arg("64M").status()?;
        ensure!(made.success(), "qemu-img failed");
        self.image("small", &file)
    }

    /// Takes a file in as an image, version 1.
    ///
    /// # Errors
    /// Whatever the command says.
    pub fn image(&self, name: &str, file: &Path) -> Result<()> {
        let file = file.to_str().context("path")?;
        self.cli(&["admin", "image", "add", "--name", name, "--version", "1", "--file", file]).map(|_| ())
    }

    /// Adds a host.
    ///
    /// # Errors
    /// Whatever the command says.
    pub fn host(&self, name: &str, uri: &str) -> Result<()> {
        self.cli(&["admin", "host", "add", "--name", name, "--uri", uri]).map(|_| ())
    }

    /// A simulated host whose world is kept in the data folder.
    ///
    /// # Errors
    /// Whatever the command says.
    pub fn sim_host(&self, parameters: &str) -> Result<PathBuf> {
        let state = self.path().join("sim");
        self.host("sim", &format!("sim:///sim?state={}{parameters}", state.display()))?;
        Ok(state)
    }

    /// Writes the configuration that the server and all commands go by.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.config(), text)?)
    }

    fn config(&self) -> PathBuf {
        self.path.join("controller.toml")
    }

    /// `tram-controller` on this world's data, with no arguments yet.
    ///
    /// # Errors
    /// If it is not built.
    pub fn command(&self) -> Result<Command> {
        let mut c = Command::new(program("tram-controller")?);
        c.env("TRAM_DATA", self.path()).env("TRAM_SERVER_LISTEN", self.web.to_string());
        c.env("TRAM_SERVER_AGENT_LISTEN", self.agents.to_string()).env("RUST_BACKTRACE", "0");
        if let Some(url) = &self.database {
            c.env("TRAM_DATABASE_URL", url);
        }
        if self.config().exists() {
            c.env("TRAM_CONFIG", self.config());
        }
        c.stdin(Stdio::null());
        Ok(c)
    }

    /// Runs `tram-controller` with these arguments; its standard output.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let out = self.command()?.args(args).output()?;
        if !out.status.success() {
            bail!("tram-controller {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// Runs it and reads its JSON.
    ///
    /// # Errors
    /// If it fails or prints something else.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.cli(args)?)?)
    }

    /// Starts the server, with more environment. Does not wait until it listens.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_with(&mut self, env: &[(&str, &str)]) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("server.log"))?;
        let mut c = self.command()?;
        c.arg("server").stdout(Stdio::null()).stderr(log).envs(env.iter().copied());
        self.server = Some(c.spawn()?);
        Ok(())
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`].
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])?;
        self.listening()
    }

    /// Waits until the server that was started listens.
    ///
    /// # Errors
    /// If it ended, or does not within [`PATIENCE`].
    pub fn listening(&mut self) -> Result<()> {
        let web = self.web;
        self.until("the server listens", |w| {
            if let Some(child) = &mut w.server
                && let Some(status) = child.try_wait()?
            {
                bail!("the server ended: {status}\n{}", w.log());
            }
            Ok(std::net::TcpStream::connect(web).is_ok())
        })
    }

    /// Starts the server where it must not start: what it said when it ended.
    ///
    /// # Errors
    /// If it does not end by itself within [`PATIENCE`], or ends as if all were well.
    pub fn cannot_start(&mut self) -> Result<String> {
        let mut said = tempfile::tempfile()?;
        let child = self.command()?.arg("server").stdout(Stdio::null()).stderr(said.try_clone()?).spawn()?;
        self.server = Some(child);
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.server.as_mut().context("no server")?.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > until => bail!("the server runs where it must not"),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        self.server = None;
        let mut text = String::new();
        said.rewind()?;
        said.read_to_string(&mut text)?;
        ensure!(status.code() == Some(1), "{status}: {text}");
        Ok(text)
    }

    /// The server's process id.
    ///
    /// # Errors
    /// If no server was started.
    pub fn server_pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("no server")?.id())
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("server.log")).unwrap_or_default()
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If no server was started.
    pub fn kill9(&mut self) -> Result<()> {
        let mut child = self.server.take().context("no server")?;
        // It may have killed itself already.
        let _ = child.kill();
        child.wait()?;
        Ok(())
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    /// If it does not within `limit`; `false` then would hide a kill point that was never reached.
    pub fn ended_within(&mut self, limit: Duration) -> Result<bool> {
        let until = Instant::now() + limit;
        let child = self.server.as_mut().context("no server")?;
        while Instant::now() < until {
            if child.try_wait()?.is_some() {
                self.server = None;
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    /// Asks the server to stop and waits for it.
    ///
    /// # Errors
    /// If it does not within [`PATIENCE`].
    pub fn stop(&mut self) -> Result<()> {
        let child = self.server.as_ref().context("no server")?;
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        ensure!(self.ended_within(PATIENCE)?, "the server did not stop");
        Ok(())
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// If it is not within [`PATIENCE`], with the server's log.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if so(self)? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(150));
        }
        bail!("waited {PATIENCE:?} in vain: {what}\n{}\n{}", self.cli(&["status"])?, self.log());
    }

    /// Desktops by name, as `(id, state)`.
    ///
    /// # Errors
    /// Whatever the command says.
    pub fn desktops(&self) -> Result<Vec<(String, String)>> {
        let rows = self.json(&["admin", "desktop", "list", "--json"])?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        Ok(rows.as_array().into_iter().flatten().map(|d| (text(&d["id"]), text(&d["state"]))).collect())
    }

    /// Waits until there are `n` desktops, all in `state`.
    ///
    /// # Errors
    /// If there are not within [`PATIENCE`].
    pub fn settled(&mut self, n: usize, state: &str) -> Result<()> {
        self.until(&format!("{n} desktops {state}"), |w| {
            let all = w.desktops()?;
            Ok(all.len() == n && all.iter().all(|(_, s)| s == state))
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ = self.kill9();
        }
    }
}
