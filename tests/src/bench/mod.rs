//! `make bench`: Tram against known tools, on the same machine in the same run.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

pub mod agent;
pub mod backend;
pub mod client;
pub mod control;
pub mod gateway_process;
pub mod ingest;
pub mod line;
pub mod relay;
pub mod rfb;
pub mod sessions;
pub mod site;
pub mod storm;
pub mod swarm;
pub mod thin;
pub mod tunnel;

/// One measured row; its name is stable.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which one.
    pub row: &'static str,
    /// What Tram takes or reaches; `None` if it could not be measured.
    pub ours: Option<f64>,
    /// What the known tool takes or reaches.
    pub anchor: Option<f64>,
    /// Which tool; or why the row could not run.
    pub anchor_name: String,
    /// Ours by the anchor's.
    pub ratio: Option<f64>,
    /// Of `ours` and `anchor`.
    pub unit: &'static str,
    /// What is to be reached.
    pub goal: &'static str,
    /// Whether it is.
    pub ok: bool,
}

impl Row {
    /// A row that could not run; the reason stands in the place of the anchor.
    #[must_use]
    pub fn failed(row: &'static str, unit: &'static str, goal: &'static str, why: &anyhow::Error) -> Self {
        Self {
            row,
            ours: None,
            anchor: None,
            anchor_name: format!("could not run: {why:#}"),
            ratio: None,
            unit,
            goal,
            ok: false,
        }
    }
}

/// The middle one.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the rows as a table and writes `bench.jsonl` into the cargo target folder. `true` if all are ok.
///
/// # Errors
/// If the file can't be written.
pub fn report(rows: &[Row]) -> Result<bool> {
    let number =
        |n: Option<f64>| n.map_or("-".into(), |n| if n.abs() < 10.0 { format!("{n:.3}") } else { format!("{n:.1}") });
    println!(
        "{:<24} {:>10} {:>10} {:>7} {:<8} {:<26} {:<3} anchor",
        "row", "ours", "anchor", "ratio", "unit", "goal", "ok"
    );
    for r in rows {
        let ok = if r.ok { "yes" } else { "NO" };
        let (ours, anchor, ratio) = (number(r.ours), number(r.anchor), number(r.ratio));
        println!(
            "{:<24} {ours:>10} {anchor:>10} {ratio:>7} {:<8} {:<26} {ok:<3} {}",
            r.row, r.unit, r.goal, r.anchor_name
        );
    }
    let path = target()?.join("bench.jsonl");
    let mut file = std::fs::File::create(&path).with_context(|| format!("{}", path.display()))?;
    for r in rows {
        writeln!(file, "{}", serde_json::to_string(r)?)?;
    }
    println!("written to {}", path.display());
    Ok(rows.iter().all(|r| r.ok))
}

/// The cargo target folder this program was built into.
fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // <target>/<profile>/bench
    exe.ancestors().nth(2).map(PathBuf::from).context("the program stands outside of a cargo target folder")
}
