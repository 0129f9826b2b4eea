//! Files of people's: written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// Puts a text in place of a file, or makes the file; with the rights it had. What was there stays until all is on the disk.
///
/// # Errors
/// Those of the file system; nothing has changed then.
pub(super) fn put(path: &Path, text: &str) -> io::Result<()> {
    // What a link leads to is replaced, not the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let part = path.with_file_name(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let done = write(&part, text)
        .and_then(|()| match fs::metadata(&path) {
            Ok(old) => {
                // Root's doing takes nobody's file away; others own what they write.
                let _ = chown(&part, Some(old.uid()), Some(old.gid()));
                fs::set_permissions(&part, old.permissions())
            }
            Err(_) => Ok(()),
        })
        .and_then(|()| fs::rename(&part, &path));
    if done.is_err() {
        // Perhaps it never was.
        let _ = fs::remove_file(&part);
    }
    done
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_rights() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.toml"), folder.path().join("link"));
        put(&file, "one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        // Only root can give a file away.
        let owner = if chown(&file, Some(1234), None).is_ok() { 1234 } else { fs::metadata(&file).unwrap().uid() };
        symlink(&file, &link).unwrap();
        put(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::metadata(&file).unwrap().uid(), owner);
        assert!(put(&folder.path().join("none/b"), "x").is_err());
        assert!(put(folder.path(), "x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
