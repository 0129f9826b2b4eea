//! The settings that the Debian packages install: every key is one the programs know, and what is shown as the
//! default is the default.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tram_controller::config::Config;

/// The file as shipped, and with every setting that is commented out taken in.
fn shipped(name: &str) -> Result<(PathBuf, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let shown = text.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    });
    Ok((path.clone(), shown.collect::<Vec<_>>().join("\n")))
}

#[test]
fn the_controllers_settings_show_its_defaults() -> Result<()> {
    let (path, shown) = shipped("controller/root/etc/tram/controller.toml")?;
    let dir = tempfile::tempdir()?;
    let all = dir.path().join("all.toml");
    std::fs::write(&all, &shown)?;
    let data = Path::new("/var/lib/tram");
    let plain = Config::load(None, data, |_| None)?;
    assert_eq!(Config::load(Some(&path), data, |_| None)?, plain, "as shipped");
    // A gateway is called by its machine's name, which no file can know.
    let mut taken_in = Config::load(Some(&all), data, |_| None)?;
    taken_in.gateway.name.clone_from(&plain.gateway.name);
    assert_eq!(taken_in, plain, "with all of it taken in");
    assert!(shown.contains("\nidle_minutes = "), "the settings were not taken in:\n{shown}");
    Ok(())
}

#[test]
fn the_agents_settings_show_its_defaults() -> Result<()> {
    let (path, shown) = shipped("agent/root/etc/tram/agent.toml")?;
    let dir = tempfile::tempdir()?;
    let (empty, all) = (dir.path().join("empty.toml"), dir.path().join("all.toml"));
    std::fs::write(&empty, "")?;
    std::fs::write(&all, &shown)?;
    let load = |file: &Path| tram_agent::config::Config::load(Some(file), None);
    assert_eq!(load(&path)?, load(&empty)?, "as shipped");
    assert_eq!(load(&all)?, load(&empty)?, "with all of it taken in");
    Ok(())
}
