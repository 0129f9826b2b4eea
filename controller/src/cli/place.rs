//! Which installation a command means, and as whom it works on it.
//!
//! A package's controller runs as a user of its own. An administrator types commands as root; files made so
//! would be closed to the server. So a command of root on another's data folder goes on as that folder's owner.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User, geteuid, setgid, setgroups, setuid};

/// Where a package keeps the configuration.
const CONFIG: &str = "/etc/tram/controller.toml";
/// Where a package keeps the rest.
const DATA: &str = "/var/lib/tram";

/// An installation on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) config: Option<PathBuf>,
    pub(super) data: PathBuf,
}

impl Place {
    /// What was named; where nothing was, the package's installation. Naming a folder means another one:
    /// then the package's configuration does not come in by the back door.
    pub(super) fn find(config: Option<PathBuf>, data: Option<PathBuf>) -> Self {
        Self::find_in(config, data, Path::new(CONFIG))
    }

    fn find_in(config: Option<PathBuf>, data: Option<PathBuf>, usual: &Path) -> Self {
        let usual = (config.is_none() && data.is_none() && usual.exists()).then(|| usual.to_owned());
        Self { config: config.or(usual), data: data.unwrap_or_else(|| DATA.into()) }
    }

    /// Goes on as the data folder's owner, for good, if this is root and the folder somebody else's.
    pub(super) fn become_owner(&self) -> Result<()> {
        let Ok(folder) = std::fs::metadata(&self.data) else { return Ok(()) };
        if !geteuid().is_root() || folder.uid() == 0 {
            return Ok(());
        }
        let failed = || format!("going on as the owner of {}", self.data.display());
        let owner = Uid::from_raw(folder.uid());
        let user = User::from_uid(owner).with_context(failed)?;
        let group = user.as_ref().map_or(Gid::from_raw(folder.gid()), |u| u.gid);
        // What root's groups may read is no longer this process's to read.
        setgroups(&[group]).and_then(|()| setgid(group)).and_then(|()| setuid(owner)).with_context(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_configuration_is_for_the_packages_folder_only() {
        let dir = tempfile::tempdir().unwrap();
        let usual = dir.path().join("controller.toml");
        let find = |config: Option<&str>, data: Option<&str>| {
            Place::find_in(config.map(Into::into), data.map(Into::into), &usual)
        };
        assert_eq!(find(None, None), Place { config: None, data: DATA.into() });
        std::fs::write(&usual, "").unwrap();
        assert_eq!(find(None, None), Place { config: Some(usual.clone()), data: DATA.into() });
        assert_eq!(find(None, Some("/x")), Place { config: None, data: "/x".into() });
        assert_eq!(find(Some("/c"), None), Place { config: Some("/c".into()), data: DATA.into() });
    }
}
