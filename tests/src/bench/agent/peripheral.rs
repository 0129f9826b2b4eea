//! From the moment something is plugged in until support's page shows it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::ours::{Built, Pc};
use crate::device::Console;
use crate::world::{PATIENCE, World};

/// So often something is plugged in, and as often taken out.
const TIMES: u32 = 8;
/// How far apart the agent's looks may be: each time falls elsewhere between two of them.
const BETWEEN: f64 = 2.0;
const GOLDEN: f64 = 0.618;

/// Seconds of the slowest, and how the others were.
///
/// # Errors
/// If the page never shows it; also without the right to mount, for the computer's `/sys/bus` is made up.
pub fn seconds(built: &Built) -> Result<(f64, String)> {
    let mut world = World::new()?;
    world.start()?;
    let console = Console::sign_in(&world, "support")?;
    let mut pc = Pc::enrolled(&world, built, &world.path().join("pc"))?;
    let bus = Bus::new(&world.path().join("bus"))?;
    pc.start_agent_by(&["unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /sys/bus && exec \"$@\"", &bus.0])?;
    pc.settled("at work", |_| true)?;
    let all = world.json(&["admin", "endpoint", "list", "--json"])?;
    let page = format!("/api/v1/endpoints/{}/health", all[0]["id"].as_str().context("id")?);
    let mut took = Vec::new();
    for n in 0..TIMES {
        for there in [true, false] {
            std::thread::sleep(Duration::from_secs_f64(
                BETWEEN * (f64::from(2 * n + u32::from(there)) * GOLDEN).fract(),
            ));
            let serial = format!("BENCH-{n}");
            if there {
                bus.plug(&serial)?
            } else {
                bus.unplug()?
            }
            let begun = Instant::now();
            while shown(&console, &page, &serial)? != there {
                ensure!(begun.elapsed() < PATIENCE, "support does not see that {serial} is {there}");
                std::thread::sleep(Duration::from_millis(20));
            }
            took.push(begun.elapsed().as_secs_f64());
        }
    }
    let worst = took.iter().copied().fold(0.0, f64::max);
    let how = format!(
        "the slowest of {}, of which half came and half went; the middle {:.2}",
        took.len(),
        crate::bench::median(took)
    );
    Ok((worst, how))
}

/// Whether it is listed among what is plugged in; what came and went is told of elsewhere on the page.
fn shown(console: &Console, page: &str, serial: &str) -> Result<bool> {
    let (status, health) = console.get(page)?;
    ensure!(status == 200, "{health}");
    Ok(health["inventory"]["usb"].to_string().contains(serial))
}

/// Has the kernel say that a device was added: which one, nobody asks.
fn said() -> Result<()> {
    std::fs::write("/sys/devices/virtual/mem/null/uevent", "add").context("the kernel's word; this needs root")
}

/// What stands in for `/sys/bus`.
struct Bus(String);

impl Bus {
    fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder.join("usb/devices"))?;
        let token = folder.join("token");
        std::fs::create_dir(&token)?;
        for (leaf, text) in [("idVendor", "096e"), ("idProduct", "0309"), ("product", "ePass2003"), ("speed", "12")] {
            std::fs::write(token.join(leaf), text)?;
        }
        Ok(Self(folder.to_str().context("path")?.to_owned()))
    }

    fn out(&self) -> PathBuf {
        Path::new(&self.0).join("token")
    }

    fn within(&self) -> PathBuf {
        Path::new(&self.0).join("usb/devices/1-4")
    }

    fn plug(&self, serial: &str) -> Result<()> {
        std::fs::write(self.out().join("serial"), serial)?;
        // At once and whole, as the kernel does it.
        std::fs::rename(self.out(), self.within())?;
        said()
    }

    fn unplug(&self) -> Result<()> {
        std::fs::rename(self.within(), self.out())?;
        said()
    }
}
