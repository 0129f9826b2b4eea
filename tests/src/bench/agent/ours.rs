//! An office computer as it is shipped: agent and updater, each with a line of its own that counts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::rivals::{Guard, quiet};
use super::wire::{Count, relay};
use crate::device::token;
use crate::world::{PATIENCE, World};

/// The programs.
pub struct Built {
    /// `tram-agent`.
    pub agent: PathBuf,
    /// `tram-updater`.
    pub updater: PathBuf,
}

impl Built {
    /// As they are shipped.
    ///
    /// # Errors
    /// If they do not build.
    pub fn new() -> Result<Self> {
        let built = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
            .args(["build", "--quiet", "--locked", "--profile", "agent", "-p", "tram-agent", "-p", "tram-updater"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()?;
        ensure!(built.success(), "the agent does not build");
        let here = std::env::current_exe()?;
        let folder = here.ancestors().nth(2).context("no target folder")?.join("agent");
        Ok(Self { agent: folder.join("tram-agent"), updater: folder.join("tram-updater") })
    }
}

/// The computer.
pub struct Pc {
    folder: PathBuf,
    agent: Option<Guard>,
    updater: Option<Guard>,
    /// The agent's line to the controller.
    pub line: Count,
    /// The updater's.
    pub updates: Count,
}

impl Pc {
    /// One that is enrolled, with its own copies of the programs: what two processes share looks like less.
    ///
    /// # Errors
    /// What the commands say.
    pub fn enrolled(world: &World, built: &Built, folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        let pc = Self {
            folder: folder.to_owned(),
            agent: None,
            updater: None,
            line: Count::default(),
            updates: Count::default(),
        };
        std::fs::copy(&built.agent, pc.program())?;
        std::fs::copy(&built.updater, folder.join("tram-updater"))?;
        let controller = format!("https://{}", relay(world.agents, &pc.line)?);
        let enrolled = Command::new(pc.program())
            .args(["enrol", "--controller", &controller, "--state"])
            .arg(pc.state())
            .env("TRAM_ENROL_TOKEN", token(world)?)
            .output()?;
        ensure!(enrolled.status.success(), "enrolment: {}", String::from_utf8_lossy(&enrolled.stderr));
        pc.updater_goes_by_another_line(world)?;
        Ok(pc)
    }

    /// What the updater looks at is the agent's folder with another address in it, so that its bytes can be told apart.
    fn updater_goes_by_another_line(&self, world: &World) -> Result<()> {
        let seen = self.folder.join("seen");
        std::fs::create_dir(&seen)?;
        for entry in std::fs::read_dir(self.state())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), seen.join(entry.file_name()))?;
            }
        }
        let file = seen.join("identity.json");
        let mut identity: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        identity["controller"] = format!("https://{}", relay(world.agents, &self.updates)?).into();
        std::fs::write(file, identity.to_string())?;
        let (state, packaged) = (self.folder.join("updates"), &self.folder);
        let text = format!("state = {state:?}\npackaged = {packaged:?}\nkeep_port = 0\n");
        std::fs::write(self.folder.join("updater.toml"), text)?;
        std::fs::write(self.folder.join("agent.toml"), "")?;
        let used = self.updater_command("use-packaged").output()?;
        ensure!(used.status.success(), "updater: {}", String::from_utf8_lossy(&used.stderr));
        Ok(())
    }

    fn updater_command(&self, what: &str) -> Command {
        let mut c = Command::new(self.folder.join("tram-updater"));
        c.arg("--config").arg(self.folder.join("updater.toml"));
        c.arg("--agent-config").arg(self.folder.join("agent.toml"));
        c.arg("--agent-state").arg(self.folder.join("seen")).arg(what);
        c
    }

    /// Its agent's program.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.folder.join("tram-agent")
    }

    /// Its agent's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_agent(&mut self) -> Result<()> {
        self.start_agent_by(&[])
    }

    /// Starts the agent by other programs, of which each replaces itself by the next.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_agent_by(&mut self, by: &[&str]) -> Result<()> {
        let mut command = match by.split_first() {
            None => Command::new(self.program()),
            Some((first, rest)) => {
                let mut c = Command::new(first);
                c.args(rest).arg(self.program());
                c
            }
        };
        self.agent = Some(quiet(command.arg("run").arg("--state").arg(self.state()))?);
        Ok(())
    }

    /// Asks the agent to stop, and waits for it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop_agent(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("no agent")?;
        kill(Pid::from_raw(agent.0.id().cast_signed()), Signal::SIGTERM)?;
        agent.0.wait()?;
        Ok(())
    }

    /// Starts the updater and waits until it has its answer; what asking cost the line.
    ///
    /// # Errors
    /// If nothing goes over its line.
    pub fn start_updater(&mut self) -> Result<u64> {
        /// Nothing more comes of one question after so long.
        const QUIET: Duration = Duration::from_secs(3);
        self.updater = Some(quiet(&mut self.updater_command("run"))?);
        let (begun, mut seen, mut since) = (Instant::now(), 0, Instant::now());
        while seen == 0 || since.elapsed() < QUIET {
            ensure!(begun.elapsed() < PATIENCE, "the updater asks nothing, or without end");
            std::thread::sleep(Duration::from_millis(100));
            let now = self.updates.bytes();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        Ok(seen)
    }

    /// Its processes at rest; the helpers are started when they are asked.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        [&self.agent, &self.updater].into_iter().flatten().map(|g| g.0.id()).collect()
    }

    /// Waits until the agent has a plan of this kind, and its first report was acknowledged.
    ///
    /// # Errors
    /// If that does not come.
    pub fn settled(&self, what: &str, plan: impl Fn(&Value) -> bool) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !(self.json("plan.json").is_some_and(|p| plan(&p)) && self.reported()) {
            ensure!(Instant::now() < until, "the agent is never {what}: {:?}", self.json("status.json"));
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// The agent that runs now has reported.
    fn reported(&self) -> bool {
        let pid = self.agent.as_ref().map(|a| a.0.id());
        self.json("status.json").is_some_and(|s| s["reported"] == true && s["pid"].as_u64() == pid.map(u64::from))
    }

    /// From the start of the agent until its first report is acknowledged, and of it until it begins to connect,
    /// milliseconds: the middle of nine.
    ///
    /// # Errors
    /// If none is.
    pub fn first_report_ms(&mut self) -> Result<(f64, f64)> {
        let (mut all, mut waits) = (Vec::new(), Vec::new());
        for _ in 0..9 {
            let (begun, silent) = (Instant::now(), self.line.bytes());
            self.start_agent()?;
            let mut connects = None;
            while !self.reported() {
                ensure!(begun.elapsed() < PATIENCE, "no report: {:?}", self.json("status.json"));
                std::thread::sleep(Duration::from_millis(1));
                if connects.is_none() && self.line.bytes() > silent {
                    connects = Some(begun.elapsed());
                }
            }
            let took = begun.elapsed();
            all.push(took.as_secs_f64() * 1e3);
            waits.push(connects.unwrap_or(took).as_secs_f64() * 1e3);
            self.stop_agent()?;
        }
        Ok((crate::bench::median(all), crate::bench::median(waits)))
    }

    fn json(&self, file: &str) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.state().join(file)).ok()?).ok()
    }
}
