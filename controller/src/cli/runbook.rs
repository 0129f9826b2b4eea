//! `runbook`: making, signing and checking runbooks. Needs no database and no installation, except to list.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;

use super::admin::{Json, print, say};
use super::file::put;
use crate::config::Config;
use crate::domain::runbook::{self, Runbook as Book};
use crate::identity::papers::{PaperKey, Purpose};
use crate::identity::shelf;

#[derive(Debug, Subcommand)]
pub(super) enum Runbook {
    /// Make a key that signs runbooks; prints its public half, for `[runbooks] keys`.
    Keygen {
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign runbooks in place: a line at the end, over everything before it.
    Sign {
        /// The key's file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The runbooks.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Say whether runbooks are well written and signed by a key that is configured here.
    Check {
        /// Only what is written; not the signature.
        #[arg(long)]
        unsigned: bool,
        /// The runbooks.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// List the runbooks of this installation, those that are refused too.
    List(Json),
    /// Write the program's own runbooks into a folder, as a beginning for one's own. What was altered there is kept.
    Export {
        /// Write over what was altered, too.
        #[arg(long)]
        force: bool,
        /// The folder.
        folder: PathBuf,
    },
}

pub(super) fn run(config: &Config, what: Runbook) -> Result<()> {
    match what {
        Runbook::Keygen { out } => {
            let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = out.file_name().and_then(|n| n.to_str()).context("give a file's name")?;
            say(&PaperKey::make(folder, name)?.public())
        }
        Runbook::Sign { key, files } => {
            let key = PaperKey::open(&key)?;
            files.iter().try_for_each(|file| sign(&key, file).with_context(|| file.display().to_string()))
        }
        Runbook::Check { unsigned, files } => check(config, unsigned, &files),
        Runbook::List(json) => list(config, json),
        Runbook::Export { folder, force } => export(&folder, force),
    }
}

fn export(folder: &Path, force: bool) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut kept = 0;
    for (id, text) in shelf::built_in() {
        let file = folder.join(format!("{id}.toml"));
        let shown = file.display();
        match std::fs::read(&file) {
            Ok(there) if there == text.as_bytes() => say(&format!("{shown}: is the program's already"))?,
            Ok(_) if !force => {
                kept += 1;
                say(&format!("{shown}: R-406: kept, it was altered or signed; --force writes over it"))?;
            }
            _ => {
                put(&file, text).with_context(|| shown.to_string())?;
                say(&format!("{shown}: written"))?;
            }
        }
    }
    if kept > 0 {
        bail!("{kept} were kept as they are");
    }
    Ok(())
}

fn sign(key: &PaperKey, file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file)?;
    let body = runbook::body(&text);
    if let Err(faults) = Book::parse(&body) {
        bail!("R-404: {}", faults.join("; "));
    }
    put(file, &runbook::signed(&text, &key.id(), &key.sign(Purpose::Runbook, &body)?))?;
    say(&format!("{}: signed by {}", file.display(), key.id()))
}

fn check(config: &Config, unsigned: bool, files: &[PathBuf]) -> Result<()> {
    let mut bad = 0;
    for file in files {
        let found = if unsigned {
            let text = std::fs::read_to_string(file).map_err(|e| ("R-405", e.to_string()));
            text.and_then(|t| Book::parse(&runbook::body(&t)).map_err(|f| ("R-404", f.join("; "))))
        } else {
            shelf::open(file, &config.runbooks.keys).map(|(book, _)| book)
        };
        match found {
            Ok(book) => say(&format!("{}: {} version {} is good", file.display(), book.id, book.version))?,
            Err((code, why)) => {
                bad += 1;
                say(&format!("{}: {code}: {why}", file.display()))?;
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of {} are not good", files.len());
    }
    Ok(())
}

fn list(config: &Config, how: Json) -> Result<()> {
    let (books, refused) = config.runbooks.read();
    let good = books.iter().map(|b| {
        json!({"id": b.runbook.id, "version": b.runbook.version, "title": b.runbook.title.vi, "file": b.file, "key": b.key})
    });
    let bad = refused.iter().map(|r| json!({"file": r.file, "refused": r.code, "why": r.message}));
    print(how, good.chain(bad))
}
