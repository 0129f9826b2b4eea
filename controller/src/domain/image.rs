//! Golden images.

use tram_hypervisor::GuestProfile;

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

text_enum! {
    /// The machine an image's system expects.
    Guest {
        /// Linux that starts from a BIOS.
        LinuxBios = "linux-bios",
        /// Linux that starts from UEFI, without Secure Boot.
        LinuxUefi = "linux-uefi",
        /// Windows 10 and 11: UEFI, Secure Boot, TPM 2.0, local time.
        Windows = "windows",
    }
}

impl From<Guest> for GuestProfile {
    fn from(guest: Guest) -> Self {
        match guest {
            Guest::LinuxBios => Self::LinuxBios,
            Guest::LinuxUefi => Self::LinuxUefi,
            Guest::Windows => Self::Windows,
        }
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
