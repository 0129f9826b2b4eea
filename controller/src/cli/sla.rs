//! `sla`: evidence of a line's outages, made and checked with a shell.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::admin::{explain, say};
use super::open;
use crate::config::Config;
use crate::identity::papers::{self, PaperKey, Purpose};
use crate::services::{Ctx, sla};

#[derive(Debug, Subcommand)]
pub(super) enum Sla {
    /// Print the evidence of a site and month: signed JSON, or a table.
    Export {
        /// Code of the site.
        #[arg(long)]
        site: String,
        /// Such as 2026-11.
        #[arg(long)]
        month: String,
        /// A table, not signed.
        #[arg(long)]
        csv: bool,
    },
    /// Say whether a file is exactly what was signed, and what it says. Exit code 1: it is not.
    Verify {
        /// The signed JSON.
        file: PathBuf,
        /// The public key that counts [default: this installation's].
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
    },
    /// Print the public key that evidence of this installation is signed with.
    Key,
}

pub(super) async fn run(config: &Config, what: Sla) -> Result<()> {
    match what {
        Sla::Verify { file, key } => verify(config, &file, key.as_deref()),
        Sla::Key => say(&PaperKey::of(&config.data, sla::KEY_FILE)?.public()),
        Sla::Export { site, month, csv } => {
            let app = open(config).await?;
            let ctx = Ctx::local_admin(app.clock.now());
            if csv {
                let report = sla::report(&app, &ctx, &site, &month).await.map_err(explain)?;
                return say(sla::csv(&report).trim_end());
            }
            let signed = sla::export(&app, &ctx, &site, &month).await.map_err(explain)?;
            say(&serde_json::to_string_pretty(&signed)?)
        }
    }
}

fn verify(config: &Config, file: &Path, key: Option<&str>) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let signed: sla::SignedReport = serde_json::from_str(&text).context("I-511: this is no signed evidence")?;
    if signed.tram_evidence != 1 {
        bail!("I-511: evidence of version {} is not known here", signed.tram_evidence);
    }
    let own = match key {
        Some(key) => key.to_owned(),
        None => PaperKey::open(&config.data.join(sla::KEY_FILE))
            .context("I-512: there is no key here to compare with; give --key")?
            .public(),
    };
    let keys = papers::public_keys([own.as_str()]).map_err(|k| anyhow::anyhow!("I-512: {k:?} is no public key"))?;
    papers::prove(&keys, &signed.key, Purpose::Evidence, &signed.evidence, &signed.signature)
        .map_err(|e| anyhow::anyhow!("I-513: {e}"))?;
    let r: sla::SlaReport = serde_json::from_str(&signed.evidence).context("I-511: the evidence can't be read")?;
    say(&format!("good: signed by {} and not altered", signed.key))?;
    say(&format!("{} ({}), {}, carrier {}", r.site_name, r.site, r.month, r.carrier.as_deref().unwrap_or("unknown")))?;
    for (name, f) in [("around the clock", r.around_the_clock), ("office hours", r.office_hours)] {
        say(&format!(
            "{name}: {:.3} %, {} outages, {} s down of {} s",
            f.availability, f.outages, f.down_s, f.counted_s
        ))?;
    }
    Ok(())
}
