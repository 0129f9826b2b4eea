//! An endpoint: the real agent as its own process, with a state folder of its own and, if a test likes, a clock
//! of its own; and a console's view of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{World, program};

/// A wall clock that a test moves under a running process. What the process measures by its monotonic clock
/// goes on as it is, as on a machine whose date somebody sets.
pub struct WallClock(PathBuf);

impl WallClock {
    /// A clock that is right, kept in this folder.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn new(folder: &Path) -> Result<Self> {
        let clock = Self(folder.join("wall-clock"));
        clock.off_by("+0")?;
        Ok(clock)
    }

    /// Sets it wrong: `+1h`, `-75s`, `+31d`.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn off_by(&self, offset: &str) -> Result<()> {
        // By a rename: who looks sees the old or the new one, never half of it.
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset)?;
        Ok(std::fs::rename(new, &self.0)?)
    }

    /// What a process must have in its environment to go by it.
    ///
    /// # Errors
    /// If libfaketime is not installed.
    pub fn environment(&self) -> Result<[(String, String); 4]> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        ensure!(Path::new(&library).exists(), "{library} is not installed; run `make setup`");
        let file = self.0.to_str().context("path")?.to_owned();
        Ok([
            ("LD_PRELOAD".into(), library),
            ("FAKETIME_TIMESTAMP_FILE".into(), file),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
        ])
    }
}

/// The endpoint.
pub struct Device {
    folder: TempDir,
    /// Its date.
    pub clock: WallClock,
    agent: Option<Child>,
    /// What its programs are run by: a network of its own, say.
    by: Vec<String>,
}

impl Device {
    /// A computer that nobody enrolled yet.
    ///
    /// # Errors
    /// If its folder can't be made.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let clock = WallClock::new(folder.path())?;
        Ok(Self { folder, clock, agent: None, by: Vec::new() })
    }

    /// A computer whose programs are run by another one, which gets their names as its last arguments.
    ///
    /// # Errors
    /// If its folder can't be made.
    pub fn run_by(by: impl FnOnce(&Path) -> Vec<String>) -> Result<Self> {
        let mut device = Self::new()?;
        device.by = by(device.folder.path());
        Ok(device)
    }

    /// A computer that is enrolled with a fresh token; its id.
    ///
    /// # Errors
    /// What the commands say.
    pub fn enrolled(world: &World) -> Result<(Self, String)> {
        let device = Self::new()?;
        let done = device.enrol(world, &token(world)?)?;
        ensure!(done.status.success(), "enrolment: {}", String::from_utf8_lossy(&done.stderr));
        let id = device.identity()?["endpoint_id"].as_str().context("no id")?.to_owned();
        Ok((device, id))
    }

    /// Its state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes the agent's configuration.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.config(), text)?)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    /// Runs `tram-agent enrol`.
    ///
    /// # Errors
    /// If the program can't be run.
    pub fn enrol(&self, world: &World, token: &str) -> Result<Output> {
        let controller = format!("https://{}", world.agents);
        Ok(self.command()?.args(["enrol", "--controller", &controller]).env("TRAM_ENROL_TOKEN", token).output()?)
    }

    /// What it keeps of its enrolment.
    ///
    /// # Errors
    /// If there is none.
    pub fn identity(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.state().join("identity.json"))?)?)
    }

    /// Puts something else in its place, as a copied disk or a careless hand would.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn set_identity(&self, identity: &Value) -> Result<()> {
        Ok(std::fs::write(self.state().join("identity.json"), identity.to_string())?)
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&mut self) -> Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("agent.log"))?;
        // A status of an earlier run must not be taken for this one's.
        let _ = std::fs::remove_file(self.state().join("status.json"));
        self.agent = Some(self.command()?.arg("run").stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent")?;
        agent.kill()?;
        agent.wait()?;
        Ok(())
    }

    /// Asks the agent to stop, and waits for it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent")?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(agent.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        )?;
        agent.wait()?;
        Ok(())
    }

    /// Whether the agent still runs.
    ///
    /// # Errors
    /// If it was not started.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.agent.as_mut().context("no agent")?.try_wait()?.is_none())
    }

    /// What the agent tells on this computer about its link: `up`, `down`, `refused`, with its code or reason.
    /// Null as long as it told nothing.
    ///
    /// # Errors
    /// If what it wrote is no JSON.
    pub fn link(&self) -> Result<Value> {
        match std::fs::read(self.state().join("status.json")) {
            Ok(bytes) => Ok(serde_json::from_slice::<Value>(&bytes)?["link"].clone()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
            Err(e) => Err(e.into()),
        }
    }

    /// Runs `tram-agent` with these arguments on this computer.
    ///
    /// # Errors
    /// If it can't be run.
    pub fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command()?.args(args).output()?)
    }

    /// What the agent said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }

    fn command(&self) -> Result<Command> {
        let agent = program("tram-agent")?;
        let mut c = match self.by.split_first() {
            None => Command::new(agent),
            Some((first, rest)) => {
                let mut c = Command::new(first);
                c.args(rest).arg(agent);
                c
            }
        };
        if self.config().exists() {
            c.arg("--config").arg(self.config());
        }
        c.env("TMPDIR", self.folder.path());
        c.arg("--state").arg(self.state()).envs(self.clock.environment()?).stdin(Stdio::null());
        Ok(c)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.agent.is_some() {
            let _ = self.kill9();
        }
    }
}

/// A token for one computer of a commune.
///
/// # Errors
/// What the command says.
pub fn token(world: &World) -> Result<String> {
    let made = world.json(&["admin", "endpoint", "token", "--site", "00004", "--json"])?;
    Ok(made["token"].as_str().context("no token")?.to_owned())
}

/// A console signed in at a running controller, over TLS that is checked.
pub struct Console {
    world: String,
    ca: PathBuf,
    cookies: PathBuf,
    csrf: String,
}

impl Console {
    /// Signs a new account in.
    ///
    /// # Errors
    /// If the account can't be made or the sign-in is refused.
    pub fn sign_in(world: &World, role: &str) -> Result<Self> {
        Self::add(world, role, role, &[]).map(|(console, _)| console)
    }

    /// Signs a new officer of a commune in; also the password.
    ///
    /// # Errors
    /// As [`Console::sign_in`].
    pub fn officer(world: &World, name: &str) -> Result<(Self, String)> {
        Self::add(world, name, "officer", &["--site", "00004"])
    }

    fn add(world: &World, name: &str, role: &str, more: &[&str]) -> Result<(Self, String)> {
        let made =
            world.json(&[&["admin", "user", "add", name, "--role", role, "--generate", "--json"], more].concat())?;
        let mut console = Self {
            world: format!("https://{}", world.web),
            ca: world.path().join("tls/ca.pem"),
            cookies: world.path().join(format!("{name}.cookies")),
            csrf: String::new(),
        };
        let body = serde_json::json!({"username": name, "password": made["password"]}).to_string();
        let (status, answer) = console.ask(&["--json", &body, "/api/v1/login"])?;
        ensure!(status == 200, "{name} can't sign in: {status} {answer}");
        answer["csrf"].as_str().context("no csrf")?.clone_into(&mut console.csrf);
        Ok((console, made["password"].as_str().unwrap_or_default().to_owned()))
    }

    /// The page's address, as a browser names it in `Origin`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.world
    }

    /// The sign-in as the browser sends it along.
    ///
    /// # Errors
    /// If it is not signed in.
    pub fn cookie(&self) -> Result<String> {
        let jar = std::fs::read_to_string(&self.cookies)?;
        let line = jar.lines().find(|l| l.contains("\ttram_session\t")).context("no cookie")?;
        Ok(format!("tram_session={}", line.rsplit('\t').next().unwrap_or_default()))
    }

    /// GET: the status and the JSON.
    ///
    /// # Errors
    /// If the controller can't be reached.
    pub fn get(&self, path: &str) -> Result<(u16, Value)> {
        self.ask(&[path])
    }

    /// POST of JSON: the status and the JSON.
    ///
    /// # Errors
    /// If the controller can't be reached.
    pub fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.ask(&["-H", &format!("x-tram-csrf: {}", self.csrf), "--json", &body.to_string(), path])
    }

    /// PUT of JSON: the status and the JSON.
    ///
    /// # Errors
    /// If the controller can't be reached.
    pub fn put(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let csrf = format!("x-tram-csrf: {}", self.csrf);
        self.ask(&["-X", "PUT", "-H", &csrf, "--json", &body.to_string(), path])
    }

    /// DELETE: the status and the JSON.
    ///
    /// # Errors
    /// If the controller can't be reached.
    pub fn delete(&self, path: &str) -> Result<(u16, Value)> {
        self.ask(&["-X", "DELETE", "-H", &format!("x-tram-csrf: {}", self.csrf), path])
    }

    /// One request by curl: its own arguments, the path last.
    fn ask(&self, args: &[&str]) -> Result<(u16, Value)> {
        let (path, args) = args.split_last().context("a path")?;
        let out = Command::new("curl")
            .args(["-sS", "--max-time", "60", "-w", "\n%{http_code}", "--cacert"])
            .arg(&self.ca)
            .arg("-b")
            .arg(&self.cookies)
            .arg("-c")
            .arg(&self.cookies)
            .args(args)
            .arg(format!("{}{path}", self.world))
            .output()?;
        ensure!(out.status.success(), "curl {path}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("no status")?;
        Ok((status.parse()?, serde_json::from_str(body).unwrap_or(Value::Null)))
    }
}
