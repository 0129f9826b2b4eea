//! Golden images.

text_enum! {
    /// Whether desktops may be made from an image version.
    ImageState {
        /// Being inspected and copied.
        Checking = "checking",
        /// Published: read-only, never written again.
        Ready = "ready",
        /// Refused; the error says why.
        Failed = "failed",
        /// Kept for desktops that still use it, not offered for new pools.
        Retired = "retired",
    }
}

/// The file name under which an image version is published: `name-version.qcow2`.
#[must_use]
pub fn file_name(name: &str, version: &str) -> String {
    format!("{name}-{version}.qcow2")
}

/// Checks an image version: 1 to 30 of `a-z 0-9 . -`, beginning with a letter or digit.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn check_version(version: &str) -> Result<(), String> {
    let ok = !version.is_empty()
        && version.len() <= 30
        && version.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-'))
        && version.starts_with(|c: char| c.is_ascii_alphanumeric());
    if ok {
        Ok(())
    } else {
        Err("a version is 1 to 30 lower-case letters, digits, dots or hyphens, such as 2026.11.1".into())
    }
}
