//! `make bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tram_tests::bench::{
    self, agent, control, gateway_process, ingest, line, relay, rfb, sessions, site, storm, swarm, thin, tunnel,
};

#[derive(Parser)]
struct Args {
    /// Only rows whose names match.
    #[arg(long, default_value = "")]
    only: String,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// A gateway in a process of its own; started by the measurements.
    #[command(hide = true)]
    Gateway {
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        host: uuid::Uuid,
        #[arg(long)]
        display: PathBuf,
    },
    /// A relay of two hops in a process of its own; started by the measurements.
    #[command(hide = true)]
    Hops { hops: line::Hops, backend: PathBuf },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    match args.part {
        Some(Part::Gateway { folder, host, display }) => {
            gateway_process::serve(folder, host, display).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Part::Hops { hops, backend }) => {
            line::serve(hops, backend).await?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let only = regex::Regex::new(&args.only).context("--only wants a regular expression")?;
    let wanted = |name: &str| only.is_match(name);
    let mut rows = control::rows(wanted).await;
    rows.extend(relay::rows(wanted).await);
    rows.extend(rfb::rows(wanted).await);
    rows.extend(sessions::rows(wanted).await);
    rows.extend(storm::rows(wanted).await);
    rows.extend(tokio::task::block_in_place(|| tunnel::rows(wanted)));
    rows.extend(thin::rows(wanted).await);
    rows.extend(site::rows(wanted).await);
    rows.extend(tokio::task::block_in_place(|| agent::rows(wanted)));
    rows.extend(ingest::rows(wanted).await);
    rows.extend(swarm::rows(wanted).await);
    let ok = bench::report(&rows)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
