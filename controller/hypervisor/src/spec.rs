//! What every backend asks of a [`DesktopSpec`] before anything is touched.

use crate::{DesktopSpec, Error, Result};

/// Longest name of a desktop in bytes; it is also the guest's host name, so it stays below 64.
pub const MAX_NAME: usize = 50;

/// Checks a specification.
///
/// # Errors
/// [`Error::Invalid`] with a sentence that names the field, never the (possibly huge) value.
pub fn validate(spec: &DesktopSpec) -> Result<()> {
    name(&spec.name)?;
    image_file(&spec.image_file)?;
    if !(1..=256).contains(&spec.vcpus) {
        return invalid("a desktop needs 1 to 256 processors");
    }
    if !(16..=4 * 1024 * 1024).contains(&spec.memory_mib) {
        return invalid("a desktop needs 16 MiB to 4 TiB of memory");
    }
    if spec.disk_gib.is_some_and(|gib| !(1..=64 * 1024).contains(&gib)) {
        return invalid("a disk may have 1 GiB to 64 TiB");
    }
    if spec.generation < 0 {
        return invalid("a generation is not negative");
    }
    Ok(())
}

/// A desktop's name: what a host name may be, so that it is safe in XML, paths, DNS and the guest alike.
///
/// # Errors
/// [`Error::Invalid`].
pub fn name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME {
        return invalid("a desktop's name has 1 to 50 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return invalid("a desktop's name has only lower-case letters, digits and '-'");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return invalid("a desktop's name does not begin or end with '-'");
    }
    Ok(())
}

/// A golden image's file name: one path component that can't climb out of the image folder.
///
/// # Errors
/// [`Error::Invalid`].
pub fn image_file(file: &str) -> Result<()> {
    if file.is_empty() || file.len() > 200 {
        return invalid("an image's file name has 1 to 200 bytes");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'~');
    if !file.bytes().all(plain) || file.starts_with(['.', '-']) {
        return invalid(
            "an image's file name has only letters, digits and - _ . + ~, and begins with a letter or digit",
        );
    }
    Ok(())
}

fn invalid(text: &str) -> Result<()> {
    Err(Error::Invalid(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in
            ["", "a<b", "a&b", "a\0b", "a\nb", "../a", "-a", "a-", "A", "á", &"a".repeat(51), &"a".repeat(10_240)]
        {
            assert!(matches!(name(bad), Err(Error::Invalid(_))), "{:?}", bad.get(..bad.len().min(20)));
        }
        for good in ["a", "pc-01", "7", &"a".repeat(50)] {
            assert!(name(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn an_image_file_stays_in_its_folder() {
        for bad in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0", "a\n", "-rf", ".hidden", &"a".repeat(201)] {
            assert!(image_file(bad).is_err(), "{bad:?}");
        }
        assert!(image_file("tram-test-2026.11.1.qcow2").is_ok());
    }
}
