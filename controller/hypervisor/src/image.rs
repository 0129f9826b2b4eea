//! Is this file a golden image that is safe to hand to QEMU?
//!
//! A qcow2 header can name other files of the host: a backing file, an external data file. QEMU would
//! open them with its own rights, and so a hostile image could read the host's disks into a guest. So we
//! read the header ourselves, within bounds, before any tool sees the file; nothing here is guessed from
//! a name, and QEMU is always told the format, never asked to probe it.
//!
//! The layout is QEMU's `docs/interop/qcow2.txt`; all numbers are big-endian.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The only format of golden images.
pub const FORMAT: &str = "qcow2";

const MAGIC: u32 = 0x5146_49fb;
/// QEMU refuses larger ones too (`QCOW_MAX_L1_SIZE`, `QCOW_MAX_REFTABLE_SIZE`, `QCOW_MAX_SNAPSHOTS`).
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFTABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65_536;
const MAX_EXTENSIONS: usize = 64;

const EXT_END: u32 = 0;
const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXT_DATA_FILE: u32 = 0x4441_5441;
const EXT_CRYPTO: u32 = 0x0537_be77;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = 0b1_1111;

/// What is allowed beyond the format's own rules.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest size a guest may see.
    pub max_virtual_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_virtual_bytes: 2 << 40 }
    }
}

/// An image that may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Always [`FORMAT`].
    pub format: String,
    /// Format version, 2 or 3.
    pub version: u32,
    /// Size a guest sees, in bytes.
    pub virtual_size: u64,
    /// Size of the file, in bytes.
    pub file_size: u64,
    /// Bytes a cluster.
    pub cluster_size: u64,
    /// Internal snapshots inside the file (harmless, but they take room).
    pub snapshots: u32,
}

/// Why an image is refused: what is wrong, what to do, and a stable code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} {advice}")]
pub struct ImageFault {
    /// Stable code, `I-101` and on.
    pub code: &'static str,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub advice: &'static str,
}

const MAKE_STANDALONE: &str = "Make a standalone copy on a machine you trust: qemu-img convert -f qcow2 -O qcow2 IMAGE COPY, and check what it contains.";
const MAKE_AGAIN: &str =
    "Make the image again or copy it again; this file is damaged or was built to look like an image.";
const CONVERT: &str = "Convert it: qemu-img convert -f FORMAT -O qcow2 IMAGE COPY.";

fn fault(code: &'static str, text: impl Into<String>, advice: &'static str) -> ImageFault {
    ImageFault { code, text: text.into(), advice }
}

/// Inspects the file at `path` with the default [`Limits`]. `declared` is the format somebody said it has.
///
/// # Errors
/// An [`ImageFault`] that says what is wrong and what to do.
pub fn inspect(path: &Path, declared: Option<&str>) -> Result<ImageInfo, ImageFault> {
    inspect_with(path, declared, &Limits::default())
}

/// As [`inspect`], with other limits.
///
/// # Errors
/// An [`ImageFault`].
pub fn inspect_with(path: &Path, declared: Option<&str>, limits: &Limits) -> Result<ImageInfo, ImageFault> {
    // Without O_NONBLOCK a named pipe would hold us until somebody writes into it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    inspect_file(&file.map_err(unreadable)?, declared, limits)
}

/// As [`inspect`], on an open file: what was inspected is then what is copied, whatever happens to its name.
///
/// # Errors
/// An [`ImageFault`].
pub fn inspect_file(file: &File, declared: Option<&str>, limits: &Limits) -> Result<ImageInfo, ImageFault> {
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(fault("I-102", "This is not a regular file.", "Give the path of an image file."));
    }
    if let Some(declared) = declared.filter(|d| *d != FORMAT) {
        let shown: String = declared.chars().filter(|c| c.is_ascii_alphanumeric()).take(12).collect();
        return Err(fault("I-105", format!("Images are qcow2, not {shown}."), CONVERT));
    }
    let size = meta.len();
    let mut head = [0; 112];
    let have = read_up_to(file, 0, &mut head).map_err(unreadable)?;
    if have < 8 || be32(&head, 0) != MAGIC {
        let code = if declared.is_some() { "I-105" } else { "I-104" };
        return Err(fault(
            code,
            format!("This is not a qcow2 image; it {}.", looks_like(file, &head[..have])),
            CONVERT,
        ));
    }
    Header::read(file, &head[..have], size)?.check(file, size, limits)
}

/// The header fields that matter here.
struct Header {
    version: u32,
    backing_offset: u64,
    cluster_bits: u32,
    size: u64,
    crypt: u32,
    l1_entries: u32,
    l1_offset: u64,
    reftable_offset: u64,
    reftable_clusters: u32,
    snapshots: u32,
    snapshots_offset: u64,
    incompatible: u64,
    refcount_order: u32,
    length: u64,
    compression: u8,
    extensions: Vec<u32>,
}

impl Header {
    fn read(file: &File, head: &[u8], size: u64) -> Result<Self, ImageFault> {
        let bad = |what: &str| Err(fault("I-107", format!("The qcow2 header is broken: {what}."), MAKE_AGAIN));
        if head.len() < 72 {
            return bad("the file ends inside it");
        }
        let version = be32(head, 4);
        if !matches!(version, 2 | 3) {
            return Err(fault("I-106", format!("qcow2 version {version} is unknown."), CONVERT));
        }
        let v3 = version == 3;
        if v3 && head.len() < 104 {
            return bad("the file ends inside it");
        }
        let length = if v3 { u64::from(be32(head, 100)) } else { 72 };
        let cluster_bits = be32(head, 20);
        if !(9..=21).contains(&cluster_bits) {
            return bad("its cluster size is impossible");
        }
        if (v3 && length < 104) || !length.is_multiple_of(8) || length > 1 << cluster_bits || length > size {
            return bad("its length is impossible");
        }
        let mut header = Self {
            version,
            backing_offset: be64(head, 8),
            cluster_bits,
            size: be64(head, 24),
            crypt: be32(head, 32),
            l1_entries: be32(head, 36),
            l1_offset: be64(head, 40),
            reftable_offset: be64(head, 48),
            reftable_clusters: be32(head, 56),
            snapshots: be32(head, 60),
            snapshots_offset: be64(head, 64),
            incompatible: if v3 { be64(head, 72) } else { 0 },
            refcount_order: if v3 { be32(head, 96) } else { 4 },
            length,
            compression: if length > 104 { head.get(104).copied().unwrap_or(0) } else { 0 },
            extensions: Vec::new(),
        };
        header.read_extensions(file)?;
        Ok(header)
    }

    /// Extensions lie between the header and the end of the first cluster (or the backing file's name).
    fn read_extensions(&mut self, file: &File) -> Result<(), ImageFault> {
        let broken = || fault("I-118", "The qcow2 header extensions are broken.", MAKE_AGAIN);
        let cluster = 1u64 << self.cluster_bits;
        let end = if self.backing_offset == 0 { cluster } else { self.backing_offset.min(cluster) };
        let mut at = self.length;
        while at + 8 <= end {
            let mut head = [0; 8];
            if read_up_to(file, at, &mut head).map_err(unreadable)? < 8 {
                // A version 2 file may be as short as its header; version 3 ends its list explicitly.
                return if self.version == 2 { Ok(()) } else { Err(broken()) };
            }
            let (kind, length) = (be32(&head, 0), u64::from(be32(&head, 4)));
            if kind == EXT_END {
                return Ok(());
            }
            at += 8 + length.next_multiple_of(8);
            if at > end || self.extensions.len() == MAX_EXTENSIONS {
                return Err(broken());
            }
            self.extensions.push(kind);
        }
        Ok(())
    }

    fn check(self, file: &File, size: u64, limits: &Limits) -> Result<ImageInfo, ImageFault> {
        self.check_references()?;
        if self.crypt != 0 || self.extensions.contains(&EXT_CRYPTO) {
            return Err(fault(
                "I-110",
                "The image is encrypted.",
                "Golden images are kept unencrypted; encrypt the host's disk.",
            ));
        }
        if self.size == 0 || self.size > limits.max_virtual_bytes {
            let text = format!("The image claims a disk of {} GiB.", self.size >> 30);
            return Err(fault("I-111", text, "Shrink the image, or raise the limit if such a disk is really meant."));
        }
        self.check_features()?;
        self.check_tables(file, size)?;
        Ok(ImageInfo {
            format: FORMAT.into(),
            version: self.version,
            virtual_size: self.size,
            file_size: size,
            cluster_size: 1 << self.cluster_bits,
            snapshots: self.snapshots,
        })
    }

    /// Nothing outside this file. First of all checks: this is the one that guards the host.
    fn check_references(&self) -> Result<(), ImageFault> {
        // QEMU looks at the offset alone; a length of zero would not make it ignore the field.
        if self.backing_offset != 0 || self.extensions.contains(&EXT_BACKING_FORMAT) {
            return Err(fault("I-108", "The image refers to a backing file.", MAKE_STANDALONE));
        }
        if self.incompatible & INCOMPATIBLE_DATA_FILE != 0 || self.extensions.contains(&EXT_DATA_FILE) {
            return Err(fault("I-109", "The image refers to an external data file.", MAKE_STANDALONE));
        }
        Ok(())
    }

    fn check_features(&self) -> Result<(), ImageFault> {
        if self.incompatible & INCOMPATIBLE_DIRTY != 0 {
            return Err(fault(
                "I-112",
                "The image was not closed properly or is in use.",
                "Shut down whatever uses it, then: qemu-img check -f qcow2 -r all IMAGE.",
            ));
        }
        if self.incompatible & INCOMPATIBLE_CORRUPT != 0 {
            return Err(fault("I-113", "The image is marked as corrupt.", MAKE_AGAIN));
        }
        let unknown = self.incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            let text = format!("The image needs features that are not known here (bits {unknown:#x}).");
            return Err(fault("I-114", text, CONVERT));
        }
        if self.refcount_order > 6 {
            return Err(fault("I-107", "The qcow2 header is broken: its reference counts are impossible.", MAKE_AGAIN));
        }
        let named = self.incompatible & INCOMPATIBLE_COMPRESSION != 0;
        if self.compression > 1 || (self.compression != 0) != named {
            return Err(fault("I-114", "The image is compressed in an unknown way.", CONVERT));
        }
        if self.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 && self.cluster_bits < 14 {
            return Err(fault("I-107", "The qcow2 header is broken: subclusters need larger clusters.", MAKE_AGAIN));
        }
        Ok(())
    }

    /// The tables lie inside the file and are large enough for what the header claims.
    fn check_tables(&self, file: &File, size: u64) -> Result<(), ImageFault> {
        let cluster = 1u64 << self.cluster_bits;
        let inside = |offset: u64, bytes: u64| {
            offset >= cluster
                && offset.is_multiple_of(cluster)
                && offset.checked_add(bytes).is_some_and(|end| end <= size)
        };
        let l1_bytes = u64::from(self.l1_entries) * 8;
        let l2_entry = if self.incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 { 16 } else { 8 };
        let bytes_an_l2 = (cluster / l2_entry) * cluster;
        if l1_bytes > MAX_L1_BYTES
            || u64::from(self.l1_entries) < self.size.div_ceil(bytes_an_l2)
            || !inside(self.l1_offset, l1_bytes)
        {
            return Err(fault("I-115", "The image's cluster table does not fit the file.", MAKE_AGAIN));
        }
        let reftable = u64::from(self.reftable_clusters) << self.cluster_bits;
        if reftable == 0 || reftable > MAX_REFTABLE_BYTES || !inside(self.reftable_offset, reftable) {
            return Err(fault("I-116", "The image's reference table does not fit the file.", MAKE_AGAIN));
        }
        // Each snapshot has at least 40 bytes.
        let snapshots = u64::from(self.snapshots) * 40;
        if self.snapshots > MAX_SNAPSHOTS || (self.snapshots > 0 && !inside(self.snapshots_offset, snapshots)) {
            return Err(fault("I-117", "The image's snapshot table does not fit the file.", MAKE_AGAIN));
        }
        self.check_l1(file, size)
    }

    fn check_l1(&self, file: &File, size: u64) -> Result<(), ImageFault> {
        let outside = || fault("I-115", "The image's cluster table points outside the file.", MAKE_AGAIN);
        let cluster = 1u64 << self.cluster_bits;
        let mut buffer = vec![0; 64 * 1024];
        let (mut at, end) = (self.l1_offset, self.l1_offset + u64::from(self.l1_entries) * 8);
        while at < end {
            let n = usize::try_from((end - at).min(buffer.len() as u64)).unwrap_or(buffer.len());
            if read_up_to(file, at, &mut buffer[..n]).map_err(unreadable)? < n {
                return Err(outside());
            }
            for entry in buffer[..n].chunks_exact(8).map(|e| be64(e, 0)) {
                let offset = entry & 0x00ff_ffff_ffff_fe00;
                if offset != 0
                    && (!offset.is_multiple_of(cluster)
                        || offset.saturating_add(cluster) > size.next_multiple_of(cluster))
                {
                    return Err(outside());
                }
            }
            at += n as u64;
        }
        Ok(())
    }
}

/// For the message only: what a file that is not qcow2 seems to be.
fn looks_like(file: &File, head: &[u8]) -> &'static str {
    let mut boot = [0; 2];
    let mut iso = [0; 5];
    match head {
        [] => "is empty",
        [b'K', b'D', b'M', b'V', ..] => "looks like a VMDK",
        h if h.starts_with(b"# Disk Descriptor") => "looks like a VMDK description, which names other files",
        h if h.starts_with(b"vhdxfile") => "looks like a VHDX",
        h if h.starts_with(b"conectix") => "looks like a VHD",
        h if h.starts_with(b"LUKS") => "looks like an encrypted LUKS volume",
        h if h.starts_with(b"QED\0") => "looks like a QED image",
        h if h.starts_with(b"\x1f\x8b") || h.starts_with(b"\xfd7zXZ") || h.starts_with(b"\x28\xb5\x2f\xfd") => {
            "is compressed"
        }
        h if h.len() > 68 && be32(h, 64) == 0x7f10_dabe => "looks like a VDI",
        _ if read_up_to(file, 0x8001, &mut iso).is_ok_and(|n| n == 5) && &iso == b"CD001" => "looks like an ISO",
        _ if read_up_to(file, 510, &mut boot).is_ok_and(|n| n == 2) && boot == [0x55, 0xaa] => "looks like a raw disk",
        _ => "has no known signature",
    }
}

fn unreadable(e: io::Error) -> ImageFault {
    fault("I-101", format!("The file can't be read: {e}."), "Check the path and its permissions.")
}

/// Reads as much of `buffer` as the file has there.
pub(crate) fn read_up_to(file: &File, mut at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at) {
            Ok(0) => break,
            Ok(n) => (done, at) = (done + n, at + n as u64),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

pub(crate) fn be32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|s| s.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn be64(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|s| s.try_into().ok()).map_or(0, u64::from_be_bytes)
}
