//! Where releases lie: `releases/<version>/tram-agent`, and `current`, a link to one of them or to the package's own.
//!
//! ```text
//! state.json          what was decided
//! current             → releases/2.0, or → /usr/bin: the package's own
//! releases/2.0/       tram-agent, read-only
//! fetching/<sha256>   what is not whole yet
//! ```

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use sha2::{Digest, Sha256};
use tram_wire::update::name_is_good;

use crate::proof::finished;
use crate::state::Release;

/// The program's name: what a process is known by, too.
pub const PROGRAM: &str = "tram-agent";
/// Left free for everything else on the disk.
const MARGIN: u64 = 16 * 1024 * 1024;

/// The updater's folder.
#[derive(Clone, Debug)]
pub struct Place {
    root: PathBuf,
    packaged: PathBuf,
}

impl Place {
    /// Makes what is missing. Everybody may read: the agent is another user.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(root: &Path, packaged: &Path) -> io::Result<Self> {
        for folder in [root.to_owned(), root.join("releases"), root.join("fetching")] {
            fs::create_dir_all(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { root: root.to_owned(), packaged: packaged.to_owned() })
    }

    /// Where a release lies. Its name was proved to be one; a second look costs nothing.
    fn folder(&self, release: &Release) -> io::Result<PathBuf> {
        if !name_is_good(&release.version) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a release"));
        }
        Ok(self.root.join("releases").join(&release.version))
    }

    /// A release's program, if it lies there whole: it is read and hashed.
    #[must_use]
    pub fn whole(&self, release: &Release) -> Option<PathBuf> {
        let program = self.folder(release).ok()?.join(PROGRAM);
        (hash(&program).ok()? == release.sha256).then_some(program)
    }

    /// What of a program is being fetched.
    #[must_use]
    pub fn part(&self, sha256: &str) -> PathBuf {
        self.root.join("fetching").join(sha256)
    }

    /// Whether so many bytes more have room.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        // What can't be told shows when it is written.
        statvfs(&self.root).map_or(true, |s| s.blocks_available() * s.fragment_size() >= bytes + MARGIN)
    }

    /// Takes what was fetched in, after its bytes were found to be what was signed.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if they are not; the part is gone then.
    pub fn take_in(&self, release: &Release) -> io::Result<PathBuf> {
        let part = self.part(&release.sha256);
        if hash(&part)? != release.sha256 {
            fs::remove_file(&part)?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its bytes are not those that were signed"));
        }
        let folder = self.folder(release)?;
        // Of an earlier try; nothing runs from it, or it would have been whole.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(&part, fs::Permissions::from_mode(0o555))?;
        let program = folder.join(PROGRAM);
        fs::rename(&part, &program)?;
        File::open(&folder)?.sync_all()?;
        File::open(self.root.join("releases"))?.sync_all()?;
        Ok(program)
    }

    /// As what the agent is begun.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.root.join("current").join(PROGRAM)
    }

    fn target(&self, release: Option<&Release>) -> io::Result<PathBuf> {
        match release {
            // Relative, so that the folder may be moved and looked at from outside.
            Some(r) => self.folder(r).map(|_| Path::new("releases").join(&r.version)),
            None => Ok(self.packaged.clone()),
        }
    }

    /// Whether `current` is this release, or the package's own.
    #[must_use]
    pub fn is_current(&self, release: Option<&Release>) -> bool {
        let now = fs::read_link(self.root.join("current"));
        now.is_ok_and(|now| self.target(release).is_ok_and(|t| t == now))
    }

    /// Makes it `current`: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// If that can't be done; nothing was changed then.
    pub fn switch(&self, release: Option<&Release>) -> io::Result<()> {
        let target = self.target(release)?;
        let new = self.root.join(".current.new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        symlink(target, &new)?;
        fs::rename(&new, self.root.join("current"))?;
        File::open(&self.root)?.sync_all()
    }

    /// Removes releases and parts but these.
    pub fn tidy(&self, keep: &[&Release]) {
        let kept = |folder: &str, name: &str| match folder {
            "releases" => keep.iter().any(|r| r.version == name),
            _ => keep.iter().any(|r| r.sha256 == name),
        };
        for folder in ["releases", "fetching"] {
            let Ok(entries) = fs::read_dir(self.root.join(folder)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                if name.to_str().is_none_or(|n| !kept(folder, n)) {
                    let path = entry.path();
                    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                }
            }
        }
    }
}

/// SHA-256 of a file, hexadecimal.
///
/// # Errors
/// If it can't be read.
pub fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut sum, mut piece) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(finished(sum)),
            n => sum.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::sha256;

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(&dir.path().join("u"), Path::new("/usr/bin")).unwrap();
        (dir, place)
    }

    fn release(version: &str, bytes: &[u8]) -> Release {
        Release { version: version.into(), counter: 1, sha256: sha256(bytes) }
    }

    #[test]
    fn what_was_fetched_is_taken_in_and_becomes_current() {
        let (dir, place) = place();
        let r = release("2.0", b"program");
        assert!(place.whole(&r).is_none());
        fs::write(place.part(&r.sha256), b"program").unwrap();
        let program = place.take_in(&r).unwrap();
        assert_eq!(place.whole(&r), Some(program.clone()));
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o555);
        place.switch(None).unwrap();
        assert!(place.is_current(None) && !place.is_current(Some(&r)));
        place.switch(Some(&r)).unwrap();
        assert!(place.is_current(Some(&r)));
        assert_eq!(fs::read(dir.path().join("u/current/tram-agent")).unwrap(), b"program");
        place.switch(None).unwrap();
        assert_eq!(fs::read_link(dir.path().join("u/current")).unwrap(), Path::new("/usr/bin"));
    }

    #[test]
    fn a_flipped_bit_is_never_taken_in() {
        let (_dir, place) = place();
        let r = release("2.0", b"program");
        for wrong in [b"Program".as_slice(), b"progra", b""] {
            fs::write(place.part(&r.sha256), wrong).unwrap();
            assert_eq!(place.take_in(&r).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert!(!place.part(&r.sha256).exists(), "it is fetched anew");
        }
        // What was altered on the disk later is no release any more.
        fs::write(place.part(&r.sha256), b"program").unwrap();
        let program = place.take_in(&r).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&program, b"progRam").unwrap();
        assert!(place.whole(&r).is_none());
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let (dir, place) = place();
        for name in ["../../etc", "..", "/tmp/x", "2/0"] {
            let r = release(name, b"program");
            fs::write(place.part(&r.sha256), b"program").unwrap();
            assert!(place.take_in(&r).is_err(), "{name}");
            assert!(place.switch(Some(&r)).is_err(), "{name}");
            assert!(place.whole(&r).is_none(), "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_needed_goes() {
        let (dir, place) = place();
        let all = ["1.0", "2.0", "3.0"].map(|v| release(v, v.as_bytes()));
        for r in &all {
            fs::write(place.part(&r.sha256), r.version.as_bytes()).unwrap();
            place.take_in(r).unwrap();
        }
        fs::write(place.part(&"0".repeat(64)), b"half").unwrap();
        place.tidy(&[&all[1]]);
        assert!(place.whole(&all[0]).is_none() && place.whole(&all[1]).is_some() && place.whole(&all[2]).is_none());
        assert_eq!(fs::read_dir(dir.path().join("u/fetching")).unwrap().count(), 0);
        assert!(!place.has_room(u64::MAX / 2) && place.has_room(1));
    }
}
