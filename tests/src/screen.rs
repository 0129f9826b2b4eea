//! A screen without a monitor: Xvfb, what stands on it, and pictures of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Programs start slowly on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An X server of its own with a window manager; both end with this.
pub struct Screen {
    server: Child,
    manager: Option<Child>,
    display: String,
}

impl Screen {
    /// Starts one on a free display.
    ///
    /// # Errors
    /// If Xvfb can't be started.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let told = folder.path().join("display");
        let out = fs::File::create(&told)?;
        let server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp", "-noreset"])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .context("Xvfb; `make setup` installs it")?;
        let number = wait("Xvfb", || {
            let text = fs::read_to_string(&told)?;
            Ok(text.ends_with('\n').then(|| text.trim().to_owned()))
        });
        let mut screen = Self { server, manager: None, display: String::new() };
        screen.display = format!(":{}", number?);
        let mut manager = screen.command("openbox");
        screen.manager = Some(manager.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("openbox")?);
        wait("openbox", || Ok(screen.windows()?.contains("\"Openbox\"").then_some(())))?;
        Ok(screen)
    }

    /// For `DISPLAY`.
    #[must_use]
    pub fn display(&self) -> &str {
        &self.display
    }

    /// A program on this screen.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("DISPLAY", &self.display).env_remove("WAYLAND_DISPLAY").stdin(Stdio::null());
        command
    }

    /// Titles and sizes of all windows, as `xwininfo` tells them.
    ///
    /// # Errors
    /// If it can't be asked.
    pub fn windows(&self) -> Result<String> {
        let out = self.command("xwininfo").args(["-root", "-tree"]).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Sends keys to whoever has the keyboard.
    ///
    /// # Errors
    /// If xdotool can't be started.
    pub fn xdotool(&self, words: &[&str]) -> Result<()> {
        let done = self.command("xdotool").args(words).output()?;
        if !done.status.success() {
            bail!("xdotool {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }

    /// Keeps a picture of the screen; how many colours it has.
    ///
    /// # Errors
    /// If it can't be taken.
    pub fn picture(&self, file: &Path) -> Result<u32> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let raw = file.with_extension("xwd");
        let taken = self.command("xwd").args(["-root", "-silent", "-out"]).arg(&raw).status()?;
        let made = Command::new("convert").arg(&raw).arg(file).status()?;
        let _ = fs::remove_file(&raw);
        if !taken.success() || !made.success() {
            bail!("no picture");
        }
        let count = Command::new("identify").args(["-format", "%k"]).arg(file).output()?;
        Ok(String::from_utf8_lossy(&count.stdout).trim().parse()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for child in self.manager.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks until there is an answer.
///
/// # Errors
/// The question's own, or that it took too long.
pub fn wait<T>(what: &str, mut question: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let since = Instant::now();
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if since.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Where pictures are kept: `target/pictures`.
#[must_use]
pub fn pictures() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("pictures")
}
