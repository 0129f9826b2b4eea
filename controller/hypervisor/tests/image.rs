//! Golden images and overlays, checked against `qemu-img` and against random damage.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tram_hypervisor::image::{ImageFault, Limits, inspect, inspect_file, inspect_with};
use tram_hypervisor::overlay::{self, Mark, State};
use tram_hypervisor::{DesktopId, InstallationId};
use uuid::Uuid;

fn qemu_img(args: &[&str]) -> String {
    let out = Command::new("qemu-img").args(args).output().expect("qemu-img (package qemu-utils) is needed");
    assert!(out.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn golden(folder: &Path, options: &str, size: &str) -> PathBuf {
    let path = folder.join(format!("golden-{}.qcow2", Uuid::new_v4()));
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, path.to_str().unwrap(), size]);
    path
}

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn code(path: &Path) -> &'static str {
    inspect(path, None).expect_err("must be refused").code
}

#[test]
fn what_qemu_made_is_accepted_with_the_same_facts() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=4096",
        "cluster_size=2M",
        "compression_type=zstd",
        "extended_l2=on,cluster_size=128k",
        "lazy_refcounts=on",
        "refcount_bits=1",
    ];
    for kind in kinds {
        let path = golden(dir.path(), kind, "5G");
        let ours = inspect(&path, Some("qcow2")).unwrap_or_else(|e: ImageFault| panic!("{kind}: {e}"));
        let theirs: serde_json::Value =
            serde_json::from_str(&qemu_img(&["info", "-f", "qcow2", "--output=json", path.to_str().unwrap()])).unwrap();
        assert_eq!(theirs["virtual-size"], ours.virtual_size, "{kind}");
        assert_eq!(theirs["cluster-size"], ours.cluster_size, "{kind}");
        assert_eq!(theirs["format"], "qcow2");
    }
}

#[test]
fn a_snapshot_inside_the_file_is_no_danger() {
    let dir = tempfile::tempdir().unwrap();
    let path = golden(dir.path(), "compat=1.1", "1G");
    qemu_img(&["snapshot", "-c", "before", path.to_str().unwrap()]);
    assert_eq!(inspect(&path, None).unwrap().snapshots, 1);
    patch(&path, 64, &u64::MAX.to_be_bytes());
    assert_eq!(code(&path), "I-117");
}

#[test]
fn references_to_other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden(dir.path(), "compat=1.1", "1G");
    let over = dir.path().join("over.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base.to_str().unwrap(), over.to_str().unwrap()]);
    assert_eq!(code(&over), "I-108");

    // A backing file named without its format, and a raw "backing file" that is the host's own secret.
    let shadow = golden(dir.path(), "compat=0.10", "1G");
    patch(&shadow, 8, &1024u64.to_be_bytes());
    patch(&shadow, 16, &11u32.to_be_bytes());
    patch(&shadow, 1024, b"/etc/shadow");
    assert_eq!(code(&shadow), "I-108");
    // A length of zero must not hide the offset.
    patch(&shadow, 16, &0u32.to_be_bytes());
    assert_eq!(code(&shadow), "I-108");

    let data = dir.path().join("data.raw");
    let with_data = golden(dir.path(), &format!("data_file={}", data.display()), "1G");
    assert_eq!(code(&with_data), "I-109");
    // The name alone, without the bit, is suspicious enough.
    patch(&with_data, 72, &0u64.to_be_bytes());
    assert_eq!(code(&with_data), "I-109");
}

#[test]
fn encrypted_images_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("luks.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc123", "-o"])
        .args(["encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", path.to_str().unwrap(), "64M"])
        .status()
        .unwrap();
    assert!(made.success());
    assert_eq!(code(&path), "I-110");
    let aes = golden(dir.path(), "compat=0.10", "1G");
    patch(&aes, 32, &1u32.to_be_bytes());
    assert_eq!(code(&aes), "I-110");
}

#[test]
fn other_formats_and_lies_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    for (name, bytes, says) in [
        ("empty.qcow2", b"".as_slice(), "empty"),
        ("sparse.qcow2", b"KDMV\0\0\0\0\0", "VMDK"),
        ("descriptor.qcow2", b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/shadow\" 0", "names other files"),
        ("x.qcow2", b"vhdxfile....", "VHDX"),
        ("text.qcow2", b"hello, this is text and not an image", "no known signature"),
    ] {
        let path = file(name, bytes);
        assert_eq!(code(&path), "I-104", "{name}");
        let lie = inspect(&path, Some("qcow2")).unwrap_err();
        assert_eq!(lie.code, "I-105", "{name}");
        assert!(lie.text.contains(says), "{name}: {}", lie.text);
        assert!(!lie.advice.is_empty());
    }
    let mut raw = vec![0; 4096];
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(inspect(&file("raw.qcow2", &raw), None).unwrap_err().text.contains("raw disk"));
    assert_eq!(inspect(&golden(dir.path(), "compat=1.1", "1G"), Some("raw")).unwrap_err().code, "I-105");
    assert_eq!(code(dir.path()), "I-102");
    assert_eq!(code(&dir.path().join("not there")), "I-101");
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(code(&fifo), "I-102", "and it must not wait for a writer");
}

#[test]
fn broken_headers_are_refused_with_their_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let check = |at: u64, bytes: &[u8], want: &str| {
        let path = golden(dir.path(), "compat=1.1", "1G");
        patch(&path, at, bytes);
        assert_eq!(code(&path), want, "patched at {at}");
    };
    check(4, &4u32.to_be_bytes(), "I-106");
    check(20, &8u32.to_be_bytes(), "I-107");
    check(20, &22u32.to_be_bytes(), "I-107");
    check(20, &u32::MAX.to_be_bytes(), "I-107");
    check(96, &7u32.to_be_bytes(), "I-107");
    check(100, &96u32.to_be_bytes(), "I-107");
    check(100, &u32::MAX.to_be_bytes(), "I-107");
    check(24, &0u64.to_be_bytes(), "I-111");
    check(24, &u64::MAX.to_be_bytes(), "I-111");
    check(24, &(3u64 << 40).to_be_bytes(), "I-111");
    check(72, &1u64.to_be_bytes(), "I-112");
    check(72, &2u64.to_be_bytes(), "I-113");
    check(72, &(1u64 << 40).to_be_bytes(), "I-114");
    check(72, &8u64.to_be_bytes(), "I-114");
    check(36, &0u32.to_be_bytes(), "I-115");
    check(36, &u32::MAX.to_be_bytes(), "I-115");
    check(40, &(1u64 << 40).to_be_bytes(), "I-115");
    check(40, &u64::MAX.to_be_bytes(), "I-115");
    check(48, &7u64.to_be_bytes(), "I-116");
    check(56, &u32::MAX.to_be_bytes(), "I-116");
    check(60, &u32::MAX.to_be_bytes(), "I-117");
    check(104 + 8, &[0xff; 8], "I-118");
    let path = golden(dir.path(), "compat=1.1", "1G");
    let small = inspect_with(&path, None, &Limits { max_virtual_bytes: 1 << 20 }).unwrap_err();
    assert_eq!(small.code, "I-111");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(90).unwrap();
    assert_eq!(code(&path), "I-107");
}

/// 8,000 damaged headers: never a panic, and whatever is accepted names no other file to qemu-img.
#[test]
fn random_damage_never_panics_and_never_opens_a_door() {
    let dir = tempfile::tempdir().unwrap();
    let good = fs::read(golden(dir.path(), "compat=1.1", "1G")).unwrap();
    let mut rng = StdRng::seed_from_u64(20_261_123);
    let path = dir.path().join("damaged.qcow2");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let mut accepted = 0;
    for round in 0..8_000 {
        let mut bytes = good[..good.len().min(600)].to_vec();
        if round % 4 == 0 {
            rng.fill(&mut bytes[8..]);
        }
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len().min(200));
            bytes[at] = if rng.random() { rng.random() } else { bytes[at] ^ (1 << rng.random_range(0..8)) };
        }
        bytes.truncate(if round % 3 == 0 { rng.random_range(0..600) } else { 600 });
        // The rest of its length is there, so that damage elsewhere than in the length gets its chance.
        bytes.resize(600, 0);
        file.write_all_at(&bytes, 0).unwrap();
        file.set_len(good.len() as u64).unwrap();
        if inspect_file(&file, None, &Limits::default()).is_err() {
            continue;
        }
        accepted += 1;
        if accepted % 400 == 1 {
            let out =
                Command::new("qemu-img").args(["info", "-f", "qcow2", "--output=json"]).arg(&path).output().unwrap();
            let info = String::from_utf8_lossy(&out.stdout);
            assert!(!info.contains("backing-filename") && !info.contains("\"data-file\""), "{info}");
        }
    }
    assert!(accepted > 100, "the damage was so heavy that nothing was proven: {accepted}");
}

fn mark(generation: i64) -> Mark {
    Mark { installation: InstallationId(Uuid::new_v4()), desktop: DesktopId(Uuid::now_v7()), generation }
}

#[test]
fn our_overlay_is_one_qemu_agrees_with() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden(dir.path(), "compat=1.1", "3G");
    for size in [3u64 << 30, 40 << 30, 2 << 40] {
        let mark = mark(7);
        overlay::create(dir.path(), mark, &base, size).unwrap();
        let path = overlay::path_of(dir.path(), mark.desktop);
        let file = path.to_str().unwrap();
        qemu_img(&["check", "-q", "-f", "qcow2", file]);
        let info: serde_json::Value =
            serde_json::from_str(&qemu_img(&["info", "-f", "qcow2", "--output=json", file])).unwrap();
        assert_eq!(info["virtual-size"], size);
        assert_eq!(info["backing-filename"], base.to_str().unwrap());
        assert_eq!(info["backing-filename-format"], "qcow2");
        assert_eq!(overlay::state(dir.path(), mark.desktop).unwrap(), State::Ours(mark));
        assert_eq!(code(&path), "I-108", "an overlay is no golden image");
    }
}

#[test]
fn a_guest_can_write_to_our_overlay_and_the_mark_stays() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden(dir.path(), "compat=1.1", "1G");
    let before = fs::read(&base).unwrap();
    let mark = mark(1);
    overlay::create(dir.path(), mark, &base, 2 << 30).unwrap();
    let path = overlay::path_of(dir.path(), mark.desktop);
    let file = path.to_str().unwrap();
    let io = |args: &[&str]| {
        let out = Command::new("qemu-io").args(["-f", "qcow2"]).args(args).arg(file).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && !text.contains("failed"), "{text} {}", String::from_utf8_lossy(&out.stderr));
    };
    io(&["-c", "write -P 7 0 1M", "-c", "write -P 9 1900M 64k", "-c", "flush"]);
    io(&["-c", "read -P 7 0 1M", "-c", "read -P 9 1900M 64k", "-c", "read -P 0 500M 1M"]);
    qemu_img(&["check", "-q", "-f", "qcow2", file]);
    // Header rewritten by QEMU: an unknown extension has to survive.
    qemu_img(&["amend", "-f", "qcow2", "-o", "lazy_refcounts=on", file]);
    assert_eq!(overlay::state(dir.path(), mark.desktop).unwrap(), State::Ours(mark));
    assert_eq!(fs::read(&base).unwrap(), before, "the golden image must not change");
}

#[test]
fn only_our_overlays_are_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden(dir.path(), "compat=1.1", "1G");
    let (ours, theirs) = (mark(3), mark(4));
    overlay::create(dir.path(), ours, &base, 1 << 30).unwrap();
    overlay::create(dir.path(), theirs, &base, 1 << 30).unwrap();
    let (stranger, link, broken) = (mark(0), mark(0), mark(0));
    fs::write(overlay::path_of(dir.path(), stranger.desktop), b"not ours at all").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", overlay::path_of(dir.path(), link.desktop)).unwrap();
    fs::write(overlay::path_of(dir.path(), broken.desktop), [0; 4096]).unwrap();
    let half = mark(0);
    fs::write(dir.path().join(format!(".{}.new", half.desktop)), b"QFI").unwrap();

    let mut found = overlay::list(dir.path(), ours.installation).unwrap();
    found.sort_by_key(|f| f.0);
    let mut want = vec![(ours.desktop, Some(ours)), (broken.desktop, None), (half.desktop, None)];
    want.sort_by_key(|f| f.0);
    assert_eq!(found, want);

    for id in [ours, theirs, stranger, link, broken, half].map(|m| m.desktop) {
        overlay::remove(dir.path(), id, ours.installation).unwrap();
    }
    for kept in [theirs, stranger] {
        assert!(overlay::path_of(dir.path(), kept.desktop).exists());
    }
    assert!(fs::symlink_metadata(overlay::path_of(dir.path(), link.desktop)).is_ok());
    assert!(overlay::list(dir.path(), ours.installation).unwrap().is_empty());
}

#[test]
fn impossible_overlays_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let long = PathBuf::from(format!("/{}", "a".repeat(1100)));
    for (backing, size) in [
        (Path::new("relative"), 1 << 30),
        (long.as_path(), 1 << 30),
        (Path::new("/x"), 0),
        (Path::new("/x"), 513),
        (Path::new("/x"), u64::MAX - 511),
    ] {
        assert!(overlay::create(dir.path(), mark(1), backing, size).is_err(), "{} {size}", backing.display());
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
