//! Releases of the agent: the real controller, agent and updater, each its own process. One is fetched, switched to and
//! kept; one that falls over is taken back, banned in the end, and stops its ring; an office fetches it once.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tram_tests::device::Device;
use tram_tests::world::{World, program};

/// Whoever is dropped takes its children along.
struct Group(Child);

impl Group {
    fn new(command: &mut Command, log: &Path) -> Result<Self> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        Ok(Self(command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Keys, as their holders have them on machines of their own, and the files they sign.
struct Signers {
    folder: PathBuf,
    public: Vec<String>,
}

impl Signers {
    fn new(world: &World) -> Result<Self> {
        let folder = world.path().join("offline");
        std::fs::create_dir(&folder)?;
        let mut public = Vec::new();
        for n in 0..3 {
            let file = folder.join(format!("key-{n}"));
            public.push(world.cli(&["admin", "update", "key", "--out", text(&file)?])?.trim().to_owned());
        }
        Ok(Self { folder, public })
    }

    /// Writes, signs and publishes a program.
    fn publish(&self, world: &World, version: &str, counter: u64, bytes: &[u8]) -> Result<()> {
        let (file, manifest) =
            (self.folder.join(format!("{version}.bin")), self.folder.join(format!("{version}.json")));
        std::fs::write(&file, bytes)?;
        let (file, manifest) = (text(&file)?, text(&manifest)?);
        let counter = counter.to_string();
        let made = ["--program", file, "--version", version, "--counter", &counter, "--out", manifest];
        world.cli(&[&["admin", "update", "manifest"], &made[..]].concat())?;
        let publish = ["admin", "update", "publish", "--any-time", "--program", file, manifest];
        for key in ["key-0", "key-2"] {
            let refused = world.cli(&publish).unwrap_err().to_string();
            ensure!(refused.contains("V-102"), "{refused}");
            world.cli(&["admin", "update", "sign", "--key", text(&self.folder.join(key))?, manifest])?;
        }
        world.cli(&publish)?;
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path")
}

/// An office computer: its agent under a supervisor, and its updater.
struct Pc {
    device: Device,
    folder: tempfile::TempDir,
    supervisor: Option<Group>,
    updater: Option<Group>,
}

impl Pc {
    fn new(world: &World, signers: &Signers) -> Result<Self> {
        let (device, _) = Device::enrolled(world)?;
        let folder = tempfile::tempdir()?;
        let packaged = folder.path().join("packaged");
        std::fs::create_dir(&packaged)?;
        symlink(program("tram-agent")?, packaged.join("tram-agent"))?;
        std::fs::write(folder.path().join("agent.toml"), "")?;
        let updater = format!(
            "state = {:?}\npackaged = {packaged:?}\nkeys = {:?}\nstart_seconds = 90\nretry_seconds = 1\nkeep_port = 0\n",
            folder.path().join("updates"),
            signers.public
        );
        std::fs::write(folder.path().join("updater.toml"), updater)?;
        let pc = Self { device, folder, supervisor: None, updater: None };
        pc.updater_command()?.arg("use-packaged").status()?;
        Ok(pc)
    }

    fn updater_command(&self) -> Result<Command> {
        let mut c = Command::new(program("tram-updater")?);
        c.arg("--config").arg(self.folder.path().join("updater.toml"));
        c.arg("--agent-config")
            .arg(self.folder.path().join("agent.toml"))
            .arg("--agent-state")
            .arg(self.device.state());
        Ok(c)
    }

    /// What systemd does: begins it again whenever it ends, from wherever `current` points.
    fn start_agent(&mut self) -> Result<()> {
        let mut c = Command::new("sh");
        c.args(["-c", "while :; do \"$0/tram-agent\" --config \"$1\" --state \"$2\" run; sleep 0.2; done"]);
        c.arg(self.folder.path().join("updates/current")).arg(self.folder.path().join("agent.toml"));
        self.supervisor = Some(Group::new(c.arg(self.device.state()), &self.folder.path().join("log"))?);
        Ok(())
    }

    fn start_updater(&mut self) -> Result<()> {
        let mut c = self.updater_command()?;
        self.updater = Some(Group::new(c.arg("run"), &self.folder.path().join("log"))?);
        Ok(())
    }

    fn current(&self) -> Result<String> {
        let to = std::fs::read_link(self.folder.path().join("updates/current"))?;
        Ok(to.file_name().context("name")?.to_string_lossy().into_owned())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The agent as another release: large, so that fetching it is something.
fn good(mark: &str) -> Result<Vec<u8>> {
    let agent = program("tram-agent")?;
    Ok(format!("#!/bin/sh\nexec {agent:?} \"$@\"\n# {mark}\n{}", "# x\n".repeat(300_000)).into_bytes())
}

/// One that begins well, and is killed as soon as it has said that it runs.
fn bad() -> Result<Vec<u8>> {
    let agent = program("tram-agent")?;
    Ok(format!(
        "#!/bin/sh\n{agent:?} \"$@\" &\npid=$!\nuntil grep -q \"\\\"pid\\\":$pid,\" \"$4/status.json\"; do sleep 0.1; done\n\
         sleep 3\nkill -9 $pid\nwait\nexit 1\n"
    )
    .into_bytes())
}

/// Waits until a release is so.
fn until(world: &mut World, pcs: &[&Pc], version: &str, what: &str, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let seen = world.until(what, |w| {
        last = w.json(&["admin", "update", "show", version])?;
        Ok(so(&last))
    });
    let logs = || pcs.iter().map(|p| p.log()).collect::<Vec<_>>().join("\n---\n");
    seen.with_context(|| format!("{last:#}\n{}", logs()))?;
    Ok(last)
}

/// A controller that takes releases of these people, and knows one site as its lab.
fn world() -> Result<(World, Signers)> {
    world_asked(1)
}

/// The same, and updaters ask it every so many seconds.
fn world_asked(every_s: u32) -> Result<(World, Signers)> {
    let mut world = World::new()?;
    let signers = Signers::new(&world)?;
    let keys: Vec<String> = signers.public.iter().map(|k| format!("{k:?}")).collect();
    // No waiting for its own sake; but for long enough that one which falls over after three is never kept.
    world.configure(&format!(
        "[updates]\nkeys = [{}]\nlab_sites = [\"00004\"]\nspread_minutes = 0\nsoak_minutes = 0\nalive_seconds = 20\n\
         ask_seconds = {every_s}\n",
        keys.join(", ")
    ))?;
    world.start()?;
    Ok((world, signers))
}

#[test]
fn a_release_is_tried_and_kept_and_one_that_falls_over_is_taken_back() -> Result<()> {
    let (mut world, signers) = world()?;
    let mut pc = Pc::new(&world, &signers)?;
    ensure!(pc.current()? == "packaged", "{}", pc.current()?);
    pc.start_agent()?;
    pc.start_updater()?;
    signers.publish(&world, "2.0", 2, &good("two")?)?;
    let two = until(&mut world, &[&pc], "2.0", "everybody runs 2.0", |r| r["state"] == "done")?;
    assert_eq!(two["rings"][0]["committed"], 1, "{two:#}");
    assert_eq!(pc.current()?, "2.0");
    let mode = std::fs::metadata(pc.folder.path().join("updates/releases/2.0/tram-agent"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o555, "nobody writes to what runs");

    // An older one is refused by the controller, and would be by the computer.
    let old = signers.publish(&world, "1.0", 1, &good("one")?).unwrap_err().to_string();
    assert!(old.contains("V-104"), "{old}");

    signers.publish(&world, "3.0", 3, &bad()?)?;
    for strike in 1..=3 {
        let three = until(&mut world, &[&pc], "3.0", &format!("3.0 is taken back for the {strike}. time"), |r| {
            r["state"] == "stopped" && r["failures"][0]["strikes"] == strike
        })?;
        let failure = &three["failures"][0];
        let stage = if strike == 3 { "banned" } else { "rolled_back" };
        assert_eq!((&failure["stage"], &failure["code"]), (&stage.into(), &"crashed".into()), "{three:#}");
        world.until("2.0 runs again", |_| Ok(pc.current()? == "2.0" && pc.device.link()?["state"] == "up"))?;
        if strike < 3 {
            world.cli(&["admin", "update", "resume", "3.0"])?;
        }
    }
    // Whatever anybody says now, this computer does not try it again.
    world.cli(&["admin", "update", "resume", "3.0", "--reason", "again"])?;
    signers.publish(&world, "3.1", 4, &good("mended")?)?;
    until(&mut world, &[&pc], "3.1", "everybody runs what was mended", |r| r["state"] == "done")?;
    assert_eq!(pc.current()?, "3.1");
    assert_eq!(world.json(&["admin", "update", "show", "3.0"])?["state"], "superseded");
    let status = pc.updater_command()?.arg("status").output()?;
    let status: Value = serde_json::from_slice(&status.stdout)?;
    assert_eq!((&status["counter"], &status["committed"]["version"]), (&4.into(), &"3.1".into()), "{status:#}");

    // A package that an administrator installs wins.
    pc.updater = None;
    assert!(pc.updater_command()?.arg("use-packaged").status()?.success());
    assert_eq!(pc.current()?, "packaged");
    Ok(())
}

#[test]
fn an_office_fetches_a_release_once_and_its_computers_pass_it_on() -> Result<()> {
    let (mut world, signers) = world()?;
    let (mut first, mut second) = (Pc::new(&world, &signers)?, Pc::new(&world, &signers)?);
    first.start_agent()?;
    first.start_updater()?;
    let bytes = good("two")?;
    signers.publish(&world, "2.0", 2, &bytes)?;
    // The only computer that is heard of this site probes for it, and keeps a copy.
    until(&mut world, &[&first], "2.0", "the first computer keeps a copy", |r| r["copies"] == 1)?;
    second.start_agent()?;
    second.start_updater()?;
    let size = bytes.len();
    let done = until(&mut world, &[&first, &second], "2.0", "both run it", |r| {
        r["rings"][0]["committed"] == 2 && r["bytes_from_copies"] == size
    })?;
    assert_eq!(done["failures"], Value::Array(Vec::new()), "{done:#}");
    Ok(())
}

/// Seconds that an updater which begins anew was told to wait first.
fn rests(pid: u32) -> Result<Option<u64>> {
    let all = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/environ"))?).into_owned();
    Ok(all.split('\0').find_map(|v| v.strip_prefix("TRAM_UPDATER_RESTS=")?.parse().ok()))
}

#[test]
fn between_two_questions_the_updater_is_next_to_nothing_and_asks_when_it_is_time() -> Result<()> {
    let (mut world, signers) = world_asked(3000)?;
    let mut pc = Pc::new(&world, &signers)?;
    // Without its agent, for one that is heard of alone in its office keeps a copy for others and does not rest. At first
    // it is not enrolled: nobody is asked, and nothing said.
    let (identity, aside) = (pc.device.state().join("identity.json"), pc.folder.path().join("identity.json"));
    std::fs::rename(&identity, &aside)?;
    pc.start_updater()?;
    let pid = pc.updater.as_ref().context("no updater")?.0.id();
    std::thread::sleep(std::time::Duration::from_secs(2));
    ensure!(rests(pid)?.is_none() && pc.log().is_empty(), "{}", pc.log());
    std::fs::rename(&aside, &identity)?;
    let long = |s: Option<u64>| s.is_some_and(|s| (2900..=3000).contains(&s));
    world.until("once it is enrolled it has asked and rests", |_| Ok(long(rests(pid)?)))?;
    let status = || Ok::<_, anyhow::Error>(std::fs::read_to_string(format!("/proc/{pid}/status"))?);
    let own = |text: &str| {
        text.lines().find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
    };
    let kib = own(&status()?).context("RssAnon")?;
    ensure!(kib < 512, "{kib} KiB of its own while it rests");
    ensure!(status()?.starts_with("Name:\ttram-updater\n"), "it has another name now: {}", status()?);

    // One whose rest is over asks, and rests anew.
    pc.updater = None;
    let mut c = pc.updater_command()?;
    c.arg("run").env("TRAM_UPDATER_RESTS", "1");
    pc.updater = Some(Group::new(&mut c, &pc.folder.path().join("log"))?);
    let pid = pc.updater.as_ref().context("no updater")?.0.id();
    world.until("it has asked again", |_| Ok(long(rests(pid)?)))?;

    // Where nobody answers it does not rest, and says so once.
    pc.updater = None;
    world.stop()?;
    let before = pc.log().matches("the controller can't be asked").count();
    pc.start_updater()?;
    world.until("it has nobody to ask", |_| Ok(pc.log().matches("the controller can't be asked").count() > before))?;
    let pid = pc.updater.as_ref().context("no updater")?.0.id();
    ensure!(rests(pid)?.is_none(), "it rests instead of asking again");
    Ok(())
}
