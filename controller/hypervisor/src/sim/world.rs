//! The simulated host's world: what a real host would keep on disk and in libvirt.
//!
//! With a state folder every desktop is one small file, replaced by rename, so that 5,000 desktops stay
//! cheap and a process killed at any instant leaves the old or the new file, never half of one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::{DesktopId, InstallationId, Observed, Power};

/// A domain and a disk under one id, either of which may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Which desktop.
    pub id: DesktopId,
    /// Who made it.
    pub installation: InstallationId,
    /// The overlay disk.
    pub disk: Option<Disk>,
    /// The domain.
    pub domain: Option<Domain>,
}

/// An overlay disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Golden image below it.
    pub image: String,
    /// Generation it was made for.
    pub generation: i64,
    /// Whether it was written to its end.
    pub complete: bool,
}

/// A defined domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name, unique on the host.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Last power state that was set.
    pub power: Power,
    /// When it was started, in Unix milliseconds.
    pub since_ms: i64,
    /// When a graceful stop will have ended, if one was asked for.
    pub off_at_ms: Option<i64>,
}

impl Domain {
    /// Power state at `now`.
    #[must_use]
    pub fn power_at(&self, now_ms: i64) -> Power {
        match self.off_at_ms {
            Some(at) if self.power == Power::Running && at <= now_ms => Power::Off,
            _ => self.power,
        }
    }
}

impl Item {
    /// What [`crate::Hypervisor::observe`] says of it; a half-made disk is no disk.
    #[must_use]
    pub fn observed(&self, now_ms: i64, boot_ms: i64) -> Observed {
        let disk = self.disk.as_ref().filter(|d| d.complete);
        let power = self.domain.as_ref().map(|d| d.power_at(now_ms));
        let ready =
            power == Some(Power::Running) && self.domain.as_ref().is_some_and(|d| now_ms - d.since_ms >= boot_ms);
        let b = self.id.0.as_bytes();
        Observed {
            disk: disk.is_some(),
            disk_generation: disk.map(|d| d.generation),
            power,
            guest_ready: ready,
            addresses: if ready { vec![format!("10.{}.{}.{}", b[13], b[14], b[15])] } else { Vec::new() },
        }
    }
}

/// All items, and the folder they are kept in.
pub(super) struct World {
    items: BTreeMap<DesktopId, Item>,
    /// Who has a domain's name.
    names: HashMap<String, DesktopId>,
    folder: Option<PathBuf>,
}

impl World {
    pub(super) fn open(folder: Option<PathBuf>) -> io::Result<Self> {
        let mut items = BTreeMap::new();
        if let Some(folder) = &folder {
            fs::create_dir_all(folder)?;
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == "json") {
                    let item: Item = serde_json::from_slice(&fs::read(&path)?)?;
                    items.insert(item.id, item);
                }
            }
        }
        let named = items.values().filter_map(|i| Some((i.domain.as_ref()?.name.clone(), i.id)));
        let names = named.collect();
        Ok(Self { items, names, folder })
    }

    pub(super) fn get(&self, id: DesktopId) -> Option<&Item> {
        self.items.get(&id)
    }

    pub(super) fn named(&self, name: &str) -> Option<DesktopId> {
        self.names.get(name).copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// Writes the item through to its file, or removes it when nothing is left of it.
    pub(super) fn put(&mut self, item: Item) -> io::Result<()> {
        let empty = item.disk.is_none() && item.domain.is_none();
        if let Some(folder) = &self.folder {
            let file = file_of(folder, item.id);
            if empty {
                match fs::remove_file(&file) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            } else {
                let new = file.with_extension("new");
                fs::write(&new, serde_json::to_vec(&item)?)?;
                fs::rename(&new, &file)?;
            }
        }
        let name = item.domain.as_ref().map(|d| d.name.clone());
        let id = item.id;
        let old = if empty { self.items.remove(&id) } else { self.items.insert(id, item) };
        if let Some(old) = old.and_then(|i| i.domain) {
            self.names.remove(&old.name);
        }
        if let Some(name) = name {
            self.names.insert(name, id);
        }
        Ok(())
    }
}

fn file_of(folder: &Path, id: DesktopId) -> PathBuf {
    folder.join(format!("{id}.json"))
}
