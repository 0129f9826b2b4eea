//! `admin update`: releases of the endpoints' agent. Keys, manifests and signatures are made on a machine of their own:
//! these commands need no installation.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tram_wire::update::{FORM, Manifest, Ring, Signature, SignedManifest};
use uuid::Uuid;

use super::admin::{Json, explain, print, say};
use super::file::put;
use crate::clock::Clock;
use crate::domain::lease::hex;
use crate::domain::time::Time;
use crate::identity::papers::{PaperKey, Purpose};
use crate::services::updates::{self, Counts, Wish};
use crate::services::{App, Ctx};
use crate::store::updates::Release;

#[derive(Debug, Subcommand)]
pub(super) enum Update {
    /// Make a key that signs releases; prints its public half, for [updates] keys and updater.toml.
    Key {
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write the manifest of a program, not signed yet.
    Manifest {
        /// The program.
        #[arg(long, value_name = "FILE")]
        program: PathBuf,
        /// Its name, such as 1.4.2.
        #[arg(long)]
        version: String,
        /// Larger than that of every release before it.
        #[arg(long)]
        counter: u64,
        /// For which processors.
        #[arg(long, default_value = std::env::consts::ARCH)]
        arch: String,
        /// The widest ring it may reach: lab, commune, canary, fifth or all.
        #[arg(long, default_value = "all")]
        ring: Ring,
        /// Not taken up after so many days.
        #[arg(long, default_value_t = 30)]
        days: u16,
        /// The oldest protocol its endpoint's updater must know.
        #[arg(long, default_value_t = tram_wire::version::MINIMUM)]
        min_protocol: u16,
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Add a signature to a manifest, after showing what it says.
    Sign {
        /// The key's file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The manifest's file.
        manifest: PathBuf,
    },
    /// Take a signed release in and let it spread.
    Publish {
        /// The program.
        #[arg(long, value_name = "FILE")]
        program: PathBuf,
        /// It is urgent: computers are spread over four hours.
        #[arg(long)]
        hotfix: bool,
        /// Office hours don't matter.
        #[arg(long)]
        any_time: bool,
        /// The manifest's file.
        manifest: PathBuf,
    },
    /// List releases and how they spread.
    List(Json),
    /// Show one with the computers that something went wrong with. JSON.
    Show {
        /// Its version, or its id.
        release: String,
    },
    /// Hold one: no computer begins any more.
    Pause(Asked),
    /// Let one go on; failures so far are forgiven.
    Resume(Asked),
    /// Give one up for good.
    Abort(Asked),
}

#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Its version, or its id.
    release: String,
    /// Why, for those who ask later.
    #[arg(long, default_value = "")]
    reason: String,
}

/// What needs no installation; the rest is given back.
pub(super) fn offline(what: Update) -> Result<Option<Update>> {
    match what {
        Update::Key { out } => {
            let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = out.file_name().and_then(|n| n.to_str()).context("give a file's name")?;
            say(&PaperKey::make(folder, name)?.public())?;
        }
        Update::Manifest { program, version, counter, arch, ring, days, min_protocol, out } => {
            let bytes = std::fs::read(&program).with_context(|| program.display().to_string())?;
            fits(&bytes, &arch).map_err(|why| anyhow::anyhow!("V-101: program: {} {why}", program.display()))?;
            let expires = Clock::system().now().plus(Duration::from_secs(u64::from(days) * 86_400));
            let manifest = Manifest {
                form: FORM,
                version,
                counter,
                arch,
                sha256: hex(&Sha256::digest(&bytes)),
                size: bytes.len() as u64,
                min_protocol,
                ring,
                expires_ms: expires.micros() / 1000,
            };
            manifest.check().map_err(|(code, why)| anyhow::anyhow!("V-101: {code}: {why}"))?;
            ensure!(!out.exists(), "{} exists, and is never written over: give another name", out.display());
            write(&out, &SignedManifest { manifest: serde_json::to_string(&manifest)?, signatures: Vec::new() })?;
        }
        Update::Sign { key, manifest } => {
            let key = PaperKey::open(&key)?;
            let mut signed = read(&manifest)?;
            let says = signed.read().map_err(|(code, why)| anyhow::anyhow!("V-101: {code}: {why}"))?;
            say(&serde_json::to_string_pretty(&says)?)?;
            say(&format!("not taken up after {}", Time::from_micros(says.expires_ms.saturating_mul(1000))))?;
            signed.signatures.retain(|s| s.key != key.id());
            let signature = key.sign(Purpose::Release, &signed.manifest)?;
            signed.signatures.push(Signature { key: key.id(), signature });
            write(&manifest, &signed)?;
            say(&format!("signed by {} of them: {}", signed.signatures.len(), key.id()))?;
        }
        other => return Ok(Some(other)),
    }
    Ok(None)
}

/// Whether a computer with these processors could begin the program: it finds out by itself, but only after it was signed,
/// spread and taken back.
fn fits(program: &[u8], arch: &str) -> Result<(), String> {
    // ELF: the machine is a number of two bytes at 18. A script leaves it to another program.
    let machine = match program {
        [b'#', b'!', ..] => return Ok(()),
        [0x7f, b'E', b'L', b'F', _, order, ..] if program.len() >= 20 => {
            let number = [program[18], program[19]];
            if *order == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) }
        }
        _ => return Err("is no program: neither ELF nor a script".to_owned()),
    };
    match [("x86", 3), ("arm", 40), ("x86_64", 62), ("aarch64", 183), ("riscv64", 243)]
        .iter()
        .find(|(_, m)| *m == machine)
    {
        Some((is, _)) if *is != arch => Err(format!("is for {is}, not for {arch}: name its processors with --arch")),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<SignedManifest> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is no manifest's file", path.display()))
}

fn write(path: &Path, signed: &SignedManifest) -> Result<()> {
    let text = serde_json::to_string_pretty(signed)?;
    put(path, &(text + "\n")).with_context(|| path.display().to_string())
}

pub(super) async fn run(app: &App, ctx: &Ctx, what: Update) -> Result<()> {
    match what {
        Update::Publish { program, hotfix, any_time, manifest } => {
            let signed = read(&manifest)?;
            let r = updates::publish(app, ctx, signed, &program, (hotfix, any_time)).await.map_err(explain)?;
            say(&format!("{} {}", r.version, r.id))
        }
        Update::List(how) => print(how, updates::list(app, ctx).await.map_err(explain)?.iter().map(|(r, c)| row(r, c))),
        Update::Show { release } => {
            let id = find(app, ctx, &release).await?;
            let known = updates::get(app, ctx, id).await.map_err(explain)?;
            let mut shown = row(&known.release, &known.counts);
            (shown["copies"], shown["bytes_from_copies"]) = (known.copies.into(), known.from_peers.into());
            let release = known.release;
            let failures = known.failures.iter().map(|m| {
                json!({"endpoint": m.endpoint_id, "name": m.endpoint_name, "site": m.site_code, "ring": m.ring, "stage": m.stage,
                    "code": m.code, "detail": m.detail, "strikes": m.strikes, "at": Time::from_micros(m.changed_at)})
            });
            shown["failures"] = failures.collect::<Vec<Value>>().into();
            shown["sha256"] = release.sha256.into();
            shown["signed_by"] = release.signatures.iter().map(|s| s.key.clone()).collect::<Vec<_>>().into();
            say(&serde_json::to_string_pretty(&shown)?)
        }
        Update::Pause(a) => wish(app, ctx, &a, Wish::Pause).await,
        Update::Resume(a) => wish(app, ctx, &a, Wish::Resume).await,
        Update::Abort(a) => wish(app, ctx, &a, Wish::Abort).await,
        Update::Key { .. } | Update::Manifest { .. } | Update::Sign { .. } => Ok(()),
    }
}

async fn wish(app: &App, ctx: &Ctx, asked: &Asked, wish: Wish) -> Result<()> {
    let id = find(app, ctx, &asked.release).await?;
    updates::wish(app, ctx, id, wish, &asked.reason).await.map_err(explain)?;
    let release = updates::get(app, ctx, id).await.map_err(explain)?.release;
    say(&format!("{} is {}", release.version, release.state))
}

async fn find(app: &App, ctx: &Ctx, text: &str) -> Result<Uuid> {
    let all = updates::list(app, ctx).await.map_err(explain)?;
    // The newest of a name: it may have been published for several kinds of processors.
    match all.iter().find(|(r, _)| r.version == text || r.id.to_string() == text) {
        Some((r, _)) => Ok(r.id),
        None => bail!("there is no release {text}; see `admin update list`"),
    }
}

fn row(r: &Release, counts: &Counts) -> Value {
    let rings: Vec<Value> = counts
        .iter()
        .map(|(ring, c)| {
            json!({"ring": ring, "open": *ring <= r.ring, "total": c.total, "committed": c.committed, "busy": c.busy,
                "failed": c.failed, "silent": c.silent})
        })
        .collect();
    json!({"version": r.version, "counter": r.counter, "arch": r.arch, "state": r.state, "ring": r.ring, "reason": r.reason,
        "hotfix": r.hotfix, "rings": rings, "expires_at": Time::from_micros(r.expires_at), "id": r.id})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_begin_on_these_processors_is_not_signed() {
        let elf = |order: u8, machine: [u8; 2]| [&b"\x7fELF\x02"[..], &[order], &[0; 12], &machine].concat();
        assert_eq!(fits(&elf(1, [62, 0]), "x86_64"), Ok(()));
        assert_eq!(fits(&elf(2, [0, 183]), "aarch64"), Ok(()));
        assert_eq!(fits(b"#!/bin/sh\n", "x86_64"), Ok(()));
        // Processors that we have no name for are the signer's affair.
        assert_eq!(fits(&elf(1, [1, 2]), "loongarch64"), Ok(()));
        assert!(fits(&elf(1, [183, 0]), "x86_64").unwrap_err().contains("is for aarch64"));
        for no_program in [&b""[..], b"\x7fELF", b"{}", &elf(1, [62, 0])[..19]] {
            assert!(fits(no_program, "x86_64").unwrap_err().contains("no program"), "{no_program:?}");
        }
    }
}
