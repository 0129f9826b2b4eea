//! The agent's key in a TPM: the real agent, the distribution's tools, and a TPM of software on a socket.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tram_tests::device::{Console, Device, WallClock, token};
use tram_tests::world::{PATIENCE, World};

/// A TPM.
struct Tpm {
    folder: TempDir,
    child: Child,
}

impl Tpm {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let child = Self::switched_on(&folder)?;
        Ok(Self { folder, child })
    }

    fn switched_on(folder: &TempDir) -> Result<Child> {
        let at = |name: &str| folder.path().join(name);
        let _ = std::fs::remove_file(at("tpm"));
        let _ = std::fs::remove_file(at("tpm.ctrl"));
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.path().display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", at("tpm").display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", at("tpm.ctrl").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("swtpm; run `make setup`")?;
        let until = Instant::now() + PATIENCE;
        while !(at("tpm").exists() && at("tpm.ctrl").exists()) {
            ensure!(Instant::now() < until, "swtpm does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(child)
    }

    /// Switches the computer it is in off and on: what was loaded is gone.
    fn off_and_on(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = Self::switched_on(&self.folder)?;
        Ok(())
    }

    fn tcti(&self) -> String {
        format!("swtpm:path={}", self.folder.path().join("tpm").display())
    }

    /// A computer with it.
    fn device(&self, how: &str) -> Result<Device> {
        let device = Device::new()?;
        device.configure(&format!("[key]\ntpm = \"{how}\"\ntcti = \"{}\"\n", self.tcti()))?;
        Ok(device)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that is kept in a folder.
fn files(folder: &std::path::Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[test]
fn a_key_in_the_tpm_links_renews_and_is_worth_nothing_on_another_computer() -> Result<()> {
    let mut world = World::new()?;
    let clock = WallClock::new(world.path())?;
    let environment = clock.environment()?;
    let environment: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    world.start_with(&environment)?;
    world.listening()?;
    let mut tpm = Tpm::new()?;
    let mut device = tpm.device("required")?;
    let done = device.enrol(&world, &token(&world)?)?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let first = device.identity()?;
    ensure!(first["key_pem"].as_str().is_some_and(|k| k.starts_with("tpm2:")), "{first}");
    for file in files(&device.state())? {
        let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
        ensure!(!text.contains("PRIVATE KEY"), "{} holds a private key", file.display());
    }
    device.start()?;
    world.until("it is linked", |_| Ok(device.link()?["state"] == "up"))?;
    let status: Value = serde_json::from_slice(&device.run(&["status", "--json"])?.stdout)?;
    assert_eq!(status["key"], "tpm", "{status}");
    let console = Console::sign_in(&world, "operator")?;
    let id = first["endpoint_id"].as_str().context("id")?.to_owned();
    world.until("the console says where the key is", |_| {
        Ok(console.get(&format!("/api/v1/endpoints/{id}"))?.1["key"] == "tpm")
    })?;

    // The computer is switched off and on: nothing of the key was in the TPM, and it signs all the same.
    device.stop()?;
    tpm.off_and_on()?;
    device.start()?;
    world.until("it is linked again", |_| Ok(device.link()?["state"] == "up"))?;
    // Also under the running agent, whose key was loaded.
    tpm.off_and_on()?;
    let linked = device.link()?;
    world.kill9()?;
    world.start_with(&environment)?;
    world.listening()?;
    world.until("it links to a controller that came back", |_| {
        let now = device.link()?;
        Ok(now["state"] == "up" && now["since_ms"] != linked["since_ms"])
    })?;

    // At two thirds of the certificate's life there is a new key.
    device.stop()?;
    clock.off_by("+21d")?;
    device.clock.off_by("+21d")?;
    device.start()?;
    world.until("it has a new key", |_| {
        let now = device.identity()?;
        Ok(now["key_pem"] != first["key_pem"] && now["key_pem"].as_str().is_some_and(|k| k.starts_with("tpm2:")))
    })?;
    world.until("it is linked with it", |_| Ok(device.link()?["state"] == "up"))?;
    device.stop()?;

    // A copy of the whole folder on another computer, which has a TPM of its own.
    let other = Tpm::new()?;
    let mut copy = other.device("auto")?;
    copy.clock.off_by("+21d")?;
    std::fs::create_dir_all(copy.state())?;
    for file in files(&device.state())? {
        let to = copy.state().join(file.strip_prefix(device.state())?);
        std::fs::create_dir_all(to.parent().context("folder")?)?;
        std::fs::copy(&file, to)?;
    }
    copy.start()?;
    world.until("it can't prove itself", |_| {
        let link = copy.link()?;
        ensure!(link["state"] != "up", "a copied folder links");
        Ok(link["reason"].as_str().is_some_and(|r| r.contains("TPM")))
    })?;
    copy.stop()?;
    device.start()?;
    world.until("the original is linked", |_| Ok(device.link()?["state"] == "up"))
}

#[test]
fn without_a_tpm_the_key_is_in_a_file_and_that_is_said() -> Result<()> {
    let mut world = World::new()?;
    world.start()?;
    let mut device = Device::new()?;
    device.configure("[key]\ntpm = \"auto\"\ntcti = \"device:/dev/no-such-tpm\"\n")?;
    let done = device.enrol(&world, &token(&world)?)?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    ensure!(device.identity()?["key_pem"].as_str().is_some_and(|k| k.contains("PRIVATE KEY")));
    device.start()?;
    world.until("it is linked", |_| Ok(device.link()?["state"] == "up"))?;
    let status = device.run(&["status"])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(status.contains("key         file"), "{status}");

    let strict = Device::new()?;
    strict.configure("[key]\ntpm = \"required\"\ntcti = \"device:/dev/no-such-tpm\"\n")?;
    let spare = token(&world)?;
    let refused = strict.enrol(&world, &spare)?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("/dev/no-such-tpm"), "{said}");
    // Its token is not spent.
    strict.configure("[key]\ntpm = \"off\"\n")?;
    ensure!(strict.enrol(&world, &spare)?.status.success());
    Ok(())
}
